"""A replica takes over: work goes on, ends are written, and what was lost is not done twice.

Replication is asynchronous: a replica that is promoted may not have what the primary acknowledged
last. `Pair.sever()` makes that loss certain, so that a test knows what is missing.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from headway import Headway, Job, Progress
from headway.errors import JobNotFound
from headway.server import OPTIONS, _carried_binary
from tests.apps.process import free_port, wait_until
from tests.conftest import MakeHeadway, Until

pytestmark = [
    pytest.mark.once,
    pytest.mark.fault,
]

STEPS = 120
STEP_S = 0.01
ENDLESS = 1_000_000
SOON_S = 20.0
LEASE_S = 2.0


class Node:
    """One server. Clients come through its socket, its replica over TCP."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir()
        self.socket = folder / "valkey.sock"
        self.port = free_port()
        words = [*OPTIONS, "--port", str(self.port), "--bind", "127.0.0.1"]
        words += ["--repl-diskless-sync-delay", "0", "--unixsocket", str(self.socket), *options]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [_carried_binary(), *words], cwd=folder, stdout=log, start_new_session=True
            )
        wait_until("the server answers", self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.say("PING"))
        except redis.ConnectionError:
            return False

    def say(self, *command: str) -> Any:
        with redis.Redis.from_url(f"unix://{self.socket}", retry=None) as client:
            return client.execute_command(*command)

    def follow(self, other: Node) -> None:
        self.say("REPLICAOF", "127.0.0.1", str(other.port))

    def lead(self) -> None:
        self.say("REPLICAOF", "NO", "ONE")

    def in_step(self) -> bool:
        return bool(self.say("INFO", "replication")["master_link_status"] == "up")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Pair:
    """A primary and its replica behind one address, as a floating one is: moved, it leads whoever
    connects to the new primary, and leaves the connections to the old one as they are."""

    def __init__(self, folder: Path) -> None:
        self.primary = Node(folder / "one")
        self.replica = Node(folder / "two")
        self._address = folder / "address"
        self.url = f"unix://{self._address}"
        self._lead_to(self.primary)
        self.replica.follow(self.primary)
        wait_until("the replica is in step", self.replica.in_step)

    def _lead_to(self, node: Node) -> None:
        new = self._address.with_suffix(".new")
        new.symlink_to(node.socket)
        new.replace(self._address)

    def sever(self) -> None:
        """From here on the replica gets nothing more: all that is written now will be lost."""
        self.replica.lead()

    def fail(self) -> None:
        """The primary is gone, and nobody is in its place yet."""
        self.primary.kill()

    def promote(self) -> None:
        """The replica takes over."""
        self.replica.lead()
        self._lead_to(self.replica)

    def swap(self) -> None:
        """A failover that was planned: the primary lives on, as a replica of its replica."""
        self.promote()
        self.primary.follow(self.replica)

    def close(self) -> None:
        self.primary.kill()
        self.replica.kill()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two servers of this test."""
    folder = Path(tempfile.mkdtemp(prefix="hw"))  # short: the path of a socket has to be
    pair = Pair(folder)
    yield pair
    pair.close()
    shutil.rmtree(folder)


@pytest.fixture
def url(pair: Pair) -> str:
    """The keys of this test are looked over in the replica, which is the store in the end."""
    return pair.url


class Watching:
    """All that one process is told of a job."""

    def __init__(self, headway: Headway, job: Job) -> None:
        self.seen: list[Job] = []
        self._task = asyncio.create_task(self._follow(headway, job.id))

    async def _follow(self, headway: Headway, job_id: str) -> None:
        async for job in headway.watch(job_id):
            self.seen.append(job)

    async def end(self) -> Job:
        await asyncio.wait_for(self._task, SOON_S)
        return self.seen[-1]

    def check(self) -> None:
        revs = [job.rev for job in self.seen]
        assert revs == sorted(set(revs))
        assert [job.state.terminal for job in self.seen].count(True) == 1


class Counting:
    """A task that counts, and says which of its steps it has taken."""

    def __init__(self, headway: Headway, **options: Any) -> None:
        self.steps: list[int] = []
        self.stopped = asyncio.Event()
        self.task = headway.task(name="count", **options)(self._count)

    async def _count(self, progress: Progress, steps: int = STEPS) -> int:
        try:
            async for step in progress.track(range(steps)):
                progress.log(f"step {step}")
                await asyncio.sleep(STEP_S)
                self.steps.append(step)
        finally:
            self.stopped.set()
        return steps


@pytest.mark.parametrize("until_step", [60, STEPS], ids=["back-while-it-runs", "back-after-it"])
@pytest.mark.parametrize("severed", [False, True], ids=["in-step", "behind"])
async def test_promoted_replica_takes_over(
    pair: Pair, make_headway: MakeHeadway, until: Until, severed: bool, until_step: int
) -> None:
    """The job goes on all the while; what it has done and how it ended is written, once."""
    headway, other = make_headway(lease_s=LEASE_S), make_headway(lease_s=LEASE_S)
    counting = Counting(headway)

    async with headway, other:
        job = await counting.task.start()
        watching = [Watching(headway, job), Watching(other, job)]
        await until(lambda: len(counting.steps) >= 10, "it runs")
        if severed:
            pair.sever()
            await until(lambda: len(counting.steps) >= 30, "writes are lost")
        pair.fail()
        await until(lambda: len(counting.steps) >= until_step, "it goes on")
        pair.promote()
        ended = [await one.end() for one in watching]
        log = await other.log(job.id)
        attempts = await other.attempts(job.id)

    assert counting.steps == [*range(STEPS)]
    assert [(e.state, e.attempt, e.progress.done, e.result) for e in ended] == [
        ("succeeded", 1, STEPS, STEPS)
    ] * 2
    for one in watching:
        one.check()
    assert [attempt.outcome for attempt in attempts] == ["succeeded"]
    assert len(set(log)) == len(log)
    assert log[-1] == f"step {STEPS - 1}"


async def test_planned_failover_is_followed(
    pair: Pair, make_headway: MakeHeadway, until: Until
) -> None:
    """Connections to a primary that became a replica live, and lead nowhere: they are made anew."""
    headway = make_headway(lease_s=LEASE_S)
    counting = Counting(headway)

    async with headway:
        job = await counting.task.start()
        watching = Watching(headway, job)
        await until(lambda: len(counting.steps) >= 10, "it runs")
        pair.swap()
        ended = await watching.end()
        again = await counting.task.start()
        await Watching(headway, again).end()

    assert (ended.state, ended.attempt, ended.progress.done) == ("succeeded", 1, STEPS)
    watching.check()


async def test_lost_claim_is_taken_again(
    pair: Pair, make_headway: MakeHeadway, until: Until
) -> None:
    """A run of which the replica knows only that it waits goes on, and is not begun once more."""
    headway, other = make_headway(lease_s=LEASE_S), make_headway(lease_s=LEASE_S)
    counting = Counting(headway)
    begun: list[int] = []

    @headway.task(retries=1)
    async def again(progress: Progress) -> int:
        begun.append(progress.attempt)
        if progress.attempt == 1:
            raise RuntimeError("the first time it fails")
        return await counting.task.function(progress)

    async with headway, other:
        job = await again.start()
        watching = Watching(other, job)

        async def waits() -> bool:
            return (await headway.get(job.id)).retry_at is not None

        await until(waits, "it waits for its second attempt")
        pair.sever()
        await until(lambda: len(counting.steps) >= 30, "its second attempt runs")
        pair.fail()
        await until(lambda: len(counting.steps) >= 60, "it goes on")
        pair.promote()
        ended = await watching.end()
        attempts = await other.attempts(job.id)

    assert begun == [1, 2]
    assert (ended.state, ended.attempt, ended.result) == ("succeeded", 2, STEPS)
    assert [(a.attempt, a.outcome) for a in attempts] == [(1, "released"), (2, "succeeded")]
    watching.check()


async def test_lost_record_is_told(
    pair: Pair, make_headway: MakeHeadway, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that the replica never got is stopped, and the log says so; the process works on."""
    headway = make_headway(lease_s=LEASE_S)
    counting = Counting(headway)
    caplog.set_level(logging.WARNING, "headway")

    async with headway:
        pair.sever()
        job = await counting.task.start(ENDLESS)
        watching = Watching(headway, job)
        await until(lambda: len(counting.steps) >= 10, "it runs")
        pair.fail()
        pair.promote()
        with pytest.raises(JobNotFound):
            await watching.end()
        await until(counting.stopped.is_set, "it is stopped")
        again = await counting.task.start(3)
        ended = await Watching(headway, again).end()

    assert ended.state == "succeeded"
    assert f"job {job.id} is no longer" in caplog.text


