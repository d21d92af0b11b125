"""Work that somebody else runs, as a job: coroutines, threads, scripts."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest

from headway import EVERYONE, Headway, Job, JobError, Progress, State, current_progress
from headway.errors import AlreadyRunning, BadInput, JobCancelled, NotOpen, TaskError
from tests.apps.life import visiting
from tests.apps.process import wait_until
from tests.conftest import DEADLINE_S, MakeHeadway, Until


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway."""
    async with make_headway() as headway:
        yield headway


async def only_job(headway: Headway) -> Job:
    page = await headway.overview()
    assert len(page.jobs) == 1
    return page.jobs[0]


# ── with a loop ───────────────────────────────────────────────────────────────────────────────


async def test_block_is_a_job(headway: Headway, until: Until) -> None:
    """While the block runs so does the job, with all that is reported in it; then it has ended."""
    async with headway.report("Nightly import", owner="ann") as progress:
        assert current_progress() is progress
        async for n in progress.track(range(3), unit="file"):
            progress.note(f"file {n}")
            progress.log(f"line {n}")

        async def shown() -> bool:
            return (await only_job(headway)).note == "file 2"

        await until(shown, "it is shown")
        running = await only_job(headway)
    ended = await only_job(headway)

    assert (running.state, running.title, running.owner) == ("running", "Nightly import", "ann")
    assert (ended.state, ended.attempt, ended.progress.done) == ("succeeded", 1, 3)
    assert await headway.log(ended.id) == ["line 0", "line 1", "line 2"]
    with pytest.raises(Exception, match="outside of a job"):
        current_progress()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JobError("Row 7 has no name", code="no_name"), ("no_name", "Row 7 has no name")),
        (ValueError("inside"), ("exception", "Something went wrong")),
        (KeyboardInterrupt(), ("interrupted", "This was stopped before its end")),
        (SystemExit(3), ("exception", "Something went wrong")),
    ],
    ids=["told", "not-told", "interrupted", "exits"],
)
async def test_error_is_the_jobs_and_goes_on(
    headway: Headway, error: BaseException, said: tuple[str, str]
) -> None:
    """What the block raises is shown as with tasks, and raised all the same."""
    with pytest.raises(type(error)) as caught:
        async with headway.report("Work"):
            raise error
    job = await only_job(headway)

    assert caught.value is error
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.title) == said


async def test_exit_without_an_error_succeeds(headway: Headway) -> None:
    """A script that ends in the block with sys.exit() has done its work."""
    with pytest.raises(SystemExit):
        async with headway.report("Work"):
            sys.exit()

    assert (await only_job(headway)).state == "succeeded"


async def test_cancelled_block_stops(headway: Headway) -> None:
    """Cancelling the job cancels the block where it awaits; the task around it is not cancelled."""
    begun = asyncio.Event()
    cleaned: list[str] = []

    async def work() -> str:
        try:
            async with headway.report("Work"):
                try:
                    begun.set()
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    cleaned.append("up")
        except JobCancelled:
            await asyncio.sleep(0)
            return "went on"
        return "was not cancelled"

    working = asyncio.create_task(work())
    await begun.wait()
    await headway.cancel((await only_job(headway)).id)

    assert await working == "went on"
    assert cleaned == ["up"]
    assert (await only_job(headway)).state == "cancelled"


async def test_block_that_others_cancel_was_interrupted(headway: Headway) -> None:
    """A task that is cancelled by its app has not been cancelled by the owner of the job."""
    begun = asyncio.Event()

    async def work() -> None:
        async with headway.report("Work"):
            begun.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await begun.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    job = await only_job(headway)

    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == "interrupted"


async def test_block_that_others_cancel_too_goes_on_so(headway: Headway) -> None:
    """What a timeout or a task group has cancelled does not look as if only its job had been."""
    begun, cleans = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with headway.report("Work"):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleans.set()
                await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await begun.wait()
    await headway.cancel((await only_job(headway)).id)
    await cleans.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await working

    assert not isinstance(caught.value, JobCancelled)
    assert (await only_job(headway)).state == "cancelled"


async def test_inner_block_is_stopped_with_the_outer_one(headway: Headway) -> None:
    """Only the job that was cancelled is `cancelled`, and only its block raises JobCancelled."""
    begun = asyncio.Event()
    inner: list[BaseException] = []

    async def work() -> None:
        async with headway.report("Outer"):
            try:
                async with headway.report("Inner"):
                    begun.set()
                    await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                inner.append(error)
                raise

    working = asyncio.create_task(work())
    await begun.wait()
    outer = next(job for job in (await headway.overview()).jobs if job.title == "Outer")
    await headway.cancel(outer.id)
    with pytest.raises(JobCancelled):
        await working
    ends = {job.title: job for job in (await headway.overview()).jobs}

    assert [type(error) for error in inner] == [asyncio.CancelledError]
    assert ends["Outer"].state == "cancelled"
    assert ends["Inner"].error is not None
    assert ends["Inner"].error.code == "interrupted"


