"""How far a tree of stages and loops is: exact where it is declared, never over what is true."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from itertools import repeat
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headway._meter import RATIO_CAP, Meter
from headway._tree import DEEPEST, STAGES_SHOWN, Bar, Look, Loop, Shown, Stage, attach
from headway.job import Reading, StageReading
from tests.stepping import Clock, at_every_step, nodes


def stage(parent: Stage | Loop, *, weight: float = 1, total: float | None = None) -> Stage:
    node = Stage("s", weight=weight, total=total, parent=parent)
    attach(node)
    return node


def loop(parent: Stage | Loop, total: float | None) -> Loop:
    node = Loop(total, parent)
    attach(node)
    return node


def ratio(node: Stage) -> float | None:
    return node.look().ratio


# ── a node that only has stages inside ────────────────────────────────────────────────────────


def test_stages_share_by_weight() -> None:
    """Stages side by side fill a declared total by their weights; only what has ended is done."""
    root = Stage("", total=5)
    a, b = stage(root, weight=1, total=10), stage(root, weight=3, total=10)
    a.counted, b.counted = 10, 5
    a.close(whole=True)

    look = root.look()

    assert look.ratio == pytest.approx((1 + 3 * 0.5) / 5)
    assert (look.done, look.total) == (1, 5)


def test_stages_of_unknown_number_have_no_ratio() -> None:
    """Nobody knows how many stages will come: what has ended is counted, and no bar is full."""
    root = Stage("")

    for _ in range(3):
        stage(root, total=2).close(whole=True)

    assert root.look()[:4] == (3, 3, None, None)


def test_in_between_stages_are_right() -> None:
    """Three stages of a declared three are a third each, whatever runs inside of them."""
    root, ratios = Stage("", total=3), []

    for _ in range(3):
        one = stage(root)
        ratios.append(ratio(root))
        items = loop(one, 4)
        items.counted = 2
        ratios.append(ratio(root))
        one.close(whole=True)

    assert ratios == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert root.look()[:4] == (3, 3, 3, 1)


def test_stage_without_a_ratio_counts_at_its_end() -> None:
    """What is not known of a stage is nothing, until it is over."""
    root = Stage("", total=2)
    one = stage(root)
    loop(one, None).counted = 7

    before = ratio(root)
    one.close(whole=True)

    assert (before, ratio(root)) == (0, 0.5)


def test_declared_total_grows_to_the_weights_seen() -> None:
    """A total that was too small grows when the stages come."""
    root = Stage("", total=2)

    for _ in range(5):
        stage(root)

    assert root.look()[:3] == (0, 0, 5)


def test_stage_left_by_an_error_counts_as_far_as_it_came() -> None:
    """A stage that did not come to its end is not done, and gives what it had."""
    root = Stage("", total=2)
    one = stage(root, total=4)
    one.counted = 1

    one.close(whole=False)

    assert root.look()[:4] == (0, 0.25, 2, 0.125)


def test_all_begun_makes_the_number_known() -> None:
    """Once all stages have begun their weights are the total, unless one was declared."""
    open_ended, declared = Stage(""), Stage("", total=10)
    for root in (open_ended, declared, declared):
        stage(root, weight=2).close(whole=True)
        stage(root, weight=2)

    open_ended.all_begun()
    declared.all_begun()

    assert (ratio(open_ended), ratio(declared)) == (0.5, 0.4)


def test_all_begun_of_nothing() -> None:
    """Where no stage has begun there is nothing to be known."""
    root = Stage("")

    root.all_begun()
    loop(root, 3).all_begun()

    assert root.look()[:3] == (0, 0, 3)


# ── a node that counts by itself ──────────────────────────────────────────────────────────────


def test_total_grows_to_what_was_done() -> None:
    """Done past the total is no contradiction: the total was wrong."""
    root = Stage("", total=10)
    root.counted = 15

    assert root.look()[:4] == (15, 15, 15, 1)


def test_own_count_goes_before_stages() -> None:
    """A stage that counts shows its count; stages between the items are no items."""
    root = Stage("", total=10)

    stage(root).close(whole=True)
    root.counted = 4

    assert root.look()[:4] == (4, 4, 10, 0.4)


def test_stated_zero_is_a_count() -> None:
    """Who says that nothing is done will count, and not be measured by stages."""
    root = Stage("", total=2)
    root.stated = True

    stage(root).close(whole=True)

    assert root.look()[:4] == (0, 0, 2, 0)


def test_parallel_loops_add_up() -> None:
    """Loops side by side in one stage count together, each with its own item in hand."""
    root = Stage("")
    for total, done in ((10, 2), (30, 8)):
        items = loop(root, total)
        items.counted = done
        loop(items, 2).counted = 1

    assert root.look()[:4] == (10, 11, 40, 11 / 40)


def test_sized_loops_tell_nothing_of_an_unsized_one() -> None:
    """Whatever runs inside, a loop of unknown length stays of unknown ratio."""
    root = Stage("")
    outer = loop(root, None)

    loop(outer, 3).close(exhausted=True)

    assert ratio(root) is None


def test_closed_loops_keep_their_totals() -> None:
    """A loop that ran past its total, beside one that ended early, is added up as it was."""
    root, looks = Stage(""), []
    for total, done in ((10, 5), (2, 6)):
        items = loop(root, total)
        items.counted = done
        items.close(exhausted=False)
        looks.append(root.look()[:3])

    assert looks == [(5, 5, 10), (11, 11, 16)]
    assert root.loops == []


# ── what runs inside of an item ───────────────────────────────────────────────────────────────


def test_inner_loop_fills_the_item_of_the_outer_one() -> None:
    """A loop in a loop is a part of the outer one's present item, and of no other."""
    root = Stage("")
    outer = loop(root, 4)
    outer.counted = 1
    loop(outer, 10).counted = 5

    within = ratio(root)
    outer.counted = 2

    assert within == pytest.approx((1 + 0.5) / 4)
    assert ratio(root) == pytest.approx(2 / 4)


