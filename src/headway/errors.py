"""Everything Headway raises, as one tree.

    HeadwayError
    ├── NotOpen                  used before it was opened, or after it was closed
    ├── TaskError                a task registered twice, or unknown to this process
    ├── BadInput (ValueError)    a value Headway cannot accept: total, key, id, options
    │   └── TooLarge             … because of its size
    ├── StoreError               the store answered with an error
    │   ├── StoreUnavailable     … or did not answer
    │   ├── StoreFull            … has no memory left
    │   └── StoreReadOnly        … is a replica, or its disk failed
    ├── StartRefused             a job was not accepted, although the store could
    │   ├── TooMany              … its owner has, or starts, too many
    │   ├── AlreadyRunning       … its key is taken, and `using(if_running="refuse")` was said
    │   ├── KeyInFlight          … the request with this Idempotency-Key is still being handled
    │   ├── KeyReused            … its Idempotency-Key was used for something else
    │   └── KeySpent             … its Idempotency-Key started a job that is gone
    ├── ServerError              the embedded Valkey cannot run here
    ├── JobNotFound              no such job, or it has expired
    ├── JobNotFinished           its result was asked for too early
    ├── JobFailed                its result was asked for, but it failed or was cancelled
    └── JobError                 raised by tasks: the only error text that leaves the server

`JobCancelled` stands outside the tree on purpose: it is a `CancelledError`, so that the
`except Exception` of a task does not swallow the wish to stop it.
"""

from __future__ import annotations

import asyncio

__all__ = [
    "AlreadyRunning",
    "BadInput",
    "HeadwayError",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFinished",
    "JobNotFound",
    "KeyInFlight",
    "KeyReused",
    "KeySpent",
    "NotOpen",
    "ServerError",
    "StartRefused",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreUnavailable",
    "TaskError",
    "TooLarge",
    "TooMany",
]


class HeadwayError(Exception):
    """Catch this to catch everything that Headway raises."""


class NotOpen(HeadwayError):
    """Headway was used before it was opened, or after it was closed."""

    def __init__(self, act: str) -> None:
        super().__init__(
            f"cannot {act}: Headway is not open. Open it with the app (Headway(app) or "
            "init_app(app) in Quart, Starlette and FastAPI, headway.wrap(app) or "
            "lifespan=headway.lifespan elsewhere) or by hand with 'async with headway:'. An app "
            "that is mounted in another one is not opened with it: open it in the outer one. In a "
            "test, the lifespan has to run: 'async with app.test_app():' in Quart, "
            "'with TestClient(app):' in Starlette and FastAPI."
        )


class TaskError(HeadwayError):
    """A task was registered twice, or is not registered in this process."""


class BadInput(HeadwayError, ValueError):
    """A value that Headway cannot accept; the message says which and what to do."""


class TooLarge(BadInput):
    """A value over its size limit, in bytes of JSON unless the message says otherwise."""


class StoreError(HeadwayError):
    """The store answered with an error; its own words are in the message."""


class StoreUnavailable(StoreError):
    """The store cannot be reached. What was asked may or may not have happened."""


class StoreFull(StoreError):
    """The store has reached its memory limit and refuses to write."""


class StoreReadOnly(StoreError):
    """The store refuses to write: a replica, or a primary whose disk failed."""


class StartRefused(HeadwayError):
    """A job was not accepted. The doors answer the request with a problem document."""


class TooMany(StartRefused):
    """The owner has too many jobs at a time ("too_many_jobs"), or starts them too fast
    ("too_many_starts"). `again_s`: after so many seconds it may work."""

    def __init__(self, code: str, again_s: float) -> None:
        super().__init__(f"{code}: the limit for one owner is reached; see Limits")
        self.code = code
        self.again_s = again_s


class AlreadyRunning(StartRefused):
    """A job with this key is queued or running: `job_id`."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} has this key and has not ended")
        self.job_id = job_id


class KeyInFlight(StartRefused):
    """Another request with this Idempotency-Key is being handled just now."""


class KeyReused(StartRefused):
    """The Idempotency-Key was used before, with another task or other arguments."""


class KeySpent(StartRefused):
    """The Idempotency-Key was used before, and the job of then was forgotten or has expired."""


class ServerError(HeadwayError):
    """The embedded Valkey cannot run here, or did not start."""


class JobNotFound(HeadwayError, LookupError):
    """No job has this id, or it has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"no job {job_id!r}: the id is wrong, or the job ended long ago and has expired"
        )
        self.job_id = job_id


class JobNotFinished(HeadwayError):
    """The result was asked for while the job is still queued or running."""


class JobFailed(HeadwayError):
    """The result was asked for, but the job failed or was cancelled."""


class JobError(HeadwayError):
    """Raise it in a task to fail the job with a text that its owner may read.

    Args:
        text: shown to the owner as it is, as text and never as markup. Any other exception
            that leaves a task is shown as "Something went wrong" and stays in the log.
        code: a short stable word for API clients, such as "no_such_file".
    """

    def __init__(self, text: str, *, code: str = "error") -> None:
        super().__init__(text)
        self.code = code


class JobCancelled(asyncio.CancelledError):
    """Raised inside a task that runs in a thread, at its next call of `Progress`, to stop it."""
