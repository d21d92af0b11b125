"""The HTTP surface, free of frameworks: `Request` in, `Reply` out.

Doors translate and decide nothing. What strangers send is parsed and refused here; inside, types
are trusted. Someone else's job does not exist: every route answers 404 for it, with the same
words as for an id that nobody has.
"""

from __future__ import annotations

import builtins
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from headway import _sse, pages
from headway.errors import (
    JobNotFound,
    StoreError,
    StoreUnavailable,
)
from headway.job import EVERYONE, Job, State, is_id
from headway.watch import Hub, Seen, Watcher

__all__ = ["Api", "Reply", "Request", "Viewer", "document", "problem"]

HEARTBEAT_S: Final = 15.0
STREAM_AGE_S: Final = 900.0  # then it is opened anew, and who may watch is checked again
RETRY_MS: Final = (1_000, 4_000)  # spread, so that a restart is not followed by a stampede
WAIT_MAX_S: Final = 25.0  # under the 29 s after which some gateways give up
STREAM_IDS: Final = 50
LIST_LIMIT: Final = 50
STORE_AGAIN_S: Final = 2

_NO_STORE = ("Cache-Control", "no-store")
_PRIVATE = ("Cache-Control", "private, no-cache")
_JSON = ("Content-Type", "application/json")
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_VARY = ("Vary", "Accept, Cookie")


@dataclass(frozen=True, slots=True)
class Request:
    """What a door has understood of a request.

    Args:
        path: below the mount, beginning with "/".
        base: where the surface is mounted, such as "/jobs"; links begin with it.
        headers: names in lower case.
        native: the framework's own request, for `identify` and `operator`.
    """

    method: str
    path: str
    base: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, list[str]] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    native: Any = None

    @property
    def wants_html(self) -> bool:
        """True for a browser that navigates: it prefers HTML to JSON."""
        accept = self.headers.get("accept", "")
        return "text/html" in accept and "application/json" not in accept


@dataclass(frozen=True, slots=True)
class Reply:
    """What a door has to send. A stream body ends by itself, or when the door closes it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] = b""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: the owner of jobs, perhaps an operator, or nobody."""

    owner: str | None
    operator: bool = False

    def may_watch(self, job: Job) -> bool:
        mine = job.owner is not None and job.owner in {self.owner, EVERYONE}
        return mine or self.operator

    def may_cancel(self, job: Job) -> bool:
        mine = job.owner is not None and job.owner == self.owner and job.owner != EVERYONE
        return mine or self.operator


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


def problem(
    status: int,
    code: str,
    title: str,
    detail: str | None = None,
    *,
    headers: list[tuple[str, str]] | None = None,
    **more: Any,
) -> Reply:
    """An error as a document. Source: RFC 9457; `code` is ours, and stable."""
    body = {"type": f"urn:headway:{code}", "title": title, "status": status, "code": code}
    if detail is not None:
        body["detail"] = detail
    kind = ("Content-Type", "application/problem+json")
    return Reply(
        status,
        [kind, _NO_STORE, _NOSNIFF, *(headers or [])],
        msgspec.json.encode({**body, **more}),
    )


def _not_found() -> _Refused:
    return _Refused(
        problem(404, "not_found", "No such job", "The id is wrong, or the job has expired.")
    )


def store_problem(error: StoreError) -> Reply:
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


def document(job: Job, base: str, *, may_cancel: bool) -> dict[str, Any]:
    """The status document: the same in answers, events and pages. Times are RFC 3339, UTC."""
    here = f"{base}/{job.id}"
    ended = job.state.terminal
    again = job.state in {State.FAILED, State.CANCELLED} and may_cancel
    reading = job.progress
    return {
        "id": job.id,
        "task": job.task,
        "title": job.title,
        "state": job.state,
        "rev": job.rev,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "progress": {
            "done": reading.done,
            "total": reading.total,
            "ratio": reading.ratio,
            "unit": reading.unit,
            "rate_per_s": reading.rate_per_s,
            "stages": reading.stages,
        },
        "note": reading.note,
        "eta_s": reading.eta_s,
        "stalled": job.stalled,
        "cancel_requested": job.cancel_requested,
        "resumed_ratio": reading.resumed_ratio,
        "retry_at": _rfc3339(job.retry_at),
        "created_at": _rfc3339(job.created_at),
        "started_at": _rfc3339(job.started_at),
        "updated_at": _rfc3339(job.updated_at),
        "finished_at": _rfc3339(job.finished_at),
        "expires_at": _rfc3339(job.expires_at),
        "error": job.error,
        "result": job.result,
        "links": {
            "self": here,
            "events": f"{here}/events",
            "cancel": f"{here}/cancel" if may_cancel and not ended else None,
            "result": f"{here}/result" if job.state is State.SUCCEEDED else None,
            "retry": f"{here}/retry" if again else None,
        },
    }


