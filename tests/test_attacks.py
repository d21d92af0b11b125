"""A table of attacks on the surface, through both kinds of door; each row says what must hold."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from uuid import UUID

import httpx
import pytest

from headway import EVERYONE, Headway
from headway.access import SHARES_COOKIE, SHARES_KEPT
from headway.errors import BadInput
from headway.limits import Limits
from headway.tokens import COOKIE, Share, new_visitor, sign_share, sign_visitor
from tests.conftest import MakeHeadway, Until
from tests.house import DOORS, HOSTILE, SECRET, House, Markup, events, open_house, signed, user

NOBODYS: Final = "00" + "a" * 26
PAGE: Final = {"accept": "text/html,application/xhtml+xml"}
OTHER: Final = "https://app.example"
DAY_S: Final = 86_400.0


@pytest.fixture(params=DOORS)
async def house(request: pytest.FixtureRequest, make_headway: MakeHeadway) -> AsyncIterator[House]:
    """A site that knows its users by a header; behind each kind of door in turn."""
    async with open_house(make_headway, request.param, identify=user) as house:
        yield house


@pytest.fixture(params=DOORS)
async def open_door(
    request: pytest.FixtureRequest, make_headway: MakeHeadway
) -> AsyncIterator[House]:
    """A site without users: its visitors have cookies."""
    async with open_house(make_headway, request.param) as house:
        yield house


# ── text of tasks ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ends", ["running", "succeeded", "failed"])
async def test_text_is_no_markup(house: House, ends: str) -> None:
    """Whatever a task says, wherever it is shown: page, list, fragment, bar with its fallback."""
    for name, text in HOSTILE.items():
        job = await house.say.using(owner="ann", title=text).start(text, ends)
        job = await house.until(job, lambda seen: seen.state == ends and bool(seen.progress.unit))
        async with house.client(x_user="ann") as http:
            page = (await http.get(f"/jobs/{job.id}", headers=PAGE)).text
            listed = (await http.get("/jobs", headers=PAGE)).text
        bar = house.headway.bar(job, label=text, nocancel=True)
        fragment = await house.fragment(job)

        shown = {"page": page, "list": listed, "bar": bar, "fragment": fragment}
        assert {where: wrong for where, one in shown.items() if (wrong := Markup(one).wrong)} == {}
        assert all("<headway-bar" in one for one in shown.values()), name
        assert dict(Markup(bar).attributes)["label"].split() == text.split(), name


async def test_no_task_has_a_name_that_is_markup(house: House) -> None:
    """The names of tasks are words."""
    for text in HOSTILE.values():
        with pytest.raises(BadInput):
            house.headway.task(name=text)(house._wait)


@pytest.mark.parametrize("ends", ["succeeded", "failed"])
async def test_text_is_no_event(house: House, ends: str) -> None:
    """Whatever a task says, a stream has our events only, in one stream of one job and of many."""
    for name, text in HOSTILE.items():
        job = await house.say.using(owner="ann", title=text).start(text, ends)
        for path in (f"/jobs/{job.id}/events", f"/jobs/events?id={job.id}"):
            async with house.client(x_user="ann") as http:
                stream = (await http.get(path)).text
            found = events(stream)
            fields = {line.partition(":")[0] for line in re.split(r"[\r\n]+", stream) if line}

            assert {event for event, _ in found} == {"job", "end"}, name
            assert fields <= {"retry", "event", "data", "id"}, name
            assert [d["state"] for e, d in found if e == "job"][-1] == ends


async def test_ids_from_outside_are_no_event(house: House) -> None:
    """What a client sends as an id comes back as data."""
    nasty = "x%0A%0Aevent:%20admin%0Adata:%20pwned%0D%0D"

    async with house.client(x_user="ann") as http:
        found = events((await http.get(f"/jobs/events?id={nasty}")).text)

    assert [event for event, _ in found] == ["gone", "end"]


async def test_text_is_one_line_without_signs_that_deceive(house: House) -> None:
    """Control and direction-changing characters do not reach those who read."""
    text = "".join(HOSTILE.values())
    job = await house.say.using(owner="ann", title=text).start(text, "failed")
    job = await house.until(job, lambda seen: seen.state.terminal)
    lines = await house.headway.log(job.id)
    assert job.error is not None
    said = [job.title, job.note, job.progress.unit, job.error.title, job.error.code, *lines]

    for one in said:
        assert one is not None
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", one)


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)", "data:text/html,x",
     "//evil.test/", "///evil.test/", "////evil.test", "\\\\evil.test", "/\\evil.test",
        "/a\r\nSet-Cookie: x=1", "http:evil.test", "https:///evil.test", "blob:x", "vbscript:x",
     "file:///etc/passwd"],
)  # fmt: skip
async def test_a_result_leads_nowhere_dangerous(house: House, address: str) -> None:
    """A result's address is followed only if it is http(s) or a path of this site."""

    @house.headway.task(name="link")
    async def link() -> dict[str, str]:
        return {"url": address}

    job = await link.using(owner="ann").start()
    await house.until(job, lambda seen: seen.state.terminal)

    async with house.client(x_user="ann") as http:
        reply = await http.get(f"/jobs/{job.id}/result")

    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {"url": address}


