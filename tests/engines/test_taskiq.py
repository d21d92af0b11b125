"""`TaskiqEngine` in one process: what its options do, and jobs that wait for jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import redis
from taskiq import AckableMessage, InMemoryBroker
from taskiq_redis import RedisStreamBroker

from headway import Headway, Progress
from headway.engines.taskiq import TaskiqEngine
from headway.errors import BadInput
from headway.job import Job, State
from tests.apps.process import free_port
from tests.conftest import MakeHeadway, Until, end_of


@pytest.fixture
def queue(url: str, prefix: str) -> Iterator[str]:
    """The name of a queue of its own on the store's server."""
    queue = f"queue-{prefix}"
    yield queue
    with redis.Redis.from_url(url) as client:
        client.delete(queue, f"autoclaim:taskiq:{queue}")


@pytest.fixture
def broker(url: str, queue: str) -> RedisStreamBroker:
    """A broker with that queue."""
    return RedisStreamBroker(url, queue_name=queue, xread_block=100)


async def test_job_that_waits_for_jobs_gives_its_place(
    make_headway: MakeHeadway, broker: RedisStreamBroker
) -> None:
    """A worker with one place runs a parent and its children: whoever waits takes no place."""
    headway = make_headway(engine=TaskiqEngine(broker))

    @headway.task
    async def child(n: int) -> int:
        return n

    @headway.task
    async def parent(progress: Progress) -> list[int]:
        async with headway.group(progress) as group:
            for n in range(3):
                await group.start(child, n)
        return [job.result for job in group.jobs]

    async with headway.working(concurrency=1), asyncio.timeout(20):
        ended = await end_of(headway, await parent.start())

    assert (ended.state, ended.result) == (State.SUCCEEDED, [0, 1, 2])


