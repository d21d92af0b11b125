"""Everything that lives from opening to closing, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from headway._link import Link
from headway.acts import ThreadStore
from headway.drain import Drain
from headway.engine import Engine, Workplace
from headway.gate import Gate
from headway.intake import Intake
from headway.job import PARTITIONS, Job, State
from headway.keys import Keys
from headway.local import LocalEngine
from headway.overview import Overview
from headway.pulse import Pulse
from headway.run import Why
from headway.runner import Runner
from headway.settings import Settings
from headway.store import Store
from headway.stream import Streams
from headway.task import Tasks
from headway.telemetry import Counts, telemetry
from headway.watch import Hub
from headway.watchdog import Watchdog

__all__ = ["Runtime"]

T = TypeVar("T")

STOP_S: Final = 0.5  # what stopped code gets to clean up, before the process goes on ending

logger = logging.getLogger("headway")


class Runtime:
    """Everything that lives from opening to closing."""

    def __init__(
        self,
        settings: Settings,
        tasks: Tasks,
        streams: Streams,
        url: str,
        revive: Callable[[], object] | None,
    ) -> None:
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.telemetry = telemetry()
        keys, lease_s = Keys(settings.prefix, PARTITIONS), settings.lease_s
        self.lease_s = lease_s
        limits, keep_s = settings.limits, settings.keep_s
        self.link = Link(url, revive)
        self.store = Store(self.link, keys, self.worker, keep_s=keep_s, log_lines=limits.log_lines)
        self.pulse = Pulse(
            ThreadStore(url, keys, self.worker, log_lines=limits.log_lines, answer_s=lease_s / 2),
            lease_s=lease_s,
            telemetry=self.telemetry,
        )
        self.gate = Gate(self.link, keys, limits, keep_s=keep_s)
        self.overview = Overview(self.link, keys)
        self.runner = Runner(
            self.store,
            self.pulse,
            tasks,
            self._ended,
            lease_s=lease_s,
            telemetry=self.telemetry,
            limits=limits,
        )
        self._visits: set[asyncio.Task[Any]] = set()
        self.engine: Engine = settings.engine or LocalEngine(concurrency=settings.concurrency)
        self.intake = Intake(
            self.store, self.gate, self._submit, lease_s=lease_s, telemetry=self.telemetry
        )
        self.hub = Hub(self.store, self._told, self.telemetry)
        self.watchdog = Watchdog(
            self.store,
            lease_s=lease_s,
            tasks=lambda: tasks.names,
            adopt=self._adopt,
            running=lambda: self.runner.running,
            room=lambda: self.engine.room,
            lost=self._lost,
        )
        self.drain = Drain(self.begin_drain)
        self._streams = streams
        self._drain_s = settings.drain_s
        self._place = Workplace(
            self.runner.run, self.store.sent, settings.concurrency, settings.works
        )
        self._counts = Counts(
            running=lambda: len(self.runner.running),
            queued=lambda: len(list(self.engine.held())),
            streams=lambda: len(streams),
        )

    async def _adopt(self, job_id: str) -> None:
        await self.engine.submit(job_id, 0)
        self.pulse.rouse()

    async def _submit(self, job: Job) -> None:
        await self.engine.submit(job.id, job.attempt)
        self.pulse.rouse()

    def _ended(self, job: Job) -> None:
        self.gate.leave(job.owner, job.id)
        if self.telemetry.on:
            self.telemetry.ended(job.task, job.state)

    def _lost(self, job: Job) -> None:
        if self.telemetry.on:
            self.telemetry.lost(job.task)
        if job.state.terminal:
            self._ended(job)

    def _told(self, word: str, about: str) -> None:
        match word:
            case "cancel":
                self.runner.stop(about, Why.CANCEL)
            case "orphan":
                self.watchdog.look_soon()
            case "revoke":
                self._streams.revoke(about)

    def begin_drain(self) -> None:
        self._streams.drain()

    async def open(self) -> None:
        self.link.open()
        await self.store.meet()
        self.pulse.open(self.engine.held)
        await self.hub.open()
        await self.engine.serve(self._place)
        self.watchdog.open()
        self.drain.open()
        self._streams.draining = False
        self.telemetry.add(self._counts)

    def hurry(self) -> None:
        """Do not wait for what still runs: stop it now."""
        self.runner.stop_all(Why.DRAIN)

    async def aclose(self) -> None:
        """Drain: give back what waits, let what runs come to its end, stop what does not."""
        self.begin_drain()
        self.telemetry.remove(self._counts)
        await self.drain.aclose()
        await self.watchdog.aclose()
        waiting = self.engine.stop_taking()
        await self._give_back(waiting)
        await self._quiet(self._drain_s)
        self.runner.stop_all(Why.DRAIN)
        await self._quiet(STOP_S)
        self.runner.kill_all()
        self.runner.gave_up.set()
        await self._quiet(STOP_S)
        if left := self.runner.running:
            logger.warning("%d jobs did not stop; their leases will run out", len(left))
        await self.engine.leave()
        await self.hub.aclose()
        await asyncio.to_thread(self.pulse.close)
        await self.link.aclose()

    async def _quiet(self, within_s: float) -> None:
        """Return when nothing runs here any more, or after *within_s* seconds."""
        visits = [asyncio.wait(self._visits, timeout=within_s)] if self._visits else []
        await asyncio.gather(self.engine.aclose(within_s), *visits)

    def visit(self, run: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a run that no engine has brought; closing waits for it as for all others."""
        task = asyncio.create_task(run, name="headway-visit")
        self._visits.add(task)
        task.add_done_callback(self._visits.discard)
        return task

    async def _give_back(self, job_ids: list[str]) -> None:
        jobs = await asyncio.gather(*(self._release(i) for i in job_ids), return_exceptions=True)
        if lost := [error for error in jobs if isinstance(error, BaseException)]:
            logger.warning("%d jobs wait for their lease to end: %s", len(lost), lost[0])

    async def _release(self, job_id: str) -> None:
        job = (await self.store.get_all([job_id], strict=False)).get(job_id)
        if job is not None and job.state is State.CANCELLED:  # while it waited here
            self._ended(job)
        elif job is not None:
            await self.store.release(job_id, job.attempt)
