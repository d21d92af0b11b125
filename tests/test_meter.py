"""The numbers of a bar, with a clock in our hand: true, monotone, and rather none than a guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway._meter import ETA_AFTER_S, STALL_S, Meter
from headway._tree import Loop, Stage, attach
from headway.job import Reading
from tests.stepping import Clock

COUNTS = st.integers(min_value=0, max_value=50)


def work(meter: Meter, clock: Clock, *, per_s: float, seconds: int) -> list[Reading]:
    """Steady work, looked at once a second."""
    readings = []
    for _ in range(seconds):
        clock.now += 1
        meter.root.counted += per_s
        readings.append(meter.read())
    return readings


# ── rate ──────────────────────────────────────────────────────────────────────────────────────


def test_reading_tells_the_rate_after_a_second() -> None:
    """A rate is told once it stands on more than a moment."""
    clock = Clock()
    meter = Meter(clock)

    meter.root.counted, clock.now = 5, clock.now + 0.6
    early = meter.read()
    meter.root.counted, clock.now = 11, clock.now + 0.6

    assert early.rate_per_s is None
    assert meter.read().rate_per_s == pytest.approx(11 / 1.2, rel=0.01)


@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_rate_is_never_negative(done: list[int]) -> None:
    """A count that is set back makes no negative speed."""
    clock = Clock()
    meter = Meter(clock)

    for count in done:
        meter.root.counted, clock.now = count, clock.now + 2

        assert (meter.read().rate_per_s or 0) >= 0


def test_stages_have_no_rate() -> None:
    """How many stages end in a second is of no use to anybody; a later count tells its rate."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total = 10
    for _ in range(5):
        stage = Stage("s", parent=meter.root)
        attach(stage)
        clock.now += 2
        stage.close(whole=True)
        meter.read()

    staged = meter.read()
    counting = work(meter, clock, per_s=10, seconds=300)[-1]

    assert (staged.done, staged.total, staged.rate_per_s) == (5, 10, None)
    assert counting.rate_per_s == pytest.approx(10, rel=0.01)


def test_rate_of_slow_items_is_steady() -> None:
    """Items of a minute are told as such, also while the loops inside of them move."""
    clock = Clock()
    meter = Meter(clock)
    items = Loop(10, meter.root)
    attach(items)
    rates: set[float] = set()
    for _ in range(5):
        inner = Loop(60, items)
        attach(inner)
        for _ in range(60):
            clock.now += 1
            inner.counted += 1
            rates.add(meter.read().rate_per_s or 0)
        inner.close(exhausted=True)
        items.counted += 1

    rates.remove(0)  # before the first was done
    assert 1 / 61 <= min(rates) * 1.001 <= max(rates) * 1.002 <= 1 / 60 * 1.01


# ── time left ─────────────────────────────────────────────────────────────────────────────────


def test_eta_of_steady_work_is_right() -> None:
    """Steady work is told its true rest."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total = 1000

    reading = work(meter, clock, per_s=10, seconds=40)[-1]

    assert reading.eta_s == pytest.approx((1000 - 400) / 10)
    assert reading.rate_per_s == 10


def test_eta_hides_in_the_first_seconds() -> None:
    """No time is told in the first five seconds, however much was done."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total = 100

    readings = work(meter, clock, per_s=5, seconds=8)

    shown = [r.eta_s is not None for r in readings]
    assert shown == [second >= ETA_AFTER_S for second in range(1, 9)]


def test_eta_hides_before_three_percent() -> None:
    """No time is told before three percent are done, however long it took."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total = 1000

    readings = work(meter, clock, per_s=1, seconds=40)

    assert [r.eta_s is not None for r in readings] == [second >= 30 for second in range(1, 41)]


def test_eta_hides_while_the_speed_is_unstable() -> None:
    """Work that has just become much faster tells no time, until it is steady again."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total = 100_000

    slow = work(meter, clock, per_s=100, seconds=60)
    sudden = work(meter, clock, per_s=1000, seconds=5)
    steady = work(meter, clock, per_s=200, seconds=60)

    assert slow[-1].eta_s is not None
    assert sudden[-1].eta_s is None
    assert steady[-1].eta_s is not None


