"""What is known of the jobs that somebody watches from a terminal. Pure.

Sources tell it what they hear, in any order and any number of times; screens show what it knows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from headway.job import State
from headway.words import Doc, state_of

__all__ = ["FAILED", "LOST", "Entry", "Following", "Source", "Wanted"]

FAILED: Final = 1
LOST: Final = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs to list. None lets all pass; `everybody`: not only those of who asks."""

    owner: str | None = None
    state: str | None = None
    task: str | None = None
    everybody: bool = False


class Entry(NamedTuple):
    """A job, and whose it is, as far as that is told."""

    owner: str | None
    job: Doc


class Source(Protocol):
    """Where jobs are seen and cancelled: the store itself, or a server that has them."""

    async def follow(self, following: Following) -> None:
        """Tell *following* of each change, until all of its jobs have ended or are lost."""

    def entries(self, wanted: Wanted) -> AsyncGenerator[Entry, None]:
        """Jobs with their owners, newest first, page by page as they are taken."""

    async def cancel(self, job_id: str) -> Doc:
        """Ask a job to stop; as it is after asking."""


class Following:
    """The jobs, each with its newest document.

    `told` is called with the id of a job of which there is news, or None for all of them.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = tuple(dict.fromkeys(ids))
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lost: dict[str, str] = {}
        """Why nothing more will be heard of a job: "gone" or "forbidden"."""
        self.connection = "connecting"
        self.ahead_s = 0.0
        """How far the clock here is ahead of the server's."""
        self.told: Callable[[str | None], None] = lambda _: None

    @property
    def going(self) -> list[str]:
        """Those of which there is more to hear."""
        return [i for i in self.ids if i not in self.lost and not self._ended(i)]

    def _ended(self, job_id: str) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and State(job["state"]).terminal

    def take(self, job: dict[str, Any]) -> None:
        """Take a document, if it is of one of the jobs and news."""
        job_id, before = job["id"], self.jobs.get(job["id"])
        if job_id not in self.ids or (before and job["rev"] <= before["rev"]):
            return
        self.jobs[job_id] = _forward(job, before)
        self.told(job_id)

    def lose(self, job_id: str, why: str) -> None:
        """There is no such job any more ("gone"), or it may not be seen ("forbidden")."""
        if job_id in self.going:
            self.lost[job_id] = why
            self.told(job_id)

    def connect(self, state: str) -> None:
        """The connection is "open", or "reconnecting": what is shown may be old."""
        if state != self.connection:
            self.connection = state
            self.told(None)

    def state(self, job_id: str, now: float) -> str:
        """What to show of a job, in one word."""
        if job_id in self.lost:
            return self.lost[job_id]
        job = self.jobs.get(job_id)
        if job is None or (self.connection == "reconnecting" and not self._ended(job_id)):
            return "reconnecting" if self.connection == "reconnecting" else "connecting"
        return state_of(job, now - self.ahead_s)

    @property
    def code(self) -> int:
        """What the command exits with when all is over."""
        if self.lost:
            return LOST
        good = all(job["state"] == "succeeded" for job in self.jobs.values())
        return 0 if good else FAILED


def _forward(job: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The job, no less far than it was shown in the same attempt."""
    if before is None or before["attempt"] != job["attempt"]:
        return job
    ratio, least = job["progress"]["ratio"], before["progress"]["ratio"]
    if ratio is None or least is None or ratio >= least:
        return job
    return {**job, "progress": {**job["progress"], "ratio": least}}
