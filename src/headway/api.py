"""The HTTP surface, free of frameworks: `Request` in, `Reply` out.

Doors translate and decide nothing. What strangers send is parsed and refused here; inside, types
are trusted. Someone else's job does not exist: every route answers 404 for it, with the same
words as for an id that nobody has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from headway import pages
from headway.access import SHARE, Access
from headway.context import extra
from headway.document import Batch, Log, document
from headway.errors import NotOpen
from headway.front import Front
from headway.guard import Guard, Jobs
from headway.http import (
    JSON,
    NO_STORE,
    NOSNIFF,
    PRIVATE,
    VARY,
    Reply,
    Request,
    came_from,
    cors,
    preflight,
    safe_url,
    unchanged,
    wait_s,
    waited,
)
from headway.job import REPORT, Job, State
from headway.listening import Listening
from headway.notice import notice
from headway.operators import Operators
from headway.problems import Refused, problem, problem_of
from headway.settings import Settings
from headway.stream import Streams
from headway.surface import OPERATIONS
from headway.tokens import Viewer

__all__ = ["Api"]

LIST_LIMIT: Final = 50

logger = logging.getLogger("headway.api")


class Api:
    """Answers requests about jobs.

    Args:
        jobs: reads and changes them.
        access: tells who asks.
    """

    def __init__(self, jobs: Jobs, access: Access, streams: Streams, settings: Settings) -> None:
        self._jobs = jobs
        self._access = access
        self._origins = settings.origins
        self._guard = guard = Guard(jobs, access, settings.origins)
        self._listening = listening = Listening(jobs, guard, streams, settings.limits)
        front = Front(jobs, streams, settings)
        self._operators = operators = Operators(jobs, guard)
        self._handlers: dict[str, _Handler] = {
            "list": self._list,
            "watch_many": listening.several,
            "overview": operators.overview,
            "health": front.health,
            "probe": listening.probe,
            "openapi": front.openapi,
            "static": front.static,
            "get": self._job,
            "forget": self._forget,
            "forget_by_form": self._forget,
            "watch": listening.one,
            "result": self._result,
            "log": self._log,
            "attempts": operators.attempts,
            "cancel": self._cancel,
            "retry": self._retry,
        }

    async def answer(self, request: Request) -> Reply:
        """Answer one request. Never raises for what a stranger sent or the store did."""
        try:
            reply = await self._route(request)
        except Exception as error:
            if isinstance(error, NotOpen):
                logger.error("%s", error, extra=extra("answer"))  # tells what to add
            # What is no problem of the table is a mistake, in identify or ours: it stays inside.
            reply = problem_of(error, request.base) or _internal(error)
        reply = notice(request, reply)
        headers = [*reply.headers, *cors(request, self._origins), *_fences(reply)]
        return Reply(reply.status, headers, b"" if request.method == "HEAD" else reply.body)

    async def _route(self, request: Request) -> Reply:
        if request.method == "OPTIONS":
            return preflight(request, self._origins)
        parts = [part for part in request.path.split("/") if part]
        for shape, names in _ROUTES:
            if (found := _matched(shape, parts)) is None:
                continue
            method = "GET" if request.method == "HEAD" else request.method
            if method not in names:
                return _not_allowed(names)
            return await self._handlers[names[method]](request, *found)
        return problem("no_route")

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def _job(self, request: Request, job_id: str) -> Reply:
        if tokens := request.query.get(SHARE):
            return await self._shared(request, job_id, tokens[0])
        job, viewer = await self._guard.watchable(request, job_id)
        html = request.wants_html
        if html and viewer.operator:
            return await self._operators.job(request, job, viewer)
        tag = _tag(job, viewer, html=html)
        if unchanged(request, tag):
            job = await self._listening.changed(job, viewer, wait_s(request))
            tag = _tag(job, viewer, html=html)
        headers = [("ETag", tag), PRIVATE, VARY, *_soon(job), *waited(request)]
        if unchanged(request, tag):
            return _as_it_was(headers, html=html)
        found = document(job, request.base, viewer)
        if html:
            return Reply(200, [*headers, *pages.HEADERS], pages.job_page(found, request.base))
        return Reply(200, [*headers, JSON], msgspec.json.encode(found))

    async def _shared(self, request: Request, job_id: str, token: str) -> Reply:
        """Take the token out of the address: it must not stay in histories and logs."""
        cookie = self._access.shares_cookie(request, job_id, token)
        if cookie is None:  # it counts as not sent
            await self._guard.watchable(request, job_id)
        kept = [] if cookie is None else [("Set-Cookie", cookie)]
        quiet = ("Referrer-Policy", "no-referrer")
        here = ("Location", f"{request.base}/{job_id}")
        return Reply(303, [here, *kept, quiet, NO_STORE])

    async def _list(self, request: Request) -> Reply:
        viewer = await self._guard.viewer(request)
        ids = self._listening.ids(request) if "id" in request.query else None
        html = request.wants_html
        found = await self._listed(viewer, ids)
        tag = _tag_of_all(found, viewer, html=html)
        seconds = wait_s(request) if ids and unchanged(request, tag) else 0
        if seconds and await self._listening.any_changed(found, viewer, seconds):
            found = await self._listed(viewer, ids)
            tag = _tag_of_all(found, viewer, html=html)
        headers = [("ETag", tag), PRIVATE, VARY, *(waited(request) if ids else [])]
        if unchanged(request, tag):
            return _as_it_was(headers, html=html)
        documents = [document(job, request.base, viewer) for job in found]
        if html:
            shown = pages.jobs_page(documents, request.base, operator=viewer.operator)
            return Reply(200, [*headers, *pages.HEADERS], shown)
        here = {job.id for job in found}
        body: Batch = {"jobs": documents, "gone": [i for i in ids or () if i not in here]}
        return Reply(200, [*headers, JSON], msgspec.json.encode(body))

    async def _listed(self, viewer: Viewer, ids: list[str] | None) -> list[Job]:
        if ids is not None:
            found = await self._jobs.get_all(ids)
        elif viewer.owner is not None:
            found = await self._jobs.list(owner=viewer.owner, limit=LIST_LIMIT)
        else:
            found = []
        now = time.time()
        return [job for job in found if viewer.may_watch(job) and not job.expired(now)]

    async def _result(self, request: Request, job_id: str) -> Reply:
        job, _ = await self._guard.watchable(request, job_id)
        return _result_of(job)

    async def _log(self, request: Request, job_id: str) -> Reply:
        await self._guard.watchable(request, job_id)
        found: Log = {"lines": await self._jobs.log(job_id)}
        return Reply(200, [JSON, PRIVATE, VARY], msgspec.json.encode(found))

    # ── changing ──────────────────────────────────────────────────────────────────────────────

    async def _cancel(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._guard.changeable(request, job_id)
        if not viewer.may_cancel(job):
            raise Refused("not_yours")
        if not job.state.terminal:
            job = await self._jobs.cancel(job_id)
        return self._told(request, job, viewer, 200 if job.state.terminal else 202)

    async def _retry(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._guard.changeable(request, job_id)
        if not viewer.may_change(job):
            raise Refused("not_yours")
        if job.state not in {State.FAILED, State.CANCELLED}:
            raise Refused("not_failed")
        if job.task == REPORT:
            raise Refused("not_failed", detail="This work is started elsewhere, and not by us.")
        job = await self._jobs.retry(job_id)
        return self._told(request, job, viewer, 202)

    async def _forget(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._guard.changeable(request, job_id)
        if not viewer.may_change(job):
            raise Refused("not_yours")
        if not await self._jobs.forget(job.id):
            raise Refused("still_running", again_s=1, state=job.state)
        if request.wants_html and request.method == "POST":
            return Reply(303, [("Location", _back(request) or request.base or "/"), NO_STORE])
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
            job = await self._listening.ended(job, viewer, seconds)
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
            to = to or _back(request)
            return Reply(303, [("Location", to) if to else here, NO_STORE])
        found = document(job, request.base, viewer)
        headers = [here, NO_STORE, NOSNIFF, *_soon(job)]
        if request.wants_fragment:
            return Reply(status, [*headers, *pages.FRAGMENT], pages.bar(found, {}).encode())
        return Reply(status, [*headers, JSON], msgspec.json.encode(found))


def _back(request: Request) -> str | None:
    """The list of jobs, one's own or all, that a form was sent from; None if from elsewhere."""
    came = came_from(request)
    lists = {request.base or "/", f"{request.base}/overview"}
    return came if came is not None and came.partition("?")[0] in lists else None


