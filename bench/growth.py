"""Growth: what becomes of each cost when there is ten and a hundred times as much of something."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from itertools import count
from typing import Any, Final

import httpx
import redis

from bench.hub import LEASE_S, Place, at_a_time, begun, ended, place
from bench.measure import Budget, Finding, Plot, Row, exponent, percentile
from bench.store import fresh_store
from headway import Headway, Progress
from headway._link import Link
from headway.acts import ThreadStore
from headway.job import PARTITIONS, Job
from headway.store import Store
from headway.stream import HEARTBEAT_S
from headway.watch import Watcher
from headway.watchdog import SWEEP_LIMIT

STORED: Final = (500, 5_000, 50_000)
RUNNING: Final = (10, 100, 1_000)
WATCHERS: Final = (10, 100, 1_000, 10_000)
WATCHED: Final = (1, 10, 100, 1_000)
SPREAD: Final = (6, 64, 640)  # partitions
ROUNDS: Final = 40
BEATING: Final = 10  # jobs of one round of beats
SWEPT: Final = 64
LOOKED_UP: Final = 20
LEAST_MS: Final = 0.01  # of a difference: the axes are logarithmic
TOLD_APART: Final = 100  # what fewer jobs report is lost in the noise of their leases
REPORT_S: Final = 5.0
WINDOW_S: Final = 6.2  # a silent job renews its lease twice in this time
LINEAR: Final = 1.1
FLAT: Final = 0.1
STORED_SLUG: Final = "growth-stored"
BOUNDED: Final = "overview"  # it grows up to some size, and is neither a lookup nor a beat
SECRET: Final = "a secret that guards nothing but this measurement"

Timed = Callable[[], Awaitable[float]]
"""Does something, and tells how many milliseconds of it count."""


def measure() -> list[Finding]:
    """Each size is a hundred times the smallest one, and one in between."""
    return asyncio.run(_measure())


async def _measure() -> list[Finding]:
    found = [await _stored(), *await _running(), *await _watching(), await _partitions()]
    return [_powers(found), *found]


def _powers(found: Iterable[Finding]) -> Finding:
    lines = [(one, name) for one in found if one.plot for name in one.plot.lines]
    powers = {
        f"{one.title}: {name}": round(exponent(one.plot.lines[name]), 2) or 0.0
        for one, name in lines
        if one.plot
    }
    flat = {
        name: powers[f"{one.title}: {name}"]
        for one, name in lines
        if one.slug == STORED_SLUG and name != BOUNDED
    }
    steepest = max(powers, key=lambda name: powers[name])
    least = max(flat, key=lambda name: abs(flat[name]))
    return Finding(
        "growth",
        "Growth",
        unit="power",
        better=None,
        rows=[Row(name, power) for name, power in powers.items()],
        words=(
            "By which power each cost below grows: 0 is flat, 1 is linear. It is the slope of a "
            "straight line through the points, so one that is flat first and linear then lies "
            "between; the plots show which. Sizes take turns; a time is one that a quarter of the "
            "turns do not exceed, as what disturbs the machine only ever adds to it."
        ),
        budgets=[
            Budget(
                "nothing grows worse than linear",
                f"at most the power {powers[steepest]:.2f}: {steepest}",
                powers[steepest] <= LINEAR,
            ),
            Budget(
                "lookups and beats stay flat with the number of stored records",
                f"at most the power {flat[least]:.2f}: {least}",
                abs(flat[least]) <= FLAT,
            ),
        ],
    )


async def _in_turns(acts: Mapping[int, Timed], rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """A fast time of each size, the sizes in turns: one that a quarter of the turns do not exceed.

    What disturbs the machine only ever adds to it, and is not what grows.
    """
    taken: dict[int, list[float]] = {size: [] for size in acts}
    for _ in range(rounds):
        for size, act in acts.items():
            taken[size].append(await act())
    return [(size, percentile(times, 25)) for size, times in taken.items()]


def _timed(act: Callable[[], Awaitable[object]]) -> Timed:
    async def timed() -> float:
        began = time.perf_counter()
        await act()
        return (time.perf_counter() - began) * 1000

    return timed


# ── jobs in the store ─────────────────────────────────────────────────────────────────────────


async def _stored() -> Finding:
    async with AsyncExitStack() as stack:
        filled = {
            size: await stack.enter_async_context(_filled(stack.enter_context(fresh_store()), size))
            for size in STORED
        }
        names = next(iter(filled.values()))
        lines = {
            name: await _in_turns({size: acts[name] for size, acts in filled.items()})
            for name in names
        }
    return Finding(
        STORED_SLUG,
        "Jobs in the store",
        plot=Plot("Acts, by the ended jobs in the store", "ended jobs", "ms", lines),
        words=(
            f"Three stores at a time, filled by Headway's own scripts, all jobs of one owner. "
            f"`get()`: {LOOKED_UP} jobs, one after another; `list()` asks for the newest 50; "
            f"beats: a round for {BEATING} running jobs in one pipeline; sweep: removing {SWEPT} "
            "jobs whose time is over. The overview is the operators' whole page by HTTP, in this "
            "process. It looks at 50 ended jobs of each of the 64 partitions at most, so most of "
            "its growth is over with some 3,200 jobs. What else grows a little does so because a "
            "store of more records finds less of them in the processor's caches."
        ),
    )


@asynccontextmanager
async def _filled(url: str, size: int) -> AsyncIterator[dict[str, Timed]]:
    """What can be timed at a store with so many ended jobs."""
    headway = Headway(url, secret=SECRET, identify=lambda _: "ann", operator=lambda _: True)

    @headway.task
    async def nothing(progress: Progress) -> None: ...

    async def life() -> None:
        job = await nothing.using(owner="ann").start()
        async for _ in headway.watch(job.id):
            pass

    visitor = httpx.ASGITransport(headway.asgi)
    async with (
        httpx.AsyncClient(transport=visitor, headers={"Accept": "text/html"}) as client,
        headway,
    ):
        runtime = headway.runtime("measure")
        store = runtime.store
        await at_a_time(size, lambda: ended(store))
        await _settled(url)
        some = [job.id for job in (await headway.list(owner="ann"))[:LOOKED_UP]]

        async def get() -> None:
            for job_id in some:
                await headway.get(job_id)

        async def page() -> None:
            answer = await client.get("http://here/overview")
            assert answer.text.count("<tr id=") == 50, answer.text[:500]

        with closing(ThreadStore(url, store.keys, store.worker)) as thread:
            yield {
                "get()": _timed(get),
                "start() to end": _timed(life),
                "list()": _timed(lambda: headway.list(owner="ann")),
                "beats": await _beats(thread, store),
                "watchdog look": _timed(runtime.watchdog.look),
                "sweep": _sweep(runtime.link, store),
                "overview": _timed(page),
            }


async def _beats(thread: ThreadStore, store: Store) -> Timed:
    jobs, steps = [await begun(store) for _ in range(BEATING)], count()

    async def beat() -> None:  # in the loop's thread, as nothing else is to run meanwhile
        said = f'{{"done":{next(steps)},"total":1000000}}'
        calls = [thread.beat_call(j.id, j.attempt, LEASE_S, progress=said) for j in jobs]
        assert thread.send(calls) == ["ok"] * BEATING

    return _timed(beat)


def _sweep(link: Link, store: Store) -> Timed:
    hasty = Store(link, store.keys, store.worker, keep_s=0.001)
    sweep = _timed(lambda: store.sweep(SWEEP_LIMIT))

    async def swept() -> float:
        await at_a_time(SWEPT, lambda: ended(hasty))
        await asyncio.sleep(0.01)
        return await sweep()

    return swept


async def _settled(url: str) -> None:
    """Until the store has rewritten its file, which growing has made it begin."""
    with redis.Redis.from_url(url) as client:
        while client.info("persistence")["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.05)


# ── running jobs ──────────────────────────────────────────────────────────────────────────────


class _Crew:
    """Jobs that run in one process, and report now and then or not at all."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.headway = Headway(
            url, secret=SECRET, identify=lambda _: "ann", drain_s=0, concurrency=2 * max(RUNNING)
        )
        self._client = client
        self._reports = False
        self._numbers = count()

        @self.headway.task
        async def work(progress: Progress, number: int) -> None:
            await asyncio.sleep(number * 0.618 % 1 * REPORT_S)  # they do not report in step
            while True:
                if self._reports:
                    progress.advance()
                await asyncio.sleep(REPORT_S)

        self._work = work.using(owner=None)

    async def grow(self, size: int) -> None:
        """Until so many run."""
        runner = self.headway.runtime("measure").runner
        await at_a_time(size - len(runner.running), lambda: self._work.start(next(self._numbers)))
        while len(runner.running) < size:
            await asyncio.sleep(0.01)

    async def costs(self) -> dict[str, float]:
        """What a second costs: for the leases, and for the reports beside them."""
        self._reports = False
        leases = await self._cost()
        self._reports = True
        reports = await self._cost()
        self._reports = False
        return {
            "beat thread, for leases": leases["thread"],
            "beat thread, for reports": max(reports["thread"] - leases["thread"], LEAST_MS),
            "store, for both": reports["store"],
            "commands": reports["commands"],
            "KiB": reports["KiB"],
        }

    async def _cost(self) -> dict[str, float]:
        before, began = self._now(), time.monotonic()
        await asyncio.sleep(WINDOW_S)
        after, took = self._now(), time.monotonic() - began
        return {name: (after[name] - before[name]) / took for name in after}

    def _now(self) -> dict[str, float]:
        thread = self.headway.runtime("measure").pulse._thread.ident
        assert thread is not None
        found: dict[str, Any] = {**self._client.info(), **self._client.info("commandstats")}
        return {
            "thread": time.clock_gettime(time.pthread_getcpuclockid(thread)) * 1000,
            "store": (found["used_cpu_user"] + found["used_cpu_sys"]) * 1000,
            "commands": found["cmdstat_evalsha"]["calls"],
            "KiB": (found["total_net_input_bytes"] + found["total_net_output_bytes"]) / 1024,
        }


