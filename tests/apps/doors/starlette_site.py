"""The app for Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from headway.starlette import Headway
from tests.apps.doors import MakeHeadway, Site


def make(make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    headway = make_headway(Headway, **options)
    assert isinstance(headway, Headway)
    site = Site(headway)

    async def page(request: Request) -> Response:
        return HTMLResponse(await site.page())

    async def start(request: Request) -> Any:
        return await site.start(request.path_params["task"])

    async def mine(request: Request) -> Response:
        return HTMLResponse(await site.mine(request.path_params["job_id"]))

    async def streams(request: Request) -> Response:
        return JSONResponse(await site.streams())

    async def broken(request: Request) -> Response:
        return Response(await site.broken())

    async def socket(websocket: WebSocket) -> None:
        started = await site.started()
        await websocket.accept()
        await websocket.send_text(started)
        await websocket.close()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        site.note("started")
        yield
        site.note("stopped")

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/start/{task}", start, methods=["POST"]),
            Route("/mine/{job_id}", mine),
            Route("/streams", streams),
            Route("/broken", broken, methods=["POST"]),
            WebSocketRoute("/ws", socket),
        ],
        lifespan=lifespan,
    )
    headway.init_app(app)
    return site, app
