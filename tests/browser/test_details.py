"""What stands below a bar: the stages of the work, and its log."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.look import Asked, bar, part, says, shows
from tests.browser.serving import Site
from tests.conftest import Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


def stage(page: Page, name: str) -> Locator:
    """The row of a stage."""
    return part(bar(page), "stage").filter(has_text=name)


async def test_stages_have_bars_of_their_own(site: Site, page: Page, name: str) -> None:
    """Each stage tells its name, counts and percent; those in another one stand under it."""
    inner = {"name": "Postcodes", "total": 100, "to": 64, "unit": "row"}
    outer = {"name": "Check", "total": 4, "to": 1, "stages": [inner]}
    site.tell(name, stages=[{"name": "Read", "total": 3, "to": 3, "unit": "file"}, outer])
    await site.watch(page, await site.begin(page, name))
    await expect(part(stage(page, "Postcodes"), "stage-counts")).to_have_text("64 of 100 rows")
    await expect(part(stage(page, "Postcodes"), "stage-percent")).to_have_text("64%")
    outside = await part(stage(page, "Check"), "stage-name").bounding_box()
    inside = await part(stage(page, "Postcodes"), "stage-name").bounding_box()
    assert outside is not None
    assert inside is not None
    assert inside["x"] > outside["x"]

    site.tell(name, closed=["Read"], at={"Postcodes": 80})
    await expect(part(stage(page, "Postcodes"), "stage-percent")).to_have_text("80%")
    await expect(part(stage(page, "Read"), "stage-counts")).to_have_text("3 files")
    await expect(part(stage(page, "Read"), "stage-bar")).to_be_hidden()
    await expect(part(bar(page), "stages-toggle")).to_be_hidden()


async def test_work_of_unknown_size_is_told_by_its_stages(
    site: Site, page: Page, name: str
) -> None:
    """In a loop of unknown length the main bar is indeterminate, and the stages in it are not."""
    found = {"name": "Look into every box", "total": 8, "to": 2}
    site.tell(name, endless=True, stages=[{"name": "Walk", "to": 5, "unit": "box"}, found])
    await site.watch(page, await site.begin(page, name))
    await expect(part(stage(page, "Look into"), "stage-percent")).to_have_text("25%")
    await expect(part(stage(page, "Walk"), "stage-counts")).to_have_text("5 boxes")
    await expect(part(stage(page, "Walk"), "stage-percent")).to_be_empty()
    await shows(bar(page), "indeterminate")


async def test_many_stages_fold(site: Site, page: Page, name: str) -> None:
    """Of fourteen stages those that run are shown, and the last ones before; a click shows all."""
    plans: list[dict[str, Any]] = [
        {"name": f"Part {number:02}", "total": 5, "to": 5 if number <= 12 else 1}
        for number in range(1, 15)
    ]
    for plan in plans[:12]:
        plan["closed"] = True
    site.tell(name, stages=plans)
    await site.watch(page, await site.begin(page, name))
    toggle = part(bar(page), "stages-toggle")
    await expect(toggle).to_have_text("12 of 14 stages done")
    rows = part(bar(page), "stage").filter(visible=True)
    await expect(rows).to_have_text([re.compile(f"Part {n}") for n in (11, 12, 13, 14)])

    await toggle.click()
    await expect(toggle).to_have_attribute("aria-expanded", "true")
    await expect(rows).to_have_count(14)
    await toggle.press("Enter")
    await expect(rows).to_have_count(4)
    site.tell(name, closed=["Part 13"])
    await expect(toggle).to_have_text("13 of 14 stages done")
    site.tell(name, end=True)
    await shows(bar(page), "succeeded")
    await expect(toggle).to_have_text("14 of 14 stages done")


async def test_parallel_stages_come_first(site: Site, page: Page, name: str) -> None:
    """Of more stages that run than have room, the first ones stand there."""
    site.tell(name, stages=[{"name": f"Part {n}", "total": 9, "to": n} for n in range(1, 8)])
    await site.watch(page, await site.begin(page, name))
    rows = part(bar(page), "stage").filter(visible=True)
    await expect(rows).to_have_text([re.compile(f"Part {n}") for n in range(1, 5)])
    site.tell(name, closed=["Part 2"])
    await expect(rows).to_have_text([re.compile(f"Part {n}") for n in (1, 3, 4, 5)])


async def test_stages_of_a_failed_job_say_where_it_stopped(
    site: Site, page: Page, name: str
) -> None:
    """What was not done has another mark than what was, and moves no more."""
    site.tell(name, stages=[{"name": "Read", "total": 9, "to": 3}])
    await site.watch(page, await site.begin(page, name))
    await expect(part(stage(page, "Read"), "stage-percent")).to_have_text("33%")
    running = await stage(page, "Read").locator("path").get_attribute("d")
    await page.get_by_role("button", name="Cancel").click()
    await shows(bar(page), "cancelled")

    await expect(stage(page, "Read").locator("path")).not_to_have_attribute("d", str(running))
    await expect(part(stage(page, "Read"), "stage-percent")).to_have_text("33%")


async def test_bar_without_stages_loads_nothing_for_them(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """A page with a plain bar loads the one file, and nothing else."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await until(lambda: site.streams() == 1, "it streams")

    assert [url for url in seen if ".js" in url] == [f"{site.url}/jobs/static/headway.js"]


