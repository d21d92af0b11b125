"""The app without a framework, by hand: the raw ASGI that `headway.wrap()` stands around."""

from __future__ import annotations

import json
from typing import Any

from headway import Headway
from headway.asgi import Answer
from tests.apps.doors import MakeHeadway, Site


def make(make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    site = Site(make_headway(Headway, **options))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(site, receive, send)
            return
        assert scope["type"] == "http", "this app knows no websockets"
        said = await _answer(site, scope)
        answer = said if isinstance(said, Answer) else _text(said)
        await answer(scope, receive, send)

    return site, site.headway.wrap(app)


async def _answer(site: Site, scope: Any) -> Any:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    match path.split("/")[1:]:
        case [""]:
            return await site.page()
        case ["start", task]:
            return await site.start(task)
        case ["mine", job_id]:
            return await site.mine(job_id)
        case ["streams"]:
            return json.dumps(await site.streams())
    return await site.broken()


def _text(said: str) -> Answer:
    return Answer(200, [("Content-Type", "text/html; charset=utf-8")], said.encode())


async def _live(site: Site, receive: Any, send: Any) -> None:
    await receive()
    site.note("started")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    site.note("stopped")
    await send({"type": "lifespan.shutdown.complete"})
