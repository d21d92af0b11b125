"""The HTTP surface: one contract, through every door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette

from headway import EVERYONE, Headway, JobError, Progress, Task
from headway import fastapi as fastapi_door
from headway import quart as quart_door
from headway import starlette as starlette_door
from tests.apps.life import lived
from tests.conftest import MakeHeadway, Until
from tests.contract import HOOKS
from tests.test_sse import Stream

DOORS = ["asgi", "quart", "starlette", "fastapi", "wrap"]
OTHER_ID = "00" + "a" * 26
PAGE = {"accept": "text/html,application/xhtml+xml"}


def _who(native: Any) -> str | None:
    """The user that a test names in a header, as an app's own login would."""
    if isinstance(native, dict):
        return dict(native["headers"]).get(b"x-user", b"").decode() or None
    name: str | None = native.headers.get("x-user")
    return name


class Site:
    """A site with Headway behind one of its doors, and what a test needs to drive it."""

    def __init__(self, headway: Headway, client: httpx.AsyncClient) -> None:
        self.headway = headway
        self.http = client
        self.go = asyncio.Event()
        self.count: Task[..., Any] = headway.task(self._count)
        self.wait: Task[..., Any] = headway.task(self._wait)
        self.fail: Task[..., Any] = headway.task(self._fail)
        self.link: Task[..., Any] = headway.task(self._link)

    async def _count(self, progress: Progress, n: int) -> int:
        """Counts to *n*."""
        async for _ in progress.track(range(n), unit="row"):
            progress.note("counting")
        return n

    async def _wait(self, progress: Progress) -> str:
        progress.set(done=1, total=2)
        await self.go.wait()
        return "went"

    async def _fail(self) -> None:
        raise JobError("Row 7 has <b>no</b> name", code="no_name")

    async def _link(self, value: Any) -> Any:
        return value

    async def ended(self, job_id: str) -> None:
        async for _ in self.headway.watch(job_id):
            pass

    async def running(self, job_id: str) -> None:
        async for job in self.headway.watch(job_id):
            if job.progress.done:
                return

    async def get(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.get(f"/jobs{path}", headers=named)

    async def post(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"/jobs{path}", headers=named)


@asynccontextmanager
async def open_site(door: str, make_headway: MakeHeadway) -> AsyncIterator[Site]:
    if door == "asgi":
        headway = make_headway(identify=_who)
        transport = httpx.ASGITransport(headway.asgi, root_path="/jobs")
        async with headway, _client(transport) as client:
            yield Site(headway, client)
        return
    headway, app = _behind(door, make_headway)
    async with lived(app), _client(httpx.ASGITransport(app)) as client:
        yield Site(headway, client)


def _behind(door: str, make_headway: MakeHeadway) -> tuple[Headway, Any]:
    """A bare app, and Headway in it."""
    if door == "wrap":
        headway = make_headway(identify=_who)
        return headway, headway.wrap(_nothing)
    kinds: dict[str, tuple[Any, Any]] = {
        "quart": (quart_door.Headway, Quart(__name__)),
        "starlette": (starlette_door.Headway, Starlette()),
        "fastapi": (fastapi_door.Headway, FastAPI()),
    }
    kind, app = kinds[door]
    headway = make_headway(kind, identify=_who)
    cast("Any", headway).init_app(app)
    return headway, app


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(f"this app knows no {scope['type']}")
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _client(transport: httpx.ASGITransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://site.test",
        headers={"x-user": "ann"},
        event_hooks=HOOKS,
    )


@pytest.fixture(params=DOORS)
async def site(request: pytest.FixtureRequest, make_headway: MakeHeadway) -> AsyncIterator[Site]:
    """A site behind each door in turn."""
    async with open_site(request.param, make_headway) as site:
        yield site
        site.go.set()


def events(body: str) -> list[tuple[str, Any]]:
    """(event, data) of an event stream that has ended."""
    found = []
    for block in body.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


# ── reading ───────────────────────────────────────────────────────────────────────────────────


async def test_status_document_says_all(site: Site) -> None:
    """The document of an ended job has its counts, its result and its links."""
    job = await site.count.using(owner="ann", title="Count").start(3)
    await site.ended(job.id)

    found = (await site.get(f"/{job.id}")).json()

    assert found["state"] == "succeeded"
    assert found["title"] == "Count"
    assert found["progress"] == {
        "done": 3, "total": 3, "ratio": 1.0, "unit": "row",
        "rate_per_s": found["progress"]["rate_per_s"], "stages": [],
    }  # fmt: skip
    assert found["result"] == 3
    assert found["note"] == "counting"
    assert found["links"] == {
        "self": f"/jobs/{job.id}", "events": f"/jobs/{job.id}/events", "cancel": None,
        "log": f"/jobs/{job.id}/log", "result": f"/jobs/{job.id}/result", "retry": None,
    }  # fmt: skip
    assert found["finished_at"].endswith("Z")


async def test_status_is_200_in_every_state_and_private(site: Site) -> None:
    """A status is an ordinary answer that only its owner's browser may keep."""
    job = await site.wait.using(owner="ann").start()
    await site.running(job.id)

    reply = await site.get(f"/{job.id}")

    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "private, no-cache"
    assert "Cookie" in reply.headers["vary"]
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["content-type"] == "application/json"


async def test_etag_spares_the_unchanged(site: Site) -> None:
    """Whoever has the newest state is told so without a body."""
    job = await site.count.using(owner="ann").start(1)
    await site.ended(job.id)
    tag = (await site.get(f"/{job.id}")).headers["etag"]

    for asked in (tag, f"W/{tag}", f'"x", {tag}'):
        reply = await site.get(f"/{job.id}", if_none_match=asked)
        assert reply.status_code == 304
        assert reply.content == b""


@pytest.mark.parametrize("tag", ['"', "nonsense", '"1', "*" * 9000, ",,,,", "\x80"])
async def test_malformed_etag_matches_nothing(site: Site, tag: str) -> None:
    """A tag that we cannot have given is ignored."""
    job = await site.count.using(owner="ann").start(1)
    await site.ended(job.id)

    reply = await site.http.get(
        f"/jobs/{job.id}", headers=[(b"if-none-match", tag.encode("latin-1"))]
    )

    assert reply.status_code == 200


async def test_page_and_document_have_different_tags(site: Site) -> None:
    """The page of a job is not taken for its document."""
    job = await site.count.using(owner="ann").start(1)
    await site.ended(job.id)

    page = await site.get(f"/{job.id}", **PAGE)
    document = await site.get(f"/{job.id}")

    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["etag"] != document.headers["etag"]


async def test_long_poll_answers_at_the_change(site: Site) -> None:
    """`Prefer: wait` holds the answer back until there is something new."""
    job = await site.wait.using(owner="ann").start()
    await site.running(job.id)
    tag = (await site.get(f"/{job.id}")).headers["etag"]

    waiting = asyncio.create_task(site.get(f"/{job.id}", if_none_match=tag, prefer="wait=20"))
    site.go.set()
    reply = await waiting

    assert reply.status_code == 200
    assert reply.json()["state"] == "succeeded"
    assert reply.headers["preference-applied"] == "wait=20"


async def test_long_poll_ends_without_a_change(site: Site) -> None:
    """After the time that was asked for, the unchanged is told as such."""
    job = await site.wait.using(owner="ann").start()
    await site.running(job.id)
    tag = (await site.get(f"/{job.id}")).headers["etag"]

    reply = await site.get(f"/{job.id}", if_none_match=tag, prefer="respond-async, wait=1")

    assert reply.status_code == 304


@pytest.mark.parametrize("job_id", [OTHER_ID, "x", "..", "%00", "a" * 3000, "ff" + "a" * 26, "☃"])
async def test_unknown_jobs_are_not_found(site: Site, job_id: str) -> None:
    """Garbage and unknown ids get the same document, on every route."""
    for method, rest in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("POST", "/cancel")):
        reply = await site.http.request(method, f"/jobs/{job_id}{rest}")

        if job_id == "..":
            continue  # the client itself resolves it
        assert reply.status_code == 404
        if job_id != "..":
            assert reply.json()["code"] in {"not_found", "no_route"}
            assert reply.headers["content-type"] == "application/problem+json"


