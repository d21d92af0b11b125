"""Jobs in the workers of a Celery app that is there already: prefork and threads.

Celery's workers know no event loop, so each process that runs tasks gets a thread with one, in
which the app's `Headway` is open. The Celery task only waits there until the job is over, and so
holds its place in the pool. The app's own tasks report there, too: see `_celery_tasks`.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, closing
from functools import partial
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]
from queue import SimpleQueue
from typing import Any, Final

from celery import Celery, Task, signals

from headway.access import name_of
from headway.engine import Workplace
from headway.engines._celery_tasks import attend, job_id_of
from headway.errors import BadInput, StoreError
from headway.remote import RESEND_S, RemoteEngine
from headway.report import Report, report_start
from headway.service import Service
from headway.task import title_of

__all__ = ["CeleryEngine"]

CLOSE_S: Final = 10.0  # more than a Headway takes to close, without its drain_s
STORE_AGAIN_S: Final = 1.0

logger = logging.getLogger("headway.engine")

Working = Callable[[], AbstractAsyncContextManager[object]]


class CeleryEngine(RemoteEngine):
    """Runs jobs in the workers of *app*, which are started with `celery worker` as before.

    The app's other tasks stay as they are, and may report: when one of them first asks for
    `current_progress()`, it becomes a job, which ends as the task does.

    Args:
        app: the Celery app. It gets one task, which saves no result and is acknowledged early.
        name: of that task; apps that share a broker need one each.
        queue: where its messages go; the app's routes and defaults say, if it is not given.
        owner: tells who may watch and cancel the job of another task, given Celery's request of
            it: `lambda request: request.kwargs.get("user")`. None: operators only.
        resend_s: seconds after which a message that nobody has acted upon is taken for lost, for
            the first time.
    """

    workers = "celery --app MODULE worker"

    def __init__(
        self,
        app: Celery,
        *,
        name: str = "headway.run",
        queue: str | None = None,
        owner: Callable[[Any], object] | None = None,
        resend_s: float = RESEND_S,
    ) -> None:
        super().__init__(resend_s=resend_s)
        self._app = app
        self._options: dict[str, Any] = {} if queue is None else {"queue": queue}
        self._inside: _Inside | None = None
        self._lock = threading.Lock()
        self._headway: Service | None = None
        self._owner = owner
        self._sender = _Sender(self._publish)

        def run(job_id: str, attempt: int) -> None:
            self._here().run(partial(self._deliver, job_id, attempt))

        self._task = app.task(
            run,
            name=name,
            shared=False,
            ignore_result=True,
            acks_late=False,
            serializer="json",
            max_retries=0,
        )
        for ending in (signals.worker_process_shutdown, signals.worker_shutdown):
            ending.connect(self._end, weak=False)
        attend(app, self._report, without=name)

    def bind(self, headway: Service) -> None:
        """Remember what is to be opened in a process of the pool."""
        self._headway = headway

    @staticmethod
    def job_id(task_id: str) -> str:
        """The id of the job that a task of your own becomes: `engine.job_id(result.id)`.

        There is no such job before the task has asked for `current_progress()`. When Celery brings
        a task again, for a retry or because a worker died, that is a job of another id.
        """
        return job_id_of(task_id)

    # ── in the web process ────────────────────────────────────────────────────────────────────

    async def serve(self, place: Workplace) -> None:
        """Begin to send. All tasks of the app are known by now, so that eager ones report, too."""
        self._app.finalize()
        await super().serve(place)

    async def _connect(self, place: Workplace) -> None:
        """Celery connects when it sends."""

    async def _send(self, job_id: str, attempt: int) -> None:
        await asyncio.wrap_future(self._sender.send(job_id, attempt))

    def _publish(self, job_id: str, attempt: int) -> None:
        self._task.apply_async((job_id, attempt), retry=False, **self._options)

    # ── in a process of Celery's ──────────────────────────────────────────────────────────────

    async def _listen(self, place: Workplace) -> None:
        """Celery does, and calls the task."""
        await asyncio.Event().wait()

    def _here(self) -> _Inside:
        """The thread of this process, in which the `Headway` is open; made at the first job."""
        with self._lock:
            here = self._inside
            if here is None or here.failed or here.pid != os.getpid():
                here = self._inside = _Inside(self._bound.working)
            return here

    @property
    def _bound(self) -> Service:
        if self._headway is None:
            raise BadInput("this CeleryEngine was not given to a Headway: engine=…")
        return self._headway

    def _report(self, task: Task) -> Report:
        """A job for a task that Headway did not start, and that runs here and now."""
        headway, request = self._bound, task.request
        start = report_start(
            request.shadow or title_of(task.name),
            owner=name_of("owner", self._owner(request)) if self._owner is not None else None,
            job_id=job_id_of(request.id, request.retries),
        )
        if not request.is_eager:
            self._here().wait()  # stays open for the tasks that come after this one
        return Report(headway, start)

    def _end(self, **_: object) -> None:
        with self._lock:
            inside, self._inside = self._inside, None
        if inside is not None and inside.pid == os.getpid():
            inside.close()


class _Sender:
    """A thread that sends one message after another: a broker that hangs holds it, and no more.

    Not one of an executor: for those a process waits when it ends.
    """

    def __init__(self, publish: Callable[[str, int], None]) -> None:
        self._publish = publish
        self._asked: SimpleQueue[tuple[Future[None], str, int]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, job_id: str, attempt: int) -> Future[None]:
        """Cancelled before it is its turn, the message is not sent. Called by the loop only."""
        if self._thread is None or not self._thread.is_alive():  # as after a fork
            self._thread = threading.Thread(target=self._serve, name="headway-send", daemon=True)
            self._thread.start()
        sent: Future[None] = Future()
        self._asked.put((sent, job_id, attempt))
        return sent

    def _serve(self) -> None:
        while True:
            sent, job_id, attempt = self._asked.get()
            if not sent.set_running_or_notify_cancel():
                continue
            try:
                self._publish(job_id, attempt)
            except BaseException as error:
                sent.set_exception(error)
            else:
                sent.set_result(None)


class _Inside:
    """A thread with an event loop, in which the `Headway` of a worker is open."""

    def __init__(self, working: Working) -> None:
        self.pid = os.getpid()
        self._working = working
        self._loop = asyncio.new_event_loop()
        self._opened: Future[None] = Future()
        self._closing = asyncio.Event()
        _let_spawn()
        self._thread = threading.Thread(target=self._serve, name="headway-loop", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether it cannot be opened, and not only because the store is away."""
        return self._opened.done() and self._opened.exception() is not None

    def wait(self) -> None:
        """Return when the `Headway` is open. Waits for the store, too."""
        self._opened.result()

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it in the loop of the thread, and wait until it is done."""
        self.wait()
        asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    def close(self) -> None:
        """Close the `Headway`; what still runs is handed over, or fails, as it does elsewhere."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(CLOSE_S)

    def _serve(self) -> None:
        with closing(self._loop):
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._live())

    async def _live(self) -> None:
        while not self._closing.is_set():
            try:
                async with self._working():
                    self._opened.set_result(None)
                    await self._closing.wait()
            except StoreError as error:
                logger.warning("a worker of Celery waits for the store: %s", error)
                await asyncio.sleep(STORE_AGAIN_S)
            except Exception as error:
                if self._opened.done():
                    logger.exception("a worker of Celery was not closed in order")
                else:
                    self._opened.set_exception(error)
                return


def _let_spawn() -> None:
    """Let `multiprocessing` start children in a process that billiard has made, for run="process".

    It hands its secret on to them, and refuses to with one of billiard's type.
    """
    config: dict[str, Any] = getattr(multiprocessing.current_process(), "_config", {})
    if "authkey" in config:
        config["authkey"] = AuthenticationString(config["authkey"])
