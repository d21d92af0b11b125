"""taskiq on Redis streams, with the result backend of taskiq-redis and its JSON serializer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis import Redis
from taskiq import AsyncBroker, TaskiqDepends
from taskiq.api import run_receiver_task
from taskiq.depends.progress_tracker import ProgressTracker, TaskState
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench.peers.contract import RAN, end, paced, store_url, tool

POLL_S: Final = 0.2  # its own default, in `wait_result()`
POLL_TUNED_S: Final = 0.01

logging.getLogger("taskiq.receiver").setLevel(logging.ERROR)  # it warns when it is asked to end


async def nothing() -> None:
    RAN.jobs += 1


async def report(
    seconds: float,
    every_s: float,
    progress: ProgressTracker[dict[str, int]] = TaskiqDepends(),  # noqa: B008 - so it is asked for
) -> None:
    total = round(seconds / every_s)
    async for n in paced(seconds, every_s):
        await progress.set_progress(TaskState.STARTED, {"done": n + 1, "total": total})


def _broker(url: str) -> AsyncBroker:
    results: Any = RedisAsyncResultBackend(url, serializer=JSONSerializer())
    broker = RedisStreamBroker(url).with_result_backend(results)
    broker.register_task(nothing, task_name="nothing")
    broker.register_task(report, task_name="report")
    return broker


class TaskiqPeer:
    """See `Peer`."""

    def __init__(self, *, tuned: bool = False) -> None:
        self.name = "taskiq"
        self.tuning = "asks for the result every 10 ms" if tuned else ""
        self._poll_s = POLL_TUNED_S if tuned else POLL_S

    @asynccontextmanager
    async def opened(self, url: str, *, works: bool) -> AsyncIterator[None]:
        self._broker = broker = _broker(url)
        self._nothing: Any = broker.find_task("nothing")
        self._report: Any = broker.find_task("report")
        await broker.startup()
        working = asyncio.create_task(run_receiver_task(broker)) if works else None
        try:
            yield
        finally:
            if working is not None:
                await end(working)
            await broker.shutdown()

    async def start(self) -> Any:
        return await self._nothing.kiq()

    async def start_long(self, seconds: float, every_s: float) -> Any:
        return await self._report.kiq(seconds, every_s)

    async def ended(self, job: Any) -> None:
        await job.wait_result(check_interval=self._poll_s)

    async def watch(self, job: Any) -> None:
        while not await job.is_ready():
            await job.get_progress()
            await asyncio.sleep(POLL_S)

    def left(self, store: Redis) -> int:
        (group,) = store.xinfo_groups("taskiq")
        return int(group["pending"]) + int(group["lag"])

    def worker(self, url: str) -> Sequence[str]:
        command = [tool("taskiq"), "worker", f"{__name__}:broker"]
        return [*command, "--workers", "1", "--log-level", "WARNING"]


if (URL := store_url()) is not None:  # this is a worker
    broker = _broker(URL)
