"""`Follower`: what follows one bar of a library, as a stage of the job that it was made in."""

from __future__ import annotations

import weakref
from typing import Any, Final

from headway._amount import amount
from headway._tree import Bar, Loop, Shown, Stage
from headway.errors import BadInput
from headway.job import NAME_CHARS, plain
from headway.progress import Progress

__all__ = ["Follower", "number"]

NAMELESS: Final = "Working"
UNIT_CHARS: Final = 40


class Follower:
    """Stands between a bar, which it must not keep alive, and its stage, while that is open.

    Args:
        progress: of the job.
        bar: the library's object.
        group: see `headway._tree.Bar`.
    """

    def __init__(self, progress: Progress, bar: Any, group: object = None) -> None:
        self.progress = progress
        self._bar = weakref.ref(bar, self._gone)
        self._group = group
        self.begun = False
        self._stage: Bar | None = None

    def shown(self, bar: Any) -> tuple[object, object, object, object]:
        """Name, done, total and unit, as the library has them."""
        raise NotImplementedError

    @property
    def open(self) -> bool:
        """True while it is shown as a stage that goes on."""
        return self._stage is not None and self._stage.open

    def begin(self, *, inside: bool = True) -> None:
        """The bar moves from now on. Not *inside*: beside the other ones of its group."""
        around: Stage | Loop | None = self.progress.here()
        while isinstance(around, Bar) and not inside and around.group is self._group:
            around = around.parent
        assert around is not None, "the root of a job is no bar"
        self.begun = True
        self._stage = Bar(self._read, around, self._group)
        self.progress.enter(self._stage)

    def end(self) -> None:
        """The bar is over. May run in a finalizer: nothing here waits for a lock."""
        stage = self._stage
        if stage is not None and stage.open:
            stage.end()
            self.progress.leave(stage)
            self.progress.news_of_end()

    def _gone(self, _: object) -> None:
        self.end()

    def _read(self) -> Shown | None:
        bar = self._bar()
        if bar is None:
            return None
        name, done, total, unit = self.shown(bar)
        return Shown(
            plain(name, NAME_CHARS) if isinstance(name, str) and name.strip() else NAMELESS,
            number(done) or 0,
            number(total),
            plain(unit, UNIT_CHARS) if isinstance(unit, str) and unit.strip() else None,
        )


def number(value: Any) -> float | None:
    """As a plain number, of whatever kind it came; None if it is none that can be shown."""
    try:
        return amount(value, "{}")
    except BadInput:
        return None
