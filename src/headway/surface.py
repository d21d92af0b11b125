"""What can be done at which address, and what comes of it: one table. Pure.

The routes are made of it, and so is the OpenAPI document: what is not told here is not served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from headway import pages
from headway.document import (
    Attempts,
    Batch,
    Bye,
    Document,
    End,
    Gone,
    Health,
    Heartbeat,
    Log,
    Page,
)

__all__ = [
    "EVENTS", "HTML", "JSON", "OPERATIONS", "PROBE", "START", "STREAM", "Bounds", "Operation",
    "Success",
]  # fmt: skip

JSON: Final = "application/json"
HTML: Final = "text/html"
STREAM: Final = "text/event-stream"

EVENTS: Final = {"job": Document, "gone": Gone, "hb": Heartbeat, "end": End, "bye": Bye}
"""What a stream says, and the shape of its data. As HTML, a job comes without a name."""


_NOTHING: Final[Mapping[str, Any]] = {}


class Bounds(NamedTuple):
    """A number in a query: what it is without it, and what it may be."""

    default: float
    least: float
    most: float


PROBE: Final = {"seconds": Bounds(3.0, 0.05, 300.0), "every": Bounds(0.5, 0.05, 60.0)}
"""How long a probe takes, and the seconds between two of its heartbeats."""


class Success(NamedTuple):
    """One good answer of an operation.

    Args:
        body: content type → shape; a shape of None is any content of that type.
        sends: headers that it always has, besides Cache-Control.
        may_send: headers that it has if there is something to say.
    """

    status: int
    text: str
    body: Mapping[str, Any] = _NOTHING
    sends: tuple[str, ...] = ()
    may_send: tuple[str, ...] = ()


class Operation(NamedTuple):
    """What can be done at one address.

    Args:
        path: below the mount.
        takes: its parameters, by their names in the OpenAPI document.
        may_send: headers that its problems have if there is something to say.
    """

    name: str
    method: str
    path: str
    text: str
    answers: tuple[Success, ...]
    problems: tuple[str, ...]
    takes: tuple[str, ...] = ()
    may_send: tuple[str, ...] = ()


_ANY: Final = ("internal", "not_open")
_STORE: Final = (*_ANY, "store_unavailable", "store_refuses")
_READ: Final = (*_STORE, "not_found", "expired")
_CHANGE: Final = (*_READ, "cross_origin", "not_yours")
_KEYED: Final = ("bad_key", "key_in_flight", "key_reused", "key_spent")
_GATE: Final = ("too_many_jobs", "too_many_starts")
_FULL: Final = ("cross_origin", "too_many_streams", "streams_full")

_CACHED: Final = ("ETag", "Vary")
_UNCHANGED: Final = Success(
    304, "It is as it was.", {}, _CACHED, ("Preference-Applied", "Retry-After")
)
_FORM: Final = Success(
    303,
    "For a form that a browser has sent: its page, or the list it came from.",
    {},
    ("Location",),
)
_TOLD: Final = {JSON: Document, HTML: None}
_GOES_ON: Final = ("Location",)
_STREAM: Final = Success(200, "The stream.", {STREAM: EVENTS}, ("X-Accel-Buffering",))
_OVER: Final = Success(204, "The stream that Last-Event-ID names had come to its end.")

OPERATIONS: Final = (
    Operation(
        "list", "GET", "",
        "Several jobs: those of the ids, or the newest of who asks; as JSON, or for browsers a "
        "page. With If-None-Match and Prefer: wait, the answer comes with the next change.",
        (
            Success(
                200, "The jobs, newest first, or as asked for.", {JSON: Batch, HTML: None},
                _CACHED, ("Preference-Applied",),
            ),
            _UNCHANGED,
        ),
        (*_STORE, "no_ids", "too_many_ids"), ("id", "If-None-Match", "Prefer"),
    ),
    Operation(
        "watch_many", "GET", "/events",
        "A stream of the changes of several jobs, until all of them have ended.",
        (_STREAM, _OVER), (*_STORE, *_FULL, "bad_query", "no_ids", "too_many_ids"),
        ("ids", "as", "Last-Event-ID"),
    ),
    Operation(
        "overview", "GET", "/overview",
        "For operators: all jobs; what lives, the newest first, then what has ended, the latest "
        "first; and figures of all. As JSON, or for browsers a page. For everybody else there is "
        "nothing here.",
        (Success(200, "A page of them.", {JSON: Page, HTML: None}, ("Vary",)),),
        (*_STORE, "not_found", "bad_query"), ("state", "task", "owner", "after"),
    ),
    Operation(
        "health", "GET", "/health", "How this process is: for load balancers.",
        (
            Success(200, "It is well.", {JSON: Health}),
            Success(503, "It is not.", {JSON: Health}, ("Retry-After",)),
        ),
        _STORE,
    ),
    Operation(
        "probe", "GET", "/probe",
        "A stream of heartbeats that ends by itself: does it come through, and at once? "
        "`headway doctor` asks.",
        (_STREAM._replace(body={STREAM: {n: EVENTS[n] for n in ("hb", "end", "bye")}}),),
        (*_ANY, *_FULL, "bad_query"), ("seconds", "every"),
    ),
    Operation(
        "openapi", "GET", "/openapi.json", "This document.",
        (
            Success(200, "The document.", {JSON: dict[str, Any]}, ("ETag",)),
            Success(304, "It is as it was.", {}, ("ETag",)),
        ),
        _ANY, ("If-None-Match",),
    ),
    Operation(
        "static", "GET", "/static/{name}", "The element, and how it looks.",
        (
            Success(
                200, "The file.", {kind.partition(";")[0]: None for kind in pages.FILES.values()},
                _CACHED, ("Content-Encoding",),
            ),
            Success(304, "It is as it was.", {}, _CACHED),
        ),
        (*_ANY, "no_file"), ("name", "v", "If-None-Match"),
    ),
    Operation(
        "get", "GET", "/{id}",
        "A job, whatever its state; as JSON, or for browsers a page. With If-None-Match and "
        "Prefer: wait, the answer comes with the next change.",
        (
            Success(
                200, "The job.", {JSON: Document, HTML: None}, _CACHED,
                ("Preference-Applied", "Retry-After"),
            ),
            Success(
                303, "For a link with a share: the address without it.", {},
                ("Location",), ("Set-Cookie",),
            ),
            _UNCHANGED,
        ),
        _READ, ("job", "share", "If-None-Match", "Prefer"),
    ),
    Operation(
        "forget", "DELETE", "/{id}", "Forget a job that has ended, and all that belongs to it.",
        (Success(204, "It is forgotten."),),
        (*_CHANGE, "still_running"), ("job",),
    ),
    Operation(
        "forget_by_form", "POST", "/{id}/forget",
        "As DELETE of the job, which forms cannot send.",
        (
            Success(204, "It is forgotten."),
            Success(303, "For a form that a browser has sent: the list it came from.", {},
                    ("Location",)),
        ),
        (*_CHANGE, "still_running"), ("job",),
    ),
    Operation(
        "watch", "GET", "/{id}/events", "A stream of the changes of one job, until it has ended.",
        (_STREAM, _OVER), (*_READ, *_FULL, "bad_query"), ("job", "as", "Last-Event-ID"),
    ),
    Operation(
        "result", "GET", "/{id}/result", "What the task has returned.",
        (
            Success(200, "It.", {JSON: Any}, ("Vary",)),
            Success(
                303, 'The result names another address, as {"url": …}.', {},
                ("Location", "Vary"),
            ),
        ),
        (*_READ, "not_finished", "no_result"), ("job",),
    ),
    Operation(
        "log", "GET", "/{id}/log", "The newest lines that the task has logged.",
        (Success(200, "The lines.", {JSON: Log}, ("Vary",)),), _READ, ("job",),
    ),
    Operation(
        "attempts", "GET", "/{id}/attempts",
        "For operators: the attempts that are over. For everybody else there is nothing here.",
        (Success(200, "The attempts.", {JSON: Attempts}, ("Vary",)),),
        _READ, ("job",),
    ),
    Operation(
        "cancel", "POST", "/{id}/cancel", "Ask a job to stop. Asking again changes nothing.",
        (
            Success(200, "It had ended before.", _TOLD, _GOES_ON),
            Success(202, "It is asked; it is cancelled when its code has stopped.", _TOLD,
                    _GOES_ON, ("Retry-After",)),
            _FORM,
        ),
        _CHANGE, ("job",),
    ),
    Operation(
        "retry", "POST", "/{id}/retry",
        "Start the work of a failed or cancelled job again, as a new job. While that one lives, "
        "asking again leads to it.",
        (Success(202, "The new job.", _TOLD, _GOES_ON, ("Retry-After",)), _FORM),
        (*_CHANGE, *_KEYED, *_GATE, "not_failed"), ("job", "Idempotency-Key"),
    ),
)  # fmt: skip

START: Final = Operation(
    "start", "POST", "",
    "A route of the app that starts a job and answers with `headway.reply(job)`. Refer to it from "
    "the app's own document.",
    (
        Success(
            200, "With Prefer: wait, the result, if the job succeeds so soon.", {JSON: Any},
            ("Content-Location", "Preference-Applied", "Vary"),
            ("Idempotency-Replayed",),
        ),
        Success(
            202, "It is accepted.", _TOLD, _GOES_ON,
            ("Idempotency-Replayed", "Preference-Applied", "Retry-After", "Set-Cookie"),
        ),
        Success(
            303, "For a form that a browser has sent: the page of the job; or else its result.", {},
            ("Location",),
            ("Content-Location", "Idempotency-Replayed", "Preference-Applied", "Set-Cookie",
             "Vary"),
        ),
    ),
    (*_STORE, *_KEYED, *_GATE, "already_running", "too_large", "no_result"),
    ("Idempotency-Key", "Prefer"),
    ("Content-Location", "Idempotency-Replayed", "Preference-Applied", "Set-Cookie"),
)  # fmt: skip
