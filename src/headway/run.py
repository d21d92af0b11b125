"""One attempt of one job: its code while it runs, what stops it, and what is then to be written.

A run that lost its lease stops itself, and nothing of it is written.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec

from headway._captures import captured
from headway.context import About, extra
from headway.errors import BadInput, JobCancelled, JobError, TooLarge
from headway.job import NOTE_CHARS, REPORT, TRACE_CHARS, Failure, Job, State, plain
from headway.limits import LIMITS, Limits
from headway.process import ProcessDied, ProcessWork, TaskFailed
from headway.progress import Progress
from headway.store import Claim, Settled
from headway.task import Options, Task
from headway.telemetry import Running
from headway.work import CoroutineWork, ThreadWork, Work

__all__ = ["INTERRUPTED", "Again", "Run", "Why"]

RETRY_FIRST_S: Final = 2.0
RETRY_MAX_S: Final = 300.0
TORN_S: Final = 0.5  # what code gets to stop when its event loop is taken down, and once more

INTERRUPTED: Final = Failure(
    "interrupted",
    "The server was stopped while this was running",
    "What was done until then may have had effects.",
)
CRASHED: Final = Failure("exception", "Something went wrong")

logger = logging.getLogger("headway.run")


class Why(StrEnum):
    """Why a run was told to stop."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    DRAIN = "drain"
    LOST = "lost"


class Again(msgspec.Struct, frozen=True):
    """The run is to be repeated, after a delay; by us if there is one, else by anybody."""

    delay_s: float
    error: Failure | None = None
    trace: str = ""


