"""Jobs that start jobs: one bar over them, one end, and none twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from headway import Headway, Job, JobError, Progress, State
from headway.errors import BadInput, StartRefused
from headway.group import GOES_ON
from headway.run import Why
from tests.apps.process import App, Apps, wait_until
from tests.conftest import MakeHeadway, Until, end_of

LEASE_S = 2
SHOWN_S = 15.0  # from the death of a process to the moment when everyone can see it


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway that runs one job at a time."""
    async with make_headway(concurrency=1) as headway:
        yield headway


async def test_group_waits_for_its_jobs(headway: Headway) -> None:
    """The block ends with its jobs, which run although the parent takes the only place."""

    @headway.task
    async def part(progress: Progress, n: int) -> int:
        async for _ in progress.track(range(n)):
            await asyncio.sleep(0)
        return n

    @headway.task
    async def whole(progress: Progress) -> list[int]:
        async with headway.group(progress) as group:
            for n in (3, 4):
                await group.start(part.using(title=f"Part {n}"), n)
        return [job.result for job in group.jobs]

    ended = await end_of(headway, await whole.using(owner="ann").start())
    children = [job for job in await headway.list(owner="ann") if job.task == "part"]

    assert ended.result == [3, 4]
    assert [(stage.name, stage.ratio) for stage in ended.progress.stages] == [
        ("Part 3", 1.0),
        ("Part 4", 1.0),
    ]
    assert len(children) == 2


async def test_bar_of_the_parent_follows_its_jobs(headway: Headway) -> None:
    """While the children run, the parent's ratio is the mean of theirs."""
    go = asyncio.Event()

    @headway.task
    async def part(progress: Progress) -> None:
        progress.set(done=1, total=2)
        await go.wait()

    @headway.task
    async def whole(progress: Progress) -> None:
        async with headway.group(progress) as group:
            await group.start(part)
            await group.start(part)

    job = await whole.start()
    ratios = set()
    async for now in headway.watch(job.id):
        ratios.add(now.progress.ratio)
        if now.progress.ratio == 0.25:
            go.set()

    assert {0.25, 1.0} <= ratios


async def test_number_of_jobs_is_known_when_all_have_begun(headway: Headway) -> None:
    """In the block nobody knows how many jobs will come; behind it each has its share."""
    readings = []

    @headway.task
    async def part(progress: Progress) -> None: ...

    @headway.task
    async def whole(progress: Progress) -> None:
        async with headway.group(progress) as group:
            await group.start(part)
            await group.start(part)
            readings.append(progress._meter.read())
        readings.append(progress._meter.read())

    ended = await end_of(headway, await whole.start())
    within, behind = readings

    assert (within.total, within.ratio) == (None, None)
    assert (behind.done, behind.total, behind.ratio, behind.rate_per_s) == (2, 2, 0.99, None)
    assert (ended.progress.done, ended.progress.total) == (2, 2)


async def test_group_in_a_loop_fills_its_item(headway: Headway) -> None:
    """Each item of a loop may start jobs of its own: they are parts of that item."""
    ratios = []

    @headway.task
    async def part(progress: Progress) -> None: ...

    @headway.task
    async def whole(progress: Progress) -> None:
        for jobs in progress.track([1, 3]):
            async with headway.group(progress) as group:
                for _ in range(jobs):
                    await group.start(part)
            ratios.append(progress._meter.read().ratio)

    ended = await end_of(headway, await whole.start())

    assert ratios == [0.5, 0.99]
    assert (ended.progress.done, ended.progress.total) == (2, 2)


async def test_group_fails_with_a_job(headway: Headway) -> None:
    """One failure cancels the others and fails the parent, with the reason."""

    @headway.task
    async def bad() -> None:
        raise JobError("no paper")

    @headway.task
    async def long() -> None:
        await asyncio.Event().wait()

    @headway.task
    async def whole(progress: Progress) -> None:
        async with headway.group(progress) as group:
            await group.start(bad)
            await group.start(long)

    ended = await end_of(headway, await whole.using(owner="ann").start())
    states = {job.task: job.state for job in await headway.list(owner="ann")}

    assert ended.error is not None
    assert (ended.error.code, ended.error.title) == ("child_failed", "Bad: no paper")
    assert states["long"] is State.CANCELLED


