"""What goes back and forth around a start: the app's own route, through every door that has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette

from headway import EVERYONE, Headway, Job, Limits
from headway import fastapi as fastapi_door
from headway import quart as quart_door
from headway import starlette as starlette_door
from headway.tokens import new_visitor
from tests.apps.life import lived
from tests.conftest import MakeHeadway, OwnServer, Until
from tests.contract import CONTRACT
from tests.keyspace import Keyspace
from tests.test_api import Site, _who, events

DOORS = ["quart", "starlette", "fastapi", "wrap"]
FORM = {"accept": "text/html,application/xhtml+xml"}
HTMX = {"accept": "text/html, text/event-stream", "hx_request": "true"}


class Shop(Site):
    """A site whose app has one route, POST /start; each test says what it does."""

    begin: Callable[[], Awaitable[Job]]
    to: str | None = None

    async def answer(self, *_: Any) -> Any:
        return await self.headway.reply(await self.begin(), to=self.to)

    async def start(self, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post("/start", headers=named)

    async def delete(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.delete(f"/jobs{path}", headers=named)

    async def mine(self) -> list[str]:
        return [one["id"] for one in (await self.get("")).json()["jobs"]]


async def checked(response: httpx.Response) -> None:
    await response.aread()
    if response.request.url.path == "/start":
        CONTRACT.compare(response, CONTRACT.start)
    else:
        await CONTRACT.check(response)


@asynccontextmanager
async def open_shop(door: str, make_headway: MakeHeadway, **options: Any) -> AsyncIterator[Shop]:
    headway, app, route = _behind(door, make_headway, {"identify": _who, **options})
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://site.test",
        headers={"x-user": "ann"},
        event_hooks={"response": [checked]},
    ) as client:
        shop = Shop(headway, client)
        shop.begin = shop.wait.start
        route(shop)
        async with lived(app):
            yield shop
            shop.go.set()


def _behind(
    door: str, make_headway: MakeHeadway, options: dict[str, Any]
) -> tuple[Headway, Any, Callable[[Shop], object]]:
    """Headway, the app that it is in, and what tells the app of the shop."""
    shops: list[Shop] = []

    async def start(*_: Any) -> Any:
        return await shops[0].answer()

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"this app knows no {scope['type']}")
        await (await start())(scope, receive, send)

    if door == "wrap":
        headway = make_headway(**options)
        return headway, headway.wrap(plain), shops.append
    kinds: dict[str, tuple[Any, Any]] = {
        "quart": (quart_door.Headway, Quart(__name__)),
        "starlette": (starlette_door.Headway, Starlette()),
        "fastapi": (fastapi_door.Headway, FastAPI()),
    }
    kind, app = kinds[door]
    if door == "quart":
        app.post("/start")(start)
    else:
        app.router.add_route("/start", start, methods=["POST"])
    headway = make_headway(kind, **options)
    cast("Any", headway).init_app(app)
    return headway, app, shops.append


@pytest.fixture(params=DOORS)
async def shop(request: pytest.FixtureRequest, make_headway: MakeHeadway) -> AsyncIterator[Shop]:
    """A shop behind each door in turn."""
    async with open_shop(request.param, make_headway) as shop:
        yield shop


# ── the answer to a start ─────────────────────────────────────────────────────────────────────


async def test_reply_says_where_the_job_is(shop: Shop) -> None:
    """A client gets 202, where to look, when to come back, and the first document."""
    reply = await shop.start()

    job = reply.json()
    assert reply.status_code == 202
    assert reply.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["cache-control"] == "no-store"
    assert job["state"] in {"queued", "running"}
    assert "idempotency-replayed" not in reply.headers


async def test_reply_waits_for_success(shop: Shop) -> None:
    """`Prefer: wait` on the start: what ends in time is answered by its result."""
    shop.begin = lambda: shop.link.start({"rows": 3})

    reply = await shop.start(prefer="respond-async, wait=20")

    assert reply.status_code == 200
    assert reply.json() == {"rows": 3}
    assert reply.headers["preference-applied"] == "wait=20"
    (job_id,) = await shop.mine()
    assert reply.headers["content-location"] == f"/jobs/{job_id}/result"


async def test_reply_waits_for_an_address(shop: Shop) -> None:
    """A result that is kept elsewhere sends there, also from the start."""
    shop.begin = lambda: shop.link.start({"url": "/files/7"})

    reply = await shop.start(prefer="wait=20")

    assert reply.status_code == 303
    assert reply.headers["location"] == "/files/7"


async def test_reply_waits_for_failure(shop: Shop) -> None:
    """What fails in time is answered as its result would be: with the reason."""
    shop.begin = shop.fail.start

    reply = await shop.start(prefer="wait=20")

    assert reply.status_code == 409
    assert reply.json()["code"] == "no_result"
    assert reply.json()["title"] == "Row 7 has <b>no</b> name"
    assert reply.json()["error"] == "no_name"
    (job_id,) = await shop.mine()
    assert reply.headers["content-location"] == f"/jobs/{job_id}/result"


async def test_reply_does_not_wait_for_ever(shop: Shop) -> None:
    """What takes longer is answered as without the wish, which was heard."""
    reply = await shop.start(prefer="wait=1")

    assert reply.status_code == 202
    assert reply.json()["state"] == "running"
    assert reply.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize("to", [None, "/thanks"])
async def test_reply_sends_a_form_on(shop: Shop, to: str | None) -> None:
    """A browser that has sent a form goes on to the job's page, or to where the app says."""
    shop.to = to

    reply = await shop.start(prefer="wait=20", **FORM)

    assert reply.status_code == 303
    (job_id,) = await shop.mine()
    assert reply.headers["location"] == (to or f"/jobs/{job_id}")


