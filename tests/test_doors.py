"""The doors: an app's own routes start jobs and know who asks, whatever the framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from headway.problems import MEDIA_TYPE
from tests.apps.doors import DOORS, LIMITS, Site, make
from tests.apps.life import lived
from tests.conftest import MakeHeadway
from tests.contract import HOOKS

FORM = {"accept": "text/html,application/xhtml+xml"}
WITH_LIFESPAN = [door for door in DOORS if door != "django"]
WITH_WEBSOCKETS = ["quart", "starlette", "fastapi", "litestar"]


class Visit:
    """The site behind a door, and the browser of one visitor."""

    def __init__(self, site: Site, app: Any, root_path: str = "") -> None:
        self.site = site
        self.app = app
        self.root_path = root_path
        self.http = self.browser()

    def browser(self) -> httpx.AsyncClient:
        """Another browser, without cookies."""
        transport = httpx.ASGITransport(
            self.app, root_path=self.root_path, raise_app_exceptions=False
        )
        return httpx.AsyncClient(
            transport=transport, base_url="http://site.test", event_hooks=HOOKS
        )

    async def start(self, task: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"{self.root_path}/start/{task}", headers=named)

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(f"{self.root_path}{path}")

    async def moves(self, job_id: str) -> None:
        async for job in self.site.headway.watch(job_id):
            if job.progress.done:
                return

    async def ended(self, job_id: str) -> None:
        async for _ in self.site.headway.watch(job_id):
            pass


@asynccontextmanager
async def visiting(
    door: str, make_headway: MakeHeadway, root_path: str = "", **options: Any
) -> AsyncIterator[Visit]:
    site, app = make(door, make_headway, limits=LIMITS, drain_s=0, **options)
    async with lived(app):
        yield Visit(site, app, root_path)


@pytest.fixture(params=DOORS)
async def visit(request: pytest.FixtureRequest, make_headway: MakeHeadway) -> AsyncIterator[Visit]:
    """A visit to the site behind each door in turn."""
    async with visiting(request.param, make_headway) as visit:
        yield visit


async def test_a_form_starts_a_job_of_its_visitor(visit: Visit) -> None:
    """The page names the visitor, the form leads to the job's page, and nobody else sees it."""
    named = await visit.get("/")
    started = await visit.start("count", **FORM)
    place = started.headers["location"]

    assert "HttpOnly" in named.headers["set-cookie"]
    assert started.status_code == 303
    assert "set-cookie" not in started.headers
    assert (await visit.get(place)).json()["title"] == "Count"
    assert f'src="{place}"' in (await visit.get("/")).text
    assert (await visit.browser().get(place)).status_code == 404


async def test_a_client_starts_a_job_and_is_named_by_it(visit: Visit) -> None:
    """The first start of a stranger answers 202, where to look, and with a name to come back."""
    started = await visit.start("count")
    job_id = started.json()["id"]
    await visit.ended(job_id)

    assert started.status_code == 202
    assert started.headers["location"] == f"/jobs/{job_id}"
    assert "headway_visitor=" in started.headers["set-cookie"]
    assert (await visit.get(f"/jobs/{job_id}")).json()["result"] == 5


async def test_a_request_that_is_sent_twice_starts_one_job(visit: Visit) -> None:
    """The same Idempotency-Key gets the same job, and is told so."""
    await visit.get("/")

    first = await visit.start("count", idempotency_key='"k"')
    again = await visit.start("count", idempotency_key='"k"')

    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_app_shows_a_job_to_its_visitor_only(visit: Visit) -> None:
    """In the app's own routes somebody else's job does not exist: a problem document."""
    job_id = (await visit.start("long")).json()["id"]

    mine = await visit.get(f"/mine/{job_id}")
    theirs = await visit.browser().get(f"/mine/{job_id}")

    assert f'<headway-bar src="/jobs/{job_id}">' in mine.text
    assert theirs.status_code == 404
    assert theirs.headers["content-type"] == MEDIA_TYPE
    assert theirs.json()["code"] == "not_found"