_Handler = Callable[..., Awaitable[Reply]]


def _routes() -> dict[tuple[str, ...], dict[str, str]]:
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for one in OPERATIONS:
        parts = [part for part in one.path.split("/") if part]
        shape = tuple("*" if part.startswith("{") else part for part in parts)
        found.setdefault(shape, {})[one.method] = one.name
    return found


_ROUTES: Final = tuple(_routes().items())
"""What is where; "*" is handed to the handler. HEAD is GET without the body."""


def _matched(shape: Sequence[str], parts: Sequence[str]) -> list[str] | None:
    if len(shape) != len(parts):
        return None
    pairs = list(zip(shape, parts, strict=True))
    if any(want not in {"*", part} for want, part in pairs):
        return None
    return [part for want, part in pairs if want == "*"]


def _not_allowed(names: Iterable[str]) -> Reply:
    methods = ", ".join(["GET, HEAD" if name == "GET" else name for name in names])
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
    NOSNIFF,
)


def _as_it_was(headers: list[tuple[str, str]], *, html: bool) -> Reply:
    # An app that gives every answer without a policy one of its own would replace that of the page.
    return Reply(304, [*headers, pages.POLICY] if html else headers)


def _internal(error: Exception) -> Reply:
    logger.error("a request could not be answered", exc_info=error, extra=extra("answer"))
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
    kind = f"page {pages.VERSION} {viewer.operator}" if html else "documents"
    said = " ".join([kind, *(f"{job.id}:{_tag(job, viewer, html=html)}" for job in jobs)])
    return f'"{blake2b(said.encode(), digest_size=12).hexdigest()}"'


def _soon(job: Job) -> list[tuple[str, str]]:
    return [] if job.state.terminal else [("Retry-After", "1")]