async def test_group_may_ignore_failures(headway: Headway) -> None:
    """By choice the parent goes on, and sees what became of each."""

    @headway.task
    async def bad() -> None:
        raise JobError("no paper")

    @headway.task
    async def good() -> int:
        return 1

    @headway.task
    async def whole(progress: Progress) -> list[str]:
        async with headway.group(progress, on_failure="ignore") as group:
            await group.start(bad)
            await group.start(good)
        return [str(job.state) for job in group.jobs]

    assert (await end_of(headway, await whole.start())).result == ["failed", "succeeded"]


async def test_cancelling_the_parent_cancels_its_jobs(headway: Headway) -> None:
    """The parent is cancelled only after its children have stopped."""

    @headway.task
    async def long(progress: Progress) -> None:
        progress.note("in")
        await asyncio.Event().wait()

    @headway.task
    async def whole(progress: Progress) -> None:
        async with headway.group(progress) as group:
            job = await group.start(long)
            progress.note(job.id)

    job = await whole.start()
    child = ""
    async for now in headway.watch(job.id):
        if now.note and not child:
            child = now.note
            await headway.cancel(job.id)
        if now.state is State.CANCELLED:
            assert (await headway.get(child)).state is State.CANCELLED

    assert now.state is State.CANCELLED


async def test_cancelling_reaches_grandchildren(headway: Headway) -> None:
    """A job that is cancelled takes all generations below it with it, and is the last to end."""
    begun = asyncio.Event()

    @headway.task
    async def third() -> None:
        begun.set()
        await asyncio.Event().wait()

    @headway.task
    async def second(progress: Progress) -> None:
        async with headway.group(progress) as group:
            await group.start(third)

    @headway.task
    async def first(progress: Progress) -> None:
        async with headway.group(progress) as group:
            await group.start(second)

    job = await first.using(owner="ann").start()
    await begun.wait()

    await headway.cancel(job.id)
    await end_of(headway, job)

    jobs = {job.task: job for job in await headway.list(owner="ann")}
    assert {job.state for job in jobs.values()} == {State.CANCELLED}
    ends = [jobs[name].finished_at or 0 for name in ("third", "second", "first")]
    assert ends == sorted(ends)


async def test_job_that_has_ended_starts_no_jobs(headway: Headway) -> None:
    """Code that a task has left running is told so, and no job is left that nobody waits for."""
    parent_ended = asyncio.Event()
    late: list[asyncio.Task[Job]] = []

    @headway.task
    async def part() -> None: ...

    async def straggle(progress: Progress) -> Job:
        await parent_ended.wait()
        return await headway.group(progress).start(part)

    @headway.task
    async def whole(progress: Progress) -> None:
        late.append(asyncio.create_task(straggle(progress)))

    await end_of(headway, await whole.using(owner="ann").start())
    parent_ended.set()

    with pytest.raises(StartRefused, match="it has ended, or another attempt runs"):
        await late[0]
    assert [job.task for job in await headway.list(owner="ann")] == ["whole"]


async def test_jobs_of_what_is_left_open_end_with_it(headway: Headway) -> None:
    """Even a parent that succeeds without waiting leaves no job behind."""

    @headway.task
    async def long() -> None:
        await asyncio.Event().wait()

    @headway.task
    async def whole(progress: Progress) -> str:
        return (await headway.group(progress).start(long)).id

    ended = await end_of(headway, await whole.start())
    child = await end_of(headway, await headway.get(ended.result))

    assert (ended.state, child.state) == (State.SUCCEEDED, State.CANCELLED)


