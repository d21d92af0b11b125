"""How far a job is, how fast it goes and when it will be done. Pure: the clock is given.

The tree of stages tells how far it is (see `_tree`); it is only read when somebody looks, at most
some ten times a second. The meter remembers what a single look cannot know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headway._rate import Pace
from headway._tree import STAGES_SHOWN, Look, Loop, Parts, Stage
from headway.job import Reading, StageReading

__all__ = ["Meter"]

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
        self._started = self._heard = now = clock()
        self._left_s: float | None = None
        self._note: str | None = None
        self._items = Pace(now, SLOW_HALF_LIFE_S)
        self._ratio = Pace(now, FAST_HALF_LIFE_S, SLOW_HALF_LIFE_S)
        self._life = Pace(now)  # of anything at all that moves, wherever it is

    def note(self, text: str) -> None:
        """Remember the newest words of the task; a sign of life, though no progress."""
        self._note = text
        self._heard = self._clock()

    def skip(self) -> None:
        """What was counted since the last look was done by an earlier attempt: no speed in it."""
        now, look = self._clock(), self.root.look()
        self.resumed_ratio = _capped(look.ratio)
        self._items.skip(look.done, now)
        self._ratio.skip(self.resumed_ratio or 0.0, now)
        self._life.skip(look.moved, now)

    def read(self) -> Reading:
        """Look once. Looking more or less often changes no number by more than a rounding."""
        now, look = self._clock(), self.root.look()
        ratio = _capped(look.ratio)
        self._sample(now, look, ratio)
        return Reading(
            done=_tidy(look.done),
            total=None if look.total is None else _tidy(look.total),
            ratio=None if ratio is None else round(ratio, 5),
            unit=self._unit(),
            rate_per_s=self._rate(),
            eta_s=self._eta(now, ratio),
            note=self._note,
            stages=tuple(_stage_reading(depth, stage) for depth, stage in _shown(self.root)),
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

    def _sample(self, now: float, look: Look, ratio: float | None) -> None:
        self._items.see(look.done, now)
        moved = self._ratio.see(ratio or 0.0, now)
        self._life.see(look.moved, now)
        if moved:
            self._left_s = self._estimate(now, ratio or 0.0)

    def _unit(self) -> str | None:
        lead = self.root.lead
        return self.root.unit or (lead.unit if lead is not None else None)

    def _rate(self) -> float | None:
        if not self.root.counts and self.root.lead is None:
            return None  # stages are no amount of anything
        (items,) = self._items.rates
        rate = items.per_s
        return float(f"{rate:.3g}") if rate and items.seconds >= RATE_AFTER_S else None

    def _eta(self, now: float, ratio: float | None) -> float | None:
        """The estimate of the last change; whoever shows it counts down by itself."""
        overdue_s = max(OVERDUE_GAPS * self._ratio.gap_s, OVERDUE_S)
        if ratio is None or ratio >= RATIO_CAP or now - self._ratio.at > overdue_s:
            return None
        return self._left_s

    def _estimate(self, now: float, ratio: float) -> float | None:
        fast, slow = (rate.per_s for rate in self._ratio.rates)
        if not fast or not slow:
            return None
        resumed = self.resumed_ratio or 0.0
        if now - self._started < ETA_AFTER_S or ratio - resumed < ETA_AFTER_RATIO * (1 - resumed):
            return None
        if not 1 / STEADY_WITHIN <= fast / slow <= STEADY_WITHIN:
            return None
        return round((1 - ratio) / slow, 1)

    def _stalled(self, now: float) -> bool:
        limit_s = self._stall_s
        if limit_s is None:
            limit_s = max(STALL_GAPS * self._life.gap_s, STALL_S)
        return now - max(self._life.at, self._ratio.at, self._heard) > limit_s


def _shown(root: Stage) -> list[tuple[int, Stage]]:
    """The stages to be shown, each with its depth, as they were at the last look.

    All that are open, as far as there is room, and the newest of those that are over; the others
    are forgotten.
    """
    found: list[tuple[int, Parts, Stage]] = []
    _collect(root, 0, found)
    surplus = len(found) - STAGES_SHOWN
    kept: list[tuple[int, Stage]] = []
    dropped_at = -1
    for depth, parts, stage in found:
        if 0 <= dropped_at < depth:
            surplus -= 1
        elif surplus > 0 and stage.folded:
            surplus -= 1
            dropped_at = depth
            parts.kids.pop(stage, None)
        else:
            dropped_at = -1
            kept.append((depth, stage))
    return kept[-STAGES_SHOWN:]


def _collect(node: Stage | Loop, depth: int, found: list[tuple[int, Parts, Stage]]) -> None:
    parts = node.parts
    for kid in tuple(parts.kids) if parts else ():
        if isinstance(node, Loop) and kid.folded and kid.item.at < node.last.done:
            continue  # it belongs to an item that is over
        if isinstance(kid, Stage):
            assert parts is not None
            found.append((depth, parts, kid))
            _collect(kid, depth + 1, found)
        else:
            _collect(kid, depth, found)
    if isinstance(node, Stage):
        for loop in node.loops:
            _collect(loop, depth, found)


def _stage_reading(depth: int, stage: Stage) -> StageReading:
    done, _, total, ratio, _ = stage.last
    if stage.folded and stage.whole:
        ratio = 1.0
    return StageReading(
        name=stage.name,
        done=_tidy(done),
        total=None if total is None else _tidy(total),
        ratio=None if ratio is None else round(ratio, 4),
        unit=stage.unit,
        depth=depth,
    )


def _capped(ratio: float | None) -> float | None:
    return None if ratio is None else min(ratio, RATIO_CAP)


def _tidy(number: float) -> float:
    """A whole number as an int, so that 3 is not shown as 3.0; else what a float can hold."""
    return int(number) if number == int(number) else round(number, 6)
