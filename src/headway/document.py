"""The status document: a job as clients see it, the same in answers, events and pages. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headway.job import Attempt, Job, State
from headway.tokens import Viewer

__all__ = ["document", "rfc3339", "tried"]


def document(job: Job, base: str, viewer: Viewer) -> dict[str, Any]:
    """The status document: the same in answers, events and pages. Times are RFC 3339, UTC.

    Only its links depend on who asks: they name what the viewer may do now.
    """
    here = f"{base}/{job.id}"
    ended = job.state.terminal
    again = job.state in {State.FAILED, State.CANCELLED} and viewer.may_change(job)
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


def tried(attempt: Attempt) -> dict[str, Any]:
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


def rfc3339(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
