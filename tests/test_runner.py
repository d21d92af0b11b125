"""Jobs in one process, from start to end: what runs where, how it ends, how it is stopped."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from headway import (
    Headway,
    Job,
    JobCancelled,
    JobError,
    Progress,
    State,
    Task,
    current_progress,
)
from headway.errors import (
    BadInput,
    JobFailed,
    JobNotFinished,
    JobNotFound,
    NotOpen,
    TaskError,
    TooLarge,
)
from headway.local import LocalEngine
from tests.conftest import MakeHeadway, Until, end_of


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway."""
    async with make_headway() as headway:
        yield headway


# ── how it runs ───────────────────────────────────────────────────────────────────────────────


async def test_coroutine_runs_on_the_loop(headway: Headway) -> None:
    """An `async def` task shares the loop, and its result is kept."""
    here = threading.get_ident()

    @headway.task
    async def work(progress: Progress, n: int) -> dict[str, Any]:
        return {"n": n, "here": threading.get_ident() == here, "attempt": progress.attempt}

    ended = await end_of(headway, await work.start(7))

    assert ended.state is State.SUCCEEDED
    assert ended.result == {"n": 7, "here": True, "attempt": 1}
    assert await headway.result(ended.id) == ended.result


async def test_function_runs_in_a_thread(headway: Headway) -> None:
    """A `def` task does not block the loop."""
    here = threading.get_ident()
    go = threading.Event()

    @headway.task
    def work() -> bool:
        go.wait()
        return threading.get_ident() != here

    job = await work.start()
    go.set()

    assert (await end_of(headway, job)).result is True


async def test_many_functions_run_at_once(make_headway: MakeHeadway) -> None:
    """Each function has a thread of its own, up to the concurrency."""
    together = threading.Barrier(8)
    async with make_headway(concurrency=8) as headway:

        @headway.task
        def work() -> int:
            return together.wait(10)

        jobs = [await work.start() for _ in range(8)]
        ended = [await end_of(headway, job) for job in jobs]

    assert sorted(job.result for job in ended) == list(range(8))


@pytest.mark.parametrize("places", [1, 2])
async def test_surplus_waits_its_turn(make_headway: MakeHeadway, places: int) -> None:
    """No more than `concurrency` jobs run at a time, all of them run, and one by one in order."""
    running, most, order = 0, 0, []
    async with make_headway(concurrency=places) as headway:

        @headway.task
        async def work(n: int) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            order.append(n)
            await asyncio.sleep(0)
            running -= 1

        jobs = [await work.start(n) for n in range(12)]
        states = [(await end_of(headway, job)).state for job in jobs]

    assert most <= places
    # Two that begin at a time may lie on two servers of a cluster, and one of these be faster.
    assert (order if places == 1 else sorted(order)) == list(range(12))
    assert set(states) == {State.SUCCEEDED}


async def test_arguments_arrive_as_annotated(headway: Headway) -> None:
    """Arguments travel as JSON and are given their types back."""

    @headway.task
    async def work(progress: Progress, at: datetime, point: Point, *rest: int, **more: str) -> str:
        return f"{at.year} {point.x + point.y} {rest} {more}"

    start: Any = work.start  # mypy gives up at a Progress that is followed by **more
    job = await start(datetime(2026, 1, 2, tzinfo=UTC), Point(1, 2), 3, 4, a="b")

    assert (await end_of(headway, job)).result == "2026 3 (3, 4) {'a': 'b'}"


@dataclass
class Point:
    x: int
    y: int


async def test_progress_is_found_from_deep_code(headway: Headway) -> None:
    """`current_progress()` works in coroutines, subtasks, `to_thread` and threads of tasks."""

    def deep() -> int:
        current_progress().advance()
        return id(current_progress())

    @headway.task
    async def work(progress: Progress) -> bool:
        inner = await asyncio.create_task(asyncio.to_thread(deep))
        return inner == deep() == id(progress)

    @headway.task
    def in_thread(progress: Progress) -> bool:
        return deep() == id(progress)

    assert (await end_of(headway, await work.start())).result is True
    assert (await end_of(headway, await in_thread.start())).result is True


# ── how it ends ───────────────────────────────────────────────────────────────────────────────


