"""Twin primes: nobody knows where the next pair is, so this bar cannot know how far it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from headway import Progress
from headway.demo.shelf import Facts, Outcome

__all__ = ["find_twins", "is_prime"]

LOWEST: Final = 10**24
HIGHEST: Final = 3 * 10**24
# Enough to be sure below 3.3e24. Source: Sorenson and Webster, "Strong pseudoprimes to twelve
# prime bases", Mathematics of Computation 86 (2017).
_BASES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
_SMALL: Final = tuple(n for n in range(5, 400) if all(n % d for d in range(2, n)))


def find_twins(progress: Progress, pairs: int) -> Outcome:
    """Find *pairs* pairs of primes that differ by two, above a random number."""
    start = random.randrange(LOWEST, HIGHEST)  # noqa: S311  # any number will do
    found: list[int] = []
    searched = 0
    for number in _between_twins(start):
        searched += 1
        if is_prime(number - 1) and is_prime(number + 1):
            found.append(number - 1)
            progress.advance()
            progress.note(f"{len(found):,} pairs, the newest at {number - 1:,}")
            if len(found) == pairs:
                break
    facts: Facts = {
        "pairs": len(found),
        "numbers searched": searched * 6,
        "newest": f"{found[-1]:,} + 2",
    }
    return Outcome(facts=facts)


def _between_twins(start: int) -> Iterator[int]:
    """The numbers that may stand between two twins: multiples of six."""
    number = start - start % 6
    while True:
        number += 6
        yield number


def is_prime(number: int) -> bool:
    """True if *number* is a prime: exact for numbers below 3.3e24. Source: Miller and Rabin."""
    for small in (2, 3, *_SMALL):
        if number % small == 0:
            return number == small
    if number < 2:
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, base, odd, twos) for base in _BASES)


def _passes(number: int, base: int, odd: int, twos: int) -> bool:
    power = pow(base, odd, number)
    if power in {1, number - 1}:
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
