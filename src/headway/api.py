"""The HTTP surface, free of frameworks: `Request` in, `Reply` out.

Doors translate and decide nothing. What strangers send is parsed and refused here; inside, types
are trusted. Someone else's job does not exist: every route answers 404 for it, with the same
words as for an id that nobody has.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from headway import _sse, pages
from headway.access import SHARE, Access
from headway.document import Attempts, Batch, Entry, Health, Log, Page, document, tried
from headway.errors import BadInput, HeadwayError, NotOpen, StoreError
from headway.http import (
    JSON,
    NO_STORE,
    NOSNIFF,
    PRIVATE,
    VARY,
    Reply,
    Request,
    cors,
    from_here,
    preflight,
    safe_url,
    unchanged,
    wait_s,
    waited,
)
from headway.job import Attempt, Job, State, is_id
from headway.limits import Limits
from headway.openapi import openapi
from headway.overview import Filter, Listing
from headway.problems import Refused, problem, problem_of
from headway.settings import Settings
from headway.stream import Streams
from headway.surface import OPERATIONS
from headway.tokens import Viewer
from headway.watch import Hub

__all__ = ["Api"]

LIST_LIMIT: Final = 50
REVALIDATED: Final = ("Cache-Control", "public, max-age=0, must-revalidate")
LASTING: Final = ("Cache-Control", "public, max-age=31536000, immutable")
FULL_AGAIN_S: Final = 5.0
HEALTH_S: Final = 2.0  # balancers give up after a few seconds, and must not have to

logger = logging.getLogger("headway.api")


class Jobs(Protocol):
    """What the surface needs of the app-long object."""

    @property
    def hub(self) -> Hub: ...
    async def get(self, job_id: str) -> Job: ...
    async def get_all(self, ids: Sequence[str]) -> builtins.list[Job]: ...
    async def cancel(self, job_id: str) -> Job: ...
    async def retry(self, job_id: str) -> Job: ...
    async def forget(self, job_id: str) -> bool: ...
    async def ping(self) -> float: ...
    async def overview(self, wanted: Filter, *, after: str | None = ...) -> Listing: ...
    async def log(self, job_id: str) -> builtins.list[str]: ...
    async def attempts(self, job_id: str) -> builtins.list[Attempt]: ...
    async def list(self, *, owner: str, limit: int = ...) -> builtins.list[Job]: ...


class Api:
    """Answers requests about jobs.

    Args:
        jobs: reads and changes them.
        access: tells who asks.
    """

    def __init__(self, jobs: Jobs, access: Access, streams: Streams, settings: Settings) -> None:
        self._jobs = jobs
        self._access = access
        self._streams = streams
        self._limits = settings.limits
        self._origins = settings.origins

    async def answer(self, request: Request) -> Reply:
        """Answer one request. Never raises for what a stranger sent or the store did."""
        try:
            reply = await self._route(request)
        except Refused as refused:
            reply = refused.reply
        except HeadwayError as error:
            if isinstance(error, NotOpen):
                logger.error("%s", error)  # it tells the developer what to add
            known = problem_of(error, request.base)
            reply = known or _internal(error)
        except Exception as error:  # identify, or a mistake of ours: nothing of it may be told
            reply = _internal(error)
        headers = [*reply.headers, *cors(request, self._origins), *_fences(reply)]
        return Reply(reply.status, headers, b"" if request.method == "HEAD" else reply.body)

    async def _route(self, request: Request) -> Reply:
        if request.method == "OPTIONS":
            return preflight(request, self._origins)
        parts = [part for part in request.path.split("/") if part]
        for shape, handlers in _ROUTES:
            if (found := _matched(shape, parts)) is None:
                continue
            method = "GET" if request.method == "HEAD" else request.method
            if method not in handlers:
                return _not_allowed(handlers)
            reply: Reply = await handlers[method](self, request, *found)
            return reply
        return problem("no_route")

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def _watchable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        viewer = await self._access.viewer(request)
        if not is_id(job_id):
            raise Refused("not_found")
        job = await self._jobs.get(job_id)
        if not viewer.may_watch(job):
            raise Refused("not_found")
        if job.expired(time.time()):
            raise Refused("expired")
        return job, viewer

    async def _job(self, request: Request, job_id: str) -> Reply:
        if tokens := request.query.get(SHARE):
            return await self._shared(request, job_id, tokens[0])
        job, viewer = await self._watchable(request, job_id)
        html = request.wants_html
        tag = _tag(job, viewer, html=html)
        if unchanged(request, tag):
            job = await self._changed(job, viewer, wait_s(request))
            tag = _tag(job, viewer, html=html)
        headers = [("ETag", tag), PRIVATE, VARY, NOSNIFF, *_soon(job), *waited(request)]
        if unchanged(request, tag):
            return Reply(304, headers)
        found = document(job, request.base, viewer)
        if html:
            return Reply(200, [*headers, *pages.HEADERS], pages.job_page(found, request.base))
        return Reply(200, [*headers, JSON], msgspec.json.encode(found))

    async def _shared(self, request: Request, job_id: str, token: str) -> Reply:
        """Take the token out of the address: it must not stay in histories and logs."""
        cookie = self._access.shares_cookie(request, job_id, token)
        if cookie is None:  # it counts as not sent
            await self._watchable(request, job_id)
        kept = [] if cookie is None else [("Set-Cookie", cookie)]
        quiet = ("Referrer-Policy", "no-referrer")
        here = ("Location", f"{request.base}/{job_id}")
        return Reply(303, [here, *kept, quiet, NO_STORE, NOSNIFF])

    async def _list(self, request: Request) -> Reply:
        viewer = await self._access.viewer(request)
        asked = "id" in request.query
        ids = self._ids(request) if asked else []
        html = request.wants_html
        found = await self._listed(viewer, ids, asked=asked)
        tag = _tag_of_all(found, viewer, html=html)
        seconds = wait_s(request) if asked and unchanged(request, tag) else 0
        if seconds and await self._any_changed(found, viewer, seconds):
            found = await self._listed(viewer, ids, asked=asked)
            tag = _tag_of_all(found, viewer, html=html)
        headers = [("ETag", tag), PRIVATE, VARY, NOSNIFF, *(waited(request) if asked else [])]
        if unchanged(request, tag):
            return Reply(304, headers)
        documents = [document(job, request.base, viewer) for job in found]
        if html:
            return Reply(200, [*headers, *pages.HEADERS], pages.jobs_page(documents, request.base))
        here = {job.id for job in found}
        body: Batch = {"jobs": documents, "gone": [i for i in ids if i not in here]}
        return Reply(200, [*headers, JSON], msgspec.json.encode(body))

    async def _listed(self, viewer: Viewer, ids: list[str], *, asked: bool) -> list[Job]:
        if asked:
            found = await self._jobs.get_all(ids)
        elif viewer.owner is not None:
            found = await self._jobs.list(owner=viewer.owner, limit=LIST_LIMIT)
        else:
            found = []
        now = time.time()
        return [job for job in found if viewer.may_watch(job) and not job.expired(now)]

    async def _overview(self, request: Request) -> Reply:
        """For operators; for everybody else there is nothing here."""
        viewer = await self._access.viewer(request)
        if not viewer.operator:
            raise Refused("not_found")
        try:
            page = await self._jobs.overview(_wanted(request), after=_asked(request, "after"))
        except BadInput as error:
            raise Refused("bad_query", detail=str(error)) from None
        entries: list[Entry] = [
            {"owner": job.owner, "job": document(job, request.base, viewer)} for job in page.jobs
        ]
        found: Page = {"jobs": entries, "after": page.after}
        return Reply(200, [JSON, PRIVATE, VARY, NOSNIFF], msgspec.json.encode(found))

    async def _result(self, request: Request, job_id: str) -> Reply:
        job, _ = await self._watchable(request, job_id)
        return _result_of(job)

    async def _log(self, request: Request, job_id: str) -> Reply:
        await self._watchable(request, job_id)
        found: Log = {"lines": await self._jobs.log(job_id)}
        return Reply(200, [JSON, PRIVATE, VARY, NOSNIFF], msgspec.json.encode(found))

    async def _attempts(self, request: Request, job_id: str) -> Reply:
        """For operators: traces tell of the inside. For everybody else there is nothing here."""
        _, viewer = await self._watchable(request, job_id)
        if not viewer.operator:
            raise Refused("not_found")
        found: Attempts = {"attempts": [tried(one) for one in await self._jobs.attempts(job_id)]}
        return Reply(200, [JSON, PRIVATE, VARY, NOSNIFF], msgspec.json.encode(found))

    async def _health(self, request: Request) -> Reply:
        """For load balancers: may be asked by everybody, tells nothing of jobs."""
        hub, store_s = self._jobs.hub, await self._store_s()
        found: Health = {
            "status": "ok",
            "store_s": _rounded(store_s),
            "lag_s": _rounded(hub.lag_s),
            "live": hub.live,
            "streams": len(self._streams),
        }
        if self._streams.draining:
            found["status"] = "draining"
        elif store_s is None:
            found["status"] = "store"
        elif not hub.live:
            found["status"] = "deaf"
        well, headers = found["status"] == "ok", [JSON, NO_STORE, NOSNIFF]
        if not well:
            headers.append(("Retry-After", "1"))
        return Reply(200 if well else 503, headers, msgspec.json.encode(found))

    async def _store_s(self) -> float | None:
        """How long the store took to answer; None if it is away, or takes too long."""
        try:
            async with asyncio.timeout(HEALTH_S):
                return await self._jobs.ping()
        except (StoreError, TimeoutError):
            return None

    async def _openapi(self, request: Request) -> Reply:
        body, tag = _described(request.base, self._limits)
        headers = [REVALIDATED, ("ETag", tag), NOSNIFF]
        if unchanged(request, tag):
            return Reply(304, headers)
        return Reply(200, [*headers, JSON], body)

    async def _static(self, request: Request, name: str) -> Reply:
        file = pages.static(name)
        version = request.query.get("v", [""])[0]
        if file is None or version not in {"", pages.VERSION}:  # a mixture might do anything
            return problem("no_file")
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        tag = f'"{file.digest}{"-gz" if zipped else ""}"'
        headers = [
            ("Content-Type", file.kind),
            LASTING if version else REVALIDATED,
            ("ETag", tag),
            ("Vary", "Accept-Encoding"),
            ("Cross-Origin-Resource-Policy", "cross-origin" if self._origins else "same-origin"),
            NOSNIFF,
        ]
        if unchanged(request, tag):
            return Reply(304, headers)
        if zipped:
            return Reply(200, [*headers, ("Content-Encoding", "gzip")], file.zipped)
        return Reply(200, headers, file.data)

    # ── changing ──────────────────────────────────────────────────────────────────────────────

    async def _changeable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        if not from_here(request, self._origins):
            raise Refused("cross_origin")
        return await self._watchable(request, job_id)

    async def _cancel(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._changeable(request, job_id)
        if not viewer.may_cancel(job):
            raise Refused("not_yours")
        if not job.state.terminal:
            job = await self._jobs.cancel(job_id)
        return self._told(request, job, viewer, 200 if job.state.terminal else 202)

    async def _retry(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._changeable(request, job_id)
        if not viewer.may_change(job):
            raise Refused("not_yours")
        if job.state not in {State.FAILED, State.CANCELLED}:
            raise Refused("not_failed")
        job = await self._jobs.retry(job_id)
        return self._told(request, job, viewer, 202)

    async def _forget(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._changeable(request, job_id)
        if not viewer.may_change(job):
            raise Refused("not_yours")
        if not await self._jobs.forget(job.id):
            raise Refused("still_running", again_s=1, state=job.state)
        return Reply(204, [NO_STORE])

    async def accepted(
        self, request: Request, job: Job, *, to: str | None = None, replayed: bool = False
    ) -> Reply:
        """The answer to the request that started *job*; see `Headway.reply()`."""
        viewer = Viewer(job.owner)
        again = [("Idempotency-Replayed", "true")] if replayed else []
        if request.wants_fragment or request.wants_html:
            reply = self._told(request, job, viewer, 202, to=to)
            return Reply(reply.status, [*reply.headers, *again], reply.body)
        if (seconds := wait_s(request)) and not job.state.terminal:
            job = await self._ended(job, viewer, seconds)
        applied = [*again, *waited(request)]
        if seconds and job.state.terminal:
            reply = _result_of(job)
            here = ("Content-Location", f"{request.base}/{job.id}/result")
            return Reply(reply.status, [*reply.headers, *applied, here], reply.body)
        reply = self._told(request, job, viewer, 202)
        return Reply(reply.status, [*reply.headers, *applied], reply.body)

    def _told(
        self, request: Request, job: Job, viewer: Viewer, status: int, *, to: str | None = None
    ) -> Reply:
        """A job as the answer to a change: its bar for htmx, its page for a form, else as JSON."""
        here = ("Location", f"{request.base}/{job.id}")
        if request.wants_html and not request.wants_fragment:
            return Reply(303, [("Location", to) if to else here, NO_STORE])
        found = document(job, request.base, viewer)
        headers = [here, NO_STORE, NOSNIFF, *_soon(job)]
        if request.wants_fragment:
            return Reply(status, [*headers, *pages.FRAGMENT], pages.bar(found, {}).encode())
        return Reply(status, [*headers, JSON], msgspec.json.encode(found))

    # ── waiting ─────────────────────────────────────────────────────────────────────────────

    def _ids(self, request: Request) -> list[str]:
        ids = request.query.get("id", [])
        if not ids:
            raise Refused("no_ids")
        if len(ids) > (most := self._limits.ids_per_stream):
            raise Refused("too_many_ids", detail=f"At most {most} at a time.", limit=most)
        return list(dict.fromkeys(ids))

    async def _events(self, request: Request, job_id: str) -> Reply:
        return await self._stream(request, [job_id], single=True)

    async def _all_events(self, request: Request) -> Reply:
        return await self._stream(request, self._ids(request), single=False)

    async def _stream(self, request: Request, ids: list[str], *, single: bool) -> Reply:
        if not from_here(request, self._origins):
            raise Refused("cross_origin")
        since = self._streams.revocations
        if single:
            _, viewer = await self._watchable(request, ids[0])
        else:
            viewer = await self._access.viewer(request)
        if _sse.last_seen(request.headers.get("last-event-id")) == _sse.END:
            return Reply(204, [NO_STORE])
        headers = [
            ("Content-Type", _sse.CONTENT_TYPE),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            NOSNIFF,
        ]
        if request.method == "HEAD":
            return Reply(200, headers)
        if (full := self._streams.full(viewer)) is not None:
            raise Refused(full, again_s=FULL_AGAIN_S)
        watcher = self._jobs.hub.watcher(ids)
        stream = self._streams.serve(watcher, viewer, request.base, single=single, since=since)
        return Reply(200, headers, stream)

    async def _changed(self, job: Job, viewer: Viewer, seconds: float) -> Job:
        """The job after its next change, or as it is after *seconds*."""
        now = await self._until(job, viewer, seconds, lambda seen: seen.rev > job.rev)
        if now is None:
            raise Refused("not_found")
        return now

    async def _ended(self, job: Job, viewer: Viewer, seconds: float) -> Job:
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

    async def _any_changed(self, found: list[Job], viewer: Viewer, seconds: float) -> bool:
        # Those that the viewer may not watch are not waited for: when they change is not told.
        revs = {job.id: job.rev for job in found}
        with self._streams.poll(self._jobs.hub.watcher(revs), viewer, seconds) as poll:
            while revs and await poll.wait():
                for job_id, seen in poll.watcher.take():
                    if seen.job is None or seen.job.rev != revs[job_id]:
                        return True
        return False


_Handler = Callable[..., Awaitable[Reply]]
_HANDLERS: Final[Mapping[str, _Handler]] = {
    "list": Api._list,
    "watch_many": Api._all_events,
    "overview": Api._overview,
    "health": Api._health,
    "openapi": Api._openapi,
    "static": Api._static,
    "get": Api._job,
    "forget": Api._forget,
    "watch": Api._events,
    "result": Api._result,
    "log": Api._log,
    "attempts": Api._attempts,
    "cancel": Api._cancel,
    "retry": Api._retry,
}


def _routes() -> dict[tuple[str, ...], dict[str, _Handler]]:
    found: dict[tuple[str, ...], dict[str, _Handler]] = {}
    for one in OPERATIONS:
        parts = [part for part in one.path.split("/") if part]
        shape = tuple("*" if part.startswith("{") else part for part in parts)
        found.setdefault(shape, {})[one.method] = _HANDLERS[one.name]
    return found


_ROUTES: Final = tuple(_routes().items())
"""What is where; "*" is handed to the handler. HEAD is GET without the body."""


@lru_cache(maxsize=8)
def _described(base: str, limits: Limits) -> tuple[bytes, str]:
    """The OpenAPI document, and its tag."""
    body = msgspec.json.encode(openapi(base, limits))
    return body, f'"{blake2b(body, digest_size=9).hexdigest()}"'


def _matched(shape: Sequence[str], parts: Sequence[str]) -> list[str] | None:
    if len(shape) != len(parts):
        return None
    pairs = list(zip(shape, parts, strict=True))
    if any(want not in {"*", part} for want, part in pairs):
        return None
    return [part for want, part in pairs if want == "*"]


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


def _not_allowed(handlers: Mapping[str, _Handler]) -> Reply:
    methods = ", ".join(["GET, HEAD" if name == "GET" else name for name in handlers])
    return problem("method_not_allowed", detail=f"Only {methods}.", headers=[("Allow", methods)])


def _fences(reply: Reply) -> list[tuple[str, str]]:
    """Keep what is answered out of the frames, images and scripts of other sites."""
    if reply.status == 304:  # it would replace what stands in the browser's copy
        return []
    said = {name for name, _ in reply.headers}
    return [(name, value) for name, value in _FENCES if name not in said]


_FENCES: Final = (
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _internal(error: Exception) -> Reply:
    logger.error("a request could not be answered", exc_info=error)
    return problem("internal")


def _result_of(job: Job) -> Reply:
    """What the task returned, or why there is nothing (yet)."""
    if not job.state.terminal:
        return problem("not_finished", headers=_soon(job), state=job.state)
    if job.state is not State.SUCCEEDED:
        title = job.error.title if job.error else "The job was cancelled"
        code = job.error.code if job.error else "cancelled"
        return problem("no_result", title=title, state=job.state, error=code)
    headers = [PRIVATE, VARY, NOSNIFF]
    if (url := safe_url(job.result)) is not None:
        return Reply(303, [*headers, ("Location", url)])
    return Reply(200, [*headers, JSON], msgspec.json.encode(job.result))


def _tag(job: Job, viewer: Viewer, *, html: bool) -> str:
    # The links of a document, and with them the page, are what the viewer may do.
    may = 2 * viewer.may_change(job) + viewer.may_cancel(job)
    return f'"{job.rev}.{may}{f"-page-{pages.VERSION}" if html else ""}"'


def _tag_of_all(jobs: list[Job], viewer: Viewer, *, html: bool) -> str:
    kind = f"page {pages.VERSION}" if html else "documents"
    said = " ".join([kind, *(f"{job.id}:{_tag(job, viewer, html=html)}" for job in jobs)])
    return f'"{blake2b(said.encode(), digest_size=12).hexdigest()}"'


def _soon(job: Job) -> list[tuple[str, str]]:
    return [] if job.state.terminal else [("Retry-After", "1")]
