"""Apps whose streams push the same bytes: two that are nothing else, and Headway's.

`bare` is the least that such an app can be in ASGI, and `bare_quart` in Quart. `plain` and `quart`
are Headway as users have it: around an ASGI app, and as an extension of Quart. All of them take
`POST /start` with a task, and `POST /go`: then the task `watched`, or what stands for it, says
something new all the time.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from quart import Quart, Response, request

from headway import Headway, JobError, Progress, _sse
from headway.document import document
from headway.job import Job, Reading, State
from headway.limits import Limits
from headway.quart import Headway as QuartHeadway
from headway.tokens import Viewer

__all__ = ["EVERY_S", "bare", "bare_quart", "plain", "quart"]

EVERY_S: Final = 0.1  # between two pushes of the bare apps; Headway writes as often, at most
SAY_S: Final = 0.02  # between two reports of a task that reports all the time
LIMITS: Final = Limits(
    streams_per_process=20_000,
    streams_per_owner=20_000,
    jobs_per_owner=None,
    starts_per_minute=None,
)
OWNER: Final = "ann"

Say = Callable[[str], None]
Begin = Callable[[str, dict[str, Any]], Awaitable[str]]


# ── the tasks ─────────────────────────────────────────────────────────────────────────────────


class _Voice:
    """By which the job that is watched is made to say something."""

    progress: Progress | None = None

    def say(self, text: str) -> None:
        assert self.progress is not None, "start the task `watched` first"
        self.progress.note(text)


VOICE: Final = _Voice()


async def watched(progress: Progress) -> None:
    """Is silent, and does not end by itself."""
    VOICE.progress = progress
    progress.note(_now())
    await asyncio.Event().wait()


async def reports(progress: Progress, seconds: float, gaps_s: tuple[float, float]) -> list[str]:
    """Note the time at random moments; all of those times."""
    until, noted = time.monotonic() + seconds, []
    while time.monotonic() < until:
        await asyncio.sleep(random.uniform(*gaps_s))
        noted.append(_now())
        progress.note(noted[-1])
    await asyncio.sleep(2 * EVERY_S)  # the last one is seen, too
    return noted


async def ends(within_s: tuple[float, float]) -> str:
    """Succeed or fail at a random moment, and say when that was."""
    await asyncio.sleep(random.uniform(*within_s))
    if random.random() < 0.5:
        raise JobError(_now())
    return _now()


def _now() -> str:
    return str(time.monotonic_ns())


async def _go(say: Say, every_s: float, seconds: float) -> dict[str, float]:
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        say(_now())
        await asyncio.sleep(every_s)
    return {"seconds": time.monotonic() - began}


async def _answer(scope: Any, receive: Any, send: Any, begin: Begin, say: Say, pace: float) -> None:
    """Answer `POST /start` and `POST /go`."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(body)
    found: dict[str, Any]
    if scope["path"] == "/start":
        found = {"id": await begin(asked["task"], asked["options"])}
    else:
        found = await _go(say, pace, asked["seconds"])
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(found).encode()})


# ── without Headway ───────────────────────────────────────────────────────────────────────────

BARE_ID: Final = f"00{'a' * 26}"
HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
RAW: Final = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def _frame(note: str) -> bytes:
    """What Headway sends of the job `watched`."""
    now = time.time()
    job = Job(
        id=BARE_ID,
        task="watched",
        title="Watched",
        state=State.RUNNING,
        attempt=1,
        max_attempts=1,
        rev=100,
        progress=Reading(note=note),
        owner=OWNER,
        created_at=now,
        started_at=now,
        updated_at=now,
    )
    found = msgspec.json.encode(document(job, "/jobs", Viewer(OWNER)))
    return _sse.frame("job", found, event_id=str(job.rev))


class _Source:
    """One for all streams of the process: the newest bytes, and an event that there are others."""

    def __init__(self) -> None:
        self._newest = b""
        self._changed = asyncio.Event()

    def say(self, text: str) -> None:
        self._newest = _frame(text)
        self._changed.set()
        self._changed = asyncio.Event()

    async def begin(self, task: str, options: dict[str, Any]) -> str:
        self.say(_now())
        return BARE_ID

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            changed = self._changed
            yield self._newest
            await changed.wait()


class _Bare:
    """Each stream is a task that pushes, while the server's own waits for the client to go."""

    def __init__(self) -> None:
        self._source = _Source()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("this app has no lifespan")
        if scope["method"] == "POST":
            source = self._source
            await _answer(scope, receive, send, source.begin, source.say, EVERY_S)
            return
        await send({"type": "http.response.start", "status": 200, "headers": RAW})
        pushing = asyncio.create_task(self._push(send))
        while (await receive())["type"] != "http.disconnect":
            pass
        pushing.cancel()

    async def _push(self, send: Any) -> None:
        async for chunk in self._source:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


bare = _Bare()
bare_quart = Quart("bare_quart")
SOURCE: Final = _Source()


@bare_quart.get("/jobs/<job_id>/events")
async def _events(job_id: str) -> Response:
    response = Response(aiter(SOURCE), headers=HEADERS)
    response.timeout = None
    return response


def _on_quart(app: Quart, begin: Begin, say: Say, pace: float) -> None:
    @app.post("/start")
    async def start() -> dict[str, Any]:
        asked = await request.get_json()
        return {"id": await begin(asked["task"], asked["options"])}

    @app.post("/go")
    async def go() -> dict[str, Any]:
        return await _go(say, pace, (await request.get_json())["seconds"])


_on_quart(bare_quart, SOURCE.begin, SOURCE.say, EVERY_S)

# ── Headway ───────────────────────────────────────────────────────────────────────────────────


def _tasks(headway: Headway) -> Begin:
    tasks = {task.__name__: headway.task(task) for task in (watched, reports, ends)}

    async def begin(task: str, options: dict[str, Any]) -> str:
        return (await tasks[task].using(owner=OWNER).start(**options)).id

    return begin


_plain = Headway(limits=LIMITS, identify=lambda _: OWNER)
_begin = _tasks(_plain)


async def _site(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("this app has no lifespan")
    await _answer(scope, receive, send, _begin, VOICE.say, SAY_S)


plain = _plain.wrap(_site)
quart = Quart("quart")
_headway = QuartHeadway(quart, limits=LIMITS, identify=lambda _: OWNER)
_on_quart(quart, _tasks(_headway), VOICE.say, SAY_S)
