"""What was seen of a chaos run from the outside; the invariants are checked against it alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

TERMINAL: Final = {"succeeded", "failed", "cancelled"}
Fields = Mapping[str, str]


class Deed(NamedTuple):
    """A line that a task wrote: start, begin, item, end or raise."""

    what: str
    attempt: int
    pid: int
    at: float
    number: int


class Sight(NamedTuple):
    """A state of a record, as it was announced or read."""

    at: float
    fields: Fields

    @property
    def rev(self) -> int:
        return int(self.fields["rev"])

    @property
    def state(self) -> str:
        return self.fields["state"]

    @property
    def attempt(self) -> int:
        return int(self.fields["attempt"])

    @property
    def ratio(self) -> float | None:
        ratio = json.loads(self.fields.get("progress", "{}")).get("ratio")
        return None if ratio is None else float(ratio)


class Hit(NamedTuple):
    """A fault that was injected: when, into which worker (0: the store), until when."""

    at: float
    kind: str
    pid: int
    until: float


class Death(NamedTuple):
    """A worker process that ended."""

    at: float
    pid: int
    code: int


@dataclass
class Story:
    """All that is known of one job."""

    id: str
    accepted: list[dict[str, Any]] = field(default_factory=list)
    heard: list[Sight] = field(default_factory=list)
    read: list[Sight] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)
    watched: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tries: list[dict[str, str]] = field(default_factory=list)
    record: Fields = field(default_factory=dict)
    cancel_asked: bool = False

    @property
    def task(self) -> str:
        return self.record["task"]

    @property
    def on_lost(self) -> str:
        return self.record["on_lost"]

    @property
    def steps(self) -> int:
        given, _ = json.loads(self.record["args"])
        return int(given[0])

    @property
    def code(self) -> str | None:
        """The code of the error that it ended with."""
        error = json.loads(self.record.get("error") or "null")
        return str(error["code"]) if error and self.record["state"] == "failed" else None

    def worker(self, attempt: int) -> int:
        """The worker that ran an attempt which is over; its code may have run in a child of it."""
        of = (one["worker"] for one in self.tries if int(one["attempt"]) == attempt)
        return int(next(of, "?:0:?").split(":")[1])

    def of(self, what: str, attempt: int | None = None) -> list[Deed]:
        """Its deeds of one kind, of one attempt or of all."""
        return [d for d in self.deeds if d.what == what and attempt in {None, d.attempt}]


@dataclass
class Evidence:
    """All that is known of the run. All moments are monotonic seconds but those of the store."""

    lease_s: float
    epoch: float
    """What to add to a monotonic moment to compare it with the store's clock."""
    slack_s: float
    """How late what has no time of its own may be; see also `late_s`."""
    late_s: float = 0.0
    """The longest that the machine let a process wait for its turn."""
    stories: dict[str, Story] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    owned: set[str] = field(default_factory=set)
    """Ids that stand in the index of an owner."""
    left: list[str] = field(default_factory=list)
    """What is left in the store or on the machine and should not be."""

    def story(self, job_id: str) -> Story:
        return self.stories.setdefault(job_id, Story(job_id))

    @property
    def accepted(self) -> list[Story]:
        """The jobs whose start was acknowledged."""
        return [story for story in self.stories.values() if story.accepted]

    def store_was_out(self, begin: float, end: float) -> bool:
        """True if the store was hit between these moments."""
        return any(h.pid == 0 and h.at <= end and h.until >= begin for h in self.hits)

    def stopped(self, pid: int, begin: float, end: float) -> bool:
        """True if this process was frozen between these moments, or had ended."""
        frozen = any(
            h.pid == pid and h.kind.startswith("freeze") and h.at <= end and h.until >= begin
            for h in self.hits
        )
        return frozen or any(d.pid == pid and d.at <= end for d in self.deaths)

    def take_events(self, events: Iterable[dict[str, Any]]) -> None:
        """Sort what the workers told to the jobs that it is about."""
        for event in events:
            match event["event"]:
                case "accepted":
                    self.story(event["id"]).accepted.append(event)
                case "finished":
                    self.story(event["id"]).finished.append(event)
                case "watching":
                    self.story(event["id"]).watched.setdefault(event["watcher"], [])
                case "seen":
                    self.story(event["id"]).watched[event["watcher"]].append(event)

    def take_deeds(self, folder: Path) -> None:
        """Read what the tasks wrote."""
        for path in folder.glob("job.*"):
            story = self.story(path.name.removeprefix("job."))
            for line in path.read_text().splitlines():
                what, attempt, pid, at, number = line.split()
                story.deeds.append(Deed(what, int(attempt), int(pid), float(at), int(number)))

    def tell(self, story: Story) -> str:
        """The whole story of one job, in the order of time, for whoever has to find the cause."""
        lines: list[tuple[float, str]] = []
        lines += [
            (e["at"], f"accepted by {e['pid']}, reused={e['reused']}") for e in story.accepted
        ]
        lines += [(s.at, f"heard {_short(s.fields)}") for s in story.heard]
        lines += [(s.at, f"read  {_short(s.fields)}") for s in story.read]
        lines += [(d.at, f"task {d.what} {d.number}, attempt {d.attempt}, pid {d.pid}")
                  for d in story.deeds if d.what not in {"begin", "item"}]  # fmt: skip
        lines += [(d[-1].at, f"items {d[0].number} to {d[-1].number}, attempt {a}, pid {d[0].pid}")
                  for a in _attempts(story) if (d := story.of("item", a))]  # fmt: skip
        lines += [(e["at"], f"end written by {e['pid']}: {e['state']}, attempt {e['attempt']}")
                  for e in story.finished]  # fmt: skip
        begin = min((at for at, _ in lines), default=0.0) - self.lease_s
        end = max((at for at, _ in lines), default=0.0) + self.lease_s
        lines += [(h.at, f"       ! {h.kind} of {h.pid or 'the store'} for {h.until - h.at:.2f} s")
                  for h in self.hits if begin < h.at < end]  # fmt: skip
        lines += [(d.at, f"       ! {d.pid} ended with {d.code}")
                  for d in self.deaths if begin < d.at < end]  # fmt: skip
        told = "\n".join(f"  {at:.3f} {text}" for at, text in sorted(lines))
        return f"job {story.id}\n{told}\n  record {dict(story.record)}\n  tries {story.tries}"


def _attempts(story: Story) -> list[int]:
    return sorted({deed.attempt for deed in story.deeds})


def _short(fields: Fields) -> str:
    shown = {k: v for k, v in fields.items() if k not in {"progress", "args", "options", "id"}}
    progress = json.loads(fields.get("progress", "{}"))
    return f"{shown} {progress.get('done')}/{progress.get('total')} {progress.get('ratio')}"


def by_key(stories: Iterable[Story]) -> dict[str, list[Story]]:
    """The jobs of each single-flight key."""
    found: defaultdict[str, list[Story]] = defaultdict(list)
    for story in stories:
        if key := story.record.get("key"):
            found[key].append(story)
    return found
