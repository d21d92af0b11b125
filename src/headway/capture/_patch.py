"""`Patch`: methods of other people's classes, replaced while somebody needs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Self
from weakref import WeakSet

__all__ = ["Method", "Patch"]

Method = Callable[..., Any]


class _Place:
    """One method of a class."""

    def __init__(self, owner: type, name: str, make: Callable[[Method], Method]) -> None:
        self._owner = owner
        self._name = name
        self._make = make
        self._original: Any = None
        self._ours: Method | None = None
        self._around: Any = None  # what somebody has put around ours, which is still inside of it

    def replace(self) -> None:
        now = self._now
        if self._ours is not None and (now is self._ours or now is self._around):
            return
        self._original = now
        self._ours = self._make(getattr(self._owner, self._name))
        setattr(self._owner, self._name, self._ours)

    def put_back(self) -> None:
        if self._now is self._ours:
            setattr(self._owner, self._name, self._original)
            self._ours = self._around = None
        elif self._ours is not None:
            self._around = self._now

    @property
    def _now(self) -> Any:
        return vars(self._owner)[self._name]


class Patch:
    """A context manager that many may enter: the first one replaces, the last one puts back.

    What somebody else has put around ours meanwhile is left to them, with ours inside. So a
    replacement must do nothing but call the original where no job captures.

    Args:
        methods: (class, name, what makes the replacement of the original).
    """

    def __init__(self, *methods: tuple[type, str, Callable[[Method], Method]]) -> None:
        self._places = [_Place(*method) for method in methods]
        self._users = 0
        self._lock = threading.Lock()
        _patches.add(self)

    def __enter__(self) -> Self:
        with self._lock:
            self._users += 1
            if self._users == 1:
                for place in self._places:
                    place.replace()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._put_back()

    def _put_back(self) -> None:
        for place in self._places:
            place.put_back()

    def forget(self) -> None:
        """Begin anew in a process that was forked: nobody has entered there."""
        self._lock = threading.Lock()
        self._users = 0
        self._put_back()


_patches: WeakSet[Patch] = WeakSet()


def _in_forked_child() -> None:
    # What runs there is a copy of the job that reports to nobody, with locks that nobody opens.
    for patch in list(_patches):
        patch.forget()


os.register_at_fork(after_in_child=_in_forked_child)
