"""Registered functions: who gets the Progress, and how arguments travel."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest

import headway
from headway import Headway, Progress
from headway.errors import BadInput, NotOpen, TaskError, TooLarge
from headway.job import ARGS_BYTES, Job, State
from headway.job import Reading as Done
from headway.task import Start, Task, Tasks, make_task


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Order(msgspec.Struct):
    number: int
    at: datetime
    points: list[Point]


class Wishes:
    """Takes what a task wishes to start, in the place of an open Headway."""

    def __init__(self) -> None:
        self.starts: list[Start] = []

    async def __call__(self, start: Start) -> Job:
        self.starts.append(start)
        return Job(
            id="x", task=start.task, title=start.title, state=State.QUEUED, attempt=0,
            max_attempts=start.max_attempts, rev=1, progress=Done(), owner=start.owner,
            created_at=0, updated_at=0,
        )  # fmt: skip


def task_of(function: Any, wishes: Wishes | None = None, **options: Any) -> Task[..., Any]:
    return make_task(function, wishes or Wishes(), **options)


async def sent(task: Task[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the function gets them, after their way through the store."""
    wishes = Wishes()
    await make_task(task.function, wishes, name="t").start(*args, **kwargs)
    return task.decode(wishes.starts[0].args)


# ── the Progress ──────────────────────────────────────────────────────────────────────────────


def by_annotation(p: Progress, n: int) -> None: ...
def by_name(progress, n): ...  # type: ignore[no-untyped-def]
def by_string(p: "headway.Progress", n: int) -> None: ...  # noqa: UP037
def by_unknown(p: anywhere.Progress, n: int) -> None: ...  # type: ignore[name-defined] # noqa: F821
def none(n: int) -> None: ...
def not_first(n: int, progress: Progress) -> None: ...
def nothing() -> None: ...
def other_type(progress: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (by_annotation, True),
        (by_name, True),
        (by_string, True),
        (by_unknown, True),
        (none, False),
        (not_first, False),
        (nothing, False),
        (other_type, False),
    ],
)
def test_task_takes_progress(function: Any, takes: bool) -> None:
    """The Progress goes to a first parameter that is annotated with it, or bears its name."""
    assert task_of(function).takes_progress is takes


# ── arguments ─────────────────────────────────────────────────────────────────────────────────

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
UUID_1 = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 3),
        (float, 2.5),
        (str, "grün\n"),
        (bool, True),
        (bytes, b"\x00\xff"),
        (datetime, NOON),
        (date, date(2026, 1, 2)),
        (UUID, UUID_1),
        (Decimal, Decimal("1.10")),
        (Colour, Colour.RED),
        (Point, Point(1, 2)),
        (Order, Order(7, NOON, [Point(1)])),
        (list[Point], [Point(1), Point(2, 3)]),
        (dict[str, UUID], {"a": UUID_1}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (Point | None, None),
        (Any, {"a": [1, None]}),
    ],
    ids=str,
)
async def test_arguments_arrive_as_annotated(kind: Any, value: object) -> None:
    """What was given arrives equal and of the annotated type, by place and by name."""

    def function(progress: Progress, value: Any) -> None: ...

    function.__annotations__["value"] = kind

    by_place, _ = await sent(task_of(function), value)
    task = task_of(function)
    by_name_too, kwargs = await sent(task, value=value)

    assert by_place == [value]
    assert [*by_name_too, *kwargs.values()] == [value]
    assert type(by_place[0]) is type(value)


async def test_arguments_without_annotations_arrive_as_json() -> None:
    """Without an annotation, JSON values arrive as they are."""

    def function(a, b=2, *rest, c, **more): ...  # type: ignore[no-untyped-def]

    args, kwargs = await sent(task_of(function), 1, 2, 3, c=[4], d={"e": 5})

    assert (args, kwargs) == ([1, 2, 3], {"c": [4], "d": {"e": 5}})


async def test_default_stays_the_function_s_own() -> None:
    """An argument that is not given does not travel."""

    def function(n: int = 5) -> int:
        return n

    args, kwargs = await sent(task_of(function))

    assert (args, kwargs) == ([], {})


def anything(a: Any) -> None: ...


async def test_argument_that_is_no_json_is_refused() -> None:
    """A value that cannot travel is refused before anything is accepted, with the cure."""
    wishes = Wishes()

    with pytest.raises(BadInput, match=r"arguments of anything cannot be written as JSON.*Store"):
        await task_of(anything, wishes).start(object())

    assert wishes.starts == []


async def test_arguments_that_are_too_large_are_refused() -> None:
    """The limit is told with the size, and what to do."""
    with pytest.raises(TooLarge, match=r"arguments of anything: \d+ bytes, the limit is 65536"):
        await task_of(anything).start("x" * ARGS_BYTES)


@pytest.mark.parametrize(("value", "words"), [("x", "Expected `int`"), (None, "Expected `int`")])
async def test_argument_of_another_type_is_refused(value: Any, words: str) -> None:
    """What would not arrive as annotated is refused at the start, and not in the run."""
    with pytest.raises(BadInput, match=f"would not arrive as annotated: {words}"):
        await task_of(none).start(value)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2), {}), ((1,), {"n": 1}), ((), {"m": 1}), ((Progress(), 1), {})],
)  # fmt: skip
async def test_wrong_arguments_are_a_type_error(args: Any, kwargs: Any) -> None:
    """Arguments that do not fit the function are refused as a call of it would."""
    with pytest.raises(TypeError, match="argument"):
        await task_of(by_annotation).start(*args, **kwargs)


# ── using ─────────────────────────────────────────────────────────────────────────────────────


