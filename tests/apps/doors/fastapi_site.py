"""The app for FastAPI. Its annotations name what is local to a function: they are no strings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response, WebSocket
from fastapi.responses import HTMLResponse

from headway import Job
from headway.fastapi import Headway
from tests.apps.doors import MakeHeadway, Site


def make(make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    headway = make_headway(Headway, **options)
    assert isinstance(headway, Headway)
    site = Site(headway)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        site.note("started")
        yield
        site.note("stopped")

    app = FastAPI(lifespan=lifespan)
    headway.init_app(app)

    app.get("/", response_class=HTMLResponse)(site.page)
    app.get("/streams")(site.streams)
    app.post("/broken")(site.broken)

    @app.post("/start/{task}", response_class=Response)
    async def start(task: str) -> Any:
        return await site.start(task)

    @app.get("/mine/{job_id}", response_class=HTMLResponse)
    async def mine(job: Annotated[Job, Depends(headway.job)]) -> str:
        return headway.bar(job)

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        started = await site.started()
        await websocket.accept()
        await websocket.send_text(started)
        await websocket.close()

    return site, app
