"""The line to one server. Whatever is asked while a pipeline is under way goes in the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions as failures
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import Connection

from headway._client import aclose
from headway._wire import Call, answer_of, missing, raise_as_ours, refused

__all__ = ["Asked", "Line", "swallowed"]

PIPELINE_CALLS: Final = 512  # bounds the memory of one pipeline; the rest goes with the next
LATER_S: Final = 0.05  # for what nobody waits for, if nothing else is asked meanwhile

logger = logging.getLogger("headway.store")


@dataclass(slots=True, eq=False)
class Asked:
    """One thing that somebody waits for.

    Args:
        strays: how often it was asked in vain, and asked anew.
        asking: it is on its way to the server that is asked, which would not answer else.
        soon: somebody waits for it; else it goes with what is asked next.
    """

    call: Call
    future: asyncio.Future[Any]
    strays: int = 0
    asking: bool = False
    soon: bool = True

    def fail(self, error: Exception) -> None:
        """Tell who waits, if somebody still does."""
        if not self.future.done():
            self.future.set_exception(error)


def swallowed() -> bool:
    """True if this task was cancelled, and the client did not tell: on Python 3.11 it can happen in
    the first moment of a call (CPython issue 86296)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Listening(PubSub):
    """A subscription whose owner makes a new one when its connection is lost."""

    async def _reconnect(self, conn: Connection, *args: Any, **kwargs: Any) -> None:
        # The client's own would connect and subscribe again, only to raise the error after it;
        # and two of them at once, of a reader and a writer, leave a connection behind.
        await conn.disconnect()


class Line:
    """One connection to one server, and what is asked over it.

    Args:
        where: the server, for people to read.
        revive: brings an embedded server back; called in a thread before the second try.
        stray: given what failed and how; True: it takes care of it. Then the server has a
            successor, and is not waited for again.
    """

    def __init__(
        self,
        client: Redis,
        where: str,
        *,
        revive: Callable[[], object] | None = None,
        stray: Callable[[Asked, Exception], bool] | None = None,
    ) -> None:
        self._client = client
        self._where = where
        self._revive = revive
        self._stray = stray
        self._queue: list[Asked] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._torn = False
        self._later: asyncio.TimerHandle | None = None
        self._pump: asyncio.Task[None] | None = None
        self.contact_at: float | None = None
        """When this line last began to have contact without a break; monotonic seconds."""

    def pubsub(self) -> PubSub:
        """A connection of its own that listens. The caller closes it."""
        return _Listening(self._client.connection_pool)

    def put(self, asked: Asked) -> None:
        """Ask it with the next pipeline."""
        self._queue.append(asked)
        if asked.soon or self._closing:
            self._go()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(LATER_S, self._go)

    def _go(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._wake.set()
        if self._pump is None or self._pump.done():
            self._open()

    def _open(self) -> None:
        self._pump = asyncio.create_task(self._serve(), name="headway-link")
        self._pump.add_done_callback(self._pumped)

    async def aclose(self) -> None:
        """Serve what is queued, then close the connection."""
        self._closing = True
        if self._queue or self._pump is not None:
            self._go()
        while self._pump is not None and not self._pump.done():
            await asyncio.wait({self._pump})
        await aclose(self._client)

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch, self._queue = self._queue[:PIPELINE_CALLS], self._queue[PIPELINE_CALLS:]
                try:
                    await self._bring(batch)
                except asyncio.CancelledError:
                    self._queue[:0] = batch
                    raise
            if self._closing or self._torn or swallowed():
                return

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        # Whoever takes the loop down cancels every task of it, and only then is what is open closed
        # (Quart's reloader, or a second Ctrl-C). What is asked until then is served all the same.
        self._torn = self._torn or pump.cancelling() > 0
        if self._queue and self._pump is pump:  # else whoever asked has opened another
            self._wake.set()
            self._open()

    async def _bring(self, batch: list[Asked]) -> None:
        try:
            answers = await self._send(batch)
        except Exception as error:  # whatever it is, every caller must hear of it
            answers = [error] * len(batch)
        for asked, answer in zip(batch, answers, strict=True):
            if asked.future.done():
                continue
            if not isinstance(answer, Exception):
                asked.future.set_result(answer)
            elif self._stray is None or not self._stray(asked, answer):
                asked.future.set_exception(answer)

    async def _send(self, batch: list[Asked]) -> list[Any]:
        try:
            raw = await self._twice(batch)
            if refused(raw):
                self.contact_at = None
                await self._client.connection_pool.disconnect()
                raw = await self._pipeline(batch)
            if unknown := missing(raw):
                again = [batch[i] for i in unknown]
                await self._teach([asked.call for asked in again])
                for i, answer in zip(unknown, await self._pipeline(again), strict=True):
                    raw[i] = answer
        except (failures.RedisError, OSError) as error:
            self.contact_at = None
            raise_as_ours(error, self._where)
        if self.contact_at is None:
            self.contact_at = time.monotonic()
        return [answer_of(one, self._where) for one in raw]

    async def _twice(self, batch: list[Asked]) -> list[Any]:
        """A connection that was cut while it lay idle fails once; the acts may be repeated.

        Without contact there is none that could have been cut, and who asks waits long enough.
        """
        known = self.contact_at is not None or self._revive is not None
        try:
            return await self._pipeline(batch)
        except (failures.ConnectionError, OSError):
            if not known:
                raise
        except failures.TimeoutError:
            if not known or self._stray is not None:
                raise
        self.contact_at = None
        await self._bring_back()
        return await self._pipeline(batch)

    async def _pipeline(self, batch: Sequence[Asked]) -> list[Any]:
        commands: list[tuple[str | int, ...]] = []
        for asked in batch:
            commands += [("ASKING",), asked.call.command] if asked.asking else [asked.call.command]
        raw = await self._execute(commands)
        if len(raw) == len(batch):
            return raw
        answers = iter(raw)
        return [[next(answers) for _ in range(1 + asked.asking)][-1] for asked in batch]

    async def _execute(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    async def _teach(self, calls: list[Call]) -> None:
        texts = {call.script.text for call in calls if call.script}
        await self._execute([("SCRIPT", "LOAD", text) for text in texts])

    async def _bring_back(self) -> None:
        if self._revive is None:
            return
        try:
            await asyncio.to_thread(self._revive)
        except Exception:
            logger.exception("the embedded store could not be started again")
