"""What happens between any two instructions of a piece of code: tried, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from headway._tree import Loop, Stage

S = TypeVar("S")
R = TypeVar("R")


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def nodes(root: Stage | Loop) -> list[Stage | Loop]:
    """All that a tree holds."""
    found = [root]
    for node in found:
        found += node.parts.kids if node.parts else ()
        found += node.loops if isinstance(node, Stage) else ()
    return found


class _Stepper:
    """Runs code, and something else before its *number*-th instruction."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._left = number
        self._act = act
        self._tracer = self._trace  # held: CPython 3.11 does not hold it while it calls it
        self.acted = False

    def run(self, code: Callable[[], R]) -> R:
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # before the next: CPython 3.12 asks for it
        sys.settrace(self._tracer)
        try:
            return code()
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.acted:
            return None
        frame.f_trace = self._tracer  # before the next: CPython 3.13 asks for it
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left < 0:
                self.acted = True
                sys.settrace(None)
                self._act()
        return self._tracer


def at_every_step(
    scene: Callable[[], S],
    *,
    look: Callable[[S], R],
    act: Callable[[S], object],
    check: Callable[[S, R], object],
) -> int:
    """Play the scene again and again, and let *act* happen one instruction later each time.

    This is what another thread or a finalizer may do to code that holds no lock against it, with
    nothing left to chance. Returns how many instructions there were.
    """
    number = 0
    while True:
        now = scene()
        stepper = _Stepper(number, lambda now=now: act(now))  # type: ignore[misc]
        seen = stepper.run(lambda now=now: look(now))  # type: ignore[misc]
        if not stepper.acted:
            return number
        check(now, seen)
        number += 1
