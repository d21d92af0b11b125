"""streaQ: a stream and Redis functions, results by pub/sub; it has no progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from redis import Redis
from streaq import Worker

from bench.peers.contract import RAN, store_url, tool, tuned

CONCURRENCY: Final = 32  # of its own benchmarks


async def nothing() -> None:
    RAN.jobs += 1


async def report(seconds: float, every_s: float) -> None:
    await asyncio.sleep(seconds)  # there is nothing to report with


def _worker(url: str, *, tuned: bool, handle_signals: bool) -> Any:
    options = {"concurrency": CONCURRENCY} if tuned else {}
    worker: Any = Worker(redis_url=url, handle_signals=handle_signals, **options)
    worker.task(nothing)
    worker.task(report)
    return worker


class StreaqPeer:
    """See `Peer`."""

    def __init__(self, *, tuned: bool = False) -> None:
        self.name = "streaq"
        self.tuning = f"concurrency {CONCURRENCY}" if tuned else ""

    @asynccontextmanager
    async def opened(self, url: str, *, works: bool) -> AsyncIterator[None]:
        self._worker = _worker(url, tuned=bool(self.tuning), handle_signals=False)
        self._tasks = self._worker.registry
        if not works:
            async with self._worker:
                yield
            return
        async with anyio.create_task_group() as group:
            await group.start(self._worker.run_async)
            yield
            group.cancel_scope.cancel()

    async def start(self) -> Any:
        return await self._tasks["nothing"].enqueue()

    async def start_long(self, seconds: float, every_s: float) -> Any:
        return await self._tasks["report"].enqueue(seconds, every_s)

    async def ended(self, job: Any) -> None:
        await job.result()

    async def watch(self, job: Any) -> None:
        await job.result()

    def left(self, store: Redis) -> int:
        return int(store.xlen(self._worker.stream_key + "normal"))

    def worker(self, url: str) -> Sequence[str]:
        return [tool("streaq"), "run", f"{__name__}:worker"]


if (URL := store_url()) is not None:  # this is a worker
    worker = _worker(URL, tuned=tuned(), handle_signals=True)
