"""`Progress`: what the code of a task holds in its hands.

Every call only counts, or puts a value aside; it never waits and never touches the network.
The beat thread comes by about ten times a second and takes what is new. The same object serves
coroutines and threads.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import (
    AsyncIterable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, get_ident
from typing import Any, Final, NamedTuple, TypeVar, overload

import msgspec

from headway._meter import Loop, Meter, Stage
from headway.errors import BadInput, HeadwayError, JobCancelled
from headway.job import CHECKPOINT_BYTES, NAME_CHARS, Reading, plain, to_json
from headway.store import Lines
from headway.track import Track

__all__ = ["Progress", "Track", "current_progress"]

LINE_CHARS: Final = 2_000
MOST: Final = 2**53  # the largest count that every reader of JSON takes for what it is
LINES_WAITING: Final = 500  # what is logged faster than it can be written loses its oldest lines

T = TypeVar("T")

_current: ContextVar[Progress] = ContextVar("headway_progress")
_here: ContextVar[tuple[Progress, Stage | Loop] | None] = ContextVar("headway_stage", default=None)


def current_progress() -> Progress:
    """Find the `Progress` of the job that this code runs in, from any depth.

    It travels with the context: into coroutines, asyncio tasks and `asyncio.to_thread`, but not
    into threads and pools that the task starts by other means; hand it over there.

    Raises:
        HeadwayError: this code does not run in a job.
    """
    try:
        return _current.get()
    except LookupError:
        raise HeadwayError(
            "current_progress() was called outside of a job. Call it from a task that Headway "
            "runs, or hand the Progress over to the thread that needs it."
        ) from None


class News(NamedTuple):
    """What has to be written since the last time; empty strings stand for nothing new."""

    progress: str
    checkpoint: str
    lines: Lines


class _Marks(msgspec.Struct):
    """What a checkpoint holds: the task's own value, and how far each resumable loop had come."""

    value: Any = None
    loops: dict[str, int] = {}


