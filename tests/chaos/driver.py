"""Runs a plan: real workers, a real store, real signals; and gathers the evidence."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.chaos.evidence import TERMINAL, Evidence, Hit
from tests.chaos.plan import Order, Plan, Strike
from tests.chaos.store import ChaosStore
from tests.chaos.witness import PREFIX, Witness
from tests.chaos.workers import Workers
from tests.keyspace import Keyspace

POLL_S: Final = 0.02
SETTLE_S: Final = 60.0  # from the last fault to the end of the last job
TOLD_S: Final = 15.0  # from there until every watcher has heard of it
UP_S: Final = 60.0  # from the start of a worker to its first word
GONE_S: Final = 10.0


class Driver:
    """One run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.evidence = Evidence(plan.lease_s, time.time() - time.monotonic(), plan.slack_s)
        self.store = ChaosStore(folder / "store", fsync=plan.fsync)
        self._events: list[dict[str, Any]] = []
        self._accepted: dict[int, str] = {}
        self._up: set[int] = set()
        self._store_lock = asyncio.Lock()

    async def run(self) -> Evidence:
        """Everything: start, accept and strike, let it settle, stop, gather."""
        self.store.start()
        self.workers = Workers(self.plan, self.folder, self.store.url)
        self.witness = Witness(self.store.url, self.evidence)
        servants = [
            asyncio.create_task(serve())
            for serve in (
                self.workers.keep,
                self._hear,
                self._feel,
                self.witness.listen,
                self.witness.read_on,
            )
        ]
        try:
            await self._until(
                lambda: len(self._up) >= self.plan.workers, "the workers are up", UP_S
            )
            self._began = time.monotonic()
            await asyncio.gather(
                *self._at_their_times(self.plan.orders(), self._order),
                *self._at_their_times(self.plan.strikes(), self._strike),
            )
            await self._settle()
            self.evidence.left += await self._end(servants)
        finally:
            for servant in servants:
                servant.cancel()
            await asyncio.wait(servants)
            await self.witness.aclose()
            self.workers.kill()
            self.store.kill()
        return self.evidence

    def _at_their_times(
        self, plans: list[Any], do: Callable[[int, Any], Awaitable[None]]
    ) -> list[Awaitable[None]]:
        async def one(number: int, plan: Any) -> None:
            await asyncio.sleep(self._began + plan.at - time.monotonic())
            await do(number, plan)

        return [one(number, plan) for number, plan in enumerate(plans)]

    async def _until(self, holds: Callable[[], object], what: str, within_s: float) -> None:
        give_up_at = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < give_up_at, f"waited in vain until {what}"
            await asyncio.sleep(POLL_S)

    async def _feel(self) -> None:
        """How late this machine is when it has much to do: what is timed may be as late."""
        while True:
            asleep_at = time.monotonic()
            await asyncio.sleep(POLL_S)
            late_s = time.monotonic() - asleep_at - POLL_S
            self.evidence.late_s = max(self.evidence.late_s, late_s)

    # ── what the workers tell ─────────────────────────────────────────────────────────────────

    async def _hear(self) -> None:
        path = self.folder / "events"
        path.touch()
        with path.open() as events:
            rest = ""
            while True:
                *lines, rest = (rest + events.read()).split("\n")
                for line in lines:
                    self._heard(json.loads(line))
                await asyncio.sleep(POLL_S)

    def _heard(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        match event["event"]:
            case "up":
                self._up.add(event["pid"])
            case "accepted":
                self._accepted[event["number"]] = event["id"]
                self.witness.watch(event["id"])

    # ── jobs and faults ───────────────────────────────────────────────────────────────────────

    async def _order(self, number: int, order: Order) -> None:
        self.workers.tell(
            order.slot, "start", number=number, task=order.task, owner=order.owner, key=order.key,
            watch=order.watch, args=[order.steps, order.step_s, order.seed],
        )  # fmt: skip
        if order.cancel_after is not None:
            await asyncio.sleep(order.cancel_after)
            if job_id := self._accepted.get(number):
                self.evidence.story(job_id).cancel_asked = True
                self.workers.tell((order.slot + 1) % self.plan.workers, "cancel", id=job_id)

    async def _strike(self, number: int, strike: Strike) -> None:
        name = strike.kind.removesuffix("_past_lease")
        await getattr(self, f"_do_{name}")(strike)

    async def _ready(self, slot: int) -> subprocess.Popen[bytes]:
        """The worker in this slot, once it is up: a fault of what does not work yet is none."""
        await self._until(
            lambda: (
                self.workers.slots[slot].pid in self._up and self.workers.slots[slot].poll() is None
            ),
            "the worker to be struck is up",
            UP_S,
        )
        return self.workers.slots[slot]

    @contextmanager
    def _hit(self, strike: Strike, pid: int) -> Iterator[None]:
        """Around a fault: it is told with the moments when it really began and was over."""
        hits, at = self.evidence.hits, time.monotonic()
        number = len(hits)
        hits.append(Hit(at, strike.kind, pid, math.inf))
        try:
            yield
        finally:
            hits[number] = Hit(at, strike.kind, pid, time.monotonic())

    async def _do_kill(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        with self._hit(strike, process.pid):
            process.kill()

    async def _do_term(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        with self._hit(strike, process.pid):
            process.terminate()
            await asyncio.sleep(self.plan.drain_s)

    async def _do_freeze(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        with self._hit(strike, process.pid):
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(strike.seconds)
            process.send_signal(signal.SIGCONT)

    async def _do_clock(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        with self._hit(strike, process.pid):
            self.workers.tell(strike.slot, "clock_jump", seconds=strike.seconds)

    async def _do_poison(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        with self._hit(strike, process.pid):
            self.workers.tell(
                strike.slot, "start", number=-1, task="poison", owner="owner0", key=None,
                watch=False, args=[1, 0.0, 0],
            )  # fmt: skip

    async def _do_store_kill(self, strike: Strike) -> None:
        async with self._store_lock:
            with self._hit(strike, 0):
                self.store.kill()
                await asyncio.sleep(strike.seconds)
                await asyncio.to_thread(self.store.start)

    async def _do_store_freeze(self, strike: Strike) -> None:
        async with self._store_lock:
            with self._hit(strike, 0):
                self.store.send(signal.SIGSTOP)
                await asyncio.sleep(strike.seconds)
                self.store.send(signal.SIGCONT)

    async def _do_store_pause(self, strike: Strike) -> None:
        async with self._store_lock:
            with self._hit(strike, 0):
                pause_ms = round(strike.seconds * 1000)
                await asyncio.to_thread(self.store.say, "CLIENT", "PAUSE", pause_ms, "ALL")
                await asyncio.to_thread(self.store.say, "PING")  # answered when it is over

    async def _do_cut_normal(self, strike: Strike) -> None:
        await self._cut(strike, "normal")

    async def _do_cut_pubsub(self, strike: Strike) -> None:
        await self._cut(strike, "pubsub")

    async def _cut(self, strike: Strike, kind: str) -> None:
        async with self._store_lock:
            with self._hit(strike, 0):
                await asyncio.to_thread(self.store.say, "CLIENT", "KILL", "TYPE", kind)

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    async def _settle(self) -> None:
        keyspace = Keyspace(self.store.url, PREFIX)
        with suppress(AssertionError):  # what has not ended is told by the invariants
            await self._until(
                lambda: not any(name.endswith(":leases") for name in keyspace.names()),
                "every job has ended",
                SETTLE_S,
            )
        keyspace.client.close()

    async def _end(self, servants: list[asyncio.Task[None]]) -> list[str]:
        """Look at everything once more, in the workers and in the store, then stop them."""
        with suppress(AssertionError):  # who was not told is told by the invariants
            await self._until(lambda: not self._waiting(), "all who watch have been told", TOLD_S)
        left = [f"process {pid} is an orphan" for pid in await self._left()]
        for servant in servants:
            servant.cancel()
        await asyncio.wait(servants)
        self.evidence.deaths = list(self.workers.deaths)
        left += await self.workers.stop()
        left += [f"process {pid} is left" for pid in await self._left()]
        await self._gather()
        keyspace = Keyspace(self.store.url, PREFIX)
        try:
            keyspace.check()
            left += [n for n in keyspace.names() if n.endswith(":leases") or ":key:" in n]
        except AssertionError as error:
            left.append(str(error))
        keyspace.client.close()
        return left

    def _waiting(self) -> set[str]:
        """Who watches, in a worker that lives, a job whose end is not told there yet."""
        alive = {process.pid for process in self.workers.slots if process.poll() is None}
        here = [e for e in self._events if e["pid"] in alive]
        told = {e["watcher"] for e in here if e["event"] == "seen" and e["state"] in TERMINAL}
        return {e["watcher"] for e in here if e["event"] == "watching"} - told

    async def _left(self) -> list[int]:
        """What outlives its worker by more than a moment; its helpers end just after it."""
        give_up_at = time.monotonic() + GONE_S
        while (left := self.workers.orphans()) and time.monotonic() < give_up_at:
            await asyncio.sleep(0.05)
        return left

    async def _gather(self) -> None:
        text = (self.folder / "events").read_text()
        self.evidence.take_events(map(json.loads, text.splitlines()))
        self.evidence.take_deeds(self.folder)
        client: Any = self.witness._client  # its stubs know neither its answers nor its options
        async for name in client.scan_iter(match=f"{PREFIX}:*", count=1000):
            job_id = name.rpartition(":")[2]
            if ":job:" in name:
                self.evidence.story(job_id).record = await client.hgetall(name)
            elif ":tries:" in name:
                tries = await client.lrange(name, 0, -1)
                self.evidence.story(job_id).tries = [json.loads(one) for one in tries]
            elif ":owner:" in name:
                self.evidence.owned.update(await client.zrange(name, 0, -1))
