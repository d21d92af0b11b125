"""Jobs that start jobs: one bar over them, one end, and none twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headway import Headway, Job, JobError, Progress, State
from headway.errors import BadInput
from tests.conftest import MakeHeadway


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway that runs one job at a time."""
    async with make_headway(concurrency=1) as headway:
        yield headway


async def end_of(headway: Headway, job: Job) -> Job:
    async for now in headway.watch(job.id):
        job = now
    return job


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


async def test_a_second_attempt_finds_its_jobs(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that is run again starts nothing twice."""
    monkeypatch.setattr("headway.runner.RETRY_FIRST_S", 0.01)
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


async def test_group_needs_the_progress_of_a_job(headway: Headway) -> None:
    """Outside of a job there is nothing to group under."""
    with pytest.raises(BadInput, match="Progress of the job"):
        headway.group(Progress())