# ── tokens ────────────────────────────────────────────────────────────────────────────────────


def _sign(job_id: str, *, seconds: float = DAY_S, cancel: bool = False, key: str = SECRET) -> str:
    return sign_share(Share(job_id, time.time() + seconds, cancel=cancel), [key])


def _flipped(token: str) -> str:
    return token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:]


BAD: Final[dict[str, Callable[[str], str]]] = {
    "empty": lambda job: "",
    "the id itself": lambda job: job,
    "forged": lambda job: _sign(job, key="another secret, as long"),
    "unsigned": lambda job: f"{job}.{time.time() + 1e6:.0f}",
    "signature changed": lambda job: _flipped(_sign(job)),
    "prolonged": lambda job: re.sub(r"\.(\d+)\.", lambda m: f".{int(m[1]) + 9}.", _sign(job)),
    "expired": lambda job: _sign(job, seconds=-1),
    "of another job": lambda job: _sign(NOBODYS),
    "another's, renamed": lambda job: _sign(NOBODYS).replace(NOBODYS, job),
    "of a visitor": lambda job: sign_visitor(new_visitor(), [SECRET]),
    "named like a visitor": lambda job: sign_visitor(f"{job}.{time.time() + 1e6:.0f}", [SECRET]),
    "for a session": lambda job: signed(f"{job}.{time.time() + 1e6:.0f}", "cookie-session"),
    "without a salt": lambda job: signed(f"{job}.{time.time() + 1e6:.0f}", ""),
    "without an end": lambda job: signed(job, "headway.share.watch.1"),
    "with a strange end": lambda job: signed(f"{job}.inf", "headway.share.watch.1"),
    "negative": lambda job: signed(f"{job}.-1", "headway.share.watch.1"),
    "of a removed key": lambda job: _sign(job, key="the secret of last year"),
    "cut": lambda job: _sign(job)[:-1],
    "cut in front": lambda job: _sign(job)[1:],
    "too long": lambda job: _sign(job) + "A" * 5000,
    "twice": lambda job: _sign(job) + "." + _sign(job),
    "padded": lambda job: _sign(job) + "=",
    "other alphabet": lambda job: "а" + _sign(job)[1:],
    "with a NUL": lambda job: _sign(job) + "\x00",
    "with a line": lambda job: _sign(job) + "\n",
    "with a space": lambda job: " " + _sign(job),
    "many": lambda job: "~" * 50,
}


async def test_a_bad_token_is_none(house: House) -> None:
    """As a link, in the cookie and in the header: it shares nothing, and nothing is set."""
    job = await house.running("bob")

    async with house.client(x_user="ann") as http:
        unknown = await http.get(f"/jobs/{NOBODYS}")
        for name, made in BAD.items():
            token = made(job.id)
            replies = [await http.get(f"/jobs/{job.id}", params={"share": token})]
            if token.isascii() and token.isprintable() and not token.startswith(" "):
                bearer = {"authorization": f"Bearer {token}"}
                cookie = {"cookie": f"{SHARES_COOKIE}={token}"}
                for headers in (bearer, cookie):
                    replies.append(await http.get(f"/jobs/{job.id}", headers=headers))
                    replies.append(await http.post(f"/jobs/{job.id}/cancel", headers=headers))

            for reply in replies:
                assert reply.status_code == 404, name
                assert reply.content == unknown.content, name
                assert "set-cookie" not in reply.headers, name
    assert not (await house.headway.get(job.id)).cancel_requested


async def test_no_part_of_a_token_is_one(house: House) -> None:
    """Cut anywhere, a token is worth nothing."""
    job = await house.running("bob")
    token = _sign(job.id)

    async with house.client(x_user="ann") as http:
        for cut in range(0, len(token), 3):
            reply = await http.get(f"/jobs/{job.id}", params={"share": token[:cut]})
            assert reply.status_code == 404