async def test_job_error_is_told_to_the_owner(headway: Headway) -> None:
    """The text of a `JobError` is the only one that leaves the server."""

    @headway.task
    async def work() -> None:
        raise JobError("Row 7 has no name", code="no_name")

    ended = await end_of(headway, await work.start())

    assert ended.state is State.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.title) == ("no_name", "Row 7 has no name")
    with pytest.raises(JobFailed, match="Row 7 has no name"):
        await headway.result(ended.id)


async def test_other_errors_stay_inside(headway: Headway, caplog: pytest.LogCaptureFixture) -> None:
    """Any other exception is logged with its traceback, and shown as that something went wrong."""

    @headway.task
    def work() -> None:
        raise ValueError("password=hunter2")

    ended = await end_of(headway, await work.start())

    assert ended.error is not None
    assert ended.error.code == "exception"
    assert "hunter2" not in repr(ended)
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit])
async def test_a_thread_may_raise_anything(
    headway: Headway, exception: type[BaseException]
) -> None:
    """Exceptions that would end a server fail the job instead."""

    @headway.task
    def work() -> None:
        raise exception

    assert (await end_of(headway, await work.start())).state is State.FAILED


async def test_exit_ends_the_task_only(headway: Headway) -> None:
    """`sys.exit()` in a coroutine fails its job, and the server lives."""

    @headway.task
    async def work() -> None:
        sys.exit(3)

    assert (await end_of(headway, await work.start())).state is State.FAILED


@pytest.mark.parametrize(
    ("value", "code"), [(object(), "bad_value"), ("x" * 70_000, "result_too_large")]
)
async def test_a_result_that_cannot_be_kept(
    headway: Headway, caplog: pytest.LogCaptureFixture, value: object, code: str
) -> None:
    """A result that is no JSON, or too large, fails the job; the log says what to do."""

    @headway.task
    async def work() -> object:
        return value

    ended = await end_of(headway, await work.start())

    assert ended.error is not None
    assert ended.error.code == code
    assert "Store the data elsewhere" in caplog.text


async def test_bar_reads_full_only_at_the_end(headway: Headway) -> None:
    """While the code runs the ratio stays under one, and at the end of success it is one."""
    go = asyncio.Event()

    @headway.task
    async def work(progress: Progress) -> None:
        for _ in progress.track([1, 2, 3]):
            pass
        await go.wait()

    ratios = []
    async for job in headway.watch((await work.start()).id):
        ratios.append(job.progress.ratio)
        if job.progress.done == 3:
            go.set()

    assert ratios[-1] == 1.0
    assert all(ratio is None or ratio <= 0.99 for ratio in ratios[:-1])
    assert job.progress.done == 3


async def test_end_carries_the_last_value(headway: Headway) -> None:
    """What was reported just before the end is part of it."""

    @headway.task
    async def work(progress: Progress) -> None:
        for n in range(1000):
            progress.set(done=n + 1, total=1000)
            progress.note(f"row {n}")
        progress.log("the last line")

    ended = await end_of(headway, await work.start())

    assert (ended.progress.done, ended.note) == (1000, "row 999")
    assert await headway.log(ended.id) == ["the last line"]


async def test_failed_job_keeps_how_far_it_came(headway: Headway) -> None:
    """A failure does not fill the bar."""

    @headway.task
    async def work(progress: Progress) -> None:
        progress.set(done=3, total=10)
        raise JobError("no")

    assert (await end_of(headway, await work.start())).progress.ratio == 0.3


# ── retries and timeouts ──────────────────────────────────────────────────────────────────────


