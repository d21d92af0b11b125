"""An app whose tasks write down when they start and stop. Its options come in the environment."""

from __future__ import annotations

import asyncio
import os
import time
from importlib import import_module
from typing import Any

from hypercorn.config import Config
from quart import Quart, Response, request

from headway import Progress
from headway.limits import Limits
from headway.quart import Headway

STEP_S = 0.02
Config.graceful_timeout = 60.0  # `quart run` has no option for what it waits for at a stop


def engine() -> Any:
    """The one that the environment names; without it jobs run in this process."""
    if "ENGINE" not in os.environ:
        return None
    return import_module("brokers").engine_of(os.environ["ENGINE"])


app = Quart(__name__)
app.config["RESPONSE_TIMEOUT"] = 1
headway = Headway(
    app,
    identify=lambda request: "tester",
    lease_s=float(os.environ.get("LEASE_S", "10")),
    drain_s=float(os.environ.get("DRAIN_S", "1")),
    limits=Limits(jobs_per_owner=None, starts_per_minute=None),
    concurrency=int(os.environ.get("CONCURRENCY", "32")),
    engine=engine(),
)


def note_down(*words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    handle = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


async def work(progress: Progress, name: str, seconds: float, again_s: float) -> dict[str, Any]:
    """Take *seconds* in the first attempt and *again_s* in the others."""
    try:
        note_down("start", name, progress.attempt, os.getpid())
        last_s = seconds if progress.attempt == 1 else again_s
        until = time.monotonic() + last_s
        progress.set(total=round(last_s / STEP_S))
        while time.monotonic() < until:
            await asyncio.sleep(STEP_S)
            progress.advance()
    finally:
        try:
            await asyncio.sleep(STEP_S)
        finally:
            note_down("stop", name, progress.attempt, os.getpid())
    return {"attempt": progress.attempt, "pid": os.getpid()}


# The same work, for those that may be repeated and those that may not.
once = headway.task(name="once")(work)
again = headway.task(name="again", on_lost="retry")(work)


@headway.task
async def count(progress: Progress, name: str, seconds: float, again_s: float) -> int:
    """Every step counts, however long it takes."""
    steps = round(seconds / STEP_S)
    async for _ in progress.track(range(steps)):
        await asyncio.sleep(STEP_S)
    return steps


@headway.task(on_lost="retry")
async def resume(progress: Progress, name: str, seconds: float, again_s: float) -> int:
    """Every step is written down, and none is done again by the attempt that goes on."""
    note_down("start", name, progress.attempt, os.getpid())
    steps = round(seconds / STEP_S)
    async for step in progress.track(range(steps), resume=True):
        await asyncio.sleep(STEP_S)
        note_down("step", name, progress.attempt, step)
    return steps


@headway.task
def thread(progress: Progress, name: str, seconds: float, again_s: float) -> None:
    """In a thread, with reports."""
    try:
        note_down("start", name, progress.attempt, os.getpid())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            progress.advance()
            time.sleep(STEP_S)
    finally:
        clean_up(name, progress.attempt, again_s)


@headway.task
def blind(progress: Progress, name: str, seconds: float, again_s: float) -> None:
    """In a thread, and busy with nothing but Python."""
    try:
        note_down("start", name, progress.attempt, os.getpid())
        until = time.monotonic() + seconds
        # Not `while`: CPython can leave out a `finally` when it interrupts the jump of a `while`.
        for _ in iter(lambda: time.monotonic() < until, False):
            pass
    finally:
        clean_up(name, progress.attempt, again_s)


@headway.task(run="process")
def child(progress: Progress, name: str, seconds: float, again_s: float) -> None:
    """In a process of its own."""
    thread.function(progress, name, seconds, again_s)


def clean_up(name: str, attempt: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(STEP_S)
    note_down("stop", name, attempt, os.getpid())


@headway.task
async def block(progress: Progress, name: str, seconds: float, again_s: float) -> None:
    """Does what an async task must not: blocks the loop."""
    note_down("start", name, progress.attempt, os.getpid())
    time.sleep(seconds)


@headway.task
async def nothing() -> None:
    """Done at once."""


TASKS = {task.name: task for task in (once, again, count, resume, thread, blind, block, child)}


@app.post("/start/<task>")
async def start(task: str) -> Response:
    asked = request.args
    job = await TASKS[task].start(
        asked["name"], float(asked.get("seconds", 60)), float(asked.get("again_s", 0))
    )
    response: Response = await headway.reply(job)
    return response


@app.post("/many/<int:number>")
async def many(number: int) -> dict[str, list[str]]:
    """Start so many jobs that do nothing; their ids."""
    starting = (nothing.start() for _ in range(number))
    return {"ids": [job.id for job in await asyncio.gather(*starting)]}


@app.get("/streams")
async def streams() -> dict[str, int]:
    return {"open": len(headway.streams), "pid": os.getpid()}
