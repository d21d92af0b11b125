"""The facts about a job: ids, states, snapshots, texts that may be shown, values that travel."""

from __future__ import annotations

import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import BadInput, TooLarge
from headway.job import (
    PARTITIONS,
    TRANSITIONS,
    Failure,
    Job,
    Reading,
    State,
    flight_of,
    is_id,
    new_id,
    plain,
    to_json,
)

PARTITIONS_MAX = 256  # two hex digits

MS = st.integers(min_value=0, max_value=4_102_444_800_000)
COUNTS = st.integers(min_value=0, max_value=10**9)
TEXTS = st.text(max_size=20)


@st.composite
def records(draw: st.DrawFn) -> dict[str, str]:
    """A record as the store holds it: what is not set yet is absent."""
    fixed = {
        "id": new_id(PARTITIONS),
        "task": draw(st.from_regex(r"[a-z_]{1,20}", fullmatch=True)),
        "title": draw(TEXTS),
        "owner": draw(TEXTS),
        "state": draw(st.sampled_from(State)).value,
        "attempt": str(draw(COUNTS)),
        "max_attempts": str(draw(COUNTS)),
        "rev": str(draw(COUNTS)),
        "created": str(draw(MS)),
        "updated": str(draw(MS)),
    }
    maybe: dict[str, st.SearchStrategy[str]] = {
        **dict.fromkeys(["started", "finished", "expires", "retry_at"], MS.map(str)),
        "progress": st.builds(Reading, done=COUNTS, note=TEXTS).map(_json),
        "error": st.builds(Failure, TEXTS, TEXTS, st.none() | TEXTS).map(_json),
        "result": st.dictionaries(TEXTS, COUNTS | TEXTS, min_size=1).map(_json),
        "cancel": st.just("1"),
    }
    given_too = draw(st.sets(st.sampled_from(sorted(maybe))))
    return fixed | {name: draw(maybe[name]) for name in sorted(given_too)}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# ── ids ───────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(min_value=1, max_value=PARTITIONS_MAX))
def test_new_id_is_an_id_of_one_of_the_partitions(partitions: int) -> None:
    """A new id has the form of an id and begins with a partition that exists."""
    job_id = new_id(partitions)

    assert is_id(job_id)
    assert int(job_id[:2], 16) < partitions


def test_new_ids_differ() -> None:
    """No two ids are the same."""
    ids = {new_id(PARTITIONS) for _ in range(1000)}

    assert len(ids) == 1000


@given(TEXTS, st.none() | TEXTS, TEXTS)
def test_flight_decides_the_partition(task: str, owner: str | None, key: str) -> None:
    """All ids of one single-flight key share a partition, and differ all the same."""
    flight = flight_of(task, owner, key)

    first, second = (new_id(PARTITIONS, flight=flight) for _ in range(2))

    assert first[:2] == second[:2]
    assert first != second


@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS, TEXTS), unique=True, min_size=2, max_size=2))
def test_flight_differs_with_what_it_means(meanings: list[tuple[str, str | None, str]]) -> None:
    """Two single-flight keys are the same only if task, owner and key are."""
    one, other = (flight_of(*meaning) for meaning in meanings)

    assert one != other


@pytest.mark.parametrize(
    "text",
    ["", "0", "00", "../../etc", "zz" + "a" * 26, "00" + "a" * 25, "00" + "a" * 27, "00" + "A" * 26,
     "00" + "a" * 26 + "\n", "00" + "1" * 26, "0０" + "a" * 26],
)  # fmt: skip
def test_is_id_refuses_what_is_none(text: str) -> None:
    """What only resembles an id is not taken for one."""
    assert not is_id(text)


@given(st.text())
def test_is_id_answers_for_any_text(text: str) -> None:
    """Any text gets an answer, and a yes only if it is plain ASCII of the one length."""
    answer = is_id(text)

    assert not answer or (text.isascii() and text.isalnum() and len(text) == 28)


# ── states ────────────────────────────────────────────────────────────────────────────────────


def test_no_transition_leaves_a_terminal_state() -> None:
    """A job that ended never un-ends: no act leads out of a terminal state."""
    assert not [state for state, _ in TRANSITIONS if state.terminal]


def test_every_state_is_reached_and_every_live_one_can_end() -> None:
    """From queued, the acts lead to all states; from each live state one leads to an end."""
    ways = {
        state: {end for (start, _), ends in TRANSITIONS.items() if start is state for end in ends}
        for state in State
    }

    assert set(State) == {State.QUEUED}.union(*ways.values())
    assert all(any(s.terminal for s in ways[state]) for state in State if not state.terminal)


