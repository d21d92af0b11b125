"""Which libraries' bars and lines a task lets report, by name.

Each is a module of `headway.capture`, which is a door: it is imported when a task names it, and
by nobody else, since the library itself comes with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Final, Protocol, cast

from headway.errors import BadInput

__all__ = ["CAPTURES", "captured", "captures_of"]

CAPTURES: Final = ("tqdm", "rich", "logging")


class _Door(Protocol):
    def installed(self) -> AbstractContextManager[None]:
        """While the block runs, what is shown in jobs that capture this is reported."""


def captures_of(names: Iterable[str]) -> frozenset[str]:
    """Check what a task wishes to capture, and import it.

    Raises:
        BadInput: there is no capture of this name, or its library is not installed.
    """
    if isinstance(names, str):
        raise BadInput(f"capture {names!r}: give a tuple of names, as in capture=({names!r},)")
    names = tuple(names)
    for name in names:
        if name not in CAPTURES:
            known = ", ".join(CAPTURES)
            raise BadInput(f"capture {name!r}: there is no such capture (there are: {known})")
        _door(name)
    return frozenset(names)


def captured(names: Iterable[str]) -> AbstractContextManager[None]:
    """While the block runs, jobs of this process that capture *names* are listened to."""
    return _captured(names) if names else nullcontext()


@contextmanager
def _captured(names: Iterable[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_door(name).installed())
        yield


def _door(name: str) -> _Door:
    try:
        return cast("_Door", importlib.import_module(f"headway.capture.{name}"))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise BadInput(
            f"capture {name!r}: {name} is not installed here. pip install {name}, or leave it out."
        ) from error
