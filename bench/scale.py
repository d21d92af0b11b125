"""Scale: what one web process can tell, what the store pays for each that hears, and a cluster."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from redis.crc import key_slot

from bench.beside import KEYS, PIPELINE, Work, begun_beside, hearing, reporting, say
from bench.hub import Place, place
from bench.measure import Finding, Plot, Row
from bench.processor import memory_bytes
from bench.store import Asked, free_port, fresh_store
from headway import Headway, Progress
from headway.acts import ThreadStore
from headway.job import PARTITIONS
from headway.stream import HEARTBEAT_S
from headway.watch import Watcher
from tests.apps.cluster import SLOTS, STORE, Node
from tests.apps.process import wait_until

JOBS: Final = 10_000
EACH: Final = 10  # watchers of a job
CALM_S: Final = 1 / 2_500  # between two announcements, with one watcher of each job
BUSY_S: Final = 1 / 1_000  # with all of them
CALM: Final = 10_000  # jobs that report
BUSY: Final = 4_000
FLOODED: Final = 1_000
FLOODS: Final = 5  # reports of each
HEARD: Final = 100  # jobs that subscribers hear of
SUBSCRIBERS: Final = (1, 4, 16, 64)
WRITES: Final = 2_000
TURNS: Final = 3
NODES: Final = 3
SPREAD: Final = 640  # jobs in the cluster
REPORTS: Final = 10  # of each
IDLE_S: Final = 6.0  # three looks of a watchdog
LOOKS: Final = 200
FLEETS: Final = (3, 4, 6, 8, 12, 16)
SECRET: Final = "a secret that guards nothing but this measurement"


def measure() -> list[Finding]:
    """One hub with many watchers, then one store with many hubs, then several nodes."""
    return [*asyncio.run(_hub()), *_fan_out(), *asyncio.run(_cluster()), _fleets()]


# ── one hub, a hundred thousand watchers ──────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Told:
    """What it took to tell of some announcements.

    Args:
        taken: how often a watcher has taken something new.
        late_s: from the last report until the last watcher had the last state.
    """

    announced: int
    taken: int
    cpu_s: float
    late_s: float

    @property
    def each_us(self) -> float:
        """Processor time of one announcement."""
        return self.cpu_s / self.announced * 1e6


class _Audience:
    """Virtual watchers: coroutines that wait and take as a stream does, and send nothing."""

    def __init__(self, url: str, here: Place, works: Sequence[Work]) -> None:
        self._url = url
        self._here = here
        self._works = list(works)
        self._watchers: list[Watcher] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._taken = 0

    async def enter(self, each: int) -> float:
        """So many more watchers of each job; seconds until all of them know it."""
        began = time.perf_counter()
        some = [self._here.hub.watcher([job_id]) for _ in range(each) for job_id, _ in self._works]
        for watcher in some:
            watcher.__enter__()
        self._watchers += some
        while not all(watcher._changed for watcher in some):
            await asyncio.sleep(0.01)
        return time.perf_counter() - began

    async def listen(self) -> None:
        """From now on those that have entered wait for news."""
        new = self._watchers[len(self._tasks) :]
        self._tasks += [asyncio.create_task(self._watch(watcher)) for watcher in new]
        await self._all_have_taken()

    async def _watch(self, watcher: Watcher) -> None:
        while True:
            await watcher.wait(HEARTBEAT_S)
            self._taken += len(watcher.take())

    async def _all_have_taken(self) -> None:
        while any(watcher._changed for watcher in self._watchers):
            await asyncio.sleep(0.02)

    async def told(self, jobs: int, pause_s: float, *, reports: int = 1) -> _Told:
        """Let some jobs report, and see what that costs this process."""
        works = self._works[:jobs]
        wanted = {job_id: self._rev(job_id) + reports for job_id, _ in works}
        with reporting(self._url, works * reports, pause_s) as line:
            taken, began = self._taken, time.process_time()
            while not line.poll():
                await asyncio.sleep(0.02)
            last: float = line.recv()
            while any(self._rev(job_id) < rev for job_id, rev in wanted.items()):
                await asyncio.sleep(0.02)
            await self._all_have_taken()
            cpu_s, late_s = time.process_time() - began, time.monotonic() - last
        return _Told(jobs * reports, self._taken - taken, cpu_s, late_s)

    def _rev(self, job_id: str) -> int:
        job = self._here.hub._seen[job_id].job
        assert job is not None
        return job.rev

    async def leave(self) -> None:
        """Nobody watches any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for watcher in self._watchers:
            watcher.__exit__(None, None, None)


