"""The HTTP surface, free of frameworks: `Request` in, `Reply` out.

Doors translate and decide nothing. What strangers send is parsed and refused here; inside, types
are trusted. Someone else's job does not exist: every route answers 404 for it, with the same
words as for an id that nobody has.
"""

from __future__ import annotations

import builtins
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from headway import _sse, pages
from headway.access import SHARE, Access
from headway.document import document, tried
from headway.errors import HeadwayError
from headway.http import (
    JSON,
    NO_STORE,
    NOSNIFF,
    PRIVATE,
    VARY,
    Reply,
    Request,
    cors,
    entity_tags,
    from_here,
    preflight,
    safe_url,
    wait_s,
    waited,
)
from headway.job import Attempt, Job, State, is_id
from headway.problems import Refused, problem, problem_of
from headway.settings import Settings
from headway.stream import Streams
from headway.tokens import Viewer
from headway.watch import Hub

__all__ = ["Api"]

LIST_LIMIT: Final = 50
FULL_AGAIN_S: Final = 5.0

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
            known = problem_of(error, request.base)
            reply = known or _internal(error)
        except Exception as error:  # identify, or a mistake of ours: nothing of it may be told
            reply = _internal(error)
        headers = [*reply.headers, *cors(request, self._origins)]
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
        if job.expires_at is not None and job.expires_at < time.time():
            raise Refused("expired")
        return job, viewer

    async def _job(self, request: Request, job_id: str) -> Reply:
        if tokens := request.query.get(SHARE):
            return self._shared(request, job_id, tokens[0])
        job, viewer = await self._watchable(request, job_id)
        html = request.wants_html
        tag = _tag(job, html=html)
        if tag in entity_tags(request):
            job = await self._changed(job, wait_s(request))
            tag = _tag(job, html=html)
        headers = [("ETag", tag), PRIVATE, VARY, NOSNIFF, *_soon(job), *waited(request)]
        if tag in entity_tags(request):
            return Reply(304, headers)
        found = document(job, request.base, viewer)
        if html:
            return Reply(200, [*headers, *pages.HEADERS], pages.job_page(found, request.base))
        return Reply(200, [*headers, JSON], msgspec.json.encode(found))

    def _shared(self, request: Request, job_id: str, token: str) -> Reply:
        """Take the token out of the address: it must not stay in histories and logs."""
        cookie = self._access.shares_cookie(request, job_id, token)
        if cookie is None:
            raise Refused("not_found")
        quiet = ("Referrer-Policy", "no-referrer")
        here = ("Location", f"{request.base}/{job_id}")
        return Reply(303, [here, ("Set-Cookie", cookie), quiet, NO_STORE, NOSNIFF])

    async def _list(self, request: Request) -> Reply:
        viewer = await self._access.viewer(request)
        asked = "id" in request.query
        ids = self._ids(request) if asked else []
        found = await self._listed(viewer, ids, asked=asked)
        tag = _tag_of_all(found)
        if asked and tag in entity_tags(request) and (seconds := wait_s(request)):
            await self._any_changed(found, ids, seconds)
            found = await self._listed(viewer, ids, asked=asked)
            tag = _tag_of_all(found)
        headers = [("ETag", tag), PRIVATE, VARY, NOSNIFF, *waited(request)]
        if tag in entity_tags(request):
            return Reply(304, headers)
        documents = [document(job, request.base, viewer) for job in found]
        if request.wants_html:
            return Reply(200, [*headers, *pages.HEADERS], pages.jobs_page(documents, request.base))
        here = {job.id for job in found}
        body = {"jobs": documents, "gone": [i for i in ids if i not in here]}
        return Reply(200, [*headers, JSON], msgspec.json.encode(body))

    async def _listed(self, viewer: Viewer, ids: list[str], *, asked: bool) -> list[Job]:
        if not asked:
            if viewer.owner is None:
                return []
            return await self._jobs.list(owner=viewer.owner, limit=LIST_LIMIT)
        found = await self._jobs.get_all(ids)
        return [job for job in found if viewer.may_watch(job)]

    async def _result(self, request: Request, job_id: str) -> Reply:
        job, _ = await self._watchable(request, job_id)
        return _result_of(job)

    async def _log(self, request: Request, job_id: str) -> Reply:
        await self._watchable(request, job_id)
        found = {"lines": await self._jobs.log(job_id)}
        return Reply(200, [JSON, PRIVATE, VARY, NOSNIFF], msgspec.json.encode(found))

    async def _attempts(self, request: Request, job_id: str) -> Reply:
        """For operators: traces tell of the inside. For everybody else there is nothing here."""
        _, viewer = await self._watchable(request, job_id)
        if not viewer.operator:
            raise Refused("not_found")
        found = {"attempts": [tried(one) for one in await self._jobs.attempts(job_id)]}
        return Reply(200, [JSON, PRIVATE, VARY, NOSNIFF], msgspec.json.encode(found))

    async def _health(self, request: Request) -> Reply:
        """For load balancers: may be asked by everybody, tells nothing of jobs."""
        took_s = await self._jobs.ping()
        live = self._jobs.hub.live
        found = {
            "status": "ok" if live else "deaf",
            "store_s": round(took_s, 4),
            "live": live,
            "streams": len(self._streams),
        }
        return Reply(200 if live else 503, [JSON, NO_STORE, NOSNIFF], msgspec.json.encode(found))

    async def _static(self, request: Request, name: str) -> Reply:
        file = pages.static(name)
        if file is None:
            return problem("no_file")
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        tag = f'"{file.digest}{"-gz" if zipped else ""}"'
        headers = [
            ("Content-Type", file.kind),
            ("Cache-Control", "public, max-age=0, must-revalidate"),
            ("ETag", tag),
            ("Vary", "Accept-Encoding"),
            ("Cross-Origin-Resource-Policy", "cross-origin" if self._origins else "same-origin"),
            NOSNIFF,
        ]
        if tag in entity_tags(request):
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
        if request.wants_html:
            return self._seen(request, job, to)
        viewer = Viewer(job.owner)
        again = [("Idempotency-Replayed", "true")] if replayed else []
        if "hx-request" in request.headers:
            found = document(job, request.base, viewer)
            html = pages.bar(found, {}).encode()
            return Reply(202, [*again, *pages.FRAGMENT, NO_STORE, NOSNIFF], html)
        if (seconds := wait_s(request)) and not job.state.terminal:
            job = await self._ended(job, seconds)
        applied = [*again, *waited(request)]
        if seconds and job.state.terminal:
            reply = _result_of(job)
            here = ("Content-Location", f"{request.base}/{job.id}/result")
            return Reply(reply.status, [*reply.headers, *applied, here], reply.body)
        reply = self._told(request, job, viewer, 202)
        return Reply(reply.status, [*reply.headers, *applied], reply.body)

    def _told(self, request: Request, job: Job, viewer: Viewer, status: int) -> Reply:
        """A job as the answer to a change: its page for a form, else its document."""
        if request.wants_html:
            return self._seen(request, job)
        found = document(job, request.base, viewer)
        here = ("Location", f"{request.base}/{job.id}")
        headers = [here, NO_STORE, JSON, NOSNIFF, *_soon(job)]
        return Reply(status, headers, msgspec.json.encode(found))

    def _seen(self, request: Request, job: Job, to: str | None = None) -> Reply:
        return Reply(303, [("Location", to or f"{request.base}/{job.id}"), NO_STORE])

    # ── waiting ─────────────────────────────────────────────────────────────────────────────

    def _ids(self, request: Request) -> list[str]:
        ids = list(dict.fromkeys(request.query.get("id", [])))
        if not ids:
            raise Refused("no_ids")
        if len(ids) > (most := self._limits.ids_per_stream):
            raise Refused("too_many_ids", detail=f"At most {most} at a time.", limit=most)
        return ids

    async def _events(self, request: Request, job_id: str) -> Reply:
        return await self._stream(request, [job_id], single=True)

    async def _all_events(self, request: Request) -> Reply:
        return await self._stream(request, self._ids(request), single=False)

    async def _stream(self, request: Request, ids: list[str], *, single: bool) -> Reply:
        if not from_here(request, self._origins):
            raise Refused("cross_origin")
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
        stream = self._streams.serve(watcher, viewer, request.base, single=single)
        return Reply(200, headers, stream)

    async def _changed(self, job: Job, seconds: float) -> Job:
        """The job after its next change, or as it is after *seconds*."""
        return await self._until(job, seconds, lambda seen: seen.rev > job.rev)

    async def _ended(self, job: Job, seconds: float) -> Job:
        """The job when it has ended, or as it is after *seconds*."""
        return await self._until(job, seconds, lambda seen: seen.state.terminal)

    async def _until(self, job: Job, seconds: float, good: Callable[[Job], bool]) -> Job:
        until = time.monotonic() + seconds
        with self._jobs.hub.watcher([job.id]) as watcher:
            while (left := until - time.monotonic()) > 0 and not self._streams.draining:
                await watcher.wait(left)
                for _, seen in watcher.take():
                    if seen.job is None:
                        return job
                    job = seen.job
                    if good(job):
                        return job
        return job

    async def _any_changed(self, found: list[Job], ids: list[str], seconds: float) -> None:
        revs = {job.id: job.rev for job in found}
        until = time.monotonic() + seconds
        with self._jobs.hub.watcher(ids) as watcher:
            while (left := until - time.monotonic()) > 0 and not self._streams.draining:
                await watcher.wait(left)
                for job_id, seen in watcher.take():
                    if (seen.job.rev if seen.job else None) != revs.get(job_id):
                        return


