"""What a store says of itself: who it is, and what becomes of its data."""

from __future__ import annotations

from typing import NamedTuple

from headway._link import Link
from headway._wire import Call
from headway.errors import StoreError

__all__ = ["OLDEST", "Condition", "condition"]

OLDEST = {"redis": (7, 0), "valkey": (7, 2)}


class Condition(NamedTuple):
    """Of one server. None is what it does not tell, or what its user may not ask."""

    kind: str
    version: str | None
    policy: str | None
    appends: bool | None
    replica: bool | None

    @property
    def too_old(self) -> bool:
        """True if it is known to lack what Headway needs."""
        if self.version is None:
            return False
        major, minor, *_ = (int(part) for part in self.version.split("."))
        return (major, minor) < OLDEST[self.kind]


async def condition(url: str) -> Condition:
    """Ask the store. Two round trips.

    Raises:
        StoreError: it does not answer, or refuses the login.
    """
    link = Link(url)
    link.open()
    try:
        await link.call(Call(None, ("PING",)))
        told = await _info(link)
    finally:
        await link.aclose()
    valkey = told.get("valkey_version")
    return Condition(
        kind="valkey" if valkey else "redis",
        version=valkey or told.get("redis_version"),
        policy=told.get("maxmemory_policy"),
        appends=told["aof_enabled"] == "1" if "aof_enabled" in told else None,
        replica=told["role"] == "slave" if "role" in told else None,
    )


async def _info(link: Link) -> dict[str, str]:
    try:
        told = await link.call(Call(None, ("INFO",)))  # the client has taken it apart
    except StoreError:
        return {}  # its user may not ask; what needs to be told is told as not known
    return {name: str(value) for name, value in told.items()}