async def test_the_jobs_of_others_do_not_exist(site: Site) -> None:
    """Somebody else's id and nobody's id cannot be told apart."""
    job = await site.wait.using(owner="bob").start()
    routes = [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/result"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ]

    for method, rest in routes:
        theirs = await site.http.request(method, f"/jobs/{job.id}{rest}")
        nobodys = await site.http.request(method, f"/jobs/{OTHER_ID}{rest}")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.content == nobodys.content


async def test_nobody_sees_nothing(site: Site) -> None:
    """A request that `identify` knows no owner for gets 404, and an empty list."""
    job = await site.wait.using(owner="ann").start()

    one = await site.get(f"/{job.id}", x_user="")
    all_ = await site.get("", x_user="")

    assert one.status_code == 404
    assert all_.json() == {"jobs": [], "gone": []}


async def test_a_job_without_owner_is_seen_by_nobody(site: Site) -> None:
    """What was started outside of a request, and given to nobody, stays private."""
    job = await site.headway.begin(_start_of(site.wait, owner=None))

    assert (await site.get(f"/{job.id}")).status_code == 404


def _start_of(task: Task[..., Any], *, owner: str | None) -> Any:
    from headway.task import Options, Start

    return Start(
        task=task.name, args="[[],{}]", title="x", options=Options(), on_lost="fail",
        max_attempts=1, owner=owner, owned=True,
    )  # fmt: skip


async def test_everyone_may_watch_but_not_cancel(site: Site) -> None:
    """A public job is seen by all, and stopped by none of them."""
    job = await site.wait.using(owner=EVERYONE).start()

    seen = await site.get(f"/{job.id}", x_user="bob")
    cancelled = await site.post(f"/{job.id}/cancel", x_user="bob")

    assert seen.json()["links"]["cancel"] is None
    assert cancelled.status_code == 403
    assert cancelled.json()["code"] == "not_yours"


async def test_an_operator_sees_and_cancels_all(make_headway: MakeHeadway) -> None:
    """Whom the app calls an operator may do with every job what its owner may."""
    headway = make_headway(identify=_who, operator=lambda native: _who(native) == "root")
    async with headway, _client(httpx.ASGITransport(headway.asgi, root_path="/jobs")) as client:
        site = Site(headway, client)
        job = await site.wait.using(owner="bob").start()

        assert (await site.get(f"/{job.id}", x_user="ann")).status_code == 404
        assert (await site.get(f"/{job.id}", x_user="root")).status_code == 200
        assert (await site.post(f"/{job.id}/cancel", x_user="root")).status_code == 202
        site.go.set()


async def test_list_has_my_jobs_newest_first(site: Site) -> None:
    """Without ids the list is the visitor's own."""
    first = await site.count.using(owner="ann").start(1)
    await site.count.using(owner="bob").start(1)
    await asyncio.sleep(0.002)  # the order is that of milliseconds
    second = await site.count.using(owner="ann").start(1)

    found = (await site.get("")).json()["jobs"]

    assert [one["id"] for one in found] == [second.id, first.id]


async def test_batch_tells_what_is_gone(site: Site) -> None:
    """With ids it answers those that may be seen, and names the others."""
    mine = await site.count.using(owner="ann").start(1)
    theirs = await site.count.using(owner="bob").start(1)

    found = (await site.get(f"?id={mine.id}&id={theirs.id}&id=junk")).json()

    assert [one["id"] for one in found["jobs"]] == [mine.id]
    assert found["gone"] == [theirs.id, "junk"]


async def test_batch_has_one_tag_and_waits(site: Site) -> None:
    """The batch can be long-polled like a single job."""
    job = await site.wait.using(owner="ann").start()
    await site.running(job.id)
    tag = (await site.get(f"?id={job.id}")).headers["etag"]
    same = await site.get(f"?id={job.id}", if_none_match=tag)

    waiting = asyncio.create_task(site.get(f"?id={job.id}", if_none_match=tag, prefer="wait=20"))
    site.go.set()
    changed = await waiting

    assert same.status_code == 304
    assert changed.json()["jobs"][0]["state"] == "succeeded"


@pytest.mark.parametrize("path", ["", "/events"])
async def test_too_many_ids_are_refused(site: Site, path: str) -> None:
    """One request asks for at most fifty jobs, and for at least one."""
    many = "&".join(f"id={n:02x}{'a' * 26}" for n in range(51))

    assert (await site.get(f"{path}?{many}")).json()["code"] == "too_many_ids"
    assert (await site.get("/events")).json()["code"] == "no_ids"


# ── results ───────────────────────────────────────────────────────────────────────────────────


async def test_result_of_a_running_job_is_too_early(site: Site) -> None:
    """Asked too early, the result is a conflict that says when to come back."""
    job = await site.wait.using(owner="ann").start()

    reply = await site.get(f"/{job.id}/result")

    assert reply.status_code == 409
    assert reply.json()["code"] == "not_finished"
    assert reply.headers["retry-after"] == "1"


async def test_result_is_the_value(site: Site) -> None:
    """What the task returned is the body."""
    job = await site.link.using(owner="ann").start({"a": [1, None, "ä"]})
    await site.ended(job.id)

    assert (await site.get(f"/{job.id}/result")).json() == {"a": [1, None, "ä"]}


@pytest.mark.parametrize("address", ["/files/a.csv", "https://cdn.test/x?y=1"])
async def test_result_elsewhere_is_a_redirect(site: Site, address: str) -> None:
    """A result that names its address sends there."""
    job = await site.link.using(owner="ann").start({"url": address})
    await site.ended(job.id)

    reply = await site.get(f"/{job.id}/result")

    assert reply.status_code == 303
    assert reply.headers["location"] == address


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "//evil.test/", "data:text/html,x", "/a\r\nSet-Cookie: x=1",
            "\\\\evil.test", " /x", "ftp://x/", 7, "http://[", "/ä"],
)  # fmt: skip
async def test_a_dangerous_address_is_only_data(site: Site, address: Any) -> None:
    """An address that could run or forge something is never sent as one."""
    job = await site.link.using(owner="ann").start({"url": address})
    await site.ended(job.id)

    reply = await site.get(f"/{job.id}/result")

    assert reply.status_code == 200
    assert reply.json() == {"url": address}