async def _running() -> list[Finding]:
    lines: dict[str, list[tuple[float, float]]] = {}
    with fresh_store() as url, redis.Redis.from_url(url) as client:
        crew = _Crew(url, client)
        async with crew.headway:
            for size in RUNNING:
                await crew.grow(size)
                for name, value in (await crew.costs()).items():
                    if size >= TOLD_APART or not name.endswith("reports"):
                        lines.setdefault(name, []).append((size, value))
    traffic = {name: lines.pop(name) for name in ("commands", "KiB")}
    most = max(RUNNING)
    thread = sum(dict(line)[most] for name, line in lines.items() if name.startswith("beat"))
    return [
        Finding(
            "growth-running",
            "Running jobs",
            plot=Plot(
                "Processor time, by the jobs that run in one process",
                "running jobs",
                "ms of a second",
                lines,
            ),
            words=(
                "The beat thread of one process, and its store. First the jobs are silent, and "
                f"only their leases are renewed; then each reports every {REPORT_S:g} s, and what "
                f"that costs beside the leases is told, from {TOLD_APART} jobs on: of fewer it is "
                f"lost in the noise. With {most:,} such jobs the thread takes {thread / 10:.0f} % "
                "of a processor; it shares the interpreter with the loop."
            ),
        ),
        Finding(
            "growth-traffic",
            "Traffic of running jobs",
            plot=Plot(
                "Between one process and its store, by the jobs that run there",
                "running jobs",
                "per second",
                traffic,
            ),
            words=(
                f"The jobs report every {REPORT_S:g} s. Commands are reports, leases, and the "
                "watchdog's looks; what is due at a moment shares a pipeline. KiB count both ways."
            ),
        ),
    ]


