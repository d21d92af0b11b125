"""The loop's way to the store. Of a cluster it knows which server serves which key.

What a server no longer serves, or can no longer serve, is asked of its successor: the map of the
cluster is drawn anew then. No server holds up what is asked of another one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis import exceptions as failures
from redis.asyncio.client import PubSub

from headway._address import Address, Kind, unsecret
from headway._client import aclose, client_of
from headway._line import Asked, Line
from headway._slots import ALONE, Slots
from headway._wire import CONNECT_S, Call, Moved, raise_as_ours
from headway.errors import NotOpen, StoreUnavailable

__all__ = ["Link"]

STRAYS: Final = 5  # how often one thing is asked anew while its key moves
STRAY_S: Final = 0.1

logger = logging.getLogger("headway.store")


class Link:
    """What the loop asks of the store, one round trip for all that is asked in the same moment.

    Args:
        url: where the store is.
        revive: called in a thread when the store does not answer, before the second try; it may
            bring an embedded server back. Its errors are logged.
    """

    def __init__(self, url: str, revive: Callable[[], object] | None = None) -> None:
        self._address = Address.of(url)
        self.where = unsecret(url)
        self.clustered = self._address.kind is Kind.CLUSTER
        self.on_change: Callable[[], object] = lambda: None
        """Called when other servers serve than before."""
        self._lines: dict[str, Line] = {}
        self._slots: Slots | None = None
        self._strays: list[Asked] = []
        self._search: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._open = False
        if not self.clustered:
            client = client_of(self._address)
            self._lines[ALONE] = Line(client, self.where, revive=revive)

    # ── where ─────────────────────────────────────────────────────────────────────────────────

    @property
    def places(self) -> frozenset[str]:
        """The servers that serve; of a cluster none, before the first answer."""
        if not self.clustered:
            return frozenset({ALONE})
        return self._slots.places if self._slots is not None else frozenset()

    def place_of(self, key: str) -> str | None:
        """The server that serves *key*; None if, for now, none is known to."""
        if not self.clustered:
            return ALONE
        return self._slots.place_of(key) if self._slots is not None else None

    @property
    def contact_at(self) -> float | None:
        """When contact with all servers last began that had no break; monotonic seconds."""
        since = [self._line(place).contact_at for place in self.places]
        known = [at for at in since if at is not None]
        return max(known) if known and len(known) == len(since) else None

    def pubsub(self, place: str = ALONE) -> PubSub:
        """A connection of its own that listens at *place*. The caller closes it."""
        return self._line(place).pubsub()

    async def look_around(self) -> None:
        """Draw the map of a cluster anew; the servers of anything else do not change.

        Raises:
            StoreUnavailable: no node of it answers.
        """
        if self.clustered:
            await self._draw()

    # ── asking ────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Start to serve calls. Connects with the first one."""
        self._open = True

    async def aclose(self) -> None:
        """Serve what was asked, then close the connections."""
        self._open = False
        while self._search is not None and not self._search.done():
            await asyncio.wait({self._search})
        await asyncio.gather(*(line.aclose() for line in self._lines.values()), *self._retired)

    async def call(self, call: Call) -> Any:
        """Ask one thing. One round trip, shared with whatever else is asked at the moment.

        Cancel: the call is, or will be, done by the store all the same.
        """
        return await self._ask(call)

    def post(self, call: Call) -> None:
        """Ask one thing with what is asked next, within 50 ms, and do not wait for the answer; an
        error is only logged."""
        self._ask(call, soon=False).add_done_callback(_log_failure)

    async def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Ask many things in one round trip; the first error is raised after all were asked."""
        answers = await self.try_all(calls)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def try_all(self, calls: Sequence[Call]) -> list[Any]:
        """As `call_all()`, but an error is the answer of its call."""
        futures = [self._ask(call) for call in calls]
        return await asyncio.gather(*futures, return_exceptions=True)

    async def everywhere(self, call: Call) -> list[Any]:
        """Ask every server the same; the first error is raised after all were asked."""
        if self.clustered and self._slots is None:
            await self.look_around()
        asked = [self._asked(call) for _ in self.places]
        for one, place in zip(asked, self.places, strict=True):
            self._line(place).put(one)
        answers = await asyncio.gather(*(one.future for one in asked), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _asked(self, call: Call, *, soon: bool = True) -> Asked:
        if not self._open:
            raise NotOpen("reach the store")
        return Asked(call, asyncio.get_running_loop().create_future(), soon=soon)

    def _ask(self, call: Call, *, soon: bool = True) -> asyncio.Future[Any]:
        asked = self._asked(call, soon=soon)
        self._put(asked)
        return asked.future

    def _put(self, asked: Asked) -> None:
        place = self._place(asked.call)
        if place is None:
            self._strays.append(asked)
            self._look()
        else:
            self._line(place).put(asked)

    def _place(self, call: Call) -> str | None:
        if self.clustered and call.key is None:
            return min(self.places, default=None)
        return self.place_of(call.key or "")

    def _line(self, place: str) -> Line:
        line = self._lines.get(place)
        if line is None:
            client = client_of(self._address, place)
            line = self._lines[place] = Line(client, place, stray=self._stray)
        return line

    # ── what went astray ──────────────────────────────────────────────────────────────────────

    def _stray(self, asked: Asked, error: Exception) -> bool:
        if not self._open or asked.call.key is None:
            return False
        if isinstance(error, Moved):
            most = STRAYS
        elif isinstance(error, StoreUnavailable):
            most = 1
        else:
            return False
        if asked.strays >= most:
            return False
        asked.strays += 1
        asked.asking = isinstance(error, Moved) and error.to is not None
        if isinstance(error, Moved) and error.to is not None:
            self._line(error.to).put(asked)
        else:
            self._strays.append(asked)
            self._look()
        return True

    def _look(self) -> None:
        if self._search is None or self._search.done():
            self._search = asyncio.create_task(self._search_all(), name="headway-link-search")
            self._search.add_done_callback(self._searched)

    def _searched(self, search: asyncio.Task[None]) -> None:
        if self._strays and self._search is search:  # the loop is taken down; see `Line`
            self._look()

    async def _search_all(self) -> None:
        while self._strays:
            strays, self._strays = self._strays, []
            try:
                if max(asked.strays for asked in strays) > 1:
                    await asyncio.sleep(STRAY_S)
                await self._draw()
            except asyncio.CancelledError:
                self._strays[:0] = strays
                raise
            except Exception as error:  # whatever it is, every caller must hear of it
                for asked in strays:
                    asked.fail(error)
                continue
            for asked in strays:
                self._put_again(asked)

    def _put_again(self, asked: Asked) -> None:
        place = self._place(asked.call)
        if place is None:
            asked.fail(
                StoreUnavailable(f"no server of the cluster {self.where} serves what was asked")
            )
        else:
            self._line(place).put(asked)

    async def _draw(self) -> None:
        """Ask for the map, those first who have just answered."""
        now = sorted(self.places, key=lambda p: (self._line(p).contact_at is None, random.random()))  # noqa: S311
        problem: Exception = StoreUnavailable(f"the cluster {self.where} has no node")
        for place in dict.fromkeys([*now, *self._address.hosts]):
            try:
                self._take(Slots(await self._ask_slots(place), place))
            except (failures.RedisError, OSError, TimeoutError) as error:
                problem = error
            else:
                return
        raise_as_ours(problem, self.where)

    async def _ask_slots(self, place: str) -> list[Any]:
        client = client_of(self._address, place)
        try:
            async with asyncio.timeout(CONNECT_S):
                found: list[Any] = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
                return found
        finally:
            await aclose(client)

    def _take(self, slots: Slots) -> None:
        before, self._slots = self._slots, slots
        if slots == before:
            return
        for place in self._lines.keys() - slots.places:
            self._retire(self._lines.pop(place))
        self.on_change()

    def _retire(self, line: Line) -> None:
        task = asyncio.create_task(line.aclose(), name="headway-link-retire")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("something that repairs itself was not written: %s", error)
