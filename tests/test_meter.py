"""The numbers of a bar, with a clock in our hand: true, monotone, and rather none than a guess."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headway._meter import ETA_AFTER_S, RATIO_CAP, STALL_S, Loop, Meter, Rate, Stage
from headway.job import Reading


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attach(parent: Stage | Loop, child: Stage | Loop) -> None:
    if isinstance(parent, Stage) and isinstance(child, Loop):
        parent.loops.append(child)
    else:
        parent.add(child)


def work(meter: Meter, clock: Clock, *, per_s: float, seconds: int) -> list[Reading]:
    """Steady work, looked at once a second."""
    readings = []
    for _ in range(seconds):
        clock.now += 1
        meter.root.counted += per_s
        readings.append(meter.read())
    return readings


# ── any work at all ───────────────────────────────────────────────────────────────────────────

COUNTS = st.integers(min_value=0, max_value=50)
TOTALS = st.none() | COUNTS
WHICH = st.integers(min_value=0, max_value=1000)


class AnyWork(RuleBasedStateMachine):
    """Stages and loops that open, count and close in any order, in any nesting."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.meter = Meter(self.clock)
        self.nodes: list[Stage | Loop] = [self.meter.root]
        self.last: float | None = None

    def pick(self, which: int) -> Stage | Loop:
        nodes = [node for node in self.nodes if node.open]
        return nodes[which % len(nodes)]

    @rule(which=WHICH, total=TOTALS, weight=st.floats(min_value=0.01, max_value=100))
    def open_stage(self, which: int, total: int | None, weight: float) -> None:
        parent = self.pick(which)
        self.nodes.append(Stage("s", weight=weight, total=total, parent=parent))
        attach(parent, self.nodes[-1])

    @rule(which=WHICH, total=TOTALS)
    def open_loop(self, which: int, total: int | None) -> None:
        parent = self.pick(which)
        self.nodes.append(Loop(total, parent))
        attach(parent, self.nodes[-1])

    @rule(which=WHICH, n=COUNTS)
    def count(self, which: int, n: int) -> None:
        self.pick(which).counted += n

    @rule(which=WHICH, done=COUNTS, total=TOTALS)
    def state(self, which: int, done: int, total: int | None) -> None:
        node = self.pick(which)
        if isinstance(node, Stage):
            node.counted, node.total = done, total if total is not None else node.total

    @rule(which=WHICH, exhausted=st.booleans())
    def close(self, which: int, exhausted: bool) -> None:
        node = self.pick(which)
        if isinstance(node, Loop):
            node.close(exhausted=exhausted)
        elif node is not self.meter.root:
            node.open = False

    @rule(seconds=st.floats(min_value=0, max_value=100))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(which=WHICH)
    def fold(self, which: int) -> None:
        """Folding changes no number."""
        stage = self.pick(which)
        if isinstance(stage, Stage):
            before = stage.counts(), stage.ratio()

            stage.fold()

            assert before == (stage.counts(), stage.ratio())

    @invariant()
    def reading_is_true(self) -> None:
        """What is read is within its range, never falls, and never becomes unknown again."""
        reading = self.meter.read()

        if self.last is not None:
            assert reading.ratio is not None
            assert self.last <= reading.ratio <= RATIO_CAP
        assert reading.ratio is None or 0 <= reading.ratio <= RATIO_CAP
        assert reading.done >= 0
        assert reading.total is None or reading.total >= reading.done
        assert (reading.rate_per_s or 0) >= 0
        assert reading.eta_s is None or 0 <= reading.eta_s < math.inf
        self.last = reading.ratio

    def teardown(self) -> None:
        if hasattr(self, "meter"):
            last = self.meter.read()
            assert self.meter.final(succeeded=True).ratio == 1.0
            assert self.meter.final(succeeded=False).ratio == last.ratio


TestAnyWork = AnyWork.TestCase
TestAnyWork.settings = settings(max_examples=150, stateful_step_count=30)


# ── rate ──────────────────────────────────────────────────────────────────────────────────────


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


def test_total_grows_to_what_was_done() -> None:
    """Done past the total is no contradiction: the total was wrong."""
    meter = Meter(Clock())
    meter.root.total, meter.root.counted = 10, 15

    reading = meter.read()

    assert (reading.done, reading.total, reading.ratio) == (15, 15, RATIO_CAP)


def test_stages_share_by_weight() -> None:
    """Stages side by side fill the bar by their weights."""
    meter = Meter(Clock())
    for name, weight, done in (("a", 1, 10), ("b", 3, 5)):
        stage = Stage(name, weight=weight, total=10, parent=meter.root)
        stage.counted = done
        meter.root.add(stage)

    reading = meter.read()

    assert reading.ratio == pytest.approx(0.25 + 0.75 / 2)
    assert [(s.name, s.ratio) for s in reading.stages] == [("a", 1.0), ("b", 0.5)]


def test_inner_loop_fills_the_item_of_the_outer_one() -> None:
    """A loop in a loop is a part of the outer one's present item, and of no other."""
    meter = Meter(Clock())
    outer = Loop(4, meter.root)
    attach(meter.root, outer)
    outer.counted = 1
    inner = Loop(10, outer)
    attach(outer, inner)
    inner.counted = 5

    within = meter.read().ratio
    outer.counted = 2

    assert within == pytest.approx((1 + 0.5) / 4)
    assert meter.read().ratio == pytest.approx(2 / 4)


def test_parallel_loops_add_up() -> None:
    """Loops side by side in one stage count together."""
    meter = Meter(Clock())
    for total, done in ((10, 2), (30, 8)):
        loop = Loop(total, meter.root)
        attach(meter.root, loop)
        loop.counted = done

    reading = meter.read()

    assert (reading.done, reading.total, reading.ratio) == (10, 40, 0.25)


def test_sized_loops_tell_nothing_of_an_unsized_one() -> None:
    """Whatever runs inside, a loop of unknown length stays of unknown ratio."""
    meter = Meter(Clock())
    outer = Loop(None, meter.root)
    attach(meter.root, outer)
    inner = Loop(3, outer)
    attach(outer, inner)

    inner.close(exhausted=True)

    assert meter.read().ratio is None


def test_closed_loops_keep_their_totals_when_they_are_folded() -> None:
    """A loop that ran past its total, beside one that ended early, folds without a change."""
    stage = Stage("")
    for total, done in ((10, 5), (2, 6)):
        loop = Loop(total, stage)
        loop.counted = done
        loop.close(exhausted=False)
        stage.loops.append(loop)

    before = stage.counts()
    stage.fold()

    assert (before, stage.counts()) == ((11, 16), (11, 16))
    assert len(stage.loops) == 1


def test_loop_forgets_what_ran_in_items_that_are_over() -> None:
    """A long loop with loops inside holds the nodes of one item, and not of all."""
    outer = Loop(1000, Stage(""))

    for turn in range(1000):
        outer.counted = turn
        attach(outer, Loop(3, outer))

    assert len(outer.kids) == 1


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