async def test_result_of_a_failed_job_says_why(site: Site) -> None:
    """A failed job has no result, but the reason its task gave."""
    job = await site.fail.using(owner="ann").start()
    await site.ended(job.id)

    reply = await site.get(f"/{job.id}/result")

    assert reply.status_code == 409
    assert reply.json()["title"] == "Row 7 has <b>no</b> name"
    assert reply.json()["error"] == "no_name"


# ── changing ──────────────────────────────────────────────────────────────────────────────────


async def test_cancel_is_accepted_then_true(site: Site) -> None:
    """Cancelling a running job is a wish; the job is cancelled when its code has stopped."""
    job = await site.wait.using(owner="ann").start()
    await site.running(job.id)

    asked = await site.post(f"/{job.id}/cancel")
    await site.ended(job.id)
    again = await site.post(f"/{job.id}/cancel")

    assert asked.status_code == 202
    assert asked.json()["cancel_requested"] is True
    assert again.status_code == 200
    assert again.json()["state"] == "cancelled"


async def test_retry_starts_the_work_anew(site: Site) -> None:
    """Trying again makes a new job with the same arguments, and a double click makes one."""
    job = await site.fail.using(owner="ann").start()
    early = await site.wait.using(owner="ann").start()
    await site.ended(job.id)

    reply = await site.post(f"/{job.id}/retry")

    assert reply.status_code == 202
    assert reply.json()["id"] != job.id
    assert reply.headers["location"] == f"/jobs/{reply.json()['id']}"
    assert (await site.post(f"/{early.id}/retry")).json()["code"] == "not_failed"