@pytest.mark.parametrize("token", ["share", "forged", "admin"])
async def test_a_visitor_is_nobody_without_our_signature(open_door: House, token: str) -> None:
    """Somebody else's name, a share or a forgery in the visitor's cookie names nobody."""
    visitor = new_visitor()
    job = await open_door.running(visitor)
    bad = {
        "share": _sign(job.id),
        "forged": sign_visitor(visitor, ["another secret, as long"]),
        "admin": visitor,
    }[token]

    async with open_door.client(cookie=f"{COOKIE}={bad}") as http:
        assert (await http.get(f"/jobs/{job.id}")).status_code == 404
        assert (await http.get("/jobs")).json()["jobs"] == []
    async with open_door.client(cookie=f"{COOKIE}={sign_visitor(visitor, [SECRET])}") as http:
        assert (await http.get(f"/jobs/{job.id}")).status_code == 200


async def test_keys_rotate_and_removed_ones_are_forgotten(make_headway: MakeHeadway) -> None:
    """With old and new secret both hold; without the old one, what it has signed is void."""
    old, new = "the secret of last year", "the secret of this year"
    async with open_house(make_headway, identify=user, secret=[old]) as house:
        job = await house.running("bob")
        link = house.headway.share(job)
        async with open_house(make_headway, identify=user, secret=[old, new]) as both:
            async with both.client() as http:
                assert (await http.get(link)).status_code == 303
            newer = both.headway.share(job)
        removed = open_house(make_headway, identify=user, secret=[new])
        async with removed as last, last.client() as http:
            assert (await http.get(link)).status_code == 404
            assert (await http.get(newer)).status_code == 303


async def test_cookies_of_others_do_not_hide_ours(open_door: House) -> None:
    """What another app of the site keeps in its cookies, and several headers, are borne."""
    visitor = new_visitor()
    job = await open_door.running(visitor)
    ours = f"{COOKIE}={sign_visitor(visitor, [SECRET])}"

    for cookies in (
        [f'prefs={{"a": [1, "b"]}}; {ours}'],
        [f"odd name=1; =x; ;;{ours}; ä=ö"],
        ["a=1", ours, "b=2"],  # as HTTP/2 may bring them
    ):
        headers = [(b"cookie", one.encode()) for one in cookies]
        async with open_door.client() as http:
            reply = await http.get(f"/jobs/{job.id}", headers=headers)
        assert reply.status_code == 200, cookies


# ── shares ────────────────────────────────────────────────────────────────────────────────────


async def test_the_token_leaves_the_address(house: House) -> None:
    """A link sets a cookie that scripts and other paths do not get, and leads to a plain one."""
    job = await house.running("bob")
    link = house.headway.share(job, seconds=60)

    async with house.client() as http:
        reply = await http.get(link, headers=PAGE)
        page = await http.get(reply.headers["location"], headers=PAGE)

    cookie = [part.strip() for part in reply.headers["set-cookie"].split(";")]
    age = next(int(part[8:]) for part in cookie if part.startswith("Max-Age="))
    assert reply.status_code == 303
    assert reply.headers["location"] == f"/jobs/{job.id}"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-store"
    assert {"HttpOnly", "SameSite=Lax", "Path=/jobs"} <= set(cookie)
    assert 50 <= age <= 60
    assert reply.content == b""
    assert page.status_code == 200
    assert link.partition("=")[2] not in page.text


async def test_a_share_to_watch_only_watches(house: House) -> None:
    """It shows and follows the job; it cancels, retries, forgets and lists nothing."""
    job, other = await house.running("bob"), await house.running("bob")
    bearer = {"authorization": f"Bearer {_sign(job.id)}"}

    async with house.client(**bearer) as http:
        seen = await http.get(f"/jobs/{job.id}")
        refused = [
            await http.post(f"/jobs/{job.id}/cancel"),
            await http.post(f"/jobs/{job.id}/retry"),
            await http.delete(f"/jobs/{job.id}"),
        ]
        listed = (await http.get("/jobs")).json()
        batch = (await http.get(f"/jobs?id={job.id}&id={other.id}")).json()

        assert seen.status_code == 200
        assert seen.json()["links"]["cancel"] is None
        assert [(r.status_code, r.json()["code"]) for r in refused] == [(403, "not_yours")] * 3
        assert listed == {"jobs": [], "gone": []}
        assert [one["id"] for one in batch["jobs"]] == [job.id]
        assert batch["gone"] == [other.id]
        assert (await http.get(f"/jobs/{other.id}")).status_code == 404
        assert (await http.get(f"/jobs/{job.id}/attempts")).status_code in {403, 404}
    assert not (await house.headway.get(job.id)).cancel_requested