def test_three_states_are_terminal() -> None:
    """The last three states are terminal, the others are not."""
    assert [s for s in State if s.terminal] == ["succeeded", "failed", "cancelled"]


# ── snapshots ─────────────────────────────────────────────────────────────────────────────────


@given(records())
def test_from_record_reads_every_field(record: dict[str, str]) -> None:
    """Every field of a record comes back out of the job as it went in."""
    job = Job.from_record(record)

    assert record["id"] == job.id
    assert record["title"] or record["task"] == job.title
    assert (record["owner"] or None) == job.owner
    assert [record["attempt"], record["rev"]] == [str(job.attempt), str(job.rev)]
    for name in ("created", "updated", "started", "finished", "expires"):
        seconds = getattr(job, f"{name}_at")
        assert record.get(name) == (None if seconds is None else str(round(seconds * 1000)))
    assert record.get("error") == (None if job.error is None else _json(job.error))
    assert record.get("result") == (None if job.result is None else _json(job.result))
    assert ("cancel" in record) == job.cancel_requested


@given(records(), records())
def test_updated_is_what_the_record_would_give(old: dict[str, str], new: dict[str, str]) -> None:
    """A job after an announcement equals the job read from the record at that moment."""
    fixed = {n: old[n] for n in ("id", "task", "title", "owner", "created")}
    told = {name: value for name, value in new.items() if name not in fixed}

    updated = Job.from_record(old).updated(told)

    assert Job.from_record(fixed | told) == updated


@given(records())
def test_job_is_stalled_only_while_it_runs(record: dict[str, str]) -> None:
    """A stalled reading is a stalled job only as long as the job runs."""
    job = Job.from_record(record | {"progress": '{"stalled":true}'})

    assert job.stalled == (job.state is State.RUNNING)


def test_job_cannot_be_changed() -> None:
    """A snapshot is frozen."""
    job = Job.from_record(
        {"id": "x", "task": "t", "state": "queued", "attempt": "0", "max_attempts": "1",
         "rev": "1", "created": "1", "updated": "1"}
    )  # fmt: skip

    with pytest.raises(AttributeError, match="immutable"):
        job.rev = 2  # type: ignore[misc]


# ── texts ─────────────────────────────────────────────────────────────────────────────────────


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_plain_text_is_fit_to_be_shown(text: str, limit: int) -> None:
    """It is one line within the limit, without control or direction-changing characters."""
    shown = plain(text, limit)

    assert len(shown) <= limit
    assert shown == shown.strip()
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert len(shown.splitlines()) <= 1


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_plain_text_stays_as_it_is(text: str, limit: int) -> None:
    """Making it fit a second time changes nothing."""
    once = plain(text, limit)

    assert once == plain(once, limit)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\tc\u2028d", "a b c d"),
        ("safe\u202egnp.exe\u202c", "safegnp.exe"),
        ("\x1b[31mred\x00", "[31mred"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
        ("grün 変換 🚀", "grün 変換 🚀"),
        (None, "None"),
        (ValueError("why"), "why"),
    ],
)
def test_plain_examples(text: object, shown: str) -> None:
    """Letters of all languages and markup stay as text; what could mislead goes."""
    assert shown == plain(text)


def test_plain_cuts_what_is_long() -> None:
    """A text over the limit is cut, and says so."""
    assert plain("a" * 1_000_000) == "a" * 499 + "…"


# ── values ────────────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(JSON)
def test_to_json_keeps_values(value: Any) -> None:
    """What is made of JSON values comes back the same."""
    text = to_json(value, what="value", limit=10**6, cure="")

    assert value == msgspec.json.decode(text)


def _endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value", [object(), {1, object()}, {(1, 2): 3}, "\ud800", lambda: 0, _endless()]
)
def test_to_json_says_what_cannot_be_written(value: object) -> None:
    """What is not JSON is refused with the cure."""
    with pytest.raises(BadInput, match=r"result of x cannot be written as JSON: .* Do that\."):
        to_json(value, what="result of x", limit=100, cure="Do that.")


def test_to_json_limits_bytes() -> None:
    """The limit counts bytes, not characters; the error has both numbers."""
    with pytest.raises(TooLarge, match=r"note: 22 bytes, the limit is 21\. Shorten it"):
        to_json("ü" * 10, what="note", limit=21, cure="Shorten it.")

    assert to_json("ü" * 10, what="note", limit=22, cure="")
