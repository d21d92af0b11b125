"""What counting one item costs the loop that is counted: over what, where, and beside whom.

All loops of a table run in one job, in turns, and do nothing but go through their items. What the
bare loop takes is taken off. The store and its writes are real: they go on beside it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis
from celery import Celery
from docket import Docket
from docket.execution import ExecutionProgress
from rich.console import Console
from rich.progress import track as rich_track
from tqdm.asyncio import tqdm

from bench.measure import Budget, Finding, Row, taken_in_turns
from bench.store import free_port, fresh_store
from headway import Headway, Progress
from headway.task import Task

ITEMS: Final = 1_000_000
LINES: Final = 300_000
CALLS: Final = 1_000
ROUNDS: Final = 7
NAMES: Final = ("Headway", "tqdm", "rich")
BUDGET_NS: Final = 5.0  # over a list or range
BUDGET_OF_TQDM: Final = 0.5  # over anything else

LEAST: Final = "a wrapper that does nothing"

Found = dict[str, dict[str, float]]
"""What is gone through → who counts → nanoseconds an item."""

headway = Headway()


def measure() -> list[Finding]:
    """See `bench`."""
    port = free_port()
    with TemporaryDirectory(prefix="headway-bench-") as folder, fresh_store(port=port) as url:
        path = Path(folder, "lines")
        path.write_text("a line of a file that is read\n" * LINES, encoding="utf-8")
        os.environ["HEADWAY_URL"] = url
        return asyncio.run(_measured(url, port, str(path)))


async def _measured(url: str, port: int, path: str) -> list[Finding]:
    async with headway:
        found = {
            "thread": await _ran(in_thread, path),
            "child process": await _ran(in_process, path),
            "loop": await _ran(on_loop, path),
        }
    kinds = {**found["thread"], **found["loop"]}
    calls = await _calls(url, port)
    calls["Headway, a generator"] = kinds["generator"]["Headway"]
    return [_readable(kinds), *_others(kinds), _places(found), _writing(calls)]


async def _ran(task: Task[[str], Any], path: str) -> Found:
    job = await task.using(owner="bench").start(path)
    async for _ in headway.watch(job.id):
        pass
    found: Found = await headway.result(job.id)
    return found


# ── the loops ─────────────────────────────────────────────────────────────────────────────────


@headway.task
def in_thread(progress: Progress, path: str) -> Found:
    return _loops(progress, path)


@headway.task(run="process")
def in_process(progress: Progress, path: str) -> Found:
    return _loops(progress, path)


@headway.task
async def on_loop(progress: Progress, path: str) -> Found:
    found: dict[str, list[float]] = {name: [] for name in ("bare", "Headway", "tqdm", LEAST)}
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        ways: dict[str, Callable[[], AsyncIterable[int]]] = {
            "bare": _agenerated,
            "Headway": lambda: progress.track(_agenerated(), total=ITEMS),
            "tqdm": lambda: tqdm(_agenerated(), total=ITEMS, file=nowhere),
            LEAST: lambda: _Least(_agenerated()),
        }
        for _ in range(ROUNDS):
            for name, way in ways.items():
                found[name].append(await _over_async(way))
    return {"async generator": _over_bare({n: sorted(v)[ROUNDS // 2] for n, v in found.items()})}


def _loops(progress: Progress, path: str) -> Found:
    kinds: dict[str, tuple[int, Callable[[], Iterable[object]]]] = {
        "list": (ITEMS, partial(list, range(ITEMS))),
        "range": (ITEMS, partial(range, ITEMS)),
        "generator": (ITEMS, _generated),
        "file": (LINES, partial(_lines, path)),
    }
    return {kind: _in_turns(progress, *how) for kind, how in kinds.items()}


def _in_turns(
    progress: Progress, items: int, make: Callable[[], Iterable[object]]
) -> dict[str, float]:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, force_terminal=True)
        ways: dict[str, Callable[[Iterable[object]], Iterable[object]]] = {
            "bare": lambda given: given,
            "Headway": lambda given: progress.track(given, total=items),
            "tqdm": lambda given: tqdm(given, total=items, file=nowhere),
            "rich": lambda given: rich_track(given, total=items, console=console),
        }
        turns = {name: partial(_over, way, make, items) for name, way in ways.items()}
        return _over_bare(taken_in_turns(turns, rounds=ROUNDS))


def _over(
    way: Callable[[Iterable[object]], Iterable[object]],
    make: Callable[[], Iterable[object]],
    items: int,
) -> float:
    given = make()
    began = time.perf_counter_ns()
    for _ in way(given):
        pass
    return (time.perf_counter_ns() - began) / items


async def _over_async(way: Callable[[], AsyncIterable[int]]) -> float:
    began = time.perf_counter_ns()
    async for _ in way():
        pass
    return (time.perf_counter_ns() - began) / ITEMS


def _over_bare(found: dict[str, float]) -> dict[str, float]:
    bare = found["bare"]
    return {"bare": bare, **{n: max(v - bare, 0.0) for n, v in found.items() if n != "bare"}}


def _generated() -> Iterator[int]:
    yield from range(ITEMS)


async def _agenerated() -> AsyncIterator[int]:
    for n in range(ITEMS):
        yield n


class _Least:
    """Stands around an async iterator, and does nothing."""

    __slots__ = ("_next",)

    def __init__(self, iterator: AsyncIterator[int]) -> None:
        self._next = iterator.__anext__

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        return await self._next()


def _lines(path: str) -> Iterable[str]:
    return Path(path).open(encoding="utf-8")


# ── what writes at each item ──────────────────────────────────────────────────────────────────


async def _calls(url: str, port: int) -> dict[str, float]:
    tcp = f"redis://127.0.0.1:{port}/0"
    with redis.Redis.from_url(url) as client:
        update = _celery_update(tcp)
        sync = taken_in_turns(
            {
                "a SET in the store": lambda: _ns_a_call(lambda n: client.set("bench", n)),
                "Celery update_state": lambda: _ns_a_call(update),
            },
            rounds=3,
        )
    return sync | {"docket increment": await _docket_increment(tcp)}


def _ns_a_call(call: Callable[[int], object]) -> float:
    began = time.perf_counter_ns()
    for n in range(CALLS):
        call(n)
    return (time.perf_counter_ns() - began) / CALLS


def _celery_update(url: str) -> Callable[[int], object]:
    app: Any = Celery("bench", broker=url, backend=url)
    task = app.task(_nothing)
    return lambda n: task.update_state("an-id", "PROGRESS", {"current": n, "total": CALLS})


def _nothing() -> None:
    """A task of Celery's."""


