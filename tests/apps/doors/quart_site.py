"""The app for Quart."""

from __future__ import annotations

from typing import Any

from quart import Quart, websocket

from headway.quart import Headway
from tests.apps.doors import MakeHeadway, Site


def make(make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    app = Quart(__name__)
    headway = make_headway(Headway, **options)
    assert isinstance(headway, Headway)
    headway.init_app(app)
    site = Site(headway)
    app.before_serving(lambda: site.note("started"))
    app.after_serving(lambda: site.note("stopped"))
    app.get("/")(site.page)
    app.post("/start/<task>")(site.start)
    app.get("/mine/<job_id>")(site.mine)
    app.get("/streams")(site.streams)
    app.post("/broken")(site.broken)

    @app.websocket("/ws")
    async def ws() -> None:
        started = await site.started()
        await websocket.accept()
        await websocket.send(started)

    return site, app
