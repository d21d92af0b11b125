"""One run of one job, from claim to end. `Runner.run(job_id)` is all that an engine calls.

An engine's message is only a wake-up: whether the job is to be run, and by whom, is decided by
`claim` in the store. A run that lost its lease stops itself and writes nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from headway.errors import BadInput, JobCancelled, JobError, StoreError, TaskError, TooLarge
from headway.job import NOTE_CHARS, RESULT_BYTES, Failure, Job, State, plain, to_json
from headway.progress import Progress, _current
from headway.pulse import Pulse
from headway.store import Claim, Settled, Store
from headway.task import Options, Task, Tasks

__all__ = ["Engine", "Run", "Runner", "Why"]

RETRY_FIRST_S: Final = 2.0
RETRY_MAX_S: Final = 300.0
INTERRUPT_S: Final = 0.3  # what a thread gets to notice by itself that it was asked to stop
SETTLE_AGAIN_S: Final = (0.1, 0.3, 1.0, 2.0)  # between tries to write an end; the last repeats

LOST: Final = Failure(
    "lost",
    "The process that ran this stopped without a word",
    "It was killed, or its machine went away. What was done until then may have had effects.",
)
INTERRUPTED: Final = Failure(
    "interrupted",
    "The server was stopped while this was running",
    "What was done until then may have had effects.",
)
CRASHED: Final = Failure("exception", "Something went wrong")

logger = logging.getLogger("headway.runner")


class Engine(Protocol):
    """Brings job ids to `Runner.run`, somewhere, some time.

    It may lose, delay or double what it was given: truth is the record. It must not run more
    than it can.
    """

    async def submit(self, job_id: str, attempt: int) -> None:
        """Bring about `run(job_id)`. *attempt* is the last one: the message of another is stale."""

    async def serve(self, run: Callable[[str], Awaitable[float | None]]) -> None:
        """Call *run* for what was submitted. It answers seconds, if it wants to be called again."""

    async def aclose(self, drain_s: float) -> None:
        """Take nothing more; return when nothing runs, or after *drain_s*."""


class Why(StrEnum):
    """Why a run was told to stop."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    DRAIN = "drain"
    LOST = "lost"


class _Again(msgspec.Struct, frozen=True):
    """The run is to be repeated, after a delay; by us if there is one, else by anybody."""

    delay_s: float
    error: Failure | None = None


