"""What must hold of every job, whatever happened: one function for each rule, checked from the
outside against the evidence of a run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from headway.job import child_id
from headway.record import MUTABLE
from tests.chaos.evidence import TERMINAL, Deed, Evidence, Sight, Story, by_key
from tests.chaos.works import CHILDREN

FLUSH_S: Final = 0.1
SETTLE_S: Final = 2.0  # the longest pause between two tries to write an end
Rule = Callable[[Evidence, Story], Iterator[str]]


class Broken(NamedTuple):
    """A rule that does not hold of a job."""

    rule: str
    story: Story | None
    why: str


def check(evidence: Evidence) -> list[Broken]:
    """Everything that is broken; empty when all is well."""
    broken = [Broken("nothing is left behind", None, what) for what in evidence.left]
    for story in evidence.stories.values():
        for rule in RULES:
            if story.record or rule is ends:
                name = (rule.__doc__ or "").rstrip(".")
                broken += [Broken(name, story, why) for why in rule(evidence, story)]
    return broken + _flights(evidence)


def ends(evidence: Evidence, story: Story) -> Iterator[str]:
    """Every accepted job is there, and ends."""
    if not story.record:
        if story.accepted:
            yield "it was accepted, and there is no record of it"
        elif story.deeds:
            yield "it was run, and there is no record of it"
    elif story.record["state"] not in TERMINAL:
        yield f"it is {story.record['state']} still"


def ends_once(evidence: Evidence, story: Story) -> Iterator[str]:
    """A job that has ended never changes again."""
    for sights in (story.heard, story.read):
        ended = next((s for s in sights if s.state in TERMINAL), None)
        if ended is None:
            continue
        last = Sight(0, story.record)
        for sight in [*sights[sights.index(ended) :], last]:
            if _told(sight) != _told(ended):
                yield f"ended as {_told(ended)}, and then it was {_told(sight)}"


def rev_rises(evidence: Evidence, story: Story) -> Iterator[str]:
    """rev rises with every announcement, and each state of a job has its own."""
    for before, after in _pairs(story.heard):
        if after.rev <= before.rev:
            yield f"announced {before.rev}, then {after.rev}"
    for before, after in _pairs(story.read):
        if after.rev < before.rev:
            yield f"read {before.rev}, then {after.rev}"
    known: dict[int, dict[str, str]] = {}
    for sight in [*story.heard, *story.read]:
        if known.setdefault(sight.rev, _told(sight)) != _told(sight):
            yield f"rev {sight.rev} is {known[sight.rev]} and {_told(sight)}"


def one_attempt(evidence: Evidence, story: Story) -> Iterator[str]:
    """The writes of one attempt are seen at a time: attempts never go back."""
    for sights in (story.heard, story.read):
        for before, after in _pairs(sights):
            if after.attempt < before.attempt:
                yield f"attempt {before.attempt} was followed by {after.attempt}"
    attempts = [int(one["attempt"]) for one in story.tries]
    if attempts != sorted(set(attempts)):
        yield f"the attempts that are over: {attempts}"


def ratio_rises(evidence: Evidence, story: Story) -> Iterator[str]:
    """The ratio never falls within an attempt, and is 1 only at the end."""
    for sights in (story.heard, story.read):
        for before, after in _pairs(sights):
            if before.attempt == after.attempt and (after.ratio or 0) < (before.ratio or 0):
                yield f"{before.ratio} was followed by {after.ratio} in attempt {after.attempt}"
    for sight in [*story.heard, *story.read]:
        if (sight.ratio or 0) >= 1 and sight.state != "succeeded":
            yield f"it shows {sight.ratio} and is {sight.state}"


def end_is_kept(evidence: Evidence, story: Story) -> Iterator[str]:
    """An end that was acknowledged to its worker is the end of the job."""
    told = [(e["state"], str(e["attempt"])) for e in story.finished]
    if len(told) > 1:
        yield f"it was ended more than once: {told}"
    for end in told:
        if end != (story.record["state"], story.record["attempt"]):
            yield f"the end {end} was acknowledged, it is {story.record['state']}"


def completed_is_not_lost(evidence: Evidence, story: Story) -> Iterator[str]:
    """A job whose function returned is not lost, unless its process stopped before it said so."""
    if story.code not in {"lost", "interrupted"}:
        return
    for deed in story.of("end"):
        pid = story.worker(deed.attempt)
        # Until the store has the end it can be lost with its process; an outage makes that longer.
        late_s = evidence.slack_s + evidence.late_s
        until = deed.at + late_s
        while evidence.store_was_out(deed.at, until) and not evidence.stopped(pid, deed.at, until):
            later = max(h.until for h in evidence.hits if h.pid == 0 and h.at <= until)
            later += SETTLE_S + late_s
            if later <= until:
                break
            until = later
        if not evidence.stopped(pid, deed.at - late_s, until):
            yield f"its function returned in attempt {deed.attempt}, and it is {story.code}"


def starts_at_most_once(evidence: Evidence, story: Story) -> Iterator[str]:
    """No attempt starts twice; work that may not be repeated only starts again after it raised."""
    starts = [deed.attempt for deed in story.of("start")]
    if len(set(starts)) != len(starts):
        yield f"attempts started: {starts}"
    if story.on_lost == "fail":
        raised = {deed.attempt for deed in story.of("raise")}
        for attempt in starts:
            if any(a not in raised for a in starts if a < attempt):
                yield f"attempt {attempt} started, and an earlier one had not raised"


def attempts_are_limited(evidence: Evidence, story: Story) -> Iterator[str]:
    """There are never more attempts than the task allows."""
    most = max([int(story.record["attempt"]), *(d.attempt for d in story.deeds)])
    if most > int(story.record["max_attempts"]):
        yield f"attempt {most} of {story.record['max_attempts']}"


def work_is_whole(evidence: Evidence, story: Story) -> Iterator[str]:
    """A job that succeeded has done every item, and its result is that of its last attempt."""
    if story.record["state"] != "succeeded":
        return
    attempt = int(story.record["attempt"])
    if not story.of("end", attempt):
        yield f"attempt {attempt} has succeeded, and its function has not returned"
    result = json.loads(story.record["result"])
    if result["attempt"] != attempt:
        yield f"attempt {attempt} has succeeded, with the result {result}"
    if "steps" in result:
        missing = {*range(result["steps"])} - {d.number for d in story.of("item")}
        if missing:
            yield f"items {sorted(missing)} were never done"


def resumes_right(evidence: Evidence, story: Story) -> Iterator[str]:
    """An attempt resumes after items that were done, at most a flush interval before the break."""
    for attempt in range(2, int(story.record["attempt"]) + 1):
        begun = story.of("begin", attempt)
        if not begun or not story.of("start", attempt)[0].number:
            continue
        first, before = begun[0], [d for d in story.of("item") if d.attempt < attempt]
        skipped = {*range(first.number)} - {d.number for d in before}
        if skipped:
            yield f"attempt {attempt} began at {first.number}, {sorted(skipped)} were not done"
        late = _repeated_too_much(evidence, story, first, before)
        if late:
            yield f"attempt {attempt} began at {first.number}, {late}"


def _repeated_too_much(
    evidence: Evidence, story: Story, first: Deed, before: Sequence[Deed]
) -> str:
    """What was done long enough before the break to have been written must not be done again."""
    last = max((d for d in before if d.attempt == first.attempt - 1), default=None, key=_moment)
    if last is None:
        return ""
    pid = story.worker(last.attempt)
    hits = [h.at for h in evidence.hits if h.pid == pid and last.at - 60 < h.at < first.at]
    stopped_at = min([last.at, *hits])
    if evidence.store_was_out(stopped_at - 3, last.at):
        return ""
    written_at = stopped_at - FLUSH_S - evidence.slack_s - evidence.late_s
    safe = [d for d in before if d.at < written_at]
    most = max((d.number for d in safe), default=-1)
    return f"item {most} was done {stopped_at:.3f} before" if most >= first.number else ""


def checkpoints_rise(evidence: Evidence, story: Story) -> Iterator[str]:
    """Checkpoints only move forward."""
    resumed = [deed.number for deed in story.of("start")]
    if resumed != sorted(resumed):
        yield f"its attempts were resumed from {resumed}"
    marks = [json.loads(c)["value"] or 0 for s in story.read if (c := s.fields.get("checkpoint"))]
    if marks != sorted(marks):
        yield f"its checkpoints were {marks}"


def blame_is_just(evidence: Evidence, story: Story) -> Iterator[str]:
    """Nothing is called lost, interrupted, cancelled or failed that was not."""
    for one in story.tries:
        if one["outcome"] == "lost" and not _hit(evidence, one):
            yield f"attempt {one['attempt']} is called lost, and its process was alive: {one}"
    raised = story.of("raise", int(story.record["attempt"]))
    if story.code in {"exception", "error"} and not raised:
        yield f"it failed with {story.code}, and nothing was raised"
    if story.code == "timeout" and story.task != "late":
        yield "it has no time limit"
    if story.record["state"] == "cancelled" and not _may_be_cancelled(evidence, story):
        yield "it is cancelled, and nobody has asked for it"


def _hit(evidence: Evidence, one: dict[str, str]) -> bool:
    pid = int(one["worker"].split(":")[1])
    begin = int(one["began"]) / 1000 - evidence.epoch - 0.1
    return evidence.stopped(pid, begin, int(one["ended"]) / 1000 - evidence.epoch)


def _may_be_cancelled(evidence: Evidence, story: Story) -> bool:
    if story.cancel_asked:
        return True
    parents = [p for p in evidence.stories.values() if p.record.get("task") == "family"]
    mine = (p for p in parents if story.id in {child_id(p.id, n + 1) for n in range(CHILDREN)})
    return any(p.record["state"] != "succeeded" for p in mine)


def watchers_are_told(evidence: Evidence, story: Story) -> Iterator[str]:
    """Whoever watches sees rev rise, and the end, if the watcher's own process lives."""
    for watcher, seen in story.watched.items():
        revs = [event["rev"] for event in seen]
        if revs != sorted(set(revs)):
            yield f"the watcher {watcher} saw {revs}"
        dead = any(watcher.startswith(f"{d.pid}-") for d in evidence.deaths)
        last = seen[-1]["state"] if seen else None
        if not dead and last != story.record["state"]:
            yield f"the watcher {watcher} saw {last} last"


