"""How fast a number grows. Pure: the time is given."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace", "Rate"]

GAP_HALF_LIFE_S: Final = 30.0


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


class Pace:
    """Follows a number that somebody looks at from time to time; it begins at 0.

    Only changes count: a number that stands still is not slow until it moves again. So numbers
    that move at different times have paces of their own.

    Args:
        now: when it begins.
        half_lives_s: one rate for each.
    """

    def __init__(self, now: float, *half_lives_s: float) -> None:
        self.at = now
        self.rates = tuple(Rate(half_life_s) for half_life_s in half_lives_s)
        self._value = 0.0
        self._gap = Rate(GAP_HALF_LIFE_S)

    def see(self, value: float, now: float) -> bool:
        """Take the number as it is now; True if it has changed."""
        seconds = now - self.at
        if value == self._value or seconds <= 0:
            return False
        for rate in self.rates:
            rate.add(max(value - self._value, 0.0), seconds)
        self._gap.add(1, seconds)
        self.skip(value, now)
        return True

    def skip(self, value: float, now: float) -> None:
        """Go on from this number, as if it had always been so."""
        self._value = value
        self.at = now

    @property
    def gap_s(self) -> float:
        """The usual time between two changes; 0 before the first."""
        per_s = self._gap.per_s
        return 1 / per_s if per_s else 0.0
