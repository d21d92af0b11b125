"""Work that somebody else runs, as a job: a script, cron, a notebook, a task of another queue.

The code in the block is its own master: it is not started, retried or moved by Headway. But it has
a record, a lease, a bar, and can be asked to stop. Inside, a coroutine of ours stands for it, so
that the runner treats it like all others.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

import msgspec

from headway.errors import AlreadyRunning, BadInput, JobCancelled, JobError, NotOpen
from headway.intake import record_of
from headway.job import PARTITIONS, REPORT, State, flight_of, new_id
from headway.progress import Progress, _current
from headway.run import INTERRUPTED
from headway.runtime import Runtime
from headway.task import Start, make_task
from headway.work import INTERRUPT_S, carried, interrupt_thread

__all__ = ["Background", "Host", "Report", "report_start", "stopped"]

T = TypeVar("T")

LOOK_S: Final = 1.0  # between two looks whether the loop that a thread waits for is still there
STOPPED: Final = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)

logger = logging.getLogger("headway.report")


class Host(Protocol):
    """Where reports are kept: `Headway`."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which it is open."""

    @property
    def background(self) -> Background:
        """Opens it where there is no loop."""

    def runtime(self, act: str) -> Runtime:
        """What lives while it is open."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *error: Any) -> None: ...


class Report:
    """See `Headway.report()`. For one block, `with` or `async with`."""

    def __init__(self, host: Host, start: Start) -> None:
        self._host = host
        self._start = start
        self._stand: _Stand | None = None
        self._pid = 0
        self._token: Any = None

    # ── with a loop ───────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Progress:
        body = _Coroutine()
        stand = self._stand = _Stand(self._host.runtime("report"), self._start, body)
        try:
            progress = await stand.begin()
        except asyncio.CancelledError as error:
            await self._over(stand, body, error)
            raise
        self._token = _current.set(progress)
        return progress

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stand = self._stand
        assert stand is not None
        assert isinstance(stand.body, _Coroutine)
        _put_back(self._token)
        await self._over(stand, stand.body, error)
        _restore(error, trace)

    async def _over(self, stand: _Stand, body: _Coroutine, error: BaseException | None) -> None:
        why = body.leave()
        await asyncio.shield(asyncio.ensure_future(stand.end(error, why)))
        if why is not None and not body.torn and isinstance(error, asyncio.CancelledError):
            raise JobCancelled(why) from None

    # ── without one ───────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Progress:
        away, self._pid = self._host.background, os.getpid()
        away.enter()
        try:
            progress = away.call(self._began(_Thread()))
            if progress is None:
                raise JobCancelled("cancel")
        except BaseException as error:
            self._left(error)
            raise
        # A generator that nobody closes is closed when no thread of ours runs any more.
        atexit.register(self._left_open)
        self._token = _current.set(progress)
        return progress

    async def _began(self, body: _Thread) -> Progress | None:
        self._stand = _Stand(self._host.runtime("report"), self._start, body)
        try:
            return await self._stand.begin()
        except JobCancelled:  # in a future it would become another exception
            return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left(error)
        atexit.unregister(self._left_open)
        _put_back(self._token)
        _restore(error, trace)

    def _left(self, error: BaseException | None) -> None:
        try:
            self._end(error)
        finally:
            self._host.background.leave()

    def _left_open(self) -> None:
        """The interpreter exits."""
        self._end(GeneratorExit())
        self._stand = None

    def _end(self, error: BaseException | None) -> None:
        away, stand = self._host.background, self._stand
        if stand is None or self._pid != os.getpid():  # a fork leaves it, but its parent has not
            return
        try:
            away.call(stand.end(error, stand.body.leave()))
        except NotOpen:
            logger.warning("a block of report() outlived Headway, so its end was not written")


def _put_back(token: Any) -> None:
    # A generator that was not used up is closed in whatever context: nothing was set in that one.
    with suppress(ValueError):
        _current.reset(token)


def _restore(error: BaseException | None, trace: TracebackType | None) -> None:
    # It was raised in the run, too, which is no part of its way through the block's code.
    if error is not None:
        error.__traceback__ = trace


class _Coroutine:
    """The block, in the task that entered it: it is cancelled like any other."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._why: str | None = None
        self._over = False
        self.torn = False
        """Somebody else has cancelled it, too."""

    def stop(self, why: str, progress: Progress) -> None:
        if not self._over:
            self._why = why
            self._task.cancel(why)

    def leave(self) -> str | None:
        """The block is over. Returns why it was stopped, if it was."""
        if self._why is not None and not self._over:
            self.torn = self._task.uncancel() > self._cancelling
        self._over = True
        return self._why


class _Thread:
    """The block, in a thread: told by its next report, or else interrupted, as `ThreadWork` is."""

    def __init__(self) -> None:
        self._ident = threading.get_ident()
        self._lock = threading.Lock()
        self._why: str | None = None
        self._over = False

    def stop(self, why: str, progress: Progress) -> None:
        self._why = why
        progress.stop(why, raises=True)
        asyncio.get_running_loop().call_later(INTERRUPT_S, self._interrupt, progress)

    def _interrupt(self, progress: Progress) -> None:
        with self._lock:
            if not (self._over or progress.told(self._ident)):
                interrupt_thread(self._ident)

    def leave(self) -> str | None:
        """The block is over. Returns why it was stopped, if it was."""
        try:
            self._close()
        except JobCancelled:  # an interruption that came when it was just over
            self._close()
        return self._why

    def _close(self) -> None:
        with self._lock:
            self._over = True


