"""The status document: a job as clients see it, the same in answers, events and pages. Pure.

The shapes stand here as types. The types of the code, the OpenAPI document and the docs are made
of them, so that none can say what another does not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict, overload

from msgspec import Meta

from headway.job import ID, REPORT, Attempt, Failure, Job, StageReading, State
from headway.tokens import Viewer

__all__ = [
    "Attempts", "Batch", "Bye", "Document", "End", "Entry", "Figures", "Gone", "Health",
    "Heartbeat", "Links", "Log", "Measure", "Page", "Span", "Spread", "Tried", "document",
    "rfc3339", "tried",
]  # fmt: skip

Id = Annotated[str, Meta(pattern=f"^{ID}$")]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Path = Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]


class Measure(TypedDict):
    """How far a job is. `ratio` is null while the size of the work is unknown; it never falls
    within an attempt, and is 1 only when the job has succeeded."""

    done: Amount
    total: Amount | None
    ratio: Ratio | None
    unit: str | None
    rate_per_s: Amount | None
    stages: tuple[StageReading, ...]


class Links(TypedDict):
    """Where to go on; null is what the viewer may not do now, or what is not there."""

    self: Path
    events: Path
    log: Path
    cancel: Path | None
    result: Path | None
    retry: Path | None


class Document(TypedDict):
    """A job. `rev` rises with every change: of two documents the higher one is newer."""

    id: Id
    task: str
    title: str
    state: State
    rev: Count
    attempt: Count
    max_attempts: Count
    progress: Measure
    note: str | None
    eta_s: Amount | None
    stalled: bool
    cancel_requested: bool
    resumed_ratio: Ratio | None
    retry_at: Time | None
    created_at: Time
    started_at: Time | None
    updated_at: Time
    finished_at: Time | None
    expires_at: Time | None
    error: Failure | None
    result: Any
    links: Links


class Batch(TypedDict):
    """Several jobs. `gone` are those of the ids that are unknown, expired or someone else's."""

    jobs: list[Document]
    gone: list[str]


class Entry(TypedDict):
    """A job and whose it is. Its result is left out here: ask for the job itself."""

    owner: str | None
    job: Document


class Spread(TypedDict):
    """Durations in seconds: half are no longer than `p50`, 95 of 100 no longer than `p95`."""

    p50: Amount
    p95: Amount


class Span(TypedDict):
    """What has ended in one span of time, from `at` on. `wait_s`: how long those had waited that
    began at all; `run_s`: from their first attempt to their end."""

    at: Time
    succeeded: Count
    failed: Count
    cancelled: Count
    wait_s: Spread | None
    run_s: Spread | None


class Figures(TypedDict):
    """How it goes, all jobs together, whatever the filter. Made of the newest 500 ended jobs: the
    spans, each of `step_s`, reach back an hour, or as far as these do."""

    queued: Count
    running: Count
    step_s: Count
    spans: list[Span]
    wait_s: Spread | None
    run_s: Spread | None


class Page(TypedDict):
    """A page of all jobs. `after` asks for the next one; null: this is the last."""

    jobs: list[Entry]
    after: str | None
    figures: Figures


class Log(TypedDict):
    """The newest lines of a job's log, oldest first."""

    lines: list[str]


class Tried(TypedDict):
    """An attempt that is over, as operators see it."""

    attempt: Count
    outcome: str
    worker: str
    began_at: Time | None
    ended_at: Time | None
    error: Failure | None
    trace: str | None


class Attempts(TypedDict):
    """The attempts of a job that are over, oldest first."""

    attempts: list[Tried]


class Health(TypedDict):
    """How this process is. "draining": it is about to stop; "store": its store does not answer in
    time; "deaf": it reaches the store, but hears of no changes just now. `lag_s`: no change that
    watchers have not heard of is older; null if that is not known yet."""

    status: Literal["ok", "draining", "store", "deaf"]
    store_s: Amount | None
    lag_s: Amount | None
    live: bool
    streams: Count


class Heartbeat(TypedDict):
    """A sign of life. `live` is false while the server has lost its store: what is shown may be
    old."""

    now: Time
    live: bool


class Gone(TypedDict):
    """This job is unknown, expired, forgotten or someone else's."""

    id: str


class End(TypedDict):
    """All jobs of the stream are over. Whoever comes back with this event's id gets 204."""


class Bye(TypedDict):
    """The stream ends, the jobs do not: connect again."""

    reason: Literal["drain", "age", "revoked"]


def document(job: Job, base: str, viewer: Viewer) -> Document:
    """The status document: the same in answers, events and pages. Times are RFC 3339, UTC.

    Only its links depend on who asks: they name what the viewer may do now.
    """
    here = f"{base}/{job.id}"
    ended = job.state.terminal
    again = job.state in {State.FAILED, State.CANCELLED} and viewer.may_change(job)
    again = again and job.task != REPORT  # whoever runs it has to start it again
    reading = job.progress
    return {
        "id": job.id,
        "task": job.task,
        "title": job.title,
        "state": job.state,
        "rev": job.rev,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "progress": {
            "done": reading.done,
            "total": reading.total,
            "ratio": reading.ratio,
            "unit": reading.unit,
            "rate_per_s": reading.rate_per_s,
            "stages": reading.stages,
        },
        "note": reading.note,
        "eta_s": reading.eta_s,
        "stalled": job.stalled,
        "cancel_requested": job.cancel_requested,
        "resumed_ratio": reading.resumed_ratio,
        "retry_at": rfc3339(job.retry_at),
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "updated_at": rfc3339(job.updated_at),
        "finished_at": rfc3339(job.finished_at),
        "expires_at": rfc3339(job.expires_at),
        "error": job.error,
        "result": job.result,
        "links": {
            "self": here,
            "events": f"{here}/events",
            "log": f"{here}/log",
            "cancel": f"{here}/cancel" if not ended and viewer.may_cancel(job) else None,
            "result": f"{here}/result" if job.result is not None else None,
            "retry": f"{here}/retry" if again else None,
        },
    }


def tried(attempt: Attempt) -> Tried:
    """An attempt that is over, as operators see it."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "worker": attempt.worker,
        "began_at": rfc3339(attempt.began_at),
        "ended_at": rfc3339(attempt.ended_at),
        "error": attempt.error,
        "trace": attempt.trace,
    }


@overload
def rfc3339(seconds: float) -> str: ...
@overload
def rfc3339(seconds: None) -> None: ...
@overload
def rfc3339(seconds: float | None) -> str | None: ...
def rfc3339(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
