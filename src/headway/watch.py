"""The hub: one subscription per process and server, whatever the number of watchers.

Level, not edge: an announcement carries the whole state, a watcher keeps no queue but the set of
jobs that changed since it last looked, and whoever missed something is made whole by the next
look. An `Ear` listens for it; in a cluster, one at each node.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from headway.ear import Ear
from headway.errors import NotOpen
from headway.job import Job, is_id
from headway.record import told
from headway.store import Store
from headway.telemetry import Telemetry

__all__ = ["AT_ONCE", "Hub", "Watcher"]

AT_ONCE: Final = 8  # watchers; as many streams take the loop for half a millisecond


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

    __slots__ = ("_changed", "_hub", "_new", "_waiter", "ids")

    def __init__(self, hub: Hub, ids: Iterable[str]) -> None:
        self._hub = hub
        self.ids = tuple(dict.fromkeys(ids))
        self._changed: dict[str, None] = {}
        self._new = False
        self._waiter: asyncio.Future[None] | None = None

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
        if seconds is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.wait()
        elif not self._new:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._new

    def take(self) -> list[tuple[str, Seen]]:
        """The jobs that changed since the last call, each once, with its newest state."""
        self._new = False
        changed, self._changed = self._changed, {}
        return [(i, seen) for i in changed if (seen := self._hub._seen.get(i)) is not None]

    def nudge(self) -> None:
        """End a `wait()` although nothing changed."""
        self._new = True
        self._wake()

    def _wake(self) -> None:
        if self._new and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _mark(self, job_id: str) -> None:
        self._changed[job_id] = None
        self._new = True


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
        self._on_control = on_control
        self._seen: dict[str, Seen] = {}
        self._ears: dict[str, Ear] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._asleep: OrderedDict[Watcher, None] = OrderedDict()  # and to be woken, in this order
        self._opened = False
        self.live = False

    async def open(self) -> None:
        """Begin to listen; returns when the subscription stands, or after the first failure."""
        self._opened = True
        self._store.link.on_change = self._sort
        self._sort()
        for ear in list(self._ears.values()):
            await ear.settled.wait()

    async def aclose(self) -> None:
        """Listen no more. Watchers that are left see the hub as not live."""
        self._opened = False
        self._store.link.on_change = lambda: None
        await asyncio.gather(*(ear.aclose() for ear in self._ears.values()), *self._retired)
        self.lived()

    def watcher(self, ids: Iterable[str]) -> Watcher:
        """Someone who watches *ids*; starts to do so when it is entered."""
        if not self._opened:
            raise NotOpen("watch jobs")
        return Watcher(self, ids)

    @property
    def lag_s(self) -> float | None:
        """How long the store's answer took, in seconds, on the line that brings the announcements.

        The question goes out every five seconds, and its answer comes behind all that was announced
        before it and is not heard yet: so no announcement is older, and no clock but ours counts.
        While an answer is overdue, the time since the question. None before the first answer. Of
        the nodes of a cluster, the slowest.
        """
        lags = [ear.lag_s for ear in self._ears.values()]
        return max((lag for lag in lags if lag is not None), default=None)

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
                self._changed(job_id)
            else:
                seen.known = True
        seen.watchers.add(watcher)
        if seen.known:
            watcher._mark(job_id)
            watcher._wake()

    def _leave(self, job_id: str, watcher: Watcher) -> None:
        seen = self._seen.get(job_id)
        if seen is None:
            return
        seen.watchers.discard(watcher)
        if not seen.watchers:
            del self._seen[job_id]
            self._changed(job_id)

    def _changed(self, job_id: str) -> None:
        # No ear has it while its server fails over; then the next one subscribes to all.
        place = self._store.link.place_of(self._store.keys.record(job_id))
        if (ear := self._ears.get(place or "")) is not None:
            ear.change(job_id)

    # ── what the ears hear ────────────────────────────────────────────────────────────────────

    def wants(self, job_id: str) -> bool:
        """True if somebody watches the job."""
        return job_id in self._seen

    def wanted(self) -> Iterable[str]:
        """All that are watched."""
        return self._seen.keys()

    def announced(self, job_id: str, data: str) -> bool:
        """A change, as it was announced. False: the job has to be read."""
        fields, seen = told(data), self._seen[job_id]
        if seen.job is None or not fields:
            return False
        self.read(job_id, seen.job.updated(fields))
        return True

    def read(self, job_id: str, job: Job | None) -> None:
        """The job as it is; what is older than what is known is no news."""
        seen = self._seen.get(job_id)
        if seen is None:
            return
        if seen.known and seen.job is not None and job is not None and job.rev <= seen.job.rev:
            return
        seen.known, seen.job, seen.frame = True, job, None
        for watcher in seen.watchers:
            watcher._mark(job_id)
        self._wake(seen.watchers)

    def _wake(self, watchers: Collection[Watcher]) -> None:
        """A crowd is woken in turns, and whoever else has something to do comes in between."""
        if len(watchers) <= AT_ONCE:
            for watcher in watchers:
                watcher._wake()
            return
        if not self._asleep:
            asyncio.get_running_loop().call_soon(self._wake_some)
        self._asleep.update(dict.fromkeys(watchers))

    def _wake_some(self) -> None:
        for _ in range(min(AT_ONCE, len(self._asleep))):
            self._asleep.popitem(last=False)[0]._wake()
        if self._asleep:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def controlled(self, word: str, about: str) -> None:
        """What is said to all processes."""
        self._on_control(word, about)

    def lived(self) -> None:
        """An ear has begun to hear, or hears no more."""
        ears = self._ears.values()
        live = self._opened and bool(ears) and all(ear.live for ear in ears)
        if live == self.live:
            return
        self.live = live
        watchers = {w for seen in self._seen.values() for w in seen.watchers}
        for watcher in watchers:
            watcher._new = True
        self._wake(watchers)

    # ── where they listen ─────────────────────────────────────────────────────────────────────

    def _sort(self) -> None:
        """An ear for each server, and none where the others serve now what was kept there."""
        kept = self._kept()
        for place, ear in list(self._ears.items()):
            if ear.partitions != kept.get(place):
                self._retire(self._ears.pop(place))
        for place in kept.keys() - self._ears.keys():
            ear = Ear(self._store, self, place, kept[place], self._telemetry)
            self._ears[place] = ear
            ear.open()
        self.lived()

    def _kept(self) -> dict[str, frozenset[str]]:
        """Which partitions are kept where; those that nobody serves, for now, nowhere."""
        keys, link = self._store.keys, self._store.link
        found: dict[str, set[str]] = {}
        for partition in keys.all_partitions():
            if (place := link.place_of(keys.leases(partition))) is not None:
                found.setdefault(place, set()).add(partition)
        return {place: frozenset(held) for place, held in found.items()}

    def _retire(self, ear: Ear) -> None:
        task = asyncio.create_task(ear.aclose(), name="headway-hub-retire")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
