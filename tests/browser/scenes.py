"""Pictures of whole pages: the demo at work, and what the tutorial shows."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, expect

from tests.apps.process import Apps
from tests.browser.learner import PROGRAMS, Learner
from tests.browser.look import bar, part
from tests.samples import ROOT

SHARP: Final = 1.5
STEP_S: Final = 0.2
WORK_MS: Final = 60_000  # six kinds of real work share this machine
MIDDLE: Final = re.compile("[4-7].%")
BUTTON: Final = "Start some test work"

Scene = Callable[[Page, Path], Awaitable[None]]


async def demo(page: Page, path: Path) -> None:
    """Every kind of work of the demo, begun one after the other."""
    with Apps(Path(tempfile.mkdtemp())) as apps:
        app = apps.serve("headway", "demo", "--port", "{port}", app="", cwd=apps.folder)
        await page.goto(str(app.http.base_url))
        kinds = page.get_by_role("button", name="Start")
        for number in range(await kinds.count()):
            await kinds.nth(number).click()
            await expect(page.locator("headway-bar")).to_have_count(number + 1)
        failed = page.locator("headway-bar[data-state=failed]")
        await expect(failed).to_be_visible(timeout=WORK_MS)
        remaining = page.locator("headway-bar [part=eta]").filter(has_text="left")
        await expect(remaining.first).to_be_visible(timeout=WORK_MS)
        await page.mouse.move(0, 0)
        await page.screenshot(path=path, full_page=True)


async def tutorial_job(page: Page, path: Path) -> None:
    """The page of a job, after the third step."""
    await _tutorial(page, path, PROGRAMS[2].code)


async def tutorial_progress(page: Page, path: Path) -> None:
    """The finished example."""
    await _tutorial(page, path, PROGRAMS[-1].code)


async def _tutorial(page: Page, path: Path, program: str) -> None:
    with Learner(Path(tempfile.mkdtemp()), ROOT, dice=STEP_S) as learner:
        learner.save(program)
        app = learner.serve()
        await page.set_viewport_size({"width": 720, "height": 220})
        await page.goto(str(app.http.base_url))
        await page.get_by_role("button", name=BUTTON).click()
        await expect(part(bar(page), "percent")).to_have_text(MIDDLE)
        await page.mouse.move(0, 0)
        await page.screenshot(path=path)


SCENES: Final[dict[str, Scene]] = {
    "demo": demo,
    "tutorial-job": tutorial_job,
    "tutorial-progress": tutorial_progress,
}


async def take_scenes(browser: Browser, folder: Path) -> None:
    """Make all of them."""
    size = {"width": 1280, "height": 957}
    for name, scene in SCENES.items():
        context = await browser.new_context(viewport=size, device_scale_factor=SHARP)  # type: ignore[arg-type]
        await scene(await context.new_page(), folder / f"{name}.png")
        await context.close()
