"""The tasks of a chaos run. Each writes down what it does, in a file that is named after its job.

A line is: what it does, the attempt, the pid, the moment (monotonic, the same clock in all
processes of the machine), a number.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from headway import Headway, JobError, Progress

FOLDER: Final = Path(os.environ.get("CHAOS_FOLDER", "."))
LATE_S: Final = 0.6
FLAKY: Final = 0.6  # chance that an attempt fails
CHILDREN: Final = 3

headway = Headway(
    os.environ.get("CHAOS_URL"),
    prefix="chaos",
    identify=lambda request: None,
    lease_s=float(os.environ.get("CHAOS_LEASE_S", "2")),
    drain_s=float(os.environ.get("CHAOS_DRAIN_S", "0.5")),
    keep_s=float(os.environ.get("CHAOS_KEEP_S", "3600")),
    concurrency=int(os.environ.get("CHAOS_CONCURRENCY", "3")),
)


def append(name: str, line: str) -> None:
    """Add a line to a file of the run's folder, whole, whoever else does so at the moment."""
    handle = os.open(FOLDER / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def note(progress: Progress, what: str, number: int = 0) -> None:
    line = f"{what} {progress.attempt} {os.getpid()} {time.monotonic():.4f} {number}"
    append(f"job.{progress.job_id}", line)


@contextmanager
def noted(progress: Progress) -> Iterator[None]:
    """Write down when the work begins and ends, and whether it raised."""
    note(progress, "start", progress.resume or 0)
    try:
        yield
    except BaseException:
        note(progress, "raise")
        raise
    note(progress, "end")


async def work(
    progress: Progress, steps: int, step_s: float, seed: int, *, resume: bool = False
) -> dict[str, Any]:
    with noted(progress):
        async for k in progress.track(range(steps), resume=resume):
            note(progress, "begin", k)
            await asyncio.sleep(step_s)
            note(progress, "item", k)
            if resume:
                progress.checkpoint(k + 1)
    return {"attempt": progress.attempt, "steps": steps}


def blocking_work(
    progress: Progress, steps: int, step_s: float, seed: int, *, resume: bool = False
) -> dict[str, Any]:
    with noted(progress):
        for k in progress.track(range(steps), resume=resume):
            note(progress, "begin", k)
            time.sleep(step_s)
            note(progress, "item", k)
            if resume:
                progress.checkpoint(k + 1)
    return {"attempt": progress.attempt, "steps": steps}


@headway.task
async def quick(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """Short, and may not be done twice."""
    return await work(progress, steps, step_s, seed)


@headway.task
async def steady(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """Takes a while, and may not be done twice."""
    return await work(progress, steps, step_s, seed)


@headway.task(on_lost="retry", max_attempts=5)
async def resumes(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """Goes on where it was interrupted."""
    return await work(progress, steps, step_s, seed, resume=True)


@headway.task
def thread(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """In a thread, and may not be done twice."""
    return blocking_work(progress, steps, step_s, seed)


@headway.task(on_lost="retry")
def thread_resumes(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """In a thread, and goes on where it was interrupted."""
    return blocking_work(progress, steps, step_s, seed, resume=True)


@headway.task(run="process", on_lost="retry")
def child(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """In a process of its own, and goes on where it was interrupted."""
    return blocking_work(progress, steps, step_s, seed, resume=True)


@headway.task(retries=2)
async def flaky(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """Fails now and then, in its own words or in Python's."""
    dice = random.Random(f"{seed} {progress.attempt}")
    with noted(progress):
        fails_at = dice.randrange(steps) if dice.random() < FLAKY else None
        async for k in progress.track(range(steps)):
            if k == fails_at:
                raise dice.choice([JobError("The weather is bad"), RuntimeError("a bug")])
            await asyncio.sleep(step_s)
            note(progress, "item", k)
    return {"attempt": progress.attempt, "steps": steps}


@headway.task(timeout_s=LATE_S)
async def late(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """May run into its time limit."""
    return await work(progress, steps, step_s, seed)


@headway.task(on_lost="retry")
async def family(progress: Progress, steps: int, step_s: float, seed: int) -> dict[str, Any]:
    """Starts others and waits for them."""
    with noted(progress):
        async with headway.group(progress, on_failure="ignore") as group:
            for number in range(CHILDREN):
                await group.start(quick, steps // CHILDREN, step_s, seed + number)
    return {"attempt": progress.attempt, "jobs": [str(job.state) for job in group.jobs]}


@headway.task(on_lost="retry", max_attempts=2)
async def poison(progress: Progress, steps: int, step_s: float, seed: int) -> None:
    """Takes its worker with it."""
    note(progress, "start")
    os.kill(os.getpid(), signal.SIGKILL)


TASKS: Final = {
    task.name: task
    for task in (
        quick, steady, resumes, thread, thread_resumes, child, flaky, late, family, poison,
    )
}  # fmt: skip
