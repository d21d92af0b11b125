"""`headway.wrap()`: around any ASGI app, whatever it does with its life and its errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from asgiref.sync import async_to_sync
from asgiref.wsgi import WsgiToAsgi
from flask import Flask
from litestar import Litestar, asgi, post
from litestar.exceptions import NotAuthorizedException
from litestar.types import ASGIApp, Receive, Scope, Send

from headway import Headway
from headway.errors import BadInput, TooMany
from headway.task import Task
from tests.apps.life import LifespanFailed, lived
from tests.conftest import MakeHeadway


class Inner:
    """The app inside: notes what it is told, and answers as it is told."""

    def __init__(self, **says: Any) -> None:
        self.told: list[str] = []
        self.says = says
        self.headway: Headway | None = None
        self.route: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["left"] = "for its requests"
            await self._live(receive, send)
        elif self.route is not None:
            await self.route(scope, receive, send)
        else:
            await answer(send, 200, scope["path"].encode())

    async def _live(self, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            is_open = self.headway is not None and self.headway._runtime is not None
            self.told.append(f"{phase}, {'open' if is_open else 'closed'}")
            answer = self.says.get(phase, "complete")
            await send({"type": f"lifespan.{phase}.{answer}", "message": f"no {phase} today"})


async def answer(send: Any, status: int, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def wrapped(
    make_headway: MakeHeadway, inner: Any, **options: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Headway]]:
    headway = make_headway(**options)
    inner.headway = headway
    app = headway.wrap(inner)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://site.test")
    async with lived(app), client:
        yield client, headway


def registered(headway: Headway) -> Task[[], Any]:
    @headway.task
    async def nothing() -> None:
        pass

    return nothing


# ── life ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_app_is_up_while_jobs_run(make_headway: MakeHeadway) -> None:
    """Headway opens after the app has started, and is closed when the app is told to stop."""
    inner = Inner()

    async with wrapped(make_headway, inner):
        inner.told.append("served")

    assert inner.told == ["startup, closed", "served", "shutdown, closed"]


async def test_what_the_app_leaves_for_its_requests_is_kept(make_headway: MakeHeadway) -> None:
    """The state of the lifespan is the server's, and passes."""
    async with lived(make_headway().wrap(Inner())) as state:
        assert state == {"left": "for its requests"}


async def test_an_app_that_cannot_start_says_so(make_headway: MakeHeadway) -> None:
    """The server hears it in the app's own words, and Headway has not been opened."""
    headway, inner = make_headway(), Inner(startup="failed")
    inner.headway = headway

    with pytest.raises(LifespanFailed, match=r"startup\.failed: no startup today"):
        async with lived(headway.wrap(inner)):
            pass

    assert inner.told == ["startup, closed"]


async def test_an_app_that_stops_badly_says_so(make_headway: MakeHeadway) -> None:
    """A failed shutdown is passed on, too."""
    with pytest.raises(LifespanFailed, match=r"shutdown\.failed: no shutdown today"):
        async with wrapped(make_headway, Inner(shutdown="failed")):
            pass