async def test_block_that_is_cancelled_while_it_is_entered(
    make_headway: MakeHeadway, until: Until
) -> None:
    """Whenever others cancel it: no job runs on without its block, and keeps its key."""
    async with make_headway(lease_s=1.0) as headway:

        async def work(turns: int) -> None:
            async with headway.report("Work", key=f"after {turns}"):
                await asyncio.Event().wait()

        for turns in range(60):
            working = asyncio.create_task(work(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            working.cancel()
            await asyncio.wait({working})

        async def over() -> bool:
            return all(job.state.terminal for job in (await headway.overview()).jobs)

        await until(over, "all have ended")
        codes = {job.error.code for job in (await headway.overview()).jobs if job.error}

    assert codes <= {"interrupted", "lost"}


async def test_job_that_is_cancelled_while_it_is_entered(
    headway: Headway, make_headway: MakeHeadway
) -> None:
    """Whenever its owner cancels it: the block raises JobCancelled, or is not even entered."""
    other = make_headway()
    begun: list[int] = []

    def cancel_all() -> int:
        """On another loop, while this one stands still."""
        jobs = [
            job for job in other.background.call(other.overview()).jobs if not job.state.terminal
        ]
        for job in jobs:
            other.background.call(other.cancel(job.id))
        return len(jobs)

    async def work(turns: int) -> None:
        async with headway.report("Work"):
            begun.append(turns)
            await asyncio.Event().wait()

    await asyncio.to_thread(other.__enter__)
    for turns in itertools.count():
        working = asyncio.create_task(work(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        last = turns in begun
        while not cancel_all():
            await asyncio.sleep(0)
        with pytest.raises(JobCancelled):
            await working
        if last:
            break
    await asyncio.to_thread(other.__exit__, None, None, None)

    assert len(begun) < turns
    assert {job.state for job in (await headway.overview()).jobs} == {State.CANCELLED}


async def test_generator_that_is_closed_elsewhere(headway: Headway) -> None:
    """A block in a generator ends wherever that is closed, and not as if its work were done."""

    async def rows() -> AsyncGenerator[int, None]:
        async with headway.report("Work"):
            yield 1
            yield 2

    found = rows()
    first = await asyncio.ensure_future(anext(found))
    await asyncio.create_task(found.aclose())
    job = await only_job(headway)

    assert first == 1
    assert job.error is not None
    assert job.error.code == "interrupted"


async def test_headway_that_closes_stops_the_block(make_headway: MakeHeadway) -> None:
    """Closing waits for it as for a task, so that its end is written."""
    headway, begun = make_headway(), asyncio.Event()

    async def work() -> None:
        async with headway.report("Work"):
            begun.set()
            await asyncio.Event().wait()

    async with headway:
        working = asyncio.create_task(work())
        await begun.wait()
    with pytest.raises(JobCancelled, match="drain"):
        await working
    async with headway:
        job = await only_job(headway)

    assert job.error is not None
    assert job.error.code == "interrupted"


async def test_headway_that_is_about_to_close_lets_no_block_begin(headway: Headway) -> None:
    """What would have begun is told so, and its job was interrupted: nobody else could run it."""
    async with headway:
        headway._open_runtime("test").hurry()
        with pytest.raises(JobCancelled):
            async with headway.report("Too late", owner="ann"):
                raise AssertionError

        (job,) = await headway.list(owner="ann")
    assert (job.state, job.error and job.error.code) == ("failed", "interrupted")


async def test_block_that_outlasts_its_lease(make_headway: MakeHeadway, until: Until) -> None:
    """Its lease is renewed as long as it runs, and others leave it alone."""
    async with make_headway(lease_s=1.0) as headway, make_headway(lease_s=1.0):
        begun = time.monotonic()
        async with headway.report("Work"):
            await until(lambda: time.monotonic() - begun > 2.5, "two leases are over")
            assert (await only_job(headway)).state == "running"

        assert (await only_job(headway)).state == "succeeded"


async def test_key_is_for_one_block_at_a_time(headway: Headway) -> None:
    """While a report of a key runs, another one is not entered; afterwards it is."""
    async with headway.report("First", key="nightly", owner="ann"):
        with pytest.raises(AlreadyRunning) as caught:
            await headway.report("Second", key="nightly", owner="ann").__aenter__()
        async with headway.report("Other", key="nightly", owner="bob"):
            pass
        first = await headway.get(caught.value.job_id)
    async with headway.report("Third", key="nightly", owner="ann"):
        pass

    assert first.title == "First"
    titles = {job.title for job in (await headway.overview()).jobs}
    assert titles == {"First", "Other", "Third"}


async def test_report_is_not_tried_again(make_headway: MakeHeadway) -> None:
    """No page offers it, and who asks all the same is refused: only its own code can begin it."""
    headway = make_headway(identify=lambda scope: "ann")
    async with visiting(headway.asgi) as client:
        with pytest.raises(ValueError, match="broken"):
            async with headway.report("Work", owner="ann"):
                raise ValueError("broken")
        (job,) = await headway.list(owner="ann")
        shown = await client.get(f"/{job.id}")
        refused = await client.post(f"/{job.id}/retry")
        with pytest.raises(TaskError, match="reported by other code"):
            await headway.retry(job.id)

    assert shown.json()["links"]["retry"] is None
    assert (refused.status_code, refused.json()["code"]) == (409, "not_failed")


async def test_report_needs_an_open_headway(make_headway: MakeHeadway) -> None:
    """With a loop, Headway is open already or it is told how to open it."""
    with pytest.raises(NotOpen, match="Headway is not open"):
        await make_headway().report("Work").__aenter__()


@pytest.mark.parametrize(
    "bad", [{"owner": ""}, {"key": ""}, {"key": "x" * 201}, {"stall_s": 0}, {"stall_s": -1.0}]
)
def test_bad_option_is_refused(make_headway: MakeHeadway, bad: dict[str, Any]) -> None:
    """Options have the ranges that they have with tasks, and are checked at once."""
    with pytest.raises(BadInput):
        make_headway().report("Work", **bad)


# ── without one ───────────────────────────────────────────────────────────────────────────────


def test_script_reports(make_headway: MakeHeadway) -> None:
    """Without a loop Headway opens in a thread of its own, and is closed with the last block."""
    headway = make_headway()
    threads = threading.active_count()

    with headway.report("Outer", owner="ann") as progress:
        for _ in progress.track(range(5)):
            pass
        assert current_progress() is progress
        with headway.report("Inner", owner="ann"):
            pass
    assert headway.loop is None
    wait_until("no thread is left", lambda: threading.active_count() <= threads)

    async def look() -> set[tuple[str, str, float]]:
        async with headway:
            jobs = await headway.list(owner="ann")
            return {(job.title, str(job.state), job.progress.done) for job in jobs}

    assert asyncio.run(look()) == {("Outer", "succeeded", 5), ("Inner", "succeeded", 0)}


def test_headway_is_kept_open(make_headway: MakeHeadway) -> None:
    """`with headway:` opens it for all blocks of the process, and closes it behind them."""
    headway = make_headway()

    with headway as opened:
        loop = headway.loop
        for name in ("First", "Second"):
            with headway.report(name):
                assert headway.loop is loop

    assert opened is headway
    assert loop is not None
    assert loop.is_closed()
    assert headway.loop is None


def test_threads_report_at_once(make_headway: MakeHeadway) -> None:
    """Blocks of several threads share one Headway, and each finds its own progress."""
    headway = make_headway()
    together = threading.Barrier(4)
    found: list[bool] = []

    def work(number: int) -> None:
        for _ in range(3):
            with headway.report(f"Work {number}", owner="ann") as progress:
                found.append(current_progress() is progress)
                for _ in progress.track(range(number)):
                    pass
            together.wait(DEADLINE_S)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)

    async def look() -> list[tuple[str, str, float]]:
        async with headway:
            jobs = await headway.list(owner="ann")
            return sorted((job.title, job.state.value, job.progress.done) for job in jobs)

    assert found == [True] * 12
    assert asyncio.run(look()) == [(f"Work {n}", "succeeded", n) for n in range(4) for _ in "abc"]


def test_block_that_is_not_entered_leaves_nothing(make_headway: MakeHeadway) -> None:
    """The key is another's: the block is not run, and the other one goes on."""
    headway = make_headway()
    threads = threading.active_count()

    with headway.report("First", key="nightly"):
        with pytest.raises(AlreadyRunning):
            headway.report("Second", key="nightly").__enter__()
        loop = headway.loop

    assert loop is not None
    assert headway.loop is None
    wait_until("no thread is left", lambda: threading.active_count() <= threads)


async def test_thread_that_outlives_the_loop(make_headway: MakeHeadway, until: Until) -> None:
    """It is stopped when it can be; its end can be written nowhere, so its lease runs out."""
    begun, closed = threading.Event(), threading.Event()
    stopped: list[bool] = []

    def work(headway: Headway) -> None:
        try:
            with headway.report("Work", owner="ann"):
                begun.set()
                closed.wait(DEADLINE_S)
        except JobCancelled:
            stopped.append(True)

    async def app(headway: Headway) -> threading.Thread:
        async with headway:
            thread = threading.Thread(target=work, args=(headway,))
            thread.start()
            await until(begun.is_set, "it has begun")
        return thread

    headway = make_headway(lease_s=1.0)
    thread = await asyncio.to_thread(asyncio.run, app(headway))
    closed.set()
    await asyncio.to_thread(thread.join, DEADLINE_S)
    async with headway:
        (job,) = await headway.list(owner="ann")
        async for now in headway.watch(job.id):
            job = now

    assert stopped == [True]
    assert job.error is not None
    assert job.error.code in {"interrupted", "lost"}


@pytest.mark.parametrize("reports", [True, False], ids=["in-its-loop", "in-a-step"])
async def test_thread_is_cancelled(headway: Headway, until: Until, reports: bool) -> None:
    """Of an open Headway a thread uses the loop; cancelled, it stops at its next report or step."""
    said: list[BaseException] = []
    begun = threading.Event()

    def work() -> None:
        try:
            with headway.report("Work") as progress:
                begun.set()
                while True:
                    if reports:
                        progress.advance()
        except BaseException as error:
            said.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    await until(begun.is_set, "it has begun")
    await headway.cancel((await only_job(headway)).id)
    await until(lambda: not thread.is_alive(), "it has stopped")

    assert [type(error) for error in said] == [JobCancelled]
    assert (await only_job(headway)).state == "cancelled"


async def test_with_in_a_coroutine_is_refused(headway: Headway) -> None:
    """The loop is not blocked: who writes `with` in a coroutine is told what to write."""
    with pytest.raises(BadInput, match="async with"):
        headway.report("Work").__enter__()


def test_store_that_is_away_is_told() -> None:
    """A script hears what any opening says, and nothing is left behind."""
    headway = Headway("redis://127.0.0.1:1", secret="s")
    threads = threading.active_count()

    with pytest.raises(Exception, match="does not answer"):
        headway.report("Work").__enter__()

    wait_until("no thread is left", lambda: threading.active_count() <= threads)


SCRIPT = """
import sys, time
from headway import Headway
headway = Headway(sys.argv[1], prefix=sys.argv[2], lease_s=2)
with headway.report("Nightly", owner="ann") as progress:
    progress.note("begun")
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.fault
async def test_script_that_is_killed_is_shown(
    make_headway: MakeHeadway, url: str, prefix: str, until: Until
) -> None:
    """Nobody runs it again; within its lease and a look it has failed as lost."""
    async with make_headway(lease_s=2.0) as headway:
        script = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, url, prefix], stdout=subprocess.PIPE
        )
        assert script.stdout is not None
        await asyncio.to_thread(script.stdout.readline)
        script.kill()
        script.wait(DEADLINE_S)
        script.stdout.close()
        job = await only_job(headway)
        async for now in headway.watch(job.id):
            job = now

    assert job.error is not None
    assert (job.state, job.error.code, job.attempt) == ("failed", "lost", 1)


FORKS = """
import os, sys
from headway import Headway
headway = Headway(sys.argv[1], prefix=sys.argv[2])
with headway.report("Parent", owner="ann"):
    child = os.fork()
    if not child:
        with headway.report("Child", owner="ann") as progress:
            progress.advance(7)
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
"""
YIELDS = """
import sys
from headway import Headway
headway = Headway(sys.argv[1], prefix=sys.argv[2])
def rows():
    with headway.report("Rows", owner="ann"):
        yield 1
        yield 2
found = rows()
print(next(found))
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (FORKS, [("Child", "succeeded", 7), ("Parent", "succeeded", 0)]),
        (YIELDS, [("Rows", "failed", 0)]),
    ],
    ids=["it-forks", "its-generator-is-not-used-up"],
)
async def test_script_that_leaves_nothing_open(
    headway: Headway, url: str, prefix: str, script: str, expected: list[Any]
) -> None:
    """A fork reports by itself, though Headway was open; no block keeps a script from ending."""
    command = [sys.executable, "-W", "ignore:This process", "-c", script, url, prefix]
    told = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=DEADLINE_S * 2
    )
    jobs = await headway.list(owner="ann")

    assert (told.returncode, told.stderr) == (0, "")
    assert sorted((job.title, job.state.value, job.progress.done) for job in jobs) == expected


async def test_everybody_may_watch(make_headway: MakeHeadway) -> None:
    """A report of everyone is found by every visitor."""
    headway = make_headway(identify=lambda scope: "bob")
    async with (
        visiting(headway.asgi) as client,
        headway.report("Import", owner=EVERYONE) as progress,
    ):
        seen: httpx.Response = await client.get(f"/{progress.job_id}")

    assert (seen.status_code, seen.json()["state"]) == (200, "running")
    assert isinstance(progress, Progress)