async def test_start_says_what_the_task_says() -> None:
    """Without `using()` a start has the task's own options, and no key."""
    wishes = Wishes()
    task = task_of(nothing, wishes, title="All of it", retries=2, timeout_s=5, on_lost="retry")

    await task.start()

    start = wishes.starts[0]
    assert (start.task, start.title, start.key, start.owned) == (
        "nothing",
        "All of it",
        None,
        False,
    )
    assert (start.options.retries, start.options.timeout_s, start.on_lost) == (2, 5, "retry")


async def test_using_changes_one_start() -> None:
    """What `using()` says holds for its own starts only."""
    wishes = Wishes()
    task = task_of(nothing, wishes, timeout_s=5)

    await task.using(key="k", owner="me", title="Now\n!", timeout_s=9).start()
    await task.start()

    first, second = wishes.starts
    assert (first.key, first.owner, first.title, first.options.timeout_s) == ("k", "me", "Now !", 9)
    assert (second.key, second.owner, second.title) == (None, None, "Nothing")
    assert second.options.timeout_s == 5


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"key": ""}, "key ''…: give 1 to 200 characters"),
        ({"key": "k" * 201}, "give 1 to 200 characters"),
        ({"owner": ""}, "owner ''…: give 1 to 200 characters"),
        ({"owner": "o" * 201}, "give 1 to 200 characters"),
        ({"timeout_s": 0}, "timeout_s 0: give seconds above 0"),
        ({"timeout_s": float("nan")}, "timeout_s nan: give seconds above 0"),
    ],
)
def test_using_refuses(option: dict[str, Any], words: str) -> None:
    """An option out of its range is refused at once."""
    with pytest.raises(BadInput, match=words):
        task_of(nothing).using(**option)


# ── registering ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"name": ""}, "task name ''"),
        ({"name": "a b"}, "use 1 to 100 letters"),
        ({"name": "x" * 101}, "use 1 to 100 letters"),
        ({"name": "ü"}, "use 1 to 100 letters"),
        ({"timeout_s": -1}, "timeout_s -1: give seconds above 0"),
        ({"timeout_s": float("inf")}, "or None for no limit"),
        ({"stall_s": 0}, "stall_s 0: give seconds above 0"),
        ({"retries": -1}, "retries -1: give 0 to 100"),
        ({"retries": 101}, "retries 101: give 0 to 100"),
        ({"on_lost": "ignore"}, "on_lost 'ignore': give 'fail' or 'retry'"),
        ({"retries": 3, "max_attempts": 3}, "3 retries need at least 4"),
        ({"max_attempts": 0}, "max_attempts 0"),
    ],
)
def test_task_refuses(option: dict[str, Any], words: str) -> None:
    """An option out of its range is refused where the task is made."""
    with pytest.raises(BadInput, match=words):
        task_of(nothing, **option)


@pytest.mark.parametrize(
    ("options", "attempts"),
    [({}, 1), ({"retries": 2}, 3), ({"on_lost": "retry"}, 3),
     ({"on_lost": "retry", "retries": 5}, 6), ({"max_attempts": 9}, 9)],
)  # fmt: skip
def test_task_knows_how_often_it_may_be_tried(options: dict[str, Any], attempts: int) -> None:
    """Retries, and losses that may be retried, make up the number of attempts."""
    assert task_of(nothing, **options).max_attempts == attempts


def test_generators_are_no_tasks() -> None:
    """A function that yields is refused: a task returns its result."""

    def one() -> Iterator[int]:
        yield 1

    async def other() -> AsyncIterator[int]:
        yield 1

    for function in (one, other):
        with pytest.raises(BadInput, match=f"task '{function.__name__}' yields"):
            task_of(function)


@pytest.mark.parametrize(
    ("name", "title"),
    [("export_rows", "Export rows"), ("shop.mail-all", "Mail all"), ("x", "X"), ("_", "_")],
)
def test_title_is_made_of_the_name(name: str, title: str) -> None:
    """A task without a title shows its name in words."""
    assert task_of(nothing, name=name).title == title


def test_task_is_called_directly() -> None:
    """In a test the function is called as if it were no task."""
    headway = Headway(secret="s")

    @headway.task
    def double(progress: Progress, n: int) -> int:
        """Twice."""
        return sum(2 for _ in progress.track(range(n)))

    assert double(Progress(), 4) == 8
    assert (double.__doc__, repr(double)) == ("Twice.", "<Task double>")


async def test_async_task_is_called_directly() -> None:
    """So is an async one, which is awaited."""
    headway = Headway(secret="s")

    @headway.task(name="other")
    async def double(n: int) -> int:
        return 2 * n

    assert await double(4) == 8
    assert double.asynchronous


def test_two_tasks_of_one_name() -> None:
    """A name is given once; the error says how to give another one."""
    headway = Headway(secret="s")
    headway.task(nothing)

    with pytest.raises(TaskError, match=r"'nothing' is registered already.*name='nothing_2'"):
        headway.task(nothing)


def test_unknown_task() -> None:
    """A task that this process does not know is named, with those that it knows."""
    tasks = Tasks()
    tasks.add(task_of(nothing))

    with pytest.raises(TaskError, match=r"'other' is not registered .*\(known: nothing\)"):
        tasks.get("other")


async def test_start_before_opening() -> None:
    """A start needs an open Headway, and the error names the ways to open it."""
    task = Headway(secret="s").task(nothing)

    with pytest.raises(NotOpen, match=r"cannot start a task: Headway is not open.*async with"):
        await task.start()


def test_only_functions_become_tasks() -> None:
    """Something that is called like a function, but is none, is refused with what to do."""
    with pytest.raises(BadInput, match="made with def or async def"):
        make_task(functools.partial(print), Wishes())
