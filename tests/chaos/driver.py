"""Runs a plan: real workers, a real store, real signals; and gathers the evidence."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headway.job import PARTITIONS
from headway.store import Keys
from tests.chaos.evidence import TERMINAL, Death, Evidence, Hit, Sight
from tests.chaos.plan import Order, Plan, Strike
from tests.chaos.store import ChaosStore
from tests.conftest import Keyspace

PREFIX: Final = "chaos"
POLL_S: Final = 0.02
READ_S: Final = 0.5
SETTLE_S: Final = 60.0  # from the last fault to the end of the last job
GONE_S = 5.0
STOP_S: Final = 30.0
TOKEN: Final = "CHAOS_TOKEN"  # marks our processes, so that orphans are found


class Workers:
    """The worker processes, each in its slot; whoever ends is followed by a new one."""

    def __init__(self, plan: Plan, folder: Path, url: str) -> None:
        self.token = secrets.token_hex(8)
        self.deaths: list[Death] = []
        self._env = {
            **os.environ,
            "CHAOS_FOLDER": str(folder),
            "CHAOS_URL": url,
            "CHAOS_LEASE_S": str(plan.lease_s),
            "CHAOS_DRAIN_S": str(plan.drain_s),
            TOKEN: self.token,
        }
        self._folder = folder
        self._number = 0
        self._closing = False
        self.slots = [self._spawn() for _ in range(plan.workers)]

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._number += 1
        with (self._folder / f"worker{self._number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker"],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def keep(self) -> None:
        """Bury the dead, and put others in their place."""
        while True:
            for slot, process in enumerate(self.slots):
                if process.poll() is not None:
                    self._bury(process)
                    self.slots[slot] = self._spawn()
            await asyncio.sleep(POLL_S)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        self.deaths.append(Death(time.monotonic(), process.pid, process.returncode))
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()

    def tell(self, slot: int, do: str, **order: Any) -> None:
        """Say something to a worker. One that dies meanwhile does not hear it."""
        stdin = self.slots[slot].stdin
        assert stdin is not None
        with suppress(BrokenPipeError):
            stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
            stdin.flush()

    async def stop(self) -> list[str]:
        """Let all of them end, and say what is wrong with how they did."""
        for process in self.slots:
            process.terminate()
        give_up_at = time.monotonic() + STOP_S
        while any(p.poll() is None for p in self.slots) and time.monotonic() < give_up_at:
            await asyncio.sleep(POLL_S)
        wrong = [f"worker {p.pid} did not end" for p in self.slots if p.poll() is None]
        wrong += [f"worker {p.pid} ended with {p.returncode}" for p in self.slots if p.returncode]
        self.kill()
        return wrong

    def kill(self) -> None:
        for process in self.slots:
            process.kill()
            process.wait()
            self._bury(process)

    def orphans(self) -> list[int]:
        """Processes of this run that are not one of the workers, nor below one of them."""
        ours = {process.pid for process in self.slots if process.poll() is None}
        return [pid for pid, parent in self._marked() if pid not in ours and parent not in ours]

    def _marked(self) -> Iterator[tuple[int, int]]:
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{TOKEN}={self.token}".encode() in (path / "environ").read_bytes():
                    yield (
                        int(path.name),
                        int((path / "stat").read_text().rpartition(")")[2].split()[1]),
                    )


class Witness:
    """Sees every announcement of every job, and reads each record now and then."""

    def __init__(self, url: str, evidence: Evidence) -> None:
        self._client = redis.asyncio.Redis.from_url(
            url, decode_responses=True, protocol=2, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )
        self._keys = Keys(PREFIX, PARTITIONS)
        self._evidence = evidence
        self._known: dict[str, None] = {}
        self._subscribed = 0

    def watch(self, job_id: str) -> None:
        self._known.setdefault(job_id)

    async def listen(self) -> None:
        """Hear, for ever; after a break begin anew with all."""
        while True:
            with suppress(redis.RedisError, OSError):
                async with self._client.pubsub() as pubsub:
                    await pubsub.ssubscribe("nothing")
                    self._subscribed = 0
                    while True:
                        await self._subscribe(pubsub)
                        self._hear(await pubsub.get_message(timeout=POLL_S))
            await asyncio.sleep(POLL_S)

    async def _subscribe(self, pubsub: Any) -> None:
        new = [*self._known][self._subscribed :]
        if new:
            await pubsub.ssubscribe(*map(self._keys.record, new))
            self._subscribed += len(new)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message and message["type"] == "smessage":
            job_id = message["channel"].rpartition(":")[2]
            sight = Sight(time.monotonic(), json.loads(message["data"]))
            self._evidence.story(job_id).heard.append(sight)

    async def read_on(self) -> None:
        """Read what has not ended, for ever."""
        while True:
            with suppress(redis.RedisError, OSError):
                await self.read([i for i in self._known if not self._ended(i)])
            await asyncio.sleep(READ_S)

    def _ended(self, job_id: str) -> bool:
        read = self._evidence.story(job_id).read
        return bool(read) and read[-1].state in TERMINAL

    async def read(self, job_ids: list[str]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(self._keys.record(job_id))
            records = await pipeline.execute()
        for job_id, fields in zip(job_ids, records, strict=True):
            if fields:
                self._evidence.story(job_id).read.append(Sight(time.monotonic(), fields))

    async def aclose(self) -> None:
        await self._client.aclose()


class Driver:
    """One run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.evidence = Evidence(plan.lease_s, time.time() - time.monotonic())
        self.store = ChaosStore(folder / "store", fsync=plan.fsync)
        self._told = 0
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
            for serve in (self.workers.keep, self._hear, self.witness.listen, self.witness.read_on)
        ]
        try:
            await self._until(lambda: len(self._up) >= self.plan.workers, "the workers are up")
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

    async def _until(self, holds: Callable[[], object], what: str, within_s: float = 30.0) -> None:
        give_up_at = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < give_up_at, f"waited in vain until {what}"
            await asyncio.sleep(POLL_S)

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
            60,
        )
        return self.workers.slots[slot]

    def _hit(self, strike: Strike, pid: int, seconds: float = 0.0) -> None:
        now = time.monotonic()
        self.evidence.hits.append(Hit(now, strike.kind, pid, now + seconds))

    async def _do_kill(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        self._hit(strike, process.pid)
        process.kill()

    async def _do_term(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        self._hit(strike, process.pid, self.plan.drain_s)
        process.terminate()

    async def _do_freeze(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        self._hit(strike, process.pid, strike.seconds)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(strike.seconds)
        process.send_signal(signal.SIGCONT)

    async def _do_clock(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        self._hit(strike, process.pid)
        self.workers.tell(strike.slot, "clock_jump", seconds=strike.seconds)

    async def _do_poison(self, strike: Strike) -> None:
        process = await self._ready(strike.slot)
        self._hit(strike, process.pid)
        self.workers.tell(
            strike.slot, "start", number=-1, task="poison", owner="owner0", key=None, watch=False,
            args=[1, 0.0, 0],
        )  # fmt: skip

    async def _do_store_kill(self, strike: Strike) -> None:
        async with self._store_lock:
            self._hit(strike, 0, strike.seconds + 0.5)
            self.store.kill()
            await asyncio.sleep(strike.seconds)
            await asyncio.to_thread(self.store.start)

    async def _do_store_freeze(self, strike: Strike) -> None:
        async with self._store_lock:
            self._hit(strike, 0, strike.seconds)
            self.store.send(signal.SIGSTOP)
            await asyncio.sleep(strike.seconds)
            self.store.send(signal.SIGCONT)

    async def _do_store_pause(self, strike: Strike) -> None:
        await self._tell_store(strike, "CLIENT", "PAUSE", round(strike.seconds * 1000), "ALL")

    async def _do_cut_normal(self, strike: Strike) -> None:
        await self._tell_store(strike, "CLIENT", "KILL", "TYPE", "normal")

    async def _do_cut_pubsub(self, strike: Strike) -> None:
        await self._tell_store(strike, "CLIENT", "KILL", "TYPE", "pubsub")

    async def _tell_store(self, strike: Strike, *command: str | int) -> None:
        async with self._store_lock:
            self._hit(strike, 0, strike.seconds)
            await asyncio.to_thread(self.store.say, *command)

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
        await asyncio.sleep(1.0)  # announcements, ends of children and of watchers
        left = [f"process {pid} is an orphan" for pid in self.workers.orphans()]
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
