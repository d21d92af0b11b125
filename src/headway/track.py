"""`Track`: counts the items of a loop, at next to no cost for the loop.

No line of Python runs for an item. Over a list, tuple or range nothing is done for it at all: how
far the loop is can be read from its iterator whenever somebody looks. Over anything else each item
is paired with a tick, and the ticks are read. The tick comes first: so a loop whose next item is
long in coming, or ends in an error, has counted all those before it.
"""

from __future__ import annotations

import sys
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sized,
)
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain, compress, islice, repeat, starmap
from operator import itemgetter
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from headway._tree import Loop, Stage
from headway.errors import BadInput
from headway.job import plain

__all__ = ["Counting", "Going", "Track"]

T = TypeVar("T")


class Counting(Protocol):
    """What a loop needs of the `Progress` that it counts for."""

    going: Going

    def here(self) -> Stage | Loop:
        """Where in the tree of stages this code is."""

    def enter(self, node: Stage | Loop) -> None:
        """The node begins, in this context. Raises nothing."""

    def leave(self, node: Stage | Loop) -> None:
        """The node is over. Raises nothing, takes no lock."""

    def resume_from(self, loop: Loop) -> int:
        """Register a loop that may be resumed; how many of its items were done before."""

    def passing(self, loop: Loop) -> AbstractContextManager[None]:
        """The block passes by what was done by an earlier attempt."""

    def news_of_end(self) -> None:
        """There is something new. Raises nothing, takes no lock."""

    def check(self) -> None:
        """Raise `JobCancelled` if the task is to stop so."""


class Track(Generic[T]):
    """What `Progress.track()` returns: go through it with `for` or `async for`, once."""

    def __init__(
        self,
        progress: Counting,
        iterable: Iterable[T] | AsyncIterable[T],
        total: float | None,
        unit: str | None,
        *,
        resume: bool,
    ) -> None:
        self._progress = progress
        self._iterable = iterable
        self._total = total
        self._unit = unit
        self._resume = resume
        self._skip = 0

    def __iter__(self) -> Iterator[T]:
        iterable = self._iterable
        if not isinstance(iterable, Iterable):
            raise BadInput(f"track({iterable!r}) is asynchronous: go through it with 'async for'")
        self._refuse_inner_resume()
        iterator = iter(iterable)
        loop = self._begin()
        source: tuple[Sized, Iterator[Any]]
        if type(iterable) in _READABLE:
            source = cast("Sized", iterable), iterator
        else:
            ticks = repeat(None, len(_TICKS))
            source = _TICKS, ticks
            heard = compress(ticks, repeat(self._progress.going))
            iterator = map(_ITEM, zip(heard, iterator))  # noqa: B905 - the ticks have no end
        self._pass(loop, iterator)
        if loop.counted == self._skip:  # else there is no more, and asking again would be a tick
            loop.source = source
        return chain(iterator, _Tail(self._progress, loop))

    def __aiter__(self) -> AsyncIterator[T]:
        iterable = self._iterable
        self._refuse_inner_resume()
        iterator = aiter(iterable if isinstance(iterable, AsyncIterable) else _as_async(iterable))
        loop = self._begin()
        ticks = repeat((), len(_TICKS) - self._skip)
        items: Iterator[Awaitable[T]] = starmap(iterator.__anext__, ticks)
        source = _TICKS, ticks
        if self._skip:
            passed = partial(self._passed, loop, iterator.__anext__, source)
            items = chain(starmap(passed, islice(ticks, 1)), items)
        else:
            loop.source = source
        return _AsyncCounted(self._progress, loop, items.__next__)

    def _refuse_inner_resume(self) -> None:
        if self._resume and _in_loop(self._progress.here()):
            # Which turn of the outer loop had come how far is not known any more.
            raise BadInput(
                "track(…, resume=True) inside of another track(): give resume=True to the outer one"
            )

    def _begin(self) -> Loop:
        progress = self._progress
        progress.check()
        loop = Loop(self._total, progress.here())
        if self._unit is not None:
            loop.stage.unit = plain(self._unit, 40)
        if self._resume:
            self._skip = progress.resume_from(loop)
        progress.enter(loop)
        return loop

    def _pass(self, loop: Loop, iterator: Iterator[T]) -> None:
        if not self._skip:
            return
        try:
            with self._progress.passing(loop):
                loop.counted = sum(1 for _ in islice(iterator, self._skip))
        except BaseException:
            _end(self._progress, loop, exhausted=False)
            raise

    async def _passed(
        self,
        loop: Loop,
        following: Callable[[], Awaitable[T]],
        source: tuple[Sized, Iterator[Any]],
    ) -> T:
        """The first item behind those that an earlier attempt has done."""
        with self._progress.passing(loop):
            for number in range(self._skip):
                await following()
                loop.counted = number + 1
        loop.source = source
        return await following()


def _end(progress: Counting, loop: Loop, *, exhausted: bool) -> None:
    # May run in a finalizer, so in any thread and in the middle of anything: it takes no lock.
    loop.close(exhausted=exhausted)
    progress.leave(loop)
    progress.news_of_end()


# Sequences whose iterators tell exactly how many items they still hold.
_READABLE: Final = frozenset({list, tuple, range})
_TICKS: Final = range(sys.maxsize)
_ITEM: Final = itemgetter(1)


class Going:
    """Asked at each tick whether the loop may go on: true, at next to no cost, until `heed()`.

    It has no truth of its own until then, so that the interpreter calls nothing to find it out.

    Args:
        check: called at each tick from then on; what it raises comes out of the loop.
    """

    __slots__ = ("_check",)

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check

    def heed(self) -> None:
        """Check from now on. From any thread."""
        self.__class__ = _Heeding


class _Heeding(Going):
    __slots__ = ()

    def __bool__(self) -> bool:
        self._check()
        return True


class _Tail:
    """Hangs on the end of what is gone through: asked for an item, the loop before it is exhausted;
    dropped without being asked, it was left early."""

    __slots__ = ("_loop", "_progress")

    def __init__(self, progress: Counting, loop: Loop) -> None:
        self._progress = progress
        self._loop = loop

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        _end(self._progress, self._loop, exhausted=True)
        raise StopIteration

    def __del__(self) -> None:
        if self._loop.open:
            _end(self._progress, self._loop, exhausted=False)


class _AsyncCounted(Generic[T]):
    # A class and not an async generator: a generator that a loop breaks out of is closed by
    # another task some time later, and until then the loop would seem to be open. This is dropped
    # at the loop's end, whatever that is; who holds it for longer holds the loop open. `__anext__`
    # is a slot with what the interpreter calls for an item, and that takes a tick and asks the
    # iterator: no line of Python for it either.

    __anext__: Callable[[], Awaitable[T]]
    __slots__ = ("__anext__", "_loop", "_progress")

    def __init__(
        self, progress: Counting, loop: Loop, following: Callable[[], Awaitable[T]]
    ) -> None:
        self._progress = progress
        self._loop = loop
        self.__anext__ = following

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    def __del__(self) -> None:
        if self._loop.open:
            _end(self._progress, self._loop, exhausted=False)


def _in_loop(node: Stage | Loop | None) -> bool:
    while node is not None and not isinstance(node, Loop):
        node = node.parent
    return node is not None


async def _as_async(iterable: Iterable[T]) -> AsyncIterator[T]:
    for item in iterable:
        yield item