class Run:
    """A claimed job while its code runs."""

    def __init__(self, claim: Claim, task: Task[..., Any], wake: Callable[[], object]) -> None:
        options = msgspec.json.decode(claim.options or "{}", type=Options)
        self.job = claim.job
        self.job_id = claim.job.id
        self.attempt = claim.job.attempt
        self.options = options
        self.task = task
        self.progress = Progress(
            attempt=self.attempt,
            checkpoint=claim.checkpoint,
            stall_s=options.stall_s,
            wake=wake,
        )
        self.ending = False
        self.why: Why | None = None
        self._args = claim.args
        self._loop = asyncio.get_running_loop()
        self._coroutine: asyncio.Task[Any] | None = None
        self._thread: _Thread | None = None

    def heard(self, answer: str) -> None:
        """The store's word, from the beat thread: 'cancel' or 'lost'."""
        why = Why.LOST if answer == "lost" else Why.CANCEL
        self._loop.call_soon_threadsafe(self.stop, why)

    def stop(self, why: Why) -> None:
        """Make the code stop. The first reason counts, but for a lost lease: that one always."""
        if self.why is Why.LOST or (self.why is not None and why is not Why.LOST):
            return
        self.why = why
        self.progress.stop(why, raises=self._thread is not None)
        if self._coroutine is not None:
            self._coroutine.cancel(why)
        elif self._thread is not None:
            self._loop.call_later(INTERRUPT_S, self._thread.interrupt)

    async def execute(self) -> Settled | _Again | None:
        """Run the code to its end and say what is to be written; None if nothing is."""
        timer = None
        if self.options.timeout_s is not None:
            timer = self._loop.call_later(self.options.timeout_s, self.stop, Why.TIMEOUT)
        try:
            args, kwargs = self.task.decode(self._args)
            value = await self._call(args, kwargs)
            result = to_json(
                value,
                what=f"result of {self.task.name}",
                limit=RESULT_BYTES,
                cure="Store the data elsewhere (a file, a table) and return where it is.",
            )
        except BaseException as error:
            return self._failed(error)
        finally:
            if timer is not None:
                timer.cancel()
        if self.why is Why.LOST:
            return None
        return self._settled(State.SUCCEEDED, result="" if result == "null" else result)

    async def _call(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        first = [self.progress] if self.task.takes_progress else []
        context = copy_context()
        context.run(_current.set, self.progress)
        if self.task.asynchronous:
            coroutine = _contained(self.task.function(*first, *args, **kwargs))
            self._coroutine = self._loop.create_task(
                coroutine, name=f"headway-{self.task.name}", context=context
            )
            await asyncio.wait({self._coroutine})
            return self._coroutine.result()

        def work() -> Any:
            return context.run(self.task.function, *first, *args, **kwargs)

        self._thread = _Thread(work, self._loop, name=f"headway-{self.task.name}")
        return await self._thread.result()

    def _failed(self, error: BaseException) -> Settled | _Again | None:
        match self.why:
            case Why.LOST:
                return None
            case Why.CANCEL:
                return self._settled(State.CANCELLED)
            case Why.DRAIN:
                if self.task.on_lost == "retry" and self.attempt < self.job.max_attempts:
                    return _Again(0)
                return self._settled(State.FAILED, INTERRUPTED)
            case Why.TIMEOUT:
                failure = Failure("timeout", f"Stopped after {self.options.timeout_s:g} seconds")
            case _:
                failure = _failure_of(error, self.job)
        if self.attempt <= self.options.retries:
            return _Again(_backoff(self.attempt), failure)
        return self._settled(State.FAILED, failure)

    def _settled(self, state: State, error: Failure | None = None, *, result: str = "") -> Settled:
        return Settled(
            state,
            self.progress.final(succeeded=state is State.SUCCEEDED),
            result=result,
            error=error,
            lines=self.progress.last_lines(),
        )


def _failure_of(error: BaseException, job: Job) -> Failure:
    if isinstance(error, JobError):
        return Failure(plain(error.code, 60), plain(error, NOTE_CHARS))
    if isinstance(error, TooLarge):
        logger.error("job %s (%s): %s", job.id, job.task, error)
        return Failure("result_too_large", "The result was too large to keep")
    if isinstance(error, BadInput):
        logger.error("job %s (%s): %s", job.id, job.task, error, exc_info=error)
        return Failure("bad_value", "Something went wrong", "A value was not what it should be.")
    logger.error("job %s (%s) failed", job.id, job.task, exc_info=error)
    return CRASHED


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: doubling, with jitter so that a crowd spreads out."""
    longest = min(RETRY_FIRST_S * 2 ** (attempt - 1), RETRY_MAX_S)
    return random.uniform(longest / 2, longest)  # noqa: S311 (no secret hangs on it)


class _Thread:
    """A thread of its own for one run: it can be interrupted, and its end is awaited."""

    def __init__(
        self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop, *, name: str
    ) -> None:
        self._work = work
        self._loop = loop
        self._done: asyncio.Future[Any] = loop.create_future()
        self._lock = threading.Lock()
        self._over = False
        # A daemon: code that will not stop must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    async def result(self) -> Any:
        self._thread.start()
        return await self._done

    def interrupt(self) -> None:
        """Raise `JobCancelled` in the thread, at its next step of Python.

        A call into C that blocks is not interrupted; the exception comes when it returns.
        Source: CPython C API, `PyThreadState_SetAsyncExc`.
        """
        with self._lock:
            if self._over or self._thread.ident is None:
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(JobCancelled)
            )

    def _main(self) -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            try:
                value = self._work()
            except BaseException as caught:  # its owner is the loop: everything goes there
                error = caught
            self._close()
        except JobCancelled as late:  # an interruption that came when the work was just over
            error = error or late
            self._close()
        try:
            self._loop.call_soon_threadsafe(self._tell, value, error)
        except RuntimeError:
            logger.warning("%s ended after its loop was closed", self._thread.name)

    def _close(self) -> None:
        with self._lock:
            self._over = True

    def _tell(self, value: Any, error: BaseException | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(value)
        else:
            self._done.set_exception(_carried(error))


def _carried(error: BaseException) -> BaseException:
    """What of an error may travel through the loop: the others would end it, or a coroutine."""
    if isinstance(error, asyncio.CancelledError):
        return error
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"the task raised {error!r}")


async def _contained(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except SystemExit as error:  # `sys.exit()` in a task ends the task, and not the server
        raise _carried(error) from error


class Runner:
    """Runs jobs of this process and writes how they ended.

    Args:
        drained: after it is set, ends that cannot be written are given up.
    """

    def __init__(self, store: Store, pulse: Pulse, tasks: Tasks, *, lease_s: float) -> None:
        self._store = store
        self._pulse = pulse
        self._tasks = tasks
        self._lease_s = lease_s
        self._runs: dict[str, Run] = {}
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
        """Make every run stop."""
        for run in list(self._runs.values()):
            run.stop(why)

    async def run(self, job_id: str) -> float | None:
        """Run the job if it is to be run and if it is ours to run.

        Returns: seconds after which to call this again, if the job is to have another attempt
            here; else None.

        Raises:
            StoreError: it could not be claimed; call again when the store is back.
        """
        if job_id in self._runs:
            return None
        claim = await self._store.claim(job_id, self._lease_s)
        if claim is None or job_id in self._runs:
            return None
        try:
            task = self._tasks.get(claim.job.task)
        except TaskError as error:
            logger.error("job %s cannot be run here: %s", job_id, error)
            await self._store.release(job_id, claim.job.attempt)
            return None
        run = Run(claim, task, self._pulse.wake)
        self._runs[job_id] = run
        self._pulse.add(run)
        try:
            if claim.job.cancel_requested:
                run.why = Why.CANCEL
            outcome = await run.execute()
            run.ending = True
            return await self._settle(run, outcome)
        finally:
            self._pulse.remove(run)
            del self._runs[job_id]

    async def _settle(self, run: Run, outcome: Settled | _Again | None) -> float | None:
        tries = 0
        while outcome is not None:
            try:
                return await self._write(run, outcome)
            except StoreError as error:
                # The lease may run out meanwhile; then the fence decides, and not we.
                pause = SETTLE_AGAIN_S[min(tries, len(SETTLE_AGAIN_S) - 1)]
                tries += 1
                logger.warning("the end of job %s waits for the store: %s", run.job_id, error)
                if await _set_within(self.gave_up, pause):
                    logger.error("the end of job %s was not written", run.job_id)
                    return None
        return None

    async def _write(self, run: Run, outcome: Settled | _Again) -> float | None:
        if isinstance(outcome, Settled):
            if not await self._store.finish(run.job, outcome):
                logger.warning("job %s was no longer ours when it ended", run.job_id)
            return None
        answer = await self._store.release(
            run.job_id,
            run.attempt,
            delay_s=outcome.delay_s,
            lease_s=self._lease_s,
            progress=run.progress.final(succeeded=False),
            error=outcome.error,
            checkpoint=run.progress.last_checkpoint(),
            lines=run.progress.last_lines(),
        )
        return outcome.delay_s if answer == "ok" and outcome.delay_s else None


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
