"""tqdm: every bar of the class that all its bars derive from.

What a bar shows is read from it when somebody looks, so `for x in tqdm(…)` runs tqdm's own loop.
Only bars that `disable=None` has switched off, as there is no terminal, are counted here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tqdm import std

from headway.capture._bars import Follower
from headway.capture._jobs import THREADS, capturing, check
from headway.capture._patch import Method, Patch
from headway.progress import Progress

__all__ = ["installed"]

_FOLLOWER: Final = "_headway_follower"
_NO_UNIT: Final = "it"  # tqdm's word for anything


class _Follower(Follower):
    """Follows one bar of tqdm."""

    def __init__(self, progress: Progress, bar: Any, given: dict[str, Any]) -> None:
        super().__init__(progress, bar)
        self.silent = bool(bar.disable)
        self._given = given  # a bar that is switched off keeps nothing of it
        self.unseen: float = 0  # what tqdm itself has not counted

    def shown(self, bar: Any) -> tuple[object, object, object, object]:
        held = vars(bar)
        name = held.get("desc", self._given.get("desc"))
        unit = held.get("unit", self._given.get("unit"))
        return (
            name.strip().removesuffix(":") if isinstance(name, str) else None,
            bar.n + self.unseen,
            bar.total,
            unit if unit != _NO_UNIT else None,
        )

    def items(self, iterable: Any) -> Iterator[Any]:
        """What a bar that is switched off goes through."""
        try:
            for item in iterable:
                yield item
                self.unseen += 1
                if self.progress.stopped is not None:
                    check(self.progress)
        finally:
            self.end()


def _follower(bar: Any) -> _Follower | None:
    found: _Follower | None = vars(bar).get(_FOLLOWER)
    return found


def _init(original: Method) -> Method:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        progress = capturing("tqdm")
        if progress is None:
            original(self, *args, **kwargs)
            return
        check(progress)
        original(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs).arguments if self.disable else {}
        # Without a terminal is not without a browser; but who says True wants no bar at all.
        if self.disable and given.get("disable", True) is not None:
            return
        follower = _Follower(progress, self, given)
        vars(self)[_FOLLOWER] = follower
        if self.iterable is None:
            follower.begin()
        _note(follower, self)

    return __init__


def _iter(original: Method) -> Method:
    @functools.wraps(original)
    def __iter__(self: Any) -> Any:  # noqa: N807
        follower = _follower(self)
        if follower is None:
            return original(self)
        if not follower.begun:
            follower.begin()
        return follower.items(self.iterable) if follower.silent else original(self)

    return __iter__


def _update(original: Method) -> Method:
    @functools.wraps(original)
    def update(self: Any, n: float | None = 1) -> Any:
        # Some loops call this for every item: no call more than it takes.
        follower: _Follower | None = self.__dict__.get(_FOLLOWER)
        if follower is None:
            return original(self, n)
        if not follower.begun:  # made around something, but never gone through
            follower.begin()
        if follower.progress.stopped is not None:
            check(follower.progress)
        if self.disable and n is not None:
            follower.unseen += n
        return original(self, n)

    return update


def _close(original: Method) -> Method:
    @functools.wraps(original)
    def close(self: Any) -> None:
        try:
            original(self)
        finally:
            if (follower := _follower(self)) is not None:
                follower.end()

    return close


def _reset(original: Method) -> Method:
    @functools.wraps(original)
    def reset(self: Any, total: float | None = None) -> None:
        follower = _follower(self)
        again = follower is not None and follower.open and bool(self.n + follower.unseen)
        if again and follower is not None:
            follower.end()
            follower.unseen = 0
        original(self, total)
        if again and follower is not None:
            follower.begin()

    return reset


def _postfix(original: Method) -> Method:
    @functools.wraps(original)
    def set_postfix(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if (follower := _follower(self)) is not None:
            _note(follower, self)

    return set_postfix


def _note(follower: _Follower, bar: Any) -> None:
    postfix = vars(bar).get("postfix")
    if isinstance(postfix, str) and postfix:
        follower.progress.note(postfix)


_BARS: Final = Patch(
    (std.tqdm, "__init__", _init),
    (std.tqdm, "__iter__", _iter),
    (std.tqdm, "update", _update),
    (std.tqdm, "close", _close),
    (std.tqdm, "reset", _reset),
    (std.tqdm, "set_postfix", _postfix),
    (std.tqdm, "set_postfix_str", _postfix),
)


@contextmanager
def installed() -> Iterator[None]:
    """While the block runs, bars that are made in jobs which capture "tqdm" are followed."""
    with THREADS, _BARS:
        yield
