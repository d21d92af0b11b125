"""The hub: one subscription per process, whatever the number of watchers.

Level, not edge: an announcement carries the whole state, a watcher keeps no queue but the set of
jobs that changed since it last looked, and whoever missed something is made whole by the next
look. For each job the hub subscribes first and reads then, so that nothing falls between.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from headway._link import swallowed
from headway.errors import NotOpen, StoreError
from headway.job import Job, is_id
from headway.store import Store, told
from headway.telemetry import Telemetry

__all__ = ["Hub", "Watcher"]

QUIET_S: Final = 10.0  # after so long without a word the connection is asked whether it lives
PONG_S: Final = 5.0
AGAIN_FIRST_S: Final = 0.1
AGAIN_MAX_S: Final = 3.0
READ_BATCH: Final = 200

logger = logging.getLogger("headway.watch")


class Seen:
    """What the hub knows of one job, shared by all who watch it."""

    __slots__ = ("frame", "job", "known", "watchers")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.known = False  # read at least once: job is None now means that there is none
        self.watchers: set[Watcher] = set()
        self.frame: tuple[Any, bytes] | None = None
        """Room for what a watcher made of the job, so that it is made once for all of them."""


class Watcher:
    """One who watches some jobs. Use it as a context manager, in one task.

    It holds one slot per job, in which the newest state replaces the older: its memory is
    bounded however slow its reader is, and the last state can never be the one that is dropped.
    """

    def __init__(self, hub: Hub, ids: Iterable[str]) -> None:
        self._hub = hub
        self.ids = tuple(dict.fromkeys(ids))
        self._changed: dict[str, None] = {}
        self._event = asyncio.Event()

    def __enter__(self) -> Self:
        for job_id in self.ids:
            self._hub._join(job_id, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for job_id in self.ids:
            self._hub._leave(job_id, self)

    @property
    def live(self) -> bool:
        """False while the hub has no contact with the store: what is seen may be old."""
        return self._hub.live

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until something changed: a job, or whether the hub is live. False: nothing did.

        Cancel: nothing is lost; the change is there for the next call.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[tuple[str, Seen]]:
        """The jobs that changed since the last call, each once, with its newest state."""
        self._event.clear()
        changed, self._changed = self._changed, {}
        return [(i, seen) for i in changed if (seen := self._hub._seen.get(i)) is not None]

    def nudge(self) -> None:
        """End a `wait()` although nothing changed."""
        self._event.set()

    def _mark(self, job_id: str) -> None:
        self._changed[job_id] = None
        self._event.set()


class Hub:
    """Hears what is announced and tells it to the watchers of this process.

    Args:
        on_control: called with ("cancel" or "orphan", job id) or ("revoke", owner).
    """

    def __init__(
        self,
        store: Store,
        on_control: Callable[[str, str], None],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._telemetry = telemetry or Telemetry()
        self._asked_at: float | None = None
        self._lag_s: float | None = None
        self._on_control = on_control
        self._seen: dict[str, Seen] = {}
        self._subscribed: set[str] = set()
        self._changes: set[str] = set()
        self._to_read: dict[str, None] = {}
        self._work = asyncio.Event()
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.live = False

    async def open(self) -> None:
        """Begin to listen; returns when the subscription stands, or after the first failure."""
        self._task = asyncio.create_task(self._serve(), name="headway-hub")
        self._settled = asyncio.Event()
        await self._settled.wait()

    async def aclose(self) -> None:
        """Listen no more. Watchers that are left see the hub as not live."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._set_live(live=False)

    def watcher(self, ids: Iterable[str]) -> Watcher:
        """Someone who watches *ids*; starts to do so when it is entered."""
        if self._task is None or self._closing:
            raise NotOpen("watch jobs")
        return Watcher(self, ids)

    @property
    def lag_s(self) -> float | None:
        """How long the store's answer took, in seconds, on the line that brings the announcements.

        The question goes out every ten seconds, and its answer comes behind all that was announced
        before it and is not heard yet: so no announcement is older, and no clock but ours counts.
        While an answer is overdue, the time since the question. None before the first answer.
        """
        if self._asked_at is None or not self.live:
            return self._lag_s
        return max(self._lag_s or 0.0, time.monotonic() - self._asked_at)

    @property
    def watched(self) -> int:
        """How many jobs are watched now."""
        return len(self._seen)

    # ── who watches what; all of it before the first await ────────────────────────────────────

    def _join(self, job_id: str, watcher: Watcher) -> None:
        seen = self._seen.get(job_id)
        if seen is None:
            seen = self._seen[job_id] = Seen()
            if is_id(job_id):
                self._changes.add(job_id)
                self._work.set()
            else:
                seen.known = True
        seen.watchers.add(watcher)
        if seen.known:
            watcher._mark(job_id)

    def _leave(self, job_id: str, watcher: Watcher) -> None:
        seen = self._seen.get(job_id)
        if seen is None:
            return
        seen.watchers.discard(watcher)
        if not seen.watchers:
            del self._seen[job_id]
            self._changes.add(job_id)
            self._work.set()

    def _tell(self, job_id: str, job: Job | None) -> None:
        seen = self._seen.get(job_id)
        if seen is None:
            return
        if seen.known and seen.job is not None and job is not None and job.rev <= seen.job.rev:
            return
        seen.known, seen.job, seen.frame = True, job, None
        for watcher in seen.watchers:
            watcher._mark(job_id)

    def _set_live(self, *, live: bool) -> None:
        if live == self.live:
            return
        self.live = live
        for watcher in {w for seen in self._seen.values() for w in seen.watchers}:
            watcher.nudge()

    # ── the connection ────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        failures = 0
        while True:
            try:
                async with self._store.pubsub() as pubsub:
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
                self._settled.set()
            longest = min(AGAIN_FIRST_S * 2**failures, AGAIN_MAX_S)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load

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
        await pubsub.ssubscribe(*self._store.keys.control())
        self._subscribed.clear()
        self._to_read.clear()
        self._changes = set(self._seen)
        self._work.set()

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
                if confirmed == self._store.keys.partitions:
                    self._set_live(live=True)
                    self._settled.set()

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
                self._on_control(word, about)
        elif kind == "smessage":
            self._announced(job_id, message["data"])
        elif kind == "ssubscribe" and job_id in self._seen:
            # Confirmed (again, perhaps, after a silent reconnection): only now is a read safe.
            self._to_read[job_id] = None
            self._work.set()

    def _announced(self, job_id: str, data: str) -> None:
        seen = self._seen.get(job_id)
        if seen is None:
            return
        fields = told(data)
        if seen.job is not None and fields:
            self._tell(job_id, seen.job.updated(fields))
        else:
            # It was forgotten, or the read that is under way may have been answered before this.
            self._to_read[job_id] = None
            self._work.set()

    async def _steer(self, pubsub: PubSub) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            changes, self._changes = self._changes, set()
            wanted = {i for i in changes if i in self._seen and is_id(i)}
            add = wanted - self._subscribed
            drop = (changes & self._subscribed) - wanted
            # Left and joined again before it was dropped: subscribed still, so it can be read.
            self._to_read.update(dict.fromkeys(wanted & self._subscribed))
            if add:
                self._subscribed |= add
                await pubsub.ssubscribe(*map(self._store.keys.record, add))
            if drop:
                self._subscribed -= drop
                await pubsub.sunsubscribe(*map(self._store.keys.record, drop))
            await self._read()

    async def _read(self) -> None:
        while self._to_read:
            batch = list(self._to_read)[:READ_BATCH]
            for job_id in batch:
                del self._to_read[job_id]
            found = await self._store.get_all(batch, strict=False)
            for job_id in batch:
                self._tell(job_id, found.get(job_id))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel and wait. More than once: on Python 3.11 the client can swallow a cancellation
    that comes in the first moment of a call (CPython issue 86296)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=0.2)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at: the first one's error is the one that is told