def _rfc3339(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


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
        self._heartbeat_s = heartbeat_s
        self._age_s = age_s
        self._streams: set[Watcher] = set()
        self.draining = False

    @property
    def streams(self) -> int:
        """How many event streams are open in this process."""
        return len(self._streams)

    def drain(self) -> None:
        """End every stream, and begin no other: the server is about to stop."""
        self.draining = True
        for watcher in self._streams:
            watcher.nudge()

    async def answer(self, request: Request) -> Reply:
        """Answer one request. Never raises for what a stranger sent or the store did."""
        try:
            reply = await self._route(request)
        except _Refused as refused:
            reply = refused.reply
        except JobNotFound:
            reply = _not_found().reply
        except StoreError as error:
            reply = store_problem(error)
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
        if tag in _tags(request):
            job = await self._changed(job, _wait_s(request))
            tag = _tag(job, html=html)
        headers = [("ETag", tag), _PRIVATE, _VARY, _NOSNIFF, *_soon(job), *_waited(request)]
        if tag in _tags(request):
            return Reply(304, headers)
        found = document(job, request.base, may_cancel=viewer.may_cancel(job))
        if html:
            return Reply(200, [*headers, *pages.HEADERS], pages.job_page(found, request.base))
        return Reply(200, [*headers, _JSON], msgspec.json.encode(found))

    async def _list(self, request: Request) -> Reply:
        viewer = await self._who(request)
        asked = "id" in request.query
        ids = self._ids(request) if asked else []
        found = await self._listed(viewer, ids, asked=asked)
        tag = _tag_of_all(found)
        if asked and tag in _tags(request) and (seconds := _wait_s(request)):
            await self._any_changed(found, ids, seconds)
            found = await self._listed(viewer, ids, asked=asked)
            tag = _tag_of_all(found)
        headers = [("ETag", tag), _PRIVATE, _VARY, _NOSNIFF, *_waited(request)]
        if tag in _tags(request):
            return Reply(304, headers)
        documents = [
            document(job, request.base, may_cancel=viewer.may_cancel(job)) for job in found
        ]
        if request.wants_html:
            return Reply(200, [*headers, *pages.HEADERS], pages.jobs_page(documents, request.base))
        here = {job.id for job in found}
        body = {"jobs": documents, "gone": [i for i in ids if i not in here]}
        return Reply(200, [*headers, _JSON], msgspec.json.encode(body))

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
        headers = [_PRIVATE, _VARY, _NOSNIFF]
        if (url := _url_in(job.result)) is not None:
            return Reply(303, [*headers, ("Location", url)])
        return Reply(200, [*headers, _JSON], msgspec.json.encode(job.result))

    # ── changing ──────────────────────────────────────────────────────────────────────────────

    async def _changeable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        if not _from_here(request):
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

    def told(self, request: Request, job: Job, status: int, *, may_cancel: bool) -> Reply:
        """A job as the answer to a change: its page for a form, its document for others."""
        here = f"{request.base}/{job.id}"
        if request.wants_html:
            return Reply(303, [("Location", here), _NO_STORE])
        found = document(job, request.base, may_cancel=may_cancel)
        headers = [("Location", here), _NO_STORE, _JSON, _NOSNIFF, *_soon(job)]
        return Reply(status, headers, msgspec.json.encode(found))

    # ── streaming ─────────────────────────────────────────────────────────────────────────────

    def _ids(self, request: Request) -> list[str]:
        ids = list(dict.fromkeys(request.query.get("id", [])))
        if not ids:
            raise _Refused(problem(400, "no_ids", "Say which jobs: ?id=…&id=…"))
        if len(ids) > STREAM_IDS:
            raise _Refused(problem(400, "too_many_ids", f"At most {STREAM_IDS} jobs at a time"))
        return ids

    async def _events(self, request: Request, ids: list[str], *, single: bool) -> Reply:
        if not _from_here(request):
            raise _Refused(problem(403, "cross_origin", "Refused: another site asked for this"))
        if single:
            await self._watchable(request, ids[0])
        viewer = await self._who(request)
        if _sse.last_seen(request.headers.get("last-event-id")) == _sse.END:
            return Reply(204, [_NO_STORE])
        headers = [
            ("Content-Type", _sse.CONTENT_TYPE),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            _NOSNIFF,
        ]
        if request.method == "HEAD":
            return Reply(200, headers)
        stream = self._stream(ids, viewer, request.base, single=single)
        return Reply(200, headers, stream)

    async def _stream(
        self, ids: list[str], viewer: Viewer, base: str, *, single: bool
    ) -> AsyncIterator[bytes]:
        yield _sse.retry(random.randint(*RETRY_MS))  # noqa: S311
        with self._jobs.hub.watcher(ids) as watcher:
            self._streams.add(watcher)
            try:
                async for chunk in self._chunks(watcher, viewer, base, single=single):
                    yield chunk
            finally:
                self._streams.discard(watcher)

    async def _chunks(
        self, watcher: Watcher, viewer: Viewer, base: str, *, single: bool
    ) -> AsyncIterator[bytes]:
        going = set(watcher.ids)
        clock = time.monotonic
        until = clock() + self._age_s * random.uniform(0.8, 1.2)  # noqa: S311
        beat_at, live = clock() + self._heartbeat_s, watcher.live
        if not live:
            yield _heartbeat(live=False)
        while True:
            frames = [
                self._frame(job_id, seen, viewer, base, going, single=single)
                for job_id, seen in watcher.take()
            ]
            if frames:
                yield b"".join(frames)
            if not going:
                yield _sse.frame("end", b"{}", event_id=_sse.END)
                return
            if self.draining or clock() >= until:
                reason = b'{"reason":"drain"}' if self.draining else b'{"reason":"age"}'
                yield _sse.frame("bye", reason)
                return
            if clock() >= beat_at or live != watcher.live:
                live, beat_at = watcher.live, clock() + self._heartbeat_s
                yield _heartbeat(live=live)
            await watcher.wait(max(min(beat_at, until) - clock(), 0))

    def _frame(
        self, job_id: str, seen: Seen, viewer: Viewer, base: str, going: set[str], *, single: bool
    ) -> bytes:
        job = seen.job
        if job is None or not viewer.may_watch(job):
            going.discard(job_id)
            return _sse.frame("gone", msgspec.json.encode({"id": job_id[:64]}))
        if job.state.terminal:
            going.discard(job_id)
        view = (base, viewer.may_cancel(job), single)
        if seen.frame is None or seen.frame[0] != view:
            data = msgspec.json.encode(document(job, base, may_cancel=view[1]))
            event_id = str(job.rev) if single else None
            seen.frame = (view, _sse.frame("job", data, event_id=event_id))
        return seen.frame[1]

    async def _changed(self, job: Job, seconds: float) -> Job:
        """The job after its next change, or as it is after *seconds*."""
        until = time.monotonic() + seconds
        with self._jobs.hub.watcher([job.id]) as watcher:
            while (left := until - time.monotonic()) > 0 and not self.draining:
                await watcher.wait(left)
                for _, seen in watcher.take():
                    if seen.job is not None and seen.job.rev > job.rev:
                        return seen.job
        return job

    async def _any_changed(self, found: list[Job], ids: list[str], seconds: float) -> None:
        revs = {job.id: job.rev for job in found}
        until = time.monotonic() + seconds
        with self._jobs.hub.watcher(ids) as watcher:
            while (left := until - time.monotonic()) > 0 and not self.draining:
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
        _NOSNIFF,
    ]
    if tag in _tags(request):
        return Reply(304, headers)
    if zipped:
        return Reply(200, [*headers, ("Content-Encoding", "gzip")], file.zipped)
    return Reply(200, headers, file.data)