async def _hub() -> list[Finding]:
    with fresh_store() as url:
        kept = [_kept(url)]
        works = begun_beside(url, JOBS)
        kept.append(_kept(url))
        async with place(url) as here:
            audience = _Audience(url, here, works)
            held = [memory_bytes(os.getpid())]
            entered_s = await audience.enter(1)
            held.append(memory_bytes(os.getpid()))
            kept.append(_kept(url))
            await audience.listen()
            calm = await audience.told(CALM, CALM_S)
            held.append(memory_bytes(os.getpid()))
            joined_s = await audience.enter(EACH - 1)
            held.append(memory_bytes(os.getpid()))
            await audience.listen()
            held.append(memory_bytes(os.getpid()))
            busy = await audience.told(BUSY, BUSY_S)
            flood = await audience.told(FLOODED, 0, reports=FLOODS)
            await audience.leave()
    assert (calm.taken, busy.taken) == (CALM, BUSY * EACH)
    return [
        _memory(held, entered_s, joined_s),
        _kept_each(kept),
        _processor(calm, busy),
        _capacity(calm, busy, flood),
    ]


def _kept(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        found: dict[str, Any] = client.info("memory")
    return int(found["used_memory"])


def _kept_each(kept: Sequence[int]) -> Finding:
    return Finding(
        "scale-store-memory",
        "Memory of the store",
        unit="KiB",
        better=None,
        rows=[
            Row("a running job", (kept[1] - kept[0]) / JOBS / 1024),
            Row("a process that watches it", (kept[2] - kept[1]) / JOBS / 1024),
        ],
        words=f"Of {JOBS:,} small jobs, without log, result or checkpoint, and one process.",
    )


def _memory(held: Sequence[int], entered_s: float, joined_s: float) -> Finding:
    watchers = JOBS * (EACH - 1)
    watcher = (held[3] - held[2]) / watchers / 1024
    return Finding(
        "scale-memory",
        "Memory of the hub",
        unit="KiB",
        better=None,
        rows=[
            Row("a job that is watched", (held[1] - held[0]) / JOBS / 1024 - watcher),
            Row("a watcher of it", watcher),
            Row("the coroutine that waits for it", (held[4] - held[3]) / watchers / 1024),
        ],
        words=(
            f"{JOBS * EACH:,} virtual watchers of {JOBS:,} jobs in one process: each a coroutine "
            "that waits as a stream does, and sends nothing; a stream of a server holds more. "
            f"{JOBS:,} jobs were subscribed to and read in {entered_s:.1f} s; {watchers:,} more "
            f"watchers of them joined in {joined_s:.1f} s."
        ),
    )


def _per_watcher_us(calm: _Told, busy: _Told) -> float:
    return (busy.each_us - calm.each_us) / (EACH - 1)


def _processor(calm: _Told, busy: _Told) -> Finding:
    watcher = _per_watcher_us(calm, busy)
    return Finding(
        "scale-processor",
        "Processor time of the hub",
        unit="µs",
        better=None,
        rows=[
            Row("an announcement that is heard", calm.each_us - watcher),
            Row("each watcher that is told of it", watcher),
        ],
        words=(
            f"Another process lets the jobs report: {1 / CALM_S:,.0f} a second with one watcher "
            f"each, {1 / BUSY_S:,.0f} a second with {EACH}. Two such figures make these two. What "
            "it takes to send something to a browser comes on top: see the streams."
        ),
    )


def _capacity(calm: _Told, busy: _Told, flood: _Told) -> Finding:
    return Finding(
        "scale-capacity",
        "What one process can tell",
        unit="a second",
        better=None,
        rows=[
            Row("announcements, one watcher each", 1e6 / calm.each_us),
            Row(f"announcements, {EACH} watchers each", 1e6 / busy.each_us),
            Row(f"watchers told, {EACH} of each job", EACH * 1e6 / busy.each_us),
        ],
        words=(
            "By processor time: if the process has a processor to itself and does nothing else. A "
            "job that reports once a second is one announcement a second, one that reports all the "
            f"time ten. More than that has to wait: when {FLOODED:,} jobs reported {FLOODS} times "
            f"each as fast as they could, {flood.taken:,} of {flood.announced * EACH:,} changes "
            "were taken, the others were over before their watchers came to them; all had the "
            f"last state {flood.late_s:.1f} s after the last report."
        ),
    )


# ── one store, many processes that hear ───────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Cost:
    """What a store did."""

    cpu_us: float
    scripts: float
    received: float
    sent: float


class _Meter:
    """Looks at what a store has done since it was made."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._before = self._now()

    def cost(self) -> _Cost:
        """Since then."""
        now, before = self._now(), self._before
        return _Cost(*(after - since for after, since in zip(now, before, strict=True)))

    def _now(self) -> tuple[float, float, float, float]:
        found: dict[str, Any] = {**self._client.info(), **self._client.info("commandstats")}
        cpu_us = (found["used_cpu_user"] + found["used_cpu_sys"]) * 1e6
        scripts = found["cmdstat_evalsha"]["calls"]
        return cpu_us, scripts, found["total_net_input_bytes"], found["total_net_output_bytes"]


def _fan_out() -> list[Finding]:
    with fresh_store() as url, redis.Redis.from_url(url) as client:
        works = begun_beside(url, HEARD)
        store = ThreadStore(url, KEYS, "bench")
        taken: dict[int, list[_Cost]] = {many: [] for many in (0, *SUBSCRIBERS)}
        for _ in range(TURNS):
            for many, costs in taken.items():
                with hearing(url, works, many):
                    costs.append(_writing(client, store, works))
        store.close()
    cpu = {many: statistics.median(one.cpu_us for one in costs) for many, costs in taken.items()}
    sent = {many: statistics.median(one.sent for one in costs) for many, costs in taken.items()}
    received = statistics.median(one.received for one in taken[0])
    by_process = statistics.linear_regression(list(cpu), list(cpu.values())).slope
    bytes_each = statistics.linear_regression(list(sent), list(sent.values())).slope
    return [
        Finding(
            "scale-writes",
            "What a report costs the store",
            unit="µs",
            better=None,
            rows=[
                Row(
                    "a report that nobody hears",
                    cpu[0] / WRITES,
                    f"{received / WRITES:.0f} bytes in",
                ),
                Row(
                    "each process that hears it",
                    by_process / WRITES,
                    f"{bytes_each / WRITES:.0f} bytes out",
                ),
            ],
            words=(
                f"Processor time of the embedded Valkey, its log on disk included, while {HEARD} "
                f"jobs report {WRITES:,} times, {PIPELINE} in a pipeline. It is one command that "
                "renews the lease, writes the progress and announces it. A server runs its scripts "
                "in one thread: one processor is all that a node can use for them."
            ),
        ),
        Finding(
            "scale-fanout",
            "Processes that hear of a job",
            plot=Plot(
                "A report, by the processes that subscribe to its job",
                "subscribed connections",
                "of each report",
                {
                    "µs of the store's processor": [(m, cpu[m] / WRITES) for m in SUBSCRIBERS],
                    "KiB sent": [(m, sent[m] / WRITES / 1024) for m in SUBSCRIBERS],
                },
            ),
            words=(
                "Connections that subscribe as an ear does, and drop what they hear. A process "
                "subscribes once, whatever the number of its watchers, and only to what they watch."
            ),
        ),
    ]


def _writing(client: redis.Redis, store: ThreadStore, works: Sequence[Work]) -> _Cost:
    meter = _Meter(client)
    for n in range(0, WRITES, PIPELINE):
        at = n % len(works)
        say(store, works[at : at + PIPELINE])
    while any(int(one["omem"]) for one in client.client_list(_type="pubsub")):
        time.sleep(0.01)
    return meter.cost()


# ── partitions over nodes ─────────────────────────────────────────────────────────────────────


@contextmanager
def _one() -> Iterator[tuple[str, list[Node]]]:
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as folder:
        node = Node(Path(folder, "node"), *STORE)
        try:
            yield f"redis://{node.name}", [node]
        finally:
            node.kill()


@contextmanager
def _several() -> Iterator[tuple[str, list[Node]]]:
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as folder, ExitStack() as stack:
        nodes: list[Node] = []
        for n in range(NODES):
            bus = free_port()
            words = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            node = Node(Path(folder, str(n)), *STORE, *words)
            stack.callback(node.kill)
            start, end = SLOTS * n // NODES, SLOTS * (n + 1) // NODES - 1
            node.say("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            node.say("CLUSTER", "ADDSLOTSRANGE", start, end)
            if nodes:
                nodes[0].say("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
            nodes.append(node)
        wait_until("the cluster is well", lambda: all(map(_well, nodes)))
        yield f"redis+cluster://{','.join(node.name for node in nodes)}", nodes


def _well(node: Node) -> bool:
    said = node.say("CLUSTER INFO")
    return bool(said["cluster_state"] == "ok" and said["cluster_known_nodes"] == str(NODES))


@dataclass(frozen=True)
class _Load:
    """What each node did.

    Args:
        commands: of a process at rest, a second, of all nodes together.
        look_us: what all nodes together need for one look of a watchdog.
        connections: of one process, at each node.
        costs: of the same reports.
    """

    commands: float
    look_us: float
    connections: list[int]
    costs: list[_Cost]


async def _loaded(url: str, nodes: list[Node]) -> _Load:
    headway = Headway(url, secret=SECRET, identify=lambda _: "ann", drain_s=0, concurrency=200)

    @headway.task
    async def work(progress: Progress) -> None:
        while True:
            progress.advance()
            await asyncio.sleep(0.2)

    async with headway:
        await asyncio.sleep(1)
        with ExitStack() as stack:
            asked = [stack.enter_context(Asked(f"redis://{node.name}")) for node in nodes]
            await asyncio.sleep(IDLE_S)
        for _ in range(100):  # so many that each node has some
            await work.using(owner=None).start()
        await asyncio.sleep(1)
        connections = [len(node.say("CLIENT LIST")) - 1 for node in nodes]
    idle = sum(one.commands.total() for one in asked) / IDLE_S
    return _Load(idle, await _look_us(url, nodes), connections, await _spread(url, nodes))


async def _look_us(url: str, nodes: list[Node]) -> float:
    async with place(url) as here:
        with _meters(nodes) as meters:
            for _ in range(LOOKS):
                await here.store.due(["work"], 100, orphans=False)
            return sum(meter.cost().cpu_us for meter in meters) / LOOKS


@contextmanager
def _meters(nodes: list[Node]) -> Iterator[list[_Meter]]:
    with ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis(port=node.port)) for node in nodes]
        yield [_Meter(client) for client in clients]


async def _spread(url: str, nodes: list[Node]) -> list[_Cost]:
    async with place(url) as here:
        jobs = await here.jobs(SPREAD)
        with here.hub.watcher([job.id for job in jobs]) as watching:
            while len(watching._changed) < SPREAD:
                await asyncio.sleep(0.01)
            store = ThreadStore(url, KEYS, "bench")
            works = [(job.id, job.attempt) for job in jobs]
            say(store, works)
            with _meters(nodes) as meters:
                for _ in range(REPORTS):
                    await asyncio.to_thread(say, store, works)
                costs = [meter.cost() for meter in meters]
            store.close()
    return costs


def _node_of(key: str, nodes: int) -> int:
    """The node that serves the key, if each has as many slots, in order."""
    slot = key_slot(key.encode())
    return next(n for n in range(nodes) if slot < SLOTS * (n + 1) // nodes)


async def _cluster() -> list[Finding]:
    with _one() as (url, nodes):
        alone = await _loaded(url, nodes)
    with _several() as (url, nodes):
        several = await _loaded(url, nodes)
    writes = SPREAD * REPORTS
    return [
        Finding(
            "scale-cluster",
            f"The same load on {NODES} nodes",
            unit="ms of processor",
            better=None,
            base="one server",
            rows=[
                Row("one server", alone.costs[0].cpu_us / 1000),
                *(
                    Row(
                        f"node {n + 1} of {NODES}",
                        cost.cpu_us / 1000,
                        f"{cost.scripts / writes:.0%} of the commands",
                    )
                    for n, cost in enumerate(several.costs)
                ),
            ],
            words=(
                f"{SPREAD} jobs, {writes:,} reports, each heard by one process; the servers are "
                "started alike, and keep nothing on disk. Each job's keys are in one of "
                f"{PARTITIONS} partitions, and so on one node."
            ),
        ),
        Finding(
            "scale-idle",
            "One process at rest",
            unit="commands a second",
            better=None,
            base="one server",
            rows=[
                Row(
                    name,
                    load.commands,
                    f"{load.look_us:.0f} µs of all servers for each look; "
                    f"{max(load.connections)} connections to a server, once jobs run",
                )
                for name, load in (("one server", alone), (f"{NODES} nodes", several))
            ],
            words=(
                "The watchdog asks each partition about every two seconds: in one command where "
                f"one server has them all, in {PARTITIONS} in a cluster, as no script may reach "
                "over its slot there."
            ),
        ),
    ]


def _fleets() -> Finding:
    most = {}
    for nodes in FLEETS:
        held = Counter(_node_of(KEYS.leases(p), nodes) for p in KEYS.all_partitions())
        most[nodes] = max(held.values())
    return Finding(
        "scale-nodes",
        "Partitions by node",
        unit="% of the load",
        better=None,
        rows=[
            Row(
                f"the fullest of {nodes} nodes",
                100 * held / PARTITIONS,
                f"{held} of {PARTITIONS} partitions; an even share is {100 / nodes:.0f} %",
            )
            for nodes, held in most.items()
        ],
        words=(
            "Counted and not measured: which partitions a node has, if each has as many slots. "
            "Slots can be moved to even it out."
        ),
    )
