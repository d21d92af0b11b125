"""Runs jobs, from claim to end. `Runner.run(job_id)` is all that an engine calls.

An engine's message is only a wake-up: whether the job is to be run, and by whom, is decided by
`claim` in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from headway.context import About, about, extra
from headway.errors import NotOpen, StoreError, TaskError
from headway.job import Job, State
from headway.limits import LIMITS, Limits
from headway.pulse import Pulse
from headway.run import Again, Run, Why
from headway.store import Claim, Settled, Store
from headway.task import Task, Tasks
from headway.telemetry import Running, Telemetry

__all__ = ["Runner"]

SETTLE_AGAIN_S: Final = (0.1, 0.3, 1.0, 2.0)  # between tries to write an end; the last repeats

logger = logging.getLogger("headway.runner")


class Runner:
    """Runs jobs of this process and writes how they ended.

    After `gave_up` is set, ends that cannot be written are given up.

    Args:
        ended: told of each job that has ended here, with the state it ended in.
    """

    def __init__(
        self,
        store: Store,
        pulse: Pulse,
        tasks: Tasks,
        ended: Callable[[Job], None] = lambda _: None,
        *,
        lease_s: float,
        telemetry: Telemetry | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self._limits = limits
        self._telemetry = telemetry or Telemetry()
        self._store = store
        self._pulse = pulse
        self._tasks = tasks
        self._ended = ended
        self._lease_s = lease_s
        self._runs: dict[str, Run] = {}
        self._stopping: Why | None = None
        self.gave_up = asyncio.Event()

    @property
    def running(self) -> frozenset[str]:
        """Ids of the jobs that run in this process."""
        return frozenset(self._runs)

    def stop(self, job_id: str, why: Why) -> None:
        """Make one run stop, if it is here."""
        if run := self._runs.get(job_id):
            run.stop(why)

    def stop_all(self, why: Why) -> None:
        """Make every run stop, those too whose claim is under way."""
        self._stopping = why
        for run in list(self._runs.values()):
            run.stop(why)

    def kill_all(self) -> None:
        """End the code of every run that can be ended without its consent."""
        for run in list(self._runs.values()):
            run.kill()

    async def run(self, job_id: str, task: Task[..., Any] | None = None) -> float | None:
        """Run the job if it is to be run and if it is ours to run.

        Args:
            task: what it is, where it is none of the registered ones.

        Returns: seconds after which to call this again, if the job is to have another attempt
            here; else None.

        Raises:
            StoreError: it could not be claimed; call again when the store is back.
        """
        if job_id in self._runs:
            return None
        claim = await self._store.claim_or_ended(job_id, self._lease_s)
        if isinstance(claim, Job):
            if claim.state is State.CANCELLED:  # while it waited here
                self._ended(claim)
            return None
        if claim is None or job_id in self._runs:
            return None
        try:
            task = task or self._tasks.get(claim.job.task)
        except TaskError as error:
            said = extra("claim", About(job_id, claim.job.task))
            logger.error("job %s cannot be run here: %s", job_id, error, extra=said)
            await self._store.release(job_id, claim.job.attempt)
            return None
        with about(About(job_id, task.name, claim.job.attempt, claim.context.request_id)):
            if not self._telemetry.on:
                return await self._run(self._run_of(claim, task))
            with self._telemetry.running(claim.job, claim.context) as span:
                return await self._run(self._run_of(claim, task, span))

    def _run_of(self, claim: Claim, task: Task[..., Any], span: Running | None = None) -> Run:
        wake = partial(self._pulse.wake, claim.job.id)
        return Run(claim, task, wake, span, limits=self._limits)

    async def _run(self, run: Run) -> float | None:
        self._runs[run.job_id] = run
        self._pulse.add(run)
        try:
            if run.job.cancel_requested:
                run.stop(Why.CANCEL)
            elif self._stopping is not None:
                run.stop(self._stopping)
            outcome = await run.execute()
            run.ending = True
            if run.span is None:
                return await self._settle(run, outcome)
            run.span.over(run.error)
            delay_s = await self._settle(run, outcome)
            run.span.became(run.became, outcome.error if outcome is not None else None)
            return delay_s
        finally:
            self._pulse.remove(run)
            del self._runs[run.job_id]

    async def _settle(self, run: Run, outcome: Settled | Again | None) -> float | None:
        tries = 0
        while outcome is not None:
            try:
                return await self._write(run, outcome)
            except (StoreError, NotOpen) as error:
                # The lease may run out meanwhile; then the fence decides, and not we.
                pause = SETTLE_AGAIN_S[min(tries, len(SETTLE_AGAIN_S) - 1)]
                tries += 1
                said, job_id = extra("finish"), run.job_id
                logger.warning("job %s cannot end without the store: %s", job_id, error, extra=said)
                if await _set_within(self.gave_up, pause):
                    logger.error("the end of job %s was not written", job_id, extra=said)
                    return None
        return None

    async def _write(self, run: Run, outcome: Settled | Again) -> float | None:
        if isinstance(outcome, Settled):
            if await self._store.finish(run.job, outcome):
                self._over(run, outcome.state)
            else:
                said = extra("finish")
                logger.warning("job %s was no longer ours when it ended", run.job_id, extra=said)
            return None
        answer = await self._store.release(
            run.job_id,
            run.attempt,
            delay_s=outcome.delay_s,
            lease_s=self._lease_s,
            progress=run.source.final(succeeded=False),
            error=outcome.error,
            checkpoint=run.source.last_checkpoint(),
            lines=run.source.last_lines(),
            trace=outcome.trace,
        )
        if answer == "cancelled":
            self._over(run, State.CANCELLED)
        elif answer == "ok":
            run.became = State.QUEUED
        return outcome.delay_s if answer == "ok" and outcome.delay_s else None

    def _over(self, run: Run, state: State) -> None:
        run.became = state
        if logger.isEnabledFor(logging.INFO):
            words = "job %s (%s) has ended: %s"
            logger.info(words, run.job_id, run.task.name, state, extra=extra("finish"))
        self._ended(msgspec.structs.replace(run.job, state=state))


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
