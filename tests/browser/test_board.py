"""The operators' page: it stays true by itself, stands still under the hand, and needs no mouse."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import bar, part, shows
from tests.browser.serving import Site
from tests.conftest import Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

LOOKED_MS = 12_000  # over two looks of the page


@pytest_asyncio.fixture(loop_scope="session")
async def desk(site: Site, browse: Browse) -> Page:
    """The browser of an operator, in front of nothing yet."""
    return await operator(site, browse)


async def operator(site: Site, browse: Browse, **options: Any) -> Page:
    page = await browse(**options)
    await page.context.add_cookies([{"name": "operator", "value": "yes", "url": site.url}])
    return page


def row(page: Page, job_id: str) -> Locator:
    return page.locator(f'tr[id="{job_id}"]')


async def say(page: Page, job_id: str, state: str) -> None:
    await expect(row(page, job_id).locator(".is")).to_have_text(state, timeout=LOOKED_MS)


async def test_rows_live_and_new_jobs_come(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """The bar follows its stream, the row its job, and what others start appears."""
    visitor = await browse()
    first = await site.begin(visitor, name)
    await desk.goto(f"{site.url}/jobs/overview")
    await say(desk, first, "Running")

    site.tell(name, total=4, to=1)
    await expect(part(row(desk, first).locator("headway-bar"), "percent")).to_have_text("25%")
    second = await site.begin(visitor, f"{name} 2", title="Later")
    await expect(row(desk, second)).to_contain_text("Later", timeout=LOOKED_MS)
    site.tell(name, fail="Row 7 has no name")
    await say(desk, first, "Failed")
    await expect(row(desk, first)).to_contain_text("Row 7 has no name")
    await expect(row(desk, first).locator("headway-bar")).to_have_count(0)


async def test_nothing_moves_under_the_pointer(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """While one points at the rows they change in place; what is new waits for a button."""
    visitor = await browse()
    first = await site.begin(visitor, name)
    await desk.goto(f"{site.url}/jobs/overview")
    await row(desk, first).hover()
    place = await row(desk, first).bounding_box()
    second = await site.begin(visitor, f"{name} 2")
    site.tell(name, end=True)

    await say(desk, first, "Succeeded")
    await expect(desk.locator("[data-show]")).to_have_text("Show 1 new job", timeout=LOOKED_MS)
    assert await row(desk, first).bounding_box() == place
    await expect(row(desk, second)).to_have_count(0)

    await walk(desk, desk.locator("[data-show]"))
    await expect(row(desk, second)).to_have_count(0)
    await desk.get_by_role("button", name="Show 1 new job").click()
    await expect(row(desk, second)).to_be_visible()
    await expect(desk.locator("[data-show]")).to_be_hidden()
    await row(desk, second).hover()
    await desk.mouse.move(0, 0)
    await expect(row(desk, first)).to_contain_text("Packing")
    await expect(row(desk, first).get_by_role("button")).to_have_text("Forget")


async def test_nothing_moves_on_the_way_from_the_rows(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """What the page reads while the pointer is between the rows and the button waits as well."""
    visitor = await browse()
    await desk.clock.install()
    await desk.goto(f"{site.url}/jobs/overview")
    first = await site.begin(visitor, name)
    await look(desk)
    await row(desk, first).hover()
    second = await site.begin(visitor, f"{name} 2")
    await desk.clock.pause_at(await desk.evaluate("Date.now() + 10"))
    await desk.mouse.move(0, 0)
    await look(desk)

    await expect(desk.locator("[data-show]")).to_have_text("Show 1 new job")
    await expect(row(desk, second)).to_have_count(0)
    await desk.clock.run_for(1_100)
    await expect(row(desk, second)).to_be_visible()
    await expect(desk.locator("[data-show]")).to_be_hidden()


async def look(page: Page) -> None:
    """Make the page read itself now."""
    async with page.expect_response("**/overview"):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def walk(page: Page, target: Locator) -> None:
    """Go there with the pointer, as a hand does: over all that lies between, and in view."""
    await target.scroll_into_view_if_needed()
    box = await target.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=8)
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


async def test_nothing_shifts_while_the_page_comes_to_life(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """Bars, news and figures have their places from the first paint on."""
    visitor = await browse()
    site.tell(name, total=4, to=1)
    first = await site.begin(visitor, name)
    await desk.add_init_script(SHIFTS)
    await desk.goto(f"{site.url}/jobs/overview")
    await expect(part(row(desk, first).locator("headway-bar"), "percent")).to_have_text("25%")
    site.tell(name, total=4, to=3, note="Almost there")
    await expect(row(desk, first)).to_contain_text("Almost there", timeout=LOOKED_MS)

    assert await desk.evaluate("shifts") == []


SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const { value, sources } of list.getEntries())
    shifts.push([value, ...sources.map(({ node }) => node?.className)]);
}).observe({ type: "layout-shift", buffered: true });
"""