async def test_a_share_to_cancel_cancels_and_no_more(house: House) -> None:
    """It cancels the one job; trying again and forgetting stay with the owner."""
    job, other = await house.running("bob"), await house.running("bob")

    async with house.client(authorization=f"bearer {_sign(job.id, cancel=True)}") as http:
        assert (await http.get(f"/jobs/{job.id}")).json()["links"]["cancel"] is not None
        assert (await http.post(f"/jobs/{job.id}/cancel")).status_code == 202
        assert (await http.post(f"/jobs/{other.id}/cancel")).status_code == 404
        await house.until(job, lambda seen: seen.state.terminal)
        assert (await http.post(f"/jobs/{job.id}/retry")).status_code == 403
        assert (await http.delete(f"/jobs/{job.id}")).status_code == 403


async def test_several_shares_are_held_at_once(house: House) -> None:
    """One browser may follow some links at a time; the newest are kept."""
    jobs = [await house.running("bob") for _ in range(SHARES_KEPT + 2)]

    async with house.client() as http:
        for job in jobs:
            assert (await http.get(house.headway.share(job))).status_code == 303
        answers = [(await http.get(f"/jobs/{job.id}")).status_code for job in jobs]

    assert answers == [404, 404] + [200] * SHARES_KEPT


@pytest.mark.parametrize("order", [(True, False), (False, True)])
async def test_a_second_link_takes_nothing_away(house: House, order: tuple[bool, bool]) -> None:
    """Who may cancel may still cancel after opening a link that is to watch only."""
    job = await house.running("bob")

    async with house.client() as http:
        for cancel in order:
            await http.get(house.headway.share(job, cancel=cancel, seconds=90 - 30 * cancel))
        assert (await http.post(f"/jobs/{job.id}/cancel")).status_code == 202


async def test_a_link_that_is_over_still_leads_its_owner(house: House) -> None:
    """A bad token counts as not sent: who may watch anyway gets the plain address."""
    job = await house.running("ann")

    async with house.client(x_user="ann") as http:
        reply = await http.get(f"/jobs/{job.id}?share={_sign(job.id, seconds=-1)}")

    assert reply.status_code == 303
    assert "set-cookie" not in reply.headers


async def test_open_streams_end_with_their_share(house: House, until: Until) -> None:
    """When a share is over, streams of one job and of many end, and stay shut."""
    job = await house.running("bob")
    bearer = f"Bearer {_sign(job.id, seconds=5)}"

    async with (
        house.listen(f"/jobs/{job.id}/events", authorization=bearer) as one,
        house.listen(f"/jobs/events?id={job.id}", authorization=bearer) as many,
    ):
        await until(lambda: one.over and many.over, "both streams have ended")
        assert [event for event, _ in one.events] == ["job", "bye"]
        assert [event for event, _ in many.events] == ["job", "bye"]
    async with house.client(authorization=bearer) as http:
        assert (await http.get(f"/jobs/{job.id}/events")).status_code == 404
        again = events((await http.get(f"/jobs/events?id={job.id}")).text)
        assert [event for event, _ in again] == ["gone", "end"]


async def test_a_long_poll_ends_with_its_share(house: House) -> None:
    """It is not held beyond the share, and tells nothing after it."""
    job = await house.running("bob")
    headers = {"authorization": f"Bearer {_sign(job.id, seconds=5)}", "prefer": "wait=20"}

    async with house.client(**headers) as http:
        tag = (await http.get(f"/jobs/{job.id}")).headers["etag"]
        began_at = time.monotonic()
        reply = await http.get(f"/jobs/{job.id}", headers={"if-none-match": tag})

    assert reply.status_code == 304
    assert time.monotonic() - began_at < 10, "the poll would last 20 s"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e12])
async def test_a_share_needs_a_time(house: House, seconds: float) -> None:
    """For ever, and not at all, are no times."""
    with pytest.raises(BadInput):
        house.headway.share(NOBODYS, seconds=seconds)


async def test_many_tokens_cost_no_more_than_some(house: House) -> None:
    """A cookie that is as long as a server lets it be is not worked through."""
    job = await house.running("bob")
    cookie = f"{SHARES_COOKIE}=" + "~".join(["a.b"] * 1_000_000)

    async with house.client(cookie=cookie) as http:
        began_at = time.perf_counter()
        reply = await http.get(house.headway.share(job))
        took_s = time.perf_counter() - began_at

    assert reply.status_code == 303
    assert len(reply.headers["set-cookie"]) < 2_000
    assert took_s < 5, "to work through them all takes longer"


# ── ids of others ─────────────────────────────────────────────────────────────────────────────

ROUTES: Final = [
    (method, rest)
    for rest in ("", "/events", "/result", "/log", "/attempts", "/cancel", "/retry")
    for method in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")
]