async def test_reply_gives_htmx_the_bar(shop: Shop) -> None:
    """Htmx gets the element for its page, and the bar again for what it does to the job."""
    started = await shop.start(**HTMX)
    (job_id,) = await shop.mine()
    cancelled = await shop.post(f"/{job_id}/cancel", **HTMX)

    for reply in (started, cancelled):
        assert reply.status_code == 202
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.text.startswith(f'<headway-bar src="/jobs/{job_id}">')


@pytest.mark.parametrize("whole", [{"hx_boosted": "true"}, {"hx_request_type": "full"}])
async def test_reply_sends_boosted_htmx_on(shop: Shop, whole: dict[str, str]) -> None:
    """Htmx that shows a whole page gets one; boosted, it says of nothing that it prefers it."""
    for said in (HTMX, {**HTMX, "accept": "*/*"}):
        assert (await shop.start(**said, **whole)).status_code == 303


# ── one request, one job ──────────────────────────────────────────────────────────────────────


async def test_replay_starts_nothing(shop: Shop) -> None:
    """A request that is sent again with its key gets the same job, and is told so."""
    first = await shop.start(idempotency_key='"k"')
    again = await shop.start(idempotency_key='"k"')

    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.status_code == 202
    assert again.headers["location"] == first.headers["location"]
    assert await shop.mine() == [first.json()["id"]]


async def test_replay_tells_how_it_is_now(shop: Shop) -> None:
    """A replay after the end knows the end, for forms and for htmx as well."""
    shop.begin = lambda: shop.link.start(7)
    first = (await shop.start(idempotency_key='"k"', prefer="wait=20")).json()

    result = await shop.start(idempotency_key='"k"', prefer="wait=20")
    document = await shop.start(idempotency_key='"k"')
    form = await shop.start(idempotency_key='"k"', **FORM)
    bar = await shop.start(idempotency_key='"k"', **HTMX)

    assert first == result.json() == 7
    assert document.json()["state"] == "succeeded"
    assert form.headers["location"] == document.headers["location"]
    for reply in (result, document, form, bar):
        assert reply.headers["idempotency-replayed"] == "true"


async def test_key_is_for_one_payload(shop: Shop) -> None:
    """The same key with other arguments, or another task, is refused and starts nothing."""
    shop.begin = lambda: shop.link.start("one")
    await shop.start(idempotency_key='"k"')

    for other in (lambda: shop.link.start("two"), lambda: shop.count.start(1)):
        shop.begin = other
        reply = await shop.start(idempotency_key='"k"')
        assert reply.status_code == 422
        assert reply.json()["code"] == "key_reused"
    assert len(await shop.mine()) == 1