async def test_keyboard_cancels_retries_and_forgets(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """Each act is a button that keeps the focus near, and the page is not left."""
    job_id = await site.begin(await browse(), name, title="Packing by hand")
    await desk.goto(f"{site.url}/jobs/overview")
    await desk.evaluate("window.same = true")
    await desk.get_by_role("button", name="Cancel · Packing by hand").focus()
    await desk.keyboard.press("Enter")
    await say(desk, job_id, "Cancelled")
    assert await desk.evaluate(
        f"document.getElementById('{job_id}').contains(document.activeElement)"
    )

    again = row(desk, job_id).get_by_role("button", name="Try again · Packing by hand")
    await again.focus()
    await desk.keyboard.press("Enter")
    await expect(desk.locator("[data-show]")).to_have_text("Show 1 new job", timeout=LOOKED_MS)
    forget = row(desk, job_id).get_by_role("button", name="Forget · Packing by hand")
    await forget.focus()
    await desk.keyboard.press("Enter")
    await expect(row(desk, job_id)).to_have_count(0)
    assert await desk.evaluate("document.activeElement != document.body && window.same")


async def test_slash_leads_to_the_filter(site: Site, browse: Browse, desk: Page, name: str) -> None:
    """And there it is a letter like any other."""
    job_id = await site.begin(await browse(), name)
    await desk.goto(f"{site.url}/jobs/overview")
    await desk.keyboard.press("/")
    await desk.keyboard.type("no/ne")
    await expect(desk.get_by_label("Task")).to_have_value("no/ne")
    await desk.keyboard.press("Enter")

    await expect(desk.get_by_text("No job here is like that.")).to_be_visible()
    await expect(desk).to_have_url(f"{site.url}/jobs/overview?state=&task=no%2Fne&owner=")
    await desk.get_by_role("link", name="Show all").click()
    await expect(row(desk, job_id)).to_be_visible()


@pytest.mark.usefixtures("network_fails")
async def test_refusals_are_told(site: Site, browse: Browse, desk: Page, name: str) -> None:
    """An act that came too late says why, in a place that is read out."""
    job_id = await site.begin(await browse(), name)
    site.tell(name, end=True)
    await desk.goto(f"{site.url}/jobs/overview")
    await say(desk, job_id, "Succeeded")
    await desk.route("**/forget", lambda route: route.fulfill(
        status=409, content_type="application/problem+json", body='{"title": "It has not ended"}'
    ))  # fmt: skip
    await row(desk, job_id).get_by_role("button", name="Forget").click()

    await expect(desk.get_by_role("status").first).to_have_text(
        "That did not work: It has not ended"
    )


@pytest.mark.usefixtures("network_fails")
async def test_page_says_when_it_is_not_up_to_date(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """It tries again, and the words go when it has come through."""
    job_id = await site.begin(await browse(), name)
    await desk.goto(f"{site.url}/jobs/overview")
    await say(desk, job_id, "Running")
    await desk.context.set_offline(True)
    late = desk.get_by_text("Not up to date: the server does not answer.")
    await expect(late).to_be_visible(timeout=LOOKED_MS)
    await desk.context.set_offline(False)

    await expect(late).to_be_hidden(timeout=2 * LOOKED_MS)


async def test_hidden_page_asks_for_nothing(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """Out of sight it does not look; back in sight it looks at once."""
    await site.begin(await browse(), name)
    await desk.clock.install()
    await desk.goto(f"{site.url}/jobs/overview")
    asked: list[str] = []
    desk.on("request", lambda request: asked.append(request.url))
    await desk.evaluate(HIDE, True)
    await desk.clock.run_for(20_000)
    assert not [url for url in asked if url.endswith("/overview")]

    async with desk.expect_request("**/overview"):
        await desk.evaluate(HIDE, False)
    async with desk.expect_request("**/overview"):
        await desk.clock.run_for(20_000)


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.usefixtures("network_fails")
async def test_without_javascript_all_of_it_works(
    site: Site, browse: Browse, name: str, until: Until
) -> None:
    """Filter, cancel, try again, open a job, forget it: by links and forms."""
    page = await operator(site, browse, java_script_enabled=False)
    site.tell(name, total=4, to=1)
    job_id = await site.begin(await browse(), name, title=name)

    async def listed(state: str) -> bool:
        await page.goto(f"{site.url}/jobs/overview?state={state}")
        return await row(page, job_id).count() == 1

    await until(lambda: listed("running"), "it runs")
    await page.goto(f"{site.url}/jobs/overview")
    await page.get_by_label("State").select_option("running")
    await page.get_by_role("button", name="Filter").click()
    await expect(row(page, job_id)).to_contain_text("Running")

    await row(page, job_id).get_by_role("button", name="Cancel").click()
    await expect(page).to_have_url(f"{site.url}/jobs/overview?state=running&task=&owner=")
    await until(lambda: listed("cancelled"), "it is cancelled")
    await expect(async_row := row(page, job_id)).to_contain_text("Cancelled")
    await async_row.get_by_role("button", name="Try again").click()
    await expect(page).to_have_url(f"{site.url}/jobs/overview?state=cancelled")
    await row(page, job_id).get_by_role("link", name=name).click()
    await expect(page.get_by_role("heading", name="For operators")).to_be_visible()
    await page.get_by_role("button", name="Forget").click()
    await expect(page).to_have_url(f"{site.url}/jobs")
    await page.goto(f"{site.url}/jobs/{job_id}")
    await expect(page.get_by_role("heading", name="No such job")).to_be_visible()
    await page.get_by_role("link", name="My jobs").click()
    await expect(page.get_by_text("You have started nothing yet.")).to_be_visible()


async def test_operator_sees_the_trace_and_the_log_of_a_job(
    site: Site, browse: Browse, desk: Page, name: str
) -> None:
    """On the page of the job; the owner sees the same page without them."""
    visitor = await browse()
    job_id = await site.begin(visitor, name)
    site.tell(name, log=["Began", "<b>Read</b> it"])
    await visitor.goto(f"{site.url}/jobs/{job_id}")
    await shows(bar(visitor), "indeterminate")
    site.tell(name, crash="<img src=x>")
    await shows(bar(visitor), "failed")
    await desk.goto(f"{site.url}/jobs/{job_id}")

    inside = desk.locator(".inside")
    await expect(inside.get_by_text("Attempt 1: failed")).to_be_visible()
    await expect(inside.locator("pre").first).to_contain_text("RuntimeError: <img src=x>")
    await inside.get_by_text("Log, 2 lines").click()
    await expect(inside.locator("pre").last).to_have_text("Began\n<b>Read</b> it")
    await expect(desk.locator("img")).to_have_count(0)
    await visitor.reload()
    await shows(bar(visitor), "failed")
    await expect(visitor.locator(".inside")).to_have_count(0)
