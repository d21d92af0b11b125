"""How a bar looks: its variants, directions and states, and that nothing of it jumps."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Final

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.conftest import Browse
from tests.browser.look import bar, part, says, shows
from tests.browser.serving import Site
from tests.browser.states import Gallery, hang
from tests.conftest import Until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("gallery"),
]

SHIFTS: Final = """
  window.shifts = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) shifts += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
"""
SEEN: Final = """
  window.seen = new Set();
  const look = () => {
    const bar = document.querySelector("headway-bar");
    const base = bar?.shadowRoot?.querySelector("[part=base]");
    if (base && getComputedStyle(base).visibility == "visible") seen.add(bar.dataset.state);
    requestAnimationFrame(look);
  };
  look();
"""


async def box(of: Locator) -> dict[str, float]:
    """Where it stands, in whole pixels."""
    found = await of.bounding_box()
    assert found is not None
    return {name: round(value) for name, value in dict(found).items()}  # type: ignore[call-overload]


async def box_of(page: Page, name: str) -> dict[str, float]:
    return await box(part(bar(page), name))


# ── states ────────────────────────────────────────────────────────────────────────────────────


async def test_every_state_has_a_text_and_a_shape_of_its_own(gallery: Gallery, page: Page) -> None:
    """Who sees no colours, or no shapes, tells them apart all the same."""
    await gallery.show(page)
    seen: dict[str, tuple[str, str]] = {}
    for number, name in enumerate(gallery.ids):
        if name in {"staged", "retrying"}:
            continue
        one = bar(page, number)
        shape = await part(one, "shape").get_attribute("d")
        seen[name] = (str(await part(one, "note").text_content()), str(shape))
    texts, shapes = zip(*seen.values(), strict=True)

    assert len(set(texts)) == len(seen)
    assert len(set(shapes)) == len(seen)


async def test_next_attempt_is_announced(site: Site, page: Page, name: str) -> None:
    """After an error it tells which attempt comes next, and when."""
    site.tell(name, crash="no answer")
    await site.watch(page, await site.begin(page, name, stubborn="yes"))

    await shows(bar(page), "retrying")
    await says(bar(page), re.compile(r"^Attempt \d of \d, again in \d+ seconds?$"))


# ── time ──────────────────────────────────────────────────────────────────────────────────────


async def test_work_that_ends_at_once_shows_no_bar(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """Within 400 ms only the outcome is shown, unless the page wants it otherwise."""
    await page.clock.install(time=0)
    await page.clock.pause_at(1_000)
    await page.add_init_script(SEEN)
    job_id = await site.begin(page, name)
    url = f"{site.url}/jobs/{job_id}"
    answer = await page.context.request.get(url, headers={"Accept": "application/json"})
    young = {**await answer.json(), "state": "running", "rev": 10_000}
    young["updated_at"] = young["started_at"] = young["created_at"]
    over = {**young, "rev": 10_001, "state": "succeeded", "finished_at": young["updated_at"]}
    await page.route("**/jobs/events*", hang)
    for attribute, seen in (("", ["succeeded"]), ("immediate", ["indeterminate", "succeeded"])):
        await site.bare(page, f'<headway-bar {attribute} src="/jobs/{job_id}"></headway-bar>')
        for job, state in ((young, "indeterminate"), (over, "succeeded")):
            await bar(page).evaluate("(bar, job) => { bar.job = job }", job)
            await shows(bar(page), state)
            await page.clock.run_for(100)
        await until(lambda: page.evaluate("seen.has('succeeded')"), "it is seen")
        found = await page.evaluate("[...seen].filter((state) => state != 'connecting')")
        assert found == seen

    await site.bare(page, f'<headway-bar src="/jobs/{job_id}"></headway-bar>')
    await bar(page).evaluate("(bar, job) => { bar.job = job }", young)
    await page.clock.run_for(300)
    await expect(part(bar(page), "bar")).to_be_hidden()
    await page.clock.run_for(200)
    await expect(part(bar(page), "bar")).to_be_visible()


async def test_times_and_attempts_are_told(site: Site, page: Page, name: str) -> None:
    """The elapsed time in digits, the remaining one in words, and where the attempt began."""
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id)
    await shows(bar(page), "running", "25%")
    asked = await page.context.request.get(f"{site.url}/jobs/{job_id}")
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3_725))
    document: dict[str, Any] = {**await asked.json(), "rev": 10_000, "started_at": began}
    document |= {"eta_s": 130, "attempt": 2, "max_attempts": 3, "resumed_ratio": 0.2}

    async def send(route: Route) -> None:
        body = f"event: job\ndata: {json.dumps(document)}\n\n"
        await route.fulfill(content_type="text/event-stream", body=body)

    await page.route("**/jobs/events*", send)
    await page.reload()
    await says(bar(page), re.compile(r"^1:02:\d\d$"), "elapsed")
    await says(bar(page), re.compile(r"^about \d minutes? left$"), "eta")
    await says(bar(page), "1 of 4 · Attempt 2 of 3 · resumed at 20%", "meta")


async def test_wrong_clock_of_the_browser_is_no_time(site: Site, page: Page, name: str) -> None:
    """A machine whose clock is an hour ahead shows the same elapsed time as any other one."""
    await page.clock.install(time=time.time() + 3_600)
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await page.clock.run_for(3_000)

    await says(bar(page), re.compile(r"^0:\d\d$"), "elapsed")


# ── place ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [360, 1280], ids=["narrow", "wide"])
async def test_nothing_shifts(site: Site, browse: Browse, name: str, width: int) -> None:
    """From the first paint to the end nothing of the page moves, least of all a button."""
    page = await browse(viewport={"width": width, "height": 800})
    await page.add_init_script(SHIFTS)
    site.tell(name, total=100, to=8)
    job_id = await site.begin(page, name)
    await site.watch(page, job_id, job_id)
    await shows(bar(page), "running", "8%")
    await expect(part(bar(page), "cancel")).to_be_visible()
    before = {name: await box_of(page, name) for name in ("base", "cancel", "bar")}
    site.tell(name, total=100, to=64, note="A note that was not there before")
    await shows(bar(page), "running", "64%")
    assert {name: await box_of(page, name) for name in ("base", "cancel", "bar")} == before
    site.tell(name, end=True)
    await shows(bar(page), "succeeded", "100%")
    assert await box_of(page, "base") == before["base"]
    await page.reload()
    await shows(bar(page), "succeeded", "100%")
    assert await box_of(page, "base") == before["base"]

    assert await page.evaluate("shifts") == 0


async def test_fill_grows_from_the_start_of_the_line(site: Site, page: Page, name: str) -> None:
    """From the left in English, from the right in Arabic; as far as the ratio says."""
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    for direction in ("ltr", "rtl"):
        await site.watch(page, job_id, dir=direction)
        await shows(bar(page), "running", "25%")
        await part(bar(page), "fill").evaluate("fill => fill.getAnimations().map(a => a.finish())")
        track, fill = await box_of(page, "bar"), await box_of(page, "fill")
        ends = (fill["x"] + fill["width"], track["x"] + track["width"] - fill["x"])
        starts = (ends[0] - track["x"], ends[1])
        assert abs(starts[direction == "rtl"] - track["width"] / 4) <= 1
        label, cancel = await box_of(page, "label"), await box_of(page, "cancel")
        assert (label["x"] < cancel["x"]) == (direction == "ltr")


async def test_bar_glides_unless_news_are_fast(site: Site, page: Page, name: str) -> None:
    """A glide that is replaced before it arrives would show less than is done."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    fill = part(bar(page), "fill")
    await bar(page).evaluate(
        "bar => { bar.job = { ...bar.job, rev: 1e6 }; bar.job = { ...bar.job, rev: 2e6 } }"
    )
    await expect(fill).to_have_css("transition-duration", "0s")
    await page.clock.run_for(600)
    await bar(page).evaluate("bar => { bar.job = { ...bar.job, rev: 3e6 } }")
    await expect(fill).to_have_css("transition-duration", "0.3s")