async def test_key_is_its_owner_s(shop: Shop) -> None:
    """What another one calls by the same name is another request."""
    ann = await shop.start(idempotency_key='"k"')
    bob = await shop.start(idempotency_key='"k"', x_user="bob")

    assert bob.status_code == 202
    assert ann.json()["id"] != bob.json()["id"]


async def test_two_at_once_are_one_job(shop: Shop) -> None:
    """While the first request is being handled its twin is sent away, and later gets the job."""
    twins = await asyncio.gather(*(shop.start(idempotency_key='"k"') for _ in range(2)))
    later = await shop.start(idempotency_key='"k"')

    first, refused = sorted(twins, key=lambda reply: reply.status_code)
    assert (first.status_code, refused.status_code) == (202, 409)
    assert refused.json()["code"] == "key_in_flight"
    assert refused.headers["retry-after"] == "1"
    assert later.json()["id"] == first.json()["id"]
    assert await shop.mine() == [first.json()["id"]]


@pytest.mark.parametrize("at_once", [False, True])
async def test_two_starts_of_one_request_are_two_jobs(shop: Shop, at_once: bool) -> None:
    """Each start of a request has a place under its key, and a replay finds each of them."""
    seen: list[list[str]] = []

    async def both() -> Job:
        if at_once:
            jobs = await asyncio.gather(*(shop.link.start("same") for _ in range(2)))
        else:
            jobs = [await shop.link.start("same") for _ in range(2)]
        seen.append([job.id for job in jobs])
        return jobs[0]

    shop.begin = both
    await shop.start(idempotency_key='"k"')
    again = await shop.start(idempotency_key='"k"')

    assert again.headers["idempotency-replayed"] == "true"
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 2


async def test_key_of_a_request_and_key_of_a_job_go_together(shop: Shop) -> None:
    """A start that finds a job by `using(key=…)` is no replay, but sent again it is one."""
    shop.begin = shop.wait.using(key="mine").start
    first = await shop.start(idempotency_key='"one"')

    other = await shop.start(idempotency_key='"two"')
    again = await shop.start(idempotency_key='"two"')

    assert first.json()["id"] == other.json()["id"] == again.json()["id"]
    assert "idempotency-replayed" not in other.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_replay_outlives_the_key_of_the_job(shop: Shop) -> None:
    """When its job has ended, a request that is sent again still starts nothing new."""
    shop.begin = shop.link.using(key="mine").start
    first = await _result_of(shop, shop.link.using(key="mine"), "k")
    again = await _result_of(shop, shop.link.using(key="mine"), "k")
    other = await _result_of(shop, shop.link.using(key="mine"), "l")

    assert first == again != other


async def _result_of(shop: Shop, task: Any, key: str) -> str:
    jobs: list[Job] = []

    async def begin() -> Job:
        jobs.append(await task.start("x"))
        return jobs[0]

    shop.begin = begin
    assert (await shop.start(idempotency_key=f'"{key}"', prefer="wait=20")).json() == "x"
    return jobs[0].id


@pytest.mark.parametrize("key", [b'""', b"", b"   ", b'"\x01"', b"\xe9", b"x" * 201, b'"\t"'])
async def test_malformed_key_is_refused(shop: Shop, key: bytes) -> None:
    """A key that cannot be read is not taken for none: the client would rely on it."""
    reply = await shop.http.post("/start", headers=[(b"idempotency-key", key)])

    assert reply.status_code == 400
    assert reply.json()["code"] == "bad_key"
    assert await shop.mine() == []


async def test_key_may_come_without_quotes(shop: Shop) -> None:
    """As most clients send it, and as the draft says: it is the same key."""
    first = await shop.start(idempotency_key='"8e03978e-40d5-43dd-bc93-6894a57f9324"')
    again = await shop.start(idempotency_key="8e03978e-40d5-43dd-bc93-6894a57f9324")

    assert again.json()["id"] == first.json()["id"]


