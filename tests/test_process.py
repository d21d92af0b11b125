"""Tasks in child processes: they report, end, stop and die like the others, and can be killed."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headway import Headway, Job, JobError, Progress, State, current_progress
from headway.errors import BadInput
from tests.conftest import MakeHeadway, end_of

# Children import this module, so what they run stands at its top.


def count(progress: Progress, n: int) -> dict[str, Any]:
    """Counts to *n*, with everything that a `Progress` can say."""
    with progress.stage("Count", weight=2):
        for i in progress.track(range(n), unit="row"):
            progress.note(f"row {i}")
    with progress.stage("Think"):
        current_progress().log("thinking")
    progress.checkpoint({"n": n})
    return {"pid": os.getpid(), "n": n}


async def acount(progress: Progress, n: int) -> int:
    """The same as a coroutine."""
    async for _ in progress.track(range(n)):
        await asyncio.sleep(0)
    return n


def fail(kind: str) -> Any:
    """Fails in one of the ways that there are."""
    if kind == "job":
        raise JobError("Row 7 has no name", code="no_name")
    if kind == "bug":
        raise ValueError("password=hunter2")
    if kind == "exit":
        os._exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "sysexit":
        sys.exit(2)
    return object() if kind == "object" else "x" * 70_000


def spin(progress: Progress, marker: str, *, reports: bool, stubborn: bool) -> None:
    """Works until it is stopped, and says in a file when it is."""
    progress.note("in")
    total = 0
    while True:
        try:
            for n in itertools.count():
                if reports:
                    progress.advance()
                total += n  # a body that ends in a jump may be left without its handlers
        except BaseException:
            Path(marker).write_text("stopped")
            if not stubborn:
                raise


def resume(progress: Progress) -> list[int]:
    """Dies at the seventh of ten items in its first attempt."""
    seen = []
    for i in progress.track(range(10), resume=True):
        if progress.attempt == 1 and i == 7:
            progress.log("here")
            while progress.last_lines().texts:  # what is sent with it is sent when it is gone
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(i)
    return seen


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway."""
    async with make_headway() as headway:
        yield headway


async def noted(headway: Headway, job: Job) -> None:
    async for now in headway.watch(job.id):
        if now.note:
            return


async def test_child_reports_like_any_other(headway: Headway) -> None:
    """Stages, notes, logs and the result come through the pipe."""
    task = headway.task(run="process")(count)

    ended = await end_of(headway, await task.start(5))

    assert ended.state is State.SUCCEEDED
    assert ended.result["pid"] != os.getpid()
    assert ended.note == "row 4"
    assert ended.progress.ratio == 1.0
    assert [(stage.name, stage.ratio) for stage in ended.progress.stages] == [
        ("Count", 1.0),
        ("Think", 1.0),
    ]
    assert await headway.log(ended.id) == ["thinking"]


async def test_child_may_be_a_coroutine(headway: Headway) -> None:
    """An `async def` task runs in a loop of its own."""
    task = headway.task(run="process")(acount)

    assert (await end_of(headway, await task.start(3))).result == 3


@pytest.mark.parametrize(
    ("kind", "code", "detail"),
    [
        ("job", "no_name", None),
        ("bug", "exception", None),
        ("sysexit", "exception", None),
        ("object", "bad_value", None),
        ("large", "result_too_large", None),
        ("exit", "process_died", "exit code 3"),
        ("kill", "process_died", "SIGKILL"),
        ("segfault", "process_died", "SIGSEGV"),
    ],
)
async def test_child_fails_honestly(
    headway: Headway, caplog: pytest.LogCaptureFixture, kind: str, code: str, detail: str | None
) -> None:
    """However a child ends, the job says so at once, and nothing of its insides is shown."""
    task = headway.task(run="process")(fail)
    began = time.monotonic()

    ended = await end_of(headway, await task.start(kind))

    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == code
    assert detail is None or detail in (ended.error.detail or "")
    assert "hunter2" not in repr(ended)
    assert kind != "bug" or "hunter2" in caplog.text
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("reports", [True, False])
async def test_child_is_cancelled(headway: Headway, tmp_path: Path, reports: bool) -> None:
    """Asked to stop, the code in the child gets the exception, and the job is then cancelled."""
    task = headway.task(run="process")(spin)
    marker = tmp_path / "marker"
    job = await task.start(str(marker), reports=reports, stubborn=False)
    await noted(headway, job)

    await headway.cancel(job.id)
    ended = await end_of(headway, job)

    assert ended.state is State.CANCELLED
    assert marker.read_text() == "stopped"


async def test_stubborn_child_is_killed(
    headway: Headway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that does not stop in its time of grace is killed, and only then is it cancelled."""
    monkeypatch.setattr("headway.process.KILL_S", 3.0)
    task = headway.task(run="process")(spin)
    job = await task.start(str(tmp_path / "marker"), reports=False, stubborn=True)
    await noted(headway, job)

    await headway.cancel(job.id)
    ended = await end_of(headway, job)

    assert ended.state is State.CANCELLED
    assert (tmp_path / "marker").exists()


async def test_child_is_timed_out(headway: Headway, tmp_path: Path) -> None:
    """A child that takes too long is stopped like any other work."""
    task = headway.task(run="process", timeout_s=1.5)(spin)

    ended = await end_of(
        headway, await task.start(str(tmp_path / "m"), reports=True, stubborn=False)
    )

    assert ended.error is not None
    assert ended.error.code == "timeout"


async def test_killed_child_is_tried_again_from_where_it_was(
    headway: Headway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With retries, the next child goes on at the item that the last one died at."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.02)
    task = headway.task(run="process", retries=1)(resume)

    ended = await end_of(headway, await task.start())

    assert ended.result == [7, 8, 9]
    assert ended.progress.resumed_ratio == 0.7


async def test_closing_ends_the_children(
    make_headway: MakeHeadway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No child outlives its server, even one that does not want to stop."""
    monkeypatch.setattr("headway.runtime.STOP_S", 3.0)  # a busy machine may take its time
    headway = make_headway()
    task = headway.task(run="process")(spin)
    async with headway:
        job = await task.start(str(tmp_path / "m"), reports=False, stubborn=True)
        await noted(headway, job)
        run = headway._open_runtime("test").runner._runs[job.id]
        pid = run.work._process.pid  # type: ignore[attr-defined]

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    async with headway:
        ended = await headway.get(job.id)
    assert ended.error is not None
    assert ended.error.code == "interrupted"


async def test_a_local_function_cannot_be_found(headway: Headway) -> None:
    """What a child could not import is refused when it is registered."""

    def local() -> None: ...

    with pytest.raises(BadInput, match="top of a module"):
        headway.task(run="process")(local)