async def test_ring_is_round_and_tells_the_same(gallery: Gallery, page: Page) -> None:
    """A ring has its percent in the middle, its state beside it, and the same buttons."""
    await gallery.show(page, "running", "succeeded", variant="ring")
    ring, percent = await box_of(page, "bar"), await box_of(page, "percent")
    assert ring["width"] == ring["height"] == 64
    assert abs(percent["x"] + percent["width"] / 2 - ring["x"] - 32) <= 1
    assert abs(percent["y"] + percent["height"] / 2 - ring["y"] - 32) <= 1
    await says(bar(page), "Reading orders")
    await expect(page.get_by_role("button", name="Cancel · Export orders")).to_be_visible()
    await expect(page.get_by_role("progressbar", name="Export orders")).to_have_attribute(
        "aria-valuenow", "31"
    )
    await expect(part(bar(page, 1), "percent")).to_be_hidden()
    await expect(part(bar(page, 1), "icon")).to_be_visible()


async def test_inline_bar_stands_in_one_line(gallery: Gallery, page: Page) -> None:
    """Label, bar and percent; where there is something to say, that instead of the percent."""
    await gallery.show(page, "running", "failed", variant="inline")
    for number in (0, 1):
        assert (await box(bar(page, number)))["height"] <= 32
    middles = [
        one["y"] + one["height"] / 2
        for one in [await box_of(page, name) for name in ("label", "bar", "percent", "cancel")]
    ]
    assert max(middles) - min(middles) <= 2
    await expect(part(bar(page, 0), "percent")).to_be_visible()
    await expect(part(bar(page, 0), "note")).to_be_hidden()
    await expect(part(bar(page, 1), "percent")).to_be_hidden()
    await expect(part(bar(page, 1), "note")).to_be_visible()