@pytest.mark.parametrize("headers", [{}, PAGE, {"prefer": "wait=5", "if-none-match": '"3"'}])
async def test_the_jobs_of_others_do_not_exist(house: House, headers: dict[str, str]) -> None:
    """On every route, by every method: the same answer for somebody else's id as for nobody's."""
    going, over = await house.running("bob"), await house.running("bob")
    await house.headway.cancel(over.id)
    await house.until(over, lambda seen: seen.state.terminal)

    async with house.client(x_user="ann", **headers) as http:
        for method, rest in ROUTES:
            nobodys = await http.request(method, f"/jobs/{NOBODYS}{rest}")
            for job in (going, over):
                theirs = await http.request(method, f"/jobs/{job.id}{rest}")
                assert theirs.status_code == nobodys.status_code, (method, rest)
                assert theirs.content == nobodys.content
                assert _telling(theirs) == _telling(nobodys)
            assert nobodys.status_code in {404, 405, 204}, (method, rest)
    assert not (await house.headway.get(going.id)).cancel_requested


def _telling(reply: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name != "date"}


async def test_a_stream_of_others_tells_that_they_are_gone_and_no_more(
    house: House, until: Until
) -> None:
    """In a stream beside one's own jobs, somebody else's is gone at once, and stays silent."""
    mine, theirs = await house.running("ann"), await house.running("bob")
    path = f"/jobs/events?id={mine.id}&id={theirs.id}&id={NOBODYS}"

    async with house.listen(path, x_user="ann") as stream:
        await until(lambda: len(stream.events) == 3, "all three have been told")
        await house.headway.cancel(theirs.id)
        await house.until(theirs, lambda seen: seen.state.terminal)
        await house.headway.cancel(mine.id)
        await until(lambda: stream.over, "the stream has ended")

    gone = [data["id"] for event, data in stream.events if event == "gone"]
    assert sorted(gone) == sorted([theirs.id, NOBODYS])
    assert {data["id"] for event, data in stream.events if event == "job"} == {mine.id}


async def test_a_long_poll_does_not_tell_when_others_move(house: House, until: Until) -> None:
    """Waiting for one's own job and somebody else's ends with one's own only."""
    mine, theirs = await house.running("ann"), await house.running("bob")
    path = f"/jobs?id={mine.id}&id={theirs.id}"

    async with house.client(x_user="ann", prefer="wait=20") as http:
        tag = (await http.get(path)).headers["etag"]
        waiting = asyncio.create_task(http.get(path, headers={"if-none-match": tag}))
        await until(lambda: house.headway.hub.watched, "the poll waits")
        await house.headway.cancel(theirs.id)
        await house.until(theirs, lambda seen: seen.state.terminal)
        early = waiting.done()
        await house.headway.cancel(mine.id)
        reply = await waiting

    assert not early
    assert reply.status_code == 200


async def test_an_operator_sees_all_and_nobody_else_does(make_headway: MakeHeadway) -> None:
    """Operators watch, cancel, retry and forget the jobs of all; no header makes one of another."""

    async def operator(native: Any) -> bool:
        return user(native) == "root"

    async with open_house(make_headway, identify=user, operator=operator) as house:
        job = await house.running("bob")
        async with house.client(x_user="ann", x_operator="1", x_forwarded_user="root") as http:
            assert (await http.get(f"/jobs/{job.id}")).status_code == 404
            assert (await http.get(f"/jobs/{job.id}/attempts")).status_code == 404
        async with house.client(x_user="root") as http:
            assert (await http.get(f"/jobs/{job.id}")).status_code == 200
            assert (await http.get("/jobs")).json()["jobs"] == []
            assert (await http.post(f"/jobs/{job.id}/cancel")).status_code == 202
            await house.until(job, lambda seen: seen.state.terminal)
            assert (await http.get(f"/jobs/{job.id}/attempts")).status_code == 200
            assert (await http.post(f"/jobs/{job.id}/retry")).status_code == 202
            assert (await http.delete(f"/jobs/{job.id}")).status_code == 204
        async with house.client(x_user="bob") as http:
            assert (await http.get(f"/jobs/{job.id}/attempts")).status_code == 404


async def test_what_everyone_may_watch_nobody_may_change(house: House) -> None:
    """A public job is not even changed by a user who calls himself everyone."""
    job = await house.running(EVERYONE)

    async with house.client(x_user=EVERYONE) as http:
        assert (await http.get(f"/jobs/{job.id}")).status_code == 200
        for method, rest in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
            reply = await http.request(method, f"/jobs/{job.id}{rest}")
            assert (reply.status_code, reply.json()["code"]) == (403, "not_yours")


# ── identify ──────────────────────────────────────────────────────────────────────────────────


class _User:
    """An object of the app, whose text would name its place in memory."""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("said", ["raises", False, True, _User(), b"ann", ["ann"]])
