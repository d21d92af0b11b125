"""`Opening`: the app-long object, open or not: in an app, in a worker, and where there is no loop.

While it is open it has a `Runtime`, and, if no store was named, the embedded server.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from headway.errors import BadInput, NotOpen
from headway.report import Background
from headway.runtime import Runtime
from headway.server import Server
from headway.settings import Settings
from headway.store import Store
from headway.stream import Streams
from headway.task import Tasks

__all__ = ["Opening"]

logger = logging.getLogger("headway")


class Opening:
    """Opens and closes, once for all who ask for it. `Service` says what it is open for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks = Tasks()
        self._runtime: Runtime | None = None
        self._closing: Runtime | None = None
        self._server: Server | None = None
        self._opened = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._parents: list[object] = []
        self.background = Background(self)
        """Opens it where there is no loop."""
        self.streams = Streams(limits=settings.limits)
        if settings.engine is not None:
            settings.engine.bind(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which it is open in this process; None while it is not."""
        return self._loop if self._pid == os.getpid() else None

    def runtime(self, act: str) -> Runtime:
        """What lives while it is open; for rooms of Headway.

        Raises:
            NotOpen: it is not; the message says that one cannot *act*.
        """
        return self._open_runtime(act)

    def _open_runtime(self, act: str) -> Runtime:
        if self._runtime is None:
            raise NotOpen(act)
        return self._runtime

    @property
    def workers(self) -> str | None:
        """The command that starts a worker; None if jobs run in the processes that accept them."""
        return self._settings.engine.workers if self._settings.engine is not None else None

    def check_workers(self) -> None:
        """Raises BadInput if there is nothing for a worker to do."""
        if self.workers is None:
            raise BadInput(
                "the jobs of this Headway run in the processes that accept them, so there is "
                "nothing for a worker to do. Give it an engine: Headway(engine=TaskiqEngine(…))"
            )

    async def __aenter__(self) -> Self:
        """Open: connect, start to run and to watch. Opening twice is counted.

        Raises:
            ServerError: the embedded Valkey cannot run here; the message says what to set.
            StoreUnavailable: the store does not answer.
        """
        if self._pid != os.getpid():
            self._leave_to_parent()
        self._opened += 1
        if self._opened == 1:
            try:
                await self._open()
                self._loop = asyncio.get_running_loop()
            except BaseException:
                self._opened = 0
                await self._close_server()
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: hand over or end what runs, within about *drain_s* and a second."""
        self._opened -= 1
        if self._opened:
            return
        self._loop = None
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            self._closing = runtime
            await runtime.aclose()
            self._closing = None
        await self._close_server()

    def _leave_to_parent(self) -> None:
        # A forked child finds it open, but the loop and the threads are its parent's. They are
        # kept: what the collector made of them would be felt through the sockets that both have.
        self._parents += [self._runtime, self._closing, self._server, self._loop]
        self._runtime = self._closing = self._server = self._loop = None
        self._opened, self._pid = 0, os.getpid()

    def __enter__(self) -> Self:
        """Open it where there is no loop, in a thread of its own: reports in the block, and those
        of other threads, find it open. Blocks, and raises what `async with` does.

        Raises:
            BadInput: a loop runs in this thread: `async with` is meant.
        """
        self.background.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.background.leave()

    @asynccontextmanager
    async def working(
        self, *, concurrency: int | None = None, drain_s: float | None = None
    ) -> AsyncIterator[Self]:
        """Open as a worker: run here what its engine brings. What `headway worker` does.

        Args:
            concurrency: jobs that run here at a time; else that of the `Headway`.
            drain_s: seconds that running jobs get when the block ends; else that of the `Headway`.

        Raises:
            BadInput: its jobs run in the processes that accept them, and there are no workers.
        """
        self.check_workers()
        settings = self._settings
        self._settings = replace(
            settings,
            works=True,
            concurrency=settings.concurrency if concurrency is None else concurrency,
            drain_s=settings.drain_s if drain_s is None else drain_s,
        )
        try:
            async with self:
                yield self
        finally:
            self._settings = settings

    def hurry(self) -> None:
        """While it closes: do not wait any longer for what runs, but stop it."""
        if self._closing is not None:
            self._closing.hurry()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For `lifespan=` of Starlette, FastAPI and others: open while the app serves."""
        async with self:
            yield

    async def _open(self) -> None:
        settings, revive = self._settings, None
        url = settings.url
        if url is None:
            self._server = Server(settings.folder)
            url, revive = await asyncio.to_thread(self._server.open), self._server.open
        runtime = Runtime(settings, self._tasks, self.streams, url, revive)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runtime.link.aclose)
            await runtime.open()
            stack.pop_all()
        self._runtime = runtime
        if settings.url is not None:
            await self._warn_of_eviction(runtime.store)

    async def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.close)

    async def _warn_of_eviction(self, store: Store) -> None:
        policy = await store.eviction_policy()
        if policy is not None and policy != "noeviction":
            logger.warning(
                "the store evicts keys when its memory is full (maxmemory-policy %s): jobs can "
                "vanish. Set it to noeviction, or give Headway a store of its own.",
                policy,
            )
