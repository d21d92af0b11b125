"""Bars and lines of code that knows nothing of Headway become reports of the job it runs in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple

import msgspec
import pandas as pd
import pytest
import rich.progress
import tqdm as tqdm_package
import tqdm.auto
import tqdm.std
from tqdm import tqdm as bar_of
from tqdm.asyncio import tqdm as async_bar_of
from tqdm.contrib.concurrent import process_map, thread_map

from headway import Headway, Job, JobError, Progress, State, current_progress
from headway._captures import CAPTURES, captured
from headway.errors import BadInput
from headway.job import Reading
from tests.conftest import MakeHeadway, Until

logger = logging.getLogger("a.library")

FOLLOWER = "_headway_follower"  # what a bar that is followed has
STEPWISE: dict[str, Any] = {"mininterval": 0, "miniters": 1}  # tqdm counts in public at every step


class Seen(NamedTuple):
    """A stage as the owner sees it."""

    name: str
    done: float
    total: float | None
    depth: int


def reading() -> Reading:
    """How far the job is in which this is called, as its owner would see it now."""
    return msgspec.json.decode(current_progress().final(succeeded=False), type=Reading)


def stages() -> list[Seen]:
    """The stages of the job in which this is called."""
    return [Seen(s.name, s.done, s.total, s.depth) for s in reading().stages]


def names(job: Job) -> list[str]:
    return [stage.name for stage in job.progress.stages]


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway."""
    async with make_headway() as headway:
        yield headway


@pytest.fixture(autouse=True)
def nothing_stays_replaced() -> Iterator[None]:
    """Whatever a test does, the libraries are as they were when its jobs are over."""
    places = [
        (tqdm.std.tqdm, ("__init__", "__iter__", "update", "close", "reset", "set_postfix")),
        (rich.progress.Progress, ("add_task", "update", "advance", "track", "stop")),
        (logging.Logger, ("callHandlers",)),
        (threading.Thread, ("start", "run")),
        (ThreadPoolExecutor, ("submit",)),
    ]
    before = [vars(owner)[name] for owner, found in places for name in found]
    yield
    after = [vars(owner)[name] for owner, found in places for name in found]
    assert all(one is other for one, other in zip(before, after, strict=True))


async def end_of(headway: Headway, job: Job) -> Job:
    """The job as it ended, when its run is over, too."""
    async for now in headway.watch(job.id):
        job = now
    while job.id in headway._open_runtime("test").runner.running:
        await asyncio.sleep(0)
    return job


Run = Callable[..., Awaitable[Job]]


@pytest.fixture
def run(headway: Headway) -> Run:
    """`await run(function)` runs it as a job that captures everything, and returns its end."""

    numbers = itertools.count()

    async def run(function: Callable[..., Any], *capture: str, **options: Any) -> Job:
        options |= {"name": f"work{next(numbers)}", "capture": capture or CAPTURES}
        task = headway.task(**options)(function)
        job = await end_of(headway, await task.start())
        assert job.state is State.SUCCEEDED, job.error
        return job

    return run


# ── what may be captured ──────────────────────────────────────────────────────────────────────


def test_unknown_capture_is_refused(make_headway: MakeHeadway) -> None:
    """The error says which there are; a single string is no list of names."""
    headway = make_headway()

    with pytest.raises(BadInput, match=r"'alive': there is no such.*tqdm, rich, logging"):
        headway.task(capture=("alive",))(len)
    with pytest.raises(BadInput, match=r"capture=\('tqdm',\)"):
        headway.task(capture="tqdm")(len)


@pytest.mark.parametrize("name", ["tqdm", "rich"])
def test_missing_library_is_told_at_declaration(name: str) -> None:
    """Where the library is not installed, declaring the task says so, and how to get it."""
    code = f"""
import sys
sys.modules[{name!r}] = None
from headway import Headway
from headway.errors import BadInput
try:
    Headway().task(name='work', capture=({name!r},))(lambda: None)
except BadInput as error:
    print(error)
"""

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert f"{name} is not installed here. pip install {name}" in said.stdout


