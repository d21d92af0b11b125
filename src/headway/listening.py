"""Those who wait for news of jobs: what becomes a stream, and what a long-poll."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from headway import _sse
from headway.guard import Guard, Jobs
from headway.http import NO_STORE, Reply, Request
from headway.job import Job
from headway.limits import Limits
from headway.problems import Refused
from headway.stream import Streams
from headway.surface import PROBE
from headway.tokens import Viewer

__all__ = ["Listening"]

FULL_AGAIN_S: Final = 5.0
_KINDS: Final = ("json", "html")
_HEADERS: Final = [
    ("Content-Type", _sse.CONTENT_TYPE),
    ("Cache-Control", "no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
]
_NUMBER: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,20})?")


class Listening:
    """Lets clients listen, as far as there is room.

    Args:
        jobs: has the hub that tells of changes.
        streams: counts who listens.
    """

    def __init__(self, jobs: Jobs, guard: Guard, streams: Streams, limits: Limits) -> None:
        self._jobs = jobs
        self._guard = guard
        self._streams = streams
        self._limits = limits

    def ids(self, request: Request) -> list[str]:
        """The jobs that the query names, each once."""
        ids = request.query.get("id", [])
        if not ids:
            raise Refused("no_ids")
        if len(ids) > (most := self._limits.ids_per_stream):
            raise Refused("too_many_ids", detail=f"At most {most} at a time.", limit=most)
        return list(dict.fromkeys(ids))

    async def one(self, request: Request, job_id: str) -> Reply:
        """The stream of one job."""
        return await self._stream(request, [job_id], single=True)

    async def several(self, request: Request) -> Reply:
        """The stream of all that the query names."""
        return await self._stream(request, self.ids(request), single=False)

    async def probe(self, request: Request) -> Reply:
        """A stream of nothing but heartbeats, for everybody: does what is sent come through?"""
        self._guard.same_site(request)
        seconds, every_s = (_number(request, name) for name in PROBE)
        viewer = await self._guard.viewer(request)
        if request.method == "HEAD":
            return Reply(200, _HEADERS)
        full = self._streams.full(viewer)
        pace = {"seconds": seconds, "every_s": every_s}
        if full or not (probe := self._streams.probe(self._jobs.hub.watcher(()), viewer, **pace)):
            raise Refused(full or "streams_full", again_s=FULL_AGAIN_S)
        return Reply(200, _HEADERS, probe)

    async def _stream(self, request: Request, ids: list[str], *, single: bool) -> Reply:
        self._guard.same_site(request)
        html = _as(request) == "html"
        since = self._streams.revocations
        if single:
            _, viewer = await self._guard.watchable(request, ids[0])
        else:
            viewer = await self._guard.viewer(request)
        if _sse.last_seen(request.headers.get("last-event-id")) == _sse.END:
            return Reply(204, [NO_STORE])
        if request.method == "HEAD":
            return Reply(200, _HEADERS)
        if (full := self._streams.full(viewer)) is not None:
            raise Refused(full, again_s=FULL_AGAIN_S)
        watcher = self._jobs.hub.watcher(ids)
        stream = self._streams.serve(
            watcher, viewer, request.base, single=single, since=since, html=html
        )
        return Reply(200, _HEADERS, stream)

    async def changed(self, job: Job, viewer: Viewer, seconds: float) -> Job:
        """The job after its next change, or as it is after *seconds*."""
        now = await self._until(job, viewer, seconds, lambda seen: seen.rev > job.rev)
        if now is None:
            raise Refused("not_found")
        return now

    async def ended(self, job: Job, viewer: Viewer, seconds: float) -> Job:
        """The job when it has ended, or as it is after *seconds*."""
        return await self._until(job, viewer, seconds, lambda seen: seen.state.terminal) or job

    async def _until(
        self, job: Job, viewer: Viewer, seconds: float, good: Callable[[Job], bool]
    ) -> Job | None:
        with self._streams.poll(self._jobs.hub.watcher([job.id]), viewer, seconds) as poll:
            while await poll.wait():
                for _, seen in poll.watcher.take():
                    if seen.job is None:
                        return None
                    job = seen.job
                    if good(job):
                        return job
        return job

    async def any_changed(self, found: list[Job], viewer: Viewer, seconds: float) -> bool:
        """True if one of *found* changes within *seconds*.

        Those that the viewer may not watch are not among them: when they change is not told.
        """
        revs = {job.id: job.rev for job in found}
        with self._streams.poll(self._jobs.hub.watcher(revs), viewer, seconds) as poll:
            while revs and await poll.wait():
                for job_id, seen in poll.watcher.take():
                    if seen.job is None or seen.job.rev != revs[job_id]:
                        return True
        return False


def _as(request: Request) -> str:
    """How a stream tells of states."""
    kind, *more = request.query.get("as", ["json"])
    if more or kind not in _KINDS:
        raise Refused("bad_query", detail=f"as {kind[:40]!r}: give one of {', '.join(_KINDS)}")
    return kind


def _number(request: Request, name: str) -> float:
    """What the query says of the pace of a probe."""
    of = PROBE[name]
    match request.query.get(name, []):
        case []:
            return of.default
        case [text] if _NUMBER.fullmatch(text) and of.least <= float(text) <= of.most:
            return float(text)
        case said:
            raise Refused(
                "bad_query",
                detail=f"{name} {said[0][:40]!r}: one number, {of.least:g} to {of.most:g}",
            )
