"""What the keys in the store are called, and the channels. Pure.

What stands under them, who writes it and who removes it: the data model at the top of `store.lua`.
All that belongs to one job has its partition in braces, the hash tag of a cluster.
"""

from __future__ import annotations

from hashlib import blake2b

from headway.errors import BadInput

__all__ = ["Keys", "digest"]


class Keys:
    """The names of everything that Headway keeps under one prefix."""

    def __init__(self, prefix: str, partitions: int) -> None:
        if not prefix or any(c in prefix for c in "{} \n") or ":job:" in f":{prefix}:":
            raise BadInput(
                f"prefix {prefix!r}: use a word without braces or spaces, like 'headway'"
            )
        self.prefix = prefix
        self.partitions = partitions

    def record(self, job_id: str) -> str:
        """Also the channel on which the job's changes are announced."""
        return f"{self.prefix}:{{{job_id[:2]}}}:job:{job_id}"

    def log(self, job_id: str) -> str:
        return f"{self.prefix}:{{{job_id[:2]}}}:log:{job_id}"

    def tries(self, job_id: str) -> str:
        return f"{self.prefix}:{{{job_id[:2]}}}:tries:{job_id}"

    def leases(self, partition: str) -> str:
        """Also the channel on which workers are told to stop or to look for work."""
        return f"{self.prefix}:{{{partition}}}:leases"

    def ends(self, partition: str) -> str:
        return f"{self.prefix}:{{{partition}}}:ends"

    def flight(self, job_id: str, flight: str) -> str:
        return f"{self.prefix}:{{{job_id[:2]}}}:key:{flight}"

    def owner(self, owner: str) -> str:
        return f"{self.prefix}:owner:{digest(owner)}"

    def active(self, owner: str) -> str:
        return f"{self.prefix}:active:{digest(owner)}"

    def pace(self, whose: str) -> str:
        return f"{self.prefix}:pace:{digest(whose)}"

    def once(self, request: str) -> str:
        return f"{self.prefix}:once:{digest(request)}"

    def all_partitions(self) -> list[str]:
        return [f"{n:02x}" for n in range(self.partitions)]

    def control(self) -> list[str]:
        return [self.leases(p) for p in self.all_partitions()]


def digest(text: str) -> str:
    """Stands for *text* in a name: of one length, and without a sign that means something."""
    return blake2b(text.encode(), digest_size=16).hexdigest()