async def test_an_identify_that_fails_lets_nobody_in(
    make_headway: MakeHeadway, caplog: pytest.LogCaptureFixture, door: str, said: Any
) -> None:
    """An error, or an answer that may be the same for two people: a 500 without details."""

    def identify(native: Any) -> Any:
        if said == "raises":
            raise RuntimeError("cannot reach db.internal with password hunter2")
        return said

    async with open_house(make_headway, door, identify=identify) as house:
        job = await house.running(str(said))
        async with house.client() as http:
            replies = [
                await http.request(method, path)
                for method, path in (
                    ("GET", "/jobs"), ("GET", f"/jobs/{job.id}"), ("GET", f"/jobs/{job.id}/events"),
                    ("GET", f"/jobs?id={job.id}"), ("POST", f"/jobs/{job.id}/cancel"),
                    ("DELETE", f"/jobs/{job.id}"),
                )
            ]  # fmt: skip
        assert not (await house.headway.get(job.id)).cancel_requested

    for reply in replies:
        assert reply.status_code == 500
        assert reply.json() == {
            "type": "urn:headway:internal", "title": "Something went wrong", "status": 500,
            "code": "internal",
        }  # fmt: skip
    assert "identify" in caplog.text


@pytest.mark.parametrize(
    ("said", "owner"), [("ann", "ann"), (7, "7"), (UUID(int=7), str(UUID(int=7)))]
)
async def test_an_identify_names_a_user(make_headway: MakeHeadway, said: Any, owner: str) -> None:
    """Text, numbers and UUIDs are names."""
    async with open_house(make_headway, identify=lambda native: said) as house:
        job = await house.running(owner)
        async with house.client() as http:
            assert [one["id"] for one in (await http.get("/jobs")).json()["jobs"]] == [job.id]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("said", [None, ""])
async def test_nobody_sees_nothing(make_headway: MakeHeadway, door: str, said: Any) -> None:
    """Who is nobody to the app has no jobs, and sees none: not even those that have no owner."""
    async with open_house(make_headway, door, identify=lambda native: said) as house:
        jobs = [await house.running(owner) for owner in (None, "None", "ann")]
        async with house.client() as http:
            for job in jobs:
                assert (await http.get(f"/jobs/{job.id}")).status_code == 404
            assert (await http.get("/jobs")).json() == {"jobs": [], "gone": []}


# ── other sites ───────────────────────────────────────────────────────────────────────────────

FOREIGN: Final = [
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"origin": "http://evil.test"},
    {"origin": "null"},
    {"origin": "http://site.test.evil.test"},
    {"origin": "http://site.test:8080"},
    {"origin": "file://"},
    {"origin": "http://[", "host": "site.test"},
    {"origin": "", "host": ""},
    {"sec_fetch_site": "cross-site", "origin": "http://site.test"},
    {"sec_fetch_site": "same-origin, cross-site"},
    {"sec_fetch_site": ""},
]


async def test_other_sites_change_and_follow_nothing(house: House) -> None:
    """A browser on behalf of another site: cancel, retry, forget and both streams are refused."""
    job = await house.running("ann")

    for headers in FOREIGN:
        async with house.client(x_user="ann", **headers) as http:
            replies = [
                await http.post(f"/jobs/{job.id}/cancel"),
                await http.post(f"/jobs/{job.id}/retry"),
                await http.delete(f"/jobs/{job.id}"),
                await http.get(f"/jobs/{job.id}/events"),
                await http.get(f"/jobs/events?id={job.id}"),
            ]

        assert [reply.status_code for reply in replies] == [403] * 5, headers
        assert {reply.json()["code"] for reply in replies} == {"cross_origin"}, headers
    assert not (await house.headway.get(job.id)).cancel_requested


async def test_nothing_can_be_framed_or_embedded(house: House) -> None:
    """Whatever is answered says that no frame may hold it, and no other origin embed it."""
    job = await house.running("ann")
    paths = ["", f"/{job.id}", f"/{job.id}/result", "/static/headway.js", f"/{NOBODYS}", "/x/y/z"]

    for path in paths:
        for accept in ("text/html", "application/json"):
            async with house.client(x_user="ann", accept=accept) as http:
                reply = await http.get(f"/jobs{path}")

            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"], path
            assert reply.headers["cross-origin-resource-policy"] == "same-origin", path
            assert reply.headers["x-content-type-options"] == "nosniff", path
            assert len(reply.headers.get_list("content-security-policy")) == 1, path
            assert not [name for name in reply.headers if name.startswith("access-control-")]


async def test_an_unchanged_page_keeps_its_policy(house: House) -> None:
    """304 carries the page's own policy: any other would replace the one that the browser keeps."""
    job = await house.running("ann")

    async with house.client(x_user="ann", **PAGE) as http:
        page = await http.get(f"/jobs/{job.id}")
        again = await http.get(f"/jobs/{job.id}", headers={"if-none-match": page.headers["etag"]})

    assert again.status_code == 304
    policies = [one.headers["content-security-policy"] for one in (page, again)]
    assert policies[0] == policies[1]


