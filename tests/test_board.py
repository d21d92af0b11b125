"""The operators' page: what stands on it, for whom, and that it works by links and forms alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from html.parser import HTMLParser
from typing import Any, Final

import httpx
import pytest

from headway import EVERYONE, Headway, JobError, Progress, Task
from headway.job import Job
from tests.conftest import MakeHeadway
from tests.contract import HOOKS

PAGE: Final = {"accept": "text/html,application/xhtml+xml"}
EVIL: Final = "\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>"


class Seen(HTMLParser):
    """What a browser makes of a page: its tags, links, forms and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: dict[str, str] = {}
        self.actions: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self._href: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes |= found.keys()
        if tag == "form":
            self.actions.append(str(found["action"]))
        if tag == "a":
            self._href = found["href"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._href is not None:
            self.links[data] = self._href
            self._href = None

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Desk:
    """An app with a few tasks, and an operator in front of it."""

    def __init__(self, headway: Headway, http: httpx.AsyncClient) -> None:
        self.headway = headway
        self.http = http
        self.go = asyncio.Event()

        @headway.task
        async def count(progress: Progress, n: int) -> int:
            progress.set(done=n, total=n)
            return n

        @headway.task
        async def wait(progress: Progress) -> None:
            progress.set(done=1, total=4)
            progress.note("Reading orders")
            await self.go.wait()

        @headway.task
        async def fail(progress: Progress, text: str) -> None:
            progress.log(text)
            try:
                raise RuntimeError(text)
            except RuntimeError as error:
                raise JobError(text) from error

        self.count: Task[..., Any] = count
        self.wait: Task[..., Any] = wait
        self.fail: Task[..., Any] = fail

    async def ended(self, job: Job) -> Job:
        async for seen in self.headway.watch(job.id):
            job = seen
        return job

    async def running(self, job: Job) -> None:
        async for seen in self.headway.watch(job.id):
            if seen.progress.done:
                return

    async def page(self, path: str = "/overview", **query: str) -> Seen:
        reply = await self.http.get(f"/jobs{path}", params=query)
        assert reply.status_code == 200, reply.text
        return Seen(reply.text)

    async def post(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.post(f"/jobs{path}", headers=headers)


@pytest.fixture
async def desk(make_headway: MakeHeadway) -> AsyncIterator[Desk]:
    """The operator's browser, at an app that knows operators by a header."""
    headway = make_headway(
        identify=lambda scope: dict(scope["headers"]).get(b"user", b"").decode() or None,
        operator=lambda scope: b"boss" in dict(scope["headers"]),
    )
    transport = httpx.ASGITransport(headway.asgi, root_path="/jobs")
    headers = {**PAGE, "boss": "1", "user": "boss"}
    async with (
        headway,
        httpx.AsyncClient(
            transport=transport, base_url="http://site.test", headers=headers, event_hooks=HOOKS
        ) as http,
    ):
        desk = Desk(headway, http)
        yield desk
        desk.go.set()


async def test_rows_tell_of_each_job(desk: Desk) -> None:
    """State in a word, title and task, owner, progress, why it failed, and what can be done."""
    failed = await desk.ended(await desk.fail.using(owner="bob").start("Row 7 has no name"))
    lives = await desk.wait.using(owner=EVERYONE, title="Orders").start()
    nobodys = await desk.ended(await desk.count.start(3))
    await desk.running(lives)

    seen = await desk.page()

    for words in ("Running", "Orders", "everyone", "25%", "Reading orders", "Failed", "bob"):
        assert words in seen.text
    assert "Row 7 has no name" in seen.text
    assert "nobody" in seen.text
    assert set(seen.actions) == {
        "/jobs/overview", f"/jobs/{lives.id}/cancel", f"/jobs/{failed.id}/retry",
        f"/jobs/{failed.id}/forget", f"/jobs/{nobodys.id}/forget",
    }  # fmt: skip
    assert seen.links["bob"] == "/jobs/overview?owner=bob"
    assert seen.links["fail"] == "/jobs/overview?task=fail"


async def test_filter_and_pages_are_links_and_a_form(desk: Desk) -> None:
    """What was asked stays in the form and in the links; the tasks of this process are offered."""
    jobs = [await desk.count.using(owner="bob").start(1) for _ in range(60)]
    await asyncio.gather(*map(desk.ended, jobs))

    first = await desk.page(task="count", owner="bob", state="succeeded")
    rest = await desk.page(**dict(httpx.URL(first.links["Next"]).params))
    none = await desk.page(state="failed")

    assert first.tags.count("tr") == 51
    assert rest.tags.count("tr") == 11
    assert "Next" not in rest.links
    assert rest.links["Back to the top"] == "/jobs/overview?state=succeeded&task=count&owner=bob"
    assert rest.links["Show all"] == "/jobs/overview"
    assert first.tags.count("option") == 6 + 3
    assert "No job here is like that." in none.text


async def test_a_filter_that_cannot_be_is_told_in_words(desk: Desk) -> None:
    """The status is that of the problem, and the page says which word is wrong."""
    reply = await desk.http.get("/jobs/overview?state=done")

    assert reply.status_code == 400
    assert "state 'done': give one of" in Seen(reply.text).text


async def test_only_operators_are_shown_the_way(desk: Desk) -> None:
    """Their own list and the pages of jobs lead to all jobs; for others there is no such page."""
    job = await desk.ended(await desk.fail.using(owner="ann").start("secret of the inside"))
    ann = {**PAGE, "user": "ann"}
    async with httpx.AsyncClient(
        transport=desk.http._transport, base_url="http://site.test"
    ) as http:
        others = await http.get("/jobs/overview", headers=ann)
        listed = await http.get("/jobs", headers=ann)
        hers = await http.get(f"/jobs/{job.id}", headers=ann)

    assert others.status_code == 404
    assert "All jobs" not in others.text + listed.text + hers.text
    assert "Traceback" not in hers.text
    assert "All jobs" in (await desk.page("")).links
    assert "All jobs" in (await desk.page(f"/{job.id}")).links


async def test_page_of_a_job_tells_operators_more(desk: Desk) -> None:
    """Whose it is, its attempts with their traces, its log, and a form to forget it."""
    job = await desk.ended(await desk.fail.using(owner="ann").start("no name"))

    seen = await desk.page(f"/{job.id}")

    for words in ("For operators", "ann", "Attempt 1: failed", "RuntimeError: no name", "Log, 1"):
        assert words in seen.text
    assert f"/jobs/{job.id}/forget" in seen.actions


@pytest.mark.parametrize("state", ["failed", "running", "succeeded"])
async def test_texts_never_become_markup(desk: Desk, state: str) -> None:
    """Titles, owners, notes, errors, traces, logs and what is asked for are text."""

    @desk.headway.task
    async def say(progress: Progress) -> str:
        progress.set(done=1, total=2)
        progress.note(EVIL)
        progress.log(EVIL)
        if state == "failed":
            raise JobError(EVIL, code=EVIL)
        if state == "running":
            await desk.go.wait()
        return EVIL

    job = await say.using(owner=EVIL, title=EVIL).start()
    await (desk.running(job) if state == "running" else desk.ended(job))

    for path, asked in (("/overview", "owner"), ("/overview", "task"), (f"/{job.id}", "x")):
        reply = await desk.http.get(f"/jobs{path}", params={asked: EVIL})
        seen = Seen(reply.text)
        assert "img" not in seen.tags
        assert "onerror" not in seen.attributes
        assert not re.search(
            r"<script(?! type=\"(module\" src=\"/jobs/static/|application/json))", reply.text
        )
        assert EVIL in unescape(reply.text)
        assert "unsafe-inline" not in reply.headers["content-security-policy"]
        assert "style" not in seen.attributes | set(seen.tags)


async def test_forms_lead_back_to_the_list_they_came_from(desk: Desk) -> None:
    """With its filter and its page; from elsewhere to the job, or to one's own jobs."""
    here = "http://site.test/jobs/overview?owner=bob&after=e~1~"
    lives = await desk.wait.using(owner="bob").start()
    failed = await desk.ended(await desk.fail.using(owner="bob").start("x"))
    await desk.running(lives)

    answers = [
        await desk.post(f"/{lives.id}/cancel", referer=here),
        await desk.post(f"/{failed.id}/retry", referer=here),
        await desk.post(f"/{failed.id}/retry", referer=f"http://site.test/jobs/{failed.id}"),
        await desk.post(f"/{lives.id}/cancel", referer="http://evil.test/jobs/overview"),
        await desk.post(f"/{failed.id}/forget", referer=here),
        await desk.post(f"/{lives.id}/cancel", referer="http://site.test//evil.test/jobs"),
    ]
    desk.go.set()
    ended = await desk.ended(lives)
    answers.append(await desk.post(f"/{ended.id}/forget", referer="http://[x"))

    assert {answer.status_code for answer in answers} == {303}
    back, page = "/jobs/overview?owner=bob&after=e~1~", f"/jobs/{lives.id}"
    places = [answer.headers["location"] for answer in answers]
    assert places[:2] == [back, back]
    assert re.fullmatch(r"/jobs/\w{28}", places[2])
    assert places[3:] == [page, back, page, "/jobs"]


async def test_forgetting_by_a_form_obeys_the_rules_of_forgetting(desk: Desk) -> None:
    """Not while it lives, not for another site, not by reading; for clients it is a 204."""
    lives = await desk.wait.using(owner="bob").start()
    await desk.running(lives)
    over = await desk.ended(await desk.count.using(owner="bob").start(1))

    going = await desk.post(f"/{lives.id}/forget")
    foreign = await desk.post(f"/{over.id}/forget", **{"sec-fetch-site": "cross-site"})
    read = await desk.http.get(f"/jobs/{over.id}/forget")
    done = await desk.post(f"/{over.id}/forget", accept="application/json")
    gone = await desk.post(f"/{over.id}/forget")

    assert [r.status_code for r in (going, foreign, read, done, gone)] == [409, 403, 405, 204, 404]
