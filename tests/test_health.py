"""`GET /jobs/health`: what a load balancer asks, and what it must not have to wait for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import httpx
import pytest
from quart import Quart

from headway import Headway
from headway.front import HEALTH_S
from headway.quart import Headway as QuartHeadway
from tests.conftest import MakeHeadway, OwnServer, Until


class Balancer:
    """Asks a site how it is."""

    def __init__(self, headway: Headway, http: httpx.AsyncClient) -> None:
        self.headway = headway
        self._http = http

    async def ask(self) -> httpx.Response:
        return await self._http.get("http://site.test/jobs/health")

    async def is_told(self, code: int, status: str) -> dict[str, Any] | None:
        """The answer, once it is this one."""
        answer = await self.ask()
        found: dict[str, Any] = answer.json()
        return found if (answer.status_code, found.get("status")) == (code, status) else None


@asynccontextmanager
async def balancer(headway: Headway) -> AsyncIterator[Balancer]:
    transport = httpx.ASGITransport(headway.asgi, root_path="/jobs")
    async with headway, httpx.AsyncClient(transport=transport) as http:
        yield Balancer(headway, http)


@pytest.fixture
async def own(own_server: OwnServer, until: Until) -> AsyncIterator[Balancer]:
    """A well site on a store of its own."""
    headway = Headway(own_server.url, secret="the secret of a test", drain_s=0)
    async with balancer(headway) as asking:
        await until(lambda: asking.is_told(200, "ok"), "it is well")
        yield asking


@contextmanager
def frozen(server: OwnServer) -> Iterator[None]:
    """While it lasts, the store takes connections and answers nothing."""
    pid = int(server.say("INFO", "server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_well_is_200(own: Balancer, until: Until) -> None:
    """It says how fast the store answers, and how old the news of its watchers can be."""

    async def measured() -> dict[str, Any] | None:
        found = await own.is_told(200, "ok")
        return found if found is not None and found["lag_s"] is not None else None

    found = await until(measured, "the lag is known")

    assert found == {
        "status": "ok",
        "store_s": found["store_s"],
        "lag_s": found["lag_s"],
        "live": True,
        "streams": 0,
    }
    assert 0 < found["store_s"] < HEALTH_S
    assert 0 < found["lag_s"] < HEALTH_S
    assert (await own.ask()).headers["cache-control"] == "no-store"


async def test_a_stopped_store_is_503(own: Balancer, own_server: OwnServer, until: Until) -> None:
    """Without its store a process is taken out, and is back with it."""
    own_server.stop()

    found = await until(lambda: own.is_told(503, "store"), "the store is missed")
    own_server.start()

    assert found["store_s"] is None
    await until(lambda: own.is_told(200, "ok"), "it is well again")


async def test_a_hanging_store_is_503_in_time(
    own: Balancer, own_server: OwnServer, until: Until
) -> None:
    """A store that takes questions and answers none does not make the balancer wait."""
    with frozen(own_server):
        began_at = time.monotonic()
        answers = await asyncio.gather(*(own.ask() for _ in range(5)))
        took_s = time.monotonic() - began_at

    print(f"five answers after {took_s:.2f} s")
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["status"] for answer in answers} == {"store"}
    assert HEALTH_S * 0.9 < took_s < HEALTH_S + 2.5, "the link waits for 5 s"
    await until(lambda: own.is_told(200, "ok"), "it is well again")


async def test_lag_grows_while_an_answer_is_overdue(
    own: Balancer, own_server: OwnServer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no memory of better days: with a question open, it is at least that old."""
    monkeypatch.setattr("headway.ear.QUIET_S", 0.05)
    await own.headway.revoke("nobody")  # a word that ends the wait which began before
    with frozen(own_server):
        overdue = await until(lambda: (own.headway.hub.lag_s or 0) > 0.3, "the lag grows")

    assert overdue


async def test_draining_is_503(own: Balancer) -> None:
    """A process that is about to stop gets no more visitors."""
    own.headway.streams.drain()

    assert await own.is_told(503, "draining")
    assert (await own.ask()).headers["retry-after"] == "1"


async def test_deaf_is_503(own: Balancer, own_server: OwnServer, until: Until) -> None:
    """A process that reaches the store but hears nothing shows old states."""
    own_server.say("ACL", "SETUSER", "default", "-ssubscribe")
    own_server.say("CLIENT", "KILL", "TYPE", "pubsub")

    found = await until(lambda: own.is_told(503, "deaf"), "it is deaf")
    own_server.say("ACL", "SETUSER", "default", "+ssubscribe")

    assert found["live"] is False
    assert found["store_s"] is not None
    await until(lambda: own.is_told(200, "ok"), "it hears again")


@pytest.mark.parametrize("door", ["asgi", "quart"])
async def test_health_asks_nobody_who_they_are(door: str, make_headway: MakeHeadway) -> None:
    """Balancers have no account: `identify` and `operator` are not even called."""

    def refuse(_: Any) -> None:
        raise AssertionError("health asked who it is")

    if door == "asgi":
        async with balancer(make_headway(identify=refuse, operator=refuse)) as asking:
            assert (await asking.ask()).status_code == 200
        return
    app = Quart(__name__)
    headway = make_headway(QuartHeadway, identify=refuse, operator=refuse)
    assert isinstance(headway, QuartHeadway)
    headway.init_app(app)
    transport = httpx.ASGITransport(cast("Any", app))
    async with app.test_app(), httpx.AsyncClient(transport=transport) as http:
        assert (await Balancer(headway, http).ask()).status_code == 200