def test_nothing_is_imported_unasked() -> None:
    """Headway itself imports none of what it can capture."""
    code = "import sys, headway; print({'tqdm', 'rich', 'headway.capture'} & sys.modules.keys())"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "set()"


# ── tqdm ──────────────────────────────────────────────────────────────────────────────────────


async def test_lone_bar_moves_the_job(run: Run) -> None:
    """A job whose only report is a bar is as far as this bar, in its unit, and never at 100 %."""
    seen = []

    def work() -> None:
        for _ in bar_of(range(4), desc="Rows", unit="row", **STEPWISE):
            now = reading()
            seen.append((now.done, now.total, now.ratio, now.unit))
        seen.append((reading().done, reading().total, reading().ratio, reading().unit))

    job = await run(work)

    assert seen == [
        (0, 4, 0.0, "row"), (1, 4, 0.25, "row"), (2, 4, 0.5, "row"), (3, 4, 0.75, "row"),
        (4, 4, 0.99, "row"),
    ]  # fmt: skip
    assert job.progress.ratio == 1.0
    assert [(s.name, s.done, s.ratio) for s in job.progress.stages] == [("Rows", 4, 1.0)]


async def test_bar_is_watched_live(headway: Headway) -> None:
    """Whoever watches the job sees a bar with tqdm's own settings move before it ends."""
    half, go = threading.Event(), threading.Event()

    @headway.task(capture=("tqdm",))
    def work() -> None:
        with bar_of(total=10) as bar:
            bar.update(5)
            half.set()
            go.wait(10)
            bar.update(5)

    job = await work.start()
    async for now in headway.watch(job.id):
        if now.progress.ratio == 0.5:
            go.set()
        job = now

    assert half.is_set()
    assert job.state is State.SUCCEEDED
    assert go.is_set()


async def test_nested_loop_as_in_training(run: Run) -> None:
    """Epochs, batches in them, and an evaluation: nested stages, postfix as note, no way back."""
    seen: list[list[Seen]] = []
    ratios: list[float | None] = []

    def work() -> None:
        for _ in bar_of(range(2), desc="Epoch", **STEPWISE):
            batches = bar_of(range(3), desc="Train", leave=False, **STEPWISE)
            for number in batches:
                batches.set_postfix(loss=f"0.{number}")
                ratios.append(reading().ratio)
            seen.append(stages())
            evaluation = bar_of(range(2), desc="Eval", leave=False, **STEPWISE)
            ratios.extend(reading().ratio for _ in evaluation)

    job = await run(work)

    assert seen[0] == [Seen("Epoch", 0, 2, 0), Seen("Train", 3, 3, 1)]
    assert seen[1] == [Seen("Epoch", 1, 2, 0), Seen("Train", 3, 3, 1)]
    assert ratios == sorted(ratios, key=lambda ratio: ratio or 0)
    assert ratios[1] == pytest.approx(1 / 6, abs=1e-4)
    assert job.note == "loss=0.2"
    assert job.progress.done == job.progress.total == 2


async def test_manual_bar_around_loops(run: Run) -> None:
    """A bar that is made around a range and only ever updated begins with its first update."""
    seen: list[list[Seen]] = []

    def work() -> None:
        steps = bar_of(range(4), desc="Steps", **STEPWISE)
        for _ in range(2):
            steps.update(1)
            seen.extend(stages() for _ in bar_of(range(2), desc="Batch", **STEPWISE))
            steps.update(1)
        steps.close()

    await run(work)

    assert seen[0] == [Seen("Steps", 1, 4, 0), Seen("Batch", 0, 2, 1)]
    assert seen[3] == [Seen("Steps", 3, 4, 0), Seen("Batch", 1, 2, 1)]


async def test_bars_made_ahead_are_siblings(run: Run) -> None:
    """Two loops whose bars are made before either runs are not inside of each other."""

    def work() -> None:
        one, other = bar_of(range(3), desc="One"), bar_of(range(3), desc="Other")
        for _ in one:
            pass
        for _ in other:
            pass

    job = await run(work)

    assert [(s.name, s.depth) for s in job.progress.stages] == [("One", 0), ("Other", 0)]


