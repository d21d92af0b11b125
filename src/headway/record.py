"""What the store's answers say: records, announcements, and pairs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from headway.job import Job

__all__ = ["FIXED", "MUTABLE", "fields_of", "readable", "told", "two_by_two"]

logger = logging.getLogger("headway.store")

MUTABLE: Final = frozenset(
    (
        "rev",
        "state",
        "attempt",
        "max_attempts",
        "progress",
        "cancel",
        "error",
        "result",
        "started",
        "updated",
        "finished",
        "expires",
        "retry_at",
    )
)
"""Fields that an announcement replaces; the same list stands in `store.lua` as TOLD."""

FIXED: Final = ("task", "title", "owner", "args", "options", "on_lost", "max_attempts")
"""Fields that a second run of the same work has in common with the first."""

_decode: Final = msgspec.json.Decoder(list[str]).decode


def fields_of(flat: Any) -> dict[str, str]:
    """The fields of a record: of a script's answer, which is JSON, or of HGETALL's."""
    if isinstance(flat, str):
        flat = _decode(flat)
    if isinstance(flat, dict):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


def readable(record: Mapping[str, str]) -> Job | None:
    """The job of a record; None, and a line in the log, if it cannot be understood."""
    # What something else has written, or has half removed, must not hide the other jobs.
    try:
        return Job.from_record(record)
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        logger.error("the record of job %s cannot be read: %r", record.get("id"), error)
        return None


def two_by_two(flat: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs, of what an answer has one after another."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def told(message: str) -> dict[str, str]:
    """The fields that an announcement carries; absent ones of MUTABLE are no longer set."""
    fields: dict[str, str] = json.loads(message)
    return fields
