"""What a task has reported, until it is written; and where in the tree of stages its code is.

The inner half of `Progress`: what its loops, the runner and the beat thread call. Task code reports
from any thread, the beat thread takes what is new; one lock is between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock, get_ident
from typing import NamedTuple

import msgspec

from headway._marks import Marks
from headway._meter import Meter
from headway._tree import Loop, Stage, attach
from headway.acts import Lines
from headway.errors import JobCancelled
from headway.job import Reading, StageReading, plain
from headway.limits import Limits
from headway.track import Going

__all__ = ["Ledger", "News", "encoded"]

_here: ContextVar[tuple[Ledger, Stage | Loop] | None] = ContextVar("headway_stage", default=None)


class News(NamedTuple):
    """What has to be written since the last time; empty strings stand for nothing new."""

    progress: str
    checkpoint: str
    lines: Lines


class Ledger:
    """Holds the tree of stages, the log lines and the checkpoint of one attempt.

    Args:
        checkpoint, clock, stall_s, wake, limits: see `Progress`.
    """

    def __init__(
        self,
        checkpoint: str | None,
        clock: Callable[[], float],
        *,
        stall_s: float | None,
        wake: Callable[[], object] | None,
        limits: Limits,
    ) -> None:
        self.limits = limits
        self._marks = Marks(checkpoint, limits.checkpoint_bytes)
        self._meter = Meter(clock, stall_s=stall_s)
        # May be taken again by the thread that holds it: a signal handler or a finalizer of the
        # task's code can call in the middle of a call. The ends of loops and stages never take it.
        self._lock = RLock()
        self._wake = wake
        self._quiet = True
        self._raises = False
        self.stopped: str | None = None
        self.going = Going(self.check)
        self._told: set[int] = set()
        self._passing: set[Loop] = set()
        self._lines: deque[str] = deque()
        self._lines_over = 0
        self._written: Reading | None = Reading()  # of what says nothing, nothing is written
        self._written_marks = ""

    # ── what the runner and the beat thread call ──────────────────────────────────────────────

    def stop(self, why: str, *, raises: bool) -> None:
        """Ask the task to stop; with *raises*, by an exception in its next call."""
        self._raises = raises
        self.stopped = why  # after that: whoever sees it knows what to do
        self.going.heed()

    def told(self, ident: int) -> bool:
        """True once a call has raised in this thread: its code knows that it is to stop."""
        return ident in self._told

    def take(self) -> News:
        """What is new since the last `take()`. Called by one thread at a time."""
        with self._lock:
            if self._passing:
                self._meter.skip()
            reading = self._meter.read()
            marks = self._marks.json()
            lines = Lines(self._lines_over, tuple(self._lines))
        progress = "" if reading == self._written else self._encoded(reading)
        checkpoint = "" if marks == self._written_marks else marks
        if not progress and (checkpoint or lines.texts):
            progress = self._encoded(reading)
        self._written, self._written_marks = reading, marks
        if not progress and not self._quiet:
            # From now on a report wakes. One that came between the look and this is looked for.
            self._quiet = True
            return self.take()
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
            return self._encoded(self._meter.final(succeeded=succeeded))

    def last_checkpoint(self) -> str:
        """What the next attempt may resume from, as JSON; empty if there is nothing."""
        with self._lock:
            return self._marks.json()

    def last_lines(self) -> Lines:
        """Log lines of which it is not known that they were written."""
        with self._lock:
            return Lines(self._lines_over, tuple(self._lines))

    # ── what `Progress` and its loops call ────────────────────────────────────────────────────

    def add_line(self, line: str) -> None:
        line = plain(line, self.limits.log_chars)
        with self._lock:
            # What is logged faster than it can be written loses its oldest lines.
            if len(self._lines) == self.limits.log_lines:
                self._drop_lines(1)
            self._lines.append(line)

    def _encoded(self, reading: Reading) -> str:
        return encoded(reading, self.limits.progress_bytes)

    def _drop_lines(self, count: int) -> None:
        for _ in range(count):
            self._lines.popleft()
        self._lines_over += count

    def resume_from(self, loop: Loop) -> int:
        """Register a loop that may be resumed; how many of its items were done before."""
        with self._lock:
            return self._marks.resume(loop)

    @contextmanager
    def passing(self, loop: Loop) -> Iterator[None]:
        """The loop passes by what an earlier attempt has done: that counts, and is no speed."""
        self._passing.add(loop)
        try:
            yield
            with self._lock:
                self._meter.skip()
        finally:
            self._passing.discard(loop)

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
        with self._lock:
            attach(node)
        _here.set((self, node))
        self.news_of_end()

    def leave(self, node: Stage | Loop) -> None:
        here = _here.get()
        # Not ours if a garbage collector closes the loop in the middle of somebody else's code.
        if here is not None and here[1] is node and node.parent is not None:
            _here.set((self, node.parent))


_encode = msgspec.json.Encoder().encode


def encoded(reading: Reading, most: int) -> str:
    """The reading as JSON. If it is over *most* bytes, without its oldest stages."""
    text = _encode(reading)
    if len(text) > most and reading.stages:
        rest = len(_encode(msgspec.structs.replace(reading, stages=())))
        room = most - rest - len(',"stages":[]') + 1  # the first one has no comma before it
        kept: deque[StageReading] = deque()
        for stage in reversed(reading.stages):
            room -= len(_encode(stage)) + 1
            if room < 0:
                break
            kept.appendleft(stage)
        text = _encode(msgspec.structs.replace(reading, stages=tuple(kept)))
    return text.decode()
