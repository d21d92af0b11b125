"""Headway: in the process that accepts, and with workers behind taskiq.

Each job has an owner, as one that a web request has started does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from redis import Redis
from taskiq_redis import RedisStreamBroker

from bench.peers.contract import RAN, paced, store_url, tool
from headway import Headway, Progress
from headway.engine import Engine
from headway.engines.taskiq import TaskiqEngine
from headway.job import PARTITIONS, Job
from headway.keys import Keys

OWNER: Final = "ann"
KEYS: Final = Keys("headway", PARTITIONS)


async def nothing() -> None:
    RAN.jobs += 1


async def report(progress: Progress, seconds: float, every_s: float) -> None:
    async for _ in progress.track(paced(seconds, every_s), total=round(seconds / every_s)):
        pass


class HeadwayPeer:
    """See `Peer`.

    Args:
        remote: jobs come by way of taskiq, also where it `works`.
        concurrency: jobs that run in the process that accepts them.
        owner: whose the jobs are; None: nobody's.
    """

    def __init__(
        self,
        *,
        remote: bool = False,
        concurrency: int = 32,
        owner: str | None = OWNER,
    ) -> None:
        self.name = "Headway"
        self.tuning = ""
        self._remote = remote
        self._concurrency = concurrency
        self._owner = owner

    @asynccontextmanager
    async def opened(self, url: str, *, works: bool) -> AsyncIterator[None]:
        engine = _engine(url) if self._remote else None
        headway = Headway(url, engine=engine, concurrency=self._concurrency)
        self._nothing, self._report = headway.task(nothing), headway.task(report)
        self._headway = headway
        async with headway.working() if self._remote and works else headway:
            yield

    async def start(self) -> Job:
        return await self._nothing.using(owner=self._owner).start()

    async def start_long(self, seconds: float, every_s: float) -> Job:
        return await self._report.using(owner=self._owner).start(seconds, every_s)

    async def ended(self, job: Job) -> None:
        async for _ in self._headway.watch(job.id):
            pass

    async def watch(self, job: Job) -> None:
        async for _ in self._headway.watch(job.id):
            pass

    def left(self, store: Redis) -> int:
        with store.pipeline(transaction=False) as pipeline:
            for partition in KEYS.all_partitions():
                pipeline.zcard(KEYS.leases(partition))
            return sum(pipeline.execute())

    def worker(self, url: str) -> Sequence[str]:
        return [tool("headway"), "worker", "bench.peers.headway:headway"]


def _engine(url: str) -> Engine:
    return TaskiqEngine(RedisStreamBroker(url))


if (URL := store_url()) is not None:  # this is a worker
    headway = Headway(URL, engine=_engine(URL))
    headway.task(nothing)
    headway.task(report)
