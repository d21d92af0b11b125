"""Celery, with Redis as broker and for the results. It works in processes of its own only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from celery import Celery
from redis import Redis

from bench.peers.contract import store_url, tool

PREFETCH: Final = 64  # what its guide advises for many short tasks
WAIT_S: Final = 30.0


def nothing() -> None:
    """A task that does nothing."""


def _app(url: str) -> Any:
    app: Any = Celery("bench", broker=url, backend=_results(url))
    app.task(nothing, name="nothing")
    return app


def _results(url: str) -> str:
    """A database that is not the broker's: what is in it can be counted."""
    server, _, number = url.rpartition("/")
    return f"{server}/{int(number) + 2}"


class CeleryPeer:
    """See `Peer`."""

    def __init__(self, *, tuned: bool = False) -> None:
        self.name = "Celery"
        self.tuning = f"fetches {PREFETCH} ahead" if tuned else ""
        self._started = 0

    @asynccontextmanager
    async def opened(self, url: str, *, works: bool) -> AsyncIterator[None]:
        if works:
            raise ValueError("Celery cannot work on an event loop")
        app = _app(url)
        self._nothing = app.tasks["nothing"]
        self._results = f"db{_results(url).rpartition('/')[2]}"
        with Redis.from_url(url) as store:
            self._started = self._ended(store)
        try:
            yield
        finally:
            app.close()

    async def start(self) -> Any:
        self._started += 1
        # It blocks for a round trip; in a web app that is for a thread.
        return await asyncio.to_thread(self._nothing.delay)

    async def start_long(self, seconds: float, every_s: float) -> Any:
        raise NotImplementedError

    async def ended(self, job: Any) -> None:
        await asyncio.to_thread(job.get, timeout=WAIT_S)

    async def watch(self, job: Any) -> None:
        raise NotImplementedError

    def left(self, store: Redis) -> int:
        return self._started - self._ended(store)

    def _ended(self, store: Redis) -> int:
        """How many results are kept; a task that returns None has one, too."""
        found: dict[str, Any] = store.info("keyspace")
        return int(found.get(self._results, {"keys": 0})["keys"])

    def worker(self, url: str) -> Sequence[str]:
        command = [tool("celery"), "--app", __name__, "worker", "--loglevel", "WARNING"]
        return [*command, *(["--prefetch-multiplier", str(PREFETCH)] if self.tuning else [])]


if (URL := store_url()) is not None:  # this is a worker
    app = _app(URL)