async def test_bars_one_after_another_never_go_back(run: Run) -> None:
    """How many come is not known, and then there is no ratio; with a total declared it is exact."""
    unknown: list[float | None] = []
    declared: list[float | None] = []

    def work(into: list[float | None]) -> None:
        for name in ("Map", "Train"):
            into.extend(reading().ratio for _ in bar_of(range(4), desc=name, **STEPWISE))

    def declare(progress: Progress) -> None:
        progress.set(total=2)
        work(declared)

    job = await run(lambda: work(unknown))
    await run(declare)

    assert unknown == [0, 0.25, 0.5, 0.75, None, None, None, None]
    assert declared == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    assert names(job) == ["Map", "Train"]


async def test_own_reports_stay_apart(run: Run) -> None:
    """A job that counts by itself inside of a captured bar goes by its own count."""
    ratios = []

    def work(progress: Progress) -> None:
        progress.set(total=8)
        for _ in bar_of(range(4), desc="Rows", **STEPWISE):
            progress.advance()
            ratios.append(reading().ratio)

    await run(work)

    assert ratios == [0.125, 0.25, 0.375, 0.5]


async def test_bar_fills_its_stage(run: Run) -> None:
    """A stage of the job that has nothing but a bar inside is as far as this bar."""
    ratios: list[float | None] = []

    def work(progress: Progress) -> None:
        progress.set(total=2)
        with progress.stage("Load"):
            rows = bar_of(range(2), desc="Rows", **STEPWISE)
            ratios.extend(reading().ratio for _ in rows)
        with progress.stage("Save"):
            ratios.append(reading().ratio)

    await run(work)

    assert ratios == [0, 0.25, 0.5]


async def test_description_total_and_count_are_read(run: Run) -> None:
    """What the code changes of a bar, by calls or by hand, is what the owner sees."""
    seen = []

    def work() -> None:
        bar = bar_of(desc="Before", total=None)
        seen.append(stages())
        bar.set_description("After", refresh=False)
        bar.total = 20
        bar.n = 5
        bar.set_postfix_str("nearly", refresh=False)
        seen.append(stages())
        bar.set_description(None)
        seen.append(stages())
        bar.close()

    job = await run(work)

    assert seen[0] == [Seen("Before", 0, None, 0)]
    assert seen[1] == [Seen("After", 5, 20, 0)]
    assert seen[2] == [Seen("Working", 5, 20, 0)]
    assert job.note == "nearly"


async def test_reset_bar_is_another_stage(run: Run) -> None:
    """A bar that is used again begins anew, so that no ratio stands at what it was before."""
    ratios: list[float | None] = []

    def work() -> None:
        bar = bar_of(desc="File", total=2, **STEPWISE)
        bar.reset(total=4)  # nothing was counted: it is the same one
        bar.update(4)
        bar.reset(total=10)
        bar.update(1)
        ratios.extend(stage.ratio for stage in reading().stages)
        bar.close()

    await run(work)

    assert ratios == [1.0, 0.1]


@pytest.mark.parametrize("how", ["break", "raise", "abandoned", "dropped", "garbage"])
async def test_bar_that_is_left_keeps_its_count(run: Run, how: str) -> None:
    """However a bar is left, its stage is over, as full as it was; what follows stands beside."""
    held: list[Any] = []

    def leave() -> None:
        loop = iter(bar_of(range(4), desc="Left", **STEPWISE))
        next(loop), next(loop)
        if how == "raise":
            raise ValueError
        if how == "garbage":
            held.append(loop)

    def work() -> list[Seen]:
        if how == "break":
            for number in bar_of(range(4), desc="Left", **STEPWISE):
                if number == 1:
                    break
        elif how == "dropped":
            bar = bar_of(total=4, desc="Left", **STEPWISE)
            bar.update()
            del bar
        else:
            with contextlib.suppress(ValueError):
                leave()
            held.clear()
        with bar_of(total=1, desc="Next"):
            return stages()

    seen: list[Seen] = []
    await run(lambda: seen.extend(work()))

    assert seen == [Seen("Left", 1, 4, 0), Seen("Next", 0, 1, 0)]


