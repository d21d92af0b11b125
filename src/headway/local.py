"""The engine that needs nothing: jobs run in the process that accepted them.

What does not run yet waits in a queue here, and is held by this process's lease, so that another
one takes it over if this one dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

from headway.context import About, extra
from headway.engine import Workplace
from headway.errors import BadInput, StoreError

__all__ = ["LocalEngine"]

CONCURRENCY: Final = 32
STORE_AGAIN_S: Final = 1.0

logger = logging.getLogger("headway.local")


class LocalEngine:
    """Runs at most *concurrency* jobs of this process at a time; the surplus waits its turn.

    Coroutines share the loop, functions get a thread each, and both count alike.
    """

    workers: str | None = None

    def __init__(self, *, concurrency: int = CONCURRENCY) -> None:
        if concurrency < 1:
            raise BadInput(f"concurrency {concurrency!r}: give 1 or more")
        self._concurrency = concurrency
        self._queue: deque[str] = deque()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._run: Callable[[str], Awaitable[float | None]] | None = None
        self._taking = True
        self._aside = 0
        self._context = Context()

    @property
    def _free(self) -> bool:
        return len(self._running) - self._aside < self._concurrency

    @property
    def room(self) -> int:
        """How many more jobs this process could take over without making them wait long."""
        return max(2 * self._concurrency - len(self._queue) - len(self._running), 0)

    def bind(self, headway: Any) -> None:
        """Nothing to do: there are no workers."""

    def held(self) -> Iterable[str]:
        """Ids that wait here: queued, or for their next attempt. Callable from any thread."""
        return [*self._queue.copy(), *list(self._later)]

    async def submit(self, job_id: str, attempt: int) -> None:
        """Put the job into the queue."""
        if job_id not in self._running and job_id not in self._queue:
            self._queue.append(job_id)
            self._fill()

    async def serve(self, place: Workplace) -> None:
        """Begin to run what is queued; returns at once."""
        self._run = place.run
        self._taking = True
        self._context = copy_context()
        self._fill()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around the waiting of a job for jobs: it does not count as running meanwhile."""
        self._aside += 1
        self._fill()
        try:
            yield
        finally:
            self._aside -= 1

    def stop_taking(self) -> list[str]:
        """Begin no more runs. Returns the ids that waited, which are no longer held."""
        self._taking = False
        for timer in self._later.values():
            timer.cancel()
        waiting = [*self._queue, *self._later]
        self._queue.clear()
        self._later.clear()
        return waiting

    async def aclose(self, drain_s: float) -> None:
        """Begin no more runs; return when none runs any more, or after *drain_s* seconds."""
        self._taking = False
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain_s)

    async def leave(self) -> None:
        """Nothing to do: there is no connection."""

    def _fill(self) -> None:
        while self._taking and self._run and self._queue and self._free:
            job_id = self._queue.popleft()
            # In the context of the app and not of the request that happened to start it: who asks,
            # or which transaction is open, is not true of the job, and would be missing elsewhere.
            task = asyncio.create_task(
                self._one(job_id), name=f"headway-job-{job_id}", context=self._context.copy()
            )
            self._running[job_id] = task
            task.add_done_callback(partial(self._over, job_id))

    async def _one(self, job_id: str) -> None:
        assert self._run is not None
        try:
            delay_s = await self._run(job_id)
        except StoreError as error:
            said = extra("claim", About(job_id))
            logger.warning("job %s waits for the store: %s", job_id, error, extra=said)
            delay_s = STORE_AGAIN_S
        except Exception:
            said = extra("run", About(job_id))
            logger.exception("job %s met an error of Headway's own", job_id, extra=said)
            return
        if delay_s is not None and self._taking:
            loop = asyncio.get_running_loop()
            self._later[job_id] = loop.call_later(delay_s, self._due, job_id)

    def _due(self, job_id: str) -> None:
        self._later.pop(job_id, None)
        if job_id not in self._queue:
            self._queue.append(job_id)
        self._fill()

    def _over(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._running.pop(job_id, None)
        if task.cancelling():  # somebody takes the loop down: nothing begins any more
            self._taking = False
        self._fill()
