"""Speeds, with the time in our hand: a mean of what was, and nothing before there was anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway._rate import Pace, Rate


@given(
    st.floats(min_value=0.001, max_value=1e9),
    st.lists(st.floats(min_value=0.001, max_value=1000), min_size=1, max_size=30),
    st.floats(min_value=0.1, max_value=100),
)
def test_rate_of_constant_speed_is_that_speed(
    speed: float, gaps: list[float], half_life_s: float
) -> None:
    """However unevenly one looks, a constant speed is told exactly, from the first look on."""
    rate = Rate(half_life_s)

    for gap in gaps:
        rate.add(speed * gap, gap)

        assert rate.per_s == pytest.approx(speed)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e3)), min_size=1, max_size=30))
def test_rate_lies_between_the_speeds_seen(samples: list[tuple[float, float]]) -> None:
    """A rate is a mean: never below the slowest nor above the fastest speed."""
    rate = Rate(30)
    for amount, seconds in samples:
        rate.add(amount, seconds)

    speeds = [amount / seconds for amount, seconds in samples]

    assert rate.per_s is not None
    assert min(speeds) * 0.999 <= rate.per_s <= max(speeds) * 1.001


def test_rate_halves_its_memory() -> None:
    """After one half-life a new speed weighs as much as all that was before."""
    rate = Rate(10)
    rate.add(0, 1000)

    rate.add(10 * 8, 10)

    assert rate.per_s == pytest.approx(80 / (1000 * 0.5 + 10))


def test_rate_of_nothing_is_unknown() -> None:
    """Before anything was seen there is no rate."""
    assert Rate(10).per_s is None


GROWTH = st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e3)), min_size=1, max_size=30)


@given(GROWTH)
def test_pace_counts_the_time_since_the_last_change(samples: list[tuple[float, float]]) -> None:
    """However often one looks in between, a number that stands still is not slow."""
    seldom, often = Pace(0, 30), Pace(0, 30)
    value = now = 0.0

    for amount, seconds in samples:
        for _ in range(3):
            now += seconds
            often.see(value, now)
        before, value = value, value + amount
        assert seldom.see(value, now) == often.see(value, now) == (value > before)

    assert often.rates[0].per_s == seldom.rates[0].per_s
    assert (often.at, often.gap_s) == (seldom.at, seldom.gap_s)


@given(st.lists(st.floats(min_value=0.01, max_value=1000), min_size=1, max_size=20))
def test_pace_knows_the_usual_gap(gaps: list[float]) -> None:
    """The usual gap lies between the shortest and the longest."""
    pace, now = Pace(0), 0.0

    for number, gap in enumerate(gaps):
        now += gap
        pace.see(number + 1, now)

    assert min(gaps) * 0.999 <= pace.gap_s <= max(gaps) * 1.001


def test_pace_of_nothing_has_no_gap() -> None:
    """Before the first change nothing is usual, and a number that falls is no negative speed."""
    pace = Pace(0, 30)
    before = pace.gap_s

    pace.see(5, 1)
    pace.see(2, 2)

    assert before == 0.0
    assert pace.rates[0].per_s == pytest.approx(2.5, rel=0.02)


def test_pace_waits_for_time_to_pass() -> None:
    """A change that no time has passed for is taken with the next look."""
    pace = Pace(0, 30)

    assert not pace.see(7, 0)
    assert pace.see(7, 2)
    assert pace.rates[0].per_s == pytest.approx(3.5)


def test_pace_skips() -> None:
    """What is skipped has no speed; what comes after it does."""
    pace = Pace(0, 30)

    pace.skip(1000, 10)
    pace.see(1001, 11)

    assert pace.rates[0].per_s == pytest.approx(1)
