"""`Track`: counts the items of a loop, at next to no cost for the loop.

Over a list, tuple or range nothing is done per item at all: how far the loop is can be read from
its iterator whenever somebody looks.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from headway._meter import Loop, Stage
from headway.errors import BadInput
from headway.job import plain

__all__ = ["Counting", "Track"]

T = TypeVar("T")


class Counting(Protocol):
    """What a loop needs of the `Progress` that it counts for."""

    stopped: str | None

    def here(self) -> Stage | Loop:
        """Where in the tree of stages this code is."""

    def enter(self, node: Stage | Loop) -> None:
        """The node begins, in this context."""

    def leave(self, node: Stage | Loop) -> None:
        """The node is over. Raises nothing."""

    def resume_from(self, loop: Loop) -> int:
        """Register a loop that may be resumed; how many of its items were done before."""

    def skipped(self) -> None:
        """What was counted just now was done by an earlier attempt."""

    def news(self) -> None:
        """There is something new. Raises `JobCancelled` if the task is to stop so."""

    def news_of_end(self) -> None:
        """There is something new. Raises nothing."""

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

    def __iter__(self) -> Iterator[T]:
        iterable = self._iterable
        if not isinstance(iterable, Iterable):
            raise BadInput(f"track({iterable!r}) is asynchronous: go through it with 'async for'")
        loop, skip = self._begin()
        iterator = iter(iterable)
        if skip:
            loop.counted = sum(1 for _ in islice(iterator, skip))
            self._progress.skipped()
        if type(iterable) in _READABLE:
            loop.source = (cast("Sequence[T]", iterable), iterator)
            return chain(iterator, _Tail(self._progress, loop))
        return _counted(self._progress, loop, iterator)

    def __aiter__(self) -> AsyncIterator[T]:
        iterable = self._iterable
        loop, skip = self._begin()
        if isinstance(iterable, AsyncIterable):
            return _AsyncCounted(self._progress, loop, aiter(iterable), skip)
        return _AsyncCounted(self._progress, loop, _as_async(iterable), skip)

    def _begin(self) -> tuple[Loop, int]:
        progress = self._progress
        around = progress.here()
        if self._resume and _in_loop(around):
            # Which turn of the outer loop had come how far is not known any more.
            raise BadInput(
                "track(…, resume=True) inside of another track(): give resume=True to the outer one"
            )
        loop = Loop(self._total, around)
        if self._unit is not None:
            loop.stage.unit = plain(self._unit, 40)
        skip = progress.resume_from(loop) if self._resume else 0
        progress.enter(loop)
        progress.news()
        return loop, skip


# Sequences whose iterators tell exactly how many items they still hold.
_READABLE: Final = frozenset({list, tuple, range})


class _Tail:
    """Hangs on the end of a sequence: asked for an item, the loop before it is exhausted;
    dropped without being asked, it was left early."""

    __slots__ = ("_loop", "_progress")

    def __init__(self, progress: Counting, loop: Loop) -> None:
        self._progress = progress
        self._loop = loop

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._close(exhausted=True)
        raise StopIteration

    def __del__(self) -> None:
        if self._loop.open:
            self._close(exhausted=False)

    def _close(self, *, exhausted: bool) -> None:
        self._loop.close(exhausted=exhausted)
        self._progress.leave(self._loop)
        self._progress.news_of_end()


def _counted(progress: Counting, loop: Loop, iterator: Iterator[T]) -> Iterator[T]:
    try:
        for item in iterator:
            yield item
            loop.counted += 1
            if progress.stopped is not None:
                progress.check()
    finally:
        loop.close(exhausted=True)
        progress.leave(loop)
        progress.news_of_end()


class _AsyncCounted(Generic[T]):
    # A class and not an async generator: a generator that a loop breaks out of is closed by
    # another task some time later, and until then the loop would seem to be open.

    __slots__ = ("_iterator", "_loop", "_out", "_progress", "_skip")

    def __init__(
        self, progress: Counting, loop: Loop, iterator: AsyncIterator[T], skip: int
    ) -> None:
        self._progress = progress
        self._loop = loop
        self._iterator = iterator
        self._skip = skip
        self._out = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._out:
            self._loop.counted += 1
            self._out = False
        try:
            while self._skip:
                await self._skip_one()
            item = await anext(self._iterator)
        except BaseException:
            self._close()
            raise
        self._out = True
        return item

    async def _skip_one(self) -> None:
        await anext(self._iterator)
        self._loop.counted += 1
        self._skip -= 1
        if not self._skip:
            self._progress.skipped()

    def __del__(self) -> None:
        if self._loop.open:
            self._close()

    def _close(self) -> None:
        self._loop.close(exhausted=False)
        self._progress.leave(self._loop)
        self._progress.news_of_end()


def _in_loop(node: Stage | Loop | None) -> bool:
    while node is not None and not isinstance(node, Loop):
        node = node.parent
    return node is not None


async def _as_async(iterable: Iterable[T]) -> AsyncIterator[T]:
    for item in iterable:
        yield item
