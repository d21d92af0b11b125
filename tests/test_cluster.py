"""A Redis Cluster, and a server that Sentinels watch over: all works, and outlives a failover.

Asynchronous replication can lose what was acknowledged last; see test_replica.py for what becomes
of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from redis.crc import key_slot

from headway import Headway, Job, JobError, Progress
from headway._wire import Call
from headway.errors import StoreError, StoreUnavailable
from headway.job import PARTITIONS
from headway.overview import PAGE, Filter
from tests.apps.cluster import PATIENT_MS, TIMEOUT_MS, Cluster, Node, Watched
from tests.conftest import REDIS, Until, end_of

pytestmark = [pytest.mark.once, pytest.mark.fault]
SLOW: Final = pytest.mark.slow

LEASE_S: Final = 6.0
STEPS: Final = 120
STEP_S: Final = 0.05
RECOVERED_S: Final = 10.0
SECRET: Final = "the secret of a test, long enough"


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Six nodes of this test. They are quick to take one for dead only where one is to die."""
    timeout_ms = TIMEOUT_MS if "fault" in request.fixturenames else PATIENT_MS
    cluster = Cluster(tmp_path / "cluster", timeout_ms=timeout_ms)
    yield cluster
    cluster.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Two servers and three Sentinels of this test."""
    watched = Watched(tmp_path / "watched")
    yield watched
    watched.close()


def opened(url: str, **options: Any) -> Headway:
    given = {"secret": SECRET, "lease_s": LEASE_S, "concurrency": 100, "drain_s": 0.0}
    return Headway(url, **{**given, **options})


class Work:
    """Jobs that count, one in each of some partitions, and who watches them from another process's
    point of view."""

    def __init__(self, here: Headway, there: Headway) -> None:
        self._here, self._there = here, there
        self.task = here.task(name="count", on_lost="retry")(self._count)
        self.changed_at: dict[str, list[float]] = {}
        self.ended: dict[str, Job] = {}
        self._watching: list[asyncio.Task[None]] = []

    async def _count(self, progress: Progress, steps: int) -> int:
        async for _ in progress.track(range(steps)):
            await asyncio.sleep(STEP_S)
        return steps

    async def start(self, jobs: int, steps: int = STEPS) -> None:
        """Start jobs in this many partitions, watched from the other side."""
        partitions: set[str] = set()
        while len(partitions) < jobs:
            job = await self.task.using(owner="ann").start(steps)
            partitions.add(job.id[:2])
            self._watching.append(asyncio.create_task(self._watch(job)))

    async def _watch(self, job: Job) -> None:
        times = self.changed_at[job.id] = []
        async for now in self._there.watch(job.id):
            times.append(time.monotonic())
            self.ended[job.id] = now

    async def end(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self._watching), 30)

    @property
    def longest_silence_s(self) -> float:
        """The longest time for which any watcher heard nothing."""
        return max(
            after - before
            for times in self.changed_at.values()
            for before, after in pairwise(times)
        )

    def outcomes(self) -> set[tuple[str, int, Any]]:
        return {(str(job.state), job.attempt, job.result) for job in self.ended.values()}


async def run_through(url: str, fault: Callable[[], None]) -> Work:
    """Jobs run and are watched while *fault* happens, and to their end."""
    here, there = opened(url), opened(url)
    work = Work(here, there)
    async with here, there:
        await work.start(12)
        await asyncio.to_thread(fault)
        await work.end()
        again = await work.task.start(1)
        async for job in there.watch(again.id):
            again = job
    assert again.state == "succeeded"
    return work


# ── all works ─────────────────────────────────────────────────────────────────────────────────


class Life:
    """Tasks that do all that tasks can do."""

    def __init__(self, headway: Headway) -> None:
        self._headway = headway
        self.broken = True
        self.part = headway.task(name="part")(self._part)
        self.work = headway.task(name="work")(self._work)
        self.wait = headway.task(name="wait")(self._wait)
        self.fail = headway.task(name="fail")(self._fail)

    async def _part(self, n: int) -> int:
        return n

    async def _work(self, progress: Progress, n: int) -> int:
        for at in progress.track(range(n), resume=True):
            progress.log(f"item {at}")
            progress.checkpoint(at)
        async with self._headway.group(progress) as group:
            for at in range(3):
                await group.start(self.part, at)
        return n

    async def _wait(self, progress: Progress) -> None:
        progress.note("waiting")
        await asyncio.Event().wait()

    async def _fail(self) -> None:
        if self.broken:
            raise JobError("not yet")


@pytest.mark.parametrize("kind", [Cluster, Watched])
@pytest.mark.parametrize("oldest", [False, pytest.param(True, marks=SLOW)], ids=["valkey", "redis"])
async def test_all_that_a_job_does(kind: type[Any], tmp_path: Path, oldest: bool) -> None:
    """Keys, logs, groups, cancelling, retries, lists, forgetting, health."""
    if oldest and REDIS is None:
        pytest.skip("there is no redis-server on this machine")
    binary = REDIS if oldest else None
    with closing(kind(tmp_path / "store", binary, timeout_ms=PATIENT_MS)) as store:
        headway = opened(store.url)
        life = Life(headway)
        async with headway:
            jobs = [await life.work.using(owner="ann", key=str(n)).start(n) for n in range(20)]
            one = await life.wait.using(key="one").start()
            same = await life.wait.using(key="one").start()
            results = [(await end_of(headway, job)).result for job in jobs]
            log = await headway.log(jobs[-1].id)
            listed = await headway.list(owner="ann", limit=200)
            await headway.cancel(one.id)
            cancelled = await end_of(headway, one)
            failed = await end_of(headway, await life.fail.start())
            life.broken = False
            again = await end_of(headway, await headway.retry(failed.id))
            page = await headway.overview()
            forgotten = await headway.forget(jobs[0].id)
            took_s = await headway.ping()

    assert results == list(range(20))
    assert same.id == one.id
    assert len(log) == 19
    assert {job.id for job in listed} >= {job.id for job in jobs}
    assert [job.state for job in (cancelled, failed, again)] == ["cancelled", "failed", "succeeded"]
    assert len(page.jobs) == PAGE
    assert forgotten
    assert 0 < took_s < 5


async def test_what_has_ended_is_forgotten(cluster: Cluster, until: Until) -> None:
    """In a cluster each partition is swept by itself."""
    headway = opened(cluster.url, keep_s=1.0)
    life = Life(headway)

    async with headway:
        for n in range(20):
            await end_of(headway, await life.part.using(owner="ann").start(n))

        async def gone() -> bool:
            await headway._open_runtime("test").store.sweep(100)
            return not any(node.say("DBSIZE") for node in cluster.primaries)

        await until(gone, "no key is left")


async def test_overview_goes_from_page_to_page(cluster: Cluster) -> None:
    """What each partition says of itself becomes one list: in order, and each job once."""
    headway = opened(cluster.url)
    life = Life(headway)

    async with headway:
        jobs = [await life.part.start(n) for n in range(100)]
        waiting = [await life.wait.start() for _ in range(30)]
        for job in jobs:
            await end_of(headway, job)
        overview = headway._open_runtime("test").overview
        found: list[Job] = []
        after: str | None = None
        while True:
            page, after = await overview.page(Filter(), after=after, limit=17)
            found += page
            if after is None:
                break
        recent = await overview.recent()

    assert sorted(job.id for job in found) == sorted(job.id for job in [*jobs, *waiting])
    ended = [job.finished_at for job in found if job.finished_at is not None]
    assert ended == sorted(ended, reverse=True)
    assert (recent.running, len(recent.ended), recent.cut) == (30, 100, False)


async def test_one_connection_of_each_kind_to_a_node(cluster: Cluster) -> None:
    """A process asks, listens and beats over three connections to each node, whoever watches."""
    headway = opened(cluster.url)
    work = Work(headway, headway)

    async with headway:
        await work.start(12, steps=20)
        clients = [_clients(node) for node in cluster.primaries]
        await work.end()

    for found in clients:
        assert len([one for one in found if "ssub=0" not in one]) == 1
        assert len(found) <= 3


def _clients(node: Node) -> list[str]:
    """The connections of others, without those of the cluster and of this test."""
    said = node.say("CLIENT", "LIST", "TYPE", "normal") + node.say(
        "CLIENT", "LIST", "TYPE", "pubsub"
    )
    return [one for one in said.splitlines() if "cmd=client|list" not in one]


async def test_plain_url_of_a_cluster_is_told(cluster: Cluster) -> None:
    """Who names a node as if it were alone is told what to write instead."""
    headway = opened(f"redis://{cluster.nodes[0].name}")

    with pytest.raises(StoreError, match=r"is a node of a cluster.*redis\+cluster://"):
        await headway.__aenter__()


async def test_server_that_is_no_cluster_is_told(watched: Watched) -> None:
    """Who names a lone server as a cluster is told so."""
    with pytest.raises(StoreError, match="cluster support disabled"):
        await opened(f"redis+cluster://{watched.primary.name}").__aenter__()


async def test_cluster_without_a_node_is_told() -> None:
    """If none of the nodes answers, opening says so."""
    with pytest.raises(StoreUnavailable, match=r"redis\+cluster://127\.0\.0\.1:1,127"):
        await opened("redis+cluster://127.0.0.1:1,127.0.0.1:2").__aenter__()


# ── and outlives ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["kill", pytest.param("freeze", marks=SLOW)])
async def test_primary_of_a_cluster_fails(cluster: Cluster, fault: str) -> None:
    """Its replica takes over: no job is lost or run twice, and watchers see the truth in time."""
    primary = cluster.primaries[0]

    def strike() -> None:
        getattr(primary, fault)()
        cluster.await_failover(primary)

    work = await run_through(cluster.url, strike)

    assert work.outcomes() == {("succeeded", 1, STEPS)}
    assert work.longest_silence_s < RECOVERED_S


@pytest.mark.parametrize("fault", ["kill", pytest.param("freeze", marks=SLOW)])
async def test_primary_under_sentinels_fails(watched: Watched, fault: str) -> None:
    """The same where Sentinels name the successor."""

    def strike() -> None:
        getattr(watched.primary, fault)()
        watched.await_failover()

    work = await run_through(watched.url, strike)

    assert work.outcomes() == {("succeeded", 1, STEPS)}
    assert work.longest_silence_s < RECOVERED_S


@SLOW
async def test_slots_that_move(cluster: Cluster) -> None:
    """While all partitions of a node move to another one, nobody notices."""
    source, target = cluster.primaries[:2]

    def strike() -> None:
        for n in range(PARTITIONS):
            slot = key_slot(f"{{{n:02x}}}".encode())
            if cluster.primary_of(slot) is source:
                cluster.move(slot, source, target)

    work = await run_through(cluster.url, strike)

    assert work.outcomes() == {("succeeded", 1, STEPS)}
    assert work.longest_silence_s < RECOVERED_S


async def test_keys_half_moved(cluster: Cluster) -> None:
    """What is on its way from one node to another is found: on this one, or on that."""
    slot = key_slot(b"{half}")
    source = cluster.primary_of(slot)
    target = next(node for node in cluster.primaries if node is not source)
    headway = opened(cluster.url)

    async with headway:
        link = headway._open_runtime("test").link
        await link.call(Call(None, ("SET", "{half}:here", "1")))
        await link.call(Call(None, ("SET", "{half}:there", "2")))
        cluster.begin_move(slot, source, target)
        cluster.carry(source, target, "{half}:there")
        found = await link.call_all(
            [Call(None, ("GET", "{half}:here")), Call(None, ("GET", "{half}:there"))]
        )

    assert found == ["1", "2"]
