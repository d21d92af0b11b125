"""What docs/troubleshooting.md says a bar shows, when what lies between it and its job is wrong."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import pytest
from playwright.async_api import Page, Route

from tests.browser.conftest import Complaints
from tests.browser.look import bar, shows
from tests.browser.serving import Site
from tests.samples import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("network_fails"),
]

STATUSES: Final = [
    (404, "gone"), (401, "forbidden"), (403, "forbidden"), (500, "reconnecting"),
]  # fmt: skip


async def watch(site: Site, page: Page, name: str) -> None:
    """Open a page with the bar of a job that has begun, without the state of now in it."""
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    await site.bare(page, f'<headway-bar src="/jobs/{job_id}"></headway-bar>')


@pytest.mark.parametrize(("status", "state"), STATUSES)
async def test_an_answer_that_is_refused(site: Site, page: Page, status: int, state: str) -> None:
    """Not there, not allowed, and out of order are told apart."""
    await page.route("**/jobs/events*", lambda route: route.fulfill(status=status))

    await watch(site, page, f"refused {status}")

    await shows(bar(page), state)


async def test_a_page_to_log_in_instead_of_a_stream(site: Site, page: Page) -> None:
    """What sends everybody to a page of its own looks like a server that is not there."""
    login = {"status": 200, "content_type": "text/html", "body": "<p>Log in</p>"}
    await page.route("**/jobs/events*", lambda route: route.fulfill(**login))

    await watch(site, page, "login")

    await shows(bar(page), "reconnecting")


async def test_a_policy_that_forbids_to_connect(
    site: Site, page: Page, complaints: Complaints
) -> None:
    """So does a policy of the page without `connect-src`."""
    complaints.allow("Content Security Policy")
    complaints.allow("Refused to connect")

    async def strict(route: Route) -> None:
        answer = await route.fetch()
        policy = {"content-security-policy": "default-src 'self'; connect-src 'none'"}
        await route.fulfill(response=answer, headers={**answer.headers, **policy})

    await page.route("**/bare*", strict)

    await watch(site, page, "policy")

    await shows(bar(page), "reconnecting")


async def test_a_stream_that_is_held_back(site: Site, page: Page) -> None:
    """At first it is "Connecting…"; after some seconds the bar asks, and moves all the same."""
    asked = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()  # and never an answer

    await page.route("**/jobs/events*", hold)
    await watch(site, page, "held")
    await asked.wait()

    await shows(bar(page), "connecting")
    await shows(bar(page), "running")


async def test_the_states_have_these_words(site: Site, page: Page) -> None:
    """The words in the docs are those that the element shows in each state."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    told = {state: words for words, state in re.findall(r'^\| "(.+?)" \| `(\w+)` \|', text, re.M)}
    await site.bare(page, "<headway-bar></headway-bar>")

    shown = await bar(page).evaluate("bar => bar.constructor.strings")

    assert len(told) == 4
    assert {state: shown[state] for state in told} == told
