"""What task code calls: every count exact, every odd value answered, the last word never lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import copy_context
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway import Progress
from headway._amount import MOST
from headway._meter import RATIO_CAP
from headway._tree import STAGES_SHOWN
from headway.acts import NO_LINES
from headway.errors import BadInput, HeadwayError, JobCancelled, TooLarge
from headway.job import Reading
from headway.limits import LOG_LINES
from headway.progress import News, current_progress
from tests.stepping import Clock, at_every_step, nodes

ITEMS = list(range(7))


def read(progress: Progress) -> Reading:
    """How far it is, as an owner would see it if the job stopped here."""
    return msgspec.json.decode(progress.final(succeeded=False), type=Reading)


def counts(progress: Progress) -> tuple[float, float | None]:
    reading = read(progress)
    return reading.done, reading.total


def generated(items: Iterable[int]) -> Iterator[int]:
    yield from items


async def streamed(items: Iterable[int]) -> AsyncIterator[int]:
    for item in items:
        yield item
        await asyncio.sleep(0)


SIZED: dict[str, Callable[[Iterable[int]], Iterable[int]]] = {
    "list": list,
    "tuple": tuple,
    "range": lambda items: range(len(list(items))),
    "dict": lambda items: dict.fromkeys(items, 0),
    "set": set,
}
UNSIZED: dict[str, Callable[[Iterable[int]], Iterable[int]]] = {
    "generator": generated,
    "iter": iter,
}
SYNC = SIZED | UNSIZED
each_sync = pytest.mark.parametrize("kind", SYNC)


# ── track ─────────────────────────────────────────────────────────────────────────────────────


@each_sync
def test_track_counts_an_item_when_its_body_is_over(kind: str) -> None:
    """In the body of the nth item, n items are done; behind the loop all are."""
    progress = Progress()

    seen = [(item, read(progress).done) for item in progress.track(SYNC[kind](ITEMS))]

    assert seen == [(item, item) for item in ITEMS]
    assert read(progress).done == len(ITEMS)


@pytest.mark.parametrize("kind", SIZED)
def test_track_knows_the_size_of_what_has_one(kind: str) -> None:
    """The total is the length, from the first item on."""
    progress = Progress()

    totals = [read(progress).total for _ in progress.track(SIZED[kind](ITEMS))]

    assert totals == [7] * 7


@pytest.mark.parametrize("kind", UNSIZED)
def test_track_without_a_size_is_indeterminate(kind: str) -> None:
    """Without a length there is no total and no ratio, but a count."""
    progress = Progress()

    ratios = [read(progress).ratio for _ in progress.track(UNSIZED[kind](ITEMS))]

    assert ratios == [None] * 7
    assert counts(progress) == (7, None)


@each_sync
@pytest.mark.parametrize(("total", "at_the_end"), [(7, 7), (70, 70), (3, 7), (0, 7), (7.5, 7.5)])
def test_track_with_a_total(kind: str, total: float, at_the_end: float) -> None:
    """A given total counts, even against the length; one that is too small grows."""
    progress = Progress()

    ratios = [read(progress).ratio or 0 for _ in progress.track(SYNC[kind](ITEMS), total=total)]

    assert counts(progress) == (7, at_the_end)
    assert ratios == sorted(ratios)


@each_sync
@pytest.mark.parametrize("after", [0, 1, 6])
def test_track_left_early(kind: str, after: int) -> None:
    """A loop that is broken out of has done what its bodies came to the end of."""
    progress = Progress()

    for item in progress.track(SYNC[kind](ITEMS)):
        if item == after:
            break

    assert read(progress).done == after


@each_sync
@pytest.mark.parametrize("after", [0, 1, 6])
def test_track_raising(kind: str, after: int) -> None:
    """A body that raises has not done its item, and the error passes."""
    progress = Progress()

    with pytest.raises(LookupError):  # noqa: PT012
        for item in progress.track(SYNC[kind](ITEMS)):
            if item == after:
                raise LookupError

    assert read(progress).done == after


@each_sync
def test_track_over_nothing(kind: str) -> None:
    """An empty loop is no error and counts nothing."""
    progress = Progress()

    assert list(progress.track(SYNC[kind]([]) if kind != "range" else range(0))) == []
    assert read(progress).done == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_track_async(asynchronous: bool) -> None:
    """`async for` goes over async and sync iterables alike and counts when the body is over."""
    progress = Progress()
    iterable = streamed(ITEMS) if asynchronous else ITEMS

    seen = [(item, read(progress).done) async for item in progress.track(iterable, total=7)]

    assert seen == [(item, item) for item in ITEMS]
    assert counts(progress) == (7, 7)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("after", [0, 1, 6])
async def test_track_async_left_early(asynchronous: bool, after: int) -> None:
    """An async loop that is broken out of has done what its bodies came to the end of."""
    progress = Progress()
    iterable = streamed(ITEMS) if asynchronous else ITEMS

    async for item in progress.track(iterable):
        if item == after:
            break

    assert read(progress).done == after
    assert progress.here() is progress._meter.root


@pytest.mark.parametrize("after", [0, 1, 6])
async def test_track_async_raising(after: int) -> None:
    """An async body that raises has not done its item."""
    progress = Progress()

    with pytest.raises(LookupError):  # noqa: PT012
        async for item in progress.track(streamed(ITEMS)):
            if item == after:
                raise LookupError

    assert read(progress).done == after


async def test_track_async_source_that_raises() -> None:
    """An error of the source passes, and what was done before it stays counted."""
    progress = Progress()

    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise LookupError

    with pytest.raises(LookupError):
        async for _ in progress.track(broken()):
            pass

    assert read(progress).done == 2


def test_track_source_that_raises() -> None:
    """As above; and while the source makes its next item, the one before it counts."""
    progress, seen = Progress(), []

    def broken() -> Iterator[int]:
        for item in (1, 2):
            seen.append(read(progress).done)
            yield item
        raise LookupError

    with pytest.raises(LookupError):
        for _ in progress.track(broken()):
            pass

    assert seen == [0, 1]
    assert read(progress).done == 2


def test_track_of_something_async_refuses_a_plain_for() -> None:
    """`for` over an async iterable says what to write instead."""
    with pytest.raises(BadInput, match="go through it with 'async for'"):
        for _ in Progress().track(streamed([])):
            pass


def test_track_in_track() -> None:
    """An inner loop is part of the outer one's item: the outer count goes by its own items."""
    progress = Progress()
    ratios = []

    for _ in progress.track(range(2)):
        for _ in progress.track([1, 2, 3, 4]):
            ratios += [read(progress).ratio]

    assert ratios == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    assert counts(progress) == (2, 2)