def _heartbeat(*, live: bool) -> bytes:
    now = _rfc3339(time.time())
    return _sse.frame("hb", msgspec.json.encode({"now": now, "live": live}))


def _not_allowed(methods: str) -> Reply:
    return problem(405, "method_not_allowed", f"Only {methods} here", headers=[("Allow", methods)])


def _no_route() -> Reply:
    return problem(404, "no_route", "There is nothing here")


def _tag(job: Job, *, html: bool) -> str:
    return f'"{job.rev}-page-{pages.VERSION}"' if html else f'"{job.rev}"'


def _tag_of_all(jobs: list[Job]) -> str:
    said = " ".join(f"{job.id}:{job.rev}" for job in jobs).encode()
    return f'"{blake2b(said, digest_size=12).hexdigest()}"'


def _tags(request: Request) -> set[str]:
    """The entity tags of If-None-Match; nonsense matches nothing."""
    header = request.headers.get("if-none-match", "")
    return {tag.strip().removeprefix("W/") for tag in header.split(",")[:100]}


def _wait_s(request: Request) -> float:
    """Seconds in `Prefer: wait=N`, up to what gateways bear. Source: RFC 7240, section 4.3."""
    for part in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        digits = value.strip().strip('"')
        if name.strip().lower() == "wait" and digits.isascii() and digits.isdigit():
            return min(float(digits[:6]), WAIT_MAX_S)
    return 0.0


def _waited(request: Request) -> list[tuple[str, str]]:
    seconds = _wait_s(request)
    return [("Preference-Applied", f"wait={seconds:.0f}")] if seconds else []


def _soon(job: Job) -> list[tuple[str, str]]:
    return [] if job.state.terminal else [("Retry-After", "1")]


def _url_in(result: Any) -> str | None:
    """The address of a result that is kept elsewhere: {"url": …}, http(s) or a path of ours."""
    url = result.get("url") if isinstance(result, dict) else None
    if not isinstance(url, str) or any(ord(c) <= 0x20 or c in "\\\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme in {"http", "https"} and parts.netloc:
        return url if url.isascii() else None
    local = not parts.scheme and not parts.netloc and url.startswith("/")
    return url if local and url.isascii() else None


def _from_here(request: Request) -> bool:
    """False for what a browser sends on behalf of another site.

    Source: Fetch Metadata (W3C) first, then the Origin header, as in Go's CrossOriginProtection.
    A client that sends neither is no browser, and carries no cookies it was not given.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        return False
