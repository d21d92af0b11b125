"""What jobs cost the store, by its own count: to accept one, its life, a second of it, a watcher.

Nothing is timed here. What an idle worker asks of the store by itself is taken off.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import redis

from bench.measure import Budget, Finding, Plot, Row
from bench.peers.contract import RAN, Peer
from bench.peers.docket import DocketPeer
from bench.peers.headway import HeadwayPeer
from bench.peers.saq import SaqPeer
from bench.peers.streaq import StreaqPeer
from bench.peers.taskiq import TaskiqPeer
from bench.store import Asked, free_port, fresh_store
from headway import Headway, Progress

WARM: Final = 20
JOBS: Final = 60
EACH_S: Final = 0.01  # from one job to the next
AT_ONCE: Final = 50
LAST_S: Final = 0.2  # what a worker may still have to say of a job whose code has run
IDLE_S: Final = 0.8
RUN_S: Final = 1.5
REPORT_S: Final = 0.001  # 1,000 reports a second
SHOWN_S: Final = 0.1  # what is watched reports ten times a second: a page shows no more
WATCHERS: Final = (1, 7, 50)
SETTLE_S: Final = 0.2
JOIN_S: Final = 0.01  # for each watcher
LOOK_S: Final = 0.6
DEADLINE_S: Final = 20.0
FLOOD_S: Final = 1.8
ROOM: Final = 1.1  # what is measured begins and ends somewhere: it may be cut one write too late

NOBODYS: Final = "Headway, a job without an owner"
REMOTE: Final = "Headway, a worker behind taskiq"
TRIPS: Final = (
    "Counted by the store: a round trip is one reading from a client (`total_reads_processed`), so "
    "a pipeline is one, whatever is in it; commands are what `MONITOR` shows, without those inside "
    "of scripts."
)


class Load(NamedTuple):
    """What was asked of the store."""

    trips: float = 0.0
    commands: float = 0.0
    bytes: float = 0.0

    def beyond(self, other: Load, times: float = 1.0) -> Load:
        """Without so many times the other."""
        return Load(*(max(a - b * times, 0.0) for a, b in zip(self, other, strict=True)))

    def each(self, count: float) -> Load:
        """One of so many."""
        return Load(*(one / count for one in self))


NOTHING: Final = Load()


@dataclass
class Seen:
    """What one contender asked of the store."""

    life: Load = NOTHING
    burst: Load = NOTHING
    second: Load = NOTHING
    reports: float = 0.0
    watched: dict[int, Load] = field(default_factory=dict)
    """By the number of watchers; a second."""
    connections: dict[int, int] = field(default_factory=dict)
    """Of the whole process, by the number of watchers."""


def measure() -> list[Finding]:
    """See `bench`."""
    peers: list[Peer] = [HeadwayPeer(), DocketPeer(), TaskiqPeer(), StreaqPeer(), SaqPeer()]
    port = free_port()
    with fresh_store(port=port):
        url = f"redis://127.0.0.1:{port}/0"
        accepted = {peer.name: asyncio.run(_accepting(peer, url)) for peer in peers}
        seen = {peer.name: asyncio.run(_seen(peer, url)) for peer in peers}
        lives = {name: one.life for name, one in seen.items()} | {
            NOBODYS: asyncio.run(_other_life(HeadwayPeer(owner=None), url)),
            REMOTE: asyncio.run(_other_life(HeadwayPeer(remote=True), url)),
        }
        flood = asyncio.run(_flood(url))
    return [
        _accepting_found(accepted),
        _life_found(lives, {name: one.burst for name, one in seen.items()}),
        _second_found(seen, flood),
        _watchers_found(seen),
        _connections_found(seen),
    ]


# ── what is done ──────────────────────────────────────────────────────────────────────────────


async def _load(url: str, act: Awaitable[object]) -> tuple[Load, float]:
    """What was asked of the store meanwhile, and how many seconds it took."""
    with Asked(url) as asked:
        began = time.monotonic()
        await act
        seconds = time.monotonic() - began
    return Load(asked.trips, asked.commands.total(), asked.bytes), seconds


async def _idle(url: str) -> Load:
    """A second in which nothing is done."""
    load, seconds = await _load(url, asyncio.sleep(IDLE_S))
    return load.each(seconds)


async def _accepting(peer: Peer, url: str) -> Load:
    """One job, until `start()` returns; what comes after that is not in it."""
    if isinstance(peer, HeadwayPeer):
        # It works where it accepts: so its only place is taken, and what is accepted waits.
        peer = HeadwayPeer(concurrency=1)
    async with peer.opened(url, works=isinstance(peer, HeadwayPeer)):
        if isinstance(peer, HeadwayPeer):
            await peer.start_long(DEADLINE_S, DEADLINE_S)
        await _started(peer, WARM)
        load, _ = await _load(url, _started(peer, JOBS))
    return load.each(JOBS)


async def _started(peer: Peer, jobs: int) -> None:
    for _ in range(jobs):
        await peer.start()


async def _seen(peer: Peer, url: str) -> Seen:
    seen = Seen()
    with redis.Redis.from_url(url) as store:
        store.flushdb()  # what was accepted above, and nobody has run
        before = _clients(store)
        async with peer.opened(url, works=True):
            await _lives(peer)
            idle = await _idle(url)
            seen.life = await _life(url, idle, _lives(peer, JOBS), JOBS)
            seen.second, seen.reports = await _second(peer, url, idle)
            await _watch(peer, url, seen, lambda: _clients(store) - before)
            # The last, as it fills their pools of connections.
            seen.burst = await _life(url, idle, _together(peer, AT_ONCE), AT_ONCE)
    return seen


async def _life(url: str, idle: Load, lives: Awaitable[None], jobs: int) -> Load:
    """One of so many jobs."""
    load, seconds = await _load(url, lives)
    return load.beyond(idle, seconds).each(jobs)


async def _lives(peer: Peer, jobs: int = WARM) -> None:
    until = RAN.jobs + jobs
    for _ in range(jobs):
        await peer.start()
        await asyncio.sleep(EACH_S)
    await _ran(until)


async def _together(peer: Peer, jobs: int) -> None:
    until = RAN.jobs + jobs
    await asyncio.gather(*(peer.start() for _ in range(jobs)))
    await _ran(until)


async def _ran(jobs: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while RAN.jobs < jobs:
            await asyncio.sleep(EACH_S)
    await asyncio.sleep(LAST_S)


async def _second(peer: Peer, url: str, idle: Load) -> tuple[Load, float]:
    """A second of a job that reports as fast as it was told to; and how often it did."""
    before = RAN.reports
    await peer.start_long(RUN_S + 2 * SETTLE_S, REPORT_S)
    await asyncio.sleep(SETTLE_S)
    reported = RAN.reports
    load, seconds = await _load(url, asyncio.sleep(RUN_S))
    reports = (RAN.reports - reported) / seconds
    await asyncio.sleep(2 * SETTLE_S if RAN.reports > before else SETTLE_S)
    return load.each(seconds).beyond(idle), reports


async def _watch(peer: Peer, url: str, seen: Seen, connections: Callable[[], int]) -> None:
    steps = 1 + len(WATCHERS)
    seconds = steps * SETTLE_S + WATCHERS[-1] * JOIN_S + 2 * LOOK_S
    job = await peer.start_long(seconds + 0.6, SHOWN_S)
    watching: list[asyncio.Task[None]] = []
    for count in (0, *WATCHERS):
        new = range(len(watching), count)
        watching += [asyncio.create_task(peer.watch(job), name=f"watcher-{n}") for n in new]
        await asyncio.sleep(SETTLE_S + JOIN_S * len(new))
        if count in {0, WATCHERS[-1]}:
            load, seconds = await _load(url, asyncio.sleep(LOOK_S))
            seen.watched[count] = load.each(seconds)
        seen.connections[count] = connections()
    async with asyncio.timeout(DEADLINE_S):  # each of them sees the end
        await asyncio.gather(*watching)


def _clients(store: redis.Redis) -> int:
    clients: dict[str, Any] = store.info("clients")
    return int(clients["connected_clients"])


# ── what only Headway does ────────────────────────────────────────────────────────────────────


async def _other_life(peer: Peer, url: str) -> Load:
    """The life of a job that is started in another way. A worker is in this process, too."""
    async with peer.opened(url, works=True):
        await _lives(peer)
        idle = await _idle(url)
        return await _life(url, idle, _lives(peer, JOBS), JOBS)


async def _flood(url: str) -> dict[int, tuple[Load, float]]:
    """By the number of jobs that count as fast as they can: a second of all, millions of items."""
    headway = Headway(url)
    task = headway.task(_count)
    found = {}
    async with headway:
        await asyncio.sleep(LAST_S)
        idle = await _idle(url)
        for jobs in (1, 4):
            _enough.clear()
            started = [await task.using(owner="ann").start() for _ in range(jobs)]
            await asyncio.sleep(2 * SETTLE_S)
            load, seconds = await _load(url, asyncio.sleep(FLOOD_S))
            _enough.set()
            per_s = 0.0
            for job in started:
                async for last in headway.watch(job.id):
                    per_s += last.result or 0.0
            found[jobs] = load.each(seconds).beyond(idle), per_s / 1e6
    return found


_enough = threading.Event()


def _count(progress: Progress) -> float:
    """Count until it is enough; how many a second that were."""
    began, number = time.monotonic(), 0
    for number in progress.track(itertools.count(1)):
        if number % 1_000 == 0 and _enough.is_set():
            break
    return number / (time.monotonic() - began)


# ── what is told of it ────────────────────────────────────────────────────────────────────────


def _accepting_found(accepted: Mapping[str, Load]) -> Finding:
    ours = accepted["Headway"].trips
    return Finding(
        slug="commands-accept",
        title="What the store is asked to accept a job",
        unit="round trips",
        rows=[Row(name, load.trips, _said(load)) for name, load in accepted.items()],
        words=(
            f"{JOBS} jobs, one after another, that nobody begins to run. {TRIPS} A job of "
            "Headway's has an owner, in whose list it is to be found: two commands more."
        ),
        budgets=[Budget("accept a job: 1 round trip", f"{ours:.2f}", ours <= ROOM)],
    )


def _life_found(lives: Mapping[str, Load], bursts: Mapping[str, Load]) -> Finding:
    ours, nobodys = lives["Headway"].trips, lives[NOBODYS].trips
    return Finding(
        slug="commands-life",
        title="What the store is asked in the whole life of a job that does nothing",
        unit="round trips",
        rows=[
            Row(name, load.trips, f"{_said(load)}{_at_once(bursts.get(name))}")
            for name, load in lives.items()
        ],
        words=(
            f"{JOBS} jobs, one each {EACH_S * 1000:g} ms, accepted, run and ended in one process, "
            "with each library's defaults; nobody waits for their results. Here a job of Headway's "
            "has an owner, as one that a web request has started does; the others know none. "
            "Behind taskiq it takes its way through a stream of Redis as well, one message at a "
            "time: that costs more than all that Headway asks itself."
        ),
        budgets=[
            Budget(
                "whole life of a no-op job: ≤ 3 round trips",
                f"{ours:.2f}, without an owner {nobodys:.2f}",
                max(ours, nobodys) <= 3 * ROOM,
                "What is kept beside a job for its owner goes alone: its list is repaired after "
                "the claim, and its place among the living is given back after the end.",
            )
        ],
    )


def _at_once(load: Load | None) -> str:
    return f"; {load.trips:.2g} round trips if {AT_ONCE} come at once" if load else ""


def _second_found(seen: Mapping[str, Seen], flood: Mapping[int, tuple[Load, float]]) -> Finding:
    (one, fast), (four, _) = flood[1], flood[4]
    most = max(one.trips, one.commands, four.trips, four.commands / 4)
    holds = most <= 10 * ROOM and fast >= 1.0
    return Finding(
        slug="commands-running",
        title=f"What the store is asked while a job reports {1 / REPORT_S:,.0f} times a second",
        unit="round trips a second",
        rows=[
            Row(name, one.second.trips, f"{_said(one.second)}; {_reported(one.reports)}")
            for name, one in seen.items()
        ],
        words=(
            "Each by its own way to report: `progress.track()`, docket's `increment()`, taskiq's "
            "`set_progress()`, SAQ's `job.update()`. The others write at each call, Headway ten "
            "times a second; what cannot keep up reports less often. streaQ has no progress: its "
            "row is a job that only lives. A job of Headway's that counts "
            f"{fast:.1f} million items a second in a thread asks {one.trips:.1f} round trips a "
            f"second; four such jobs in one process {four.trips:.1f} together, with "
            f"{four.commands:.1f} commands."
        ),
        budgets=[
            Budget(
                "writes while reporting a million items a second: ≤ 10 a second per job, one "
                "pipeline per process",
                f"{one.commands:.1f} a second; four jobs: {four.commands / 4:.1f} each, in "
                f"{four.trips:.1f} pipelines",
                holds,
            )
        ],
    )


def _reported(reports: float) -> str:
    return f"{reports:,.0f} reports" if reports else "no reports"


def _watchers_found(seen: Mapping[str, Seen]) -> Finding:
    most = WATCHERS[-1]
    loads = {name: one.watched[most].beyond(one.watched[0]) for name, one in seen.items()}
    return Finding(
        slug="commands-watchers",
        title=f"What {most} watchers of one job in one process cost the store",
        unit="kB a second",
        rows=[
            Row(name, load.bytes / 1000, f"{load.trips:.0f} round trips a second")
            for name, load in loads.items()
        ],
        words=(
            f"The job reports {1 / SHOWN_S:g} times a second; what it costs without watchers is "
            "taken off. Who watches: `headway.watch()`; docket's `subscribe()`; SAQ's "
            "`queue.listen()`, and a read of the job at each message, which does not say what has "
            "changed; for taskiq, which has nothing to listen to, `is_ready()` and "
            "`get_progress()` each 0.2 s, its own interval; for streaQ `task.result()`, which "
            "shows nothing but the end."
        ),
    )


def _connections_found(seen: Mapping[str, Seen]) -> Finding:
    few, most = WATCHERS[0], WATCHERS[-1]
    ours = seen["Headway"].connections
    return Finding(
        slug="commands-connections",
        title=f"Connections to the store, with {most} watchers in one process",
        unit="connections",
        rows=[Row(name, one.connections[most]) for name, one in seen.items()],
        words=(
            "All of a process in which a job runs and is watched. Headway has one to ask with, one "
            "to listen with, and one of the thread that renews leases."
        ),
        budgets=[
            Budget(
                "store connections per web process: ≤ 3, whatever the number of watchers",
                f"{ours[few]} for {few} watcher, {ours[most]} for {most}",
                ours[most] <= 3,
            )
        ],
        plot=Plot(
            title="Connections of a process in which a job runs and is watched",
            x="watchers",
            y="connections to the store",
            lines={
                name: [(float(n), float(one.connections[n])) for n in WATCHERS]
                for name, one in seen.items()
            },
        ),
    )


def _said(load: Load) -> str:
    return f"{load.commands:.3g} commands, {load.bytes / 1000:.3g} kB"