def test_tracks_one_after_the_other() -> None:
    """Loops that follow each other add up, also after the finished ones were folded."""
    progress = Progress()

    for _ in range(5):
        for _ in progress.track(ITEMS):
            pass
        progress.take()

    assert counts(progress) == (35, 35)
    assert len(progress._meter.root.loops) <= 2


async def test_tracks_side_by_side() -> None:
    """Loops in tasks of their own count together, each with its own inner loops."""
    progress = Progress()

    async def walk(n: int) -> None:
        async for _ in progress.track(range(n)):
            for _ in progress.track((1, 2)):
                await asyncio.sleep(0)

    await asyncio.gather(walk(3), walk(5), walk(7))

    assert counts(progress) == (15, 15)


def test_tracks_in_threads() -> None:
    """Loops in threads of their own count together."""
    progress = Progress()
    threads = [
        threading.Thread(target=lambda: list(progress.track(generated(range(1000)), total=1000)))
        for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts(progress) == (8000, 8000)


def test_list_that_grows_while_it_is_walked() -> None:
    """Items that the body adds to the list are done too."""
    progress = Progress()
    todo = [5]

    for n in progress.track(todo):
        todo += [n - 1] if n else []

    assert counts(progress) == (6, 6)


def test_zipped_tracks() -> None:
    """Two loops that are walked at once and end together leave nothing open."""
    progress = Progress()

    pairs = list(zip(progress.track(ITEMS), progress.track(generated(ITEMS)), strict=True))
    progress.advance()

    assert len(pairs) == 7
    assert read(progress).done == 8


@pytest.mark.parametrize("second", SYNC)
def test_track_that_is_never_begun(second: str) -> None:
    """A loop that is made and never asked for an item leaves nothing open."""
    progress = Progress()

    assert list(zip(progress.track([]), progress.track(SYNC[second](ITEMS)), strict=False)) == []
    list(progress.track(ITEMS))

    assert progress.here() is progress._meter.root
    assert read(progress).done == 7


def test_track_over_what_cannot_be_begun() -> None:
    """An iterable that fails to give an iterator, or to be resumed, leaves nothing open."""

    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise LookupError

    def broken() -> Iterator[int]:
        yield 1
        raise LookupError

    progress = Progress(checkpoint='{"value": null, "loops": {"0": 5}}')
    for iterable in (Broken(), broken()):
        with pytest.raises(LookupError):
            list(progress.track(iterable, resume=True))

    assert progress.here() is progress._meter.root
    assert [node for node in nodes(progress._meter.root) if node.open] == [progress._meter.root]


def test_track_takes_the_unit() -> None:
    """The unit of the loop is the unit of the count."""
    progress = Progress()

    list(progress.track(ITEMS, unit="row\n"))

    assert read(progress).unit == "row"


# ── ends at any time, in any thread ───────────────────────────────────────────────────────────


@contextlib.contextmanager
def looked_at(progress: Progress) -> Iterator[list[float]]:
    """Another thread looks all the time, and takes turns very often. Gives the ratios."""
    stop, ratios = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            progress.take()
            ratios.append(read(progress).ratio or 0.0)

    errors: list[BaseException] = []
    thread = threading.Thread(target=lambda: _keep(errors, look))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        yield ratios
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert errors == []


def _keep(errors: list[BaseException], code: Callable[[], object]) -> None:
    try:
        code()
    except BaseException as error:
        errors.append(error)


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_reading_while_loops_close(kind: str) -> None:
    """Looking from another thread while loops come and go loses none, and never fails."""
    progress = Progress()

    with looked_at(progress):
        for _ in range(3000):
            for _ in progress.track(SYNC[kind]([1]), total=1):
                pass

    assert counts(progress) == (3000, 3000)


def test_reading_while_stages_close() -> None:
    """Likewise for stages, and for loops in stages in loops: each weight is added up once."""
    progress = Progress()
    progress.set(total=500)

    with looked_at(progress) as ratios:
        for _ in range(500):
            with progress.stage("outer"):
                for _ in progress.track([1, 2]):
                    with progress.stage("inner"):
                        list(progress.track((1, 2)))

    assert counts(progress) == (500, 500)
    assert ratios == sorted(ratios)


class Untouchable:
    """A lock that must not be taken now."""

    def __enter__(self) -> None:
        raise AssertionError("a finalizer must not wait for a lock")

    def __exit__(self, *_: object) -> None: ...


def left_in_a_loop(progress: Progress) -> object:
    iterator = iter(progress.track(ITEMS))
    next(iterator)
    return iterator


def left_in_a_generator(progress: Progress) -> object:
    iterator = iter(progress.track(generated(ITEMS)))
    next(iterator)
    return iterator


def left_in_a_stream(progress: Progress) -> object:
    iterator = aiter(progress.track(streamed(ITEMS)))
    with pytest.raises(StopIteration):
        anext(iterator).send(None)  # type: ignore[attr-defined]
    return iterator


def left_in_a_stage(progress: Progress) -> object:
    stage = progress.stage("left", total=2)
    stage.__enter__().advance()
    return stage


def left_in_a_child(progress: Progress) -> object:
    child = progress.child("left")
    child.__enter__()(0.5)
    return child


@pytest.mark.parametrize(
    "leave",
    [left_in_a_loop, left_in_a_generator, left_in_a_stream, left_in_a_stage, left_in_a_child],
)
def test_finalizers_take_no_lock(leave: Callable[[Progress], object]) -> None:
    """What a garbage collector closes, in any thread, waits for no lock that it may hold itself."""
    progress = Progress()
    lock, cycle = progress._lock, [leave(progress)]
    cycle.append(cycle)

    progress._lock = Untouchable()  # type: ignore[assignment]
    del cycle
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()
    progress._lock = lock
    read(progress)

    assert [node for node in nodes(progress._meter.root) if node.open] == [progress._meter.root]


def report_all(progress: Progress) -> None:
    progress.advance()
    progress.log("line")
    progress.set(unit="row")
    with progress.stage("late", total=1):
        progress.advance()
    list(progress.track(ITEMS, resume=True))


def test_handlers_may_report_at_any_instant() -> None:
    """A signal handler or a finalizer of the task's own may call, also in the middle of a look."""

    def scene() -> Progress:
        progress = Progress(clock=Clock())
        progress.log("before")
        with progress.stage("one"):
            list(progress.track((1, 2), resume=True))
        return progress

    def check(progress: Progress, _: News) -> None:
        progress.take()
        assert read(progress).done == 1 + len(ITEMS)
        assert progress.last_lines() == (0, ("before", "line"))

    steps = at_every_step(scene, look=Progress.take, act=report_all, check=check)

    assert steps > 500


# ── resume ────────────────────────────────────────────────────────────────────────────────────


def attempt(progress: Progress, kind: str, items: list[int], *, crash_at: int) -> list[int]:
    """Walk until the item *crash_at*; the items whose body came to its end."""
    done: list[int] = []

    async def walk() -> None:
        async for item in progress.track(streamed(items), total=len(items), resume=True):
            if item == crash_at:
                raise LookupError
            done.append(item)

    with contextlib.suppress(LookupError):
        if kind == "stream":
            asyncio.run(walk())
            return done
        for item in progress.track(SYNC[kind](items), total=len(items), resume=True):
            if item == crash_at:
                raise LookupError
            done.append(item)
    return done


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "stream"])
@given(st.lists(st.integers(min_value=0, max_value=12), max_size=4))
def test_resumed_loop_does_each_item_once(kind: str, crashes: list[int]) -> None:
    """However often and wherever a job is lost, each item is done once, and in order."""
    items, progress = list(range(10)), Progress()
    done: list[int] = []

    for crash_at in [*crashes, -1]:
        progress = Progress(checkpoint=progress.last_checkpoint())
        done += attempt(progress, kind, items, crash_at=crash_at)

    assert done == items
    assert counts(progress) == (10, 10)