async def test_next_attempt_comes_through_the_broker(
    make_headway: MakeHeadway, broker: RedisStreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that fails and may be tried again is tried again, after its pause."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.05)
    headway = make_headway(engine=TaskiqEngine(broker))

    @headway.task(retries=1)
    async def work(progress: Progress) -> int:
        if progress.attempt == 1:
            raise ValueError
        return progress.attempt

    async with headway.working():
        ended = await end_of(headway, await work.start())

    assert (ended.state, ended.result) == (State.SUCCEEDED, 2)


async def test_opened_by_an_app_it_only_accepts(
    make_headway: MakeHeadway, broker: RedisStreamBroker
) -> None:
    """Who is not a worker runs nothing; a worker that is opened later does."""
    headway = make_headway(engine=TaskiqEngine(broker))

    @headway.task
    async def work() -> None: ...

    async with headway:
        job = await work.start()
        await asyncio.sleep(0)
        waiting = await headway.get(job.id)
    async with headway.working():
        ended = await end_of(headway, job)

    assert (waiting.state, ended.state) == (State.QUEUED, State.SUCCEEDED)


async def test_closed_at_any_moment(make_headway: MakeHeadway, broker: RedisStreamBroker) -> None:
    """However early a worker is asked to end, it does: while it connects, or begins to listen."""
    for ticks in range(40):
        headway = make_headway(engine=TaskiqEngine(broker, name=f"headway.{ticks}"))
        async with asyncio.timeout(10), headway.working():
            for _ in range(ticks):
                await asyncio.sleep(0)


class Deaf(RedisStreamBroker):
    """Does not hear of the end of listening once, as its client does now and then."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.listens, self.deaf = asyncio.Event(), asyncio.Event()

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        self.listens.set()
        try:
            async for message in super().listen():
                yield message
        except asyncio.CancelledError:
            self.deaf.set()
            yield await anext(super().listen())


async def test_what_comes_too_late_is_for_another_worker(
    make_headway: MakeHeadway, broker: RedisStreamBroker, url: str, queue: str
) -> None:
    """A message that a worker is handed while it ends goes back, and is not dropped."""
    deaf = Deaf(url, queue_name=queue, xread_block=100)
    ending = make_headway(engine=TaskiqEngine(deaf))
    headway = make_headway(engine=TaskiqEngine(broker))

    async def work() -> str:
        return "done"

    ending.task(work)
    task = headway.task(work)

    async def start_at_the_last_moment() -> Job:
        await deaf.deaf.wait()
        return await task.start()

    async with asyncio.timeout(20):
        async with headway:
            late = asyncio.create_task(start_at_the_last_moment())
            async with ending.working():
                await deaf.listens.wait()
            job = await late
        async with headway.working():
            ended = await end_of(headway, job)

    assert ended.result == "done"


async def test_broker_that_is_not_there(
    make_headway: MakeHeadway, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """The app starts, accepts and closes without its broker, and says once what is missing."""
    broker = RedisStreamBroker(f"redis://127.0.0.1:{free_port()}")
    headway = make_headway(engine=TaskiqEngine(broker))

    @headway.task
    async def work() -> None: ...

    async with headway, asyncio.timeout(10):
        jobs = [await work.start() for _ in range(20)]
        await until(lambda: "cannot be reached" in caplog.text, "it is told")
        waiting = await headway.get(jobs[0].id)
        held = len(list(headway._open_runtime("test").engine.held()))
        await asyncio.gather(*(headway.cancel(job.id) for job in jobs))

    assert (waiting.state, held) == (State.QUEUED, 20)
    assert caplog.text.count("cannot be reached") == 1


async def test_broker_of_the_app_is_left_alone(
    make_headway: MakeHeadway, broker: RedisStreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lifespan=False the app starts and shuts down its broker itself."""
    done: list[str] = []
    monkeypatch.setattr(broker, "startup", lambda: done.append("startup"))
    monkeypatch.setattr(broker, "shutdown", lambda: done.append("shutdown"))
    headway = make_headway(engine=TaskiqEngine(broker, lifespan=False))

    async with headway:
        pass

    assert done == []
    await RedisStreamBroker.shutdown(broker)


@pytest.mark.parametrize("most", [100, 1, None])
async def test_what_a_worker_takes_begins_at_once(
    make_headway: MakeHeadway, url: str, queue: str, until: Until, most: int | None
) -> None:
    """None waits in a worker while another is idle, however many the broker hands out."""
    brokers = [RedisStreamBroker(url, queue_name=queue, xread_count=most) for _ in "ab"]
    workers = [make_headway(engine=TaskiqEngine(broker)) for broker in brokers]
    let_go = asyncio.Event()
    running = {"a": 0, "b": 0}
    tasks = []
    for name, worker in zip(running, workers, strict=True):

        async def work(name: str = name) -> None:
            running[name] += 1
            await let_go.wait()

        tasks.append(worker.task(name="work")(work))

    async with asyncio.timeout(20):
        async with workers[0]:
            jobs = [await tasks[0].start() for _ in range(8)]
            await until(lambda: length_of(url, queue) == 8, "all messages are out")
        async with workers[0].working(concurrency=4), workers[1].working(concurrency=4):
            await until(lambda: sum(running.values()) == 8, "all run")
            let_go.set()
            states = [(await end_of(workers[1], job)).state for job in jobs]

    assert running == {"a": 4, "b": 4}
    assert states == [State.SUCCEEDED] * 8


def length_of(url: str, queue: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.xlen(queue))


def test_name_may_be_taken() -> None:
    """Two engines on one broker need a name each."""
    broker = InMemoryBroker()
    TaskiqEngine(broker)

    with pytest.raises(BadInput, match="give another name="):
        TaskiqEngine(broker)

    TaskiqEngine(broker, name="other.run")


@pytest.mark.parametrize("resend_s", [0, -1, float("inf"), float("nan")])
def test_resend_has_a_range(resend_s: float) -> None:
    """Seconds, at least one."""
    with pytest.raises(BadInput, match="resend_s"):
        TaskiqEngine(InMemoryBroker(), resend_s=resend_s)


async def test_worker_needs_an_engine_with_workers(headway: Headway) -> None:
    """What runs in the process that accepts it has no workers."""
    with pytest.raises(BadInput, match="nothing for a worker to do"):
        async with headway.working():
            pass


@pytest.fixture
def headway(make_headway: MakeHeadway) -> Headway:
    return make_headway()
