"""Which job the code that runs here and now belongs to, in threads and pools too.

A context knows its job. Threads begin with an empty one, so what a captured job starts gets the
few variables that matter: a plain `Thread` for its life, a `ThreadPoolExecutor` for one call, as
its threads serve others as well. What could be anybody's (subclasses of `Thread`, other pools) is
left alone: a bar in the wrong job is worse than none.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Thread
from typing import Any, Final

from headway._ledger import _here
from headway.capture._patch import Method, Patch
from headway.context import _about
from headway.errors import JobCancelled
from headway.progress import Progress, _current

__all__ = ["THREADS", "capturing", "check"]

_CARRIED: Final[tuple[ContextVar[Any], ...]] = (_current, _here, _about)
_MARK: Final = "_headway_carried"

_pool = threading.local()


def capturing(name: str) -> Progress | None:
    """The `Progress` of the job that runs here, if it captures *name*."""
    progress = _current.get(None)
    return progress if progress is not None and name in progress.captures else None


def check(progress: Progress) -> None:
    """Raise `JobCancelled` if this is code of the job, and the job is to stop so.

    Bars are moved from helper threads of their libraries, too: those belong to nobody.
    """
    if progress.stopped is not None and _current.get(None) is progress:
        progress.check()


class _Carried:
    """What code in another thread has to know to be part of the job."""

    def __init__(self) -> None:
        self._values = [(variable, variable.get(None)) for variable in _CARRIED]

    @contextmanager
    def here(self) -> Iterator[None]:
        tokens = [(var, var.set(value)) for var, value in self._values if value is not None]
        try:
            yield
        finally:
            for variable, token in reversed(tokens):
                variable.reset(token)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        with self.here():
            return function(*args, **kwargs)


def _carried() -> _Carried | None:
    progress = _current.get(None)
    return _Carried() if progress is not None and progress.captures else None


def _start(original: Method) -> Method:
    @functools.wraps(original)
    def start(self: Thread) -> None:
        in_pool = getattr(_pool, "submits", False)
        if type(self) is Thread and not in_pool and (carried := _carried()) is not None:
            vars(self)[_MARK] = carried
        original(self)

    return start


def _run(original: Method) -> Method:
    @functools.wraps(original)
    def run(self: Thread) -> None:
        carried: _Carried | None = vars(self).pop(_MARK, None)
        if carried is None:
            original(self)
            return
        try:
            carried.call(original, self)
        except JobCancelled:
            # A thread of the job was told to stop, and has stopped: no traceback for that.
            return

    return run


def _submit(original: Method) -> Method:
    @functools.wraps(original)
    def submit(self: ThreadPoolExecutor, fn: Method, /, *args: Any, **kwargs: Any) -> Any:
        carried = _carried()
        if carried is None:
            return original(self, fn, *args, **kwargs)
        _pool.submits = True  # a thread that begins now is the pool's
        try:
            return original(self, carried.call, fn, *args, **kwargs)
        finally:
            _pool.submits = False

    return submit


THREADS: Final = Patch(
    (Thread, "start", _start), (Thread, "run", _run), (ThreadPoolExecutor, "submit", _submit)
)
