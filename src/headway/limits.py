"""What strangers, and tasks, may send and hold. Pure; every number can be set, none is unlimited
unless it says so."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from headway.errors import BadInput
from headway.job import ARGS_BYTES, CHECKPOINT_BYTES, NOTE_CHARS, RESULT_BYTES

__all__ = ["LIMITS", "LOG_LINES", "Limits"]

LOG_LINES: Final = 500

LOG_LINES_MOST: Final = 5_000  # what one call of Lua's unpack can take, with room
_MAY_BE_NONE = frozenset({"jobs_per_owner", "starts_per_minute"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one app: `Headway(limits=Limits(streams_per_owner=20))`. Each is 1 or more.

    Args:
        streams_per_owner: event streams that one owner has open in one process; then 429. A page
            needs one, however many bars it shows, and none while it is hidden.
        streams_per_process: event streams open in one process; then 503. Pages go on by polling;
            as many polls as streams, for each of both limits, are kept waiting for a change.
        send_s: seconds in which the client of a stream has to take something of what is sent;
            then it is given up.
        ids_per_stream: jobs in one stream or one batch; then 400.
        jobs_per_owner: queued and running jobs of one owner that were started by requests; then
            429. None sets no limit. Jobs that other code starts are not counted.
        starts_per_minute: starts by requests of one owner (or one `rate_key`), all of them at once
            or spread; then 429. None sets no limit.
        args_bytes: arguments of a job, as JSON.
        result_bytes: what a task returns, as JSON.
        checkpoint_bytes: what `checkpoint()` is given, as JSON.
        progress_bytes: one reading as JSON; over it the oldest stages are not shown.
        note_chars: a note; what is over is cut off.
        log_chars: one line of the log; what is over is cut off.
        log_lines: lines of the log that are kept, the newest ones; at most 5,000.
    """

    streams_per_owner: int = 10
    streams_per_process: int = 2_000
    send_s: int = 30
    ids_per_stream: int = 50
    jobs_per_owner: int | None = 20
    starts_per_minute: int | None = 60
    args_bytes: int = ARGS_BYTES
    result_bytes: int = RESULT_BYTES
    checkpoint_bytes: int = CHECKPOINT_BYTES
    progress_bytes: int = 16 * 1024
    note_chars: int = NOTE_CHARS
    log_chars: int = 2_000
    log_lines: int = LOG_LINES

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if not isinstance(value, int) or value < 1:
                raise BadInput(f"limit {name} {value!r}: give a whole number, 1 or more")
        if self.log_lines > LOG_LINES_MOST:
            raise BadInput(f"limit log_lines {self.log_lines}: give at most 5,000")


LIMITS: Final = Limits()
"""What holds if nothing is said."""