async def test_a_form_is_sent_to_the_page(site: Site) -> None:
    """Without JavaScript, cancelling leads back to the job's page."""
    job = await site.wait.using(owner="ann").start()

    reply = await site.post(f"/{job.id}/cancel", **PAGE)

    assert reply.status_code == 303
    assert reply.headers["location"] == f"/jobs/{job.id}"


@pytest.mark.parametrize(
    "headers",
    [{"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"origin": "http://evil.test"},
     {"origin": "null"}, {"sec_fetch_site": "cross-site", "origin": "http://site.test"}],
)  # fmt: skip
async def test_other_sites_change_nothing(site: Site, headers: dict[str, str]) -> None:
    """A browser that acts for another site is refused, whatever cookies it carries."""
    job = await site.wait.using(owner="ann").start()

    for path in (f"/{job.id}/cancel", f"/{job.id}/retry"):
        assert (await site.post(path, **headers)).json()["code"] == "cross_origin"
    assert (await site.get(f"/{job.id}/events", **headers)).status_code == 403
    assert not (await site.headway.get(job.id)).cancel_requested


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"origin": "http://site.test"},
        {},
    ],
)
async def test_the_same_site_may_change(site: Site, headers: dict[str, str]) -> None:
    """Pages of the site itself, and clients that are no browsers, pass."""
    job = await site.wait.using(owner="ann").start()

    assert (await site.post(f"/{job.id}/cancel", **headers)).status_code in {200, 202}


