"""rich: the tasks of every `rich.progress.Progress`, those of `track()` among them.

Tasks that are added to one `Progress` stand side by side; what is begun in the body of a `track()`
stands inside of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from rich.errors import MarkupError
from rich.progress import Progress as RichProgress
from rich.text import Text

from headway.capture._bars import Follower
from headway.capture._jobs import THREADS, capturing, check
from headway.capture._patch import Method, Patch

__all__ = ["installed"]

_FOLLOWER: Final = "_headway_follower"
_GROUP: Final = "_headway_group"
_END: Final = object()

_tracking: ContextVar[list[_Follower] | None] = ContextVar("headway_rich_track", default=None)


class _Follower(Follower):
    """Follows one task of a rich `Progress`."""

    gone = False  # from the display, for good

    def shown(self, bar: Any) -> tuple[object, object, object, object]:
        return _words(bar.description), bar.completed, bar.total, None

    def follow(self, task: Any, *, inside: bool = False) -> None:
        """The task may have been shown, have come to its end, or have been taken up again."""
        if task.finished or not task.visible or self.gone:
            self.end()
        elif not self.open:
            self.begin(inside=inside)


def _words(description: object) -> str:
    try:
        return Text.from_markup(str(description)).plain
    except MarkupError:
        return str(description)


def _follower(progress: Any, task_id: Any) -> _Follower | None:
    task = progress._tasks.get(task_id)
    found: _Follower | None = vars(task).get(_FOLLOWER) if task is not None else None
    return found


def _follow(progress: Any, task_id: Any) -> None:
    follower = _follower(progress, task_id)
    if follower is not None:
        follower.follow(progress._tasks[task_id])
        if follower.progress.stopped is not None:
            check(follower.progress)


def _add_task(original: Method) -> Method:
    @functools.wraps(original)
    def add_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        progress = None if self.disable else capturing("rich")
        if progress is None:
            return original(self, *args, **kwargs)
        check(progress)
        task_id = original(self, *args, **kwargs)
        task = self._tasks[task_id]
        follower = _Follower(progress, task, vars(self).setdefault(_GROUP, object()))
        vars(task)[_FOLLOWER] = follower
        tracking = _tracking.get()
        follower.follow(task, inside=tracking is not None)
        if tracking is not None:
            tracking.append(follower)
        return task_id

    return add_task


def _moved(original: Method) -> Method:
    """For the methods that change the task whose id they are given."""

    @functools.wraps(original)
    def moved(self: Any, task_id: Any, *args: Any, **kwargs: Any) -> None:
        original(self, task_id, *args, **kwargs)
        _follow(self, task_id)

    return moved


def _reset(original: Method) -> Method:
    @functools.wraps(original)
    def reset(self: Any, task_id: Any, *args: Any, **kwargs: Any) -> None:
        if (follower := _follower(self, task_id)) is not None:
            follower.end()
        original(self, task_id, *args, **kwargs)
        _follow(self, task_id)

    return reset


def _remove_task(original: Method) -> Method:
    @functools.wraps(original)
    def remove_task(self: Any, task_id: Any) -> None:
        _gone(self, [task_id])
        original(self, task_id)

    return remove_task


def _stop(original: Method) -> Method:
    @functools.wraps(original)
    def stop(self: Any) -> None:
        try:
            original(self)
        finally:
            _gone(self, list(self._tasks))

    return stop


def _gone(progress: Any, task_ids: Iterable[Any]) -> None:
    for task_id in task_ids:
        if (follower := _follower(progress, task_id)) is not None:
            follower.gone = True
            follower.end()


def _track(original: Method) -> Method:
    @functools.wraps(original)
    def track(self: Any, *args: Any, **kwargs: Any) -> Any:
        items = original(self, *args, **kwargs)
        return items if self.disable or capturing("rich") is None else _tracked(items)

    return track


def _tracked(items: Any) -> Iterator[Any]:
    begun: list[_Follower] = []
    token = _tracking.set(begun)
    try:
        first = next(items, _END)  # adds the task
    finally:
        _tracking.reset(token)
    try:
        if first is not _END:
            yield first
            yield from items
    finally:
        items.close()
        for follower in begun:
            follower.end()


_TASKS: Final = Patch(
    (RichProgress, "add_task", _add_task),
    (RichProgress, "update", _moved),
    (RichProgress, "advance", _moved),
    (RichProgress, "reset", _reset),
    (RichProgress, "remove_task", _remove_task),
    (RichProgress, "stop", _stop),
    (RichProgress, "track", _track),
)


@contextmanager
def installed() -> Iterator[None]:
    """While the block runs, tasks that are added in jobs which capture "rich" are followed."""
    with THREADS, _TASKS:
        yield
