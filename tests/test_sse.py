"""The bytes of an event stream, read back by a parser written after the standard alone."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway._sse import END, frame, last_seen, message, retry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
EVENTS = st.sampled_from(["job", "hb", "bye", "end", "gone"])
IDS = st.none() | st.integers(min_value=0, max_value=10**12).map(str) | st.just(END)


class Event(NamedTuple):
    """What a browser would dispatch."""

    type: str
    data: str
    last_event_id: str


class Stream:
    """WHATWG HTML 9.2.6, "Interpreting an event stream"."""

    def __init__(self, body: bytes) -> None:
        self.events: list[Event] = []
        self.reconnect_ms: int | None = None
        self._last_event_id = self._type = ""
        self._data: list[str] = []
        lines = re.split("\r\n|\r|\n", body.decode().removeprefix("\ufeff"))
        for line in lines[:-1]:  # what stands behind the last line break is no line yet
            self._line(line)

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._last_event_id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.reconnect_ms = int(value)

    def _dispatch(self) -> None:
        if self._data:
            data = "\n".join(self._data)
            self.events.append(Event(self._type or "message", data, self._last_event_id))
        self._type, self._data = "", []


@given(st.lists(st.tuples(EVENTS, JSON, IDS), max_size=5))
def test_frames_round_trip(sent: list[tuple[str, Any, str | None]]) -> None:
    """Whatever text a task says, each event arrives once, whole, under its name and id."""
    body = b"".join(frame(e, msgspec.json.encode(value), event_id=i) for e, value, i in sent)

    heard = Stream(body).events

    assert [(e, v) for e, v, _ in sent] == [(e.type, json.loads(e.data)) for e in heard]
    last = ""
    for (_, _, event_id), event in zip(sent, heard, strict=True):
        last = event_id if event_id is not None else last
        assert last == event.last_event_id


@given(JSON, st.data())
def test_half_a_frame_is_no_event(value: Any, data: st.DataObject) -> None:
    """A stream that breaks off in the middle of an event shows nothing of it."""
    whole = frame("job", msgspec.json.encode(value), event_id="7")
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))

    events = Stream(whole + whole[:cut].decode(errors="ignore").encode()).events

    assert len(events) == 1


@given(st.lists(st.tuples(st.text().filter(lambda text: "\0" not in text), IDS), max_size=5))
def test_messages_round_trip(sent: list[tuple[str, str | None]]) -> None:
    """Whatever lines a text has, it arrives as one event without a name, whole."""
    body = b"".join(message(text, event_id=i) for text, i in sent)

    heard = Stream(body).events

    assert [re.sub("\r\n|\r", "\n", text) for text, _ in sent] == [e.data for e in heard]
    assert {e.type for e in heard} <= {"message"}


@pytest.mark.parametrize("breaking", [b"1\n", b"\r", b'{"a":\n1}'])
def test_frame_refuses_line_breaks(breaking: bytes) -> None:
    """Data that could end its line is not JSON as we write it, and never sent."""
    with pytest.raises(AssertionError, match="JSON escapes line breaks"):
        frame("job", breaking)


def test_retry_tells_the_pause() -> None:
    """The client learns how long to wait, and no event comes of it."""
    stream = Stream(retry(2500))

    assert stream.reconnect_ms == 2500
    assert stream.events == []


@pytest.mark.parametrize("header", ["0", "12", END, "9" * 20])
def test_last_seen_knows_our_ids(header: str) -> None:
    """An id that we could have sent is taken."""
    assert header == last_seen(header)


@pytest.mark.parametrize(
    "header", [None, "", " ", "1 2", "-1", "1.5", "²", "１２", "9" * 21, "<script>", "1\n2", "\0"]
)
def test_last_seen_drops_garbage(header: str | None) -> None:
    """What we cannot have sent counts as nothing seen."""
    assert last_seen(header) is None


@given(st.text())
def test_last_seen_answers_for_any_text(header: str) -> None:
    """Any header gets an answer: itself or nothing."""
    assert last_seen(header) in {header, None}