async def _docket_increment(url: str) -> float:
    async with Docket(name="bench", url=url) as docket:
        progress = ExecutionProgress(docket, "a-key")
        await progress.set_total(CALLS)
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            await progress.increment()
        return (time.perf_counter_ns() - began) / CALLS


# ── what is told of it ────────────────────────────────────────────────────────────────────────


def _readable(kinds: Found) -> Finding:
    rows = [_row(kind, name, kinds[kind][name]) for kind in ("list", "range") for name in NAMES]
    worst = max(kinds[kind]["Headway"] for kind in ("list", "range"))
    budget = Budget(
        f"`track()` over a list or range: at most {BUDGET_NS:g} ns an item over the bare loop",
        f"{worst:.2g} ns",
        worst <= BUDGET_NS,
    )
    return Finding(
        slug="items",
        title="An item of a list or a range",
        unit="ns an item more than the bare loop",
        base="Headway, range",
        rows=rows,
        words=(
            f"Loops over {ITEMS:,} items that do nothing, in a `def` task of a real job, the "
            f"middle one of {ROUNDS} turns; the bare loop is taken off. Over a list, tuple or "
            "range nothing is done for an item: how far the loop has come is read from its "
            "iterator when somebody looks. A difference of a nanosecond or two is noise."
        ),
        budgets=[budget],
    )


def _others(kinds: Found) -> Iterator[Finding]:
    for kind in ("generator", "async generator", "file"):
        ours, tqdms = kinds[kind]["Headway"], kinds[kind]["tqdm"]
        budget = Budget(
            f"`track()` over {_a(kind)}: at most half of what tqdm takes",
            f"{ours:.0f} ns, tqdm {tqdms:.0f} ns",
            ours <= BUDGET_OF_TQDM * tqdms,
        )
        yield Finding(
            slug=f"items-{kind.replace(' ', '-')}",
            title=f"An item of {_a(kind)}",
            unit="ns an item more than the bare loop",
            rows=[Row(name, ns) for name, ns in kinds[kind].items() if name != "bare"],
            words=f"The bare loop takes {kinds[kind]['bare']:.0f} ns an item.",
            budgets=[budget],
        )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] == "a" else f"a {kind}"


def _places(found: dict[str, Found]) -> Finding:
    rows = [
        Row(f"{kind}, {place}", kinds[kind]["Headway"])
        for place, kinds in found.items()
        for kind in ("range", "generator", "async generator")
        if kind in kinds
    ]
    return Finding(
        slug="items-places",
        title="The same in a thread, in a child process, on the loop",
        unit="ns an item more than the bare loop",
        better=None,
        base="generator, thread",
        rows=rows,
        words="A child process counts for itself, and tells its parent ten times a second.",
    )


def _writing(calls: dict[str, float]) -> Finding:
    return Finding(
        slug="items-writing",
        title="Counting, beside writing at each item",
        unit="ns an item",
        base="Headway, a generator",
        rows=[Row(name, ns) for name, ns in calls.items()],
        words=(
            f"{CALLS:,} calls one after another to a store on the same machine; over a network "
            "each takes its round trip longer. Headway writes ten times a second, whatever the "
            "number of items, and not in the loop."
        ),
    )


def _row(kind: str, name: str, ns: float) -> Row:
    return Row(f"{name}, {kind}", ns)