async def test_failed_job_keeps_what_its_bar_had(headway: Headway) -> None:
    """The ratio of a job that fails inside of a bar is that of the bar."""

    @headway.task(capture=("tqdm",))
    def work() -> None:
        for number in bar_of(range(4), desc="Rows"):
            if number == 2:
                raise JobError("Row 3 has no name")

    job = await end_of(headway, await work.start())

    assert job.state is State.FAILED
    assert (job.progress.done, job.progress.ratio) == (2, 0.5)


@pytest.mark.parametrize("manual", [True, False])
async def test_bars_without_a_terminal_are_shown(run: Run, manual: bool) -> None:
    """`disable=None` is about the terminal, and shows in the browser; `disable=True` does not."""
    seen = []

    def work() -> None:
        off = bar_of(range(3), desc="Off", disable=True)
        bar = bar_of(iter("abc"), desc="Quiet", total=3, unit="row", disable=None)
        if manual:
            for _ in range(2):
                bar.update(1)
                off.update(1)
            seen.append(stages())
            bar.close()
        else:
            for number, _ in enumerate(bar):
                if number == 2:
                    seen.append(stages())

    await run(work)

    assert seen == [[Seen("Quiet", 2, 3, 0)]]


async def test_odd_numbers_are_no_error(run: Run) -> None:
    """Totals and counts of any kind are read as far as they are numbers."""
    seen = []

    def work() -> None:
        for total in (float("inf"), float("nan"), -1, pd.Series([3]).iloc[0], 2.5, 0):
            with bar_of(total=total, disable=None) as bar:
                bar.update(pd.Series([1.5]).iloc[0])
                seen.append(stages()[-1][1:3])

    await run(work)

    assert seen == [(1.5, None), (1.5, None), (1.5, None), (1.5, 3), (1.5, 2.5), (1.5, 1.5)]


async def test_pandas_reports(run: Run) -> None:
    """`progress_apply` of rows, of groups, and `progress_map`."""
    seen = []

    def work() -> None:
        tqdm_package.tqdm.pandas(desc="Rows", **STEPWISE)
        frame = pd.DataFrame({"a": range(6), "b": [0, 1] * 3})

        def look(row: Any) -> int:
            seen.append(stages()[-1])
            return 0

        frame.progress_apply(look, axis=1)  # type: ignore[operator]
        frame.groupby("b").a.progress_apply(look)
        frame.a.progress_map(look)

    job = await run(work)

    assert seen[:6] == [Seen("Rows", n, 6, 0) for n in range(1, 7)]
    assert seen[6:8] == [Seen("Rows", n, 2, 0) for n in range(1, 3)]
    assert [(s.done, s.ratio) for s in job.progress.stages] == [(6, 1.0), (2, 1.0), (6, 1.0)]


async def test_thread_map_reports(run: Run) -> None:
    """The bar of the pool, and inside of it the bars that its functions make in their threads."""
    meet = threading.Barrier(2)
    seen: list[list[Seen]] = []

    def download(number: int) -> int:
        with bar_of(total=2, desc=f"Part {number}", **STEPWISE) as bar:
            bar.update()
            meet.wait(10)
            if number == 0:
                seen.append(stages())
            meet.wait(10)
        return number

    def work() -> list[int]:
        return list(thread_map(download, range(2), max_workers=2, desc="All"))

    job = await run(work)

    assert job.result == [0, 1]
    assert seen[0][0] == Seen("All", 0, 2, 0)
    assert sorted(seen[0][1:]) == [Seen("Part 0", 1, 2, 1), Seen("Part 1", 1, 2, 1)]
    assert (job.progress.done, job.progress.total) == (2, 2)