# ── watchers and what they watch ──────────────────────────────────────────────────────────────


async def _watching() -> list[Finding]:
    with fresh_store() as url:
        async with place(url) as here:
            crowds = {size: _Crowd(here, (await here.jobs(1))[0], size) for size in WATCHERS}
            told = await _in_turns({size: crowd.told for size, crowd in crowds.items()}, 3)
            readers = {size: _Reader(here, await here.jobs(size)) for size in WATCHED}
            takes = await _in_turns({size: reader.take for size, reader in readers.items()}, 9)
            known = await _in_turns({size: reader.known for size, reader in readers.items()}, 9)
    return [
        Finding(
            "growth-watchers",
            "Watchers of one job",
            plot=Plot(
                "One announcement, by the watchers of the job",
                "watchers in one process",
                "ms until the last one has it",
                {"told to all": told},
            ),
            words=(
                "From writing progress until the last watcher, each a coroutine that waits as a "
                "stream does, has taken it; nothing is sent to a browser."
            ),
        ),
        Finding(
            "growth-watched",
            "Jobs of one watcher",
            plot=Plot(
                "One watcher, by the jobs that it watches",
                "jobs",
                "ms",
                {"take()": takes, "until all are known": known},
            ),
            words=(
                "`take()` after each of the jobs has changed; and from entering the watcher until "
                "all of its jobs are subscribed to and read. A stream has 50 jobs at most, by "
                "default."
            ),
        ),
    ]


