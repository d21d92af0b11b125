"""Large results through every door, for clients that do not take them.

`quart_app`, `asgi_app`, `fastapi_app`. SEND_S, PER_OWNER and PER_PROCESS in the environment set
the limits.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi import Response as FastApiResponse
from quart import Quart, Response

from headway import Headway, Progress
from headway.fastapi import Headway as FastApiHeadway
from headway.limits import Limits
from headway.quart import Headway as QuartHeadway

BULK_BYTES: Final = 65_000
LIMITS: Final = Limits(
    send_s=int(os.environ.get("SEND_S", "30")),
    streams_per_owner=int(os.environ.get("PER_OWNER", "10")),
    streams_per_process=int(os.environ.get("PER_PROCESS", "2000")),
    ids_per_stream=100,
    jobs_per_owner=None,
    starts_per_minute=None,
)


async def bulk(size: int = BULK_BYTES) -> str:
    """As much as no buffer holds, if there are some of it."""
    return "x" * size


async def wait(progress: Progress) -> None:
    """Does not end by itself."""
    progress.note("waiting")
    await asyncio.Event().wait()


def tell(headway: Headway) -> dict[str, int]:
    """What the process holds."""
    return {
        "open": len(headway.streams),
        "watched": headway.hub.watched,
        "tasks": len(asyncio.all_tasks()),
        "files": sum(1 for _ in Path("/dev/fd").iterdir()),
        "pid": os.getpid(),
    }


# ── Quart ─────────────────────────────────────────────────────────────────────────────────────

quart_app = Quart(__name__)


def _inside(request: Any) -> str | None:
    """Who asks, unless they have logged out; all processes share the list of those."""
    name: str = request.headers.get("x-user", "tester")
    journal = Path(os.environ["JOURNAL"])
    return None if journal.exists() and name in journal.read_text().split() else name


_quart = QuartHeadway(quart_app, limits=LIMITS, identify=_inside)
QUART_TASKS: Final = {f.__name__: _quart.task(f) for f in (bulk, wait)}


@quart_app.post("/start/<task>")
async def start(task: str) -> Response:
    response: Response = await _quart.reply(await QUART_TASKS[task].start())
    return response


@quart_app.post("/logout/<user>")
async def logout(user: str) -> dict[str, str]:
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(f"{user}\n")
    await _quart.revoke(user)
    return {"bye": user}


@quart_app.get("/streams")
async def streams() -> dict[str, int]:
    return tell(_quart)


# ── plain ASGI ────────────────────────────────────────────────────────────────────────────────


def _who(scope: Any) -> str:
    name: bytes = dict(scope["headers"]).get(b"x-user", b"tester")
    return name.decode()


_plain = Headway(limits=LIMITS, identify=_who)
PLAIN_TASKS: Final = {f.__name__: _plain.task(f) for f in (bulk, wait)}


async def _site(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("this app has no lifespan")
    if scope["path"] == "/streams":
        status, body = 200, json.dumps(tell(_plain)).encode()
    else:
        job = await PLAIN_TASKS[scope["path"].rpartition("/")[2]].start()
        reply = await _plain.reply(job)
        status, body = reply.status, reply.body
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


asgi_app = _plain.wrap(_site)


# ── FastAPI, and so Starlette ─────────────────────────────────────────────────────────────────

fastapi_app = FastAPI()
_fastapi = FastApiHeadway(
    fastapi_app, limits=LIMITS, identify=lambda request: request.headers.get("x-user", "tester")
)
FASTAPI_TASKS: Final = {f.__name__: _fastapi.task(f) for f in (bulk, wait)}


@fastapi_app.post("/start/{task}")
async def start_in_fastapi(task: str) -> FastApiResponse:
    return await _fastapi.reply(await FASTAPI_TASKS[task].start())


@fastapi_app.get("/streams")
async def streams_in_fastapi() -> dict[str, int]:
    return tell(_fastapi)
