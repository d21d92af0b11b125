"""What a job is: its states, the transitions between them, and the frozen snapshot `Job`.

Pure: it reads no clock and no socket. The record in the store is a flat mapping of strings;
`Job.from_record` is the only place that gives those strings their types.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from base64 import b32encode
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import msgspec

from headway.errors import BadInput, TooLarge

__all__ = [
    "EVERYONE",
    "REPORT",
    "TRANSITIONS",
    "Attempt",
    "Failure",
    "Job",
    "Reading",
    "StageReading",
    "State",
]

PARTITIONS: Final = 64  # enough to spread over any cluster; part of every id, so never lowered
NOTE_CHARS: Final = 500
REPORT: Final = "headway.report"  # the task of jobs that somebody else runs; see `Headway.report()`
NAME_CHARS: Final = 200
ARGS_BYTES: Final = 64 * 1024
RESULT_BYTES: Final = 64 * 1024
TRACE_CHARS: Final = 16_000  # the end of a traceback says what happened
CHECKPOINT_BYTES: Final = 64 * 1024
EVERYONE: Final = "*"
"""Owner of a job that every visitor may watch. Only operators may cancel it."""

ID: Final = "[0-9a-f]{2}[a-z2-7]{26}"  # also what other languages take for a pattern
_ID = re.compile(rf"{ID}\Z")


class State(StrEnum):
    """Where a job stands. The last three are terminal: a job that ended never un-ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True once nothing more can happen to the job."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

TRANSITIONS: Final[Mapping[tuple[State, str], frozenset[State]]] = {
    (State.QUEUED, "claim"): frozenset({State.RUNNING}),
    (State.QUEUED, "cancel"): frozenset({State.CANCELLED}),
    (State.QUEUED, "reap"): frozenset({State.QUEUED}),
    (State.QUEUED, "release"): frozenset({State.QUEUED}),
    (State.RUNNING, "beat"): frozenset({State.RUNNING}),
    (State.RUNNING, "cancel"): frozenset({State.RUNNING}),
    (State.RUNNING, "finish"): _TERMINAL,
    (State.RUNNING, "release"): frozenset({State.QUEUED, State.CANCELLED}),
    (State.RUNNING, "reap"): frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
}
"""(state, act) → the states it may lead to. An act that is not listed changes nothing; but a queued
job whose claim a failover has lost is first claimed again by the attempt that runs."""


class StageReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stage of a job as it was at one moment."""

    name: str
    done: int | float = 0
    total: int | float | None = None
    ratio: float | None = None
    unit: str | None = None
    depth: int = 0


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a job was at one moment.

    `ratio` is 0 to 1, never falls within an attempt and stays at or below 0.99 until the job
    has succeeded; None while nothing is known about the size of the work. `rate_per_s` is in
    `unit` per second, `eta_s` in seconds; both None while they would be a guess.
    """

    done: int | float = 0
    total: int | float | None = None
    ratio: float | None = None
    unit: str | None = None
    rate_per_s: float | None = None
    eta_s: float | None = None
    note: str | None = None
    stages: tuple[StageReading, ...] = ()
    stalled: bool = False
    resumed_ratio: float | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a job failed, in words that its owner may read."""

    code: str
    title: str
    detail: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was at one moment. It never changes: ask again for a newer one.

    All `…_at` are seconds since the epoch, by the store's clock; None until it happened.
    `rev` rises with every change, so that of two snapshots the higher one is the newer.
    `reused` is True on the snapshot that `start()` returns when a job with the same key was
    already running. `result` is what the task returned, as plain JSON values.
    """

    id: str
    task: str
    title: str
    state: State
    attempt: int
    max_attempts: int
    rev: int
    progress: Reading
    owner: str | None
    created_at: float
    updated_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    retry_at: float | None = None
    error: Failure | None = None
    result: Any = None
    cancel_requested: bool = False
    reused: bool = False

    @property
    def note(self) -> str | None:
        """The last text that the task noted."""
        return self.progress.note

    @property
    def stalled(self) -> bool:
        """True while the job lives but has reported nothing for long."""
        return self.progress.stalled and self.state is State.RUNNING

    def expired(self, now: float) -> bool:
        """True once it is to be taken for forgotten, though it may not have been removed yet."""
        return self.expires_at is not None and self.expires_at < now

    @classmethod
    def from_record(cls, record: Mapping[str, str], *, reused: bool = False) -> Job:
        """Give the strings of a store record their types."""
        state = State(record["state"])
        return cls(
            id=record["id"],
            task=record["task"],
            title=record.get("title") or record["task"],
            state=state,
            attempt=int(record["attempt"]),
            max_attempts=int(record["max_attempts"]),
            rev=int(record["rev"]),
            progress=_reading(record.get("progress")),
            owner=record.get("owner") or None,
            created_at=int(record["created"]) / 1000,
            updated_at=int(record["updated"]) / 1000,
            started_at=_seconds(record.get("started")),
            finished_at=_seconds(record.get("finished")),
            expires_at=_seconds(record.get("expires")),
            retry_at=_seconds(record.get("retry_at")),
            error=_failure(record.get("error")),
            result=msgspec.json.decode(record["result"]) if record.get("result") else None,
            cancel_requested=record.get("cancel") == "1",
            reused=reused,
        )

    def updated(self, told: Mapping[str, str]) -> Job:
        """The same job after an announcement, which carries every field that can change."""
        fixed = {
            "id": self.id,
            "task": self.task,
            "title": self.title,
            "owner": self.owner or "",
            "max_attempts": str(self.max_attempts),
            "created": str(round(self.created_at * 1000)),
        }
        return Job.from_record({**fixed, **told})


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that is over. For operators: the trace and the worker are no business of owners.

    `outcome` is the state it led to, or "released" (given back, or to be tried again), or "lost".
    """

    attempt: int
    outcome: str
    worker: str
    began_at: float | None
    ended_at: float | None
    error: Failure | None = None
    trace: str | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> Attempt:
        """Give the strings of a store record their types."""
        return cls(
            attempt=int(record["attempt"]),
            outcome=record["outcome"],
            worker=record.get("worker", ""),
            began_at=_seconds(record.get("began")),
            ended_at=_seconds(record.get("ended")),
            error=_failure(record.get("error")),
            trace=record.get("trace"),
        )


def _seconds(ms: str | None) -> float | None:
    return int(ms) / 1000 if ms else None


_decode_reading = msgspec.json.Decoder(Reading).decode
_decode_failure = msgspec.json.Decoder(Failure).decode
_NOTHING_YET = Reading()


def _reading(text: str | None) -> Reading:
    return _decode_reading(text) if text else _NOTHING_YET


def _failure(text: str | None) -> Failure | None:
    return _decode_failure(text) if text else None


def new_id(partitions: int, *, flight: str | None = None) -> str:
    """Make a job id: its partition as two hex digits, then 128 random bits.

    With `flight` the partition follows from it, so that all jobs of one single-flight key
    live in one slot of a cluster.
    """
    if flight is None:
        partition = secrets.randbelow(partitions)
    else:
        partition = int(flight[:8], 16) % partitions
    return f"{partition:02x}{_letters(secrets.token_bytes(16))}"


def child_id(parent: str, number: int) -> str:
    """The id of the *number*-th job that a job starts: always the same, and as hard to guess."""
    digest = blake2b(f"{parent} {number}".encode(), digest_size=16).digest()
    return parent[:2] + _letters(digest)


def id_of(partitions: int, what: str, *, flight: str | None = None) -> str:
    """As `new_id()`, but it follows from *what*: whoever makes it again gets the same one."""
    digest = blake2b(what.encode(), digest_size=17).digest()
    partition = digest[0] if flight is None else int(flight[:8], 16)
    return f"{partition % partitions:02x}{_letters(digest[1:])}"


def _letters(raw: bytes) -> str:
    return b32encode(raw).decode().rstrip("=").lower()


def is_id(text: str) -> bool:
    """True if *text* has the form of a job id; it says nothing about whether the job exists."""
    return _ID.match(text) is not None


def flight_of(task: str, owner: str | None, key: str) -> str:
    """Digest of what a single-flight key means: the same task, for the same owner."""
    said = msgspec.json.encode([task, owner, key])
    return blake2b(said, digest_size=16).hexdigest()


def plain(text: object, limit: int = NOTE_CHARS) -> str:
    """Make *text* fit to be shown: one line, no control or direction-changing characters.

    Nothing is escaped: it stays text, and whoever shows it must show it as text.
    """
    kept = "".join(
        " " if c.isspace() else c
        for c in str(text)[: limit * 4]
        if c.isspace() or unicodedata.category(c) not in _UNSHOWN
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


_UNSHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # Cf holds the bidi overrides


def to_json(value: object, *, what: str, limit: int, cure: str) -> str:
    """Encode *value* as JSON, or say what is wrong with it.

    Raises:
        BadInput: it is not made of JSON values.
        TooLarge: it is over *limit* bytes.
    """
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadInput(f"{what} cannot be written as JSON: {error}. {cure}") from error
    if len(text) > limit:
        raise TooLarge(f"{what}: {len(text)} bytes, the limit is {limit}. {cure}")
    return text.decode()