def test_stages_fill_no_item_of_which_nothing_is_known() -> None:
    """The first item with stages counts when it is done; the next ones are measured by it."""
    root = Stage("")
    outer, ratios = loop(root, 2), []

    for turn in range(2):
        outer.counted = turn
        for _ in range(4):
            stage(outer).close(whole=True)
            ratios.append(ratio(root))

    assert ratios == pytest.approx([0, 0, 0, 0, 5 / 8, 6 / 8, 7 / 8, 8 / 8])


def test_items_are_measured_by_the_fullest_before() -> None:
    """An item with fewer parts than another had is not full before it is done."""
    root = Stage("")
    outer = loop(root, 3)
    for _ in range(4):
        stage(outer)
    outer.counted = 1
    stage(outer, weight=2).close(whole=True)

    short = ratio(root)
    outer.counted = 2
    for _ in range(8):
        stage(outer).close(whole=True)

    assert short == pytest.approx((1 + 2 / 4) / 3)
    assert ratio(root) == 1


def test_all_begun_makes_the_measure_of_an_item_known() -> None:
    """Once all stages of an item have begun it is filled by them, also the first one."""
    root = Stage("")
    outer = loop(root, 2)
    stage(outer).close(whole=True)
    stage(outer)

    before = ratio(root)
    outer.all_begun()

    assert (before, ratio(root)) == (0, 0.25)


def test_stages_between_counts_fill_the_item() -> None:
    """Who counts by hand has items too, each with the stages that began in it."""
    root = Stage("", total=2)
    root.stated = True
    ratios = []

    for _ in range(2):
        stage(root).close(whole=True)
        stage(root, total=2).counted = 1
        ratios.append(ratio(root))
        root.counted += 1

    assert ratios == pytest.approx([0, (1 + 1.5 / 2) / 2])


def test_what_outlives_its_item_fills_no_other() -> None:
    """A stage that began in an earlier item is no part of the present one."""
    root = Stage("")
    outer = loop(root, 4)
    old = stage(outer, total=2)
    outer.counted = 1
    stage(outer, total=2)

    old.counted = 2

    assert ratio(root) == pytest.approx(1 / 4)


