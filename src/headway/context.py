"""What travels with a job beside its work: which request wanted it, and which trace it is part of.

And `About`, what a line of the log is about; it is current while a job's code runs, and while
Headway answers a request. Pure but for that one context variable.
"""

from __future__ import annotations

import re
import secrets
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Final, NamedTuple

import msgspec

__all__ = ["About", "Context", "about", "current_about", "extra", "request_id_of"]

TRACESTATE_CHARS: Final = 512  # Source: W3C Trace Context, section 3.3.1.5
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}\Z")


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a job comes from. A fixed field of its record, so that every process has it.

    `traceparent` and `tracestate` are those of the span in which it was started.
    """

    request_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def encoded(self) -> str:
        """As the record holds it; nothing if there is nothing to tell."""
        return "" if self == _NOWHERE else msgspec.json.encode(self).decode()

    @classmethod
    def decoded(cls, text: str | None) -> Context:
        """Read it back; what another version wrote, and cannot be read, is nothing."""
        if not text:
            return _NOWHERE
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return _NOWHERE


_NOWHERE: Final = Context()


class About(NamedTuple):
    """What a line of the log is about; None where there is nothing to say."""

    job_id: str | None = None
    task: str | None = None
    attempt: int | None = None
    request_id: str | None = None


_NOTHING: Final = About()
_about: ContextVar[About] = ContextVar("headway_about", default=_NOTHING)


def current_about() -> About:
    """What is being done here and now."""
    return _about.get()


def about(what: About) -> AbstractContextManager[None]:
    """While the block runs, this is what is being done."""
    return _Doing(what)


class _Doing:
    # Written out: what the decorator makes costs three times as much, and every job pays.
    __slots__ = ("_token", "_what")

    def __init__(self, what: About) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._token = _about.set(self._what)

    def __exit__(self, *_: object) -> None:
        _about.reset(self._token)


def extra(action: str, what: About | None = None) -> dict[str, str | int]:
    """For `extra=` of a record of Headway: what happened, in one word, and to which job."""
    said = (what if what is not None else _about.get())._asdict()
    return {"action": action, **{name: value for name, value in said.items() if value is not None}}


def request_id_of(sent: str | None) -> str:
    """The id of a request: the X-Request-ID that was *sent*, if it may be kept; or a new one.

    It ends up in logs and in the store: up to 128 letters, digits and `_.:/+=@-` are kept.
    """
    if sent is not None and _REQUEST_ID.match(sent):
        return sent
    return secrets.token_hex(16)
