"""Jobs that run as far as the store knows, and a hub in this process that hears of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

from headway._link import Link
from headway.job import PARTITIONS, Job, State, new_id
from headway.keys import Keys
from headway.store import Settled, Store
from headway.watch import Hub

__all__ = ["LEASE_S", "Place", "at_a_time", "begun", "ended", "place"]

LEASE_S: Final = 600.0  # nobody beats for them
AT_A_TIME: Final = 500
RECORD: Final = {
    "task": "work", "title": "Work", "owner": "ann", "args": "[[],{}]", "options": "{}",
    "on_lost": "fail", "max_attempts": "1", "begun": "1",
}  # fmt: skip


async def begun(store: Store) -> Job:
    """A job that runs, by Headway's own script."""
    return await store.create(new_id(PARTITIONS), RECORD, LEASE_S)


async def ended(store: Store) -> None:
    """A job that has succeeded, by Headway's own scripts."""
    success = Settled(State.SUCCEEDED, '{"done":10,"total":10,"ratio":1.0}')
    assert await store.finish(await begun(store), success)


async def at_a_time(times: int, act: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Do it so many times, some hundred of them at once."""
    found: list[Any] = []
    for left in range(times, 0, -AT_A_TIME):
        found += await asyncio.gather(*(act() for _ in range(min(left, AT_A_TIME))))
    return found


class Place:
    """A store, and the hub of this process."""

    def __init__(self, hub: Hub, link: Link, store: Store) -> None:
        self.hub = hub
        self.link = link
        self.store = store
        self._steps = count()

    async def jobs(self, size: int) -> list[Job]:
        """So many that run."""
        found: list[Job] = await at_a_time(size, lambda: begun(self.store))
        return found

    async def announce(self, jobs: Iterable[Job]) -> None:
        """Progress of each of them."""
        said = f'{{"done":{next(self._steps)},"total":1000000,"note":"Reading orders"}}'
        beats = [self.store.beat_call(j.id, j.attempt, LEASE_S, progress=said) for j in jobs]
        assert set(await self.link.call_all(beats)) == {"ok"}

    async def quiet(self) -> None:
        """Until nothing is left to be unsubscribed."""
        while any(ear._changes or ear._dropping for ear in self.hub._ears.values()):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def place(url: str, partitions: int = PARTITIONS) -> AsyncIterator[Place]:
    """A hub that listens at the store; each number of partitions has keys of its own."""
    link = Link(url)
    link.open()
    store = Store(link, Keys(f"p{partitions}", partitions), "bench", keep_s=LEASE_S)
    hub = Hub(store, lambda word, about: None)
    await hub.open()
    try:
        yield Place(hub, link, store)
    finally:
        await hub.aclose()
        await link.aclose()
