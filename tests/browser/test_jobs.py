"""`<headway-jobs>`: the visitor's own jobs, in every tab."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import Asked, bar, part, says, shows
from tests.browser.serving import Site
from tests.conftest import Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

LIST = "<headway-jobs></headway-jobs>"


def rows(page: Page) -> Locator:
    """The bars of the list, from the top."""
    return page.locator("headway-jobs headway-bar").filter(visible=True)


def labels(page: Page) -> Locator:
    return rows(page).locator("a[slot=label]")


async def over(site: Site, page: Page, *ids: str) -> bool:
    """Whether these jobs have ended: a list is sorted each time it is read, and not in between."""
    query = "&".join(f"id={job_id}" for job_id in ids)
    answer = await page.context.request.get(
        f"{site.url}/jobs/?{query}", headers={"Accept": "application/json"}
    )
    return all(job["finished_at"] for job in (await answer.json())["jobs"])


async def test_list_is_found_again_in_every_tab(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """What runs comes first, then the newest; after a reload, and in a tab of its own."""
    for title, orders in (("Old", {"end": True}), ("Run", {"total": 4, "to": 1})):
        site.tell(f"{name} {title}", **orders)
        await site.begin(page, f"{name} {title}", title=title)
    site.tell(f"{name} New", fail="No")
    new = await site.begin(page, f"{name} New", title="New")
    await until(lambda: over(site, page, new), "it is over")
    asked = Asked(page)
    await site.bare(page, LIST)
    await expect(labels(page)).to_have_text(["Run", "New", "Old"])
    await shows(rows(page).nth(0), "running", "25%")
    await until(lambda: asked.streams, "the page asks for a stream")
    await until(lambda: site.streams() == 1, "one stream serves all of them")
    assert sorted(set(asked.all)) == ["GET /jobs/", "GET /jobs/events"]

    await page.reload()
    await expect(labels(page)).to_have_text(["Run", "New", "Old"])
    other = await page.context.new_page()
    await site.bare(other, LIST)
    await expect(labels(other)).to_have_text(["Run", "New", "Old"])
    site.tell(f"{name} Run", end=True)
    for tab in (page, other):
        await shows(rows(tab).nth(0), "succeeded", "100%")
    await until(lambda: site.streams() == 0, "all streams have ended")


async def test_new_jobs_appear_in_every_tab(site: Site, page: Page, name: str) -> None:
    """A job that another tab shows, or that the page tells of, stands in the list at once."""
    await site.begin(page, f"{name} 0", title="First")
    await site.bare(page, LIST)
    await expect(labels(page)).to_have_text(["First"])
    other = await page.context.new_page()
    await other.goto(site.url)
    await other.locator("input").fill(f"{name} 1")
    await other.get_by_role("button", name="Start").click()
    await shows(bar(other), "indeterminate")
    await expect(labels(page)).to_have_text(["Packing", "First"])

    await site.begin(page, f"{name} 2", title="Third")
    await page.evaluate("document.dispatchEvent(new Event('headway-started'))")
    await expect(labels(page)).to_have_text(["Third", "Packing", "First"])
    site.tell(f"{name} 2", total=4, to=1)
    await shows(rows(page).nth(0), "running", "25%")


async def test_list_is_looked_after_at_a_low_rate(site: Site, page: Page, name: str) -> None:
    """Every half a minute, with an entity tag, and when the page comes back into sight."""
    await page.clock.install()
    await site.begin(page, f"{name} 0", title="First")
    site.tell(f"{name} 0", end=True)
    await site.bare(page, LIST)
    await shows(rows(page).nth(0), "succeeded")
    async with page.expect_response("**/jobs/") as looked:
        await page.clock.fast_forward(31_000)
    assert (await looked.value).status in {200, 304}
    async with page.expect_response("**/jobs/") as again:
        for _ in range(2):  # the first may come before the page has planned the next look
            await page.clock.fast_forward(31_000)
    assert (await again.value).status == 304

    await site.begin(page, f"{name} 1", title="Second")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await page.clock.run_for(200)
    await expect(labels(page)).to_have_text(["Second", "First"])


async def test_ended_jobs_can_be_forgotten(site: Site, page: Page, name: str) -> None:
    """Forget removes it here, in other tabs and from the server; the next one gets the focus."""
    for number in range(3):
        site.tell(f"{name} {number}", end=True)
        await site.begin(page, f"{name} {number}", title=f"Job {number}")
    await site.begin(page, f"{name} on", title="Running")
    other = await page.context.new_page()
    for tab in (page, other):
        await site.bare(tab, LIST)
        await expect(labels(tab)).to_have_text(["Running", "Job 2", "Job 1", "Job 0"])
    await expect(page.get_by_role("button", name="Forget · Running")).to_be_hidden()

    await page.get_by_role("button", name="Forget · Job 1").click()
    for tab in (page, other):
        await expect(labels(tab)).to_have_text(["Running", "Job 2", "Job 0"])
    await expect(page.get_by_role("button", name="Forget · Job 0")).to_be_focused()
    await page.reload()
    await expect(labels(page)).to_have_text(["Running", "Job 2", "Job 0"])


@pytest.mark.usefixtures("network_fails")
async def test_refused_forgetting_says_why(site: Site, page: Page, name: str) -> None:
    """If the server does not forget it, the row stays, and tells the reason."""
    site.tell(name, end=True)
    job_id = await site.begin(page, name)
    await site.bare(page, LIST)
    await shows(rows(page).nth(0), "succeeded")
    answer = {"title": "The job store does not answer"}
    await page.route(f"**/jobs/{job_id}", lambda route: route.fulfill(status=503, json=answer))
    await page.get_by_role("button", name="Forget").click()

    said = page.get_by_role("alert").filter(has_text="That did not work")
    await expect(said).to_have_text("That did not work: The job store does not answer")
    await expect(rows(page)).to_have_count(1)


async def test_retried_job_stands_above_the_failed_one(site: Site, page: Page, name: str) -> None:
    """Both are there: what has failed, and what was started in its place."""
    site.tell(name, fail="The box is empty")
    await site.begin(page, name)
    await site.bare(page, LIST)
    await shows(rows(page).nth(0), "failed")
    site.tell(name, total=4, to=1)
    await page.get_by_role("button", name="Try again").click()
    await expect(rows(page)).to_have_count(2)

    await shows(rows(page).nth(0), "running", "25%")
    await shows(rows(page).nth(1), "failed")


async def test_nothing_moves_under_the_pointer(site: Site, page: Page, name: str) -> None:
    """While the pointer is in the list, a new job is put on top, and no row changes its place."""
    await site.begin(page, f"{name} 0", title="A")
    await site.begin(page, f"{name} 1", title="B")
    await site.bare(page, LIST)
    await expect(labels(page)).to_have_text(["B", "A"])
    await rows(page).nth(0).hover()
    site.tell(f"{name} 1", end=True)
    await shows(rows(page).nth(0), "succeeded")
    await site.begin(page, f"{name} 2", title="C")
    await page.evaluate("document.dispatchEvent(new Event('headway-started'))")
    await expect(labels(page)).to_have_text(["C", "B", "A"])

    await page.mouse.move(0, 0)
    await page.evaluate("document.querySelector('headway-jobs').refresh()")
    await expect(labels(page)).to_have_text(["C", "A", "B"])


async def test_who_has_no_jobs_is_told(site: Site, page: Page) -> None:
    """Words of Headway's, or those of the page."""
    await site.bare(page, LIST)
    await expect(page.get_by_text("You have started nothing yet.")).to_be_visible()
    await site.bare(page, '<headway-jobs><p slot="empty">Go on, start one</p></headway-jobs>')
    await expect(page.get_by_text("Go on, start one")).to_be_visible()


