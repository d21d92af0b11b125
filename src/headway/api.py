"""The HTTP surface, free of frameworks: `Request` in, `Reply` out.

Doors translate and decide nothing. What strangers send is parsed and refused here; inside, types
are trusted. Someone else's job does not exist: every route answers 404 for it, with the same
words as for an id that nobody has.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from headway import _sse, pages
from headway.document import document
from headway.errors import JobNotFound, StoreError, StoreUnavailable
from headway.http import (
    JSON,
    NO_STORE,
    NOSNIFF,
    PRIVATE,
    VARY,
    Reply,
    Request,
    entity_tags,
    from_here,
    problem,
    safe_url,
    wait_s,
    waited,
)
from headway.job import Job, State, is_id
from headway.stream import HEARTBEAT_S, STREAM_AGE_S, Streams
from headway.tokens import Viewer
from headway.watch import Hub

__all__ = ["Api"]

STREAM_IDS: Final = 50
LIST_LIMIT: Final = 50
STORE_AGAIN_S: Final = 2


class Jobs(Protocol):
    """What the surface needs of the app-long object."""

    @property
    def hub(self) -> Hub: ...
    async def get(self, job_id: str) -> Job: ...
    async def get_all(self, ids: Sequence[str]) -> builtins.list[Job]: ...
    async def cancel(self, job_id: str) -> Job: ...
    async def retry(self, job_id: str) -> Job: ...
    async def list(self, *, owner: str, limit: int = ...) -> builtins.list[Job]: ...


class _Refused(Exception):
    """Carries a problem document out of a handler."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


def _not_found() -> _Refused:
    return _Refused(
        problem(404, "not_found", "No such job", "The id is wrong, or the job has expired.")
    )


def _store_problem(error: StoreError) -> Reply:
    """The store cannot answer now; the details stay in the log."""
    again = [("Retry-After", str(STORE_AGAIN_S))]
    if isinstance(error, StoreUnavailable):
        return problem(
            503, "store_unavailable", "The job store does not answer",
            "Nothing is lost. Try again in a moment.", headers=again,
        )  # fmt: skip
    return problem(
        503, "store_refuses", "The job store cannot write now",
        "Nothing is lost. Try again in a moment.", headers=again,
    )  # fmt: skip