async def test_nothing_changes_on_get(site: Site) -> None:
    """A link, a prefetch or an image cannot stop a job."""
    job = await site.wait.using(owner="ann").start()

    for path in ("cancel", "retry"):
        reply = await site.get(f"/{job.id}/{path}")
        assert reply.status_code == 405
        assert reply.headers["allow"] == "POST"
    for path in (f"/{job.id}", "", f"/{job.id}/events", f"/{job.id}/result"):
        assert (await site.post(path)).status_code == 405
    assert not (await site.headway.get(job.id)).cancel_requested


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_other_methods_are_not_allowed(site: Site, method: str) -> None:
    """What is not spoken here is told so."""
    reply = await site.http.request(method, f"/jobs/{OTHER_ID}")

    assert reply.status_code == 405
    assert reply.json()["code"] == "method_not_allowed"


# ── streams ───────────────────────────────────────────────────────────────────────────────────


async def test_stream_tells_the_story_to_its_end(site: Site) -> None:
    """A stream begins with a state, ends with `end`, and its revisions rise."""
    job = await site.count.using(owner="ann").start(5)

    reply = await site.get(f"/{job.id}/events")
    found = events(reply.text)

    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store, no-transform"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.text.startswith("retry: ")
    assert found[-1] == ("end", {})
    assert found[-2][1]["state"] == "succeeded"
    revs = [data["rev"] for event, data in found if event == "job"]
    assert revs == sorted(set(revs))


async def test_stream_of_many_names_the_gone(site: Site) -> None:
    """Unknown ids and other people's do not fail the stream of the others."""
    mine = await site.count.using(owner="ann").start(2)
    theirs = await site.wait.using(owner="bob").start()

    found = events((await site.get(f"/events?id={mine.id}&id={theirs.id}&id=junk")).text)

    assert {data["id"] for event, data in found if event == "gone"} == {theirs.id, "junk"}
    assert [d["state"] for e, d in found if e == "job"][-1] == "succeeded"
    assert found[-1][0] == "end"


