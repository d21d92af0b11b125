"""The acts of `store.lua`, as calls; and what the beat thread does with them.

Nothing here decides anything about a job: the scripts do, atomically.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple

from headway._thread_link import ThreadLink
from headway._wire import ANSWER_S, Call, Script
from headway.keys import Keys
from headway.limits import LOG_LINES

__all__ = ["NO_LINES", "SCRIPTS", "Acts", "Lines", "ThreadStore", "milliseconds"]


def _scripts() -> dict[str, Script]:
    text = files("headway").joinpath("store.lua").read_text()
    preamble, *acts = text.split("\n---- act ")
    named = (act.partition("\n") for act in acts)
    return {name.strip(): Script.of(f"{preamble}\n{body}") for name, _, body in named}


SCRIPTS: Final = _scripts()


class Lines(NamedTuple):
    """Lines of a job's log; *number* is how many came before them in this attempt."""

    number: int
    texts: Sequence[str]


NO_LINES: Final = Lines(0, ())


class Acts:
    """Builds the calls. Shared by the loop's store and the thread's."""

    def __init__(self, keys: Keys, worker: str, log_lines: int) -> None:
        self.keys = keys
        self.worker = worker
        self._log_lines = log_lines

    def _act(self, name: str, keys: Sequence[str], *args: str | int) -> Call:
        return Call(SCRIPTS[name], (len(keys), *keys, *args))

    def _two(self, job_id: str) -> tuple[str, str]:
        return self.keys.record(job_id), self.keys.leases(job_id[:2])

    def _three(self, job_id: str) -> tuple[str, str, str]:
        return (*self._two(job_id), self.keys.ends(job_id[:2]))

    def _numbered(self, lines: Lines) -> tuple[str | int, ...]:
        return (self._log_lines, lines.number, *lines.texts) if lines.texts else ()

    def beat_call(
        self,
        job_id: str,
        attempt: int,
        lease_s: float,
        *,
        progress: str = "",
        checkpoint: str = "",
        lines: Lines = NO_LINES,
    ) -> Call:
        return self._act(
            "beat", self._two(job_id), job_id, self.worker, attempt, milliseconds(lease_s),
            progress, checkpoint, *self._numbered(lines),
        )  # fmt: skip

    def hold_calls(self, job_ids: Iterable[str], lease_s: float) -> list[Call]:
        by_partition: dict[str, list[str]] = {}
        for job_id in job_ids:
            by_partition.setdefault(job_id[:2], []).append(job_id)
        return [
            self._act("hold", [self.keys.leases(p)], milliseconds(lease_s), *ids)
            for p, ids in by_partition.items()
        ]


class ThreadStore(Acts):
    """What the beat thread may do: renew leases and write progress, many jobs in one trip."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        worker: str,
        *,
        log_lines: int = LOG_LINES,
        answer_s: float = ANSWER_S,
    ) -> None:
        super().__init__(keys, worker, log_lines)
        self._link = ThreadLink(url, answer_s=answer_s)

    def send(self, calls: Sequence[Call]) -> list[Any]:
        """One round trip. An answer may be a `StoreError`; raises StoreUnavailable if none came."""
        return self._link.call_all(calls)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def milliseconds(seconds: float) -> int:
    """As the scripts take times."""
    return round(seconds * 1000)