_Handler = Callable[..., Awaitable[Reply]]
_ROUTES: Final[tuple[tuple[tuple[str, ...], Mapping[str, _Handler]], ...]] = (
    ((), {"GET": Api._list}),
    (("events",), {"GET": Api._all_events}),
    (("health",), {"GET": Api._health}),
    (("static", "*"), {"GET": Api._static}),
    (("*",), {"GET": Api._job, "DELETE": Api._forget}),
    (("*", "events"), {"GET": Api._events}),
    (("*", "result"), {"GET": Api._result}),
    (("*", "log"), {"GET": Api._log}),
    (("*", "attempts"), {"GET": Api._attempts}),
    (("*", "cancel"), {"POST": Api._cancel}),
    (("*", "retry"), {"POST": Api._retry}),
)
"""What is where; "*" is handed to the handler. HEAD is GET without the body."""


def _matched(shape: Sequence[str], parts: Sequence[str]) -> list[str] | None:
    if len(shape) != len(parts):
        return None
    pairs = list(zip(shape, parts, strict=True))
    if any(want not in {"*", part} for want, part in pairs):
        return None
    return [part for want, part in pairs if want == "*"]


def _not_allowed(handlers: Mapping[str, _Handler]) -> Reply:
    methods = ", ".join(["GET, HEAD" if name == "GET" else name for name in handlers])
    return problem("method_not_allowed", detail=f"Only {methods}.", headers=[("Allow", methods)])


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


def _tag(job: Job, *, html: bool) -> str:
    return f'"{job.rev}-page-{pages.VERSION}"' if html else f'"{job.rev}"'


def _tag_of_all(jobs: list[Job]) -> str:
    said = " ".join(f"{job.id}:{job.rev}" for job in jobs).encode()
    return f'"{blake2b(said, digest_size=12).hexdigest()}"'


def _soon(job: Job) -> list[tuple[str, str]]:
    return [] if job.state.terminal else [("Retry-After", "1")]