class _Stand:
    """Stands for the block in the runner, from the claim to the end."""

    def __init__(self, runtime: Runtime, start: Start, body: _Coroutine | _Thread) -> None:
        self.body = body
        self._runtime = runtime
        self._start = start
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Progress] = loop.create_future()
        self._over: asyncio.Future[BaseException | None] = loop.create_future()
        self._run: asyncio.Task[Any] | None = None

    async def begin(self) -> Progress:
        """Accept the job, and claim it.

        Raises:
            AlreadyRunning: a job has its key.
            JobCancelled: it was cancelled before it could begin.

        Cancel: call `end()`. What was accepted has ended then, or else its lease runs out.
        """
        start, runtime = self._start, self._runtime
        flight = flight_of(REPORT, start.owner, start.key) if start.key is not None else None
        job_id = start.job_id or new_id(PARTITIONS, flight=flight)
        # It runs as soon as it exists: nobody else could ever run it, or end it, if we died here.
        record = {**record_of(start, start.owner), "begun": "1"}
        job = await runtime.store.create(job_id, record, runtime.lease_s, flight)
        if job.reused:
            raise AlreadyRunning(job.id)
        task = make_task(self._stood, _nowhere, name=REPORT)
        self._run = runtime.visit(runtime.runner.run(job.id, task))
        await asyncio.wait({self._run, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._ready.done():
            return self._ready.result()
        await self._run
        if start.job_id is None or await self._was_cancelled(start.job_id):
            raise JobCancelled("cancel")
        # A job of this id runs elsewhere, or has ended: the same work comes once more.
        self._start = msgspec.structs.replace(start, job_id=None)
        return await self.begin()

    async def _was_cancelled(self, job_id: str) -> bool:
        job = (await self._runtime.store.get_all([job_id], strict=False)).get(job_id)
        return job is not None and job.state is State.CANCELLED

    async def _stood(self, progress: Progress) -> None:
        self._ready.set_result(progress)
        try:
            error = await asyncio.shield(self._over)
        except asyncio.CancelledError:
            self.body.stop(progress.stopped or "lost", progress)
            error = await asyncio.shield(self._over)
        if error is not None:
            raise error

    async def end(self, error: BaseException | None, why: str | None) -> None:
        """The block is over: write how it ended. *why* it was stopped, if it was."""
        if why is None and isinstance(error, STOPPED):
            error = stopped()
        elif isinstance(error, SystemExit) and not error.code:
            error = None
        self._over.set_result(carried(error) if error is not None else None)
        if self._run is not None:
            await self._run


def stopped() -> JobError:
    """What the job of a block says that was left before its end, and not by an error."""
    return JobError("This was stopped before its end", code=INTERRUPTED.code)


def report_start(
    title: str,
    *,
    owner: str | None = None,
    key: str | None = None,
    stall_s: float | None = None,
    job_id: str | None = None,
) -> Start:
    """What is wanted of a report, checked as that of a task.

    Args:
        job_id: what the job is to be called, unless there is such a job already.
    """
    task = make_task(_nothing, _nowhere, name=REPORT, stall_s=stall_s)
    start = task.using(title=title, owner=owner, key=key).start_of()
    return msgspec.structs.replace(start, job_id=job_id)


def _nothing() -> None:
    """A report has no code of its own."""


async def _nowhere(start: Start) -> Any:
    raise BadInput("a report is not started by its task; see Headway.report()")


class Background:
    """A loop in a thread of its own, on which a Headway is open while anybody needs it.

    Where it is open on a loop already, that one is used.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        """Open it, for the first one. Blocks.

        Raises:
            BadInput: this is a thread whose loop runs; it must not be blocked.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise BadInput(
                "a loop runs here and may not be blocked: write 'async with', not 'with'"
            )
        if self._pid != os.getpid():  # a fork: the thread, and who holds the lock, are the parent's
            self._forget()
        with self._lock:
            if self._users == 0:
                self._loop = self._host.loop or self._started()
            self._users += 1

    def leave(self) -> None:
        """Close it, for the last one. Blocks."""
        if self._pid != os.getpid() or not self._users:  # the parent's, left by a fork
            return
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._thread is not None:
                self._stop()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on that loop, and wait for it. If the wait is interrupted, it is cancelled.

        Raises:
            NotOpen: the loop was closed meanwhile.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            coroutine.close()
            raise NotOpen("report")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            while not wait({future}, timeout=LOOK_S).done:
                if loop.is_closed():
                    raise NotOpen("report")
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        # A daemon: a script that dies in the block must be able to.
        self._thread = threading.Thread(target=loop.run_forever, name="headway-loop", daemon=True)
        self._thread.start()
        try:
            self.call(self._host.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        atexit.register(self._forget)  # then it cannot be closed any more: executors are gone
        return loop

    def _stop(self) -> None:
        atexit.unregister(self._forget)
        try:
            self.call(self._host.__aexit__(None, None, None))
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._thread
        assert loop is not None
        assert thread is not None
        self.call(loop.shutdown_default_executor())
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