class Api:
    """Answers requests about jobs.

    Args:
        jobs: reads and cancels them.
        who: tells who asks.
        age_s: how old a stream may become, in seconds, before it asks to be opened anew.
    """

    def __init__(
        self,
        jobs: Jobs,
        who: Callable[[Request], Awaitable[Viewer]],
        *,
        heartbeat_s: float = HEARTBEAT_S,
        age_s: float = STREAM_AGE_S,
    ) -> None:
        self._jobs = jobs
        self._who = who
        self.streams = Streams(heartbeat_s=heartbeat_s, age_s=age_s)

    async def answer(self, request: Request) -> Reply:
        """Answer one request. Never raises for what a stranger sent or the store did."""
        try:
            reply = await self._route(request)
        except _Refused as refused:
            reply = refused.reply
        except JobNotFound:
            reply = _not_found().reply
        except StoreError as error:
            reply = _store_problem(error)
        if request.method == "HEAD":
            return Reply(reply.status, reply.headers)
        return reply

    async def _route(self, request: Request) -> Reply:
        parts = [part for part in request.path.split("/") if part]
        if request.method == "POST":
            return await self._post(request, parts)
        if request.method in {"GET", "HEAD"}:
            return await self._get(request, parts)
        return _not_allowed("GET, HEAD, POST")

    async def _get(self, request: Request, parts: list[str]) -> Reply:
        match parts:
            case []:
                return await self._list(request)
            case ["events"]:
                return await self._events(request, self._ids(request), single=False)
            case ["static", name]:
                return _static(request, name)
            case [job_id]:
                return await self._job(request, job_id)
            case [job_id, "events"]:
                return await self._events(request, [job_id], single=True)
            case [job_id, "result"]:
                return await self._result(request, job_id)
            case [_, "cancel" | "retry"]:
                return _not_allowed("POST")
        return _no_route()

    async def _post(self, request: Request, parts: list[str]) -> Reply:
        match parts:
            case [job_id, "cancel"]:
                return await self._cancel(request, job_id)
            case [job_id, "retry"]:
                return await self._retry(request, job_id)
            case [] | [_] | [_, "events" | "result"] | ["static", _]:
                return _not_allowed("GET, HEAD")
        return _no_route()

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def _watchable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        viewer = await self._who(request)
        if not is_id(job_id):
            raise _not_found()
        job = await self._jobs.get(job_id)
        if not viewer.may_watch(job):
            raise _not_found()
        if job.expires_at is not None and job.expires_at < time.time():
            raise _Refused(problem(410, "expired", "This job has expired"))
        return job, viewer

    async def _job(self, request: Request, job_id: str) -> Reply:
        job, viewer = await self._watchable(request, job_id)
        html = request.wants_html
        tag = _tag(job, html=html)
        if tag in entity_tags(request):
            job = await self._changed(job, wait_s(request))
            tag = _tag(job, html=html)
        headers = [("ETag", tag), PRIVATE, VARY, NOSNIFF, *_soon(job), *waited(request)]
        if tag in entity_tags(request):
            return Reply(304, headers)
        found = document(job, request.base, may_cancel=viewer.may_cancel(job))
        if html:
            return Reply(200, [*headers, *pages.HEADERS], pages.job_page(found, request.base))
        return Reply(200, [*headers, JSON], msgspec.json.encode(found))

    async def _list(self, request: Request) -> Reply:
        viewer = await self._who(request)
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
        documents = [
            document(job, request.base, may_cancel=viewer.may_cancel(job)) for job in found
        ]
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
        if not job.state.terminal:
            raise _Refused(
                problem(
                    409, "not_finished", "The job is not finished",
                    headers=_soon(job), state=job.state,
                )
            )  # fmt: skip
        if job.state is not State.SUCCEEDED:
            title = job.error.title if job.error else "The job was cancelled"
            code = job.error.code if job.error else "cancelled"
            raise _Refused(problem(409, "no_result", title, state=job.state, error=code))
        headers = [PRIVATE, VARY, NOSNIFF]
        if (url := safe_url(job.result)) is not None:
            return Reply(303, [*headers, ("Location", url)])
        return Reply(200, [*headers, JSON], msgspec.json.encode(job.result))

    # ── changing ──────────────────────────────────────────────────────────────────────────────

    async def _changeable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        if not from_here(request):
            raise _Refused(
                problem(
                    403, "cross_origin", "Refused: this request comes from another site",
                    "Send it from a page of the same origin, or without a browser.",
                )
            )  # fmt: skip
        job, viewer = await self._watchable(request, job_id)
        if not viewer.may_cancel(job):
            raise _Refused(
                problem(403, "not_yours", "Everyone may watch this job, but not stop it")
            )
        return job, viewer

    async def _cancel(self, request: Request, job_id: str) -> Reply:
        job, _ = await self._changeable(request, job_id)
        if not job.state.terminal:
            job = await self._jobs.cancel(job_id)
        status = 200 if job.state.terminal else 202
        return self.told(request, job, status, may_cancel=True)

    async def _retry(self, request: Request, job_id: str) -> Reply:
        job, _ = await self._changeable(request, job_id)
        if job.state not in {State.FAILED, State.CANCELLED}:
            raise _Refused(
                problem(409, "not_failed", "Only a failed or cancelled job can be tried again")
            )
        job = await self._jobs.retry(job_id)
        return self.told(request, job, 202, may_cancel=True)

    def told(
        self,
        request: Request,
        job: Job,
        status: int,
        *,
        may_cancel: bool,
        to: str | None = None,
    ) -> Reply:
        """A job as the answer to a change: its page, or *to*, for a form; else its document."""
        here = f"{request.base}/{job.id}"
        if request.wants_html:
            return Reply(303, [("Location", to or here), NO_STORE])
        found = document(job, request.base, may_cancel=may_cancel)
        headers = [("Location", here), NO_STORE, JSON, NOSNIFF, *_soon(job)]
        return Reply(status, headers, msgspec.json.encode(found))

    # ── waiting ─────────────────────────────────────────────────────────────────────────────

    def _ids(self, request: Request) -> list[str]:
        ids = list(dict.fromkeys(request.query.get("id", [])))
        if not ids:
            raise _Refused(problem(400, "no_ids", "Say which jobs: ?id=…&id=…"))
        if len(ids) > STREAM_IDS:
            raise _Refused(problem(400, "too_many_ids", f"At most {STREAM_IDS} jobs at a time"))
        return ids

    async def _events(self, request: Request, ids: list[str], *, single: bool) -> Reply:
        if not from_here(request):
            raise _Refused(problem(403, "cross_origin", "Refused: another site asked for this"))
        if single:
            await self._watchable(request, ids[0])
        viewer = await self._who(request)
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
        watcher = self._jobs.hub.watcher(ids)
        stream = self.streams.serve(watcher, viewer, request.base, single=single)
        return Reply(200, headers, stream)

    async def _changed(self, job: Job, seconds: float) -> Job:
        """The job after its next change, or as it is after *seconds*."""
        until = time.monotonic() + seconds
        with self._jobs.hub.watcher([job.id]) as watcher:
            while (left := until - time.monotonic()) > 0 and not self.streams.draining:
                await watcher.wait(left)
                for _, seen in watcher.take():
                    if seen.job is not None and seen.job.rev > job.rev:
                        return seen.job
        return job

    async def _any_changed(self, found: list[Job], ids: list[str], seconds: float) -> None:
        revs = {job.id: job.rev for job in found}
        until = time.monotonic() + seconds
        with self._jobs.hub.watcher(ids) as watcher:
            while (left := until - time.monotonic()) > 0 and not self.streams.draining:
                await watcher.wait(left)
                for job_id, seen in watcher.take():
                    if (seen.job.rev if seen.job else None) != revs.get(job_id):
                        return


def _static(request: Request, name: str) -> Reply:
    file = pages.static(name)
    if file is None:
        return problem(404, "no_file", "There is no such file")
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    tag = f'"{file.digest}{"-gz" if zipped else ""}"'
    headers = [
        ("Content-Type", file.kind),
        ("Cache-Control", "public, max-age=0, must-revalidate"),
        ("ETag", tag),
        ("Vary", "Accept-Encoding"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        NOSNIFF,
    ]
    if tag in entity_tags(request):
        return Reply(304, headers)
    if zipped:
        return Reply(200, [*headers, ("Content-Encoding", "gzip")], file.zipped)
    return Reply(200, headers, file.data)


def _not_allowed(methods: str) -> Reply:
    return problem(405, "method_not_allowed", f"Only {methods} here", headers=[("Allow", methods)])


def _no_route() -> Reply:
    return problem(404, "no_route", "There is nothing here")


def _tag(job: Job, *, html: bool) -> str:
    return f'"{job.rev}-page-{pages.VERSION}"' if html else f'"{job.rev}"'


def _tag_of_all(jobs: list[Job]) -> str:
    said = " ".join(f"{job.id}:{job.rev}" for job in jobs).encode()
    return f'"{blake2b(said, digest_size=12).hexdigest()}"'


def _soon(job: Job) -> list[tuple[str, str]]:
    return [] if job.state.terminal else [("Retry-After", "1")]
