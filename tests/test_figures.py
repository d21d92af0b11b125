"""Rates, waiting times and durations: what is counted, and over which time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.figures import SPANS, Ended, Recent, figures
from headway.job import State

NOW = 1_800_000_007.0
ENDS = [State.SUCCEEDED, State.FAILED, State.CANCELLED]


def ended(ago_s: float, *, wait_s: float = 1.0, run_s: float = 2.0, **changes: Any) -> Ended:
    finished = NOW - ago_s
    one = Ended(State.SUCCEEDED, finished - run_s - wait_s, finished - run_s, finished)
    return one._replace(**changes)


def recent(*jobs: Ended, cut: bool = False) -> Recent:
    latest = sorted(jobs, key=lambda job: -job.finished_at)
    return Recent(NOW, 3, 4, latest, cut)


def test_nothing_has_figures_too() -> None:
    """An empty store has an hour of nothing, and no durations."""
    found = figures(recent())

    assert (found["queued"], found["running"]) == (3, 4)
    assert len(found["spans"]) * found["step_s"] == 3600
    assert all(
        span["succeeded"] == span["failed"] == span["cancelled"] == 0 for span in found["spans"]
    )
    assert found["wait_s"] is found["run_s"] is None


def test_each_end_counts_in_its_span() -> None:
    """By state and time; what ended over an hour ago counts nowhere."""
    found = figures(recent(
        ended(1), ended(2), ended(100, state=State.FAILED), ended(101, state=State.CANCELLED),
        ended(4_000),
    ))  # fmt: skip

    last, before = found["spans"][-1], found["spans"][-2]
    assert last["succeeded"] == 2
    assert (before["failed"], before["cancelled"]) == (1, 1)
    assert sum(span["succeeded"] for span in found["spans"]) == 2


def test_jobs_that_never_began_have_no_durations() -> None:
    """Cancelled in the queue: it ended, and neither waited for a start nor ran."""
    found = figures(recent(ended(1, state=State.CANCELLED, started_at=None)))

    assert found["spans"][-1]["cancelled"] == 1
    assert found["wait_s"] is found["run_s"] is None


def test_durations_are_told_by_rank() -> None:
    """Half are no longer than p50, 95 of 100 no longer than p95: each is one of them."""
    jobs = [ended(5, wait_s=float(n), run_s=10.0 * n) for n in range(1, 101)]

    found = figures(recent(*jobs))

    assert found["wait_s"] == {"p50": 50, "p95": 95}
    assert found["run_s"] == {"p50": 500, "p95": 950}


@pytest.mark.parametrize(
    ("oldest_s", "step_s"), [(7_200, 120), (3_599, 60), (400, 10), (45, 1), (9, 1)]
)
def test_spans_reach_back_as_far_as_the_jobs(oldest_s: float, step_s: int) -> None:
    """Of more jobs than are looked at the newest ones tell of a shorter time, and of no pause."""
    jobs = [ended(oldest_s * n / 500) for n in range(1, 501)]

    found = figures(recent(*jobs, cut=True))

    assert found["step_s"] == step_s
    assert len(found["spans"]) <= SPANS
    assert len(found["spans"]) * step_s <= max(oldest_s + step_s, SPANS)
    assert all(span["succeeded"] for span in found["spans"][1:-1])


@given(
    st.lists(st.tuples(st.floats(0, 5_000), st.sampled_from(ENDS), st.floats(0, 1e6)), max_size=60),
    st.booleans(),
)
def test_whatever_has_ended_within_the_spans_is_counted_once(
    given_jobs: list[tuple[float, State, float]], cut: bool
) -> None:
    """The spans hold together, and are made of what ended since the first of them began."""
    jobs = [ended(ago, state=state, run_s=run) for ago, state, run in given_jobs]

    found = figures(recent(*jobs, cut=cut))

    spans = found["spans"]
    assert 1 <= len(spans) <= SPANS
    counted = sum(span["succeeded"] + span["failed"] + span["cancelled"] for span in spans)
    end = (NOW // found["step_s"] + 1) * found["step_s"]
    assert counted == sum(j.finished_at >= end - len(spans) * found["step_s"] for j in jobs)
    if (run := found["run_s"]) is not None:
        assert run["p50"] <= run["p95"]
