"""Numbers that task code gives: what is none is refused in words, where it is given."""

from __future__ import annotations

import math
from typing import Any, Final

from headway.errors import BadInput

__all__ = ["MOST", "amount", "length", "total_of"]

MOST: Final = 2**53  # the largest count that every reader of JSON takes for what it is


def amount(number: Any, words: str, *, above: float = -1) -> float:
    """A plain number, of whatever kind it came: it is written as JSON, long after this call.

    Raises:
        BadInput: it is negative, not over *above*, too large, or no number; *words* say it, with
            the value in the place of `{}`.
    """
    try:
        if math.isfinite(number) and above < number <= MOST and number >= 0:
            return number if type(number) is int else float(number)
    except (TypeError, OverflowError):
        pass
    raise BadInput(words.format(_said(number)))


def total_of(total: float) -> float:
    words = "total {}: give a number of 0 or more, or None while the size is unknown"
    return amount(total, words)


def length(iterable: object) -> int | None:
    """Its length, if it has one."""
    try:
        return len(iterable)  # type: ignore[arg-type]
    except TypeError:
        return None


def _said(value: object) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "an enormous number"