async def test_too_many_starts_are_a_problem_of_the_client(visit: Visit) -> None:
    """What the limits refuse in the app's own route answers 429, with a time to come back."""
    answers = [await visit.start("long") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert answers[-1].headers["content-type"] == MEDIA_TYPE
    assert answers[-1].headers["retry-after"] == "5"
    assert answers[-1].json()["code"] == "too_many_jobs"


async def test_the_errors_of_the_app_stay_its_own(visit: Visit) -> None:
    """Headway answers for nothing but its own errors."""
    broken = await visit.http.post("/broken")

    assert broken.status_code == 500
    assert broken.headers.get("content-type") != MEDIA_TYPE


@pytest.mark.parametrize("door", DOORS)
async def test_links_begin_with_the_prefix_of_the_app(door: str, make_headway: MakeHeadway) -> None:
    """Behind a proxy that serves the app below a prefix, all addresses have it."""
    async with visiting(door, make_headway, root_path="/app") as visit:
        started = await visit.start("count")
        job_id = started.json()["id"]
        found = await visit.get(f"/jobs/{job_id}")
        listed = await visit.get("/jobs")
        bar = await visit.get(f"/mine/{job_id}")

    assert started.headers["location"] == f"/app/jobs/{job_id}"
    assert found.json()["links"]["events"] == f"/app/jobs/{job_id}/events"
    assert [one["id"] for one in listed.json()["jobs"]] == [job_id]
    assert 'src="/app/jobs/static/headway.js"' in bar.text


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_not_open_says_what_to_add(
    door: str, make_headway: MakeHeadway, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its lifespan an app gets 503, and its log the cure."""
    site, app = make(door, make_headway)
    visit = Visit(site, app)

    started, found = await visit.start("count"), await visit.get("/jobs/health")

    assert (started.status_code, found.status_code) == (503, 503)
    assert started.json()["code"] == found.json()["code"] == "not_open"
    assert caplog.text.count("lifespan=headway.lifespan") >= 2


@pytest.mark.parametrize("door", WITH_LIFESPAN)
async def test_jobs_run_only_while_the_app_is_up(door: str, make_headway: MakeHeadway) -> None:
    """Headway opens after the app has started, and closes before it stops: jobs may use pools."""
    async with visiting(door, make_headway) as visit:
        await visit.moves((await visit.start("long")).json()["id"])

    assert visit.site.open == ["started, headway closed", "stopped, headway closed"]


@pytest.mark.parametrize("door", WITH_WEBSOCKETS)
async def test_a_websocket_knows_its_visitor(door: str, make_headway: MakeHeadway) -> None:
    """A job that is started over a websocket belongs to the visitor whom the page has named."""
    async with visiting(door, make_headway) as visit:
        named = (await visit.get("/")).headers["set-cookie"].split(";")[0]
        _, said = await _talk(visit.app, "/ws", named)
        found = await visit.get(f"/jobs/{said['text']}")

    assert found.json()["task"] == "count"


@pytest.mark.parametrize("door", [door for door in WITH_WEBSOCKETS if door != "quart"])
async def test_a_websocket_names_its_visitor(door: str, make_headway: MakeHeadway) -> None:
    """A stranger gets the cookie as the websocket opens; Quart cannot, and says so."""
    async with visiting(door, make_headway) as visit:
        accepted, said = await _talk(visit.app, "/ws")
        cookie = dict(accepted["headers"])[b"set-cookie"].decode().split(";")[0]
        found = await visit.browser().get(f"/jobs/{said['text']}", headers={"cookie": cookie})

    assert found.json()["task"] == "count"


async def _talk(app: Any, path: str, cookie: str = "a=b") -> tuple[Any, Any]:
    """What the app answers to a websocket that opens and says nothing."""
    said: list[Any] = []
    told, hears = asyncio.Event(), iter(["connect", "disconnect"])
    scope = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "scheme": "ws", "subprotocols": [],
        "headers": [(b"host", b"site.test"), (b"cookie", cookie.encode())],
        "asgi": {"version": "3.0"}, "http_version": "1.1", "client": ("::1", 1), "state": {},
    }  # fmt: skip

    async def receive() -> Any:
        what = next(hears)
        if what == "disconnect":
            await told.wait()
        return {"type": f"websocket.{what}", "code": 1000}

    async def send(message: Any) -> None:
        said.append(message)
        if len(said) > 1:
            told.set()

    await app(scope, receive, send)
    return said[0], said[1]


async def test_a_view_in_a_thread_of_django_knows_its_visitor(make_headway: MakeHeadway) -> None:
    """A `def` view starts through `async_to_sync`, and the job is its visitor's."""
    async with visiting("django", make_headway) as visit:
        await visit.get("/")
        started = await visit.http.post("/thread/count")
        found = await visit.get(started.headers["location"])

    assert started.status_code == 202
    assert found.status_code == 200


@pytest.mark.parametrize("door", ["starlette", "fastapi", "plain"])
async def test_options_are_read_from_the_environment(
    door: str, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, keyspace: Any
) -> None:
    """A door reads what is not given in code; what is given wins."""
    given = {"HEADWAY_URL": url, "HEADWAY_PREFIX": "other", "HEADWAY_SECRET": "of the environment"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    async with visiting(door, lambda kind, **o: kind(**o), prefix=prefix) as visit:
        started = await visit.start("count")
        await visit.ended(started.json()["id"])

        assert (await visit.get(started.headers["location"])).status_code == 200
        assert any(":job:" in name for name in keyspace.names())
