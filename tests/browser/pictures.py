"""Pictures: `python -m tests.browser.pictures`, or `make pictures`, makes those of docs/images.

With a folder, it makes many more, to be looked at: every state and variant, in light and dark, wide
and narrow, right to left, in forced colours.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Page, async_playwright, expect

from headway.job import PARTITIONS
from headway.keys import Keys
from tests.browser.conftest import ARGS, NAMES
from tests.browser.look import bar, part, shows
from tests.browser.scenes import take_scenes
from tests.browser.serving import Site
from tests.browser.states import CONCURRENCY, Gallery, open_gallery
from tests.many import copy_ended

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
DARK: Final[dict[str, Any]] = {"color_scheme": "dark"}
FORCED: Final[dict[str, Any]] = {"forced_colors": "active"}
WIDE, NARROW = 720, 360


@dataclass
class Picture:
    """One of them: of which states, on which page, how."""

    name: str
    states: tuple[str, ...] = ()
    path: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    width: int = WIDE
    open: bool = False


RUN: Final = ("running", "indeterminate", "finishing", "stalled", "retrying", "queued")
END: Final = ("cancelling", "succeeded", "failed", "cancelled")
DOCS: Final = [
    Picture("bars", (*RUN, *END)),
    Picture("bars-dark", (*RUN, *END), options=DARK),
    Picture("stages", ("staged",), attributes={"log": "yes"}, open=True),
    Picture("rings", ("running", "indeterminate", "succeeded"), attributes={"variant": "ring"}),
    Picture("inline", ("running", "indeterminate", "failed"), attributes={"variant": "inline"}),
]
ALL: Final = ("staged", *RUN, *END)
MORE: Final = [
    *DOCS,
    Picture("narrow", ALL, width=NARROW),
    Picture("narrow-dark", ALL, width=NARROW, options=DARK),
    Picture("rtl", ALL, attributes={"dir": "rtl", "lang": "ar"}),
    Picture("forced", ALL, options=FORCED),
    Picture("forced-dark", ALL, options={**FORCED, **DARK}),
    Picture("still", ALL, options={"reduced_motion": "reduce"}),
    Picture("rings-all", ALL, attributes={"variant": "ring"}),
    Picture("rings-dark", ALL, attributes={"variant": "ring"}, options=DARK),
    Picture("rings-rtl", ALL, attributes={"variant": "ring", "dir": "rtl"}),
    Picture("rings-forced", ALL, attributes={"variant": "ring"}, options=FORCED),
    Picture("inline-all", ALL, attributes={"variant": "inline"}),
    Picture("inline-dark", ALL, attributes={"variant": "inline"}, options=DARK),
    Picture("inline-narrow", ALL, attributes={"variant": "inline"}, width=NARROW),
    Picture("list", path="/jobs"),
    Picture("list-dark", path="/jobs", options=DARK),
    Picture("list-narrow", path="/jobs", width=NARROW),
    Picture("stages-dark", ("staged",), attributes={"log": "yes"}, open=True, options=DARK),
    Picture("stages-narrow", ("staged",), attributes={"log": "yes"}, open=True, width=NARROW),
]


async def take(browser: Browser, gallery: Gallery, picture: Picture, folder: Path) -> None:
    """Make one."""
    size = {"width": picture.width, "height": 300}
    context = await browser.new_context(viewport=size, **picture.options)  # type: ignore[arg-type]
    page = await context.new_page()
    await context.add_cookies(gallery.cookies)
    if picture.path:
        await page.goto(gallery.site.url + picture.path)
        await expect(page.locator("headway-jobs headway-bar")).to_have_count(len(gallery.ids))
    else:
        await gallery.show(page, *picture.states, **picture.attributes)
    await expect(part(bar(page), "bar")).to_be_visible()
    if picture.open:
        await part(bar(page), "stages-toggle").click()
        await part(bar(page), "log-toggle").click()
        await expect(part(bar(page), "log")).to_be_visible()
    await settle(page)
    path = folder / f"{picture.name}.png"
    if folder == IMAGES:
        await page.locator("main").screenshot(path=path, animations="allow")
    else:
        await page.screenshot(path=path, full_page=True, animations="allow")
    await context.close()


async def overview(
    browser: Browser, gallery: Gallery, folder: Path, name: str, **options: Any
) -> None:
    """All jobs, as operators see them."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    await context.add_cookies([{"name": "operator", "value": "yes", "url": gallery.site.url}])
    await page.goto(f"{gallery.site.url}/jobs/overview")
    await shows(bar(page), "queued")
    await settle(page)
    await page.screenshot(path=folder / f"{name}.png", animations="allow")
    await context.close()


async def settle(page: Page) -> None:
    """Let what glides arrive, and the pointer be nowhere."""
    await page.mouse.move(0, 0)
    await page.wait_for_timeout(700)


async def cut_off(browser: Browser, gallery: Gallery, folder: Path) -> None:
    """What stands between a job and its browser."""
    context = await browser.new_context(viewport={"width": WIDE, "height": 300})
    page = await context.new_page()
    await gallery.show(page, "running")
    await context.set_offline(offline=True)
    await shows(bar(page), "offline")
    await settle(page)
    await page.screenshot(path=folder / "offline.png")
    await page.evaluate("Object.defineProperty(navigator, 'onLine', { value: true })")
    await shows(bar(page), "reconnecting")
    await settle(page)
    await page.screenshot(path=folder / "reconnecting.png")
    await context.set_offline(offline=False)
    await page.route("**/jobs/events*", lambda route: route.fulfill(status=403))
    markup = '<headway-bar src="/jobs/0" label="Of somebody else"></headway-bar>'
    await gallery.site.bare(page, markup)
    await shows(bar(page), "forbidden")
    await settle(page)
    await page.screenshot(path=folder / "forbidden.png")
    await page.unroute_all()
    await gallery.site.bare(page, '<headway-bar src="/jobs/0" label="Long ago"></headway-bar>')
    await shows(bar(page), "gone")
    await settle(page)
    await page.screenshot(path=folder / "gone.png")
    await context.close()


async def main() -> None:
    """Make those of the docs; or all, into a folder."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, NAMES)))
    with Site(Path(tempfile.mkdtemp()), CONCURRENCY=CONCURRENCY) as site:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=path, args=ARGS)
            gallery = await open_gallery(site, await browser.new_page())
            if folder == IMAGES:
                await take_scenes(browser, folder)
            for picture in DOCS if folder == IMAGES else MORE:
                await take(browser, gallery, picture, folder)
            with gallery.site.store() as client:
                copy_ended(client, Keys("headway", PARTITIONS), gallery.ids["failed"], 900)
            desk = {"width": 1200, "height": 760}
            await overview(browser, gallery, folder, "overview", viewport=desk)
            if folder != IMAGES:
                await overview(browser, gallery, folder, "overview-dark", viewport=desk, **DARK)
                await overview(browser, gallery, folder, "overview-forced", viewport=desk, **FORCED)
                narrow = {"width": NARROW, "height": 740}
                await overview(browser, gallery, folder, "overview-narrow", viewport=narrow)
                await cut_off(browser, gallery, folder)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
