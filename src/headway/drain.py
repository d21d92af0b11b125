"""Notices that the server is about to stop, while its streams are still open.

ASGI tells an app of the shutdown only after the connections have ended, and an event stream does
not end by itself: so every open tab would block the stop. This watches for the signal instead.
It replaces nothing: signal handlers are wrapped and called, and put back afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, cast

__all__ = ["Drain"]

POLL_S: Final = 0.25
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("headway.drain")

Handler = Callable[[int, FrameType | None], Any]


class Drain:
    """Calls back, once and in the loop, when the server begins to stop.

    uvicorn, granian and `quart run` are heard by their signal; uvicorn's max-requests and
    hypercorn's workers, which get no signal, by looking at what they set instead.
    """

    def __init__(self, on_drain: Callable[[], None]) -> None:
        self._on_drain = on_drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: dict[int, Handler] = {}
        self._poll: asyncio.Task[None] | None = None
        self.draining = False

    def open(self) -> None:
        """Begin to watch. Outside of the main thread only what needs no signal is watched."""
        self._loop = asyncio.get_running_loop()
        if (stopping := _hypercorn_probe()) is not None:
            self._shield(stopping)
        probes = [p for p in (stopping, *self._wrap_signals()) if p is not None]
        if probes:
            self._poll = asyncio.create_task(self._look(probes), name="headway-drain")

    async def aclose(self) -> None:
        """Put back the handlers that are still ours."""
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._hear:
                with suppress(ValueError):
                    signal.signal(number, previous)
        self._previous.clear()
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait({self._poll})

    def _wrap_signals(self) -> list[Callable[[], bool] | None]:
        probes: list[Callable[[], bool] | None] = []
        for number in SIGNALS:
            previous = signal.getsignal(number)
            if not callable(previous) or previous is signal.default_int_handler:
                continue
            try:
                signal.signal(number, self._hear)
            except ValueError:  # not the main thread
                return probes
            self._previous[number] = previous
            probes.append(_uvicorn_probe(previous))
        return probes[:1]

    def _shield(self, stopping: Callable[[], bool]) -> None:
        """Of several workers, hypercorn kills those that still drain once a first one has ended."""

        def die_unless_stopping(number: int, _: FrameType | None) -> None:
            if not stopping():
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            with suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, die_unless_stopping)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)
        previous = self._previous.get(number)
        if previous is not None:
            previous(number, frame)

    def _begin(self) -> None:
        if not self.draining:
            self.draining = True
            self._on_drain()

    async def _look(self, probes: list[Callable[[], bool]]) -> None:
        while not self.draining:
            await asyncio.sleep(POLL_S)
            try:
                if any(probe() for probe in probes):
                    self._begin()
            except Exception:  # these are the insides of others, and may change
                logger.warning("the server's shutdown can only be heard by signal", exc_info=True)
                return


def _uvicorn_probe(handler: Handler) -> Callable[[], bool] | None:
    # uvicorn's handler is a method of its Server. At max-requests it closes its listeners, and
    # nothing else tells of it.
    server = getattr(handler, "__self__", None)
    if not hasattr(server, "should_exit"):
        return None

    def stopping() -> bool:
        listeners = getattr(server, "servers", [])  # it gets them after the app has started
        closed = bool(listeners) and not any(one.is_serving() for one in listeners)
        return bool(getattr(server, "should_exit", False)) or closed

    return stopping


def _hypercorn_probe() -> Callable[[], bool] | None:
    # A worker of hypercorn waits for an event that its parent sets.
    kwargs = getattr(multiprocessing.current_process(), "_kwargs", {})
    event: Any = kwargs.get("shutdown_event") if isinstance(kwargs, dict) else None
    return cast("Callable[[], bool]", event.is_set) if hasattr(event, "is_set") else None