@pytest.mark.parametrize("key", [None, "mine"])
async def test_request_that_died_is_not_done_twice(
    shop: Shop, keyspace: Keyspace, until: Until, key: str | None
) -> None:
    """A process that dies after it has accepted the job, but before it could say which: for a
    while the key is taken, then the request that is sent again finds that job."""
    shop.begin = lambda: shop.link.using(key=key).start("x")
    first = await shop.start(idempotency_key='"k"', prefer="wait=20")
    (job_id,) = await shop.mine()
    (name,) = (name for name in keyspace.names() if ":once:" in name)
    keyspace.client.hdel(name, "job")

    taken = await shop.start(idempotency_key='"k"')
    keyspace.client.pexpire(name, 1)
    await until(lambda: not keyspace.client.exists(name), "the key is free")
    again = await shop.start(idempotency_key='"k"')

    assert taken.json()["code"] == "key_in_flight"
    assert first.json() == "x"
    assert again.json()["id"] == job_id
    assert await shop.mine() == [job_id]


async def test_key_of_a_job_that_is_gone_is_spent(shop: Shop) -> None:
    """A replay cannot bring back what was forgotten, and does not start it anew."""
    shop.begin = lambda: shop.link.start("x")
    await shop.start(idempotency_key='"k"', prefer="wait=20")
    (job_id,) = await shop.mine()
    await shop.delete(f"/{job_id}")

    reply = await shop.start(idempotency_key='"k"')

    assert reply.status_code == 410
    assert reply.json()["code"] == "key_spent"
    assert await shop.mine() == []


@pytest.mark.parametrize("door", DOORS)
async def test_start_that_was_refused_leaves_its_key_free(
    door: str, make_headway: MakeHeadway, until: Until
) -> None:
    """A request that got 429 may be sent again, with the key that it had."""
    async with open_shop(door, make_headway, limits=Limits(jobs_per_owner=1)) as shop:
        first = await shop.start(idempotency_key='"one"')
        refused = await shop.start(idempotency_key='"two"')
        shop.go.set()
        await shop.ended(first.json()["id"])
        again = await shop.start(idempotency_key='"two"')

    assert refused.status_code == 429
    assert again.status_code == 202
    assert "idempotency-replayed" not in again.headers


@pytest.mark.parametrize("door", DOORS)
async def test_request_outlives_an_outage(
    door: str, make_headway: MakeHeadway, own_server: OwnServer
) -> None:
    """While the store is away a start is a 503 that says when to come back; then it is one job."""
    async with open_shop(door, make_headway, url=own_server.url) as shop:
        own_server.stop()
        away = await shop.start(idempotency_key='"k"')
        own_server.start()
        first = await shop.start(idempotency_key='"k"')
        again = await shop.start(idempotency_key='"k"')
        mine = await shop.mine()

    assert away.status_code == 503
    assert away.json()["code"] == "store_unavailable"
    assert away.headers["retry-after"] == "2"
    assert again.json()["id"] == first.json()["id"]
    assert len(mine) == 1


async def test_retry_takes_a_key_too(shop: Shop) -> None:
    """Trying again, sent again, is one new job, even when that one has ended meanwhile."""
    shop.begin = shop.fail.start
    failed = (await shop.start()).json()["id"]
    await shop.ended(failed)

    first = await shop.post(f"/{failed}/retry", idempotency_key='"k"')
    await shop.ended(first.json()["id"])
    again = await shop.post(f"/{failed}/retry", idempotency_key='"k"')
    bad = await shop.post(f"/{failed}/retry", idempotency_key='""')

    assert again.json()["id"] == first.json()["id"]
    assert bad.json()["code"] == "bad_key"
    assert len(await shop.mine()) == 2


# ── a job that has the key ────────────────────────────────────────────────────────────────────


async def test_running_job_is_returned(shop: Shop) -> None:
    """Without a word a second start leads to the job that runs."""
    shop.begin = shop.wait.using(key="mine").start

    first, second = await shop.start(), await shop.start()

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]


async def test_running_job_is_in_the_way(shop: Shop) -> None:
    """Where the app says so, a second start is a conflict that shows the way to the job."""
    shop.begin = shop.wait.using(key="mine", if_running="refuse").start
    first = await shop.start()

    refused = await shop.start()
    other = await shop.start(x_user="bob")
    shop.go.set()
    await shop.ended(first.json()["id"])
    later = await shop.start()

    assert refused.status_code == 409
    assert refused.json()["code"] == "already_running"
    assert refused.headers["location"] == refused.json()["job"] == first.headers["location"]
    assert other.status_code == later.status_code == 202