class Run:
    """A claimed job while its code runs."""

    def __init__(
        self,
        claim: Claim,
        task: Task[..., Any],
        wake: Callable[[], object],
        span: Running | None = None,
        *,
        limits: Limits = LIMITS,
    ) -> None:
        self.span = span
        self._limits = limits
        self.error: BaseException | None = None
        self.became: str = "lost"  # or a state; "queued" is that there will be another attempt
        self.job = claim.job
        self.job_id = claim.job.id
        self.attempt = claim.job.attempt
        self.options = msgspec.json.decode(claim.options or "{}", type=Options)
        self.task = task
        self.work = self._work_of(claim, wake)
        self.source = self.work.source
        self.ending = False
        self.why: Why | None = None
        self._begun = False
        self._handed = claim.handed
        self._loop = asyncio.get_running_loop()

    @property
    def lost(self) -> bool:
        """True once another worker may have the job: nothing of this run counts any more."""
        return self.why is Why.LOST

    def _work_of(self, claim: Claim, wake: Callable[[], object]) -> Work:
        about: dict[str, Any] = {
            "job_id": self.job_id,
            "owner": self.job.owner,
            "attempt": self.attempt,
            "checkpoint": claim.checkpoint,
            "stall_s": self.options.stall_s,
            "wake": wake,
            "limits": self._limits,
        }
        if self.options.run == "process":
            context = self.span.context if self.span is not None else claim.context
            return ProcessWork(self.task, claim.args, **about, context=context)
        kind = CoroutineWork if self.task.asynchronous else ThreadWork
        return kind(self.task, claim.args, Progress(**about, captures=self.task.captures))

    @property
    def _listens_to(self) -> frozenset[str]:
        # A child listens by itself.
        return frozenset() if self.options.run == "process" else self.task.captures

    def heard(self, answer: str) -> None:
        """The store's word, from the beat thread: 'cancel' or 'lost'."""
        why = Why.LOST if answer == "lost" else Why.CANCEL
        self._loop.call_soon_threadsafe(self.stop, why)

    def stop(self, why: Why) -> None:
        """Make the code stop. The first reason counts, but for a lost lease: that one always."""
        lost = why is Why.LOST and not self.lost
        if lost:
            logger.warning(
                "job %s is no longer ours: the store has given it away, or has lost it. Attempt %d "
                "is stopped, and nothing of it counts any more.",
                self.job_id,
                self.attempt,
                extra=extra("stop", About(self.job_id, self.task.name, self.attempt)),
            )
        if self.span is not None and (self.why is None or lost):
            self.span.told(why)
        if self.why is not None:
            self.why = Why.LOST if why is Why.LOST else self.why
            return
        self.why = why
        if self._begun:
            self.work.stop(why)

    def kill(self) -> None:
        """End the code now, if it is of a kind that can be ended."""
        if isinstance(self.work, ProcessWork):
            self.work.kill()

    async def execute(self) -> Settled | Again | None:
        """Run the code to its end and say what is to be written; None if nothing is."""
        if self.why is not None:
            return self._failed(JobCancelled(self.why))
        timer = None
        if self.options.timeout_s is not None:
            timer = self._loop.call_later(self.options.timeout_s, self.stop, Why.TIMEOUT)
        self._begun = True
        try:
            with captured(self._listens_to):
                result = await self._result()
        except BaseException as error:
            self.error = error
            return self._failed(error)
        finally:
            if timer is not None:
                timer.cancel()
        if self.lost:
            return None
        return self._settled(State.SUCCEEDED, result="" if result == "null" else result)

    async def _result(self) -> str:
        try:
            return await self.work.result()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise  # it is the code's own
        # Somebody takes the loop down before Headway is closed, as Quart's reloader does.
        self.stop(Why.DRAIN)
        ended = asyncio.ensure_future(self.work.result())
        for _ in range(2):
            if (await asyncio.wait({ended}, timeout=TORN_S))[0]:
                return ended.result()
            self.kill()
        ended.cancel()
        self.why = Why.LOST
        words = "job %s did not stop with its event loop; its lease will run out"
        logger.warning(words, self.job_id, extra=extra("stop"))
        raise asyncio.CancelledError

    def _failed(self, error: BaseException) -> Settled | Again | None:
        match self.why:
            case Why.LOST:
                return None
            case Why.CANCEL:
                return self._settled(State.CANCELLED)
            case Why.DRAIN:
                # Not begun, it is for another process; but a report is code of this one.
                elsewhere = not self._begun and self.job.task != REPORT
                if self.task.on_lost == "retry" or elsewhere:
                    return Again(0)
                return self._settled(State.FAILED, INTERRUPTED)
            case Why.TIMEOUT:
                failure = Failure("timeout", f"Stopped after {self.options.timeout_s:g} seconds")
            case _:
                failure = _failure_of(error, self.job)
        trace = _trace_of(error)
        # Attempts that were handed over, as at a deploy, count for nothing.
        tried = self.attempt - self._handed
        if tried <= self.options.retries:
            return Again(_backoff(tried), failure, trace)
        return self._settled(State.FAILED, failure, trace=trace)

    def _settled(
        self,
        state: State,
        error: Failure | None = None,
        *,
        result: str = "",
        trace: str = "",
    ) -> Settled:
        return Settled(
            state,
            self.source.final(succeeded=state is State.SUCCEEDED),
            result=result,
            error=error,
            lines=self.source.last_lines(),
            trace=trace,
        )


def _failure_of(error: BaseException, job: Job) -> Failure:
    if isinstance(error, JobError):
        return Failure(plain(error.code, 60), plain(error, NOTE_CHARS))
    if isinstance(error, ProcessDied):
        logger.error("job %s (%s): %s", job.id, job.task, error, extra=extra("fail"))
        return Failure(
            "process_died", "The process that ran this ended without a word", f"It {error.how}."
        )
    if isinstance(error, TooLarge):
        logger.error("job %s (%s): %s", job.id, job.task, error, extra=extra("fail"))
        return Failure("result_too_large", "The result was too large to keep")
    if isinstance(error, BadInput):
        said = extra("fail")
        logger.error("job %s (%s): %s", job.id, job.task, error, exc_info=error, extra=said)
        return Failure("bad_value", "Something went wrong", "A value was not what it should be.")
    logger.error("job %s (%s) failed", job.id, job.task, exc_info=error, extra=extra("fail"))
    return CRASHED


def _trace_of(error: BaseException) -> str:
    if isinstance(error, TaskFailed):
        return str(error)[-TRACE_CHARS:]
    return "".join(traceback.format_exception(error))[-TRACE_CHARS:]


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: doubling, with jitter so that a crowd spreads out."""
    longest = min(RETRY_FIRST_S * 2 ** (attempt - 1), RETRY_MAX_S)
    return random.uniform(longest / 2, longest)  # noqa: S311 (no secret hangs on it)
