"""The signed name of a visitor: nothing but what we signed is believed."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from itsdangerous import Signer

from headway.tokens import new_visitor, read_visitor, sign_visitor

KEYS = ["the only key"]
VISITOR = "visitor-7nUQk2bWvTqgTnO0fPyq3A"
TOKEN = sign_visitor(VISITOR, KEYS)


def test_signed_visitor_is_read_back() -> None:
    """A visitor that we signed is the visitor that we read."""
    visitor = new_visitor()

    assert visitor == read_visitor(sign_visitor(visitor, KEYS), KEYS)


def test_new_visitors_differ() -> None:
    """No two visitors get the same name."""
    assert len({new_visitor() for _ in range(1000)}) == 1000


@given(st.integers(0, len(TOKEN) - 1), st.characters(exclude_categories=["Cs"]))
@example(at=len(TOKEN) - 1, other=chr(ord(TOKEN[-1]) + 1))  # another spelling of the same bits
def test_any_changed_character_fails(at: int, other: str) -> None:
    """A token with one character changed is not believed."""
    changed = TOKEN[:at] + other + TOKEN[at + 1 :]

    assert (VISITOR if changed == TOKEN else None) == read_visitor(changed, KEYS)


@pytest.mark.parametrize("cut", range(len(TOKEN)))
def test_truncated_token_fails(cut: int) -> None:
    """No part of a token is a token."""
    assert read_visitor(TOKEN[:cut], KEYS) is None
    assert read_visitor(TOKEN[len(TOKEN) - cut :], KEYS) is None


@given(st.none() | st.text())
def test_any_text_gets_an_answer(token: str | None) -> None:
    """No text at all, however odd, names a visitor."""
    assert read_visitor(token, KEYS) is None


@given(st.text(min_size=1), st.integers(0, len(TOKEN)))
@example(added="\x80", at=len(TOKEN))
@example(added="=", at=len(TOKEN))
@example(added="!", at=len(TOKEN) - 3)
def test_added_text_fails(added: str, at: int) -> None:
    """A token with anything added to it, anywhere, is not believed."""
    assert read_visitor(TOKEN[:at] + added + TOKEN[at:], KEYS) is None


def test_swapped_signatures_fail() -> None:
    """The signature of one visitor does not pass for another one."""
    other = sign_visitor(new_visitor(), KEYS)
    name, _, _ = TOKEN.rpartition(".")
    _, _, signature = other.rpartition(".")

    assert read_visitor(f"{name}.{signature}", KEYS) is None


def test_signature_for_another_purpose_fails() -> None:
    """A signature by the same key for something else does not pass for a visitor's."""
    signer = Signer(KEYS, salt=b"session", key_derivation="hmac", digest_method=sha256)

    assert read_visitor(signer.sign(VISITOR).decode(), KEYS) is None


def test_signed_name_that_is_no_visitor_fails() -> None:
    """A name that only the app could give is not taken from a cookie, though we signed it."""
    assert read_visitor(sign_visitor("admin", KEYS), KEYS) is None


def test_keys_rotate() -> None:
    """An old key still reads, the new one signs, and a removed one is forgotten."""
    old, both, new = ["old"], ["old", "new"], ["new"]

    assert read_visitor(sign_visitor(VISITOR, old), both) == VISITOR
    assert read_visitor(sign_visitor(VISITOR, both), new) == VISITOR
    assert read_visitor(sign_visitor(VISITOR, old), new) is None


def test_long_token_is_not_even_checked() -> None:
    """A token longer than ours can be is refused, however it is signed."""
    assert read_visitor(sign_visitor("visitor-" + "a" * 200, KEYS), KEYS) is None
