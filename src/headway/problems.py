"""Every problem document that Headway answers with: one table of stable codes. Pure.

Source: RFC 9457. `code` is ours; `type` is a URN made of it, so that nothing has to be looked up.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from headway.errors import (
    AlreadyRunning,
    JobNotFound,
    KeyInFlight,
    KeyReused,
    KeySpent,
    NotOpen,
    StoreError,
    StoreUnavailable,
    TooLarge,
    TooMany,
)
from headway.http import NO_STORE, NOSNIFF, Reply

__all__ = ["MEDIA_TYPE", "MORE", "PROBLEMS", "Problem", "Refused", "problem", "problem_of"]

MEDIA_TYPE: Final = "application/problem+json"
STORE_AGAIN_S: Final = 2
_VARY: Final = ("Vary", "Accept")  # browsers get a page instead


class Problem(NamedTuple):
    """What stands behind a code. `more` are the members that only some problems have."""

    status: int
    title: str
    detail: str | None = None
    more: tuple[str, ...] = ()


MORE: Final = {
    "limit": "How many there may be.",
    "state": "The state of the job.",
    "error": "Why the job failed: a word of its task, or one of Headway.",
    "job": "Where the job is that is in the way.",
}
"""What members mean that only some problems have."""


_PATIENCE: Final = "Nothing is lost. Try again in a moment."

PROBLEMS: Final = {
    "bad_query": Problem(400, "A field of the query cannot be understood"),
    "no_ids": Problem(400, "Say which jobs: ?id=…&id=…"),
    "too_many_ids": Problem(400, "Too many jobs at a time", more=("limit",)),
    "cross_origin": Problem(
        403, "Refused: this request comes from another site",
        "Send it from a page of the same origin, or without a browser.",
    ),
    "not_yours": Problem(403, "You may watch this job, but not change it"),
    "not_found": Problem(404, "No such job", "The id is wrong, or the job has expired."),
    "no_route": Problem(404, "There is nothing here"),
    "no_file": Problem(404, "There is no such file"),
    "method_not_allowed": Problem(405, "This method is not for this address"),
    "not_finished": Problem(409, "The job is not finished", more=("state",)),
    "no_result": Problem(409, "The job has no result", more=("state", "error")),
    "not_failed": Problem(409, "Only a failed or cancelled job can be tried again"),
    "still_running": Problem(
        409, "The job has not ended", "Cancel it first, or wait until it has ended.", ("state",)
    ),
    "already_running": Problem(409, "Please wait for current work to finish.", more=("job",)),
    "key_in_flight": Problem(
        409, "A request with this Idempotency-Key is being handled",
        "Send it again in a moment to get its answer.",
    ),
    "expired": Problem(410, "This job has expired"),
    "key_spent": Problem(
        410, "The job that this Idempotency-Key started is gone",
        "It was forgotten, or has expired. Use a new key for each new request.",
    ),
    "too_large": Problem(413, "Too much data for one job"),
    "key_reused": Problem(
        422, "This Idempotency-Key was used for another request",
        "Use a new key for each new request.",
    ),
    "bad_key": Problem(
        400, "The Idempotency-Key cannot be read", "Give 1 to 200 printable characters in quotes."
    ),
    "too_many_streams": Problem(
        429, "Too many open streams", "Close other pages, or poll with 'Prefer: wait=25'."
    ),
    "too_many_jobs": Problem(
        429, "Too much work at a time", "Wait until some of your jobs have ended."
    ),
    "too_many_starts": Problem(429, "Too many starts in a short time"),
    "internal": Problem(500, "Something went wrong"),
    "not_open": Problem(503, "The job service is not open"),
    "streams_full": Problem(
        503, "This server has no room for another stream", "Poll with 'Prefer: wait=25' instead."
    ),
    "store_unavailable": Problem(503, "The job store does not answer", _PATIENCE),
    "store_refuses": Problem(503, "The job store cannot write now", _PATIENCE),
}  # fmt: skip
"""By code."""


class Refused(Exception):
    """Carries a problem document out of a handler."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.reply = problem(code, **more)


def problem(
    code: str,
    *,
    title: str | None = None,
    detail: str | None = None,
    headers: list[tuple[str, str]] | None = None,
    again_s: float | None = None,
    **more: Any,
) -> Reply:
    """The problem document of *code*.

    Args:
        again_s: seconds for Retry-After.
        more: extension members.
    """
    known = PROBLEMS[code]
    assert set(more) <= set(known.more), f"{code} is documented without {sorted(more)}"
    body = {
        "type": f"urn:headway:{code}",
        "title": title or known.title,
        "status": known.status,
        "code": code,
    }
    if (said := detail or known.detail) is not None:
        body["detail"] = said
    again = [] if again_s is None else [("Retry-After", str(max(round(again_s), 1)))]
    return Reply(
        known.status,
        [("Content-Type", MEDIA_TYPE), _VARY, NO_STORE, NOSNIFF, *again, *(headers or [])],
        msgspec.json.encode({**body, **more}),
    )


_OF_ERRORS: Final[tuple[tuple[type[Exception], str, float | None], ...]] = (
    (JobNotFound, "not_found", None),
    (StoreUnavailable, "store_unavailable", STORE_AGAIN_S),
    (StoreError, "store_refuses", STORE_AGAIN_S),
    (KeyInFlight, "key_in_flight", 1),
    (KeyReused, "key_reused", None),
    (KeySpent, "key_spent", None),
    (NotOpen, "not_open", STORE_AGAIN_S),
)


def problem_of(error: Exception, base: str = "") -> Reply | None:
    """The answer to a request in which *error* was raised; None if it is the app's own mistake.

    The details stay in the log.
    """
    if isinstance(error, Refused):
        return error.reply
    if isinstance(error, TooMany):
        return problem(error.code, again_s=error.again_s)
    if isinstance(error, TooLarge):
        return problem("too_large", detail=str(error))
    if isinstance(error, AlreadyRunning):
        here = f"{base}/{error.job_id}"
        return problem("already_running", again_s=1, headers=[("Location", here)], job=here)
    for kind, code, again_s in _OF_ERRORS:
        if isinstance(error, kind):
            return problem(code, again_s=again_s)
    return None
