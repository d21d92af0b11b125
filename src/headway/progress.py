"""`Progress`: what the code of a task holds in its hands.

Every call only counts, or puts a value aside; it never waits and never touches the network.
The beat thread comes by about ten times a second and takes what is new. The same object serves
coroutines and threads.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload

from headway._amount import MOST, amount, length, total_of
from headway._ledger import Ledger, News
from headway._tree import Stage, attach
from headway.errors import BadInput, HeadwayError
from headway.job import NAME_CHARS, plain
from headway.limits import LIMITS, Limits
from headway.track import Track

__all__ = ["News", "Progress", "Track", "current_progress"]

T = TypeVar("T")

_current: ContextVar[Progress] = ContextVar("headway_progress")
_beginning: ContextVar[Callable[[], Progress | None] | None] = ContextVar(
    "headway_beginning", default=None
)
"""Where there is no job yet, but one begins when it is asked for; None says that none can."""


def current_progress() -> Progress:
    """Find the `Progress` of the job that this code runs in, from any depth.

    It travels with the context: into coroutines, asyncio tasks and `asyncio.to_thread`, but not
    into threads and pools that the task starts by other means; hand it over there.

    In a task of Celery's that Headway did not start, the first call begins a job, and waits for
    the store to have it: two round trips. See `CeleryEngine`.

    Raises:
        HeadwayError: this code does not run in a job.
    """
    try:
        return _current.get()
    except LookupError:
        begin = _beginning.get()
    progress = begin() if begin is not None else None
    if progress is None:
        raise HeadwayError(
            "current_progress() was called outside of a job. Call it from a task that Headway "
            "runs, or hand the Progress over to the thread that needs it."
        )
    return progress


class Progress(Ledger):
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
        limits: how much of all this is kept.
        captures: whose bars and lines report here, too.
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
        limits: Limits = LIMITS,
        captures: frozenset[str] = frozenset(),
    ) -> None:
        self.job_id = job_id
        self.owner = owner
        self.captures = captures
        self._attempt = attempt
        self._children = 0
        super().__init__(checkpoint, clock, stall_s=stall_s, wake=wake, limits=limits)

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
        return self._marks.value

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
        nothing per item. An `async for` lets go of its iterator at its end; if you call `aiter()`
        yourself, the loop is over when you drop what you got.

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
        total = length(iterable) if total is None else total_of(total)
        self.check()
        return Track(self, iterable, total, unit, resume=resume)

    def advance(self, n: float = 1) -> None:
        """Count *n* more as done, in the stage this code is in. Never goes back.

        Raises:
            BadInput: *n* is negative or no number.
        """
        if type(n) is not int or not 0 <= n <= MOST:
            n = amount(n, "advance({}): give a number of 0 or more")
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

        Where nothing is counted but stages begin and end, *total* is the sum of the weights of
        all stages that will come. Without it there is no bar, as nobody knows how many those are.

        Raises:
            BadInput: a number is negative or no number.
        """
        if total is not None:
            total = total_of(total)
        if done is not None:
            done = amount(done, "set(done={}): give a number of 0 or more")
        if unit is not None:
            unit = plain(unit, 40)
        stage = self.here().stage
        with self._lock:
            if done is not None:
                stage.counted = done
                stage.stated = True
            if total is not None:
                stage.total = total
            if unit is not None:
                stage.unit = unit
        self.news()

    def note(self, text: str) -> None:
        """Say in a few words what is going on; the newest words replace the older.

        Shown as text, never as markup; cut to 500 characters (`Limits.note_chars`), control
        characters removed.
        """
        self._meter.note(plain(text, self.limits.note_chars))
        self.news()

    def log(self, line: str) -> None:
        """Add a line to the job's log. The newest 500 lines are kept, of 2,000 characters each;
        see `Limits`."""
        self.add_line(line)
        self.news()

    @contextmanager
    def stage(self, name: str, weight: float = 1, total: float | None = None) -> Iterator[Progress]:
        """A named part of the work, with a small bar of its own. Stages nest.

        What is around it, the job or another stage, shows a bar over its stages if it has a
        total: see `set()`.

        Args:
            name: shown to the owner.
            weight: its share of the work beside the other stages around it, above 0.
            total: as in `set()`.

        Raises:
            BadInput: *weight* is not above 0, or *total* is negative or no number.
        """
        weight = amount(weight, "stage(weight={}): give a weight above 0", above=0)
        if total is not None:
            total = total_of(total)
        self.check()
        stage = Stage(plain(name, NAME_CHARS), weight=weight, total=total, parent=self.here())
        self.enter(stage)
        whole = False
        try:
            yield self
            whole = True
        finally:
            # May run in a finalizer, if nobody leaves the block: nothing here waits for a lock.
            stage.close(whole=whole)
            self.leave(stage)
        self.news()

    def checkpoint(self, value: Any) -> None:
        """Remember *value* for the next attempt, should this one be lost or fail.

        It is written with the next flush, within about 0.1 s, together with the progress.

        Args:
            value: made of JSON values, at most 64 KiB as JSON (`Limits.checkpoint_bytes`). What
                is changed in it afterwards is not seen.

        Raises:
            BadInput: *value* is not JSON.
            TooLarge: it is over the limit.
        """
        self._marks.keep(value)
        self.news()

    # ── what a group calls ──────────────────────────────────────────────

    def next_child(self) -> int:
        """The number of the next job that this one starts."""
        with self._lock:
            self._children += 1
            return self._children

    def child(self, title: str) -> AbstractContextManager[Callable[[float], None]]:
        """A stage that stands for another job. It begins now, and ends with the block that this
        is for; call what the block is given with that job's ratio."""
        stage = Stage(plain(title, NAME_CHARS), total=1, parent=self.here())
        with self._lock:
            attach(stage)
        self.news_of_end()
        return self._follow(stage)

    @contextmanager
    def _follow(self, stage: Stage) -> Iterator[Callable[[float], None]]:
        def show(ratio: float) -> None:
            with self._lock:
                stage.counted = ratio
            self.news_of_end()

        whole = False
        try:
            yield show
            whole = True
        finally:
            stage.close(whole=whole)
        self.news_of_end()

    def all_begun(self) -> None:
        """All stages that belong here have begun, so their number is known."""
        here = self.here()
        with self._lock:
            here.all_begun()
        self.news_of_end()
