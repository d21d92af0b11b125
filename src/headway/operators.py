"""What operators may see besides: all jobs, their figures, and the attempts with their traces.

For everybody else there is nothing here.
"""

from __future__ import annotations

import asyncio
import time
from hashlib import blake2b

import msgspec

from headway import board, pages
from headway.board import Asked
from headway.document import Attempts, Entry, Log, Page, document, tried
from headway.errors import BadInput
from headway.guard import Guard, Jobs
from headway.http import JSON, PRIVATE, VARY, Reply, Request
from headway.job import Job, State
from headway.overview import Filter
from headway.problems import Refused
from headway.tokens import Viewer

__all__ = ["Operators"]


class Operators:
    """Answers operators."""

    def __init__(self, jobs: Jobs, guard: Guard) -> None:
        self._jobs = jobs
        self._guard = guard

    async def overview(self, request: Request) -> Reply:
        """One page of all jobs, with figures of all."""
        viewer = await self._guard.operator(request)
        asked = Asked(*(request.query.get(name, [""])[0] for name in Asked._fields))
        try:
            page, figures = await asyncio.gather(
                self._jobs.overview(_wanted(asked), after=asked.after or None),
                self._jobs.figures(),
            )
        except BadInput as error:
            raise Refused("bad_query", detail=str(error)) from None
        now = time.time()
        entries = [_entry(job, request.base, viewer) for job in page.jobs if not job.expired(now)]
        found: Page = {"jobs": entries, "after": page.after, "figures": figures}
        if request.wants_html:
            shown = board.overview_page(
                found, asked, tasks=self._jobs.task_names, base=request.base, now=now
            )
            return Reply(200, [*pages.HEADERS, PRIVATE, VARY], shown)
        return Reply(200, [JSON, PRIVATE, VARY], msgspec.json.encode(found))

    async def job(self, request: Request, job: Job, viewer: Viewer) -> Reply:
        """The page of a job, with what stands on it for operators."""
        found = document(job, request.base, viewer)
        attempts, log = await asyncio.gather(self._tried(job.id), self._jobs.log(job.id))
        inside = board.inside(
            found, job.owner, attempts, Log(lines=log), base=request.base, now=time.time()
        )
        shown = pages.job_page(found, request.base, inside)
        tag = f'"{blake2b(shown, digest_size=12).hexdigest()}"'  # lines of the log raise no rev
        return Reply(200, [("ETag", tag), PRIVATE, VARY, *pages.HEADERS], shown)

    async def attempts(self, request: Request, job_id: str) -> Reply:
        """The attempts of a job that are over; their traces tell of the inside."""
        await self._guard.operator(request)
        await self._guard.watchable(request, job_id)
        return Reply(200, [JSON, PRIVATE, VARY], msgspec.json.encode(await self._tried(job_id)))

    async def _tried(self, job_id: str) -> Attempts:
        return {"attempts": [tried(one) for one in await self._jobs.attempts(job_id)]}


def _entry(job: Job, base: str, viewer: Viewer) -> Entry:
    found = document(job, base, viewer)
    if job.state is State.SUCCEEDED:  # what it was is not read for a list
        found["links"]["result"] = f"{base}/{job.id}/result"
    return {"owner": job.owner, "job": found}


def _wanted(asked: Asked) -> Filter:
    """The filter of an overview. What is empty is not asked, as forms send it."""
    if asked.state and asked.state not in set(State):
        raise BadInput(f"state {asked.state[:40]!r}: give one of {', '.join(State)}")
    return Filter(
        state=State(asked.state) if asked.state else None,
        task=asked.task or None,
        owner=asked.owner or None,
    )
