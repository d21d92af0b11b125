"""All jobs for operators: order, pages, filters."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest

from headway._link import Link
from headway._wire import Call
from headway.errors import BadInput
from headway.job import Job, State, new_id
from headway.keys import Keys
from headway.overview import BATCHES, PAGE, RECENT, Filter, Listing, Overview
from headway.store import Settled, Store
from tests.conftest import PARTITIONS, MakeHeadway
from tests.contract import HOOKS
from tests.keyspace import Keyspace
from tests.many import copy_ended

pytestmark = pytest.mark.once

RECORD = {
    "task": "count", "title": "Count", "owner": "ann", "args": "[[],{}]", "options": "{}",
    "on_lost": "fail", "max_attempts": "1",
}  # fmt: skip
DONE = Settled(State.SUCCEEDED, "{}", result='"' + "x" * 1000 + '"')
LEASE_S = 60.0


@pytest.fixture
def overview(link: Link, keys: Keys) -> Overview:
    """What is looked with."""
    return Overview(link, keys)


async def queued(store: Store, **fields: str) -> Job:
    return await store.create(new_id(PARTITIONS), {**RECORD, **fields}, LEASE_S)


async def running(store: Store, **fields: str) -> Job:
    job = await queued(store, **fields)
    claim = await store.claim(job.id, LEASE_S)
    assert claim is not None
    return claim.job


async def ended(store: Store, settled: Settled = DONE, **fields: str) -> Job:
    job = await running(store, **fields)
    assert await store.finish(job, settled)
    return job


async def pages(overview: Overview, wanted: Filter, limit: int) -> list[list[str]]:
    found, after = [], None
    while True:
        page = await overview.page(wanted, after=after, limit=limit)
        found.append([job.id for job in page.jobs])
        if (after := page.after) is None:
            return found


async def test_nothing_is_a_page(overview: Overview) -> None:
    """An empty store has one empty page."""
    assert await overview.page(Filter()) == Listing([], None)


async def test_pages_hold_each_job_once_in_order(overview: Overview, store: Store) -> None:
    """What lives comes first, the newest first; then what has ended, the latest first."""
    over = [(await ended(store)).id for _ in range(45)]
    live = [(await (running if n % 2 else queued)(store)).id for n in range(7)]

    found = await pages(overview, Filter(), 10)

    everything = [i for page in found for i in page]
    assert sorted(everything) == sorted(live + over)
    assert set(everything[:7]) == set(live)
    assert all(len(page) == 10 for page in found[:-1])
    jobs = await store.get_all(everything)
    assert [j.finished_at for j in jobs.values()][7:] == sorted(
        (j.finished_at for j in jobs.values() if j.finished_at), reverse=True
    )
    created = [j.created_at for j in jobs.values()][:7]
    assert created == sorted(created, reverse=True)


async def test_many_that_end_at_once_are_all_listed(
    overview: Overview, store: Store, keyspace: Keyspace, keys: Keys
) -> None:
    """Hundreds in one millisecond of one partition do not hide one another."""
    over = [(await ended(store)).id for _ in range(120)]
    for name in map(keys.ends, keys.all_partitions()):
        for member in keyspace.client.zrange(name, 0, -1):
            keyspace.client.zadd(name, {str(member): 4_000_000_000_000})

    found = await pages(overview, Filter(), 7)

    assert sorted(i for page in found for i in page) == sorted(over)


class Meanwhile(Link):
    """A link on which something happens before each of its round trips."""

    def __init__(self, url: str, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__(url)
        self._happen = happen

    async def call_all(self, calls: Sequence[Call]) -> list[Any]:
        await self._happen()
        return await super().call_all(calls)


@pytest.mark.parametrize("before", range(4))
async def test_job_that_ends_meanwhile_is_listed_once(
    url: str, keys: Keys, store: Store, before: int
) -> None:
    """Whichever round trip of a page it is before which the job ends."""
    job, trips = await running(store), itertools.count()

    async def end() -> None:
        if next(trips) == before:
            assert await store.finish(job, DONE)

    link = Meanwhile(url, end)
    link.open()
    page = await Overview(link, keys).page(Filter())
    await link.aclose()

    assert [job.id for job in page.jobs] == [job.id]
    assert next(trips) > before


async def test_page_that_the_living_fill_holds_no_more(overview: Overview, store: Store) -> None:
    """With just as many live jobs as there is room for, the ended ones wait for the next page."""
    for _ in range(3):
        await ended(store)
        await queued(store)

    assert [len(page) for page in await pages(overview, Filter(), 3)] == [3, 3]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Filter(state=State.FAILED), 3),
        (Filter(state=State.RUNNING), 2),
        (Filter(state=State.QUEUED), 1),
        (Filter(task="other"), 2),
        (Filter(owner="bob"), 2),
        (Filter(owner="bob", state=State.RUNNING), 1),
        (Filter(owner="nobody"), 0),
    ],
)
async def test_filters(overview: Overview, store: Store, wanted: Filter, count: int) -> None:
    """State, task and owner, and all together."""
    for _ in range(30):
        await ended(store)
    for _ in range(3):
        await ended(store, Settled(State.FAILED, "{}"))
    await ended(store, task="other")
    await ended(store, task="other", owner="bob")
    await running(store)
    await running(store, owner="bob")
    await queued(store)

    found = await pages(overview, wanted, 2)

    assert sum(map(len, found)) == count


async def test_large_values_are_not_read(overview: Overview, store: Store) -> None:
    """A list does not carry the results of its jobs."""
    await ended(store)

    page = await overview.page(Filter())

    assert page.jobs[0].result is None
    assert page.jobs[0].state is State.SUCCEEDED


async def test_many_live_jobs_in_one_partition_are_all_listed(
    overview: Overview, store: Store
) -> None:
    """Jobs that a job has started, or that have one key, live in one partition."""
    ids = [f"01{new_id(PARTITIONS)[2:]}" for _ in range(150)]
    for job_id in ids:
        await store.create(job_id, RECORD, LEASE_S)

    found = await pages(overview, Filter(), 40)

    assert sorted(i for page in found for i in page) == sorted(ids)


class Counting(Link):
    """A link that counts its round trips, and what it asks in them."""

    trips = asked = 0

    async def call(self, call: Call) -> Any:
        self.trips += 1
        self.asked += 1
        return await super().call(call)

    async def try_all(self, calls: Sequence[Call]) -> list[Any]:
        self.trips += 1
        self.asked += len(calls)
        return await super().try_all(calls)


@pytest.mark.parametrize(
    ("wanted", "trips"),
    [
        (Filter(), 6),
        (Filter(state=State.SUCCEEDED), 6),
        (Filter(task="export_orders"), BATCHES + 4),
        (Filter(owner="user7"), BATCHES + 4),
        (Filter(owner="nobody"), BATCHES + 4),
    ],
)
@pytest.mark.one_server
async def test_page_of_ten_thousand_is_cheap(
    store: Store, keyspace: Keyspace, keys: Keys, wanted: Filter, trips: int
) -> None:
    """However many jobs there are, a page asks the store for little more than what it shows."""
    original = await ended(store)
    await running(store)
    copy_ended(keyspace.client, keys, original.id, 10_000)
    link = Counting(keyspace.url)
    link.open()
    overview = Overview(link, keys)
    await overview.page(wanted)  # teaches the scripts
    link.trips = link.asked = 0

    page, recent = await asyncio.gather(overview.page(wanted), overview.recent())
    await link.aclose()

    assert len(page.jobs) <= PAGE
    assert link.trips <= trips
    assert link.asked <= PAGE + BATCHES + 4
    assert page.after is not None
    assert 0 < len(recent.ended) <= RECENT
    assert (recent.cut, recent.running) == (True, 1)


@pytest.mark.slow
@pytest.mark.one_server
async def test_ten_thousand_are_all_found(
    overview: Overview, store: Store, keyspace: Keyspace, keys: Keys
) -> None:
    """From page to page, in order, each once; also of one owner only."""
    ids = copy_ended(keyspace.client, keys, (await ended(store)).id, 10_000)
    await store.forget(await store.get(ids[5_000]))

    found = await pages(overview, Filter(), 500)
    mine = await pages(overview, Filter(owner="user7"), 10)

    assert [i for page in found for i in page if i in set(ids)] == [*ids[:5_000], *ids[5_001:]]
    jobs = await store.get_all([i for page in mine for i in page])
    everything = await store.get_all(ids, strict=False)
    assert list(jobs) == [i for i, job in everything.items() if job.owner == "user7"]


async def test_recent_jobs_are_told_with_their_times(overview: Overview, store: Store) -> None:
    """What lives is counted; what has ended comes with its state and times, the latest first."""
    over = [await ended(store), await ended(store, Settled(State.FAILED, "{}"))]
    unbegun = await store.cancel((await queued(store)).id)
    for make in (queued, running, running):
        await make(store)

    recent = await overview.recent()

    jobs = await store.get_all([job.id for job in (*over, unbegun)])
    assert (recent.queued, recent.running, recent.cut) == (1, 2, False)
    assert sorted(recent.ended) == sorted(
        (j.state, j.created_at, j.started_at, j.finished_at) for j in jobs.values()
    )
    assert [one.finished_at for one in recent.ended] == sorted(
        (one.finished_at for one in recent.ended), reverse=True
    )


@pytest.mark.parametrize("after", ["", "x", "e~now~", "e~nan~", "l~1", "e~~", "\x00"])
async def test_place_that_nobody_gave_is_refused(overview: Overview, after: str) -> None:
    """`after` comes from strangers."""
    if after == "l~1":
        assert (await overview.page(Filter(), after=after)).jobs == []
        return
    with pytest.raises(BadInput, match="give what an earlier page said"):
        await overview.page(Filter(), after=after)


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────


async def test_operators_see_all_jobs(make_headway: MakeHeadway) -> None:
    """Page by page, with their owners; filters in the query; nothing for anybody else."""
    headway = make_headway(
        identify=lambda scope: "ann", operator=lambda scope: b"boss" in dict(scope["headers"])
    )
    go = asyncio.Event()

    @headway.task
    async def count() -> int:
        return 3

    @headway.task
    async def wait() -> None:
        await go.wait()

    transport = httpx.ASGITransport(headway.asgi, root_path="/jobs")
    async with (
        headway,
        httpx.AsyncClient(
            transport=transport, base_url="http://site.test", event_hooks=HOOKS
        ) as client,
    ):
        over = [await count.using(owner="bob").start() for _ in range(60)]
        for job in over:
            async for _ in headway.watch(job.id):
                pass
        lives = await wait.using(owner="ann").start()

        nobody = await client.get("/jobs/overview")
        first = await client.get("/jobs/overview", headers={"boss": "1"})
        rest = await client.get(
            "/jobs/overview", headers={"boss": "1"}, params={"after": first.json()["after"]}
        )
        mine = await client.get("/jobs/overview?owner=ann&state=", headers={"boss": "1"})
        wrong = [
            await client.get(f"/jobs/overview?{query}", headers={"boss": "1"})
            for query in ("state=done", "after=x")
        ]
        go.set()

    assert (nobody.status_code, nobody.json()["code"]) == (404, "not_found")
    found = [*first.json()["jobs"], *rest.json()["jobs"]]
    assert found[0]["job"]["id"] == lives.id
    assert {entry["job"]["id"] for entry in found} == {lives.id, *(job.id for job in over)}
    assert len(found) == 61
    figures = first.json()["figures"]
    assert (figures["running"], figures["queued"]) == (1, 0)
    assert sum(span["succeeded"] for span in figures["spans"]) == 60
    assert 0 <= figures["run_s"]["p50"] <= figures["run_s"]["p95"]
    assert {entry["owner"] for entry in found} == {"ann", "bob"}
    assert rest.json()["after"] is None
    assert [entry["job"]["id"] for entry in mine.json()["jobs"]] == [lives.id]
    assert {(reply.status_code, reply.json()["code"]) for reply in wrong} == {(400, "bad_query")}