async def test_stream_as_html_tells_the_same_story(site: Site) -> None:
    """States come as messages without a name; the others, and the ids, are as ever."""
    job = await site.fail.using(owner="ann", title="A <i>b</i>\n\nevent: end").start()

    told = Stream((await site.get(f"/{job.id}/events?as=html")).content).events
    plain = Stream((await site.get(f"/{job.id}/events?as=json")).content).events

    assert {event.type for event in told} == {"message", "end"}
    assert (told[-1].type, told[-1].last_event_id) == ("end", "end")
    assert "A &lt;i&gt;b&lt;/i&gt;" in told[-2].data
    assert "Row 7 has &lt;b&gt;no&lt;/b&gt; name" in told[-2].data
    assert f'action="/jobs/{job.id}/retry"' in told[-2].data
    assert told[-2].last_event_id == plain[-2].last_event_id


async def test_streams_as_html_say_where_each_fragment_belongs(site: Site) -> None:
    """One for many jobs names their places; the place of what is gone says so, and no more."""
    mine = await site.count.using(owner="ann").start(2)
    theirs = await site.wait.using(owner="bob", title="Secret").start()
    ids = f"id={mine.id}&id={theirs.id}&id=%3Cb%3E"

    found = Stream((await site.get(f"/events?as=html&{ids}")).content).events
    shown = [event.data for event in found if event.type == "message"]

    assert all(one.startswith('<div id="headway-') for one in shown)
    assert f'<div id="headway-{mine.id}" hx-swap-oob="innerMorph">' in "".join(shown)
    assert 'id="headway-&lt;b&gt;"' in "".join(shown)
    assert "".join(shown).count("No longer available") == 2
    assert "Secret" not in "".join(shown)
    assert [e.type for e in found if e.type != "message"] == ["gone", "gone", "end"]


async def test_streams_of_both_kinds_do_not_mix(site: Site, until: Until) -> None:
    """Who asks for HTML gets HTML, also while others of the same job get documents."""
    job = await site.wait.using(owner="ann").start()
    paths = [f"/{job.id}/events{kind}" for kind in ("", "?as=html", "", "?as=html")]

    asked = [asyncio.ensure_future(site.get(path)) for path in paths]
    await until(lambda: len(site.headway.streams) == len(paths), "all listen")
    site.go.set()
    bodies = [Stream((await one).content).events for one in asked]

    assert [{event.type for event in body} for body in bodies] == [
        {"job", "end"},
        {"message", "end"},
    ] * 2
    assert all("Done!" in body[-2].data for body in bodies[1::2])


@pytest.mark.parametrize(
    "path",
    [
        "/{}/events?as=xml",
        "/events?id={}&as=XML%0A",
        "/{}/events?as=",
        "/{}/events?as=json&as=html",
    ],
)
async def test_stream_as_what_is_not_known_is_refused(site: Site, path: str) -> None:
    """A stream is JSON or HTML; what a field cannot mean is said."""
    job = await site.count.using(owner="ann").start(1)

    reply = await site.get(path.format(job.id))

    assert (reply.status_code, reply.json()["code"]) == (400, "bad_query")
    assert "json, html" in reply.json()["detail"]


async def test_a_stream_that_has_ended_is_not_opened_again(site: Site) -> None:
    """A browser that reconnects after the end is told to stop."""
    job = await site.count.using(owner="ann").start(1)

    reply = await site.get(f"/{job.id}/events", last_event_id="end")

    assert reply.status_code == 204


@pytest.mark.parametrize("seen", ["-1", "x" * 5000, "☃", "1\x002", "end; drop", ""])
async def test_malformed_last_event_id_is_ignored(site: Site, seen: str) -> None:
    """An id that we cannot have sent counts as none."""
    job = await site.count.using(owner="ann").start(1)

    reply = await site.http.get(
        f"/jobs/{job.id}/events", headers=[(b"last-event-id", seen.encode())]
    )

    assert events(reply.text)[-1][0] == "end"