async def test_replay_is_no_second_start(shop: Shop) -> None:
    """Its own job is not in the way of a request that is sent again, and does not take its key."""
    shop.begin = shop.wait.using(key="mine", if_running="refuse").start
    first = await shop.start(idempotency_key='"one"')

    again = await shop.start(idempotency_key='"one"')
    other = await shop.start(idempotency_key='"two"')
    shop.go.set()
    await shop.ended(first.json()["id"])
    later = await shop.start(idempotency_key='"two"')

    assert again.status_code == 202
    assert again.headers["idempotency-replayed"] == "true"
    assert other.status_code == 409
    assert later.status_code == 202
    assert later.json()["id"] != first.json()["id"]


# ── forgetting ────────────────────────────────────────────────────────────────────────────────


async def test_delete_forgets_what_has_ended(shop: Shop, keyspace: Keyspace, until: Until) -> None:
    """A job that runs cannot be forgotten; one that has ended is, with every key that it had."""
    shop.begin = shop.wait.using(key="mine").start
    job_id = (await shop.start(idempotency_key='"k"')).json()["id"]
    await shop.running(job_id)

    early = await shop.delete(f"/{job_id}")
    shop.go.set()
    await shop.ended(job_id)
    done = await shop.delete(f"/{job_id}")
    again = await shop.delete(f"/{job_id}")

    assert early.status_code == 409
    assert early.json()["code"] == "still_running"
    assert early.json()["state"] == "running"
    assert (done.status_code, done.content) == (204, b"")
    assert again.status_code == 404
    assert (await shop.get(f"/{job_id}")).status_code == 404
    assert await shop.mine() == []
    await until(lambda: _kinds(keyspace) <= {"once", "pace"}, "nothing of it is left")


def _kinds(keyspace: Keyspace) -> set[str]:
    """What is in the store, by the words of the data model."""
    return {name.removeprefix(f"{keyspace.prefix}:").split(":")[-2] for name in keyspace.names()}


async def test_delete_does_not_cancel(shop: Shop) -> None:
    """A job that waits is not forgotten either: it has not ended."""
    job_id = (await shop.start()).json()["id"]

    assert (await shop.delete(f"/{job_id}")).status_code == 409
    assert not (await shop.headway.get(job_id)).cancel_requested


async def test_forgotten_job_is_gone_for_its_watchers(shop: Shop, until: Until) -> None:
    """Whoever watches a job that is forgotten hears that it is gone; the others go on."""
    ended = await shop.link.using(owner="ann").start("x")
    going = await shop.wait.using(owner="ann").start()
    await shop.ended(ended.id)
    await shop.running(going.id)
    tag = (await shop.get(f"/{ended.id}")).headers["etag"]

    stream = asyncio.create_task(shop.get(f"/events?id={ended.id}&id={going.id}"))
    poll = asyncio.create_task(shop.get(f"/{ended.id}", if_none_match=tag, prefer="wait=20"))
    batch = asyncio.create_task(_batch(shop, [ended.id, going.id]))
    await until(lambda: _watchers(shop, ended.id) == 3, "all of them watch")
    await shop.delete(f"/{ended.id}")
    told = (await batch).json()
    shop.go.set()

    heard = events((await stream).text)
    assert [data["id"] for event, data in heard if event == "gone"] == [ended.id]
    assert heard[-1] == ("end", {})
    assert (await poll).status_code == 404
    assert told["gone"] == [ended.id]
    assert [one["id"] for one in told["jobs"]] == [going.id]


def _watchers(shop: Shop, job_id: str) -> int:
    seen = shop.headway.hub._seen.get(job_id)
    return len(seen.watchers) if seen is not None and seen.known else 0


async def _batch(shop: Shop, ids: list[str]) -> httpx.Response:
    query = "?" + "&".join(f"id={one}" for one in ids)
    tag = (await shop.get(query)).headers["etag"]
    return await shop.get(query, if_none_match=tag, prefer="wait=20")


