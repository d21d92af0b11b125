"""One worker process of a chaos run: `python -m tests.chaos.worker`. Orders come as JSON lines on
its standard input; what it has to tell goes as JSON lines into the file `events`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from headway.errors import HeadwayError
from headway.job import Job
from headway.store import Settled, Store
from tests.chaos.works import TASKS, append, headway


def tell(event: str, **about: Any) -> None:
    said = {"event": event, "pid": os.getpid(), "at": time.monotonic(), **about}
    append("events", json.dumps(said))


def tell_of_ends() -> None:
    """Tell of each end that the store has acknowledged."""
    finish = Store.finish

    async def told(store: Store, job: Job, settled: Settled) -> bool:
        written = await finish(store, job, settled)
        if written:
            tell("finished", id=job.id, attempt=job.attempt, state=str(settled.state))
        return written

    Store.finish = told  # type: ignore[method-assign, assignment]


class Worker:
    """Does what it is told until it is told to stop, or nobody is there to tell it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._doing: set[asyncio.Task[None]] = set()
        self._clock = time.time
        self._watchers = itertools.count(1)

    async def serve(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        async with headway:
            tell("up")
            threading.Thread(target=self._listen, daemon=True).start()
            await self._stop.wait()
            for task in self._doing:
                task.cancel()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._obey, json.loads(line))
        os._exit(1)  # whoever has started us is gone

    def _obey(self, order: dict[str, Any]) -> None:
        do: Callable[..., Any] = getattr(self, f"_{order.pop('do')}")
        task = self._loop.create_task(do(**order))
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _start(
        self, number: int, task: str, args: list[Any], owner: str, **more: Any
    ) -> None:
        asked_at = time.monotonic()
        try:
            job = await TASKS[task].using(owner=owner, key=more["key"]).start(*args)
        except HeadwayError as error:
            tell("refused", number=number, why=str(error))
            return
        tell("accepted", number=number, id=job.id, reused=job.reused, asked_at=asked_at)
        if more["watch"]:
            await self._watch(job.id)

    async def _watch(self, id: str) -> None:
        watcher = f"{os.getpid()}-{next(self._watchers)}"
        tell("watching", id=id, watcher=watcher)
        async for job in headway.watch(id):
            tell("seen", id=id, watcher=watcher, rev=job.rev, state=str(job.state))

    async def _cancel(self, id: str) -> None:
        try:
            await headway.cancel(id)
        except HeadwayError as error:
            tell("not cancelled", id=id, why=str(error))

    async def _clock_jump(self, seconds: float) -> None:
        # Only what tells the time of day: a monotonic clock does not jump.
        real = self._clock
        time.time = lambda: real() + seconds

    async def _report(self) -> None:
        tell("report", watchers=headway.hub.watched)


async def main() -> None:
    tell_of_ends()
    await Worker().serve()


if __name__ == "__main__":
    asyncio.run(main())
