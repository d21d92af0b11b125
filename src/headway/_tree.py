"""The tree of a job: its stages, the loops that `track()` runs in them, and how far they are.

How far a node is (the job itself, a stage or a loop) follows from three rules:

- A node that **counts by itself** (with `advance()`, `set(done=…)` or loops) is *done of total*,
  and a part of the item that it has in its hands.
- A node that only **has stages inside** is as far as they are: the sum of *weight x ratio*, where
  an ended stage counts 1 and an open one of unknown ratio 0. Its declared total is the sum of the
  weights that will come, and grows to the weights seen. Without one nobody knows how many stages
  will come, and there is no ratio: better none than one that is full after the first stage.
- What runs **inside of an item** fills the item, measured by the fullest item so far. In the first
  item that measure is missing: a loop is taken for the whole of it, but a stage has others behind
  it more often than not, so an item with stages counts only when it is done.

A `Bar`, the progress bar of other code, is shown like a stage and counts like a loop. If it is all
that there ever was in a node without a total, the node is as far as this bar; when there is another
one behind it, nobody knows any more how many will come.

Pure, and without locks. Only `attach` and `look` change the tree, and they are called one at a
time. An end (`Loop.close`, `Stage.close`) can come in between, at any instant and in any thread,
as a garbage collector may cause it: it writes a few fields, `open` as the last one. Who looks
reads `open` of a node once, and turns the node into plain sums when it is over. So a job of any
length holds few nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from operator import length_hint
from typing import Any, Final, NamedTuple

__all__ = ["STAGES_SHOWN", "Bar", "Look", "Loop", "Parts", "Shown", "Stage", "attach"]

STAGES_SHOWN: Final = 50
ROOM: Final = 50  # so many nodes are added at least before those that are over are searched for
DEEPEST: Final = 32  # what is nested deeper is not looked at: its time is that of what is around it


class Look(NamedTuple):
    """A node as it was at one moment.

    `reach` is what is done with the parts of the items in hand; `moved` is all that was ever
    counted in the node and inside of it, so that it changes whenever anything moves.
    """

    done: float = 0
    reach: float = 0
    total: float | None = None
    ratio: float | None = None
    moved: float = 0


NOTHING: Final = Look()


class Item:
    """The parts of one item."""

    __slots__ = ("at", "full", "named", "weights")

    def __init__(self, at: float) -> None:
        self.at = at  # how many items were done when its first part began
        self.weights = 0.0
        self.full = 0.0  # weight x ratio of the parts that are over
        self.named = False


class Parts:
    """The stages and loops inside of a node, in the order of their beginning."""

    __slots__ = (
        "_room", "ended", "full", "item", "kids", "lead", "led", "measure", "moved", "weights",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kids: dict[Stage | Loop, None] = {}
        self.lead: Bar | None = None  # the only one there ever was, if it is a bar
        self.led = False  # by a bar that is not the only one any more
        self.weights = 0.0  # of all there ever were; `full`, `ended`: of what is over
        self.full = 0.0
        self.ended = 0.0
        self.moved = 0.0
        self.item = Item(0)
        self.measure = 0.0  # the weights of the fullest item so far
        self._room = ROOM

    def add(self, kid: Stage | Loop) -> None:
        self.led |= self.lead is not None
        self.lead = kid if isinstance(kid, Bar) and not self.weights else None
        kid.item = self.item
        self.weights += kid.weight
        kid.item.weights += kid.weight
        kid.item.named |= kid.named
        self.moved += 1
        self.kids[kid] = None
        if len(self.kids) > self._room:
            self.fold()
            self.drop(keep=STAGES_SHOWN)
            self._room = 2 * len(self.kids) + ROOM

    def begin_item(self, at: float) -> None:
        """What begins from now on is part of another item."""
        self.fold()
        self.all_begun()
        self.item = Item(at)

    def all_begun(self) -> None:
        """The item in hand has all of its parts."""
        self.measure = max(self.measure, self.item.weights)

    def fold(self) -> None:
        """Add up what is over. Stages stay for a while, to be shown."""
        for kid in tuple(self.kids):
            if kid.folded or kid.open:
                continue
            look = kid.look()
            kid.folded = True
            full = kid.weight if kid.whole else kid.weight * (look.ratio or 0.0)
            self.full += full
            kid.item.full += full
            if kid.whole:
                self.ended += kid.weight
            self.moved += look.moved + 1
            if isinstance(kid, Loop):
                self.kids.pop(kid, None)

    def drop(self, *, keep: int) -> None:
        """Forget what is over, except for the newest."""
        over = [kid for kid in self.kids if kid.folded]
        for kid in over[: max(len(over) - keep, 0)]:
            self.kids.pop(kid, None)

    def look(self) -> tuple[float, float, float]:
        """The sums of weight x ratio, of all and of the item in hand; and what moved."""
        self.fold()
        full, of_item, moved = self.full, self.item.full, self.moved
        for kid in tuple(self.kids):
            if not kid.folded:
                look = kid.look()
                full += kid.weight * (look.ratio or 0.0)
                of_item += kid.weight * (look.ratio or 0.0) if kid.item is self.item else 0.0
                moved += look.moved
        return full, of_item, moved

    def part(self, of_item: float, done: float) -> float:
        """How much of the item in hand is done, 0 to 1."""
        item = self.item
        if item.at < done or (item.named and not self.measure):
            return 0.0
        return min(of_item / max(self.measure, item.weights), 1.0)


class _Node:
    """What stages and loops have in common."""

    __slots__ = (
        "counted", "depth", "folded", "item", "last", "open", "parent", "parts", "total", "weight",
        "whole",
    )  # fmt: skip

    named = False  # if others are expected behind it, in the same item
    turns = True  # if it is gone through in turns, and shows only what its present one holds
    item: Item  # of the node around it
    whole: bool  # it came to its end; set before it is closed

    def __init__(self, total: float | None, parent: Stage | Loop | None, weight: float) -> None:
        self.total = total
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.weight = weight
        self.counted: float = 0
        self.open = True
        self.folded = False
        self.parts: Parts | None = None
        self.last = NOTHING

    @property
    def done(self) -> float:
        """What it has counted by itself."""
        raise NotImplementedError

    def add(self, kid: Stage | Loop) -> None:
        """Something begins inside of the item in hand."""
        if self.parts is None:
            self.parts = Parts()
        done = self.done
        if done != self.parts.item.at:
            self.parts.begin_item(done)
            if self.turns:
                self.parts.drop(keep=0)
        self.parts.add(kid)

    def inside(self, done: float) -> tuple[float, float]:
        """How much of the item in hand is done, and what moved inside."""
        if self.parts is None:
            return 0.0, 0.0
        _, of_item, moved = self.parts.look()
        return self.parts.part(of_item, done), moved


class Loop(_Node):
    """One run of `track()`: its count is the hot path of the whole library.

    `done` is counted by the loop itself, or read from an iterator that knows how much it still
    holds: that of the sequence, or one of ticks, of which each item takes one.
    """

    __slots__ = ("source",)

    def __init__(self, total: float | None, parent: Stage | Loop | None = None) -> None:
        super().__init__(total, parent, 1.0)
        self.whole = True  # an early end is an end
        self.source: tuple[Sized, Iterator[Any]] | None = None

    @property
    def done(self) -> float:
        """Items whose turn of the loop's body is over."""
        source = self.source  # read once: the loop may be closed by its thread meanwhile
        if source is None:
            return self.counted
        whole, iterator = source
        # One less than was handed out: the last one is still in the hands of the loop's body. (A
        # tick is taken before its item; so the last one belongs to an item that is not done.)
        return max(len(whole) - length_hint(iterator) - 1, self.counted)

    @property
    def stage(self) -> Stage:
        """The stage around this loop, and around the loops that it runs in."""
        return _stage_around(self)

    def close(self, *, exhausted: bool) -> None:
        """The loop is over; what it had in its hands is done only if it came to its end."""
        if self.source is not None:
            whole, iterator = self.source
            # Nothing is left of a sequence. Of ticks there is, and the last one got no item.
            self.counted = len(whole) if exhausted and not length_hint(iterator) else self.done
            self.source = None
        self.open = False

    def all_begun(self) -> None:
        """Nothing more begins inside of the item in hand."""
        if self.parts is not None:
            self.parts.all_begun()

    def look(self) -> Look:
        done = self.done
        part, moved = self.inside(done)
        total = None if self.total is None else max(self.total, done)
        self.last = Look(done, done + part, total, _ratio(done + part, total), done + moved)
        return self.last