# ── few nodes ─────────────────────────────────────────────────────────────────────────────────

MANY = 100_000


@pytest.mark.parametrize(("looks", "whole"), [(0, True), (1_000, True), (1_000, False)])
def test_ended_stages_are_added_up(looks: int, whole: bool) -> None:
    """A job of very many stages holds few of them, whether anybody looks or not."""
    root, most = Stage("", total=MANY), 0

    for number in range(MANY):
        one = stage(root, total=2)
        one.counted = 1
        one.close(whole=whole)
        if looks and number % (MANY // looks) == 0:
            root.look()
        if number % 1000 == 0:
            most = max(most, len(nodes(root)))

    assert most <= 3 * STAGES_SHOWN + 2
    assert ratio(root) == pytest.approx(1 if whole else 0.5)
    assert root.look().moved == MANY * 3


@pytest.mark.parametrize("looks", [0, 10])
def test_ended_loops_are_added_up(looks: int) -> None:
    """Likewise for loops: in a stage, and in the item of another loop."""
    root, most = Stage("", total=1), 0
    job = stage(root)
    outer = loop(job, 1)

    for number in range(20_000):
        for items in (loop(job, 2), loop(outer, 2)):
            items.counted = 2
            items.close(exhausted=True)
        if looks and number % looks == 0:
            root.look()
        if number % 100 == 0:
            most = max(most, len(nodes(root)))

    assert most <= 3 * STAGES_SHOWN * 2
    assert job.look()[:3] == (40_000, 40_001, 40_001)


def test_loop_forgets_what_ran_in_items_that_are_over() -> None:
    """A long loop with loops and stages inside holds the nodes of one item, and not of all."""
    root = Stage("")
    outer = loop(root, 1000)

    for turn in range(1000):
        outer.counted = turn
        for node in (loop(outer, 3), stage(outer)):
            node.open = False
            assert len(nodes(root)) <= 4


def test_nesting_without_end_can_be_read() -> None:
    """What is nested very deeply is not looked at, and breaks nothing."""
    root = node = Stage("", total=1)

    for _ in range(10_000):
        node = stage(node, total=1)
    node.counted = 1

    assert ratio(root) == 0
    assert len(nodes(root)) == DEEPEST + 1
    assert len(Meter(Clock()).read().stages) == 0


def test_newest_and_open_stages_are_shown() -> None:
    """Of very many stages the newest are shown, and before them those that still run."""
    meter = Meter(Clock())
    for name in ("first", "second"):
        attach(Stage(name, parent=meter.root))
    for number in range(STAGES_SHOWN * 2):
        ended = Stage(f"{number}", parent=meter.root)
        attach(ended)
        attach(Stage("inner", parent=ended))
        ended.close(whole=True)

    names = [one.name for one in meter.read().stages]

    assert len(names) == STAGES_SHOWN
    assert names[:2] == ["first", "second"]
    assert names[-2:] == [f"{STAGES_SHOWN * 2 - 1}", "inner"]
    assert len(nodes(meter.root)) == STAGES_SHOWN + 1


def test_very_many_open_stages_are_shown_in_part() -> None:
    """If more stages run at once than can be shown, the newest are."""
    meter = Meter(Clock())

    for number in range(STAGES_SHOWN * 3):
        attach(Stage(f"{number}", parent=meter.root))

    assert [one.name for one in meter.read().stages] == [
        f"{number}" for number in range(STAGES_SHOWN * 2, STAGES_SHOWN * 3)
    ]


def test_stages_of_an_item_are_shown_until_the_next() -> None:
    """In the body of a loop its stages are shown; with the next item they go, unless they run."""
    meter = Meter(Clock())
    outer = loop(meter.root, 3)
    inner = loop(outer, 3)
    for name in ("ended", "runs"):
        attach(Stage(name, parent=inner))
    next(iter(inner.parts.kids if inner.parts else ())).open = False

    within = [(one.name, one.depth) for one in meter.read().stages]
    inner.counted = 1

    assert within == [("ended", 0), ("runs", 0)]
    assert [one.name for one in meter.read().stages] == ["runs"]


# ── any tree at all ───────────────────────────────────────────────────────────────────────────

COUNTS = st.integers(min_value=0, max_value=50)
TOTALS = st.none() | COUNTS
WHICH = st.integers(min_value=0, max_value=1000)
WEIGHTS = st.floats(min_value=0.01, max_value=100)


class AnyWork(RuleBasedStateMachine):
    """Stages and loops that open, count and close in any order, in any nesting."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.meter = Meter(self.clock)
        self.nodes: list[Stage | Loop] = [self.meter.root]
        self.last: float | None = None
        self.lasts: dict[Stage, float] = {}

    def pick(self, which: int) -> Stage | Loop:
        nodes = [node for node in self.nodes if node.open]
        return nodes[which % len(nodes)]

    @rule(which=WHICH, total=TOTALS, weight=WEIGHTS)
    def open_stage(self, which: int, total: int | None, weight: float) -> None:
        self.nodes.append(stage(self.pick(which), weight=weight, total=total))

    @rule(which=WHICH, total=TOTALS)
    def open_loop(self, which: int, total: int | None) -> None:
        self.nodes.append(loop(self.pick(which), total))

    @rule(which=WHICH, n=COUNTS)
    def count(self, which: int, n: int) -> None:
        self.pick(which).counted += n

    @rule(which=WHICH, done=COUNTS, total=TOTALS)
    def state(self, which: int, done: int, total: int | None) -> None:
        node = self.pick(which)
        if isinstance(node, Stage):
            node.counted, node.stated = done, True
            node.total = total if total is not None else node.total

    @rule(which=WHICH, total=COUNTS)
    def declare(self, which: int, total: int) -> None:
        node = self.pick(which)
        if isinstance(node, Stage):
            node.total = total

    @rule(which=WHICH)
    def all_begun(self, which: int) -> None:
        self.pick(which).all_begun()

    @rule(which=WHICH, whole=st.booleans())
    def close(self, which: int, whole: bool) -> None:
        node = self.pick(which)
        if isinstance(node, Loop):
            node.close(exhausted=whole)
        elif node is not self.meter.root:
            node.close(whole=whole)

    @rule(seconds=st.floats(min_value=0, max_value=100))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def look(self) -> None:
        """To look changes nothing: neither for who looks again, nor for who adds up before."""
        look = self.meter.root.look()

        for node in nodes(self.meter.root):
            if node.parts is not None:
                node.parts.fold()

        assert self.meter.root.look() == look

    @invariant()
    def reading_is_true(self) -> None:
        """What is read is within its range, never falls, and never becomes unknown again."""
        reading = self.meter.read()

        if self.last is not None:
            assert reading.ratio is not None
            assert self.last <= reading.ratio <= RATIO_CAP
        told: list[Reading | StageReading] = [reading, *reading.stages]
        for one in told:
            assert one.ratio is None or 0 <= one.ratio <= 1
            assert one.done >= 0
            assert one.total is None or one.total >= one.done
        assert (reading.rate_per_s or 0) >= 0
        assert reading.eta_s is None or 0 <= reading.eta_s < math.inf
        assert len(reading.stages) <= STAGES_SHOWN
        self.last = reading.ratio

    @invariant()
    def stages_never_fall(self) -> None:
        """Nor does the small bar of a stage."""
        for node in nodes(self.meter.root):
            if isinstance(node, Stage) and node.last.ratio is not None:
                assert self.lasts.get(node, 0) <= node.last.ratio
                self.lasts[node] = node.last.ratio

    def teardown(self) -> None:
        if hasattr(self, "meter"):
            last = self.meter.read()
            assert self.meter.final(succeeded=True).ratio == 1.0
            assert self.meter.final(succeeded=False).ratio == last.ratio


TestAnyWork = AnyWork.TestCase
TestAnyWork.settings = settings(max_examples=150, stateful_step_count=30)


@dataclass
class Part:
    """A part of declared work: it counts to its total, or has parts inside."""

    weight: float
    total: int
    inside: list[Part] = field(default_factory=list)
    parent: Part | None = None
    node: Stage | None = None
    ended: bool = False

    def all(self) -> list[Part]:
        return [self, *(part for kid in self.inside for part in kid.all())]

    def exact(self) -> float:
        """The weighted mean, as one would write it on paper."""
        if self.ended:
            return 1.0
        if self.node is None:
            return 0.0
        if not self.inside:
            return self.node.counted / self.total
        total = sum(part.weight for part in self.inside)
        return sum(part.weight * part.exact() for part in self.inside) / total

    def begin(self) -> None:
        assert self.parent is not None
        assert self.parent.node is not None
        total = sum(part.weight for part in self.inside) if self.inside else self.total
        self.node = stage(self.parent.node, weight=self.weight, total=total)

    def step(self) -> bool:
        """Do what comes next here; False if there is nothing to do (yet)."""
        if self.ended or self.parent is None or self.parent.node is None:
            return False
        if self.node is None:
            self.begin()
        elif not self.inside and self.node.counted < self.total:
            self.node.counted += 1
        elif all(part.ended for part in self.inside):
            self.ended = True
            self.node.close(whole=True)
        else:
            return False
        return True


LEAVES = st.builds(Part, weight=WEIGHTS, total=st.integers(1, 4))
PARTS = st.recursive(
    LEAVES,
    lambda parts: st.builds(
        Part, weight=WEIGHTS, total=st.just(1), inside=st.lists(parts, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(PARTS, min_size=1, max_size=5), st.integers(0, 2**32))
def test_declared_tree_is_exact(inside: list[Part], seed: int) -> None:
    """Whatever runs after or beside what: the ratio is the weighted mean, up to the last step."""
    root = Part(1, 1, inside)
    meter = Meter(Clock())
    meter.root.total = sum(part.weight for part in inside)
    root.node, last = meter.root, 0.0
    for part in root.all():
        for kid in part.inside:
            kid.parent = part
    todo, random = root.all()[1:], Random(seed)

    while todo := [part for part in todo if not part.ended]:
        random.choice(todo).step()

        look, reading = meter.root.look(), meter.read()
        assert look.ratio == pytest.approx(root.exact(), abs=1e-9)
        assert look.done <= (look.total or 0)
        assert last <= (reading.ratio or 0) <= RATIO_CAP
        last = reading.ratio or 0

    assert meter.root.look().ratio == pytest.approx(1)
    assert meter.final(succeeded=True).ratio == 1.0


# ── ends in the middle of a look ──────────────────────────────────────────────────────────────


def gone_through(items: list[int], *, ticks: bool) -> tuple[Sized, Iterator[object]]:
    """What a loop over *items* is read from when it has come to its end."""
    whole: Sized = range(9) if ticks else items
    iterator: Iterator[object] = repeat(None, 9) if ticks else iter(items)
    for _ in range(len(items) + ticks):  # the last tick gets no item
        next(iterator)
    if not ticks:
        assert next(iterator, None) is None
    return whole, iterator


@pytest.mark.parametrize("ticks", [True, False])
def test_loop_that_ends_while_somebody_looks_is_counted_once(ticks: bool) -> None:
    """Whatever a look is just about: no item is lost or counted twice, now or later."""

    def scene() -> tuple[Stage, Loop]:
        root = Stage("")
        for _ in range(2):
            items = [1, 2]
            over = loop(root, 2)
            over.source = gone_through(items, ticks=ticks)
            over.close(exhausted=True)
        items = [1, 2, 3]
        last = loop(root, 3)
        last.source = gone_through(items, ticks=ticks)
        inner = loop(last, 2)
        inner.counted = 1
        return root, last

    def check(scene: tuple[Stage, Loop], seen: Look | None) -> None:
        assert seen is None or (seen.done, seen.total) in {(6, 7), (7, 7)}
        assert scene[0].look()[:3] == (7, 7, 7)
        assert nodes(scene[0]) == [scene[0]]

    def look(scene: tuple[Stage, Loop]) -> Look | None:
        return scene[0].look()

    def end(scene: tuple[Stage, Loop]) -> Look | None:
        scene[1].close(exhausted=True)
        return None

    assert at_every_step(scene, look=look, act=end, check=check) > 100
    assert at_every_step(scene, look=end, act=look, check=check) > 3


@pytest.mark.parametrize("whole", [True, False])
def test_stage_that_ends_while_somebody_looks_is_counted_once(whole: bool) -> None:
    """Whatever a look is just about: a stage is open, or it is over."""

    def scene() -> tuple[Stage, Stage]:
        root = Stage("", total=4)
        for _ in range(2):
            stage(root, total=2).close(whole=True)
        last = stage(root, total=4)
        last.counted = 1
        return root, last

    def check(scene: tuple[Stage, Stage], seen: Look | None) -> None:
        over: tuple[float, float, float | None] = (3, 3, 4) if whole else (2, 2.25, 4)
        assert seen is None or seen[:3] in {(2, 2.25, 4), over}
        assert scene[0].look()[:3] == over
        assert scene[1].folded

    def look(scene: tuple[Stage, Stage]) -> Look | None:
        return scene[0].look()

    def end(scene: tuple[Stage, Stage]) -> Look | None:
        scene[1].close(whole=whole)
        return None

    assert at_every_step(scene, look=look, act=end, check=check) > 100
    assert at_every_step(scene, look=end, act=look, check=check) > 3


# ── bars of other code ────────────────────────────────────────────────────────────────────────


class Foreign:
    """A bar of other code, of four items, and what reads it."""

    def __init__(self, parent: Stage | Loop) -> None:
        self.n: float = 0
        self.gone = False
        self.node = Bar(self._read, parent)
        attach(self.node)

    def _read(self) -> Shown | None:
        return None if self.gone else Shown("bar", self.n, 4, "row")


def test_lone_bar_leads_what_is_around_it() -> None:
    """Its numbers are those of a stage that has nothing else, until there is a second one."""
    root = Stage("")
    first = Foreign(root)
    first.n = 3

    assert root.look()[:4] == (3, 3, 4, 0.75)
    Foreign(root)
    assert root.look()[:4] == (0, 0.75, None, None)
    root.total = 4
    assert root.look()[:4] == (0, 0.75, 4, 0.75)  # what was shown before stays


def test_bar_in_the_hands_of_a_loop_is_its_item() -> None:
    """Like a loop, and unlike a stage, it is taken for the whole of the first item."""
    root = Stage("")
    outer = loop(root, 2)
    Foreign(outer).n = 2

    assert ratio(root) == 0.25


def test_bars_nest_by_their_items() -> None:
    """The parts of an item of a bar fill the item; what an earlier item held is forgotten."""
    root = Stage("")
    outer = Foreign(root)
    inner = Foreign(outer.node)
    inner.n = 2

    assert ratio(root) == 0.125
    inner.n = 4
    inner.node.end()
    outer.n = 1
    Foreign(outer.node).n = 1
    assert ratio(root) == 0.3125
    assert len(nodes(root)) == 3


@pytest.mark.parametrize("gone", [True, False])
def test_bar_that_ends_while_somebody_looks_is_counted_once(gone: bool) -> None:
    """Whatever a look is just about: its last numbers are those that it ended with."""

    def scene() -> tuple[Stage, Foreign]:
        root = Stage("")
        bar = Foreign(root)
        bar.n = 1
        root.look()
        return root, bar

    def check(scene: tuple[Stage, Foreign], seen: Look | None) -> None:
        over = 1 if gone else 4
        assert seen is None or seen[:2] in {(1, 1), (over, over)}
        assert scene[0].look()[:3] == (over, over, 4)
        assert scene[1].node.folded

    def look(scene: tuple[Stage, Foreign]) -> Look | None:
        return scene[0].look()

    def end(scene: tuple[Stage, Foreign]) -> None:
        _, bar = scene
        bar.n = 1 if gone else 4
        bar.gone = gone
        bar.node.end()

    assert at_every_step(scene, look=look, act=end, check=check) > 100
    assert at_every_step(scene, look=end, act=look, check=check) > 3