class Progress:
    """Reports how far a job is. Handed to the task as its first argument.

    All methods are thread-safe, never wait and cost well under a microsecond. In a task that
    runs in a thread each of them raises `JobCancelled` once the job was asked to stop.

    In a test of your own, `Progress()` works by itself: it counts, and nothing is written.

    Args:
        job_id: the job's id; None where there is none, as in a test.
        owner: whose job it is.
        attempt: which attempt this is, from 1.
        checkpoint: what the last attempt left behind, as this class wrote it.
        clock: monotonic seconds.
        stall_s: see `Meter`.
        wake: called (from any thread) when there is news after a quiet time.
    """

    def __init__(
        self,
        *,
        job_id: str | None = None,
        owner: str | None = None,
        attempt: int = 1,
        checkpoint: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        stall_s: float | None = None,
        wake: Callable[[], object] | None = None,
    ) -> None:
        self.job_id = job_id
        self.owner = owner
        self._attempt = attempt
        self._children = 0
        self._marks = msgspec.json.decode(checkpoint, type=_Marks) if checkpoint else _Marks()
        self._meter = Meter(clock, stall_s=stall_s)
        self._lock = Lock()
        self._wake = wake
        self._quiet = True
        self.stopped: str | None = None
        self._raises = False
        self._told: set[int] = set()
        self._resumable: list[Loop] = []
        self._value = self._marks.value
        self._value_json = ""
        self._lines: deque[str] = deque()
        self._lines_over = 0
        self._written: Reading | None = None
        self._written_marks = ""

    # ── what task code calls ──────────────────────────────────────────────────────────────────

    @property
    def attempt(self) -> int:
        """1 in the first attempt, 2 after one retry, and so on."""
        return self._attempt

    @property
    def cancelled(self) -> bool:
        """True once the job was asked to stop; for loops that report nothing."""
        return self.stopped is not None

    @property
    def resume(self) -> Any:
        """The last value given to `checkpoint()`, by this or an earlier attempt; None at first."""
        return self._value

    @overload
    def track(
        self,
        iterable: Iterable[T],
        total: float | None = None,
        unit: str | None = None,
        *,
        resume: bool = False,
    ) -> Track[T]: ...
    @overload
    def track(
        self,
        iterable: AsyncIterable[T],
        total: float | None = None,
        unit: str | None = None,
        *,
        resume: bool = False,
    ) -> Track[T]: ...
    def track(
        self,
        iterable: Iterable[T] | AsyncIterable[T],
        total: float | None = None,
        unit: str | None = None,
        *,
        resume: bool = False,
    ) -> Track[T]:
        """Count the items of a loop: `for` over a sync iterable, `async for` over an async one.

        An item counts once the loop's body is done with it. A `track` inside of another one's
        body is part of the outer one's current item. Over a list, tuple or range the loop pays
        nothing per item.

        Args:
            iterable: what to go through.
            total: how many items there will be; by default its length, if it has one. A wrong
                total is no error: it grows to what was done, and an early end is an end.
            unit: what an item is, in the singular, such as "row".
            resume: skip as many items as an earlier attempt of this job had done. The iterable
                must give the same items in the same order every time. Not inside of another
                `track()`: resume the outer one.

        Raises:
            BadInput: *total* is negative or no number, or *iterable* cannot be gone through,
                or *resume* is wished for inside of another loop.
        """
        if not isinstance(iterable, (Iterable, AsyncIterable)):
            raise BadInput(f"track({iterable!r}): give it something to iterate over")
        total = _length(iterable) if total is None else _total(total)
        self.check()
        return Track(self, iterable, total, unit, resume=resume)

    def advance(self, n: float = 1) -> None:
        """Count *n* more as done, in the stage this code is in. Never goes back.

        Raises:
            BadInput: *n* is negative or no number.
        """
        if type(n) is not int or not 0 <= n <= MOST:
            n = _number(n, "advance({}): give a number of 0 or more")
        stage = self.here().stage
        with self._lock:
            stage.counted += n
        self.news()

    def set(
        self, *, done: float | None = None, total: float | None = None, unit: str | None = None
    ) -> None:
        """State how far this stage is, in absolute numbers; what is not given stays as it is.

        A *done* below the last one is shown as a count, but the bar does not go back. A *done*
        over *total* makes the total grow. `total` may be set again whenever more is known.

        Raises:
            BadInput: a number is negative or no number.
        """
        if total is not None:
            total = _total(total)
        if done is not None:
            done = _number(done, "set(done={}): give a number of 0 or more")
        stage = self.here().stage
        with self._lock:
            if done is not None:
                stage.counted = done
            if total is not None:
                stage.total = total
            if unit is not None:
                stage.unit = plain(unit, 40)
        self.news()

    def note(self, text: str) -> None:
        """Say in a few words what is going on; the newest words replace the older.

        Shown as text, never as markup; cut to 500 characters, control characters removed.
        """
        self._meter.note(plain(text))
        self.news()

    def log(self, line: str) -> None:
        """Add a line to the job's log. The newest 500 lines are kept, of 2,000 characters each."""
        with self._lock:
            if len(self._lines) == LINES_WAITING:
                self._drop_lines(1)
            self._lines.append(plain(line, LINE_CHARS))
        self.news()

    @contextmanager
    def stage(self, name: str, weight: float = 1, total: float | None = None) -> Iterator[Progress]:
        """A named part of the work, with a small bar of its own. Stages nest.

        Args:
            name: shown to the owner.
            weight: its share of the work beside the other stages around it, above 0.
            total: as in `set()`.

        Raises:
            BadInput: *weight* is not above 0, or *total* is negative or no number.
        """
        weight = _number(weight, "stage(weight={}): give a weight above 0", above=0)
        if total is not None:
            total = _total(total)
        stage = Stage(plain(name, NAME_CHARS), weight=weight, total=total, parent=self.here())
        self.enter(stage)
        self.news()
        try:
            yield self
            stage.open = False
        finally:
            self.leave(stage)
        self.news()

    def checkpoint(self, value: Any) -> None:
        """Remember *value* for the next attempt, should this one be lost or fail.

        It is written with the next flush, within about 0.1 s, together with the progress.

        Args:
            value: made of JSON values, at most 64 KiB as JSON. What is changed in it afterwards
                is not seen.

        Raises:
            BadInput: *value* is not JSON.
            TooLarge: it is over 64 KiB.
        """
        cure = "Store the data elsewhere, and a reference to it here."
        text = to_json(value, what="checkpoint", limit=CHECKPOINT_BYTES, cure=cure)
        with self._lock:
            self._value, self._value_json = msgspec.json.decode(text), text
        self.news()

    # ── what the runner and the beat thread call ──────────────────────────────────────────────

    def next_child(self) -> int:
        """The number of the next job that this one starts."""
        self._children += 1
        return self._children

    @contextmanager
    def child(self, title: str) -> Iterator[Callable[[float], None]]:
        """A stage that stands for another job; call what it gives with that job's ratio."""
        around = self.here().stage
        stage = Stage(plain(title, NAME_CHARS), total=1, parent=around)
        with self._lock:
            around.kids.append(stage)

        def show(ratio: float) -> None:
            with self._lock:
                stage.counted = ratio
            self.news_of_end()

        yield show
        stage.open = False
        self.news_of_end()

    def stop(self, why: str, *, raises: bool) -> None:
        """Ask the task to stop; with *raises*, by an exception in its next call."""
        self.stopped = why
        self._raises = raises

    @property
    def told(self) -> bool:
        """True once a call has raised: the code knows that it is to stop, and cleans up."""
        return bool(self._told)

    def take(self) -> News:
        """What is new since the last `take()`. Called by one thread at a time."""
        with self._lock:
            reading = self._meter.read()
            self._meter.root.fold()
            marks = self._marks_json()
            lines = Lines(self._lines_over, tuple(self._lines))
        progress = "" if reading == self._written else _encode(reading)
        checkpoint = "" if marks == self._written_marks else marks
        if not progress and (checkpoint or lines.texts):
            progress = _encode(reading)
        self._written, self._written_marks = reading, marks
        self._quiet = not progress
        return News(progress, checkpoint, lines)

    def wrote(self, news: News) -> None:
        """What was taken is in the store."""
        with self._lock:
            over = news.lines.number + len(news.lines.texts) - self._lines_over
            self._drop_lines(min(max(over, 0), len(self._lines)))

    def give_back(self) -> None:
        """What was taken could not be written: it is news again."""
        self._written, self._written_marks = None, ""

    def final(self, *, succeeded: bool) -> str:
        """The last reading, as JSON."""
        with self._lock:
            return _encode(self._meter.final(succeeded=succeeded))

    def last_checkpoint(self) -> str:
        """What the next attempt may resume from, as JSON; empty if there is nothing."""
        with self._lock:
            return self._marks_json()

    def last_lines(self) -> Lines:
        """Log lines of which it is not known that they were written."""
        with self._lock:
            return Lines(self._lines_over, tuple(self._lines))

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _drop_lines(self, count: int) -> None:
        for _ in range(count):
            self._lines.popleft()
        self._lines_over += count

    def _marks_json(self) -> str:
        if not self._value_json and not self._resumable:
            return ""
        loops = {**self._marks.loops}
        loops.update((str(i), loop.done) for i, loop in enumerate(self._resumable))
        return msgspec.json.encode(_Marks(self._value, loops)).decode()

    def resume_from(self, loop: Loop) -> int:
        """Register a loop that may be resumed; how many of its items were done before."""
        with self._lock:
            self._resumable.append(loop)
            return self._marks.loops.get(str(len(self._resumable) - 1), 0)

    def skipped(self) -> None:
        with self._lock:
            self._meter.skip()

    def news(self) -> None:
        if self.stopped is not None:
            self.check()
        self.news_of_end()

    def news_of_end(self) -> None:
        # Runs where nothing may be raised: in a finalizer, or while an exception passes by.
        if self._quiet:
            self._quiet = False
            if self._wake is not None:
                self._wake()

    def check(self) -> None:
        if self.stopped is None or not self._raises or get_ident() in self._told:
            return
        # Once in each thread, as asyncio does: what its code calls afterwards is clean-up.
        self._told.add(get_ident())
        raise JobCancelled(self.stopped)

    def here(self) -> Stage | Loop:
        """Where in the tree this code is; what is over stands for what was around it."""
        here = _here.get()
        node = here[1] if here is not None and here[0] is self else None
        while node is not None and not node.open:
            node = node.parent
        return node or self._meter.root

    def enter(self, node: Stage | Loop) -> None:
        around = node.parent
        with self._lock:
            if isinstance(node, Loop) and isinstance(around, Stage):
                around.loops.append(node)
            elif around is not None:
                around.add(node)
        _here.set((self, node))

    def leave(self, node: Stage | Loop) -> None:
        here = _here.get()
        # Not ours if a garbage collector closes the loop in the middle of somebody else's code.
        if here is not None and here[1] is node and node.parent is not None:
            _here.set((self, node.parent))


def _length(iterable: object) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]
    except TypeError:
        return None


def _total(total: float) -> float:
    words = "total {}: give a number of 0 or more, or None while the size is unknown"
    return _number(total, words)


def _number(number: Any, words: str, *, above: float = -1) -> float:
    """A plain number, of whatever kind it came: it is written as JSON, long after this call."""
    try:
        if math.isfinite(number) and above < number <= MOST and number >= 0:
            return number if type(number) is int else float(number)
    except (TypeError, OverflowError):
        pass
    raise BadInput(words.format(_said(number)))


def _said(value: object) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "an enormous number"


_encode_reading = msgspec.json.Encoder().encode


def _encode(reading: Reading) -> str:
    return _encode_reading(reading).decode()