class _Crowd:
    """Many watchers of one job."""

    def __init__(self, place: Place, job: Job, size: int) -> None:
        self._place = place
        self._job = job
        self._size = size
        self._left = size
        self._all = asyncio.Event()

    async def told(self) -> float:
        """Milliseconds of one announcement: the middle one of some."""
        async with self._there():
            return statistics.median([await self._told() for _ in range(5)])

    @asynccontextmanager
    async def _there(self) -> AsyncIterator[None]:
        """They watch, and know the job."""
        self._left = self._size
        self._all.clear()
        tasks = [asyncio.create_task(self._watch()) for _ in range(self._size)]
        await self._all.wait()
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._place.quiet()

    async def _watch(self) -> None:
        with self._place.hub.watcher([self._job.id]) as watcher:
            while True:
                await watcher.wait(HEARTBEAT_S)
                if watcher.take():
                    self._left -= 1
                    if not self._left:
                        self._all.set()

    async def _told(self) -> float:
        self._left = self._size
        self._all.clear()
        began = time.perf_counter()
        await self._place.announce([self._job])
        await self._all.wait()
        return (time.perf_counter() - began) * 1000


class _Reader:
    """One watcher of many jobs."""

    def __init__(self, place: Place, jobs: list[Job]) -> None:
        self._place = place
        self._jobs = jobs
        self._ids = [job.id for job in jobs]

    async def take(self) -> float:
        """Milliseconds of one `take()`."""
        with self._place.hub.watcher(self._ids) as watcher:
            await self._all(watcher)
            watcher.take()
            await self._place.announce(self._jobs)
            await self._all(watcher)
            began = time.perf_counter()
            taken = watcher.take()
            took = time.perf_counter() - began
        assert len(taken) == len(self._jobs)
        await self._place.quiet()
        return took * 1000

    async def known(self) -> float:
        """Milliseconds until the state of all is known."""
        began = time.perf_counter()
        with self._place.hub.watcher(self._ids) as watcher:
            await self._all(watcher)
            took = time.perf_counter() - began
        await self._place.quiet()
        return took * 1000

    async def _all(self, watcher: Watcher) -> None:
        while len(watcher._changed) < len(self._jobs):
            await asyncio.sleep(0)


# ── partitions ────────────────────────────────────────────────────────────────────────────────


async def _partitions() -> Finding:
    with fresh_store() as url:
        async with AsyncExitStack() as stack:
            places = {n: await stack.enter_async_context(place(url, n)) for n in SPREAD}
            acts: dict[str, Callable[[Place], Timed]] = {
                "look for what is due": lambda p: _timed(
                    lambda: p.store.due(["work"], 100, orphans=False)
                ),
                "look for what is to be swept": lambda p: _timed(
                    lambda: p.store.sweep(SWEEP_LIMIT)
                ),
            }
            lines = {
                name: await _in_turns({n: act(one) for n, one in places.items()})
                for name, act in acts.items()
            }
        lines["subscribe"] = await _in_turns({n: _subscribing(url, n) for n in SPREAD}, 9)
    return Finding(
        "growth-partitions",
        "Partitions",
        plot=Plot(
            "What a process asks although nothing runs, by the partitions",
            "partitions",
            "ms",
            lines,
        ),
        words=(
            f"Headway has {PARTITIONS} partitions, and the two digits of a job's id leave room for "
            "256; that there could be 640 is only to show the slope. Each look is one command on "
            "one server, and one for each partition in a cluster."
        ),
    )


def _subscribing(url: str, partitions: int) -> Timed:
    async def subscribe() -> float:
        began = time.perf_counter()
        async with place(url, partitions):
            return (time.perf_counter() - began) * 1000

    return subscribe
