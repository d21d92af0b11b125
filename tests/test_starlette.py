"""What is special to Starlette: the pieces by hand, sessions, templates, apps within apps."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jinja2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.templating import Jinja2Templates

from headway.errors import BadInput, HeadwayError
from headway.starlette import Headway
from tests.apps.life import lived, visiting
from tests.conftest import MakeHeadway


def made(make_headway: MakeHeadway, **options: Any) -> Headway:
    headway = make_headway(Headway, **options)
    assert isinstance(headway, Headway)
    return headway


def starting(headway: Headway) -> Any:
    @headway.task
    async def nothing() -> None:
        pass

    async def start(request: Request) -> Response:
        return await headway.reply(await nothing.start())

    return start


async def test_the_pieces_can_be_put_together_by_hand(make_headway: MakeHeadway) -> None:
    """A route, a middleware and a lifespan do all that `init_app()` does."""
    headway = made(make_headway)
    app = Starlette(
        routes=[headway.route, Route("/start", starting(headway), methods=["POST"])],
        middleware=[Middleware(headway.middleware)],
        lifespan=headway.lifespan,
    )

    async with visiting(app) as http:
        started = await http.post("/start")
        found = await http.get(started.headers["location"])
        listed = await http.get("/jobs")

    assert (started.status_code, found.status_code, listed.status_code) == (202, 200, 200)


async def test_a_plain_mount_serves_all_but_its_own_address(make_headway: MakeHeadway) -> None:
    """`Mount` sends /jobs on to /jobs/, as Starlette's mounts do; links are the same."""
    headway = made(make_headway)
    routes = [Mount("/jobs", headway.asgi), Route("/start", starting(headway), methods=["POST"])]
    app = Starlette(
        routes=routes, middleware=[Middleware(headway.middleware)], lifespan=headway.lifespan
    )

    async with visiting(app) as http:
        started = await http.post("/start")
        found = await http.get(started.headers["location"])
        sent_on = await http.get("/jobs")

    assert found.json()["links"]["self"] == started.headers["location"]
    assert (sent_on.status_code, sent_on.headers["location"]) == (307, "http://s/jobs/")


async def test_a_reply_without_the_middleware_says_what_is_missing(
    make_headway: MakeHeadway,
) -> None:
    """A job that would be nobody's is not answered as if it were somebody's."""
    headway = made(make_headway)
    app = Starlette(
        routes=[headway.route, Route("/start", starting(headway), methods=["POST"])],
        lifespan=headway.lifespan,
    )

    async with visiting(app) as http:
        with pytest.raises(BadInput, match=r"headway\.middleware"):
            await http.post("/start")


async def test_the_surface_comes_before_what_matches_everything(make_headway: MakeHeadway) -> None:
    """A catch-all route of the app does not hide the surface."""

    async def everything(request: Request) -> Response:
        return PlainTextResponse("caught")

    app = Starlette(routes=[Route("/{path:path}", everything)])
    made(make_headway).init_app(app)

    async with visiting(app) as http:
        assert (await http.get("/jobs")).json() == {"jobs": [], "gone": []}
        assert (await http.get("/jobsy")).text == "caught"


async def test_identify_sees_what_the_middleware_of_the_app_has_found(
    make_headway: MakeHeadway,
) -> None:
    """In routes and on the surface it gets Starlette's request, with the app's user in it."""

    class Login(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            request.state.user = request.headers.get("x-user")
            response: Response = await call_next(request)
            return response

    headway = made(make_headway, identify=lambda request: request.state.user)
    app = Starlette(
        routes=[Route("/start", starting(headway), methods=["POST"])],
        middleware=[Middleware(Login)],
    )
    headway.init_app(app)

    async with visiting(app) as http:
        place = (await http.post("/start", headers={"x-user": "ann"})).headers["location"]
        mine = await http.get(place, headers={"x-user": "ann"})
        theirs = await http.get(place, headers={"x-user": "bob"})

    assert (mine.status_code, theirs.status_code) == (200, 404)


async def test_the_app_may_answer_our_errors_itself(make_headway: MakeHeadway) -> None:
    """An exception handler of the app comes before the problem document."""

    async def sorry(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 500)

    async def lost(request: Request) -> Response:
        raise AssertionError(await headway.mine("x"))

    headway = made(make_headway)
    app = Starlette(routes=[Route("/", lost)], exception_handlers={HeadwayError: sorry})
    headway.init_app(app)

    async with visiting(app) as http:
        assert (await http.get("/")).text == "sorry"


async def test_templates_show_the_bar(make_headway: MakeHeadway, tmp_path: Path) -> None:
    """As a global of the templates it is markup, although they escape what is not."""
    (tmp_path / "page.html").write_text("{{ headway_bar(job, label='A & B') }}{{ '<' }}")
    headway = made(make_headway)
    templates = Jinja2Templates(env=jinja2.Environment(
        loader=jinja2.FileSystemLoader(tmp_path), autoescape=True
    ))  # fmt: skip
    templates.env.globals["headway_bar"] = headway.bar

    @headway.task
    async def nothing() -> None:
        pass

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html", {"job": await nothing.start()})

    app = Starlette(routes=[Route("/", page)])
    headway.init_app(app)

    async with visiting(app) as http:
        shown = (await http.get("/")).text

    assert '<headway-bar src="/jobs/' in shown
    assert 'label="A &amp; B"' in shown
    assert shown.endswith("&lt;")


async def test_an_app_within_an_app_is_opened_by_hand(make_headway: MakeHeadway) -> None:
    """Starlette runs the outermost lifespan only; there `async with headway` opens it."""
    headway = made(make_headway)
    inner = Starlette(routes=[Route("/start", starting(headway), methods=["POST"])])
    headway.init_app(inner)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with headway:
            yield

    async with visiting(Starlette(routes=[Mount("/in", inner)])) as http:
        assert (await http.post("/in/start")).status_code == 503
    async with visiting(Starlette(routes=[Mount("/in", inner)], lifespan=lifespan)) as http:
        started = await http.post("/in/start")
        found = await http.get(started.headers["location"])

    assert started.headers["location"].startswith("/in/jobs/")
    assert found.status_code == 200


async def test_a_lifespan_may_start_jobs(make_headway: MakeHeadway) -> None:
    """Opened by hand as well, it is open in the app's own lifespan, and closes only once."""
    headway = made(make_headway)
    said: list[Any] = []

    @headway.task
    async def nothing() -> None:
        said.append("ran")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        async with headway:
            job = await nothing.start()
            async for _ in headway.watch(job.id):
                pass
            yield {"left": "for requests"}

    app = Starlette(lifespan=lifespan)
    headway.init_app(app)

    async with lived(app) as state:
        assert state == {"left": "for requests"}
    assert said == ["ran"]
    assert headway._runtime is None


async def test_an_app_that_has_started_is_not_extended(make_headway: MakeHeadway) -> None:
    """Too late is told, and not half done."""
    app = Starlette()

    async with lived(app):
        with pytest.raises(RuntimeError, match="before it does"):
            made(make_headway).init_app(app)

    assert app.routes == []


def test_a_test_client_opens_it(make_headway: MakeHeadway) -> None:
    """Starlette's own client for tests, in a thread and a loop of its own, works as with others."""
    headway = made(make_headway)
    app = Starlette(routes=[Route("/start", starting(headway), methods=["POST"])])
    headway.init_app(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather have the next version of httpx
        from starlette.testclient import TestClient

    with TestClient(app) as client:
        started = client.post("/start")
        told = client.get(f"{started.headers['location']}/events")

    assert started.status_code == 202
    assert "event: end" in told.text
