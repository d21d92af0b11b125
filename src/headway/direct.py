"""Jobs straight from the store, for whoever may read it: the same as `Client`, without a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from headway.app import Headway
from headway.document import document
from headway.following import Entry, Following, Wanted
from headway.job import Job, State
from headway.overview import Filter
from headway.tokens import Viewer
from headway.words import Doc

__all__ = ["Direct"]

_OPERATOR: Final = Viewer(None, operator=True)


class Direct:
    """Watches, lists and cancels the jobs of one store.

    Args:
        headway: open.
    """

    def __init__(self, headway: Headway) -> None:
        self._headway = headway

    async def follow(self, following: Following) -> None:
        """Tell *following* of each change, until all of its jobs have ended or are lost. While the
        store is away, its connection is "reconnecting"."""
        with self._headway.hub.watcher(following.ids) as watcher:
            while following.going:
                following.connect("open" if watcher.live else "reconnecting")
                await watcher.wait()
                for job_id, seen in watcher.take():
                    if seen.job is None:
                        following.lose(job_id, "gone")
                    else:
                        following.take(_told(seen.job))

    async def entries(self, wanted: Wanted) -> AsyncGenerator[Entry, None]:
        """Everybody's jobs, page by page."""
        state = State(wanted.state) if wanted.state else None
        after: str | None = None
        while True:
            page = await self._headway.overview(
                Filter(state=state, task=wanted.task, owner=wanted.owner), after=after
            )
            for job in page.jobs:
                yield Entry(job.owner, _told(job))
            if (after := page.after) is None:
                return

    async def cancel(self, job_id: str) -> Doc:
        """Ask a job to stop; as it is after asking.

        Raises:
            JobNotFound: the id is wrong, or the job has expired.
        """
        return _told(await self._headway.cancel(job_id))


def _told(job: Job) -> dict[str, Any]:
    """The document as JSON has it; without links, for there is no server that they lead to."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document(job, "", _OPERATOR)))
    del found["links"]
    return found