async def test_a_headway_that_cannot_open_stops_the_app(tmp_path: Any) -> None:
    """The server hears what is missing, and the app is stopped in order."""
    inner, headway = Inner(), Headway("redis://127.0.0.1:1")  # nothing listens, and no secret

    with pytest.raises(LifespanFailed, match=r"startup\.failed: .*HEADWAY_SECRET"):
        async with lived(headway.wrap(inner)):
            pass

    assert inner.told == ["startup, closed", "shutdown, closed"]


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_without_a_lifespan_is_served(
    make_headway: MakeHeadway, caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    """Whether it raises over the word, as Django does, or returns without an answer."""
    caplog.set_level(logging.INFO, "headway")

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if raises:
                raise ValueError("lifespan?")
            return
        await answer(send, 200, b"served")

    app = make_headway().wrap(inner)
    transport = httpx.ASGITransport(app)
    async with lived(app), httpx.AsyncClient(transport=transport, base_url="http://s") as http:
        assert (await http.get("/")).text == "served"
        assert (await http.get("/jobs/health")).status_code == 200

    assert ("lifespan?" in caplog.text) is raises


async def test_a_server_that_cancels_stops_both(make_headway: MakeHeadway) -> None:
    """Cut off in the middle of its life, Headway closes, and the app is told to stop."""
    inner, started = Inner(), asyncio.Event()
    inner.headway = headway = make_headway()
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"} if not said else await asyncio.Future()

    async def send(message: Any) -> None:
        said.append(message)
        started.set()

    async def serve() -> None:
        await headway.wrap(inner)({"type": "lifespan", "state": {}}, receive, send)

    life = asyncio.create_task(serve())
    await started.wait()
    life.cancel()
    await asyncio.wait({life})

    assert life.cancelled()
    assert inner.told == ["startup, closed", "shutdown, closed"]


# ── requests ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/job", "/jobsy", "/a/jobs", "/jobs.json"])
async def test_the_app_gets_every_other_request(make_headway: MakeHeadway, path: str) -> None:
    """Only what is at or below the mount is ours; the app sees its requests unchanged."""
    async with wrapped(make_headway, Inner()) as (http, _):
        assert (await http.get(path)).text == path
        assert (await http.get("/jobs")).json() == {"jobs": [], "gone": []}


async def test_websockets_pass_through(make_headway: MakeHeadway) -> None:
    """All of them are the app's, even below the mount."""
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], await receive()))
        await send({"type": "websocket.accept"})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        seen.append(message)

    scope = {"type": "websocket", "path": "/jobs/x", "headers": [], "query_string": b""}
    await make_headway().wrap(inner)(scope, receive, send)

    assert seen == [("/jobs/x", {"type": "websocket.connect"}), {"type": "websocket.accept"}]


async def test_nobody_is_asked_who_does_not_start(make_headway: MakeHeadway) -> None:
    """A request that starts nothing costs nothing: its headers are not read, nobody is named."""
    asked: list[Any] = []

    async with wrapped(make_headway, Inner(), identify=asked.append) as (http, _):
        reply = await http.get("/", headers={"cookie": "a=b"})

    assert asked == []
    assert "set-cookie" not in reply.headers


async def test_two_of_them_know_their_own_requests(make_headway: MakeHeadway) -> None:
    """Two Headways around one app do not mix up who asks, nor where they are."""
    inner = Inner()
    outer = make_headway(path="/outer", identify=lambda scope: "ann")
    nested = make_headway(path="/nested", identify=lambda scope: "bob")

    async def route(scope: Any, receive: Any, send: Any) -> None:
        said = [await outer.visitor(), await nested.visitor(), outer._base(), nested._base()]
        await answer(send, 200, " ".join(map(str, said)).encode())

    inner.route = route
    transport = httpx.ASGITransport(outer.wrap(nested.wrap(inner)))
    async with httpx.AsyncClient(transport=transport, base_url="http://s") as http:
        assert (await http.get("/")).text == "ann bob /outer /nested"


# ── errors ────────────────────────────────────────────────────────────────────────────────────


async def test_an_error_of_ours_becomes_a_problem(make_headway: MakeHeadway) -> None:
    """What leaves the app is answered, with all that the problem has to say."""
    inner = Inner()

    async def route(scope: Any, receive: Any, send: Any) -> None:
        raise TooMany("too_many_starts", 7)

    inner.route = route
    async with wrapped(make_headway, inner) as (http, _):
        reply = await http.get("/")

    assert reply.status_code == 429
    assert reply.json()["code"] == "too_many_starts"
    assert reply.headers["retry-after"] == "7"