async def test_variant_can_change(site: Site, page: Page, name: str) -> None:
    """A bar becomes a ring and back, and keeps what it shows; what it needs comes by itself."""
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await bar(page).evaluate("bar => bar.setAttribute('variant', 'ring')")
    await expect(part(bar(page), "fill")).to_be_hidden()
    await bar(page).evaluate("bar => bar.removeAttribute('variant')")
    await expect(part(bar(page), "fill")).to_be_visible()
    await shows(bar(page), "running", "25%")


async def test_forced_colours_and_stillness(gallery: Gallery, browse: Browse) -> None:
    """Rings and stages keep a border and an end; nothing moves for those who want no motion."""
    page = await browse(forced_colors="active", reduced_motion="reduce")
    await gallery.show(page, "indeterminate", variant="ring")
    await expect(part(bar(page), "bar")).to_have_css("animation-name", "none")
    await expect(part(bar(page), "bar")).to_have_css("forced-color-adjust", "none")
    await gallery.show(page, "staged")
    track = part(bar(page), "stage-bar").last
    await expect(track).to_have_css("border-top-style", "solid")
    await expect(part(bar(page), "stage-fill").last).to_have_css("transition-duration", "0s")


async def test_colours_and_sizes_are_the_page_s(gallery: Gallery, page: Page, until: Until) -> None:
    """Custom properties and parts reach what they name."""
    await gallery.show(page, "running", "succeeded", "failed")
    await page.evaluate(
        "() => { const sheet = new CSSStyleSheet(); sheet.replaceSync(`headway-bar {"
        "--headway-accent: rgb(1 2 3); --headway-success: rgb(4 5 6); --headway-track: rgb(7 8 9);"
        "--headway-danger: rgb(10 11 12); --headway-height: 11px; --headway-radius: 3px }"
        "headway-bar::part(label) { font-size: 19px }`); document.adoptedStyleSheets = [sheet]; }"
    )
    for number, color in enumerate(("rgb(1, 2, 3)", "rgb(4, 5, 6)", "rgb(10, 11, 12)")):
        fill = part(bar(page, number), "fill")
        await expect(fill).to_have_css("background-color", color)
    track = part(bar(page), "bar")
    await expect(track).to_have_css("background-color", "rgb(7, 8, 9)")
    await expect(track).to_have_css("height", "11px")
    await expect(track).to_have_css("border-radius", "3px")
    await expect(part(bar(page), "label")).to_have_css("font-size", "19px")
