"""What things cost, in counts: so that nobody makes them dearer without noticing.

Round trips are what the server has read, `total_reads_processed` of `INFO stats`: a pipeline is one
read. Seconds are no matter of a test; `make bench` measures those.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import operator
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final

import pytest
import redis

from headway import Headway, Progress
from headway.pulse import FLUSH_S
from tests.conftest import MakeHeadway, OwnServer, Until, end_of

JOBS: Final = 100
IDLE_A_SECOND: Final = 4  # what a process asks beside its jobs: looks of the watchdog, pings


class Reads:
    """How often the server was written to while the block ran, and how long that took."""

    def __init__(self, server: OwnServer) -> None:
        self._client = redis.Redis.from_url(server.url, decode_responses=True)
        self._client.ping()
        self.count = 0
        self.seconds = 0.0

    @property
    def allowed(self) -> float:
        """What goes on beside: our own question among it."""
        return 2 + IDLE_A_SECOND * (1 + self.seconds)

    def __enter__(self) -> Reads:
        self._before, self._began = self._now(), time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.count = self._now() - self._before
        self._client.close()

    def _now(self) -> int:
        stats: dict[str, Any] = self._client.info("stats")
        return int(stats["total_reads_processed"])


@pytest.fixture
def headway(make_headway: MakeHeadway, own_server: OwnServer) -> Headway:
    """On a server that nobody else asks anything."""
    return make_headway(url=own_server.url)


class Nothing:
    """A task that does nothing but count how often it has run."""

    def __init__(self, headway: Headway) -> None:
        self._headway = headway
        self._times = 0
        self.task = headway.task(name="nothing")(self._run)

    async def _run(self) -> None:
        self._times += 1

    async def teach(self) -> None:
        """Run it once, so that the store knows the scripts."""
        await end_of(self._headway, await self.task.start())
        self._times = 0

    def over(self, times: int) -> bool:
        """Whether it has run so often, and the ends are written."""
        return self._times == times and not self._headway.runtime("test").runner.running


# ── the store ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("owner", [None, "ann"])
async def test_whole_life_of_a_job_is_three_round_trips(
    headway: Headway,
    own_server: OwnServer,
    until: Until,
    owner: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To accept it, to claim it, to end it; what is kept of its owner goes with these."""
    monkeypatch.setattr("headway._line.LATER_S", 60.0)  # a slow machine takes longer for a job
    nothing = Nothing(headway)

    async with headway:
        await nothing.teach()
        with Reads(own_server) as reads:
            for n in range(JOBS):
                await nothing.task.using(owner=owner).start()
                await until(lambda n=n: nothing.over(n + 1), "it is over")

    assert 2.5 * JOBS < reads.count < 3.5 * JOBS + reads.allowed


async def test_jobs_that_start_together_share_round_trips(
    headway: Headway, own_server: OwnServer, until: Until
) -> None:
    """What is asked at one moment goes out at one moment."""
    nothing = Nothing(headway)

    async with headway:
        await nothing.teach()
        with Reads(own_server) as reads:
            await asyncio.gather(*(nothing.task.start() for _ in range(JOBS)))
            await until(lambda: nothing.over(JOBS), "all are over")

    assert reads.count <= JOBS / 2 + reads.allowed


@pytest.mark.parametrize("jobs", [1, 8])
async def test_reports_cost_ten_round_trips_a_second(
    headway: Headway, own_server: OwnServer, until: Until, jobs: int
) -> None:
    """Of all jobs of a process together, however often they report."""
    go_on = threading.Event()
    go_on.set()
    counted = [0] * jobs

    @headway.task
    def count(progress: Progress, which: int) -> None:
        for counted[which] in progress.track(itertools.count(1)):
            if not go_on.is_set():
                return

    async with headway:
        started = [await count.start(n) for n in range(jobs)]
        await until(lambda: all(counted), "all count")
        with Reads(own_server) as reads:
            seen = list(counted)
            await until(lambda: time.monotonic() - reads._began > 1, "a second is over")
            await until(lambda: all(map(operator.gt, counted, seen)), "all go on")
        go_on.clear()
        for job in started:
            await end_of(headway, job)

    assert reads.count <= reads.seconds / FLUSH_S + reads.allowed


async def test_watchers_cost_one_subscription(
    headway: Headway, own_server: OwnServer, until: Until
) -> None:
    """However many watch a job, the store is asked for it once, on three connections."""
    go_on = asyncio.Event()

    @headway.task
    async def wait() -> None:
        await go_on.wait()

    async with headway:
        job = await wait.start()
        with ExitStack() as stack, Reads(own_server) as reads:
            watchers = [stack.enter_context(headway.hub.watcher([job.id])) for _ in range(1_000)]
            for watcher in watchers:
                assert await watcher.wait(5)
        clients = own_server.say("CLIENT", "LIST")
        go_on.set()
        await end_of(headway, job)

    assert reads.count <= 4 + reads.allowed
    assert len(clients.splitlines()) - 1 <= 3


# ── the loop ──────────────────────────────────────────────────────────────────────────────────

ITERABLES: dict[str, Callable[[int], Iterable[object]]] = {
    "list": lambda n: list(range(n)),
    "range": range,
    "iterator": lambda n: map(str, range(n)),
    "dict": lambda n: dict.fromkeys(range(n)),
}


@contextmanager
def profiled() -> Iterator[list[str]]:
    """The calls that the interpreter makes in this thread."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        calls.append(f"{event} {frame.f_code.co_qualname}")

    gc.disable()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        gc.enable()


@pytest.mark.parametrize("kind", ITERABLES)
def test_no_call_is_made_for_an_item(kind: str) -> None:
    """Whether there are ten items or ten thousand: the loop makes the same few calls."""

    def calls(items: int) -> list[str]:
        progress, iterable = Progress(), ITERABLES[kind](items)
        with profiled() as calls:
            for _ in progress.track(iterable):
                pass
        return calls

    calls(10)  # what is asked once only, as what is iterable
    assert calls(10_000) == calls(10)


async def streamed(items: int) -> AsyncIterator[int]:
    for item in range(items):
        yield item


async def test_no_call_is_made_for_an_async_item() -> None:
    """Besides those of the source itself."""

    async def calls(items: int) -> list[str]:
        progress, source = Progress(), streamed(items)
        with profiled() as calls:
            async for _ in progress.track(source):
                pass
        return [call for call in calls if streamed.__qualname__ not in call]

    await calls(10)
    assert await calls(10_000) == await calls(10)


@pytest.mark.parametrize("kind", ITERABLES)
def test_nothing_is_kept_of_an_item(kind: str) -> None:
    """What a loop has gone through takes no memory."""
    blocks: list[int] = []
    for _ in Progress().track(ITERABLES[kind](10_000)):
        blocks.append(sys.getallocatedblocks()) if len(blocks) < 9_000 else None

    grown = blocks[-1] - blocks[1_000]
    assert grown < 0.05 * 8_000 + 8_000  # the numbers in the list are the test's own
