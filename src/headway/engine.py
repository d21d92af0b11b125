"""What an engine is, and what it gets of the process that it serves. Pure.

An engine brings about that accepted jobs run, somewhere. What it sends is only a wake-up: whether a
job is to be run, and by whom, is decided by `claim` in the store. So it may lose, delay or double
what it was given, and no job is lost or run twice by that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Engine", "Workplace"]


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a process has for its engine.

    Args:
        run: runs a job here, if it is to be run; answers seconds, if it is to have another attempt
            by this process then. May raise StoreError.
        sent: told the id of a job of which a message is out: this process holds it no longer. If
            nobody has begun it after so many seconds, any process may send another message.
        concurrency: how many jobs may run here at a time.
        works: false if this process only accepts and shows, and workers elsewhere run the jobs.
    """

    run: Callable[[str], Awaitable[float | None]]
    sent: Callable[[str, float], object]
    concurrency: int
    works: bool


class Engine(Protocol):
    """Brings job ids to `Workplace.run`, somewhere, some time; never more than can run there."""

    @property
    def workers(self) -> str | None:
        """The command that starts a worker; None if jobs run where they are accepted."""

    @property
    def room(self) -> int:
        """How many more jobs of processes that died this one could take over now."""

    def bind(self, headway: Any) -> None:
        """Told once, when its `Headway` is made, which one that is."""

    def held(self) -> Iterable[str]:
        """Ids of jobs that wait in this process, whose leases are renewed. From any thread."""

    async def serve(self, place: Workplace) -> None:
        """Begin; returns at once. May be called again after `leave()`."""

    async def submit(self, job_id: str, attempt: int) -> None:
        """Bring about that it is run; *attempt* is the last one. This process holds it until then.

        Never waits for a broker."""

    def aside(self) -> AbstractContextManager[None]:
        """Around the waiting of a job for jobs: it does not count as running meanwhile."""

    def stop_taking(self) -> list[str]:
        """Begin no more runs. Returns the ids that waited, which are no longer held."""

    async def aclose(self, drain_s: float) -> None:
        """Begin no more runs; return when none runs here any more, or after *drain_s* seconds."""

    async def leave(self) -> None:
        """Let go of connections; after `aclose()`, whatever still runs."""
