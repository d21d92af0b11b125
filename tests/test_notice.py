"""Problems in words: browsers that navigate get a small page, clients the problem document."""

from __future__ import annotations

import pytest

from headway.http import NO_STORE, Reply, Request
from headway.notice import notice
from headway.problems import MEDIA_TYPE, PROBLEMS, problem
from tests.apps.doors import DOORS as APPS
from tests.conftest import MakeHeadway, OwnServer
from tests.test_api import DOORS, OTHER_ID, PAGE, open_site
from tests.test_doors import visiting

BROWSER = {"accept": PAGE["accept"], "host": "site.test"}


def asked(path: str = "/x", method: str = "GET", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, "/jobs", headers={**BROWSER, **named})


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_has_its_page(code: str) -> None:
    """The status stays, the headers too, and the page says what it is and where to go on."""
    reply = problem(code, again_s=7, headers=[("Location", "/elsewhere")])

    page = notice(asked(), reply)

    assert isinstance(page.body, bytes)
    text = page.body.decode()
    headers = dict(page.headers)
    assert page.status == reply.status
    assert headers["Content-Type"].startswith("text/html")
    assert (headers["Retry-After"], headers["Location"]) == ("7", "/elsewhere")
    assert page.headers.count(NO_STORE) == 1
    assert PROBLEMS[code].title.split("'")[0].rstrip(".") in text.replace("&amp;", "&")
    assert '<a href="/jobs">My jobs</a>' in text


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": "application/json"},
        {"accept": "*/*"},
        {"accept": ""},
        {"accept": "text/html", "hx_request": "true"},
        {"accept": "text/event-stream"},
    ],
)
def test_clients_keep_the_document(headers: dict[str, str]) -> None:
    """Whoever did not ask for a page gets none; nor does htmx, to put it into another."""
    reply = problem("not_found")

    assert notice(asked(**headers), reply) is reply


def test_what_is_no_problem_stays_as_it_is() -> None:
    """A page, a document or a redirect is not touched."""
    reply = Reply(303, [("Location", "/jobs")])

    assert notice(asked(), reply) is reply


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)])
def test_page_without_a_store_looks_again_by_itself(method: str, again: bool) -> None:
    """What is over soon is looked for again; a form is not sent again by itself."""
    page = notice(asked(method=method), problem("store_unavailable", again_s=2))

    assert isinstance(page.body, bytes)
    assert (b'http-equiv="refresh"' in page.body) is again


def test_texts_of_problems_are_text() -> None:
    """A detail may say what a stranger has sent; so may the address that one comes from."""
    evil = "<img src=x onerror=alert(1)>"
    reply = problem("bad_query", title=evil, detail=evil)

    page = notice(asked(method="POST", referer=f'http://site.test/"{evil}'), reply)

    assert isinstance(page.body, bytes)
    assert b"<img" not in page.body


def test_refused_form_leads_back() -> None:
    """To the page that it was sent from, if that is of this site."""
    here, other = "http://site.test/start?n=1", "http://evil.test/start"

    pages = [
        notice(asked(method="POST", referer=referer), problem("too_many_jobs")).body
        for referer in (here, other)
    ]

    assert b'<a href="/start?n=1">Back</a>' in bytes(pages[0])  # type: ignore[arg-type]
    assert b"Back" not in bytes(pages[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("door", DOORS)
async def test_links_to_what_is_not_there_lead_on(door: str, make_headway: MakeHeadway) -> None:
    """Someone else's job, a forgotten one and no address at all: in words, with the way home."""
    async with open_site(door, make_headway) as site:
        theirs = await site.count.using(owner="bob").start(1)
        mine = await site.count.using(owner="ann").start(1)
        await site.ended(mine.id)
        await site.headway.forget(mine.id)
        replies = [
            await site.get(path, accept=PAGE["accept"])
            for path in (f"/{theirs.id}", f"/{mine.id}", f"/{OTHER_ID}", "/a/b/c", "/overview")
        ]
        client = await site.get(f"/{theirs.id}")

    assert {reply.status_code for reply in replies} == {404}
    assert all(reply.headers["content-type"].startswith("text/html") for reply in replies)
    assert all('href="/jobs">My jobs' in reply.text for reply in replies)
    assert replies[0].text == replies[1].text == replies[2].text
    assert client.headers["content-type"] == MEDIA_TYPE
    assert "Accept" in client.headers["vary"]
    assert "Accept" in replies[0].headers["vary"]


async def test_result_that_is_not_there_leads_to_its_job(make_headway: MakeHeadway) -> None:
    """Too early, or after a failure: the page of the job says more."""
    async with open_site("asgi", make_headway) as site:
        job = await site.wait.using(owner="ann").start()
        await site.running(job.id)
        early = await site.get(f"/{job.id}/result", accept=PAGE["accept"])
        site.go.set()

    assert early.status_code == 409
    assert f'<a href="/jobs/{job.id}">Open the job</a>' in early.text


async def test_store_that_is_away_is_told_in_words(
    own_server: OwnServer, make_headway: MakeHeadway
) -> None:
    """503, when to come back, and nothing of where the store is."""
    async with open_site(
        "asgi", lambda *a, **o: make_headway(*a, **{**o, "url": own_server.url})
    ) as site:
        own_server.stop()
        reply = await site.get(f"/{OTHER_ID}", accept=PAGE["accept"])
        own_server.start()

    assert reply.status_code == 503
    assert reply.headers["retry-after"]
    assert "Nothing is lost." in reply.text
    assert "unix" not in reply.text


@pytest.mark.parametrize("door", APPS)
async def test_app_that_refuses_a_form_says_why(door: str, make_headway: MakeHeadway) -> None:
    """What is refused in a route of the app is a page for a form, and a document for clients."""
    async with visiting(door, make_headway) as visit:
        await visit.get("/")
        forms = [await visit.start("long", **PAGE) for _ in range(4)]
        client = await visit.start("long")

    assert forms[-1].status_code == 429
    assert forms[-1].headers["content-type"].startswith("text/html")
    assert "Wait until some of your jobs have ended." in forms[-1].text
    assert client.json()["code"] == "too_many_jobs"
