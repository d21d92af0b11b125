"""The app for Litestar, around which `headway.wrap()` stands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, WebSocket, get, post, websocket
from litestar.params import FromPath
from litestar.types import ASGIApp

from headway import Headway
from tests.apps.doors import MakeHeadway, Site


def make(make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    site = Site(make_headway(Headway, **options))

    @get("/", media_type=MediaType.HTML)
    async def page() -> str:
        return await site.page()

    @post("/start/{task:str}")
    async def start(task: FromPath[str]) -> ASGIApp:
        answer: ASGIApp = await site.start(task)
        return answer

    @get("/mine/{job_id:str}", media_type=MediaType.HTML)
    async def mine(job_id: FromPath[str]) -> str:
        return await site.mine(job_id)

    @get("/streams")
    async def streams() -> dict[str, int]:
        return await site.streams()

    @post("/broken")
    async def broken() -> str:
        return await site.broken()

    @websocket("/ws")
    async def ws(socket: WebSocket[Any, Any, Any]) -> None:
        started = await site.started()
        await socket.accept()
        await socket.send_text(started)
        await socket.close()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        site.note("started")
        yield
        site.note("stopped")

    app = Litestar(
        [page, start, mine, streams, broken, ws],
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
    return site, site.headway.wrap(app)
