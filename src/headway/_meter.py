"""How far the work is, how fast it goes and when it will be done. Pure: the clock is given.

A job is a tree of stages. A stage counts (`done` of `total`), has named stages below it, and
holds the loops that `track()` runs in it. The tree is only read when somebody looks, at most
some ten times a second: counting itself touches one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from operator import length_hint
from typing import Any, Final

from headway.job import Reading, StageReading

__all__ = ["Loop", "Meter", "Rate", "Stage"]

RATIO_CAP: Final = 0.99  # a running job is never shown as done
RATE_AFTER_S: Final = 1.0
ETA_AFTER_S: Final = 5.0
ETA_AFTER_RATIO: Final = 0.03
FAST_HALF_LIFE_S: Final = 5.0
SLOW_HALF_LIFE_S: Final = 30.0
STEADY_WITHIN: Final = 2.0  # fast and slow rate may differ by this factor, else no ETA is shown
OVERDUE_GAPS: Final = 4.0  # so many usual gaps without progress, and the old rate means nothing
OVERDUE_S: Final = 10.0
STALL_S: Final = 60.0
STALL_GAPS: Final = 10.0
STAGES_SHOWN: Final = 50


class Rate:
    """Amount per second over an exponentially fading window.

    Amount and time fade with the same weight, so their quotient needs no start-up correction:
    it is the weighted mean of the speeds seen so far, also after the first sample.

    Source: the two averages of tqdm's `EMA` (alpha 0.3, bias-corrected), with a half-life in
    seconds in the place of alpha, so that it does not depend on how often one looks.
    """

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._amount = 0.0
        self._seconds = 0.0

    def add(self, amount: float, seconds: float) -> None:
        fade = 0.5 ** (seconds / self._half_life_s)
        self._amount = self._amount * fade + amount
        self._seconds = self._seconds * fade + seconds

    @property
    def seconds(self) -> float:
        """How much time the window holds."""
        return self._seconds

    @property
    def per_s(self) -> float | None:
        return self._amount / self._seconds if self._seconds > 0 else None


class Loop:
    """One run of `track()`: its count is the hot path of the whole library.

    `done` is counted by the loop itself, or, over a sequence whose iterator knows how much it
    still holds, read from that iterator: then counting costs the loop nothing at all.
    """

    __slots__ = ("born", "counted", "kids", "open", "parent", "source", "total")

    def __init__(self, total: float | None, parent: Stage | Loop | None = None) -> None:
        self.counted = 0
        self.total = total
        self.parent = parent
        self.born = parent.counts()[0] if parent is not None else 0
        self.kids: list[Stage | Loop] = []
        self.source: tuple[Sized, Iterator[Any]] | None = None
        self.open = True

    @property
    def done(self) -> int:
        """Items whose turn of the loop's body is over."""
        source = self.source  # read once: the loop may be closed by its thread meanwhile
        if source is None:
            return self.counted
        sequence, iterator = source
        # One less than was handed out: the last one is still in the hands of the loop's body.
        return max(len(sequence) - length_hint(iterator) - 1, self.counted, 0)

    @property
    def stage(self) -> Stage:
        """The stage around this loop, and around the loops that it runs in."""
        node: Stage | Loop | None = self.parent
        while isinstance(node, Loop):
            node = node.parent
        assert node is not None, "every loop of a job hangs below its root stage"
        return node

    def add(self, kid: Stage | Loop) -> None:
        """Something runs inside the present item; what ran inside of earlier ones is over."""
        self.kids = [*_current(self), kid]

    def close(self, *, exhausted: bool) -> None:
        """The loop is over; what it had in its hands is done only if it came to its end."""
        if self.source is not None:
            self.counted = len(self.source[0]) if exhausted else self.done
            self.source = None
        self.kids.clear()
        self.open = False

    def counts(self) -> tuple[float, float | None]:
        done = self.done
        return done, None if self.total is None else max(self.total, done)

    def ratio(self) -> float | None:
        done, total = self.counts()
        return None if total is None else _ratio(done, total, self.kids)


