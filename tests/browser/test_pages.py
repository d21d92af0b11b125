"""The pages that Headway serves itself, and what stands in the pages of others."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import bar, part, says, shows
from tests.browser.serving import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

REFRESHED_MS = 15_000


async def test_without_javascript_the_page_shows_cancels_and_refreshes(
    site: Site, browse: Browse, name: str
) -> None:
    """A plain progress element, a form to cancel, and a page that looks again by itself."""
    page = await browse(java_script_enabled=False)
    site.tell(name, total=4, to=1, hold=True)
    await page.goto(site.url)
    await page.locator("input").fill(name)
    await page.get_by_role("button", name="Start").click()
    meter = page.get_by_role("progressbar", name="Packing")
    await expect(meter).to_have_attribute("value", "0.2500", timeout=REFRESHED_MS)
    await expect(page.get_by_role("link", name="Refresh")).to_be_visible()

    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_text("Cancelling, 25 %")).to_be_visible()
    site.tell(name)
    await expect(page.get_by_text("Cancelled")).to_be_visible(timeout=REFRESHED_MS)
    await expect(page.get_by_role("button", name="Try again")).to_be_visible()


async def test_list_shows_the_jobs_of_a_visitor_live(site: Site, browse: Browse, name: str) -> None:
    """Under /jobs stand one's own jobs, newest first, each with its bar and its page."""
    page, other = await browse(), await browse()
    first, second = [await site.begin(page, one) for one in (f"{name} 1", f"{name} 2")]
    await page.goto(f"{site.url}/jobs")
    await expect(bar(page, 0)).to_have_attribute("src", f"/jobs/{second}")
    await expect(bar(page, 1)).to_have_attribute("src", f"/jobs/{first}")
    site.tell(f"{name} 2", total=4, to=1)
    await shows(bar(page, 0), "running", "25%")
    await page.get_by_role("link", name="Packing").first.click()
    await expect(page.get_by_role("heading", name="Packing")).to_be_visible()
    site.tell(f"{name} 2", end=True)
    await shows(bar(page), "succeeded", "100%")

    await other.goto(f"{site.url}/jobs")
    await expect(other.get_by_text("You have started nothing yet.")).to_be_visible()


async def test_texts_in_the_page_cannot_leave_their_place(
    site: Site, page: Page, name: str
) -> None:
    """Attributes of the helper and what a task says are text, wherever they stand."""
    label = "\"><img src=x onerror=alert(1)>'"
    note = "</script><script>document.title = 'other'</script><!--"
    site.tell(name, total=4, to=1, note=note)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id)
    await says(bar(page), note)
    await page.goto(f"{site.url}/watch?id={job_id}&label=%22%3E%3Cimg src=x onerror=alert(1)%3E'")
    await shows(bar(page), "running", "25%")

    await expect(bar(page)).to_have_attribute("label", label)
    await expect(part(bar(page), "label")).to_have_text(label)
    await says(bar(page), note)
    await expect(page.locator("img")).to_have_count(0)
    await expect(page).to_have_title("Watch")
