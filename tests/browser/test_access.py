"""The bar for those who hear it, use the keyboard, need contrast, or read another language."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import bar, contrasts, part, says, shows
from tests.browser.serving import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PAGES = {"light": "#ffffff", "dark": "#1a2029"}


async def test_progress_has_a_name_and_a_value(site: Site, page: Page, name: str) -> None:
    """To a screen reader it is a progress bar with a name and a text, and a value if it has one."""
    await site.watch(page, await site.begin(page, name))
    meter = page.get_by_role("progressbar", name="Packing")
    await shows(bar(page), "indeterminate")
    assert await meter.get_attribute("aria-valuenow") is None

    site.tell(name, total=4, to=1, note="Folding")
    await expect(meter).to_have_attribute("aria-valuenow", "25")
    await expect(meter).to_have_attribute("aria-valuemin", "0")
    await expect(meter).to_have_attribute("aria-valuemax", "100")
    await expect(meter).to_have_attribute("aria-valuetext", "25% · 1 of 4 · Folding")
    await expect(page.get_by_role("button", name="Cancel · Packing")).to_be_visible()


async def test_milestones_are_spoken_and_no_more(site: Site, page: Page, name: str) -> None:
    """The polite region speaks at the start, at each quarter and at the end."""
    site.tell(name, total=100, to=10)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "10%")
    await page.reload()
    status = bar(page).get_by_role("status")
    await expect(status).to_have_text("Packing · 10% · Running")

    site.tell(name, total=100, to=20)
    await shows(bar(page), "running", "20%")
    site.tell(name, total=100, to=24)
    await shows(bar(page), "running", "24%")
    await expect(status).to_have_text("Packing · 10% · Running")
    site.tell(name, total=100, to=26)
    await expect(status).to_have_text("Packing · 26% · Running")
    site.tell(name, end=True)
    await expect(status).to_have_text("Packing · 100% · Done!")


async def test_failure_interrupts(site: Site, page: Page, name: str) -> None:
    """That a job has failed is an alert; it names the job and the reason."""
    await site.watch(page, await site.begin(page, name))
    alert = bar(page).get_by_role("alert")
    await shows(bar(page), "indeterminate")
    await expect(alert).to_be_empty()
    site.tell(name, fail="The box is empty")

    await expect(alert).to_have_text("Packing · Failed · The box is empty")


async def test_keyboard_reaches_and_sees_the_buttons(site: Site, page: Page, name: str) -> None:
    """Cancel is reached by Tab, shows that it is, is large enough, and leaves the focus nearby."""
    await site.watch(page, await site.begin(page, name))
    cancel = page.get_by_role("button", name="Cancel")
    await expect(cancel).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(cancel).to_be_focused()
    await expect(cancel).to_have_css("outline-style", "solid")
    box = await cancel.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 24

    await page.keyboard.press("Enter")
    await shows(bar(page), "cancelled")
    await expect(bar(page)).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_colours_stand_out(
    site: Site, browse: Browse, name: str, scheme: Literal["light", "dark"]
) -> None:
    """In each state texts have a contrast of 4.5, and the bar 3 to its track and to the page."""
    page = await browse(color_scheme=scheme)
    orders: dict[str, dict[str, Any]] = {
        "running": {"total": 4, "to": 2},
        "succeeded": {"total": 4, "to": 4, "end": True},
        "failed": {"total": 4, "to": 2, "fail": "The box is empty"},
    }
    ids = []
    for state, said in orders.items():
        site.tell(f"{name} {state}", **said)
        ids.append(await site.begin(page, f"{name} {state}"))
    for state, job_id in zip(orders, ids, strict=True):
        await page.goto(f"{site.url}/jobs/{job_id}")
        await shows(bar(page), state)
        found = await contrasts(bar(page), PAGES[scheme])
        assert min(found["fill on track"], found["fill on page"]) >= 3, (state, found)
        assert min(found["note"], found["meta"]) >= 4.5, (state, found)
    assert (await page.screenshot()).startswith(b"\x89PNG")


async def test_no_motion_for_those_who_want_none(site: Site, browse: Browse, name: str) -> None:
    """With reduced motion nothing moves; with forced colours the bar keeps a border."""
    page = await browse(reduced_motion="reduce", forced_colors="active")
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "indeterminate")

    await expect(part(bar(page), "fill")).to_have_css("animation-name", "none")
    await expect(part(bar(page), "bar")).to_have_css("border-top-style", "solid")
    assert (await page.screenshot()).startswith(b"\x89PNG")


async def test_print_shows_the_progress_without_the_buttons(
    site: Site, page: Page, name: str
) -> None:
    """On paper stand the bar in its colours and the percent, and nothing to press."""
    site.tell(name, total=4, to=2)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "50%")
    await page.emulate_media(media="print")

    await expect(part(bar(page), "percent")).to_be_visible()
    await expect(part(bar(page), "cancel")).to_be_hidden()
    await expect(part(bar(page), "fill")).to_have_css("print-color-adjust", "exact")


async def test_one_language_at_a_time(site: Site, page: Page, name: str) -> None:
    """Texts in another language bring its numbers, durations and plurals."""
    site.tell(name, total=4000, to=1000, unit="row")
    job_id = await site.begin(page, name)
    await site.watch(page, job_id)
    await shows(bar(page), "running", "25%")
    answer = await page.context.request.get(f"{site.url}/jobs/{job_id}")
    document = {**await answer.json(), "rev": 10_000, "eta_s": 120}
    await page.route(
        "**/jobs/events*",
        lambda route: route.fulfill(
            content_type="text/event-stream", body=f"event: job\ndata: {json.dumps(document)}\n\n"
        ),
    )
    await page.reload()
    await says(bar(page), "1,000 of 4,000 rows", "meta")
    await says(bar(page), "about 2 minutes left", "eta")

    german: dict[str, Any] = {
        "lang": "de",
        "counts": "{done} von {total} {unit}",
        "eta": "noch etwa {time}",
    }
    german["units"] = {"row": {"one": "Zeile", "other": "Zeilen"}}
    await page.add_init_script(
        "addEventListener('DOMContentLoaded', () => {"
        f"document.querySelector('headway-bar').strings = {json.dumps(german)}; }})"
    )
    await page.reload()
    await says(bar(page), "1.000 von 4.000 Zeilen", "meta")
    await says(bar(page), "noch etwa 2 Minuten", "eta")