class Stage:
    """A named part of the work, or the whole of it."""

    __slots__ = (
        "born", "counted", "kids", "loops", "name", "open", "parent", "total", "unit", "weight",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        weight: float = 1,
        total: float | None = None,
        parent: Stage | Loop | None = None,
    ) -> None:
        self.name = name
        self.weight = weight
        self.total = total
        self.parent = parent
        self.born = parent.counts()[0] if parent is not None else 0
        self.unit: str | None = None
        self.counted: float = 0
        self.loops: list[Loop] = []
        self.kids: list[Stage | Loop] = []
        self.open = True

    @property
    def stage(self) -> Stage:
        """Itself: numbers stated here belong here."""
        return self

    def add(self, kid: Stage | Loop) -> None:
        """A stage inside of this one."""
        self.kids.append(kid)

    def counts(self) -> tuple[float, float | None]:
        """Done and total, its loops included; a total grows to what was done."""
        done, total = self.counted, self.total
        loops = [loop.counts() for loop in self.loops]
        done += sum(d for d, _ in loops)
        if total is None and loops:
            known = [t for _, t in loops if t is not None]
            total = sum(known) if len(known) == len(loops) else None
        return done, None if total is None else max(total, done)

    def ratio(self) -> float | None:
        if not self.open:
            return 1.0
        done, total = self.counts()
        if total is None and any(loop.open and loop.total is None for loop in self.loops):
            return None  # how far one item is says nothing if nobody knows how many there are
        inner = [k for loop in self.loops for k in _current(loop)]
        return _ratio(done, total, [*self.kids, *inner])

    def fold(self) -> None:
        """Turn loops that are over into plain counts, so that a long job holds few nodes."""
        over = [loop for loop in self.loops if not loop.open]
        if len(over) < 2 or (self.total is None and any(loop.total is None for loop in over)):
            return
        merged = Loop(sum(loop.counts()[1] or 0 for loop in over))
        merged.counted = sum(loop.done for loop in over)
        merged.open = False
        self.loops = [merged, *(loop for loop in self.loops if loop.open)]


def _current(loop: Loop) -> list[Stage | Loop]:
    """What belongs to the item that the loop has in its hands now."""
    done = loop.done
    return [kid for kid in loop.kids if kid.born >= done]


def _ratio(done: float, total: float | None, kids: list[Stage | Loop]) -> float | None:
    inner = None
    if kids:
        weights = sum(_weight(kid) for kid in kids)
        inner = sum(_weight(kid) * (_whole(kid) or 0.0) for kid in kids) / weights
    if total:
        mine = [k for k in kids if k.born >= done]
        part = sum(_weight(k) * (_whole(k) or 0.0) for k in mine)
        weights = sum(_weight(k) for k in mine)
        return min((done + (part / weights if weights else 0.0)) / total, 1.0)
    return inner


def _whole(node: Stage | Loop) -> float | None:
    return node.ratio() if node.open else 1.0


def _weight(node: Stage | Loop) -> float:
    return node.weight if isinstance(node, Stage) else 1.0