async def test_head_has_the_headers_only(site: Site) -> None:
    """HEAD answers like GET, without a body and without opening a stream."""
    job = await site.wait.using(owner="ann").start()

    for path in ("", f"/{job.id}", f"/{job.id}/events", "/static/headway.js"):
        reply = await site.http.head(f"/jobs{path}")
        assert reply.status_code == 200
        assert reply.content == b""
    assert len(site.headway.streams) == 0


async def test_draining_ends_the_streams(site: Site) -> None:
    """When the server is about to stop, watchers are told to come back."""
    job = await site.wait.using(owner="ann").start()
    await site.running(job.id)

    site.headway.streams.draining = True
    found = events((await site.get(f"/{job.id}/events")).text)

    assert found[-1] == ("bye", {"reason": "drain"})


async def test_text_of_a_task_cannot_forge_an_event(site: Site) -> None:
    """Line breaks in what a task says stay inside of its data."""
    nasty = "x\n\nevent: admin\ndata: pwned\r\rid: 7"
    job = await site.link.using(owner="ann", title=nasty).start(nasty)

    found = events((await site.get(f"/{job.id}/events")).text)

    assert {event for event, _ in found} == {"job", "end"}
    assert found[-2][1]["result"] == nasty


# ── pages and files ───────────────────────────────────────────────────────────────────────────


async def test_page_shows_text_as_text(site: Site) -> None:
    """Markup in a title, a note or an error is shown, never obeyed."""
    nasty = '</script><img src=x onerror="alert(1)">'
    job = await site.fail.using(owner="ann", title=nasty).start()
    await site.ended(job.id)

    for path in (f"/{job.id}", ""):
        page = (await site.get(path, **PAGE)).text
        assert "<img" not in page
        assert "<b>no</b>" not in page
        assert "&lt;b&gt;no&lt;/b&gt;" in page


async def test_pages_allow_nothing_from_elsewhere(site: Site) -> None:
    """The pages carry a strict policy, cannot be framed, and hold no inline script or style."""
    job = await site.wait.using(owner="ann").start()

    reply = await site.get(f"/{job.id}", **PAGE)

    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.text.count("<script") == reply.text.count("application/json") + reply.text.count(
        '<script type="module" src='
    )
    assert " style=" not in reply.text
    assert "<noscript><meta" in reply.text


async def test_static_files_are_revalidated(site: Site) -> None:
    """The element comes with its type and a tag, and nothing else comes from there."""
    reply = await site.get("/static/headway.js")
    again = await site.get("/static/headway.js", if_none_match=reply.headers["etag"])

    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert again.status_code == 304
    for name in ("store.lua", "..%2fapp.py", "headway.JS", ".."):
        assert (await site.get(f"/static/{name}")).status_code in {404, 200}
        assert b"redis" not in (await site.get(f"/static/{name}")).content


# ── the store ─────────────────────────────────────────────────────────────────────────────────


async def test_a_store_that_is_away_is_a_503(site: Site, own_server: Any) -> None:
    """While the store is away every route says so, and when to come back; it tells no secrets."""
    headway = Headway(own_server.url, identify=_who, drain_s=0)
    async with headway, _client(httpx.ASGITransport(headway.asgi, root_path="/jobs")) as client:
        other = Site(headway, client)
        job = await other.count.using(owner="ann").start(1)
        await other.ended(job.id)
        own_server.stop()

        for reply in (
            *[await other.get(p) for p in ("", f"/{job.id}", f"/{job.id}/result")],
            await other.get(f"/{job.id}/events"),
            await other.post(f"/{job.id}/cancel"),
        ):
            assert reply.status_code == 503
            assert reply.json()["code"] == "store_unavailable"
            assert reply.headers["retry-after"] == "2"
            assert "sock" not in reply.text
        own_server.start()