def test_resumed_loop_begins_where_the_bar_was() -> None:
    """In the second attempt the bar begins at what was done, and says so."""
    first = Progress()
    attempt(first, "list", ITEMS, crash_at=3)

    second = Progress(attempt=2, checkpoint=first.last_checkpoint())
    item, reading = next((i, read(second)) for i in second.track(ITEMS, resume=True))

    assert item == 3
    assert (reading.done, reading.total) == (3, 7)
    assert reading.resumed_ratio == pytest.approx(3 / 7)


class Looks:
    """A source whose items are looked at, by the beat thread and by the clock, as they pass."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.checkpoints: list[str] = []
        self.progress = Progress()

    def sync(self) -> Iterator[int]:
        for item in range(10):
            self.clock.now += 0.01 if item < 8 else 1
            self.checkpoints.append(self.progress.take().checkpoint)
            yield item

    async def stream(self) -> AsyncIterator[int]:
        for item in self.sync():
            yield item


@pytest.mark.parametrize("kind", ["sync", "stream"])
def test_what_is_skipped_stays_done(kind: str) -> None:
    """While a loop skips what was done, it stays done in the checkpoint, and makes no speed."""
    looks = Looks()
    looks.progress = progress = Progress(
        clock=looks.clock, checkpoint='{"value":null,"loops":{"0":8}}'
    )

    async def walk() -> list[int]:
        if kind == "sync":
            return list(progress.track(looks.sync(), total=10, resume=True))
        return [item async for item in progress.track(looks.stream(), total=10, resume=True)]

    left = asyncio.run(walk())
    reading = read(progress)

    assert left == [8, 9]
    told = [msgspec.json.decode(one)["loops"]["0"] for one in looks.checkpoints if one]
    assert (told[0], told) == (8, sorted(told))
    assert reading.resumed_ratio == 0.8
    assert 0 < (reading.rate_per_s or 0) <= 1


def test_resumed_loops_are_told_apart() -> None:
    """Several resumable loops of a job resume each at its own place."""
    first = Progress()
    attempt(first, "list", ITEMS, crash_at=-1)
    attempt(first, "generator", ITEMS, crash_at=2)

    second = Progress(attempt=2, checkpoint=first.last_checkpoint())

    assert attempt(second, "list", ITEMS, crash_at=-1) == []
    assert attempt(second, "generator", ITEMS, crash_at=-1) == ITEMS[2:]


def test_resume_inside_of_a_loop_is_refused() -> None:
    """A loop in a loop cannot be resumed by itself: nobody knows which turn it was."""
    progress = Progress()

    for _ in progress.track(ITEMS, resume=True):
        with progress.stage("inner"), pytest.raises(BadInput, match="resume=True to the outer one"):
            iter(progress.track(ITEMS, resume=True))


def test_resumed_source_may_have_become_shorter() -> None:
    """A source with fewer items than were done ends at once."""
    first = Progress()
    attempt(first, "generator", ITEMS, crash_at=6)

    second = Progress(attempt=2, checkpoint=first.last_checkpoint())

    assert attempt(second, "generator", [0, 1], crash_at=-1) == []
    assert read(second).done == 2


def test_checkpoint_comes_back_in_the_next_attempt() -> None:
    """The last value is there at once, and again after a crash; what changes in it later is not."""
    first, value = Progress(), {"row": 7}

    first.checkpoint("old")
    first.checkpoint(value)
    value["row"] = 8
    second = Progress(attempt=2, checkpoint=first.last_checkpoint())

    assert (Progress().resume, first.resume, second.resume) == (None, {"row": 7}, {"row": 7})
    assert second.attempt == 2


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("x" * 65_536, TooLarge, "65538 bytes, the limit is 65536. Store the data elsewhere"),
        (object(), BadInput, "checkpoint cannot be written as JSON"),
        ("\ud800", BadInput, "checkpoint cannot be written as JSON"),
    ],
)
def test_bad_checkpoint_is_refused(value: object, error: type[Exception], words: str) -> None:
    """A checkpoint that cannot be kept is told at once, and the one before it stays."""
    progress = Progress()
    progress.checkpoint(1)

    with pytest.raises(error, match=words):
        progress.checkpoint(value)

    assert progress.resume == 1


# ── advance, set, stage, note, log ────────────────────────────────────────────────────────────


def test_advance_counts() -> None:
    """Counts add up, whole and broken, whatever kind of number they are."""
    progress = Progress()

    for n in (1, 2.5, 0, True, Decimal("0.25"), Fraction(1, 4)):
        progress.advance(n)  # type: ignore[arg-type]
    progress.advance()

    assert read(progress).done == 6
    assert progress.take().progress


def test_advance_is_exact_in_threads() -> None:
    """Eight threads that count at once lose nothing."""
    progress = Progress()

    def count() -> None:
        for _ in range(5000):
            progress.advance()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        progress.take()
        thread.join()

    assert read(progress).done == 40_000


def test_set_states_absolute_numbers() -> None:
    """What is given is taken as it is, what is not given stays."""
    progress = Progress()

    progress.set(done=10, total=50, unit="MB")
    progress.set(done=25)
    progress.set(total=100)

    reading = read(progress)
    assert (reading.done, reading.total, reading.unit, reading.ratio) == (25, 100, "MB", 0.25)


def test_set_back_moves_the_count_and_not_the_bar() -> None:
    """A lower count is shown, a lower bar never."""
    progress = Progress()
    progress.set(done=50, total=100)
    read(progress)

    progress.set(done=20)

    assert (read(progress).done, read(progress).ratio) == (20, 0.5)


NO_NUMBERS = [
    -1,
    -0.001,
    float("nan"),
    float("inf"),
    float("-inf"),
    MOST * 2,
    10**400,
    "3",
    "",
    b"3",
    [],
    1j,
]


@pytest.mark.parametrize("bad", [*NO_NUMBERS, None], ids=lambda v: repr(v)[:12])
def test_advance_refuses(bad: Any) -> None:
    """What is no number of 0 or more is refused in words, and nothing is counted."""
    progress = Progress()

    with pytest.raises(BadInput, match=r"advance\(.*\): give a number of 0 or more"):
        progress.advance(bad)

    assert read(progress).done == 0


@pytest.mark.parametrize("bad", NO_NUMBERS, ids=lambda v: repr(v)[:12])
def test_numbers_are_refused(bad: Any) -> None:
    """Every place that takes a count or a total refuses what is none, and says what to give."""
    progress = Progress()
    calls: list[Callable[[], object]] = [
        lambda: progress.set(done=bad),
        lambda: progress.set(done=5, total=bad),
        lambda: progress.track([], total=bad),
        lambda: progress.stage("s", total=bad).__enter__(),
    ]

    for call in calls:
        with pytest.raises(BadInput, match="give a number of 0 or more"):
            call()

    assert counts(progress) == (0, None)


@pytest.mark.parametrize("bad", [*NO_NUMBERS, None, 0], ids=lambda v: repr(v)[:12])
def test_stage_refuses_a_weight(bad: Any) -> None:
    """A weight is a number above 0."""
    with pytest.raises(BadInput, match="give a weight above 0"), Progress().stage("s", weight=bad):
        pass


@pytest.mark.parametrize("bad", [None, 5, object()])
def test_track_refuses_what_cannot_be_walked(bad: Any) -> None:
    """Something that is no iterable is refused where it is given, and not later."""
    with pytest.raises(BadInput, match="give it something to iterate over"):
        Progress().track(bad)


def test_largest_numbers_can_be_written() -> None:
    """The largest counts, many times, are still written and read as numbers."""
    progress = Progress()

    for _ in range(100):
        progress.advance(MOST)
        progress.advance(1e-9)
    progress.set(total=MOST)

    assert msgspec.json.decode(progress.take().progress, type=Reading).done >= MOST


def test_stages_nest_and_count_for_themselves() -> None:
    """Numbers belong to the stage that the code is in, at its depth."""
    progress = Progress()

    with progress.stage("outer", total=2), progress.stage("inner", weight=2, total=4) as same:
        same.advance()
        inside = read(progress)

    assert [(s.name, s.depth, s.done, s.total) for s in inside.stages] == [
        ("outer", 0, 0, 2),
        ("inner", 1, 1, 4),
    ]
    assert [s.ratio for s in read(progress).stages] == [1.0, 1.0]


def test_newest_stages_are_shown() -> None:
    """Of very many stages those are shown that come last, the present one among them."""
    progress = Progress()

    for n in range(STAGES_SHOWN + 10):
        with progress.stage(f"stage {n}"):
            shown = [stage.name for stage in read(progress).stages]

            assert shown[-1] == f"stage {n}"
            assert len(shown) == min(n + 1, STAGES_SHOWN)


def test_stage_left_by_an_error_is_not_done() -> None:
    """An error passes through a stage, and the stage is not shown as done."""
    progress = Progress()

    with pytest.raises(LookupError), progress.stage("s", total=4):  # noqa: PT012
        progress.advance()
        raise LookupError
    progress.advance(3)

    assert [s.ratio for s in read(progress).stages] == [0.25]
    assert read(progress).done == 3


def test_stages_make_one_bar_under_a_total() -> None:
    """Three stages of a declared three are a third each; without a total there is no bar."""
    declared, open_ended = Progress(), Progress()
    declared.set(total=3)
    readings: list[tuple[Reading, Reading]] = []

    with contextlib.ExitStack() as stack:
        for name in ("a", "b", "c"):
            with declared.stage(name), open_ended.stage(name):
                readings.append((read(declared), read(open_ended)))
        stack.callback(lambda: readings.append((read(declared), read(open_ended))))

    assert [(one.done, one.total) for one, _ in readings] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [one.ratio for one, _ in readings] == [0, 0.33333, 0.66667, RATIO_CAP]
    assert [(one.done, one.total, one.ratio) for _, one in readings] == [
        (n, None, None) for n in range(4)
    ]


def test_stopped_code_is_not_in_the_stage() -> None:
    """A stage that was refused because the job is to stop was never entered."""
    progress = Progress()
    progress.stop("cancel", raises=True)

    with pytest.raises(JobCancelled), progress.stage("late"):
        pass

    assert progress.here() is progress._meter.root
    assert read(progress).stages == ()


def test_very_many_stages_and_loops_hold_few_nodes() -> None:
    """A long job costs a look no more than a short one."""
    progress = Progress()

    for number in range(20_000):
        with contextlib.suppress(LookupError), progress.stage("row"):
            list(progress.track((1,)))
            if number % 3 == 0:
                raise LookupError
        list(progress.track((1, 2)))
        if number % 5000 == 0:
            progress.take()

    assert len(nodes(progress._meter.root)) < 400
    progress.take()
    assert len(nodes(progress._meter.root)) <= STAGES_SHOWN + 1
    assert counts(progress) == (40_000, 40_000)


PLANS = st.recursive(
    st.integers(1, 3),
    lambda plans: st.lists(st.tuples(st.sampled_from([0.5, 1, 3]), plans), min_size=1, max_size=3),
    max_leaves=8,
)
Plan = int | list[tuple[float, Any]]


def steps_of(progress: Progress, plan: Plan) -> Iterator[None]:
    """Do the plan, with a stop after each step: count so far, or a stage for each entry."""
    if isinstance(plan, int):
        for _ in progress.track(range(plan)):
            yield
        return
    progress.set(total=sum(weight for weight, _ in plan))
    for weight, inner in plan:
        with progress.stage("s", weight=weight):
            yield
            yield from steps_of(progress, inner)


@given(st.lists(PLANS, min_size=1, max_size=4))
def test_stages_in_tasks_make_one_bar(plans: list[Plan]) -> None:
    """However many tasks work beside each other: the bar never falls, and is full at the end."""
    progress = Progress()
    progress.set(total=len(plans))
    ratios = []

    async def work(plan: Plan) -> None:
        with progress.stage("task"):
            for _ in steps_of(progress, plan):
                ratios.append(read(progress).ratio or 0)
                await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(work(plan) for plan in plans))

    asyncio.run(all_of_them())

    assert ratios == sorted(ratios)
    assert read(progress).ratio == RATIO_CAP
    assert counts(progress) == (len(plans), len(plans))
    assert msgspec.json.decode(progress.final(succeeded=True), type=Reading).ratio == 1


@settings(max_examples=20)
@given(st.lists(PLANS, min_size=1, max_size=4))
def test_stages_in_threads_make_one_bar(plans: list[Plan]) -> None:
    """Likewise in threads that nothing orders."""
    progress = Progress()
    progress.set(total=len(plans))
    errors: list[BaseException] = []

    def work(plan: Plan) -> None:
        with progress.stage("thread"):
            for _ in steps_of(progress, plan):
                pass

    with looked_at(progress) as ratios:
        threads = [
            threading.Thread(
                target=copy_context().run, args=(_keep, errors, lambda plan=plan: work(plan))
            )
            for plan in plans
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert errors == []
    assert ratios == sorted(ratios)
    assert read(progress).ratio == RATIO_CAP
    assert counts(progress) == (len(plans), len(plans))


def test_stages_in_tasks_stay_apart() -> None:
    """Code in one task counts in its own stage, whatever runs beside it."""
    progress = Progress()

    async def walk(name: str, n: int) -> None:
        with progress.stage(name, total=10):
            for _ in range(n):
                progress.advance()
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(walk("a", 3), walk("b", 5))

    asyncio.run(both())

    assert [(s.name, s.done) for s in read(progress).stages] == [("a", 3), ("b", 5)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 1_000_000, "x" * 499 + "…"),
        ("a\x00\x1b[31m\r\nb", "a[31m b"),
        ("\u202eevil\u2066", "evil"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        (None, "None"),
    ],
    ids=["long", "control", "bidi", "html", "none"],
)
def test_note_is_made_fit(text: Any, shown: str) -> None:
    """Any text becomes one short line of plain text; markup stays text."""
    progress = Progress()

    progress.note(text)

    assert read(progress).note == shown


def test_log_keeps_the_newest_lines() -> None:
    """What is logged faster than it is written loses its oldest lines, and counts them."""
    progress = Progress()

    for n in range(LOG_LINES + 10):
        progress.log(f"line {n}\n")

    number, texts = progress.take().lines
    assert (number, texts[0], texts[-1], len(texts)) == (10, "line 10", "line 509", LOG_LINES)


def test_names_are_made_fit() -> None:
    """Names of stages and units are short plain text too."""
    progress = Progress()

    with progress.stage("a\nb" + "x" * 1000):
        progress.set(unit="u" * 1000)
        stage = read(progress).stages[0]

    assert stage.name.startswith("a bxx")
    assert (len(stage.name), len(stage.unit or "")) == (200, 40)


# ── take and give back ────────────────────────────────────────────────────────────────────────


class Written:
    """The record, as far as what was taken reached it."""

    def __init__(self) -> None:
        self.progress = self.checkpoint = ""
        self.lines: list[str] = []

    def write(self, news: News) -> None:
        self.progress = news.progress or self.progress
        self.checkpoint = news.checkpoint or self.checkpoint
        if news.lines.texts:
            self.lines += news.lines.texts[len(self.lines) - news.lines.number :]


REPORTS: dict[str, Callable[[Progress, int], object]] = {
    "advance": lambda progress, n: progress.advance(n),
    "set": lambda progress, n: progress.set(done=n, total=2 * n),
    "note": lambda progress, n: progress.note(f"note {n}"),
    "log": lambda progress, n: progress.log(f"line {n}"),
    "checkpoint": lambda progress, n: progress.checkpoint(n),
    "track": lambda progress, n: list(progress.track(range(n % 5), resume=True)),
}


FATES = ["written", "lost", "unanswered", "pause"]


@given(st.lists(st.tuples(st.sampled_from([*REPORTS, *FATES]), st.integers(0, 99))))
def test_last_word_is_never_lost(steps: list[tuple[str, int]]) -> None:
    """Whatever is reported, taken and given back: in the end the record holds the final state."""
    clock, record = Clock(), Written()
    progress = Progress(clock=clock)
    logged = [f"line {n}" for step, n in steps if step == "log"]

    for step, n in [*steps, ("written", 0)]:
        if step == "pause":
            clock.now += n / 10
        elif step in REPORTS:
            REPORTS[step](progress, n)
        else:
            news = progress.take()
            if step != "lost":
                record.write(news)
            progress.wrote(news) if step == "written" else progress.give_back()

    last, told = read(progress), msgspec.json.decode(record.progress or "{}", type=Reading)
    assert (told.done, told.total, told.ratio, told.note) == (
        last.done, last.total, last.ratio, last.note,
    )  # fmt: skip
    assert record.checkpoint == progress.last_checkpoint()
    assert record.lines == logged


def test_take_is_empty_when_nothing_is_new() -> None:
    """What was taken once is not taken again, as long as it was not given back."""
    progress = Progress(clock=Clock())
    progress.advance()

    first, second = progress.take(), progress.take()
    progress.give_back()

    assert second == News("", "", NO_LINES)
    assert progress.take().progress == first.progress


def test_lines_that_are_not_known_to_be_written_go_again() -> None:
    """Lines keep their order and their numbers until the store has them."""
    progress = Progress()
    progress.log("a")
    taken = progress.take()
    progress.log("b")

    again = progress.take()
    progress.wrote(taken)

    assert (taken.lines, again.lines) == ((0, ("a",)), (0, ("a", "b")))
    assert progress.last_lines() == (1, ("b",))


def test_wakes_once_after_a_quiet_time() -> None:
    """The first report after a quiet time wakes the writer; those that follow do not."""
    woken: list[None] = []
    progress = Progress(wake=lambda: woken.append(None), clock=Clock())

    for _ in range(3):
        progress.advance()
    busy = len(woken)
    progress.take()
    progress.take()
    progress.note("again")

    assert (busy, len(woken)) == (1, 2)


def test_report_during_a_look_is_news_of_the_next() -> None:
    """What is reported while somebody looks wakes the writer again, if the look was in vain."""

    def scene() -> tuple[Progress, list[None]]:
        woken: list[None] = []
        progress = Progress(wake=lambda: woken.append(None), clock=Clock())
        progress.take()
        return progress, woken

    def check(scene: tuple[Progress, list[None]], news: News) -> None:
        progress, woken = scene
        told = msgspec.json.decode(news.progress or "{}", type=Reading).done
        assert told == 1 or woken
        assert progress.take().progress or told == 1

    steps = at_every_step(
        scene, look=lambda scene: scene[0].take(), act=lambda scene: scene[0].advance(), check=check
    )

    assert steps > 100


# ── stopping ──────────────────────────────────────────────────────────────────────────────────

CALLS: dict[str, Callable[[Progress], object]] = {
    "track": lambda progress: progress.track([1]),
    "advance": lambda progress: progress.advance(),
    "set": lambda progress: progress.set(done=1),
    "note": lambda progress: progress.note("x"),
    "log": lambda progress: progress.log("x"),
    "checkpoint": lambda progress: progress.checkpoint(1),
    "stage": lambda progress: progress.stage("x").__enter__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_stopped_thread_raises_in_its_next_call(call: str) -> None:
    """In a thread, each call raises once the job was asked to stop; in a coroutine, none does."""
    thread, coroutine = Progress(), Progress()
    thread.stop("cancel", raises=True)
    coroutine.stop("cancel", raises=False)

    CALLS[call](coroutine)
    with pytest.raises(JobCancelled, match="cancel"):
        CALLS[call](thread)

    assert thread.cancelled
    assert coroutine.cancelled


@pytest.mark.parametrize("kind", UNSIZED)
def test_stopped_thread_raises_at_the_next_item(kind: str) -> None:
    """A loop that only goes on is stopped too; the item in hand is done, and no other is lost."""
    progress, source = Progress(), iter(UNSIZED[kind](ITEMS))

    with pytest.raises(JobCancelled):  # noqa: PT012
        for item in progress.track(source):
            if item == 2:
                progress.stop("cancel", raises=True)

    assert read(progress).done == 3
    assert list(source) == ITEMS[3:]
    assert not Progress().cancelled


def test_job_cancelled_passes_except_exception() -> None:
    """A task that swallows every exception does not swallow the wish to stop it."""
    assert not issubclass(JobCancelled, Exception)


def test_current_progress_outside_of_a_job() -> None:
    """Outside of a job the answer is an error that says where it works."""
    with pytest.raises(HeadwayError, match=r"outside of a job\. Call it from a task"):
        current_progress()


def test_an_enormous_number_is_refused_in_words() -> None:
    """A number that Python itself will not write down gets an answer all the same."""
    with pytest.raises(BadInput, match="enormous"):
        Progress().advance(10**5000)