async def test_only_the_owner_forgets(shop: Shop) -> None:
    """Others do not see it, watchers may not, and other sites do not get that far."""
    mine = await shop.link.using(owner="ann").start("x")
    everyones = await shop.link.using(owner=EVERYONE).start("x")
    for job in (mine, everyones):
        await shop.ended(job.id)

    assert (await shop.delete(f"/{mine.id}", x_user="bob")).status_code == 404
    assert (await shop.delete(f"/{everyones.id}")).json()["code"] == "not_yours"
    crossing = await shop.delete(f"/{mine.id}", sec_fetch_site="cross-site")
    assert crossing.json()["code"] == "cross_origin"
    assert (await shop.get(f"/{mine.id}")).status_code == 200


@pytest.mark.parametrize("door", DOORS)
async def test_what_has_expired_is_gone_before_it_is_removed(
    door: str, make_headway: MakeHeadway, until: Until
) -> None:
    """An ended job whose time is over answers 410 everywhere, and is left out of lists."""
    async with open_shop(door, make_headway, keep_s=1) as shop:
        job = await shop.link.using(owner="ann").start("x")
        await shop.ended(job.id)
        await until(lambda: _status(shop, job.id), "its time is over")

        replies = [await shop.get(f"/{job.id}{rest}") for rest in ("", "/events", "/result")]
        listed = await shop.get("")
        batch = await shop.get(f"?id={job.id}")
        stream = events((await shop.get(f"/events?id={job.id}")).text)

    codes = {reply.json()["code"] for reply in replies}
    assert codes <= {"expired", "not_found"}  # the sweeper may come at any time
    assert listed.json()["jobs"] == []
    assert batch.json() == {"jobs": [], "gone": [job.id]}
    assert stream == [("gone", {"id": job.id}), ("end", {})]


async def _status(shop: Shop, job_id: str) -> bool:
    return (await shop.get(f"/{job_id}")).status_code in {404, 410}


# ── how much ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("door", DOORS)
async def test_places_are_given_back(door: str, make_headway: MakeHeadway) -> None:
    """No more than so many jobs of one owner at a time; an end and a cancel make room."""
    limits = Limits(jobs_per_owner=2)
    async with open_shop(door, make_headway, limits=limits, concurrency=1) as shop:
        runs = (await shop.start()).json()["id"]
        waits = (await shop.start()).json()["id"]
        await shop.running(runs)
        full = await shop.start()
        other = await shop.start(x_user="bob")
        await shop.post(f"/{waits}/cancel")
        after_cancel = await shop.start()
        again_full = await shop.start()
        shop.go.set()
        await shop.ended(runs)
        await shop.ended(after_cancel.json()["id"])
        after_end = await shop.start()

    assert full.status_code == again_full.status_code == 429
    assert full.json()["code"] == "too_many_jobs"
    assert full.headers["retry-after"] == "5"
    assert other.status_code == after_cancel.status_code == after_end.status_code == 202


@pytest.mark.parametrize("door", DOORS)
async def test_refused_job_leaves_nothing(
    door: str, make_headway: MakeHeadway, keyspace: Keyspace
) -> None:
    """What the gate refuses was never there: no record, no key, no place in a list."""
    async with open_shop(door, make_headway, limits=Limits(starts_per_minute=2)) as shop:
        shop.begin = lambda: shop.link.start("x")
        started = [(await shop.start(prefer="wait=20")).status_code for _ in range(2)]
        shop.begin = lambda: shop.wait.using(key="mine").start()
        refused = await shop.start()
        mine = await shop.mine()
        records = [name for name in keyspace.names() if ":job:" in name]

    assert started == [200, 200]
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_starts"
    assert 28 <= int(refused.headers["retry-after"]) <= 30
    assert len(mine) == len(records) == 2
    assert not any(":key:" in name for name in keyspace.names())


@pytest.mark.parametrize("door", DOORS)
async def test_starts_of_one_rate_key_are_counted_together(
    door: str, make_headway: MakeHeadway
) -> None:
    """Who makes up a new name for each start is still the same address."""
    limits = Limits(starts_per_minute=1)
    async with open_shop(door, make_headway, limits=limits, rate_key=lambda _: "::1") as shop:
        first = await shop.start(x_user=new_visitor())
        second = await shop.start(x_user=new_visitor())

    assert (first.status_code, second.status_code) == (202, 429)


