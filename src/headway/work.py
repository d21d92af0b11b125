"""The code of a run while it runs on the loop or in a thread.

A `Work` is begun once, comes to one end, and can be asked to stop. What it returns is its result
as JSON; what it raises is for the runner to judge. The work of a child process is in `process`.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, Protocol

from headway.errors import JobCancelled
from headway.job import to_json
from headway.progress import Progress, _current
from headway.pulse import Source
from headway.task import Task

__all__ = ["CoroutineWork", "ThreadWork", "Work", "carried", "interrupt_thread", "result_json"]

INTERRUPT_S: Final = 0.3  # what a thread gets to notice by itself that it was asked to stop

logger = logging.getLogger("headway.work")


class Work(Protocol):
    """Code that runs."""

    @property
    def source(self) -> Source:
        """What it reports."""

    async def result(self) -> str:
        """Begin, and wait for the end. Raises what the code raised.

        Cancel: the code is not stopped by it; call again to wait on.
        """

    def stop(self, why: str) -> None:
        """Ask it to stop. Called at most once, after `result()` has begun."""


def result_json(task: str, value: Any, limit: int) -> str:
    """What a task returned, as JSON of at most *limit* bytes.

    Raises:
        BadInput: it is no JSON, or too large; the message says what to do.
    """
    return to_json(
        value,
        what=f"result of {task}",
        limit=limit,
        cure="Store the data elsewhere (a file, a table) and return where it is.",
    )


class _Call:
    """A task's function with its arguments, in a context where its `Progress` is found."""

    def __init__(
        self, task: Task[..., Any], args: str, progress: Progress, context: Context
    ) -> None:
        given, named = task.decode(args)
        self._task = task
        self._args = [progress, *given] if task.takes_progress else given
        self._kwargs = named
        self.context = context
        self.context.run(_current.set, progress)

    def __call__(self) -> Any:
        return self._task.function(*self._args, **self._kwargs)


class CoroutineWork:
    """An `async def` task, on the loop that made this."""

    def __init__(self, task: Task[..., Any], args: str, progress: Progress) -> None:
        self.source = progress
        self._task = task
        self._args = args
        self._running: asyncio.Task[Any] | None = None
        self._torn = False

    async def result(self) -> str:
        if self._running is None:
            call = _Call(self._task, self._args, self.source, copy_context())
            self._running = asyncio.get_running_loop().create_task(
                _contained(call), name=f"headway-{self._task.name}", context=call.context
            )
        try:
            await asyncio.wait({self._running})
        except asyncio.CancelledError:
            self._torn = True  # whoever cancels us cancels all there is: the code has it already
            raise
        limit = self.source.limits.result_bytes
        return result_json(self._task.name, self._running.result(), limit)

    def stop(self, why: str) -> None:
        self.source.stop(why, raises=False)
        if self._running is not None and not self._torn:
            self._running.cancel(why)


class ThreadWork:
    """A `def` task, in a thread of its own: it can be interrupted, and its end is awaited."""

    def __init__(self, task: Task[..., Any], args: str, progress: Progress) -> None:
        self.source = progress
        self._task = task
        self._args = args
        self._context = copy_context()  # a thread has none of its own
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[str] = self._loop.create_future()
        self._lock = threading.Lock()
        self._over = False
        # A daemon: code that will not stop must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name=f"headway-{task.name}", daemon=True)

    async def result(self) -> str:
        if self._thread.ident is None:
            self._thread.start()
        return await asyncio.shield(self._done)

    def stop(self, why: str) -> None:
        self.source.stop(why, raises=True)
        self._loop.call_later(INTERRUPT_S, self._interrupt)

    def _interrupt(self) -> None:
        with self._lock:
            # Code that was told by a call of `Progress` is cleaning up, and must not be disturbed.
            ident = self._thread.ident
            if not (self._over or ident is None or self.source.told(ident)):
                interrupt_thread(ident)

    def _main(self) -> None:
        result, error = "", None
        try:
            try:
                call = _Call(self._task, self._args, self.source, self._context)
                limit = self.source.limits.result_bytes
                result = result_json(self._task.name, call.context.run(call), limit)
            except BaseException as caught:  # its owner is the loop: everything goes there
                error = carried(caught)
            self._close()
        except JobCancelled as late:  # an interruption that came when the work was just over
            error = error or late
            self._close()
        try:
            self._loop.call_soon_threadsafe(self._tell, result, error)
        except RuntimeError:
            logger.warning("%s ended after its loop was closed", self._thread.name)

    def _close(self) -> None:
        with self._lock:
            self._over = True

    def _tell(self, result: str, error: BaseException | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(result)
        else:
            self._done.set_exception(error)


def interrupt_thread(ident: int) -> None:
    """Raise `JobCancelled` in a thread, at its next step of Python.

    A call into C that blocks is not interrupted; the exception comes when it returns. Delivered on
    the backward jump of a `while`, it can pass by the `finally` around that loop (CPython 3.11 to
    3.13, seen with each of them): so a call of `Progress` raises first, and this comes after it.
    Source: CPython C API, `PyThreadState_SetAsyncExc`.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(JobCancelled)
    )


def carried(error: BaseException) -> BaseException:
    """What of an error may travel through the loop: the others would end it, or a coroutine."""
    if isinstance(error, asyncio.CancelledError):
        return error
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the task raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


async def _contained(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    # Called here and not before: a task that is cancelled before its first step never gets here.
    try:
        return await call()
    except SystemExit as error:  # `sys.exit()` in a task ends the task, and not the server
        raise carried(error) from error
