"""The small rules of HTTP, for whatever may be sent: never an error, never more than was meant."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import dump_cookie, parse_cookie

from headway.access import SHARES_COOKIE
from headway.asgi import QUERY_FIELDS, cookies_of, query_of, request_of
from headway.http import (
    WAIT_MAX_S,
    Request,
    cors,
    from_here,
    idempotency_key,
    preflight,
    safe_url,
    unchanged,
    wait_s,
    waited,
)
from headway.job import new_id
from headway.tokens import (
    COOKIE,
    Share,
    new_visitor,
    read_share,
    read_visitor,
    sign_share,
    sign_visitor,
)

KEYS = ["the only key"]
HEADER = st.text(st.characters(max_codepoint=255))  # what a door makes of a header's bytes
TOKEN = st.text(st.sampled_from("abcXYZ019!#$%&'*+-.^_`|~"), min_size=1, max_size=12)
TAG = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='",'))
TIME = 1_795_000_000.0


def asked(**headers: str) -> Request:
    return Request("GET", "/", "/jobs", {n.replace("_", "-"): v for n, v in headers.items()})


# ── cookies and queries ───────────────────────────────────────────────────────────────────────


@given(st.none() | HEADER)
def test_any_cookie_header_gets_an_answer(header: str | None) -> None:
    """No header, however odd, is an error."""
    found = cookies_of(header)

    assert all(";" not in name + value for name, value in found.items())


@given(st.lists(HEADER.map(lambda text: text.replace(";", "")), max_size=6), st.integers(0, 6))
@example(others=['prefs={"a": "b"}', 'x="', "=", "a b=c d"], at=4)
def test_cookies_of_others_do_not_hide_ours(others: list[str], at: int) -> None:
    """Whatever else of the site has put into its cookies, ours are found."""
    visitor = new_visitor()
    ours = f"{COOKIE}={sign_visitor(visitor, KEYS)}"
    before = [one for one in others if one.strip().partition("=")[0] != COOKIE]

    found = cookies_of("; ".join([*before[:at], ours, *before[at:]]))

    assert visitor == read_visitor(found[COOKIE], KEYS)


@given(st.dictionaries(TOKEN, st.text(st.sampled_from("abcXYZ019._~-"), min_size=1), max_size=5))
def test_cookies_are_what_frameworks_read(cookies: dict[str, str]) -> None:
    """A header as browsers send it is understood as by Werkzeug, which Quart uses."""
    sent = "; ".join(dump_cookie(n, v, path=None).partition(";")[0] for n, v in cookies.items())

    assert cookies == cookies_of(sent) == dict(parse_cookie(sent))


@given(st.binary())
def test_any_query_gets_an_answer(raw: bytes) -> None:
    """No query, however odd, is an error."""
    assert sum(map(len, query_of(raw).values())) <= raw.count(b"&") + 1


@given(st.lists(st.tuples(st.text(), st.text(max_size=8)), max_size=8))
def test_query_round_trips(fields: list[tuple[str, str]]) -> None:
    """What a client has written, in whatever language, is what we read, in its order."""
    wanted: dict[str, list[str]] = {}
    for name, value in fields:
        wanted.setdefault(name, []).append(value)

    assert wanted == query_of(urlencode(fields).encode())


def test_query_is_not_read_for_ever() -> None:
    """Of a query that goes on and on only the begin is looked at; it is not taken for none."""
    found = query_of(b"&".join([b"id=x"] * (QUERY_FIELDS + 5)))

    assert found == {"id": ["x"] * QUERY_FIELDS}


@given(
    st.lists(st.tuples(st.binary(min_size=1), st.binary()), max_size=6),
    st.text(),
    st.sampled_from(["", "/jobs", "/app/jobs"]),
    st.binary(),
)
def test_any_scope_makes_a_request(
    headers: list[tuple[bytes, bytes]], path: str, base: str, query: bytes
) -> None:
    """Whatever a server passes on is understood somehow."""
    scope = {
        "method": "GET", "path": path, "root_path": base, "query_string": query,
        "headers": headers, "scheme": "https",
    }  # fmt: skip

    request = request_of(scope, None)

    assert set(request.headers) == {name.decode("latin-1") for name, _ in headers}
    assert request.secure


def test_cookies_that_come_one_by_one_are_one_header() -> None:
    """HTTP/2 may split the header; what is in the pieces is found."""
    headers = [(b"cookie", b"a=1"), (b"prefer", b"x"), (b"cookie", b"b=2"), (b"prefer", b"wait=3")]
    scope = {"method": "GET", "path": "/", "headers": headers}

    request = request_of(scope, None)

    assert request.cookies == {"a": "1", "b": "2"}
    assert wait_s(request) == 3


# ── preferences and tags ──────────────────────────────────────────────────────────────────────


@given(HEADER)
def test_any_preference_gets_a_time(header: str) -> None:
    """Whatever is wished for, the wait is between none and what gateways bear."""
    request = asked(prefer=header)

    assert 0 <= wait_s(request) <= WAIT_MAX_S
    assert bool(waited(request)) == (wait_s(request) > 0)


@given(
    st.integers(0, 10**9),
    st.lists(TOKEN.filter(lambda t: t.lower() != "wait"), max_size=3),
    st.sampled_from(["wait={}", "Wait={}", 'wait="{}"', "wait = {} ", "WAIT={};x=y"]),
)
def test_wait_is_found_among_others(seconds: int, others: list[str], form: str) -> None:
    """`wait=N` counts in every spelling that RFC 7240 allows, beside whatever else is preferred."""
    request = asked(prefer=", ".join([*others, form.format(seconds)]))

    assert wait_s(request) == min(seconds, WAIT_MAX_S)


@given(HEADER, TAG)
def test_any_tags_get_an_answer(header: str, tag: str) -> None:
    """Nonsense is no error, and matches nothing."""
    known = f'"{tag}"' in header or header.strip() == "*"

    assert known or not unchanged(asked(if_none_match=header), f'"{tag}"')


@given(st.lists(TAG, min_size=1, max_size=5), st.data())
def test_tags_that_were_given_match(tags: list[str], data: st.DataObject) -> None:
    """Each of the tags of a list matches, weak or not; others do not."""
    sent = ", ".join(data.draw(st.sampled_from(['"{}"', 'W/"{}"'])).format(tag) for tag in tags)
    other = data.draw(TAG.filter(lambda tag: tag not in tags))

    assert all(unchanged(asked(if_none_match=sent), f'"{tag}"') for tag in tags)
    assert not unchanged(asked(if_none_match=sent), f'"{other}"')


def test_a_star_matches_whatever_there_is() -> None:
    """RFC 9110: `*` asks for nothing, if there is anything."""
    assert unchanged(asked(if_none_match="*"), '"1"')


# ── keys ──────────────────────────────────────────────────────────────────────────────────────


@given(HEADER)
@example('"')
@example('""')
@example('"' * 3)
def test_any_key_is_read_or_refused(header: str) -> None:
    """A key is 1 to 200 printable characters, or an error; nothing between."""
    try:
        key = idempotency_key(asked(idempotency_key=header))
    except ValueError:
        return

    assert key is not None
    assert 0 < len(key) <= 200
    assert all(" " <= c <= "~" for c in key)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=3, max_size=200))
def test_key_means_the_same_with_quotes_and_without(key: str) -> None:
    """Clients that know the draft and those that do not say the same."""
    bare = key.strip('"') or "k"

    assert idempotency_key(asked(idempotency_key=bare)) == bare
    assert idempotency_key(asked(idempotency_key=f' "{bare}" ')) == bare


def test_no_key_is_none() -> None:
    """A request without the header names nothing."""
    assert idempotency_key(asked()) is None


# ── origins and addresses ─────────────────────────────────────────────────────────────────────


@given(st.none() | HEADER, st.none() | HEADER, st.none() | HEADER)
def test_any_origin_gets_an_answer(origin: str | None, site: str | None, host: str | None) -> None:
    """Who says where it comes from is believed only if it says: from here."""
    said = {"origin": origin, "sec-fetch-site": site, "host": host}
    request = Request("POST", "/", "/jobs", {n: v for n, v in said.items() if v is not None})

    if from_here(request):
        same = origin is not None and host is not None and host != "" and origin.endswith(host)
        assert site in {"same-origin", "none"} or (site is None and (origin is None or same))


@given(HEADER)
def test_no_other_origin_may_read(origin: str) -> None:
    """Only an origin that is listed, letter by letter, is told that it may read the answer."""
    listed = ["https://app.example"]
    request = asked(origin=origin)

    allowed = dict(cors(request, listed)).get("Access-Control-Allow-Origin")
    asks = dict(preflight(request, listed).headers).get("Access-Control-Allow-Methods")

    assert allowed is None or allowed == origin == listed[0]
    assert (asks is not None) == (origin in listed)


@given(st.text() | st.none() | st.integers() | st.binary().map(lambda raw: raw.decode("latin-1")))
@example("//evil.test")
@example("/\\evil.test")
@example("http:evil.test")
@example("https://[")
def test_an_address_is_safe_or_none(address: Any) -> None:
    """What is sent as an address leads over http(s), or to a path of this site; it forges no
    header, and browsers cannot take it for something else."""
    url = safe_url({"url": address})

    if url is not None:
        parts = urlsplit(url)
        assert url == address
        assert url.isascii()
        assert url.isprintable()
        assert not {" ", "\\"} & set(url)
        assert parts.scheme in {"http", "https"} or (url[0] == "/" and url[1:2] != "/")
        assert (parts.netloc != "") == (parts.scheme != "")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_what_is_no_address_is_none(result: Any) -> None:
    """Only an object with a text named url names an address."""
    assert safe_url(result) is None
    assert safe_url({"url": [result]}) is None


# ── shares ────────────────────────────────────────────────────────────────────────────────────


@given(st.booleans(), st.integers(1, 10**9))
def test_share_is_read_back_until_it_is_over(cancel: bool, seconds: int) -> None:
    """A share says the same when it is read, for as long as it lasts."""
    share = Share(new_id(64), TIME + seconds, cancel=cancel)
    token = sign_share(share, KEYS)

    assert read_share(token, KEYS, TIME) == share
    assert read_share(token, KEYS, TIME + seconds) is None
    assert read_share(token, ["another key"], TIME) is None


@given(st.data(), st.booleans())
def test_changed_share_is_none(data: st.DataObject, cancel: bool) -> None:
    """No change of a token makes another share of it: not another job, time or right."""
    token = sign_share(Share(new_id(64), TIME + 60, cancel=cancel), KEYS)
    at = data.draw(st.integers(0, len(token)))
    cut = data.draw(st.integers(0, 3))
    text = data.draw(st.text(max_size=3))
    changed = token[:at] + text + token[at + cut :]

    assert changed == token or read_share(changed, KEYS, TIME) is None
    assert read_visitor(token, KEYS) is None


@given(st.none() | st.text())
def test_any_text_is_no_share(token: str | None) -> None:
    """Text that we did not sign shares nothing."""
    assert read_share(token, KEYS, TIME) is None


@pytest.mark.parametrize("sign", "~;,= \"'")
def test_tokens_fit_into_cookies(sign: str) -> None:
    """No token holds a sign that would end a cookie, or one share among several."""
    share = sign_share(Share(new_id(64), TIME, cancel=True), KEYS)

    assert sign not in share + sign_visitor(new_visitor(), KEYS)
    assert cookies_of(f"{SHARES_COOKIE}={share}~{share}")[SHARES_COOKIE] == f"{share}~{share}"