@pytest.mark.parametrize("error", [LookupError("mine"), BadInput("a mistake in the app's code")])
async def test_other_errors_are_left_to_the_server(
    make_headway: MakeHeadway, error: Exception
) -> None:
    """What is not ours to answer passes as it is."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        raise error

    app = make_headway().wrap(inner)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s") as http:
        with pytest.raises(type(error)):
            await http.get("/")


async def test_an_error_after_the_answer_has_begun_passes(make_headway: MakeHeadway) -> None:
    """There is no second answer."""
    inner = Inner()

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, b"begun")
        raise TooMany("too_many_starts", 7)

    inner.route = route
    app = make_headway().wrap(inner)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s") as http:
        with pytest.raises(TooMany):
            await http.get("/")


@pytest.mark.parametrize(("status", "told"), [(500, 503), (400, 400)])
async def test_a_500_made_of_our_refusal_is_ours(
    make_headway: MakeHeadway, status: int, told: int
) -> None:
    """What a framework has made of an error nobody caught is replaced; a chosen answer is not."""
    headway, inner = make_headway(), Inner()
    task = registered(headway)

    async def route(scope: Any, receive: Any, send: Any) -> None:
        try:
            await task.start()
        except Exception:
            await answer(send, status, b"a page that says sorry")

    inner.route = route
    transport = httpx.ASGITransport(headway.wrap(inner))  # it is not open
    async with httpx.AsyncClient(transport=transport, base_url="http://s") as http:
        reply = await http.get("/")

    assert reply.status_code == told
    assert (reply.headers.get("content-type") == "application/problem+json") is (told == 503)


async def test_a_view_of_flask_knows_its_visitor(make_headway: MakeHeadway) -> None:
    """Flask runs in threads behind an adapter; it starts jobs, refuses them, and shows bars."""
    headway = make_headway()
    task = registered(headway)
    flask = Flask(__name__)

    @flask.post("/start")
    def start() -> Any:
        reply = async_to_sync(headway.reply)(async_to_sync(task.start)())
        return reply.body, reply.status, dict(reply.headers)

    @flask.get("/mine/<job_id>")
    def mine(job_id: str) -> str:
        return headway.bar(async_to_sync(headway.mine)(job_id))

    app = headway.wrap(WsgiToAsgi(flask))  # type: ignore[no-untyped-call]
    transport = httpx.ASGITransport(app)
    async with lived(app), httpx.AsyncClient(transport=transport, base_url="http://s") as http:
        started = await http.post("/start")
        shown = await http.get(f"/mine/{started.json()['id']}")
        lost = await http.get("/mine/x")

    assert started.status_code == 202
    assert "<headway-bar" in shown.text
    assert (lost.status_code, lost.json()["code"]) == (404, "not_found")


async def test_litestar_may_mount_it_behind_its_own_guards(make_headway: MakeHeadway) -> None:
    """With the surface, the middleware and the lifespan in the app, its guards come first."""
    headway = make_headway()
    task = registered(headway)

    def guard(connection: Any, handler: Any) -> None:
        if "x-key" not in connection.headers:
            raise NotAuthorizedException

    @asgi("/jobs", is_mount=True, copy_scope=True, guards=[guard])
    async def jobs(scope: Scope, receive: Receive, send: Send) -> None:
        await headway.asgi(scope, receive, send)

    @post("/start")
    async def start() -> ASGIApp:
        answer: ASGIApp = await headway.reply(await task.start())
        return answer

    app = Litestar(
        [jobs, start],
        lifespan=[headway.lifespan],
        middleware=[headway.middleware],
        openapi_config=None,
        logging_config=None,
    )
    transport = httpx.ASGITransport(cast("Any", app))
    async with lived(app), httpx.AsyncClient(transport=transport, base_url="http://s") as http:
        place = (await http.post("/start")).headers["location"]
        refused = await http.get(place)
        found = await http.get(place, headers={"x-key": "1"})

    assert (refused.status_code, found.status_code) == (401, 200)