def forked(_: int) -> bool:
    """Shows a bar in a process of a pool; true if anything of the capture is there."""
    with bar_of(total=1, desc="Inner") as bar:
        bar.update()
        return FOLLOWER in vars(bar) or hasattr(tqdm.std.tqdm.update, "__wrapped__")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_process_map_reports(run: Run) -> None:
    """The bar of a pool of processes counts what they have done; those inside are left alone."""

    def work() -> list[bool]:
        return list(process_map(forked, range(3), max_workers=1, desc="All"))

    job = await run(work)

    assert job.result == [False, False, False]
    assert [(s.name, s.done, s.ratio) for s in job.progress.stages] == [("All", 3, 1.0)]


@pytest.mark.parametrize("names", [(), ("tqdm",)])
def test_forked_server_begins_anew(names: tuple[str, ...]) -> None:
    """A process that is forked has the originals, and captures what runs in it."""
    code = f"""
import os
from tqdm.std import tqdm
from headway._captures import captured, captures_of
captures_of(("tqdm",))
original = tqdm.update
with captured({names}):
    if not (pid := os.fork()):
        assert tqdm.update is original
        with captured(("tqdm",)):
            assert tqdm.update is not original
        os._exit(0 if tqdm.update is original else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""

    subprocess.run([sys.executable, "-c", code], check=True)


async def test_loop_is_tqdms_own(run: Run) -> None:
    """Going through a captured bar costs what tqdm costs: it is its own loop that runs."""
    original = tqdm.std.tqdm.__iter__
    found = []

    def work() -> None:
        loop: Any = iter(bar_of(range(3)))
        found.append((loop.gi_code, tqdm.std.tqdm.__iter__))

    await run(work)

    code, replaced = found[0]
    assert code is original.__code__
    assert replaced is not original


async def test_asynchronous_bars_report(run: Run) -> None:
    """In coroutines: `async for`, and `gather`."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    async def work() -> int:
        async for _ in async_bar_of(numbers(), desc="Stream", total=3):
            pass
        return sum(await async_bar_of.gather(one(), one(), desc="Together"))

    job = await run(work)

    assert job.result == 2
    assert [(s.name, s.done, s.ratio) for s in job.progress.stages] == [
        ("Stream", 3, 1.0),
        ("Together", 2, 1.0),
    ]


async def test_subclasses_and_trange_report(run: Run) -> None:
    """Whatever a bar was imported as, and whoever derives from it."""

    class Own(tqdm.std.tqdm):  # type: ignore[type-arg]
        """A bar of a library."""

    def work() -> None:
        for kind in (tqdm.auto.tqdm, Own):
            for _ in kind(range(2), desc=kind.__name__):
                pass
        for _ in tqdm.std.trange(2, desc="trange"):
            pass

    assert names(await run(work)) == ["tqdm_asyncio", "Own", "trange"]


# ── rich ──────────────────────────────────────────────────────────────────────────────────────


async def test_rich_track_moves_the_job(run: Run) -> None:
    """`rich.progress.track`, alone and nested."""
    seen: list[list[Seen]] = []

    def work() -> None:
        for number in rich.progress.track(range(2), "[b]Outer[/]", auto_refresh=False):
            inner = rich.progress.track(range(3), "Inner", auto_refresh=False)
            seen.extend(stages() for _ in inner)
            seen.append([Seen("", number, reading().done, 0)])

    job = await run(work)

    assert seen[0] == [Seen("Outer", 0, 2, 0), Seen("Inner", 0, 3, 1)]
    assert seen[6] == [Seen("Outer", 1, 2, 0), Seen("Inner", 2, 3, 1)]
    assert seen[3] == [Seen("", 0, 0, 0)]
    assert job.progress.done == 2


async def test_rich_track_with_its_own_thread(run: Run) -> None:
    """With its default, rich counts in a thread of its own; the end is exact."""

    def work() -> None:
        for _ in rich.progress.track(range(5), "Rows"):
            pass

    job = await run(work)

    assert [(s.name, s.done, s.ratio) for s in job.progress.stages] == [("Rows", 5, 1.0)]