def is_listed(evidence: Evidence, story: Story) -> Iterator[str]:
    """Every accepted job that has begun stands in the list of its owner."""
    owned, begun = story.record["owner"], int(story.record["attempt"])
    if story.accepted and owned and begun and story.id not in evidence.owned:
        yield f"it is not in the list of {owned}"


RULES: Final[Sequence[Rule]] = (
    ends, ends_once, rev_rises, one_attempt, ratio_rises, end_is_kept, completed_is_not_lost,
    starts_at_most_once, attempts_are_limited, work_is_whole, resumes_right, checkpoints_rise,
    blame_is_just, watchers_are_told, is_listed,
)  # fmt: skip


def _flights(evidence: Evidence) -> list[Broken]:
    """Of the jobs with one key, one at a time is live."""
    broken = []
    for key, stories in by_key(evidence.stories.values()).items():
        spans = sorted(
            ((int(s.record["created"]), int(s.record["finished"]), s) for s in stories
             if "finished" in s.record), key=lambda span: span[:2],
        )  # fmt: skip
        for (_, end, first), (begin, _, _) in itertools.pairwise(spans):
            if begin < end:
                broken.append(Broken("one job of a key at a time", first, f"{key}, {end - begin}"))
    return broken


def _pairs(sights: Sequence[Sight]) -> Iterator[tuple[Sight, Sight]]:
    return itertools.pairwise(sights)


def _told(sight: Sight) -> dict[str, str]:
    return {name: value for name, value in sight.fields.items() if name in MUTABLE}


def _moment(deed: Deed) -> float:
    return deed.at
