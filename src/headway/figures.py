"""How it goes: rates, waiting times and durations, made of what has ended of late. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Final, NamedTuple

from headway.document import Figures, Span, Spread, rfc3339
from headway.job import State

__all__ = ["Ended", "Recent", "figures", "joined"]

SPANS: Final = 30
STEPS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120)  # the longest: so the spans reach back an hour


class Ended(NamedTuple):
    """A job that has ended. Times are seconds since the epoch."""

    state: State
    created_at: float
    started_at: float | None
    finished_at: float

    @property
    def wait_s(self) -> float | None:
        """From accepting it to its first attempt; None if it never began."""
        return None if self.started_at is None else max(self.started_at - self.created_at, 0.0)

    @property
    def run_s(self) -> float | None:
        """From its first attempt to its end; None if it never began."""
        return None if self.started_at is None else max(self.finished_at - self.started_at, 0.0)


class Recent(NamedTuple):
    """How it goes at present.

    `ended` are the newest ended jobs, the latest first; all of them, unless `cut`.
    """

    now: float
    queued: int
    running: int
    ended: list[Ended]
    cut: bool


def joined(parts: Sequence[Recent]) -> Recent:
    """Of several parts of a store one whole. How far back all of them are whole, it is, too."""
    if len(parts) == 1:
        return parts[0]
    since = max((one.ended[-1].finished_at for one in parts if one.cut and one.ended), default=0.0)
    ended = [job for one in parts for job in one.ended if job.finished_at >= since]
    return Recent(
        now=max(one.now for one in parts),
        queued=sum(one.queued for one in parts),
        running=sum(one.running for one in parts),
        ended=sorted(ended, key=lambda job: -job.finished_at),
        cut=any(one.cut for one in parts),
    )


def figures(recent: Recent) -> Figures:
    """The figures of the last hour, or of the time that the jobs reach back to, if they are cut."""
    reach_s = float(SPANS * STEPS_S[-1])
    if recent.cut and recent.ended:
        reach_s = min(recent.now - recent.ended[-1].finished_at, reach_s)
    step_s = max([step for step in STEPS_S if SPANS * step <= reach_s], default=STEPS_S[0])
    end = (floor(recent.now / step_s) + 1) * step_s
    begins = [end - (SPANS - n) * step_s for n in range(SPANS)]
    # Where jobs end so fast that the newest reach back less than all spans, the first ones are
    # left out: they would show a pause that was none.
    whole = [at for at in begins if not recent.cut or at >= recent.now - reach_s] or begins[-1:]
    spans = [_span(at, [e for e in recent.ended if _within(e, at, step_s)]) for at in whole]
    counted = [one for one in recent.ended if one.finished_at >= whole[0]]
    return {
        "queued": recent.queued,
        "running": recent.running,
        "step_s": step_s,
        "spans": spans,
        "wait_s": _spread([one.wait_s for one in counted]),
        "run_s": _spread([one.run_s for one in counted]),
    }


def _within(one: Ended, begins_at: float, step_s: float) -> bool:
    return begins_at <= one.finished_at < begins_at + step_s


def _span(at: float, ended: Sequence[Ended]) -> Span:
    states = [one.state for one in ended]
    return {
        "at": rfc3339(at),
        "succeeded": states.count(State.SUCCEEDED),
        "failed": states.count(State.FAILED),
        "cancelled": states.count(State.CANCELLED),
        "wait_s": _spread([one.wait_s for one in ended]),
        "run_s": _spread([one.run_s for one in ended]),
    }


def _spread(seconds: Sequence[float | None]) -> Spread | None:
    known = sorted(s for s in seconds if s is not None)
    if not known:
        return None
    return {"p50": _rank(known, 0.5), "p95": _rank(known, 0.95)}


def _rank(ordered: Sequence[float], part: float) -> float:
    """The value that *part* of them do not exceed: of the nearest rank, so it is one of them."""
    return round(ordered[ceil(part * len(ordered)) - 1], 3)