async def test_rich_tasks_stand_side_by_side(run: Run) -> None:
    """Several tasks of one `Progress`, a `track` inside of them, ends and new beginnings."""
    seen = []

    def work() -> None:
        with rich.progress.Progress(auto_refresh=False) as progress:
            one = progress.add_task("One", total=2)
            two = progress.add_task("Two", total=None)
            progress.add_task("Hidden", visible=False)
            progress.advance(one)
            progress.update(two, description="Second", total=10, completed=4)
            seen.append(stages())
            seen.extend(stages() for _ in progress.track("ab", description="Loop"))
            progress.reset(two, total=3)
            progress.remove_task(one)
            seen.append(stages())

    await run(work)

    assert seen[0] == [Seen("One", 1, 2, 0), Seen("Second", 4, 10, 0)]
    assert seen[2] == [*seen[0], Seen("Loop", 1, 2, 1)]
    assert seen[3] == [*seen[0], Seen("Loop", 2, 2, 1), Seen("Second", 0, 3, 0)]


@pytest.mark.parametrize("disable", [True, False])
async def test_rich_that_is_switched_off_stays_off(run: Run, disable: bool) -> None:
    """`disable=True` shows nothing anywhere; what is finished is over, and the last end is all."""

    def work() -> None:
        with rich.progress.Progress(disable=disable) as progress:
            progress.add_task("Unfinished", total=4)
            done = progress.add_task("Done", total=2)
            progress.advance(done, 2)
        progress.update(done, total=3)  # nobody sees it any more

    job = await run(work)

    found = [(stage.name, stage.ratio) for stage in job.progress.stages]
    assert found == ([] if disable else [("Unfinished", 0.0), ("Done", 1.0)])


