"""A job as its owner sees it: from the form to the result."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.look import Asked, bar, connected, part, says, shows
from tests.browser.serving import Site
from tests.conftest import Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

INTERVALS = """
  window.ticking = new Set();
  const [set, clear] = [setInterval, clearInterval];
  window.setInterval = (...all) => {
    const id = set(...all);
    ticking.add(id);
    return id;
  };
  window.clearInterval = (id) => {
    ticking.delete(id);
    clear(id);
  };
"""


async def test_form_leads_to_a_live_bar_and_to_the_result(
    site: Site, page: Page, name: str
) -> None:
    """A form starts the job; its page follows it, without a reload, to a link to the result."""
    await page.goto(site.url)
    await page.locator("input").fill(name)
    await page.get_by_role("button", name="Start").click()
    await page.wait_for_url("**/jobs/*")
    await page.evaluate("window.loaded = 'once'")

    for done, percent in ((1, "25%"), (2, "50%"), (3, "75%")):
        site.tell(name, total=4, to=done)
        await shows(bar(page), "running", percent)
    site.tell(name, total=4, to=4)
    await shows(bar(page), "finishing", "99%")
    site.tell(name, end=True)
    await shows(bar(page), "succeeded", "100%")
    await says(bar(page), "Done!")

    assert await page.evaluate("window.loaded") == "once"
    await page.get_by_role("link", name="Open result").click()
    await expect(page.get_by_text("packed")).to_be_visible()


async def test_reload_shows_the_present_state_at_once(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """The document in the page is drawn before any request; the stream is the first of these."""
    site.tell(name, total=4, to=2, note="Folding")
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "50%")
    await connected(bar(page))  # else this stream is counted below
    release = asyncio.Event()

    async def hold(route: Route) -> None:
        await release.wait()
        await route.continue_()

    await page.route("**/jobs/events*", hold)
    asked = Asked(page)
    await page.reload()
    await shows(bar(page), "running", "50%")
    await says(bar(page), "Folding")
    await until(lambda: asked.all, "the stream is asked for")
    assert asked.all == ["GET /jobs/events"]
    release.set()
    site.tell(name, total=4, to=3)
    await shows(bar(page), "running", "75%")


async def test_second_tab_sees_the_same(site: Site, page: Page, name: str) -> None:
    """Two tabs of one visitor show one job, from the middle to its end."""
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id)
    await shows(bar(page), "running", "25%")
    other = await page.context.new_page()
    await site.watch(other, job_id)
    await shows(bar(other), "running", "25%")

    site.tell(name, total=4, to=3)
    for tab in (page, other):
        await shows(bar(tab), "running", "75%")
    site.tell(name, end=True)
    for tab in (page, other):
        await shows(bar(tab), "succeeded", "100%")


async def test_cancelled_is_said_once_the_code_has_stopped(
    site: Site, page: Page, name: str
) -> None:
    """While the task still cleans up it is "Cancelling…", however long that takes."""
    site.tell(name, total=4, to=1, hold=True)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id)
    await shows(bar(page), "running", "25%")
    async with page.expect_response(f"**/jobs/{job_id}/cancel") as answer:
        await page.get_by_role("button", name="Cancel").click()

    assert (await (await answer.value).json())["state"] == "running"
    await shows(bar(page), "cancelling", "25%")
    await says(bar(page), "Cancelling…")
    await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    site.tell(name)
    await shows(bar(page), "cancelled")
    await says(bar(page), "Cancelled")


async def test_listener_can_prevent_a_cancel(site: Site, page: Page, name: str) -> None:
    """A page that wants to ask first stops `headway-before-cancel`, and nothing is sent."""
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await connected(bar(page))
    await bar(page).evaluate(
        "bar => bar.addEventListener('headway-before-cancel', e => e.preventDefault())"
    )
    asked = Asked(page)
    await page.get_by_role("button", name="Cancel").click()
    site.tell(name, end=True)
    await shows(bar(page), "succeeded")

    assert asked.all == []


async def test_failure_shows_its_reason_as_text_and_can_be_tried_again(
    site: Site, page: Page, name: str
) -> None:
    """Markup in the text of a JobError stays text; "Try again" follows the new job."""
    reason = "<img src=x onerror=alert(1)> The box is empty"
    site.tell(name, fail=reason)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id)
    await shows(bar(page), "failed")
    await says(bar(page), f"Failed · {reason}")
    await expect(page.locator("img")).to_have_count(0)

    site.tell(name, total=4, to=1)
    await page.get_by_role("button", name="Try again").click()
    await shows(bar(page), "running", "25%")
    await expect(bar(page)).not_to_have_attribute("src", f"/jobs/{job_id}")
    site.tell(name, end=True)
    await shows(bar(page), "succeeded", "100%")


async def test_twelve_bars_share_one_connection(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """All bars of a page live on one stream, which ends with the last job; no timer is left."""
    await page.add_init_script(INTERVALS)
    names = [f"{name} {number}" for number in range(12)]
    for number, one in enumerate(names):
        site.tell(one, total=100, to=number)
    ids = [await site.begin(page, one) for one in names]
    asked = Asked(page)
    await site.watch(page, *ids)
    for number in range(12):
        await shows(bar(page, number), "running", f"{number}%")
    await until(lambda: site.streams() == 1, "the server has one stream open")

    for one in names:
        site.tell(one, end=True)
    for number in range(12):
        await shows(bar(page, number), "succeeded", "100%")
    await until(lambda: site.streams() == 0, "the stream has ended")
    await until(lambda: page.evaluate("ticking.size == 0"), "no timer is left")
    assert asked.all == ["GET /jobs/events"]


async def test_job_of_unknown_size_shows_no_percent(site: Site, page: Page, name: str) -> None:
    """Without a total the bar is indeterminate, and determinate once there is one."""
    site.tell(name, note="Counting")
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "indeterminate")
    await says(bar(page), "Counting")
    await expect(part(bar(page), "percent")).to_be_hidden()

    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")
    site.tell(name, end=True)
    await shows(bar(page), "succeeded", "100%")
