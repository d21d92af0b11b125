"""The request that is being handled here and now, for code that is not given it.

A door enters it; `start()`, `visitor()` and `reply()` look it up. It travels by a context
variable: into tasks and threads that the request's code starts, and into nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from headway.access import Visit
from headway.http import Request

__all__ = ["Moment", "current", "entered"]

_now: ContextVar[Moment | None] = ContextVar("headway_moment", default=None)


@dataclass(slots=True, eq=False)
class Moment:
    """A request while it is handled. It is understood only if somebody asks; most need not be.

    Args:
        of: whose it is; an app may stand within several.
        understand: makes a request of what the server has said.
        cookies: the headers that a visit leaves behind.
        refuse: an ASGI app that answers an error; None if the error is not ours to answer.
    """

    of: object
    understand: Callable[[], Request]
    cookies: Callable[[Visit], list[tuple[str, str]]]
    refuse: Callable[[Exception], Any]
    before: Moment | None = None
    seen: Visit | None = None

    @property
    def visit(self) -> Visit:
        """The request, and who makes it."""
        if self.seen is None:
            self.seen = Visit(self.understand())
        return self.seen

    def headers(self) -> list[tuple[str, str]]:
        """To be added to the answer."""
        return [] if self.seen is None else self.cookies(self.seen)

    def refusal(self, error: Exception | None = None) -> Any:
        """The answer to *error*, or else to our last refusal in this request; None without one."""
        if error is None and self.seen is not None:
            error = self.seen.refused
        return None if error is None else self.refuse(error)


@contextmanager
def entered(moment: Moment) -> Iterator[Moment]:
    """While it lasts, *moment* is the current one."""
    moment.before = _now.get()
    token = _now.set(moment)
    try:
        yield moment
    finally:
        _now.reset(token)


def current(of: object) -> Visit | None:
    """The request that is being handled here and now, as *of* knows it."""
    moment = _now.get()
    while moment is not None and moment.of is not of:
        moment = moment.before
    return None if moment is None else moment.visit