@pytest.mark.parametrize("door", DOORS)
async def test_a_job_that_runs_already_costs_no_place(door: str, make_headway: MakeHeadway) -> None:
    """Clicking again is not starting again."""
    async with open_shop(door, make_headway, limits=Limits(jobs_per_owner=1)) as shop:
        shop.begin = shop.wait.using(key="mine").start

        replies = [await shop.start() for _ in range(5)]

    assert {reply.status_code for reply in replies} == {202}


@pytest.mark.parametrize("door", DOORS)
async def test_retry_is_counted(door: str, make_headway: MakeHeadway) -> None:
    """Trying again is a start like any other."""
    async with open_shop(door, make_headway, limits=Limits(jobs_per_owner=1)) as shop:
        failed = await shop.fail.using(owner="ann").start()
        await shop.ended(failed.id)
        await shop.start()

        reply = await shop.post(f"/{failed.id}/retry")

    assert reply.json()["code"] == "too_many_jobs"


@pytest.mark.parametrize("door", DOORS)
async def test_large_arguments_are_refused(door: str, make_headway: MakeHeadway) -> None:
    """Arguments over the limit are 413, and say what to do; the limit can be raised, too."""
    limits = Limits(args_bytes=100_000)
    async with open_shop(door, make_headway, limits=limits) as shop:
        shop.begin = lambda: shop.count.start("x" * 100_000)
        large = await shop.start(idempotency_key='"k"')
        shop.begin = lambda: shop.link.start("x" * 90_000)
        fits = await shop.start(idempotency_key='"k"')

    assert large.status_code == 413
    assert large.json()["code"] == "too_large"
    assert "the limit is 100000" in large.json()["detail"]
    assert fits.status_code == 202


@pytest.mark.parametrize("door", DOORS)
async def test_ids_are_as_many_as_the_limit_says(door: str, make_headway: MakeHeadway) -> None:
    """Three ids, if three is the limit; a fourth is one too many, and so are thousands."""
    async with open_shop(door, make_headway, limits=Limits(ids_per_stream=3)) as shop:
        three = "&".join(f"id=0{n}{'a' * 26}" for n in (1, 2, 3))

        fits = [await shop.get(f"{path}?{three}") for path in ("", "/events")]
        many = [f"{three}&id=x", "&".join(["id="] * 5_000)]
        over = [await shop.get(f"{path}?{ids}") for path in ("", "/events") for ids in many]

    assert [reply.status_code for reply in fits] == [200, 200]
    for reply in over:
        assert reply.status_code == 400
        assert (reply.json()["code"], reply.json()["limit"]) == ("too_many_ids", 3)


@pytest.mark.parametrize("door", DOORS)
async def test_streams_are_as_many_as_the_limits_say(
    door: str, make_headway: MakeHeadway, until: Until
) -> None:
    """However many come at once, so many streams of one owner are opened, and so many of all."""
    limits = Limits(streams_per_owner=2, streams_per_process=3)
    async with open_shop(door, make_headway, limits=limits) as shop:
        job = await shop.wait.using(owner=EVERYONE).start()
        path = f"/{job.id}/events"
        anns = [asyncio.create_task(shop.get(path)) for _ in range(6)]
        await until(lambda: sum(task.done() for task in anns) == 4, "ann's others are refused")
        bobs = [asyncio.create_task(shop.get(path, x_user="bob")) for _ in range(3)]
        await until(lambda: sum(task.done() for task in bobs) == 2, "all but one of bob's, too")
        refused = [task.result() for task in (*anns, *bobs) if task.done()]
        shop.go.set()
        await asyncio.gather(*anns, *bobs)

    told = [(reply.status_code, reply.json()["code"]) for reply in refused]
    assert told == [(429, "too_many_streams")] * 4 + [(503, "streams_full")] * 2
    assert {reply.headers["retry-after"] for reply in refused} == {"5"}
    assert len(shop.headway.streams) == 0
