"""The same jobs through both doors, `quart_app` and `asgi_app`, to be put behind a proxy.

HEARTBEAT_S in the environment shortens the time between two heartbeats.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from quart import Quart, Response

from headway import Headway, Progress
from headway.http import Reply
from headway.quart import Headway as QuartHeadway

STEP_S = 0.15


async def count(progress: Progress, steps: int) -> int:
    """A step that can be seen, every STEP_S."""
    async for _ in progress.track(range(steps)):
        await asyncio.sleep(STEP_S)
    return steps


async def wait() -> None:
    """Reports nothing, and does not end by itself."""
    await asyncio.Event().wait()


def beating(headway: Headway) -> None:
    headway.streams._heartbeat_s = float(os.environ.get("HEARTBEAT_S", "15"))
    headway.task(count)
    headway.task(wait)


async def started(headway: Headway, task: str) -> Any:
    known = headway._tasks.get(task)
    job = await (known.start(20) if task == "count" else known.start())
    return await headway.reply(job)


# ── Quart ─────────────────────────────────────────────────────────────────────────────────────

quart_app = Quart(__name__)
_quart = QuartHeadway(quart_app, identify=lambda request: "tester")
beating(_quart)


@quart_app.post("/start/<task>")
async def start(task: str) -> Response:
    response: Response = await started(_quart, task)
    return response


@quart_app.get("/streams")
async def streams() -> dict[str, int]:
    return {"open": len(_quart.streams)}


# ── plain ASGI ────────────────────────────────────────────────────────────────────────────────

_asgi = Headway(identify=lambda scope: "tester", state_dir=os.environ.get("HEADWAY_STATE_DIR"))
beating(_asgi)


async def _routes(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    if scope["path"].startswith("/start/"):
        reply = await started(_asgi, scope["path"].rpartition("/")[2])
    else:
        reply = Reply(200, [], b'{"open":%d}' % len(_asgi.streams))
    headers = [(n.lower().encode(), v.encode()) for n, v in reply.headers]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


asgi_app = _asgi.wrap(_routes)