# ── logging ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def loud() -> Iterator[None]:
    """The app has set its level, as apps do."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    yield
    root.setLevel(before)


@pytest.mark.usefixtures("loud")
async def test_lines_of_libraries_are_logged(headway: Headway, run: Run) -> None:
    """From INFO on, with its level if that is another one; not the lines of Headway itself."""
    silent = logging.getLogger("a.library.of.its.own")

    def work() -> None:
        logger.debug("not this")
        logger.info("read %d rows", 7)
        logger.warning("two\nlines")
        logging.getLogger("headway.anything").warning("not this either")
        logging.getLogger("headwayish").info("but this")
        silent.propagate = False
        silent.error("and this")
        with ThreadPoolExecutor() as pool:
            pool.submit(logger.info, "from a pool").result()

    try:
        job = await run(work)
    finally:
        silent.propagate = True

    assert await headway.log(job.id) == [
        "read 7 rows",
        "WARNING two lines",
        "but this",
        "ERROR and this",
        "from a pool",
    ]


@pytest.mark.usefixtures("loud")
async def test_bad_line_is_no_trouble(
    headway: Headway, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line whose arguments do not fit is kept as it was written."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(logging.getLogger("a"), "propagate", False)  # pytest's handlers raise

    job = await run(lambda: logger.info("%d rows", "no"))

    assert await headway.log(job.id) == ["%d rows"]


async def test_levels_of_the_app_decide(headway: Headway, run: Run) -> None:
    """What a logger does not let through is not made, and so not logged."""

    def work() -> None:
        logging.getLogger("a.strict.library").setLevel(logging.ERROR)
        logging.getLogger("a.strict.library").warning("not this")

    job = await run(work)

    assert await headway.log(job.id) == []


# ── whose bar it is ───────────────────────────────────────────────────────────────────────────


def show(name: str, meet: threading.Barrier) -> list[list[Seen]]:
    """Bars in this thread, in a new thread and in a pool, while another job does the same."""
    seen = []

    def part(kind: str) -> None:
        with bar_of(total=2, desc=f"{name} {kind}", **STEPWISE) as bar:
            bar.update()
            meet.wait(10)
            seen.append(stages())
            meet.wait(10)

    part("here")
    thread = threading.Thread(target=part, args=("thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(part, "pool").result()
    return seen


async def test_jobs_in_threads_do_not_mix(headway: Headway) -> None:
    """Two jobs at once, with threads and pools of their own: each shows its own bars only."""
    meet = threading.Barrier(2)
    task = headway.task(name="show", capture=("tqdm",))(lambda name: show(name, meet))
    jobs = [await task.start(name) for name in ("A", "B")]

    ended = [await end_of(headway, job) for job in jobs]

    for name, job in zip("AB", ended, strict=True):
        assert names(job) == [f"{name} {kind}" for kind in ("here", "thread", "pool")]
        assert [len(seen) for seen in job.result] == [1, 2, 3]


async def test_coroutines_do_not_mix(headway: Headway) -> None:
    """Two jobs on one loop, in turns, with subtasks: each shows its own bars only."""

    @headway.task(capture=("tqdm",))
    async def work(name: str) -> None:
        async def part(kind: str) -> None:
            for _ in bar_of(range(3), desc=f"{name} {kind}"):
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(part("one"))
            group.create_task(part("two"))
        await asyncio.to_thread(lambda: list(bar_of(range(2), desc=f"{name} three")))

    jobs = [await work.start(name) for name in ("A", "B")]
    ended = [await end_of(headway, job) for job in jobs]

    for name, job in zip("AB", ended, strict=True):
        assert names(job) == [f"{name} {kind}" for kind in ("one", "two", "three")]
        assert {stage.depth for stage in job.progress.stages} == {0}


async def test_shared_pool_serves_each_job_as_its_own(headway: Headway) -> None:
    """The thread of a pool is no job's: one job after the other uses it, and an outsider."""
    pool = ThreadPoolExecutor(1)
    inside: list[Any] = []

    def bar(name: str) -> None:
        with bar_of(total=1, desc=name) as made:
            inside.append((name, FOLLOWER in vars(made)))

    @headway.task(capture=("tqdm",))
    def first(name: str) -> None:
        pool.submit(bar, name).result()

    @headway.task
    def without(name: str) -> None:
        pool.submit(bar, name).result()

    with pool, captured(("tqdm",)):
        one = await end_of(headway, await first.start("A"))
        two = await end_of(headway, await first.start("B"))
        three = await end_of(headway, await without.start("C"))
        pool.submit(bar, "D").result()

    assert [names(job) for job in (one, two, three)] == [["A"], ["B"], []]
    assert inside == [("A", True), ("B", True), ("C", False), ("D", False)]


async def test_what_could_be_anybodys_is_left_alone(run: Run) -> None:
    """Bars in the threads of another kind of pool are shown on the terminal only."""

    def work() -> None:
        with ThreadPool(1) as pool:
            pool.map(lambda n: list(bar_of(range(n), desc="Whose?")), [2])

    assert names(await run(work)) == []


async def test_only_what_a_task_names_is_captured(run: Run) -> None:
    """A task that captures rich has bars of tqdm that are its own business, and so on."""

    def work() -> None:
        for _ in bar_of(range(2), desc="tqdm"):
            logger.error("a line")
        for _ in rich.progress.track(range(2), "rich"):
            pass

    assert names(await run(work, "rich")) == ["rich"]
    assert names(await run(work, "tqdm")) == ["tqdm"]
    assert names(await run(work, "logging")) == []


# ── children, cancelling, the terminal ────────────────────────────────────────────────────────


def child() -> None:
    """Runs in a child process, which finds it at the top of this module."""
    for _ in bar_of(range(2), desc="Epoch", **STEPWISE):
        for _ in rich.progress.track(range(2), "Batch"):
            pass
    logger.warning("done")


async def test_children_capture_too(headway: Headway, run: Run) -> None:
    """With run="process" the bars and lines of the child come through its pipe."""
    job = await run(child, run="process")

    assert names(job) == ["Epoch", "Batch"]
    assert (job.progress.done, job.progress.total) == (2, 2)
    assert await headway.log(job.id) == ["WARNING done"]