async def test_more_than_fifty(site: Site, page: Page, name: str, until: Until) -> None:
    """Ten ended ones are shown, the others on demand, and that there are more is said."""
    site.tell(name, end=True)
    await site.begin(page, name)
    for _ in range(6):
        some = await asyncio.gather(*[site.begin(page, name) for _ in range(9)])
    await until(lambda: over(site, page, *some), "they are over")
    await site.begin(page, f"{name} on", title="Running")
    await site.bare(page, LIST)
    await expect(rows(page)).to_have_count(11)
    await expect(labels(page).first).to_have_text("Running")

    await page.get_by_role("button", name="Show 39 more").click()
    await expect(rows(page)).to_have_count(50)
    await expect(page.get_by_text("Only the newest 50 are listed.")).to_be_visible()


@pytest.mark.usefixtures("network_fails")
async def test_list_that_cannot_be_had_is_tried_again(site: Site, page: Page, name: str) -> None:
    """Without a server it says so, and comes by itself once there is one."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    await site.begin(page, name)
    await page.route("**/jobs/", lambda route: route.fulfill(status=503))
    await site.bare(page, LIST)
    await expect(page.get_by_text(re.compile("cannot be listed now"))).to_be_visible()
    await page.unroute("**/jobs/")
    await page.clock.fast_forward(10_000)
    await shows(rows(page).nth(0), "running", "25%")
    await expect(page.get_by_text(re.compile("cannot be listed now"))).to_be_hidden()


async def test_server_drawn_list_becomes_live_without_a_request(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """The page under /jobs is drawn from what stands in it; only the stream is asked for."""
    site.tell(name, total=4, to=1)
    await site.begin(page, name)
    asked = Asked(page)
    await page.goto(f"{site.url}/jobs")
    await shows(rows(page).nth(0), "running", "25%")
    await until(lambda: asked.streams, "the stream is asked for")

    assert set(asked.all) == {"GET /jobs", "GET /jobs/events"}
    await page.evaluate("document.querySelector('headway-jobs').remove()")
    await until(lambda: site.streams() == 0, "a list that is removed lets go")


async def test_parts_of_its_bars_can_be_styled(site: Site, browse: Browse, name: str) -> None:
    """The parts of the bars are those of the list, and its language is theirs."""
    page = await browse()
    site.tell(name, total=4000, to=1000)
    await site.begin(page, name)
    await site.bare(page, '<headway-jobs lang="de" log></headway-jobs>')
    await says(rows(page).nth(0), "1.000 of 4.000", "meta")
    await expect(part(rows(page).nth(0), "log-toggle")).to_be_visible()
    found = await page.evaluate(
        "() => { const sheet = new CSSStyleSheet();"
        "sheet.replaceSync('headway-jobs::part(fill) { block-size: 7px }');"
        "document.adoptedStyleSheets = [sheet];"
        "const list = document.querySelector('headway-jobs').shadowRoot;"
        "const bar = list.querySelector('headway-bar');"
        "return getComputedStyle(bar.shadowRoot.querySelector('[part=fill]')).blockSize; }"
    )
    assert found == "7px"
