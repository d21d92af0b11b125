"""Tasks of a Celery app that Headway did not start, and that report all the same.

Around the code of each of them stands a `_Stay`. It costs next to nothing until the code asks for
`current_progress()`: then the task is a job, from there to its end.

Not by Celery's signals: a `JobCancelled` is no `Exception`, and must be kept from Celery, which may
lose a process by it. They cannot do that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper
from types import TracebackType
from typing import Any, Final

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, Retry

from headway.errors import HeadwayError, JobCancelled, JobError, StoreError
from headway.job import PARTITIONS, id_of
from headway.progress import Progress, _beginning, _current
from headway.report import Report, stopped

__all__ = ["attend", "job_id_of"]

FAILED: Final = "Something went wrong"
STORE_AGAIN_S: Final = 1.0

logger = logging.getLogger("headway.engine")

Reports = Callable[[Task], Report]
"""Makes the job of a task that runs now, ready to be begun."""


def job_id_of(task_id: str, retries: int = 0) -> str:
    """The id of the job of a Celery task: as hard to guess as that task's own id."""
    return id_of(PARTITIONS, f"celery\n{task_id}\n{retries}")


def attend(app: Celery, reports: Reports, *, without: str) -> None:
    """Let all tasks of *app* report, those too that are made before a worker begins.

    Args:
        without: the name of the task that brings Headway's own jobs.
    """

    def attend_all(**_: object) -> None:
        for name, task in app.tasks.items():
            if name != without and not isinstance(task.run, _Code):
                # On the task itself, as Celery's own autoretry does: what traces it finds it there.
                task.run = _Code(task, reports)

    app.on_after_finalize.connect(attend_all, weak=False)
    signals.worker_init.connect(attend_all, weak=False)
    if app.finalized:
        attend_all()


class _Code:
    """The code of a task, and what stands around it while it runs."""

    def __init__(self, task: Task, reports: Reports) -> None:
        self._task = task
        self._run: Callable[..., Any] = task.run
        self._reports = reports
        update_wrapper(self, self._run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Called by other code it is a function like any other, and part of that code's job.
        inside = _beginning.get() is not None or _current.get(None) is not None
        if inside or self._task.request.called_directly:
            return self._run(*args, **kwargs)
        stay = _Stay(self._task, self._reports)
        token = _beginning.set(stay.begin)
        try:
            # Twice: an interruption that comes late can hit the first exit before its first step.
            with stay, stay:
                return self._run(*args, **kwargs)
        except JobCancelled as error:
            raise stay.given_up() from error
        finally:
            _beginning.reset(token)


class _Stay:
    """One run of a task. It has a job from when it first asks for one, and that ends with it."""

    def __init__(self, task: Task, reports: Reports) -> None:
        self._task = task
        self._reports = reports
        self._ident = threading.get_ident()
        self._report: Report | None = None
        self._progress: Progress | None = None
        self._over = False

    def begin(self) -> Progress | None:
        """The progress of the task's job, which begins if it has not; None where none can.

        Raises:
            HeadwayError: a loop runs in this thread, and beginning would block it.
            JobCancelled: it was cancelled before it could begin.
        """
        if self._over:  # a thread of the task's has outlived it
            return None
        if self._progress is None:
            if threading.get_ident() != self._ident:  # the one that is told of a cancel
                return None
            _refuse_loop()
            self._begin()
        return self._progress

    def _begin(self) -> None:
        while True:
            report = self._reports(self._task)
            try:
                self._progress = report.__enter__()
            except StoreError as error:  # as with Headway's own jobs: work waits, and does not fail
                logger.warning("task %s waits for the store: %s", self._task.request.id, error)
                time.sleep(STORE_AGAIN_S)
            else:
                self._report = report
                return

    def __enter__(self) -> None:
        """Nothing is done before it is asked for."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        if self._report is not None:
            said = _said(error)
            self._report.__exit__(type(said) if said is not None else None, said, trace)
            self._report = None

    def given_up(self) -> Exception:
        """What Celery is told of a task that was stopped: never that it should try again."""
        why = self._progress.stopped if self._progress is not None else "cancel"
        if why not in {None, "cancel"}:
            return HeadwayError(f"the job of this task was stopped before its end: {why}")
        task, request = self._task, self._task.request
        if not request.is_eager:
            task.backend.mark_as_revoked(
                request.id, "cancelled", request=request, store_result=not request.ignore_result
            )
        ignored: Exception = Ignore("cancelled")
        return ignored


def _said(error: BaseException | None) -> BaseException | None:
    """What the job says of an exception that leaves its task."""
    if isinstance(error, Retry):
        words = str(error.exc) if isinstance(error.exc, JobError) else FAILED
        said = JobError(f"{words} (it will be tried again)", code="retry")
    elif isinstance(error, Ignore | Reject) or (isinstance(error, SystemExit) and error.code):
        said = stopped()
    else:
        return error
    said.__cause__ = error
    return said


def _refuse_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise HeadwayError(
            "current_progress() begins a job here, and waits for the store: the loop that runs in "
            "this thread may not be blocked. Call it once before the loop is started, as by "
            "asyncio.run(); or start an eager task from a thread: asyncio.to_thread(task.delay)."
        )
