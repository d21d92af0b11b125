"""The watchdog: looks for jobs whose lease is over, and clears away what has expired.

Every process has one. It may act only after it had contact with the store for longer than a beat:
after an outage the living must have had their chance to renew their leases.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from headway.context import About, extra
from headway.errors import StoreError
from headway.job import Failure, Job
from headway.pulse import BEATS_A_LEASE
from headway.store import Reaped, Store

__all__ = ["Watchdog"]

LOOK_S: Final = 2.0
SWEEP_S: Final = 30.0
SWEEP_LIMIT: Final = 200  # per partition and sweep, so that one sweep never blocks the store long
DUE_LIMIT: Final = 100

LOST: Final = Failure(
    "lost",
    "The process that ran this stopped without a word",
    "It was killed, or its machine went away. What was done until then may have had effects.",
)

logger = logging.getLogger("headway.watchdog")


class Watchdog:
    """Looks about every two seconds, or at once when told of an orphan.

    Args:
        tasks: tells the names of the tasks that this process can run.
        adopt: given the id of a job that this process now holds and must run.
        running: tells the ids of the jobs that run here, which are not lost whatever their lease.
        room: tells how many jobs this process can adopt now.
        lost: told of each job of which an attempt was found lost, as it is afterwards.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_s: float,
        tasks: Callable[[], list[str]],
        adopt: Callable[[str], Awaitable[None]],
        running: Callable[[], frozenset[str]],
        room: Callable[[], int],
        lost: Callable[[Job], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lease_s = lease_s
        # Well under half a lease: a pause of that length between two looks means a freeze.
        self._look_s = min(LOOK_S, lease_s / 5)
        # A second more than a beat: what lives has renewed its lease by then.
        self._grace_s = min(lease_s / BEATS_A_LEASE + 1, lease_s)
        self._tasks = tasks
        self._adopt = adopt
        self._running = running
        self._room = room
        self._lost = lost
        self._clock = clock
        self._swept_at = clock()
        self._woke_at = clock()
        self._store_time: float | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._serve(), name="headway-watchdog")

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def look_soon(self) -> None:
        """Somebody gave a job back: look at once."""
        self._wake.set()

    async def look(self) -> int:
        """Look once; how many jobs were dealt with. One round trip, and one for each of them."""
        room = self._room()
        tasks = self._tasks() if room > 0 else []
        orphans = not self._trusts_leases()
        now, due = await self._store.due(tasks, DUE_LIMIT, orphans=orphans)
        if self._slept(now) and not orphans:
            return 0
        dealt = 0
        for job_id, task in due:
            if job_id in self._running():
                continue
            adopt = room > 0 and task in tasks
            answer = await self._store.reap(job_id, self._lease_s, LOST, adopt=adopt)
            self._tell(answer)
            if answer.word == "adopted":
                room -= 1
                said = extra("take_over", About(job_id, task))
                logger.info("job %s is taken over", job_id, extra=said)
                await self._adopt(job_id)
            dealt += answer.word != "early"
        return dealt

    def _tell(self, answer: Reaped) -> None:
        if (job := answer.lost) is None:
            return
        about = About(job.id, job.task, job.attempt, answer.context.request_id)
        logger.warning(
            "attempt %d of job %s (%s) is lost: its process died, or fell silent. It is %s now.",
            job.attempt,
            job.id,
            job.task,
            job.state,
            extra=extra("lose", about),
        )
        self._lost(job)

    async def _serve(self) -> None:
        while True:
            try:
                await self.look()
                await self._sweep()
            except StoreError as error:
                logger.warning("leases could not be looked at: %s", error)
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(random.uniform(0.75, 1.25) * self._look_s):  # noqa: S311 - spreads load
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _trusts_leases(self) -> bool:
        contact_at = self._store.contact_at
        if contact_at is None:
            return False
        return self._clock() - max(contact_at, self._woke_at) >= self._grace_s

    def _slept(self, now: float) -> bool:
        """True if this process, or the whole machine, may have been frozen since the last look.

        Then the others may have been frozen with it, and their leases say nothing yet.
        """
        before, self._store_time = self._store_time, now
        if before is not None and now - before < self._lease_s / 2:
            return False
        self._woke_at = self._clock()
        return True

    async def _sweep(self) -> None:
        if self._clock() - self._swept_at >= SWEEP_S:
            self._swept_at = self._clock()
            if await self._store.sweep(SWEEP_LIMIT) >= SWEEP_LIMIT:
                self._swept_at -= SWEEP_S  # more may be left: go on with the next look
