"""Docket: results and progress by pub/sub, a connection for each who listens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from docket import Docket, Progress, Worker
from docket.execution import ExecutionProgress, ExecutionState
from redis import Redis

from bench.peers.contract import RAN, end, paced, store_url, tool

NAME: Final = "bench"
TASKS: Final = f"{__package__}.docket:tasks"
ENDS: Final = {ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED}
# While all its places are taken, it sleeps for its check interval (0.25 s in an app, 0.1 s as a
# command): so it does no more in a second than its places through that.
PLACES: Final = 100
CHECK_S: Final = 0.01
CONNECTIONS: Final = 250  # each place takes one; the client's own limit is 100
TUNED: Final[dict[str, Any]] = {
    "concurrency": PLACES,
    "minimum_check_interval": timedelta(seconds=CHECK_S),
}


async def nothing() -> None:
    RAN.jobs += 1


async def report(
    seconds: float,
    every_s: float,
    progress: ExecutionProgress = Progress(),  # noqa: B008 - so are its dependencies declared
) -> None:
    await progress.set_total(round(seconds / every_s))
    async for _ in paced(seconds, every_s):
        await progress.increment()


tasks = [nothing, report]


class DocketPeer:
    """See `Peer`."""

    def __init__(self, *, tuned: bool = False) -> None:
        self.name = "docket"
        self.tuning = f"concurrency {PLACES}, check interval {CHECK_S:g} s" if tuned else ""

    @asynccontextmanager
    async def opened(self, url: str, *, works: bool) -> AsyncIterator[None]:
        async with Docket(name=NAME, url=_tuned(url) if self.tuning else url) as self._docket:
            for task in tasks:
                self._docket.register(task)
            if not works:
                yield
                return
            async with Worker(self._docket, **(TUNED if self.tuning else {})) as worker:
                running = asyncio.create_task(worker.run_forever())
                try:
                    yield
                finally:
                    await end(running)

    async def start(self) -> Any:
        return await self._docket.add(nothing)()

    async def start_long(self, seconds: float, every_s: float) -> Any:
        return await self._docket.add(report)(seconds, every_s)

    async def ended(self, job: Any) -> None:
        await job.get_result()

    async def watch(self, job: Any) -> None:
        execution = await self._docket.get_execution(job.key)
        assert execution is not None
        async for event in execution.subscribe():
            if event["type"] == "state" and ExecutionState(event["state"]) in ENDS:
                return

    def left(self, store: Redis) -> int:
        return int(store.xlen(self._docket.stream_key))

    def worker(self, url: str) -> Sequence[str]:
        if self.tuning:  # its command takes whole seconds only
            return [sys.executable, "-m", f"{__package__}.docket"]
        command = [tool("docket"), "worker", "--docket", NAME, "--url", url, "--tasks", TASKS]
        return [*command, "--logging-level", "WARNING"]


def _tuned(url: str) -> str:
    return f"{url}?max_connections={CONNECTIONS}"


if __name__ == "__main__":  # this is a worker
    URL = store_url()
    assert URL is not None
    asyncio.run(Worker.run(NAME, _tuned(URL), tasks=[TASKS], **TUNED))
