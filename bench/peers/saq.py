"""SAQ on Redis: a list, and a record for each job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import redis.asyncio
from redis import Redis
from saq import Worker
from saq.job import TERMINAL_STATUSES, Job, Status
from saq.queue.redis import RedisQueue

from bench.peers.contract import RAN, end, paced, store_url, tool, tuned

CONCURRENCY: Final = 32
MISSED_S: Final = 1.0

logging.getLogger("saq").setLevel(logging.ERROR)  # it warns when it is asked to end


async def nothing(context: Any) -> None:
    RAN.jobs += 1


async def report(context: Any, *, seconds: float, every_s: float) -> None:
    total = round(seconds / every_s)
    async for n in paced(seconds, every_s):
        await context["job"].update(progress=min((n + 1) / total, 1.0))


def _queue(url: str) -> RedisQueue:
    # It waits for work without a limit, which the client's own default of 5 s would cut off.
    return RedisQueue(redis.asyncio.Redis.from_url(url, socket_timeout=None, max_connections=200))


def _settings(url: str, *, tuned: bool) -> dict[str, Any]:
    options = {"concurrency": CONCURRENCY} if tuned else {}
    return {"queue": _queue(url), "functions": [nothing, report], **options}


class SaqPeer:
    """See `Peer`."""

    def __init__(self, *, tuned: bool = False) -> None:
        self.name = "SAQ"
        self.tuning = f"concurrency {CONCURRENCY}" if tuned else ""

    @asynccontextmanager
    async def opened(self, url: str, *, works: bool) -> AsyncIterator[None]:
        settings = _settings(url, tuned=bool(self.tuning))
        self._queue: RedisQueue = settings["queue"]
        await self._queue.connect()
        working = asyncio.create_task(_here(settings)) if works else None
        try:
            yield
        finally:
            if working is not None:
                await end(working)
            await self._queue.disconnect()

    async def start(self) -> Job:
        return await self._enqueue("nothing")

    async def start_long(self, seconds: float, every_s: float) -> Job:
        return await self._enqueue("report", timeout=0, seconds=seconds, every_s=every_s)

    async def _enqueue(self, function: str, **options: Any) -> Job:
        job = await self._queue.enqueue(function, **options)
        assert job is not None
        return job

    async def ended(self, job: Job) -> None:
        while not job.completed:
            # It reads the job, and then begins to listen: an end in between is never heard of.
            with suppress(TimeoutError):
                await job.refresh(until_complete=MISSED_S)

    async def watch(self, job: Job) -> None:
        async def seen(key: str, status: Status) -> bool:
            await self._queue.job(key)  # the message says that something changed, and not what
            return status in TERMINAL_STATUSES

        await self._queue.listen([job.key], seen, timeout=None)

    def left(self, store: Redis) -> int:
        return int(store.zcard("saq:default:incomplete"))

    def worker(self, url: str) -> Sequence[str]:
        return [tool("saq"), f"{__name__}.settings"]


async def _here(settings: dict[str, Any]) -> None:
    worker: Worker[Any] = Worker(**settings)
    worker.SIGNALS = []  # they are the app's
    await worker.start()


if (URL := store_url()) is not None:  # this is a worker
    settings = _settings(URL, tuned=tuned())
