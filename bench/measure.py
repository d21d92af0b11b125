"""What is found, and how a fair figure is taken: in turns, and of several the middle one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

__all__ = ["TIE", "Budget", "Finding", "Plot", "Row", "exponent", "percentile", "taken_in_turns"]

TIE: Final = 1.15  # what differs by less is of one rank: so much moves from run to run


class Row(msgspec.Struct):
    """One contender's figure."""

    name: str
    value: float
    note: str = ""


class Budget(msgspec.Struct):
    """What was promised, and whether it holds."""

    promised: str
    measured: str
    holds: bool
    why: str = ""
    """If it does not hold: the reason, in a sentence."""


class Plot(msgspec.Struct):
    """How something grows: for each name, pairs of size and cost. Both axes are logarithmic."""

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    words: str = ""


class Finding(msgspec.Struct):
    """What a topic tells about one thing, as a table, a plot, or both.

    Args:
        slug: unique in the page: its anchor, and the name of its picture.
        unit: of the values of the rows.
        better: which of two values is the better one; None if the rows are no contest.
        base: the name of the row that the ratios are of.
        words: what was done, for somebody who wants to do it again; and what is not good.
    """

    slug: str
    title: str
    unit: str = ""
    better: Literal["less", "more"] | None = "less"
    base: str = "Headway"
    rows: list[Row] = []
    words: str = ""
    budgets: list[Budget] = []
    plot: Plot | None = None


def taken_in_turns(
    contenders: Mapping[str, Callable[[], float]], *, rounds: int = 5
) -> dict[str, float]:
    """The middle figure of each, taken in turns: what disturbs the machine disturbs all."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, take in contenders.items():
            found[name].append(take())
    return {name: statistics.median(values) for name, values in found.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of *values* do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """By which power the cost grows with the size: the slope in the log-log plot, least squares."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(max(y, 1e-9)) for _, y in points]
    return statistics.linear_regression(xs, ys).slope
