"""The hub on real servers: whatever happens in between, each watcher ends with the newest state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway._link import Link
from headway.errors import NotOpen
from headway.job import Job, State, new_id
from headway.keys import Keys
from headway.store import Settled, Store
from headway.watch import AT_ONCE, Hub, Watcher
from tests.conftest import PARTITIONS, OwnServer, Until
from tests.keyspace import client_of

RECORD = {
    "task": "work", "title": "Work", "owner": "me", "args": "[[],{}]", "options": "{}",
    "on_lost": "fail", "max_attempts": "1",
}  # fmt: skip


@asynccontextmanager
async def opened(
    store: Store, on_control: Callable[[str, str], None] | None = None
) -> AsyncIterator[Hub]:
    hub = Hub(store, on_control or (lambda word, job_id: None))
    await hub.open()
    try:
        yield hub
    finally:
        await hub.aclose()


@pytest.fixture
async def hub(store: Store) -> AsyncIterator[Hub]:
    """A hub that listens."""
    async with opened(store) as hub:
        yield hub


async def running(store: Store) -> Job:
    job = await store.create(new_id(PARTITIONS), RECORD, 60)
    claim = await store.claim(job.id, 60)
    assert claim is not None
    return claim.job


async def report(link: Link, store: Store, job: Job, done: int) -> None:
    beat = store.beat_call(job.id, job.attempt, 60, progress=f'{{"done":{done}}}')
    assert await link.call(beat) == "ok"


class Viewer:
    """Looks at jobs as a page does: takes whenever it is told to, and remembers what it saw."""

    def __init__(self, hub: Hub, ids: list[str]) -> None:
        self.watcher = Watcher(hub, ids)
        self.seen: dict[str, Job | None] = {}
        self.looks = 0

    def __enter__(self) -> Viewer:
        self.watcher.__enter__()
        self._task = asyncio.create_task(self._look())
        return self

    def __exit__(self, *error: Any) -> None:
        self._task.cancel()
        self.watcher.__exit__(None, None, None)

    async def _look(self) -> None:
        while True:
            await self.watcher.wait()
            for job_id, seen in self.watcher.take():
                before = self.seen.get(job_id)
                assert seen.known
                assert before is None or seen.job is None or seen.job.rev > before.rev
                self.seen[job_id] = seen.job
                self.looks += 1

    async def sees(self, until: Until, newest: dict[str, Job]) -> None:
        ids = self.watcher.ids
        await until(
            lambda: all(self.seen.get(i) == newest.get(i) and i in self.seen for i in ids),
            "it sees the newest state",
        )


def listening(url: str) -> list[dict[str, str]]:
    with closing(client_of(url)) as client:
        return list(client.client_list(_type="pubsub"))


# ── one watcher ───────────────────────────────────────────────────────────────────────────────


async def test_watcher_sees_the_present_and_each_end(
    link: Link, store: Store, hub: Hub, until: Until
) -> None:
    """Who joins sees the state as it is, then what changes, and at last the end."""
    job = await running(store)

    with Viewer(hub, [job.id]) as viewer:
        await viewer.sees(until, {job.id: job})
        await report(link, store, job, 5)
        await viewer.sees(until, {job.id: await store.get(job.id)})
        await store.finish(job, Settled(State.SUCCEEDED, '{"ratio":1.0}', '{"n":1}'))
        await viewer.sees(until, {job.id: await store.get(job.id)})

        assert (viewer.seen[job.id] or job).result == {"n": 1}


@pytest.mark.parametrize("job_id", ["garbage", "", "00" + "a" * 26])
async def test_unknown_id_is_gone(hub: Hub, job_id: str) -> None:
    """A job that does not exist is known not to: there is no endless waiting for it."""
    for _ in range(2):
        with hub.watcher([job_id]) as watcher:
            assert await watcher.wait(5)

            [(told, seen)] = watcher.take()
            assert (told, seen.job, seen.known) == (job_id, None, True)


async def test_job_that_is_made_later_appears(store: Store, hub: Hub, until: Until) -> None:
    """Who watches an id before its job exists sees it when it begins to run."""
    job_id = new_id(PARTITIONS)

    with Viewer(hub, [job_id]) as viewer:
        await viewer.sees(until, {})
        await store.create(job_id, RECORD, 60)
        await store.claim(job_id, 60)

        await viewer.sees(until, {job_id: await store.get(job_id)})


async def test_watcher_takes_each_change_once(link: Link, store: Store, hub: Hub) -> None:
    """What was taken is not told again; waiting for nothing ends in time."""
    job = await running(store)

    with hub.watcher([job.id, job.id]) as watcher:
        assert await watcher.wait(5)
        assert len(watcher.take()) == 1

        assert await watcher.wait(0.01) is False
        assert watcher.take() == []


async def test_nudge_ends_the_wait(hub: Hub) -> None:
    """A nudge wakes a watcher although nothing changed."""
    with hub.watcher([new_id(PARTITIONS)]) as watcher:
        await watcher.wait(5)
        watcher.take()

        watcher.nudge()

        assert await watcher.wait(5)
        assert watcher.take() == []


async def test_watcher_that_never_takes_holds_one_slot(
    link: Link, store: Store, hub: Hub, until: Until
) -> None:
    """However much changes, a slow reader holds one slot a job, and the newest state in it."""
    job = await running(store)

    with hub.watcher([job.id]) as slow, Viewer(hub, [job.id]) as quick:
        for done in range(300):
            await report(link, store, job, done)
        await quick.sees(until, {job.id: await store.get(job.id)})

        assert len(slow._changed) == 1
        [(_, seen)] = slow.take()
        assert seen.job == await store.get(job.id)


# ── many watchers ─────────────────────────────────────────────────────────────────────────────


async def test_joining_while_all_changes_has_no_hole(
    link: Link, store: Store, hub: Hub, until: Until
) -> None:
    """Jobs that change in the very moment of joining are seen in their last state."""
    jobs = [await running(store) for _ in range(40)]
    viewers: list[Viewer] = []

    async def change() -> None:
        for done in range(20):
            await asyncio.gather(*(report(link, store, job, done) for job in jobs))

    with ExitStack() as stack:
        changing = asyncio.create_task(change())
        for _ in range(30):
            ids = [job.id for job in random.sample(jobs, 10)]
            viewers.append(stack.enter_context(Viewer(hub, ids)))
            await asyncio.sleep(0)
        await changing

        newest = await store.get_all([job.id for job in jobs])
        for viewer in viewers:
            await viewer.sees(until, newest)


@pytest.mark.one_server
async def test_one_connection_for_all_watchers(
    url: str, store: Store, hub: Hub, until: Until
) -> None:
    """However many watch however many jobs, one connection listens."""
    jobs = [await running(store) for _ in range(10)]
    before = len(listening(url))

    with ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(hub, [job.id for job in jobs])) for _ in range(100)]
        for viewer in viewers:
            await viewer.sees(until, {job.id: job for job in jobs})

        assert len(listening(url)) == before == 1
        assert hub.watched == 10


@pytest.mark.one_server
async def test_crowd_does_not_hold_up_the_others(link: Link, store: Store, hub: Hub) -> None:
    """Who has something to do while very many are told comes in between, and soon."""
    job, told = await running(store), 0
    steps: list[int] = []

    async def look(watcher: Watcher) -> None:
        nonlocal told
        await watcher.wait()
        told += len(watcher.take())

    async def other() -> None:
        while True:
            before = told
            await asyncio.sleep(0)
            steps.append(told - before)

    with ExitStack() as stack:
        crowd = [stack.enter_context(hub.watcher([job.id])) for _ in range(20 * AT_ONCE)]
        await asyncio.gather(*(look(watcher) for watcher in crowd))
        told, looks = 0, [asyncio.create_task(look(watcher)) for watcher in crowd]
        busy = asyncio.create_task(other())
        await report(link, store, job, 1)
        await asyncio.gather(*looks)
        busy.cancel()

    assert told == sum(steps) == len(crowd)
    assert max(steps) <= AT_ONCE


@pytest.mark.one_server
async def test_last_watcher_out_unsubscribes(
    url: str, store: Store, hub: Hub, until: Until
) -> None:
    """A job that nobody watches any more is not listened to; one that somebody does, is."""
    job = await running(store)

    def subscribed() -> int:
        with closing(client_of(url)) as client:
            return int(client.pubsub_shardnumsub(store.keys.record(job.id))[0][1])

    with Viewer(hub, [job.id]) as first:
        with Viewer(hub, [job.id]) as second:
            await second.sees(until, {job.id: job})
        await first.sees(until, {job.id: job})
        assert subscribed() == 1

    await until(lambda: subscribed() == 0, "nobody is subscribed")
    assert hub.watched == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "change", "change", "end", "cut", "rest"]),
        st.integers(0, 4),
        st.integers(0, 2),
    ),
    max_size=40,
)


class Crowd:
    """Three jobs that change, and up to five viewers who come and go."""

    def __init__(self, url: str, link: Link, store: Store, hub: Hub) -> None:
        self._url, self._link, self._store, self._hub = url, link, store, hub
        self._live: dict[int, Job] = {}
        self._viewers: dict[int, Viewer] = {}
        self._ids: list[str] = []

    async def begin(self) -> None:
        self._live = {n: await running(self._store) for n in range(3)}
        self._ids = [job.id for job in self._live.values()]

    async def join(self, who: int, which: int, n: int) -> None:
        if who not in self._viewers:
            self._viewers[who] = Viewer(self._hub, self._ids[which:]).__enter__()

    async def leave(self, who: int, which: int, n: int) -> None:
        if who in self._viewers:
            self._viewers.pop(who).__exit__()

    async def change(self, who: int, which: int, n: int) -> None:
        if which in self._live:
            await report(self._link, self._store, self._live[which], n)

    async def end(self, who: int, which: int, n: int) -> None:
        if which in self._live:
            job = self._live.pop(which)
            await self._store.finish(job, Settled(State.SUCCEEDED, "{}"))

    async def cut(self, who: int, which: int, n: int) -> None:
        with closing(client_of(self._url)) as client:
            client.client_kill_filter(_type="pubsub")

    async def rest(self, who: int, which: int, n: int) -> None:
        await asyncio.sleep(0)

    async def all_see(self, until: Until) -> None:
        newest = await self._store.get_all(self._ids)
        for viewer in self._viewers.values():
            await viewer.sees(until, newest)
            viewer.__exit__()


def test_any_order_of_joining_and_changing(url: str, keys: Keys, until: Until) -> None:
    """Whatever joins, leaves, changes or is cut in whatever order: all see the newest at last."""

    @settings(max_examples=25)
    @given(STEPS)
    def run(steps: list[tuple[str, int, int]]) -> None:
        asyncio.run(walk(steps))

    async def walk(steps: list[tuple[str, int, int]]) -> None:
        link = Link(url)
        link.open()
        store = Store(link, keys, "first", keep_s=60)
        async with opened(store) as hub:
            crowd = Crowd(url, link, store, hub)
            await crowd.begin()
            for n, (step, who, which) in enumerate(steps):
                await getattr(crowd, step)(who, which, n)
            await crowd.all_see(until)
        await link.aclose()

    run()


# ── outages, control, opening and closing ─────────────────────────────────────────────────────


@pytest.fixture
async def own_store(own_server: OwnServer) -> AsyncIterator[Store]:
    """A store on the server of this test."""
    link = Link(own_server.url)
    link.open()
    yield Store(link, Keys("own", PARTITIONS), "first", keep_s=60)
    await link.aclose()


async def test_outage_is_seen_and_what_was_missed_after_it(
    own_server: OwnServer, own_store: Store, until: Until
) -> None:
    """While the store is away watchers know it; when it is back they see what they missed."""
    async with opened(own_store) as hub:
        job = await running(own_store)
        with Viewer(hub, [job.id]) as viewer:
            await viewer.sees(until, {job.id: job})
            assert viewer.watcher.live

            own_server.stop()
            await until(lambda: not viewer.watcher.live, "the outage is seen")
            own_server.start()
            await own_store.finish(job, Settled(State.SUCCEEDED, "{}"))

            await until(lambda: viewer.watcher.live, "contact is seen")
            await viewer.sees(until, {job.id: await own_store.get(job.id)})


async def test_watcher_wakes_at_an_outage(
    own_server: OwnServer, own_store: Store, until: Until
) -> None:
    """A watcher that waits is woken when contact is lost, and when it is back."""
    async with opened(own_store) as hub:
        with hub.watcher([new_id(PARTITIONS)]) as watcher:
            await watcher.wait(5)
            watcher.take()

            own_server.stop()
            woken = await watcher.wait(5), watcher.live
            watcher.take()
            own_server.start()

            assert woken == (True, False)
            assert (await watcher.wait(5), watcher.live) == (True, True)


async def test_hub_opens_without_a_store(
    own_server: OwnServer, own_store: Store, until: Until
) -> None:
    """A hub whose store is away opens all the same, and is live as soon as it is there."""
    own_server.stop()
    async with opened(own_store) as hub:
        assert not hub.live
        own_server.start()

        await until(lambda: hub.live, "it is live")


async def test_broken_record_does_not_end_the_hub(
    url: str, store: Store, hub: Hub, until: Until
) -> None:
    """A record that cannot be read is that job's trouble: the others are watched on."""
    broken, good = await running(store), await running(store)
    with closing(client_of(url)) as client:
        progress = str(client.hget(store.keys.record(broken.id), "progress") or "")
        client.hset(store.keys.record(broken.id), "progress", '{"done":"many"}')

        with Viewer(hub, [broken.id]), Viewer(hub, [good.id]) as viewer:
            await viewer.sees(until, {good.id: good})

        client.hset(store.keys.record(broken.id), "progress", progress)


async def test_workers_words_are_heard(store: Store, until: Until) -> None:
    """What is told to workers arrives: to stop a job, and that one waits for somebody."""
    heard: list[tuple[str, str]] = []

    async with opened(store, lambda word, job_id: heard.append((word, job_id))):
        stop, orphan = await running(store), await running(store)
        await store.cancel(stop.id)
        await store.release(orphan.id, 1)

        await until(lambda: len(heard) == 2, "both are heard")

    assert sorted(heard) == sorted([("cancel", stop.id), ("orphan", orphan.id)])


async def test_closed_hub_is_not_live(store: Store) -> None:
    """Who still watches a hub that is closed sees it; nobody new may watch it."""
    async with opened(store) as hub:
        watcher = hub.watcher([new_id(PARTITIONS)])
        before = watcher.live

    assert (before, watcher.live) == (True, False)
    with pytest.raises(NotOpen, match="cannot watch jobs"):
        hub.watcher([])


async def test_hub_that_is_not_open(store: Store) -> None:
    """Before the opening nothing is watched, and closing is no error."""
    hub = Hub(store, lambda word, job_id: None)

    with pytest.raises(NotOpen):
        hub.watcher([])

    await hub.aclose()