@pytest.mark.parametrize("door", DOORS)
async def test_a_listed_origin_may_read_and_change(make_headway: MakeHeadway, door: str) -> None:
    """Its pages read answers and cancel, with credentials; the answer is for that origin only."""
    async with open_house(make_headway, door, identify=user, origins=[OTHER]) as house:
        job = await house.running("ann")
        headers = {"origin": OTHER, "sec_fetch_site": "cross-site"}
        async with house.client(x_user="ann", **headers) as http:
            seen = await http.get(f"/jobs/{job.id}")
            missing = await http.get(f"/jobs/{NOBODYS}")
            asked = await http.options(
                f"/jobs/{job.id}/cancel", headers={"access-control-request-method": "POST"}
            )
            cancelled = await http.post(f"/jobs/{job.id}/cancel")

    assert [r.status_code for r in (seen, missing, asked, cancelled)] == [200, 404, 204, 202]
    for reply in (seen, missing, asked, cancelled):
        assert reply.headers["access-control-allow-origin"] == OTHER
        assert reply.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in reply.headers["vary"]
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "Authorization" in asked.headers["access-control-allow-headers"]


@pytest.mark.parametrize("door", DOORS)
async def test_an_unlisted_origin_gets_nothing(make_headway: MakeHeadway, door: str) -> None:
    """Its pages cannot read, its preflights are not answered, and it changes nothing."""
    origins = [
        "https://evil.test", "null", OTHER + ".evil.test", OTHER + ":444", OTHER.upper(),
        f"{OTHER}, {OTHER}", "http://app.example",
    ]  # fmt: skip
    async with open_house(make_headway, door, identify=user, origins=[OTHER]) as house:
        job = await house.running("ann")
        for origin in origins:
            headers = {"x_user": "ann", "origin": origin, "sec_fetch_site": "cross-site"}
            async with house.client(**headers) as http:
                replies = [
                    await http.get(f"/jobs/{job.id}"),
                    await http.options(f"/jobs/{job.id}/cancel"),
                    await http.post(f"/jobs/{job.id}/cancel"),
                    await http.get(f"/jobs/{job.id}/events"),
                ]

            assert [reply.status_code for reply in replies] == [200, 204, 403, 403], origin
            for reply in replies:
                assert not [name for name in reply.headers if name.startswith("access-control-")]
                assert "Origin" in reply.headers["vary"], origin


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example", "https://", "https://app.example/", "https://*.example",
               "ftp://app.example", "https://app.example?x"],
)  # fmt: skip
def test_an_origin_is_given_whole(origin: str) -> None:
    """A list of origins knows no wildcards."""
    with pytest.raises(BadInput, match="origin"):
        Headway(origins=[origin])


# ── logging out ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("door", DOORS)
async def test_revoking_ends_streams_and_polls_everywhere(
    make_headway: MakeHeadway, until: Until, door: str
) -> None:
    """Who logs out in one process is asked again in the other, at once, and is nobody there."""
    inside = {"ann", "bob"}

    def identify(native: Any) -> str | None:
        return name if (name := user(native)) in inside else None

    options = {"identify": identify}
    async with (
        open_house(make_headway, door, **options) as here,
        open_house(make_headway, door, **options) as there,
        there.client(x_user="ann") as http,
    ):
        job, bobs = await here.running("ann"), await here.running("bob")
        tag = (await http.get(f"/jobs/{job.id}")).headers["etag"]
        wait = {"if-none-match": tag, "prefer": "wait=20"}
        async with (
            there.listen(f"/jobs/{job.id}/events", x_user="ann") as one,
            there.listen(f"/jobs/events?id={job.id}", x_user="ann") as many,
            there.listen(f"/jobs/{bobs.id}/events", x_user="bob") as bob,
        ):
            poll = asyncio.create_task(http.get(f"/jobs/{job.id}", headers=wait))
            await until(lambda: len(there.headway.streams) == 3, "all listen")
            await until(lambda: there.headway.streams._polls, "the poll waits")
            await until(lambda: one.events and many.events and bob.events, "all have seen a state")

            inside.discard("ann")
            await here.headway.revoke("ann")
            await until(lambda: one.over and many.over and poll.done(), "all of hers has ended")

            assert one.events[-1] == ("bye", {"reason": "revoked"})
            assert many.events[-1] == ("bye", {"reason": "revoked"})
            assert (await poll).status_code == 304
            assert not bob.over
        assert (await http.get(f"/jobs/{job.id}/events")).status_code == 404
        again = events((await http.get(f"/jobs/events?id={job.id}")).text)
        assert [event for event, _ in again] == ["gone", "end"]