class Meter:
    """Reads the tree of stages and remembers what a single look cannot know.

    Args:
        clock: monotonic seconds.
        stall_s: so long without progress counts as stalled; None derives it from the rhythm of
            the work itself (ten usual gaps, at least 60 s).
    """

    def __init__(self, clock: Callable[[], float], *, stall_s: float | None = None) -> None:
        self.root = Stage("")
        self.resumed_ratio: float | None = None
        self._clock = clock
        self._stall_s = stall_s
        self._started = self._changed = self._heard = clock()
        self._left_s: float | None = None
        self._note: str | None = None
        self._best: float | None = None
        self._seen: tuple[float, float | None] = (0, None)
        self._gap = Rate(SLOW_HALF_LIFE_S)
        self._items = Rate(SLOW_HALF_LIFE_S)
        self._fast = Rate(FAST_HALF_LIFE_S)
        self._slow = Rate(SLOW_HALF_LIFE_S)

    def note(self, text: str) -> None:
        """Remember the newest words of the task; a sign of life, though no progress."""
        self._note = text
        self._heard = self._clock()

    def skip(self) -> None:
        """What was counted since the last look was done by an earlier attempt: no speed in it."""
        self._best = self._ratio()
        self.resumed_ratio = self._best
        self._seen = (self.root.counts()[0], self._best)
        self._changed = self._clock()

    def read(self) -> Reading:
        """Look once. Looking more or less often changes no number by more than a rounding."""
        now = self._clock()
        done, total = self.root.counts()
        ratio = self._ratio()
        self._sample(now, done, ratio)
        return Reading(
            done=_tidy(done),
            total=None if total is None else _tidy(total),
            ratio=None if ratio is None else round(ratio, 5),
            unit=self.root.unit,
            rate_per_s=self._rate(),
            eta_s=self._eta(now, ratio),
            note=self._note,
            stages=tuple(self._stages()),
            stalled=self._stalled(now),
            resumed_ratio=self.resumed_ratio,
        )

    def final(self, *, succeeded: bool) -> Reading:
        """The last reading: 100 % if the work succeeded, else as far as it came."""
        last = self.read()
        ratio = 1.0 if succeeded else last.ratio
        return Reading(
            done=last.done,
            total=last.total,
            ratio=ratio,
            unit=last.unit,
            rate_per_s=last.rate_per_s,
            note=last.note,
            stages=last.stages,
            resumed_ratio=last.resumed_ratio,
        )

    def _ratio(self) -> float | None:
        ratio = self.root.ratio()
        if ratio is not None:
            self._best = max(min(ratio, RATIO_CAP), self._best or 0.0)
        return self._best

    def _sample(self, now: float, done: float, ratio: float | None) -> None:
        before, ratio_before = self._seen
        if done == before and ratio == ratio_before:
            return
        seconds = now - self._changed
        if seconds <= 0:
            return
        self._items.add(max(done - before, 0), seconds)
        self._gap.add(1, seconds)
        if ratio is not None:
            gained = ratio - (ratio_before or 0.0)
            self._fast.add(gained, seconds)
            self._slow.add(gained, seconds)
        self._seen = (done, ratio)
        self._changed = now
        self._left_s = self._estimate(now, ratio)

    def _rate(self) -> float | None:
        rate = self._items.per_s
        return float(f"{rate:.3g}") if rate and self._items.seconds >= RATE_AFTER_S else None

    def _eta(self, now: float, ratio: float | None) -> float | None:
        """The estimate of the last change; whoever shows it counts down by itself."""
        if ratio is None or ratio >= RATIO_CAP or self._overdue(now):
            return None
        return self._left_s

    def _estimate(self, now: float, ratio: float | None) -> float | None:
        fast, slow = self._fast.per_s, self._slow.per_s
        if ratio is None or not fast or not slow:
            return None
        resumed = self.resumed_ratio or 0.0
        if now - self._started < ETA_AFTER_S or ratio - resumed < ETA_AFTER_RATIO * (1 - resumed):
            return None
        if not 1 / STEADY_WITHIN <= fast / slow <= STEADY_WITHIN:
            return None
        return round((1 - ratio) / slow, 1)

    def _overdue(self, now: float) -> bool:
        gaps = self._gap.per_s
        usual = OVERDUE_GAPS / gaps if gaps else 0.0
        return now - self._changed > max(usual, OVERDUE_S)

    def _stalled(self, now: float) -> bool:
        limit = self._stall_s
        if limit is None:
            gaps = self._gap.per_s
            limit = max(STALL_GAPS / gaps if gaps else 0.0, STALL_S)
        return now - max(self._changed, self._heard) > limit

    def _stages(self) -> list[StageReading]:
        found: list[StageReading] = []
        self._collect(self.root.kids, 0, found)
        for loop in self.root.loops:
            self._collect(_current(loop), 0, found)
        return found[-STAGES_SHOWN:]  # the newest: what runs now is among them

    def _collect(self, kids: list[Stage | Loop], depth: int, found: list[StageReading]) -> None:
        for kid in kids:
            if isinstance(kid, Stage):
                done, total = kid.counts()
                ratio = kid.ratio()
                found.append(
                    StageReading(
                        name=kid.name,
                        done=_tidy(done),
                        total=None if total is None else _tidy(total),
                        ratio=None if ratio is None else round(ratio, 4),
                        unit=kid.unit,
                        depth=depth,
                    )
                )
                inner = [k for loop in kid.loops for k in _current(loop)]
                self._collect([*kid.kids, *inner], depth + 1, found)
            else:
                self._collect(_current(kid), depth, found)


def _tidy(number: float) -> float:
    """A whole number as an int, so that 3 is not shown as 3.0; else what a float can hold."""
    return int(number) if number == int(number) else round(number, 6)
