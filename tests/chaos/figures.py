"""What a chaos run has measured, as the lines of a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from tests.chaos.evidence import TERMINAL, Evidence, Story


class Break(NamedTuple):
    """An attempt that was cut short by a fault of its worker; None: that was not seen."""

    kind: str
    shown_s: float | None
    restarted_s: float | None
    store_was_out: bool


def figures(evidence: Evidence) -> list[str]:
    """The report."""
    stories = [story for story in evidence.stories.values() if story.record]
    states = Counter(story.record["state"] for story in stories)
    codes = Counter(story.code for story in stories if story.code)
    faults = Counter(hit.kind for hit in evidence.hits)
    items = [deed for story in stories for deed in story.of("item")]
    once = {(story.id, deed.number) for story in stories for deed in story.of("item")}
    lost = [story for story in evidence.accepted if not story.record]
    breaks = [one for story in stories for one in _breaks(evidence, story)]
    return [
        (
            f"jobs accepted {len(evidence.accepted)}, in the store {len(stories)}, "
            f"lost {len(lost)}, ends: {_counts(states)}"
        ),
        f"errors: {_counts(codes)}",
        f"the machine let a process wait for its turn {evidence.late_s:.2f} s at most",
        f"faults {faults.total()}: {_counts(faults)}",
        (
            f"attempts {sum(int(s.record['attempt']) for s in stories)}, items done {len(items)}, "
            f"done twice {len(items) - len(once)}, states seen "
            f"{sum(len(s.heard) + len(s.read) for s in stories)}"
        ),
        *_times("kill", breaks),
        *_times("freeze_past_lease", breaks),
        *_times("term", breaks),
        f"work that may not be repeated, started again: {_repeated(stories)}",
    ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counter.most_common())


def _repeated(stories: Sequence[Story]) -> int:
    return sum(
        len(story.of("start")) - 1 - len(story.of("raise"))
        for story in stories
        if story.on_lost == "fail" and len(story.of("start")) > 1 + len(story.of("raise"))
    )


def _times(kind: str, breaks: Sequence[Break]) -> Iterator[str]:
    mine = [one for one in breaks if one.kind == kind]
    for word in ("shown", "restarted"):
        for out in (False, True):
            found = [
                seconds
                for one in mine
                if one.store_was_out == out and (seconds := getattr(one, f"{word}_s")) is not None
            ]
            if found:
                when = " with the store out meanwhile" if out else ""
                yield (
                    f"{kind} → {word}{when}: p50 {median(found):.2f} s, "
                    f"max {max(found):.2f} s, n {len(found)}"
                )


def _breaks(evidence: Evidence, story: Story) -> Iterator[Break]:
    for one in story.tries:
        if one["outcome"] not in {"lost", "released", "failed"} or _failed_by_itself(one):
            continue
        attempt, pid = int(one["attempt"]), int(one["worker"].split(":")[1])
        began, ended = (int(one[k]) / 1000 - evidence.epoch for k in ("began", "ended"))
        hits = [h for h in evidence.hits if h.pid == pid and began - 0.05 <= h.at <= ended]
        wanted = {"lost": {"kill", "freeze_past_lease"}}.get(one["outcome"], {"term"})
        hit = next((h for h in hits if h.kind in wanted), None)
        if hit is None or (one["outcome"] != "lost" and story.of("raise", attempt) == []):
            continue
        shown = _shown(story, attempt, hit.at)
        started = story.of("start", attempt + 1)
        until = max(hit.at, shown or 0, started[0].at if started else 0)
        yield Break(
            hit.kind,
            None if shown is None else shown - hit.at,
            started[0].at - hit.at if started else None,
            evidence.store_was_out(hit.at - 1, until),
        )


def _failed_by_itself(one: dict[str, str]) -> bool:
    """True for an error of the task, which has nothing to do with the fault beside it."""
    error = json.loads(one.get("error") or "null")
    return bool(error) and error["code"] not in {"lost", "interrupted"}


def _shown(story: Story, attempt: int, since: float) -> float | None:
    moments = (
        sight.at
        for sight in [*story.heard, *story.read]
        if sight.at >= since and (sight.attempt > attempt or sight.state in {*TERMINAL, "queued"})
    )
    return min(moments, default=None)