async def test_retry_is_a_visible_attempt(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an exception the next attempt is announced with its time, and then made."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.02)

    @headway.task(retries=2)
    async def work(progress: Progress) -> int:
        if progress.attempt < 3:
            raise RuntimeError("not yet")
        return progress.attempt

    seen = [job async for job in headway.watch((await work.start()).id)]

    assert seen[-1].result == 3
    assert seen[-1].error is None
    assert seen[-1].max_attempts == 3
    assert any(job.retry_at for job in seen if job.state is State.QUEUED)


async def test_retries_end(headway: Headway, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no attempt is left, the job has failed with the last error."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.01)

    @headway.task(retries=1)
    def work(progress: Progress) -> None:
        raise JobError(f"attempt {progress.attempt}")

    ended = await end_of(headway, await work.start())

    assert (ended.attempt, ended.error and ended.error.title) == (2, "attempt 2")


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_timeout_ends_an_attempt(headway: Headway, kind: str) -> None:
    """Code that takes longer than its timeout is stopped, and the job says so."""

    @headway.task(timeout_s=60)
    async def coroutine() -> None:
        await asyncio.Event().wait()

    @headway.task(timeout_s=60)
    def thread(progress: Progress) -> None:
        while True:
            progress.advance()

    task: Task[[], Any] = coroutine if kind == "coroutine" else thread
    ended = await end_of(headway, await task.using(timeout_s=0.05).start())

    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "timeout"


async def test_resume_goes_on_where_it_stopped(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt skips what was done and has the last checkpoint, and the bar says so."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.01)
    seen: list[tuple[int, int]] = []

    @headway.task(retries=1)
    async def work(progress: Progress) -> Any:
        for n in progress.track(range(10), resume=True):
            seen.append((progress.attempt, n))
            if progress.attempt == 1 and n == 6:
                raise RuntimeError("half way")
            progress.checkpoint({"last": n})
        return progress.resume

    ended = await end_of(headway, await work.start())

    assert [n for attempt, n in seen if attempt == 2] == [6, 7, 8, 9]
    assert ended.result == {"last": 9}
    assert ended.progress.resumed_ratio == 0.6


# ── cancelling ────────────────────────────────────────────────────────────────────────────────


async def running(headway: Headway, job: Job) -> None:
    async for now in headway.watch(job.id):
        if now.progress.note:
            return


async def test_cancelled_is_true_for_a_coroutine(headway: Headway) -> None:
    """`cancelled` is written only after the coroutine has cleaned up."""
    cleaned = asyncio.Event()

    @headway.task
    async def work(progress: Progress) -> None:
        try:
            progress.note("in")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    job = await work.start()
    await running(headway, job)
    asked = await headway.cancel(job.id)
    async for now in headway.watch(job.id):
        assert now.state is not State.CANCELLED or cleaned.is_set()

    assert asked.cancel_requested
    assert asked.state is State.RUNNING
    assert now.state is State.CANCELLED


@pytest.mark.parametrize("reports", [True, False])
async def test_cancelled_is_true_for_a_thread(headway: Headway, reports: bool) -> None:
    """A thread is stopped at its next report, or inside of a loop that makes none."""
    stopped = threading.Event()

    @headway.task
    def work(progress: Progress) -> None:
        total = 0
        try:
            progress.note("in")
            for n in itertools.count():
                if reports:
                    progress.advance()
                total += n  # a body that ends in a jump may be left without its handlers
        except JobCancelled:
            stopped.set()
            raise

    job = await work.start()
    await running(headway, job)
    await headway.cancel(job.id)
    ended = await end_of(headway, job)

    assert stopped.is_set()
    assert ended.state is State.CANCELLED


async def test_code_that_ends_all_the_same_has_succeeded(headway: Headway) -> None:
    """A wish to cancel that the code does not follow does not make it cancelled."""

    @headway.task
    async def work(progress: Progress) -> str:
        progress.note("in")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished anyway"
        return "never"

    job = await work.start()
    await running(headway, job)
    await headway.cancel(job.id)
    ended = await end_of(headway, job)

    assert (ended.state, ended.result) == (State.SUCCEEDED, "finished anyway")
    assert ended.cancel_requested


async def test_a_queued_job_is_cancelled_at_once(make_headway: MakeHeadway) -> None:
    """What has not begun need not be stopped, and never begins."""
    go = asyncio.Event()
    ran = []
    async with make_headway(concurrency=1) as headway:

        @headway.task
        async def work(n: int) -> None:
            ran.append(n)
            await go.wait()

        first, second = await work.start(1), await work.start(2)
        cancelled = await headway.cancel(second.id)
        go.set()
        await end_of(headway, first)

    assert cancelled.state is State.CANCELLED
    assert ran == [1]


async def test_cancelling_what_is_not_there(headway: Headway) -> None:
    """An unknown job cannot be cancelled."""
    with pytest.raises(JobNotFound):
        await headway.cancel("00" + "a" * 26)


# ── single flight ─────────────────────────────────────────────────────────────────────────────


async def test_a_double_click_starts_one_job(headway: Headway) -> None:
    """Eight starts at once with one key are one job; after its end the key is free."""
    go = asyncio.Event()
    runs = []

    @headway.task
    async def work() -> None:
        runs.append(1)
        await go.wait()

    one = work.using(key="k", owner="ann")
    jobs = await asyncio.gather(*(one.start() for _ in range(8)))
    go.set()
    await end_of(headway, jobs[0])
    after = await one.start()

    assert len({job.id for job in jobs}) == 1
    assert sorted(job.reused for job in jobs) == [False] + [True] * 7
    assert after.id != jobs[0].id
    assert not after.reused
    await end_of(headway, after)
    assert len(runs) == 2


async def test_a_key_belongs_to_task_and_owner(headway: Headway) -> None:
    """The same key of another owner, or of another task, is another flight."""
    go = asyncio.Event()

    @headway.task
    async def one() -> None:
        await go.wait()

    @headway.task
    async def two() -> None:
        await go.wait()

    jobs = [
        await one.using(key="k", owner="ann").start(),
        await one.using(key="k", owner="bob").start(),
        await two.using(key="k", owner="ann").start(),
    ]
    go.set()
    for job in jobs:
        await end_of(headway, job)

    assert len({job.id for job in jobs}) == 3


# ── misuse ────────────────────────────────────────────────────────────────────────────────────


async def test_used_before_open_it_says_how_to_open(make_headway: MakeHeadway) -> None:
    """Every use of a closed Headway names the ways to open it."""
    headway = make_headway()

    @headway.task
    async def work() -> None: ...

    for use in (work.start(), headway.get("x"), headway.cancel("x"), headway.list(owner="x")):
        with pytest.raises(NotOpen, match="lifespan"):
            await use
    with pytest.raises(NotOpen):
        await anext(headway.watch("x"))


async def test_arguments_are_checked_at_the_start(headway: Headway) -> None:
    """Arguments that do not fit, or cannot travel, are refused where they are given."""

    @headway.task
    async def work(progress: Progress, n: int) -> None: ...

    with pytest.raises(TypeError, match="missing"):
        await work.start()  # type: ignore[call-arg]
    with pytest.raises(BadInput, match="annotated"):
        await work.start("three")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="JSON"):
        await work.start(object())  # type: ignore[arg-type]
    with pytest.raises(TooLarge, match="65536"):
        await work.start("x" * 70_000)  # type: ignore[arg-type]


async def test_a_task_is_registered_once(headway: Headway) -> None:
    """Two tasks of one name would be mixed up in the store."""

    @headway.task
    async def work() -> None: ...

    with pytest.raises(TaskError, match="name="):
        headway.task(work.function)


async def test_result_too_early(headway: Headway) -> None:
    """A result is not there before the end."""
    go = asyncio.Event()

    @headway.task
    async def work() -> None:
        await go.wait()

    job = await work.start()
    with pytest.raises(JobNotFinished, match="watch"):
        await headway.result(job.id)
    go.set()
    await end_of(headway, job)


async def test_a_client_that_goes_away_leaves_a_whole_job(headway: Headway) -> None:
    """Cancelling `start()` in its middle loses nothing: what was accepted is run."""
    ran = asyncio.Event()

    @headway.task
    async def work() -> None:
        ran.set()

    starting = asyncio.create_task(work.start())
    await asyncio.sleep(0)
    starting.cancel()
    async with asyncio.timeout(5):
        await ran.wait()

    assert starting.cancelled() or starting.cancelling()


# ── closing ───────────────────────────────────────────────────────────────────────────────────


async def test_closing_fails_what_may_not_be_repeated(make_headway: MakeHeadway) -> None:
    """Work that may not be done twice ends honestly when its server stops."""
    headway = make_headway()
    async with headway:

        @headway.task
        async def work(progress: Progress) -> None:
            progress.note("in")
            await asyncio.Event().wait()

        job = await work.start()
        await running(headway, job)

    async with headway:
        ended = await headway.get(job.id)
    assert ended.error is not None
    assert (ended.state, ended.error.code) == (State.FAILED, "interrupted")


async def test_closing_hands_over_what_may(make_headway: MakeHeadway, until: Until) -> None:
    """Repeatable work, and what had not begun, goes on in the next process at once."""
    headway = make_headway(concurrency=1)
    attempts = []

    @headway.task(on_lost="retry")
    async def work(progress: Progress, n: int) -> int:
        attempts.append((n, progress.attempt))
        progress.note("in")
        if progress.attempt == 1 and n == 1:
            await asyncio.Event().wait()
        return progress.attempt

    async with headway:
        first = await work.start(1)
        await running(headway, first)
        second = await work.start(2)
    began = time.monotonic()
    async with headway:
        ended = [await end_of(headway, first), await end_of(headway, second)]

    assert [job.result for job in ended] == [2, 1]
    assert time.monotonic() - began < 5
    assert sorted(attempts) == [(1, 1), (1, 2), (2, 1)]


async def test_short_work_ends_in_the_drain(make_headway: MakeHeadway) -> None:
    """What is done within `drain_s` is not interrupted."""
    headway = make_headway(drain_s=5)
    async with headway:

        @headway.task
        async def work(progress: Progress) -> str:
            progress.note("in")
            await asyncio.sleep(0.1)
            return "done"

        job = await work.start()
        await running(headway, job)

    async with headway:
        assert await headway.result(job.id) == "done"


async def test_another_task_is_left_to_others(make_headway: MakeHeadway, until: Until) -> None:
    """A process that does not know a task leaves its jobs to one that does."""
    first, second, third = make_headway(), make_headway(), make_headway()
    go = asyncio.Event()

    @first.task
    async def work() -> str:
        await go.wait()
        return "done"

    third.task(work.function)
    async with first:
        first._open_runtime("test").engine.stop_taking()
        job = await work.start()
    async with second:
        await second._open_runtime("test").watchdog.look()
        waiting = await second.get(job.id)
    go.set()
    async with third:
        ended = await end_of(third, job)

    assert waiting.state is State.QUEUED
    assert ended.result == "done"


async def test_attempts_are_kept_for_the_operator(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt that is over is remembered with its error and trace, away from the owner."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.01)

    @headway.task(retries=1)
    async def work(progress: Progress) -> None:
        if progress.attempt == 1:
            raise ValueError("password=hunter2")

    ended = await end_of(headway, await work.start())
    first, second = await headway.attempts(ended.id)

    assert (first.attempt, first.outcome, second.outcome) == (1, "released", "succeeded")
    assert first.error is not None
    assert first.trace is not None
    assert "hunter2" in first.trace
    assert "hunter2" not in repr(ended)


async def test_a_new_attempt_begins_at_nothing(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier attempt had shown is not shown as the progress of the next one."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.01)

    @headway.task(retries=1)
    async def work(progress: Progress) -> float | None:
        if progress.attempt == 1:
            progress.set(done=9, total=10)
            raise JobError("again")
        return (await headway.get(str(progress.job_id))).progress.ratio

    ended = await end_of(headway, await work.start())

    assert (ended.state, ended.attempt, ended.result) == (State.SUCCEEDED, 2, None)


async def test_clean_up_may_report(headway: Headway) -> None:
    """Code that was told to stop by a report can go on reporting while it cleans up."""

    @headway.task
    def work(progress: Progress) -> None:
        progress.note("in")
        try:
            while True:
                progress.advance()
        finally:
            progress.note("rolled back")

    job = await work.start()
    await running(headway, job)
    await headway.cancel(job.id)
    ended = await end_of(headway, job)

    assert (ended.state, ended.note) == (State.CANCELLED, "rolled back")


async def test_an_engine_may_be_given(make_headway: MakeHeadway) -> None:
    """The engine that is given runs the jobs, again after Headway was closed and opened."""
    headway = make_headway(engine=LocalEngine(concurrency=1))

    @headway.task
    async def work(n: int) -> int:
        return n

    for n in (1, 2):
        async with headway:
            assert (await end_of(headway, await work.start(n))).result == n
