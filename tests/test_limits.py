"""Limits: each can be raised and lowered, and holds wherever the work runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import Headway, Job, Limits, Progress
from headway._ledger import encoded
from headway.acts import Lines
from headway.child import Said
from headway.errors import BadInput, TooLarge
from headway.job import Reading, StageReading
from headway.limits import LIMITS
from headway.process import _Relay
from tests.conftest import MakeHeadway, Until

# Children import this module, so what they run stands at its top.

KINDS = ["coroutine", "thread", "process"]
SMALL = Limits(
    result_bytes=100, checkpoint_bytes=100, note_chars=10, log_chars=20, log_lines=3,
    progress_bytes=200,
)  # fmt: skip


def returns(n: int) -> str:
    """Returns *n* bytes of JSON."""
    return "x" * (n - 2)


def marks(progress: Progress, n: int) -> int:
    """Keeps *n* bytes of JSON; tells what came of it."""
    try:
        progress.checkpoint("x" * (n - 2))
    except TooLarge:
        return 0
    return len(progress.resume) + 2


def talks(progress: Progress) -> None:
    """Says more than is kept."""
    progress.note("0123456789abc")
    for n in range(10):
        progress.log(f"{n} {'x' * 50}")


def divides(progress: Progress) -> None:
    """Has more stages than fit."""
    progress.set(total=30)
    for n in range(30):
        with progress.stage(f"stage {n}"):
            pass


TASKS = [returns, marks, talks, divides]


@pytest.fixture(params=KINDS)
async def run(request: pytest.FixtureRequest, make_headway: MakeHeadway) -> AsyncIterator[Any]:
    """`await run(limits, task, …)`: the headway and the job, when it has ended."""
    opened: list[Headway] = []

    def registered(headway: Headway, function: Any) -> Any:
        if request.param == "process":
            return headway.task(run="process")(function)
        if request.param == "thread":
            return headway.task(function)

        async def coroutine(progress: Progress, *args: Any) -> Any:
            return function(*([] if function is returns else [progress]), *args)

        return headway.task(name=function.__name__)(coroutine)

    async def run(limits: Limits, function: Any, *args: Any) -> tuple[Headway, Job]:
        headway = make_headway(limits=limits)
        await headway.__aenter__()
        opened.append(headway)
        job = await registered(headway, function).using(owner="ann").start(*args)
        *_, last = [seen async for seen in headway.watch(job.id)]
        return headway, last

    yield run
    for headway in opened:
        await headway.__aexit__(None, None, None)


async def test_results_may_be_as_large_as_the_limit_says(run: Any) -> None:
    """A result at the limit is kept, one byte more fails the job; the limit can be raised, too."""
    _, fits = await run(SMALL, returns, 100)
    _, over = await run(SMALL, returns, 101)
    _, large = await run(Limits(result_bytes=200_000), returns, 200_000)

    assert len(fits.result) == 98
    assert over.error.code == "result_too_large"
    assert len(large.result) == 199_998


async def test_checkpoints_may_be_as_large_as_the_limit_says(run: Any) -> None:
    """What is over the limit is refused where it is given."""
    _, fits = await run(SMALL, marks, 100)
    _, over = await run(SMALL, marks, 101)
    _, large = await run(Limits(checkpoint_bytes=200_000), marks, 200_000)

    assert (fits.result, over.result, large.result) == (100, 0, 200_000)


async def test_words_are_cut_and_lines_dropped(run: Any) -> None:
    """Of notes, lines and logs as much is kept as the limits say: the newest."""
    headway, job = await run(SMALL, talks)
    more, other = await run(Limits(log_lines=7), talks)

    log = await headway.log(job.id)
    assert job.note == "012345678…"
    assert [line[0] for line in log] == ["7", "8", "9"]
    assert {len(line) for line in log} == {20}
    assert len(await more.log(other.id)) == 7


async def test_stages_are_shown_as_far_as_they_fit(run: Any) -> None:
    """Over the limit the oldest stages are not shown; the counts and the newest are."""
    _, job = await run(SMALL, divides)

    shown = [stage.name for stage in job.progress.stages]
    assert job.progress.ratio == 1
    assert 0 < len(shown) < 30
    assert shown == [f"stage {n}" for n in range(30 - len(shown), 30)]


# ── pure ──────────────────────────────────────────────────────────────────────────────────────


STAGES = st.lists(
    st.builds(
        StageReading,
        name=st.text(max_size=30),
        done=st.integers(0, 10**9),
        total=st.none() | st.integers(0, 10**9),
        depth=st.integers(0, 5),
    ),
    max_size=20,
)


@given(STAGES, st.text(max_size=50), st.integers(1, 2000))
def test_reading_fits_or_has_no_stages(stages: list[StageReading], note: str, most: int) -> None:
    """As many of the newest stages are kept as fit, and all else in any case."""
    reading = Reading(done=3, total=7, note=note, stages=tuple(stages))

    text = encoded(reading, most)
    kept = msgspec.json.decode(text, type=Reading)

    assert msgspec.structs.replace(kept, stages=()) == msgspec.structs.replace(reading, stages=())
    assert kept.stages == tuple(stages[len(stages) - len(kept.stages) :])
    assert not kept.stages or len(text.encode()) <= most
    if len(kept.stages) < len(stages):
        one_more = stages[len(stages) - len(kept.stages) - 1 :]
        whole = msgspec.structs.replace(reading, stages=tuple(one_more))
        assert len(msgspec.json.encode(whole)) > most


@pytest.mark.parametrize("field", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, 1.5, "7", None])
def test_limits_are_whole_numbers(field: str, value: Any) -> None:
    """A limit that is none is refused where it is set; two of them may be none."""
    if value is None and field in {"jobs_per_owner", "starts_per_minute"}:
        given: dict[str, Any] = {field: None}
        assert getattr(Limits(**given), field) is None
        return
    with pytest.raises(BadInput, match=f"limit {field}"):
        Limits(**{field: value})


def test_logs_have_an_upper_limit() -> None:
    """No setting makes a store keep logs without end."""
    with pytest.raises(BadInput, match="at most 5,000"):
        Limits(log_lines=5_001)


def test_most_lines_travel_in_one_act(make_headway: MakeHeadway, until: Until) -> None:
    """As many lines as may ever be kept can be written at once."""

    async def main() -> list[str]:
        headway = make_headway(limits=Limits(log_lines=5_000))

        @headway.task
        def floods(progress: Progress) -> None:
            for n in range(6_000):
                progress.log(str(n))

        async with headway:
            job = await floods.start()
            async for _ in headway.watch(job.id):
                pass
            return await headway.log(job.id)

    lines = asyncio.run(main())

    assert lines == [str(n) for n in range(1_000, 6_000)]


def test_relay_of_a_child_holds_no_more_lines_than_are_kept() -> None:
    """While the store is away, what a child logs does not fill the memory of its parent."""
    relay = _Relay(None, 3)
    relay.heard(Said(lines=("0", "1")))
    early = relay.take()
    relay.heard(Said(lines=("2", "3", "4", "5")))
    relay.wrote(early)

    assert relay.take().lines == Lines(3, ("3", "4", "5"))


def test_defaults_are_one_value() -> None:
    """What holds if nothing is said is what `Limits()` says."""
    assert Limits() == LIMITS
