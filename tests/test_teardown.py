"""An event loop that is taken down around an open Headway, as Quart's reloader does it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import pytest

from headway import Headway, Job, Progress
from headway._link import Link
from headway._wire import Call
from tests.conftest import MakeHeadway, Until
from tests.keyspace import Keyspace

T = TypeVar("T")


def torn(opened: AsyncIterator[Any], begin: Callable[[], Awaitable[T]]) -> T:
    """Open, and run *begin*; then cancel all tasks of the loop, and close what is open after it."""

    async def serve() -> T:
        await anext(opened)
        return await begin()

    loop = asyncio.new_event_loop()
    try:
        value = loop.run_until_complete(serve())
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return value


async def serving(headway: Headway) -> AsyncIterator[None]:
    """What a framework holds while it serves: a generator, which is closed with its loop."""
    async with headway:
        yield


class Stored(NamedTuple):
    """What the store has of a job."""

    state: str
    attempt: int
    held: bool
    code: str = ""
    cancel: bool = False


@pytest.fixture
def stored(keyspace: Keyspace) -> Callable[[Job], Stored]:
    """Reads a job while no loop is there."""

    def stored(job: Job) -> Stored:
        name = f"{keyspace.prefix}:{{{job.id[:2]}}}:job:{job.id}"
        record = {str(k): str(v) for k, v in keyspace.client.hgetall(name).items()}
        now = Job.from_record(record)
        code = now.error.code if now.error else ""
        return Stored(now.state, now.attempt, record["worker"] != "", code, now.cancel_requested)

    return stored


HANDED_OVER = Stored("queued", 1, held=False)
GIVEN_BACK = Stored("queued", 0, held=False)
INTERRUPTED = Stored("failed", 1, held=False, code="interrupted")


def test_jobs_are_handed_over(
    make_headway: MakeHeadway, stored: Callable[[Job], Stored], until: Until
) -> None:
    """What runs is handed over or fails honestly; what waits is given back and never begins."""
    headway = make_headway(concurrency=3)
    ran: list[str] = []

    async def work(name: str) -> None:
        ran.append(name)
        await asyncio.Event().wait()

    once = headway.task(name="once")(work)
    again = headway.task(name="again", on_lost="retry")(work)

    @headway.task(on_lost="retry")
    def thread(progress: Progress) -> None:
        ran.append("thread")
        while True:
            progress.advance()

    async def begin() -> list[Job]:
        jobs = [await once.start("once"), await again.start("again"), await thread.start()]
        jobs += [await once.start("waiting") for _ in range(3)]
        await until(lambda: len(ran) == 3, "three of them run")
        return jobs

    jobs = torn(serving(headway), begin)

    now = [stored(job) for job in jobs]
    assert now == [INTERRUPTED, HANDED_OVER, HANDED_OVER, *[GIVEN_BACK] * 3]
    assert sorted(ran) == ["again", "once", "thread"]


def test_clean_up_of_a_task_is_awaited(
    make_headway: MakeHeadway, stored: Callable[[Job], Stored], until: Until
) -> None:
    """A task is cancelled once, and has stopped before its end is written."""
    headway = make_headway()
    steps: list[str] = []

    @headway.task(on_lost="retry")
    async def careful() -> None:
        steps.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            steps.append("cleaned up")

    async def begin() -> Job:
        job = await careful.start()
        await until(lambda: steps, "it runs")
        return job

    job = torn(serving(headway), begin)

    assert (stored(job), steps) == (HANDED_OVER, ["begun", "cleaned up"])


def test_end_that_comes_in_time_counts(
    make_headway: MakeHeadway, stored: Callable[[Job], Stored], until: Until
) -> None:
    """A task that comes to its end all the same has succeeded."""
    headway = make_headway()
    begun: list[int] = []

    @headway.task
    async def stubborn() -> str:
        begun.append(1)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    async def begin() -> Job:
        job = await stubborn.start()
        await until(lambda: begun, "it runs")
        return job

    assert stored(torn(serving(headway), begin)) == Stored("succeeded", 1, held=False)


def test_code_that_does_not_stop_is_left_to_its_lease(
    make_headway: MakeHeadway,
    stored: Callable[[Job], Stored],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is written of code that may still run: the next attempt begins when it is dead."""
    monkeypatch.setattr("headway.run.TORN_S", 0.02)
    headway = make_headway()
    begun, go = threading.Event(), threading.Event()

    @headway.task(on_lost="retry")
    def deaf() -> None:
        begun.set()
        go.wait()

    async def begin() -> Job:
        job = await deaf.start()
        await until(begun.is_set, "it runs")
        return job

    with caplog.at_level(logging.WARNING):
        job = torn(serving(headway), begin)
    go.set()

    assert stored(job) == Stored("running", 1, held=True)
    assert f"job {job.id} did not stop with its event loop" in caplog.text


def test_jobs_of_a_job_are_left_alone(
    make_headway: MakeHeadway, stored: Callable[[Job], Stored], until: Until
) -> None:
    """A parent that is handed over does not cancel its children on its way out."""
    headway = make_headway()
    children: list[Job] = []
    begun: list[int] = []

    @headway.task(on_lost="retry")
    async def part() -> None:
        begun.append(1)
        await asyncio.Event().wait()

    @headway.task(on_lost="retry")
    async def whole(progress: Progress) -> None:
        async with headway.group(progress) as group:
            children.extend([await group.start(part) for _ in range(2)])

    async def begin() -> Job:
        parent = await whole.start()
        await until(lambda: len(begun) == 2, "the children run")
        return parent

    parent = torn(serving(headway), begin)

    assert [stored(job) for job in (parent, *children)] == [HANDED_OVER] * 3


def test_what_is_asked_meanwhile_is_served(url: str, keyspace: Keyspace) -> None:
    """The connection outlives the cancelling of its loop, also in the middle of a call."""
    name = f"{keyspace.prefix}:owner:test"
    link = Link(url)
    answers: list[Any] = []

    async def opened() -> AsyncIterator[None]:
        link.open()
        try:
            yield
        finally:
            answers.append(await link.call(Call(None, ("ZADD", name, 1, "late"))))
            await link.aclose()

    async def ask(member: str) -> None:
        asking = asyncio.ensure_future(link.call(Call(None, ("ZADD", name, 1, member))))
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            answers.append(await link.call(Call(None, ("ZADD", name, 1, f"{member} again"))))

    async def begin() -> None:
        await link.call(Call(None, ("PING",)))
        asked = [asyncio.create_task(ask(str(n))) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        link.post(Call(None, ("EXPIRE", name, 60)))
        assert not any(task.done() for task in asked)

    torn(opened(), begin)

    assert answers == [1, 1, 1, 1]
    assert set(keyspace.client.zrange(name, 0, -1)) >= {"0 again", "1 again", "2 again", "late"}
    keyspace.client.delete(name)