class Stage(_Node):
    """A named part of the work, or the whole of it."""

    __slots__ = ("best", "loops", "name", "past", "room", "stated", "unit")
    named = True
    turns = False

    def __init__(
        self,
        name: str,
        *,
        weight: float = 1,
        total: float | None = None,
        parent: Stage | Loop | None = None,
    ) -> None:
        super().__init__(total, parent, weight)
        self.whole = False
        self.name = name
        self.unit: str | None = None
        self.stated = False  # by `set(done=…)`, which may say 0
        self.best: float | None = None
        self.loops: list[Loop] = []
        self.past: Look | None = None  # the loops that are over
        self.room = ROOM

    @property
    def stage(self) -> Stage:
        """Itself: numbers stated here belong here."""
        return self

    @property
    def lead(self) -> Bar | None:
        """The bar that this stage goes by, as there is nothing else to go by."""
        alone = self.parts is not None and self.total is None and not self.counts
        return self.parts.lead if alone and self.parts is not None else None

    @property
    def counts(self) -> bool:
        """True if it counts by itself."""
        return bool(self.stated or self.counted or self.loops or self.past)

    @property
    def done(self) -> float:
        return self.counted + (self.past.done if self.past else 0) + sum(x.done for x in self.loops)

    def close(self, *, whole: bool) -> None:
        """The stage is over: *whole* if it came to its end."""
        self.whole = whole
        self.open = False

    def add_loop(self, loop: Loop) -> None:
        self.loops.append(loop)
        if len(self.loops) > self.room:
            self._fold_loops()
            self.room = 2 * len(self.loops) + ROOM

    def all_begun(self) -> None:
        """No more stages come: what they weigh is the total, if none was declared."""
        if self.parts is None:
            return
        if self.counts:
            self.parts.all_begun()
        elif self.total is None:
            self.total = self.parts.weights

    def look(self) -> Look:
        done, reach, total, moved = self._counted() if self.counts else self._staged()
        ratio = _ratio(reach, total)
        if ratio is not None:
            self.best = ratio if self.best is None else max(ratio, self.best)
        lost = ratio is None and self.parts is not None and self.parts.led
        self.last = Look(done, reach, total, None if lost else self.best, moved)
        return self.last

    def _counted(self) -> tuple[float, float, float | None, float]:
        self._fold_loops()
        looks = [self.past] if self.past else []
        looks += [loop.look() for loop in self.loops]
        loops = _sum(looks)
        done = self.counted + loops.done
        part, moved = self.inside(done)
        total = self.total
        if total is None and looks:
            total = loops.total
        reach = self.counted + loops.reach + part
        return done, reach, _grown(total, done), self.counted + loops.moved + moved

    def _staged(self) -> tuple[float, float, float | None, float]:
        if self.parts is None:
            return 0, 0, self.total, 0
        full, _, moved = self.parts.look()
        if (lead := self.lead) is not None:
            return lead.last.done, lead.last.reach, lead.last.total, moved
        ended = self.parts.ended
        return ended, full, _grown(self.total, max(self.parts.weights, ended)), moved

    def _fold_loops(self) -> None:
        still: list[Loop] = []
        over: list[Look] = []
        for loop in self.loops:
            if loop.open:  # read once: it may be closed by its thread at any time
                still.append(loop)
            else:
                done, _, total, _, moved = loop.look()
                over.append(Look(done, done, total, None, moved))
        if over:
            self.past = _sum([self.past, *over] if self.past else over)
            self.loops = still


