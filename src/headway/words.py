"""What is said of a job where the element does not say it, in the same words. Pure.

It is given status documents, of a store or from a stranger's server: texts in them are made plain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from math import ceil, floor
from typing import Any, Final

from headway.job import State, plain

__all__ = [
    "SAID", "Doc", "amount", "clock", "counts", "details", "elapsed_s", "percent", "reason",
    "state_of", "time_left", "title",
]  # fmt: skip

Doc = Mapping[str, Any]
"""A status document, as JSON has it."""

FINISHING: Final = 0.99
SOON_S: Final = 10.0

SAID: Final = {
    "connecting": "Connecting…",
    "queued": "Waiting to start",
    "running": "Running",
    "finishing": "Finishing…",
    "stalled": "The worker is silent",
    "retrying": "To be tried again",
    "reconnecting": "Reconnecting…",
    "cancelling": "Cancelling…",
    "cancelled": "Cancelled",
    "succeeded": "Done!",
    "failed": "Failed",
    "gone": "No longer available",
    "forbidden": "You may not see this",
}
"""What each state is called; the keys are the words for scripts."""


def state_of(job: Doc, now: float) -> str:
    """How the job is, in one word: its state, or what says more. *now*: seconds of the epoch; 0 if
    an attempt that is to come counts as such, however late it is."""
    if job["state"] in {State.SUCCEEDED, State.FAILED, State.CANCELLED}:
        return str(job["state"])
    if job["cancel_requested"]:
        return "cancelling"
    if (again_at := _seconds(job["retry_at"])) is not None and again_at > now:
        return "retrying"
    if job["state"] == State.QUEUED:
        return "queued"
    if job["stalled"]:
        return "stalled"
    ratio = job["progress"]["ratio"]
    return "finishing" if ratio is not None and ratio >= FINISHING else "running"


def title(job: Doc) -> str:
    return plain(job["title"])


def reason(job: Doc) -> str:
    """Why it failed; empty for what did not."""
    error = job["error"]
    if error is None or job["state"] != State.FAILED:
        return ""
    return " · ".join(plain(text) for text in (error["title"], error.get("detail")) if text)


def percent(ratio: float | None) -> str:
    """Rounded down: 100 % is for the end."""
    return "" if ratio is None else f"{floor(ratio * 100 + 1e-9)}%"


def amount(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def counts(measure: Doc) -> str:
    """How much of how much: a job's progress, or a stage."""
    done, total, unit = measure.get("done", 0), measure.get("total"), measure.get("unit")
    if total is None:
        return f"{amount(done)} {_named(unit, done)}" if done and unit else ""
    return f"{amount(done)} of {amount(total)} {_named(unit, total)}".rstrip()


def details(job: Doc, now: float) -> list[str]:
    """What else is to be said of a job that lives, the most important first."""
    progress, state = job["progress"], state_of(job, now)
    rate, unit = progress["rate_per_s"], progress["unit"]
    attempt = job["attempt"] + (job["state"] == State.QUEUED)  # the one that runs, or will
    again_s = (_seconds(job["retry_at"]) or now) - now
    resumed = job["resumed_ratio"]
    found = [
        "" if state in {"running", "finishing"} else SAID[state],
        f"again in {_time(again_s, 1)}" if state == "retrying" else "",
        counts(progress),
        f"{amount(rate)} {_named(unit, 2)}/s" if rate and unit and state == "running" else "",
        time_left(job, now) if state == "running" else "",
        f"attempt {attempt} of {job['max_attempts']}" if attempt > 1 else "",
        f"resumed at {percent(resumed)}" if resumed else "",
        plain(job["note"]) if job["note"] else "",
    ]
    return [text for text in found if text]


def time_left(job: Doc, now: float) -> str:
    if job["eta_s"] is None:
        return ""
    left = job["eta_s"] - max(0.0, now - (_seconds(job["updated_at"]) or now))
    return "a few seconds left" if left < SOON_S else f"about {_time(left, 10)} left"


def elapsed_s(job: Doc, now: float) -> float | None:
    """Seconds since its first attempt began, or until it ended."""
    began = _seconds(job["started_at"])
    if began is None:
        return None
    return max(0.0, (_seconds(job["finished_at"]) or now) - began)


def clock(seconds: float | None) -> str:
    """In digits, as on a clock."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _time(seconds: float, step: int) -> str:
    """In words, rounded; seconds to *step*."""
    sizes = {"day": 86_400, "hour": 3_600, "minute": 60}
    name, size = next(((n, s) for n, s in sizes.items() if seconds > s * 1.5), ("second", 1))
    count = round(seconds / size) if size > 1 else ceil(seconds / step) * step
    return f"{count} {_named(name, count)}"


def _named(unit: str | None, n: float) -> str:
    unit = plain(unit) if unit else ""
    if not unit or n == 1 or re.search(r"[A-Zs%]$", unit):
        return unit
    return re.sub(r"(x|ch|sh)$", r"\1e", re.sub(r"([^aeiou])y$", r"\1ie", unit)) + "s"


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.fromisoformat(time).timestamp()