@pytest.mark.parametrize("kind", ["update", "loop", "rich"])
async def test_cancel_stops_at_the_bar(headway: Headway, until: Until, kind: str) -> None:
    """The next step of a bar is where a job that is to stop is told so; and its thread stops."""
    began, stopped = threading.Event(), threading.Event()

    def steps() -> Iterator[None]:
        if kind == "update":
            bar = bar_of()
            while True:
                yield
                bar.update()
        elif kind == "loop":
            for _ in bar_of(iter(int, 1), **STEPWISE):
                yield
        with rich.progress.Progress(auto_refresh=False) as progress:
            task = progress.add_task("Rows", total=None)
            while True:
                yield
                progress.advance(task)

    @headway.task(capture=("tqdm", "rich"))
    def work() -> None:
        try:
            for _ in steps():
                began.set()
        except asyncio.CancelledError:
            stopped.set()
            raise

    job = await work.start()
    await until(began.is_set, "it runs")
    await headway.cancel(job.id)

    assert (await end_of(headway, job)).state is State.CANCELLED
    assert stopped.is_set()


async def test_cancel_reaches_the_caller_of_a_pool(headway: Headway, until: Until) -> None:
    """Bars in pool threads are told, and so is the job's own thread that waits for them."""
    began, told = threading.Event(), threading.Event()

    def spin(_: int) -> None:
        with bar_of() as bar:
            try:
                while True:
                    bar.update()
                    began.set()
            except asyncio.CancelledError:
                told.set()
                raise

    @headway.task(capture=("tqdm",))
    def work() -> None:
        with ThreadPoolExecutor() as pool:
            future = pool.submit(spin, 0)
            while not future.done():
                pass
        while True:  # whatever became of the pool
            pass

    job = await work.start()
    await until(began.is_set, "it runs")
    await headway.cancel(job.id)

    assert (await end_of(headway, job)).state is State.CANCELLED
    assert told.is_set()


def on_a_terminal(url: str, *capture: str) -> bytes:
    """What the program in apps/bars.py writes to a terminal."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    command = [sys.executable, "-m", "tests.apps.bars", url, *capture]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, close_fds=True) as program:
        os.close(its)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
    assert program.returncode == 0, said.decode()
    return said


def test_terminal_stays_as_it_was(url: str) -> None:
    """Byte for byte, with bars of every kind, and with logging as it was set up, or not."""
    without = on_a_terminal(url)
    with_it = on_a_terminal(url, *CAPTURES)

    assert without.endswith(b"succeeded False")
    assert with_it.endswith(b"succeeded True")
    assert with_it.removesuffix(b"True") == without.removesuffix(b"False")
    assert with_it.count(b"Batch") > 4
    assert b"nobody has set logging up" in with_it


async def test_others_may_have_replaced_before(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody has replaced before the job runs is called as ever, and its bars captured."""
    calls = []
    original = tqdm.std.tqdm.update

    def update(self: Any, n: float = 1) -> Any:
        calls.append(n)
        return original(self, n)

    monkeypatch.setattr(tqdm.std.tqdm, "update", update)

    def work() -> None:
        steps = bar_of(range(4), desc="Steps", **STEPWISE)
        steps.update(2)
        steps.close()

    job = await run(work)

    assert calls == [2]
    assert [(s.name, s.done) for s in job.progress.stages] == [("Steps", 2)]
    assert vars(tqdm.std.tqdm)["update"] is update


def test_others_may_replace_too() -> None:
    """What somebody replaces while jobs capture is left to them, also when the jobs are over."""
    calls = []
    original = tqdm.std.tqdm.update

    with captured(("tqdm",)):
        ours = tqdm.std.tqdm.update

        def update(self: Any, n: float = 1) -> Any:
            calls.append(n)
            return ours(self, n)

        tqdm.std.tqdm.update = update  # type: ignore[method-assign,assignment]
    try:
        with captured(("tqdm",)), bar_of(total=1) as bar:
            bar.update(1)

        assert vars(tqdm.std.tqdm)["update"] is update
        assert calls == [1]
        assert bar.n == 1
    finally:
        tqdm.std.tqdm.update = original  # type: ignore[method-assign]