async def test_lost_job_that_waits_is_told(
    pair: Pair, make_headway: MakeHeadway, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that the replica never got, and that had not begun, is not run, and the log says so."""
    headway = make_headway(lease_s=LEASE_S, concurrency=1)
    counting = Counting(headway)
    caplog.set_level(logging.WARNING, "headway")

    async with headway:
        first = await counting.task.start()
        watching = Watching(headway, first)
        await until(lambda: len(counting.steps) >= 10, "it runs")
        pair.sever()
        lost = await counting.task.start()
        pair.fail()
        pair.promote()
        ended = await watching.end()
        await until(lambda: f"job {lost.id} is not in the store" in caplog.text, "it is told")
        again = await counting.task.start()
        await Watching(headway, again).end()

    assert ended.state == "succeeded"
    assert counting.steps == [*range(STEPS)] * 2


@pytest.mark.parametrize("on_lost", ["fail", "retry"])
async def test_lost_end_is_a_lost_run(
    pair: Pair, make_headway: MakeHeadway, on_lost: str, until: Until
) -> None:
    """Of an end that the replica never got nobody knows: the run is lost, and is dealt with so."""
    headway = make_headway(lease_s=LEASE_S)
    counting = Counting(headway, on_lost=on_lost)

    async with headway:
        job = await counting.task.start()
        await until(lambda: len(counting.steps) >= 10, "it runs")
        pair.sever()
        acknowledged = await Watching(headway, job).end()
        pair.fail()
        pair.promote()

        async def ended() -> Job | None:
            now = await headway.get(job.id)
            return now if now.state.terminal else None

        found = await until(ended, "it has ended", within_s=SOON_S)

    assert acknowledged.state == "succeeded"
    if on_lost == "fail":
        assert (found.state, found.attempt, found.error.code) == ("failed", 1, "lost")
        assert counting.steps == [*range(STEPS)]
    else:
        assert (found.state, found.attempt) == ("succeeded", 2)
        assert counting.steps == [*range(STEPS)] * 2