def test_eta_hides_when_it_is_overdue() -> None:
    """Work that has stopped to move tells no time."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total = 1000
    work(meter, clock, per_s=10, seconds=20)

    clock.now += 9
    waiting = meter.read()
    clock.now += 2

    assert waiting.eta_s is not None
    assert meter.read().eta_s is None


def test_eta_needs_a_size() -> None:
    """Work of unknown size tells its rate, but no ratio and no time."""
    clock = Clock()
    meter = Meter(clock)

    reading = work(meter, clock, per_s=10, seconds=60)[-1]

    assert (reading.ratio, reading.eta_s, reading.rate_per_s) == (None, None, 10)


def test_eta_of_stages_comes_from_the_ratio() -> None:
    """A job that only has stages tells its rest all the same, once their number is known."""
    clock = Clock()
    meter = Meter(clock)
    etas = []
    for number in range(3):
        stage = Stage("s", total=20, parent=meter.root)
        attach(stage)
        for _ in range(20):
            clock.now += 1
            stage.counted += 1
            etas.append(meter.read().eta_s)
        stage.close(whole=True)
        if number == 0:
            meter.root.total = 4

    assert etas[:20] == [None] * 20
    assert etas[20:] == pytest.approx([80 - s for s in range(21, 61)], rel=0.05)


def test_eta_knows_the_time_before_the_size() -> None:
    """A total that is stated late makes no leap of speed: what was done took its time."""
    clock = Clock()
    meter = Meter(clock)
    work(meter, clock, per_s=10, seconds=50)

    meter.root.total = 1000
    reading = work(meter, clock, per_s=10, seconds=1)[-1]

    assert reading.eta_s == pytest.approx(49, rel=0.01)


# ── ratio ─────────────────────────────────────────────────────────────────────────────────────


def test_ratio_keeps_its_height_when_the_total_grows() -> None:
    """A total that grows does not pull the bar back."""
    meter = Meter(Clock())
    meter.root.total, meter.root.counted = 10, 5

    before = meter.read()
    meter.root.total = 1000
    after = meter.read()

    assert (before.ratio, after.ratio) == (0.5, 0.5)
    assert (after.done, after.total) == (5, 1000)


# ── resumed, stalled, final ───────────────────────────────────────────────────────────────────


def test_skipped_work_has_no_speed() -> None:
    """What an earlier attempt did counts for the ratio, and not for the rate."""
    clock = Clock()
    meter = Meter(clock)
    meter.root.total, meter.root.counted = 1000, 500
    meter.skip()

    reading = work(meter, clock, per_s=1, seconds=20)[-1]

    assert (reading.rate_per_s, reading.resumed_ratio) == (1, 0.5)
    assert reading.ratio == pytest.approx(0.52)


@pytest.mark.parametrize(("seconds", "stalled"), [(STALL_S, False), (STALL_S + 1, True)])
def test_stalled_after_a_minute(seconds: float, stalled: bool) -> None:
    """Quick work that says nothing for a minute is stalled."""
    clock = Clock()
    meter = Meter(clock)
    work(meter, clock, per_s=1, seconds=5)

    clock.now += seconds

    assert meter.read().stalled is stalled


def test_slow_rhythm_is_not_stalled() -> None:
    """Work that has always taken a minute for a step is not stalled after two."""
    clock = Clock()
    meter = Meter(clock)
    for _ in range(3):
        clock.now += 60
        meter.root.counted += 1
        meter.read()

    clock.now += 120

    assert not meter.read().stalled


@pytest.mark.parametrize("inside", ["stage", "loop", "loop in loop"])
def test_what_moves_inside_is_a_sign_of_life(inside: str) -> None:
    """A job whose own count stands still is not stalled while anything in it moves."""
    clock = Clock()
    meter = Meter(clock)
    node: Stage | Loop = meter.root
    for kind in inside.split(" in "):
        node = Stage("s", parent=node) if kind == "stage" else Loop(None, node)
        attach(node)
    readings = []

    for _ in range(10):
        clock.now += STALL_S
        node.counted += 1
        readings.append(meter.read())
    clock.now += STALL_S * 11

    assert not any(reading.stalled for reading in readings)
    assert readings[-1].ratio is None
    assert meter.read().stalled


def test_note_is_a_sign_of_life() -> None:
    """A task that only talks is not stalled."""
    clock = Clock()
    meter = Meter(clock, stall_s=10)

    clock.now += 9
    meter.note("still there")
    clock.now += 9
    talking = meter.read()
    clock.now += 2

    assert not talking.stalled
    assert meter.read().stalled


def test_final_is_whole_only_in_success() -> None:
    """100 % is shown for work that succeeded; what failed shows how far it came."""
    meter = Meter(Clock())
    meter.root.total, meter.root.counted = 10, 4

    failed, succeeded = meter.final(succeeded=False), meter.final(succeeded=True)

    assert (failed.ratio, succeeded.ratio) == (0.4, 1.0)
    assert failed.done == succeeded.done == 4
    assert (succeeded.eta_s, succeeded.stalled) == (None, False)


def test_work_of_unknown_size_is_whole_in_the_end() -> None:
    """A job without any ratio ends at 100 % all the same."""
    assert Meter(Clock()).final(succeeded=True).ratio == 1.0


def test_whole_numbers_are_read_as_such() -> None:
    """3.0 is 3, and a float keeps the digits that mean something."""
    meter = Meter(Clock())
    meter.root.counted, meter.root.total = 3.0, 0.1 + 0.2

    reading = meter.read()

    assert (str(reading.done), reading.total) == ("3", 3)
