"""An ear: one connection that listens to what one server of the store announces.

It listens to the control channels of the partitions that are kept there, and to those jobs of
them that somebody watches. For each job it subscribes first and reads then, so that nothing falls
between; and whenever it has to begin anew, all is read anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterable
from typing import Any, Final, Protocol

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from headway._line import swallowed
from headway.errors import StoreError
from headway.job import Job, is_id
from headway.store import Store
from headway.telemetry import Telemetry

__all__ = ["Ear", "Mind"]

QUIET_S: Final = 5.0  # after so long without a word the connection is asked whether it lives
PONG_S: Final = 3.0
AGAIN_FIRST_S: Final = 0.1
AGAIN_MAX_S: Final = 3.0
READ_BATCH: Final = 200

logger = logging.getLogger("headway.watch")


class Mind(Protocol):
    """Whose ear it is."""

    def wants(self, job_id: str) -> bool:
        """True if somebody watches the job."""

    def wanted(self) -> Iterable[str]:
        """All that are watched."""

    def announced(self, job_id: str, data: str) -> bool:
        """Told of a change. False: it makes no sense without what was before; read the job."""

    def read(self, job_id: str, job: Job | None) -> None:
        """Told what was read."""

    def controlled(self, word: str, about: str) -> None:
        """Told what is said to all processes."""

    def lived(self) -> None:
        """Told that an ear has begun to hear, or hears no more."""


class Ear:
    """Listens at one server until it is closed.

    Args:
        place: the server; see `Link.place_of()`.
        partitions: those that are kept there. Where they move, another ear has to listen.
    """

    def __init__(
        self,
        store: Store,
        mind: Mind,
        place: str,
        partitions: frozenset[str],
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._mind = mind
        self._place = place
        self._telemetry = telemetry
        self._asked_at: float | None = None
        self._lag_s: float | None = None
        self._subscribed: set[str] = set()
        self._dropping: dict[str, int] = {}
        self._changes: set[str] = set()
        self._to_read: dict[str, None] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.partitions = partitions
        self.settled = asyncio.Event()
        """Set when it hears, or could not."""
        self.live = False

    def open(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._serve(), name="headway-hub")

    async def aclose(self) -> None:
        """Listen no more."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._set_live(live=False)

    def change(self, job_id: str) -> None:
        """The job is watched from now on, or no longer."""
        self._changes.add(job_id)
        self._work.set()

    @property
    def lag_s(self) -> float | None:
        """See `Hub.lag_s`."""
        if self._asked_at is None or not self.live:
            return self._lag_s
        return max(self._lag_s or 0.0, time.monotonic() - self._asked_at)

    # ── the connection ────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        failures = 0
        while True:
            try:
                async with self._store.link.pubsub(self._place) as pubsub:
                    await self._subscribe_all(pubsub)
                    failures = 0
                    if self._closing or swallowed():
                        return
                    await self._both(self._listen(pubsub), self._steer(pubsub))
            except (RedisError, StoreError, OSError) as error:
                if failures == 0:
                    logger.warning("announcements are not heard: %s", error)
                failures += 1
            except Exception:  # without it nobody in this process would see a change again
                logger.exception("the hub met an error of its own, and begins anew")
                failures += 1
            finally:
                self._set_live(live=False)
                self.settled.set()
            longest = min(AGAIN_FIRST_S * 2**failures, AGAIN_MAX_S)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load
            await self._look_around()

    async def _look_around(self) -> None:
        """In a cluster another server may have taken over what was kept here."""
        try:
            await self._store.link.look_around()
        except StoreError as error:
            logger.warning("the cluster cannot be looked at: %s", error)

    async def _both(self, *coroutines: Any) -> None:
        """Run until one of them fails; then end the others and raise its error."""
        tasks = [asyncio.create_task(c) for c in coroutines]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(tasks)

    async def _subscribe_all(self, pubsub: PubSub) -> None:
        control = [self._store.keys.leases(p) for p in sorted(self.partitions)]
        await self._say(pubsub.ssubscribe, control)
        self._subscribed.clear()
        self._dropping.clear()
        self._to_read.clear()
        self._changes = set(self._mind.wanted())
        self._work.set()

    async def _say(self, word: Any, channels: Iterable[str]) -> None:
        """One command for all channels; in a cluster one for each, as they lie in many slots."""
        if not self._store.link.clustered:
            await word(*channels)
            return
        for channel in channels:
            await word(channel)

    async def _listen(self, pubsub: PubSub) -> None:
        confirmed, ask_at = 0, time.monotonic()
        self._asked_at = None
        while True:
            quiet = self._asked_at is None
            message = await pubsub.get_message(timeout=QUIET_S if quiet else PONG_S)
            now = time.monotonic()
            if message is None and not quiet:
                raise TimeoutError("the store has gone silent")
            if quiet and (message is None or now >= ask_at):
                await pubsub.ping()
                self._asked_at, ask_at = now, now + QUIET_S
            if message is None:
                continue
            if message["type"] == "pong":
                self._answered(now)
                continue
            self._hear(message)
            if not self.live and message["type"] == "ssubscribe":
                confirmed += 1
                if confirmed == len(self.partitions):
                    self._set_live(live=True)
                    self.settled.set()

    def _answered(self, now: float) -> None:
        if self._asked_at is not None:
            self._lag_s, self._asked_at = now - self._asked_at, None
            if self._telemetry.on:
                self._telemetry.heard(self._lag_s)

    def _hear(self, message: dict[str, Any]) -> None:
        channel: str = message["channel"]
        kind, job_id = message["type"], channel.rpartition(":")[2]
        if kind == "smessage" and job_id == "leases":
            for word, about in json.loads(message["data"]).items():
                self._mind.controlled(word, about)
        elif kind == "smessage":
            # If it was forgotten, or a read is under way, that may have been answered before this.
            if self._mind.wants(job_id) and not self._mind.announced(job_id, message["data"]):
                self._to_read[job_id] = None
                self._work.set()
        elif kind == "ssubscribe" and self._mind.wants(job_id):
            # Confirmed (again, perhaps, after a silent reconnection): only now is a read safe.
            self._to_read[job_id] = None
            self._work.set()
        elif kind == "sunsubscribe" and not self._asked_to_drop(job_id):
            raise StoreError("a part of the cluster has moved to another node")

    def _asked_to_drop(self, job_id: str) -> bool:
        # By number: it may have been subscribed to and dropped again meanwhile.
        asked = self._dropping.pop(job_id, 0)
        if asked > 1:
            self._dropping[job_id] = asked - 1
        return asked > 0

    async def _steer(self, pubsub: PubSub) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            changes, self._changes = self._changes, set()
            wanted = {i for i in changes if self._is_mine(i)}
            add = wanted - self._subscribed
            drop = (changes & self._subscribed) - wanted
            # Left and joined again before it was dropped: subscribed still, so it can be read.
            self._to_read.update(dict.fromkeys(wanted & self._subscribed))
            if add:
                self._subscribed |= add
                await self._say(pubsub.ssubscribe, map(self._store.keys.record, add))
            if drop:
                self._subscribed -= drop
                for job_id in drop:
                    self._dropping[job_id] = self._dropping.get(job_id, 0) + 1
                await self._say(pubsub.sunsubscribe, map(self._store.keys.record, drop))
            await self._read()

    def _is_mine(self, job_id: str) -> bool:
        return is_id(job_id) and job_id[:2] in self.partitions and self._mind.wants(job_id)

    async def _read(self) -> None:
        while self._to_read:
            batch = list(self._to_read)[:READ_BATCH]
            for job_id in batch:
                del self._to_read[job_id]
            found = await self._store.get_all(batch, strict=False)
            for job_id in batch:
                self._mind.read(job_id, found.get(job_id))

    def _set_live(self, *, live: bool) -> None:
        if live != self.live:
            self.live = live
            self._mind.lived()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel and wait. More than once: on Python 3.11 the client can swallow a cancellation
    that comes in the first moment of a call (CPython issue 86296)."""
    pending, cancelled = set(tasks), False
    while pending:
        for task in pending:
            task.cancel()
        try:
            done, pending = await asyncio.wait(pending, timeout=0.2)
        except asyncio.CancelledError:  # none may be left behind
            cancelled = True
            continue
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at: the first one's error is the one that is told
    if cancelled:
        raise asyncio.CancelledError
