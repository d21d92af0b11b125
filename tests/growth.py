"""`python -m tests.growth`: many short jobs on a store of their own, and what is left of them.

It shows that a store which lives long does not grow: when the time of the jobs is over, keys and
memory are back at the floor, indexes included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from headway import Headway, Progress
from headway.server import Server

JOBS: Final = 50_000
WARM_UP: Final = 1_000
KEEP_S: Final = 5.0
STARTERS: Final = 64
OWNERS: Final = 20
KEYED: Final = 10  # every tenth job has a key
POLL_S: Final = 0.25
LIMIT_S: Final = 120.0  # for what is over to be gone
SLACK_BYTES: Final = 600_000  # buffers of connections, and what the allocator keeps


Sweep = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Store:
    """How much stands in the store."""

    keys: int
    used_bytes: int

    @classmethod
    def of(cls, client: redis.Redis) -> Store:
        memory: dict[str, Any] = client.info("memory")
        return cls(int(client.dbsize()), int(memory["used_memory"]))

    def __str__(self) -> str:
        return f"{self.keys:,} keys, {self.used_bytes / 1e6:.2f} MB"


@dataclass(frozen=True)
class Growth:
    """What a run has measured."""

    jobs: int
    floor: Store
    high: Store
    after: Store
    took_s: float
    gone_s: float

    @property
    def shrank(self) -> bool:
        """True if nothing has grown."""
        grown = self.after.used_bytes - self.floor.used_bytes
        return self.after.keys == self.floor.keys and grown < SLACK_BYTES

    def __str__(self) -> str:
        return (
            f"jobs {self.jobs:,} in {self.took_s:.1f} s, {self.jobs / self.took_s:,.0f} jobs/s\n"
            f"before:          {self.floor}\n"
            f"at most:         {self.high}\n"
            f"after {self.gone_s:5.1f} s:   {self.after}"
        )


class Grower:
    """Runs short jobs of many owners, some with a key, each with progress and a line of its log."""

    def __init__(self, headway: Headway) -> None:
        @headway.task
        async def work(progress: Progress, number: int) -> int:
            progress.log(f"number {number}")
            for _ in progress.track(range(10)):
                await asyncio.sleep(0)
            return number

        self._task = work
        self._numbers = itertools.count()
        self._headway = headway

    async def run(self, jobs: int) -> None:
        """Start so many jobs and return when all have ended."""
        left = itertools.repeat(None, jobs)
        starters = (self._start_all(left) for _ in range(STARTERS))
        await asyncio.gather(*starters)

    async def _start_all(self, left: itertools.repeat[None]) -> None:
        for _ in left:
            number = next(self._numbers)
            key = f"key{number}" if number % KEYED == 0 else None
            using = self._task.using(owner=f"owner{number % OWNERS}", key=key)
            job = await using.start(number)
            async for _ in self._headway.watch(job.id):
                pass


async def grow(
    headway: Headway, client: redis.Redis, jobs: int, sweep: Sweep | None = None
) -> Growth:
    """Run a few jobs to warm up, then *jobs*, and wait until the store has forgotten them.

    Args:
        headway: not open yet.
        sweep: called again and again, to forget sooner than Headway does by itself.
    """
    async with headway:
        grower = Grower(headway)
        await grower.run(min(jobs, WARM_UP))
        floor = await _emptied(client, sweep)
        began_at = time.monotonic()
        high, running = floor, asyncio.create_task(grower.run(jobs))
        while not running.done():
            await asyncio.wait({running}, timeout=POLL_S)
            now = Store.of(client)
            high = Store(max(high.keys, now.keys), max(high.used_bytes, now.used_bytes))
        running.result()
        ended_at = time.monotonic()
        after = await _emptied(client, sweep)
    return Growth(jobs, floor, high, after, ended_at - began_at, time.monotonic() - ended_at)


async def _emptied(client: redis.Redis, sweep: Sweep | None) -> Store:
    give_up_at = time.monotonic() + LIMIT_S
    while (now := Store.of(client)).keys and time.monotonic() < give_up_at:
        if sweep is not None:
            await sweep()
        await asyncio.sleep(POLL_S)
    return now


def main() -> int:
    """Read the command line; 1 if something has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.growth", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--keep", type=float, default=KEEP_S, help="seconds that ended jobs stay")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="headway-growth-") as folder,
        Server(Path(folder)) as url,
        redis.Redis.from_url(url) as client,
    ):
        headway = Headway(url, secret="a secret of a test", keep_s=given.keep)
        growth = asyncio.run(grow(headway, client, given.jobs))
    print(growth)
    return 0 if growth.shrank else 1


if __name__ == "__main__":
    sys.exit(main())
