"""What operators may see besides: the list of all jobs, and the attempts with their traces.

For everybody else there is nothing here.
"""

from __future__ import annotations

import time

import msgspec

from headway.document import Attempts, Entry, Page, document, tried
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
        """One page of all jobs."""
        viewer = await self._guard.operator(request)
        try:
            page = await self._jobs.overview(_wanted(request), after=_asked(request, "after"))
        except BadInput as error:
            raise Refused("bad_query", detail=str(error)) from None
        now = time.time()
        entries = [_entry(job, request.base, viewer) for job in page.jobs if not job.expired(now)]
        found: Page = {"jobs": entries, "after": page.after}
        return Reply(200, [JSON, PRIVATE, VARY], msgspec.json.encode(found))

    async def attempts(self, request: Request, job_id: str) -> Reply:
        """The attempts of a job that are over; their traces tell of the inside."""
        await self._guard.operator(request)
        await self._guard.watchable(request, job_id)
        found: Attempts = {"attempts": [tried(one) for one in await self._jobs.attempts(job_id)]}
        return Reply(200, [JSON, PRIVATE, VARY], msgspec.json.encode(found))


def _entry(job: Job, base: str, viewer: Viewer) -> Entry:
    found = document(job, base, viewer)
    if job.state is State.SUCCEEDED:  # what it was is not read for a list
        found["links"]["result"] = f"{base}/{job.id}/result"
    return {"owner": job.owner, "job": found}


def _wanted(request: Request) -> Filter:
    """The filter of an overview."""
    state = _asked(request, "state")
    if state is not None and state not in set(State):
        raise BadInput(f"state {state[:40]!r}: give one of {', '.join(State)}")
    return Filter(
        state=None if state is None else State(state),
        task=_asked(request, "task"),
        owner=_asked(request, "owner"),
    )


def _asked(request: Request, name: str) -> str | None:
    """A parameter of the query; one that is empty is none, as forms send it."""
    return request.query.get(name, [""])[0] or None
