"""What a bar shows outside of its page, if it is asked to: title, icon, notification."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Browse, Complaints
from tests.browser.look import bar, part, shows
from tests.browser.serving import Site
from tests.browser.test_connection import HIDE
from tests.conftest import Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ICON = "link[rel=icon]"
NOTIFICATIONS = """
  window.told = [];
  window.Notification = class {
    static permission = "default";
    static requestPermission = async () => (Notification.permission = "granted");
    constructor(title, options) {
      told.push([title, options.body]);
    }
  };
"""


async def test_title_and_icon_tell_the_percent(site: Site, page: Page, name: str) -> None:
    """They are as they were once the work is done."""
    site.tell(name, total=4, to=1)
    await page.goto(f"{site.url}/jobs/{await site.begin(page, name)}")
    await expect(page).to_have_title("(25%) Packing")
    await expect(page.locator(ICON)).to_have_attribute("href", re.compile("^data:image/png"))
    before = await page.locator(ICON).get_attribute("href")
    site.tell(name, total=4, to=3)
    await expect(page).to_have_title("(75%) Packing")
    await expect(page.locator(ICON)).not_to_have_attribute("href", str(before))

    await page.evaluate("document.title += ', changed by the app'")
    site.tell(name, end=True)
    await expect(page).to_have_title("Packing, changed by the app")
    await expect(page.locator(ICON)).to_have_attribute("href", "data:,")


async def test_policy_that_forbids_the_icon_is_respected(
    site: Site, page: Page, name: str, complaints: Complaints
) -> None:
    """Where the page's policy has no img-src data:, the icon stays its own."""
    complaints.allow("img-src 'self'")
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name), outside="title icon")
    await expect(page).to_have_title("(25%) Watch")
    await expect(page.locator(ICON)).to_have_attribute("href", "/favicon.ico")
    site.tell(name, total=4, to=3)
    await expect(page).to_have_title("(75%) Watch")
    await expect(page.locator(ICON)).to_have_attribute("href", "/favicon.ico")


async def test_several_bars_share_the_title(site: Site, page: Page, name: str) -> None:
    """It tells how far they are together, and of those that ask for it only."""
    for number in (1, 3):
        site.tell(f"{name} {number}", total=4, to=number)
    ids = [await site.begin(page, f"{name} {number}") for number in (1, 3)]
    await site.watch(page, *ids, outside="title")
    await expect(page).to_have_title("(50%) Watch")
    site.tell(f"{name} 1", end=True)
    await expect(page).to_have_title("(75%) Watch")
    await bar(page, 1).evaluate("bar => bar.remove()")
    await expect(page).to_have_title("Watch")


async def test_notification_is_wished_for_by_a_click(
    site: Site, browse: Browse, name: str, until: Until
) -> None:
    """Nobody is asked for leave before; at the end it tells the outcome, if the tab is hidden."""
    page = await browse()
    await page.add_init_script(NOTIFICATIONS)
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name), outside="title notify")
    await shows(bar(page), "running", "25%")
    button = part(bar(page), "notify")
    await expect(button).to_have_text("Notify me")
    assert await page.evaluate("Notification.permission") == "default"
    await button.click()
    await expect(button).to_have_text("Will notify you")
    await expect(button).to_have_attribute("aria-pressed", "true")

    await page.evaluate(HIDE, True)
    site.tell(name, end=True)
    await until(lambda: page.evaluate("told.length"), "it is told")
    assert await page.evaluate("told") == [["Packing", "Done!"]]
    await expect(page).to_have_title("✓ Watch")
    await expect(button).to_be_hidden()
    await page.evaluate(HIDE, False)
    await expect(page).to_have_title("Watch")


async def test_who_looks_is_not_notified(site: Site, browse: Browse, name: str) -> None:
    """In a tab in sight the bar itself is enough; a second click takes the wish back."""
    page = await browse()
    await page.add_init_script(NOTIFICATIONS)
    for number in (0, 1):
        site.tell(f"{name} {number}", total=4, to=1)
    ids = [await site.begin(page, f"{name} {number}") for number in (0, 1)]
    await site.watch(page, *ids, outside="notify")
    for number in (0, 1):
        await part(bar(page, number), "notify").click()
        await expect(part(bar(page, number), "notify")).to_have_text("Will notify you")
    site.tell(f"{name} 0", end=True)
    await shows(bar(page, 0), "succeeded")
    await part(bar(page, 1), "notify").click()
    await expect(part(bar(page, 1), "notify")).to_have_text("Notify me")
    await page.evaluate(HIDE, True)
    site.tell(f"{name} 1", end=True)
    await shows(bar(page, 1), "succeeded")

    assert await page.evaluate("told") == []


async def test_without_leave_there_is_no_button(site: Site, page: Page, name: str) -> None:
    """Where notifications are refused, nothing is offered."""
    await page.add_init_script("window.Notification = class { static permission = 'denied' }")
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name), outside="notify")
    await shows(bar(page), "running", "25%")
    await expect(part(bar(page), "notify")).to_have_count(1)
    await expect(part(bar(page), "notify")).to_be_hidden()