# ── the log ───────────────────────────────────────────────────────────────────────────────────


async def test_log_is_shown_on_demand(site: Site, page: Page, name: str) -> None:
    """It is asked for when it is opened, follows while it is open, and shows its newest line."""
    await page.clock.install()
    lines = [f"Line {number}" for number in range(60)]
    site.tell(name, total=4, to=1, log=lines)
    job_id = await site.begin(page, name)
    asked = Asked(page)
    await site.watch(page, job_id, log="yes")
    await shows(bar(page), "running", "25%")
    toggle, log = part(bar(page), "log-toggle"), part(bar(page), "log")
    await expect(log).to_be_hidden()
    assert f"GET /jobs/{job_id}/log" not in asked.all

    await toggle.click()
    await expect(log).to_have_text(re.compile("Line 59$"))
    assert await at_end(log)
    await expect(log).to_have_attribute("tabindex", "0")
    site.tell(name, total=4, to=1, log=[*lines, "Line 60"])
    for _ in range(2):  # the first look may come too early, and none may be under way afterwards
        async with page.expect_response(f"**/jobs/{job_id}/log") as looked:
            await page.clock.fast_forward(2_100)
        await (await looked.value).finished()
    await expect(log).to_have_text(re.compile("Line 60$"))
    assert await at_end(log)

    await log.evaluate("log => (log.scrollTop = 0)")  # who reads is left alone
    site.tell(name, log=[*lines, "Line 60", "<b>The end</b>"], end=True)
    await shows(bar(page), "succeeded")
    await page.clock.fast_forward(2_100)
    await page.clock.fast_forward(2_100)
    await expect(log).to_have_text(re.compile("<b>The end</b>$"))
    assert await log.evaluate("log => log.scrollTop") == 0
    number = len(asked.all)
    await page.clock.fast_forward(60_000)
    assert len(asked.all) == number


async def test_closed_log_is_not_asked_for(site: Site, page: Page, name: str) -> None:
    """Once it is closed, or where it was never wished for, the server is left alone."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id, log="yes")
    toggle = part(bar(page), "log-toggle")
    await toggle.click()
    await says(bar(page), "Nothing in the log yet", "log")
    await toggle.click()
    await expect(part(bar(page), "log")).to_be_hidden()
    asked = Asked(page)
    await page.clock.fast_forward(60_000)
    assert f"GET /jobs/{job_id}/log" not in asked.all

    await site.watch(page, job_id)
    await shows(bar(page), "running", "25%")
    await expect(part(bar(page), "log-toggle")).to_have_count(0)


async def at_end(log: Locator) -> bool:
    return bool(
        await log.evaluate("log => log.scrollTop + log.clientHeight >= log.scrollHeight - 2")
    )
