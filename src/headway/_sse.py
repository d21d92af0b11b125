"""The bytes of an event stream. Pure.

Source: WHATWG HTML, section 9.2 "Server-sent events". Every `data:` here is JSON on one line, or a
fragment of HTML of which each line is said to be data; so no text of a task can end an event, or
begin one. `id:` and `event:` are our own words.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["CONTENT_TYPE", "END", "frame", "last_seen", "message", "retry"]

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
END: Final = "end"
"""The id of the last event of a stream: whoever comes back with it needs no new one."""
_BREAK: Final = re.compile("\r\n|\r|\n")  # not splitlines(): it knows more than the standard does


def frame(event: str, data: bytes, *, event_id: str | None = None) -> bytes:
    """One event. *data* is JSON as msgspec writes it: without line breaks."""
    assert not {10, 13} & set(data), "JSON escapes line breaks"
    head = f"event: {event}\n" + (f"id: {event_id}\n" if event_id is not None else "")
    return head.encode() + b"data: " + data + b"\n\n"


def message(text: str, *, event_id: str | None = None) -> bytes:
    """One event without a name. *text* arrives with its line breaks as LF, and without NUL."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    data = "".join(f"data: {line}\n" for line in _BREAK.split(text))
    return f"{head}{data}\n".encode()


def retry(ms: int) -> bytes:
    """Tell the client how many milliseconds to wait before it reconnects."""
    return f"retry: {ms}\n\n".encode()


def last_seen(header: str | None) -> str | None:
    """The id in a `Last-Event-ID` header; None if it is missing or nothing we could have sent."""
    if header is None or not header.isascii() or not header.isalnum() or len(header) > 20:
        return None
    return header