class Shown(NamedTuple):
    """What a bar of other code shows at one moment."""

    name: str
    done: float
    total: float | None
    unit: str | None


class Bar(Stage):
    """The progress bar of other code. Nothing tells of its steps: it is read when somebody looks.

    Args:
        read: what the bar shows; None once there is nothing to be read any more.
        group: bars of one group stand side by side.
    """

    __slots__ = ("_read", "group")
    named = False
    turns = True

    def __init__(
        self, read: Callable[[], Shown | None], parent: Stage | Loop, group: object = None
    ) -> None:
        super().__init__("", parent=parent)
        self.stated = True
        self.group = group
        self._read = read

    @property
    def stage(self) -> Stage:
        """The stage around it: what task code states by itself does not belong to the bar."""
        return _stage_around(self)

    @property
    def done(self) -> float:
        self._see()
        return super().done

    def look(self) -> Look:
        self._see()
        return super().look()

    def end(self) -> None:
        """The bar is over, as full as it is."""
        last = self._read() or Shown(self.name, self.counted, self.total, self.unit)
        self._read = lambda: last  # written down by the next look: one may be under way
        self.close(whole=last.total is None or last.done >= last.total)

    def _see(self) -> None:
        if (shown := self._read()) is not None:
            self.name, self.counted, self.total, self.unit = shown


def _stage_around(node: Stage | Loop) -> Stage:
    around = node.parent
    while isinstance(around, (Loop, Bar)):
        around = around.parent
    assert around is not None, "every loop and bar of a job hangs below its root stage"
    return around


def attach(node: Stage | Loop) -> None:
    """Hang a node that begins into the tree, below its parent."""
    around = node.parent
    if node.depth > DEEPEST:
        return
    if isinstance(node, Loop) and isinstance(around, Stage) and not isinstance(around, Bar):
        around.add_loop(node)
    elif around is not None:
        around.add(node)


def _ratio(reach: float, total: float | None) -> float | None:
    return min(reach / total, 1.0) if total else None


def _grown(total: float | None, done: float) -> float | None:
    return None if total is None else max(total, done)


def _sum(looks: list[Look]) -> Look:
    totals = [look.total for look in looks if look.total is not None]
    return Look(
        done=sum(look.done for look in looks),
        reach=sum(look.reach for look in looks),
        total=sum(totals) if len(totals) == len(looks) else None,
        moved=sum(look.moved for look in looks),
    )
