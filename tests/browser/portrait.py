"""Portraits of the element: `python -m tests.browser.portrait` makes those in `portraits` anew.

A portrait holds a bar in each state, and some as rings and in a line: a picture, and where the
parts without text stand. What differs from one minute to the next is left out, or held still.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageChops, ImageFilter, ImageStat
from playwright.async_api import Page, async_playwright, expect

from tests.browser.conftest import ARGS, NAMES
from tests.browser.look import bar, part
from tests.browser.serving import Site
from tests.browser.states import CONCURRENCY, Gallery, open_gallery

__all__ = ["HAS_FONT", "MODES", "VIEWPORT", "Portrait", "differences", "sit"]

FOLDER: Final = Path(__file__).parent / "portraits"
MODES: Final[dict[str, tuple[dict[str, Any], dict[str, str]]]] = {
    "light": ({"color_scheme": "light"}, {}),
    "dark": ({"color_scheme": "dark"}, {}),
    "rtl": ({}, {"dir": "rtl"}),
    "forced": ({"forced_colors": "active"}, {}),
}
"""Name → options of the browser's context, attributes of the page."""

STATES: Final = (
    "running", "indeterminate", "finishing", "stalled", "queued",
    "cancelling", "succeeded", "failed", "cancelled",
)  # fmt: skip
VARIANTS: Final = (("ring", "running"), ("ring", "failed"), ("inline", "running"))
SHOWN: Final = (*STATES, *[f"{variant} {state}" for variant, state in VARIANTS])
VIEWPORT: Final = {"width": 560, "height": 400}
SOFT: Final = 1.5  # pixels: so that the edges of letters and lines may be drawn a bit otherwise
MOST: Final = {"bar": 3.0, "icon": 6.0, "base": 1.8}
"""Part → how far the colours of its pixels may be off on average, of 255.

The same Chromium is off by 0, one that draws its letters otherwise by up to 1.3 (a ring, with the
percent in it, by 2). A hatch that is missing is off by 8, a border by 40, another colour by 56.
"""

STILL: Final = """async (variants) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(
    'body { font-family: "DejaVu Sans" }' +
    "headway-bar::part(elapsed), headway-bar::part(eta) { display: none }");
  document.adoptedStyleSheets = [sheet];
  const bars = [...document.querySelectorAll("headway-bar")];
  variants.forEach((name, n) => bars.at(n - variants.length).setAttribute("variant", name));
}"""
HOLD: Final = """() => {
  for (const { shadowRoot } of document.querySelectorAll("headway-bar"))
    for (const one of shadowRoot.getAnimations())
      if (one instanceof CSSTransition) one.finish();
      else {
        one.pause();
        one.currentTime = 700;
      }
}"""
WEAR: Final = """(style) => {
  for (const { shadowRoot } of document.querySelectorAll("headway-bar")) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(style);
    shadowRoot.adoptedStyleSheets.push(sheet);
  }
}"""
BOXES: Final = """() => [...document.querySelectorAll("headway-bar")].map((bar) =>
  Object.fromEntries(["base", "bar", "fill", "icon"].map((name) => {
    const box = bar.shadowRoot.querySelector(`[part=${name}]`).getBoundingClientRect();
    return [name, [box.x, box.y, box.width, box.height].map(Math.round)];
  })))"""

HAS_FONT: Final = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  const width = (font) => (context.font = `16px ${font}`, context.measureText("Headway").width);
  return width('"DejaVu Sans", monospace') != width("monospace");
}"""
"""Whether the letters are those of the portraits."""

Box = tuple[int, int, int, int]


@dataclass
class Portrait:
    """A picture, and where the parts of its bars stand in it."""

    picture: Image.Image
    boxes: dict[str, dict[str, Box]]

    def save(self, folder: Path, mode: str) -> Path:
        """Put it there; returns where its picture is."""
        path = folder / f"{mode}.webp"
        self.picture.save(path, lossless=True, quality=100, method=6)
        rows = [f"  {json.dumps(name)}: {json.dumps(parts)}" for name, parts in self.boxes.items()]
        path.with_suffix(".json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
        return path

    @classmethod
    def load(cls, mode: str) -> Portrait:
        """The one that is kept."""
        path = FOLDER / f"{mode}.webp"
        boxes = json.loads(path.with_suffix(".json").read_text())
        return cls(Image.open(path).convert("RGB"), boxes)


async def sit(
    page: Page, gallery: Gallery, attributes: dict[str, str], style: str = ""
) -> Portrait:
    """Take one, in a page with the options of a mode; *style* goes into every bar."""
    states = (*STATES, *[state for _, state in VARIANTS])
    await gallery.show(page, *states, **attributes)
    await page.evaluate(STILL, [variant for variant, _ in VARIANTS])
    for number in range(len(states)):
        await expect(part(bar(page, number), "bar")).to_be_visible()
    for number, (variant, _) in enumerate(VARIANTS, len(STATES)):
        display = {"ring": "grid", "inline": "flex"}[variant]
        await expect(part(bar(page, number), "base")).to_have_css("display", display)
    await page.mouse.move(0, 0)
    await page.evaluate(WEAR, style)
    await page.evaluate(HOLD)
    boxes = dict(zip(SHOWN, await page.evaluate(BOXES), strict=True))
    shot = await page.screenshot(full_page=True, animations="allow")
    return Portrait(Image.open(io.BytesIO(shot)).convert("RGB"), boxes)


def differences(seen: Portrait, kept: Portrait) -> list[str]:
    """What of it is not as in the one that is kept, in words."""
    found = []
    for name in SHOWN:
        for what, box in kept.boxes[name].items():
            now = seen.boxes[name][what]
            if list(now) != list(box):
                found.append(f"{name}: {what} stands at {now}, not at {box}")
        for what, most in MOST.items():
            off = apart(seen.picture, kept.picture, kept.boxes[name][what])
            if off > most:
                found.append(f"{name}: {what} is off by {off:.1f}, more than {most}")
    return found


def apart(one: Image.Image, other: Image.Image, box: Box) -> float:
    """How far two pictures are apart there, on the average of its pixels, in the worst colour."""
    x, y, width, height = box
    cut = [
        picture.crop((x - 1, y - 1, x + width + 1, y + height + 1)).filter(
            ImageFilter.GaussianBlur(SOFT)
        )
        for picture in (one, other)
    ]
    return max(ImageStat.Stat(ImageChops.difference(*cut)).mean)


async def main() -> None:
    """Make all of them."""
    FOLDER.mkdir(exist_ok=True)
    path = next(filter(None, map(shutil.which, NAMES)))
    with Site(Path(tempfile.mkdtemp()), CONCURRENCY=CONCURRENCY) as site:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=path, args=ARGS)
            gallery = await open_gallery(site, await browser.new_page())
            for mode, (options, attributes) in MODES.items():
                page = await browser.new_page(viewport=VIEWPORT, **options)  # type: ignore[arg-type]
                print((await sit(page, gallery, attributes)).save(FOLDER, mode))
                await page.close()
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