async def test_a_stream_that_opens_while_its_owner_logs_out_ends(
    make_headway: MakeHeadway, until: Until
) -> None:
    """Who was let in just before it was revoked is asked again, too."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def identify(native: Any) -> str:
        asked.set()
        await go.wait()
        return "ann"

    async with open_house(make_headway, identify=identify) as house:
        job = await house.running("ann")
        async with house.listen(f"/jobs/{job.id}/events") as stream:
            await asked.wait()
            before = house.headway.streams.revocations
            await house.headway.revoke("ann")
            await until(lambda: house.headway.streams.revocations > before, "it is heard")
            go.set()
            await until(lambda: stream.over, "it has ended")

            assert [event for event, _ in stream.events] == ["bye"]


# ── limits ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("door", DOORS)
async def test_a_burst_does_not_pass_the_limits(
    make_headway: MakeHeadway, until: Until, door: str
) -> None:
    """Of many streams asked for in one moment as many open as may; the others know when to come."""
    limits = Limits(streams_per_owner=3, streams_per_process=5)
    async with open_house(make_headway, door, identify=user, limits=limits) as house:
        job = await house.running(EVERYONE)
        path = f"/jobs/{job.id}/events"
        anns = [house.listen(path, x_user="ann") for _ in range(20)]
        await until(lambda: sum(one.over for one in anns) == 17, "all others are refused")
        others = [house.listen(path, x_user=f"u{n}") for n in range(10)]
        await until(lambda: sum(one.over for one in others) == 8, "the process is full")

        refused = [one for one in anns if one.over]
        full = [one for one in others if one.over]
        assert len(house.headway.streams) == 5
        assert {(r.status, r.headers["retry-after"]) for r in refused} == {(429, "5")}
        assert {json.loads(r.body)["code"] for r in refused} == {"too_many_streams"}
        assert {(r.status, r.headers["retry-after"]) for r in full} == {(503, "5")}
        assert {json.loads(r.body)["code"] for r in full} == {"streams_full"}

        for one in (*anns, *others):
            await one.__aexit__()
        assert len(house.headway.streams) == 0
        async with house.listen(path, x_user="ann") as again:
            await until(lambda: again.events, "there is room again")


async def test_more_long_polls_than_may_wait_are_answered_at_once(
    make_headway: MakeHeadway, until: Until
) -> None:
    """Waiting is a favour: who asks for it too often gets the state as it is."""
    limits = Limits(streams_per_owner=2)
    async with open_house(make_headway, identify=user, limits=limits) as house:
        job = await house.running("ann")
        async with house.client(x_user="ann", prefer="wait=20") as http:
            tag = (await http.get(f"/jobs/{job.id}")).headers["etag"]
            same = {"if-none-match": tag}
            held = [asyncio.create_task(http.get(f"/jobs/{job.id}", headers=same)) for _ in "ab"]
            await until(lambda: len(house.headway.streams._polls) == 2, "two wait")
            began_at = time.monotonic()
            reply = await http.get(f"/jobs?id={job.id}", headers=same)
            third = await http.get(f"/jobs/{job.id}", headers=same)
            took_s = time.monotonic() - began_at
            await house.headway.cancel(job.id)
            answers = await asyncio.gather(*held)

    assert (reply.status_code, third.status_code) == (200, 304)
    assert took_s < 10, "the polls would last 20 s"
    assert [one.status_code for one in answers] == [200, 200]


async def test_long_polls_do_not_hold_up_the_stop(house: House, until: Until) -> None:
    """When the server is about to stop they are answered at once."""
    job = await house.running("ann")

    async with house.client(x_user="ann", prefer="wait=20") as http:
        tag = (await http.get(f"/jobs/{job.id}")).headers["etag"]
        poll = asyncio.create_task(http.get(f"/jobs/{job.id}", headers={"if-none-match": tag}))
        await until(lambda: house.headway.streams._polls, "it waits")
        house.headway.streams.drain()
        began_at = time.monotonic()

        assert (await poll).status_code == 304
    assert time.monotonic() - began_at < 10, "the poll would last 20 s"


@pytest.mark.parametrize("door", DOORS)
async def test_a_new_visitors_answer_is_for_no_shared_cache(
    make_headway: MakeHeadway, door: str
) -> None:
    """The answer that names a visitor may be kept by nobody but the visitor's browser."""

    async with open_house(make_headway, door) as house, house.client() as http:
        first = await http.get("/")
        second = await http.get("/")

    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=Lax" in first.headers["set-cookie"]
    assert "private" in first.headers["cache-control"]
    assert "Cookie" in first.headers["vary"]
    assert "set-cookie" not in second.headers