async def test_a_second_attempt_finds_its_jobs(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that is run again starts nothing twice."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.01)
    ran = []

    @headway.task
    async def part(n: int) -> int:
        ran.append(n)
        return n

    @headway.task(retries=1)
    async def whole(progress: Progress) -> list[int]:
        async with headway.group(progress) as group:
            for n in range(3):
                await group.start(part, n)
        if progress.attempt == 1:
            raise RuntimeError("after the children")
        return [job.result for job in group.jobs]

    assert (await end_of(headway, await whole.start())).result == [0, 1, 2]
    assert ran == [0, 1, 2]


async def test_handing_over_leaves_the_jobs_alone(make_headway: MakeHeadway, until: Until) -> None:
    """A parent that is stopped with its server, and goes on in the next one, finds them alive."""
    attempts: list[tuple[str, int]] = []

    def register(headway: Headway) -> Any:
        @headway.task(on_lost="retry")
        async def part(progress: Progress) -> None:
            attempts.append(("part", progress.attempt))
            if progress.attempt == 1:
                await asyncio.Event().wait()

        @headway.task(on_lost="retry")
        async def whole(progress: Progress) -> list[str]:
            attempts.append(("whole", progress.attempt))
            async with headway.group(progress) as group:
                await group.start(part)
            return [job.state for job in group.jobs]

        return whole

    async with make_headway() as first:
        job = await register(first).start()
        await until(lambda: ("part", 1) in attempts, "the child runs")

    second = make_headway()
    register(second)
    async with second:
        ended = await end_of(second, job)

    assert ended.result == ["succeeded"]
    assert sorted(attempts) == [("part", 1), ("part", 2), ("whole", 1), ("whole", 2)]


async def test_attempt_that_is_lost_leaves_the_jobs_alone(headway: Headway, until: Until) -> None:
    """An attempt that has no say any more does not cancel what belongs to the one after it."""

    @headway.task
    async def long() -> None:
        await asyncio.Event().wait()

    @headway.task
    async def whole(progress: Progress) -> None:
        async with headway.group(progress) as group:
            progress.note((await group.start(long)).id)

    job = await whole.start()
    child = ""
    async for now in headway.watch(job.id):
        if child := now.note or "":
            break
    runner = headway._open_runtime("lose a lease").runner
    await until(lambda: child in runner.running, "the child runs")

    runner.stop(job.id, Why.LOST)
    await until(lambda: job.id not in runner.running, "the attempt has stopped")

    after = await headway.get(child)
    assert (after.state, after.cancel_requested) == (State.RUNNING, False)


def test_words_for_what_goes_on_are_those_of_the_runner() -> None:
    """The reasons after which a job may have another attempt have the runner's names."""
    assert {Why.DRAIN, Why.LOST} == GOES_ON


async def test_group_needs_the_progress_of_a_job(headway: Headway) -> None:
    """Outside of a job there is nothing to group under."""
    with pytest.raises(BadInput, match="Progress of the job"):
        headway.group(Progress())


# ── the parent's process is killed, its jobs run in another one ────────────────────────────────


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """The processes of this test."""
    with Apps(tmp_path) as apps:
        yield apps


def family(apps: Apps, task: str) -> tuple[App, App, str, list[str]]:
    """A parent in the first process, and its two children, which run in the second one."""
    first = apps.serve(app="family:app", LEASE_S=LEASE_S, ELSEWHERE=1)
    second = apps.serve(app="family:app", LEASE_S=LEASE_S)
    parent = first.start(task)
    children = wait_until("it has noted its jobs", lambda: first.job(parent)["note"]).split()
    for child in children:
        second.reaches(child, "running")
    wait_until("their code runs", lambda: len(apps.lines()) == 2)
    assert {line.split()[2] for line in apps.lines()} == {str(second.pid)}
    return first, second, parent, children


@pytest.mark.fault
def test_jobs_of_a_killed_parent_are_cancelled(apps: Apps) -> None:
    """Children end with a parent that is lost, as soon as that is known: nobody waits for them."""
    first, second, parent, children = family(apps, "once")
    killed_at = time.time()

    first.kill()
    lost = second.ends(parent, within_s=SHOWN_S)
    ended = [second.ends(child) for child in children]

    assert (lost["state"], lost["error"]["code"]) == ("failed", "lost")
    assert [job["state"] for job in ended] == ["cancelled"] * 2
    assert sorted(line.split()[0] for line in apps.lines()) == ["start"] * 2 + ["stop"] * 2
    print(f"killed, and all had ended {time.time() - killed_at:.1f} s later")


@pytest.mark.fault
def test_jobs_of_a_killed_parent_that_is_run_again_live_on(apps: Apps) -> None:
    """A parent that may be run again finds its children as they were; cancelled, it ends them."""
    first, second, parent, children = family(apps, "again")

    first.kill()
    found = second.reaches(parent, "running", attempt=2, note=" ".join(children), within_s=SHOWN_S)
    alive = [second.job(child) for child in children]
    second.http.post(f"/jobs/{parent}/cancel")
    ended = [second.ends(job_id) for job_id in (*children, parent)]

    assert found["cancel_requested"] is False
    assert [(job["state"], job["attempt"]) for job in alive] == [("running", 1)] * 2
    assert [job["state"] for job in ended] == ["cancelled"] * 3
    assert sorted(line.split()[0] for line in apps.lines()) == ["start"] * 2 + ["stop"] * 2
