"""What a test sees of a bar, and of what its page asks for."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.async_api import Locator, Page, Request, expect

__all__ = ["SLOW_MS", "Asked", "bar", "connected", "contrasts", "part", "says", "shows"]

SLOW_MS: Final = 20_000


def bar(page: Page, number: int = 0) -> Locator:
    """One of the bars. Its insides are found by their part, such as "note"."""
    return page.locator("headway-bar").nth(number)


def part(bar: Locator, name: str) -> Locator:
    return bar.locator(f"[part={name}]")


async def shows(bar: Locator, state: str, percent: str | None = None) -> None:
    """Wait until it shows *state* and, if given, *percent*."""
    await expect(bar).to_have_attribute("data-state", state, timeout=SLOW_MS)
    if percent is not None:
        await expect(part(bar, "percent")).to_have_text(percent, timeout=SLOW_MS)


async def says(bar: Locator, text: str | re.Pattern[str], where: str = "note") -> None:
    """Wait until *text* stands in that part of it."""
    await expect(part(bar, where)).to_have_text(text, timeout=SLOW_MS)


async def connected(bar: Locator) -> None:
    """Wait until it has been told something: what it shows before may be what stood in the page."""
    await bar.evaluate(CONNECTED)


class Asked:
    """The requests of a page below /jobs, from now on."""

    def __init__(self, page: Page) -> None:
        self._seen: list[str] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        path = urlsplit(request.url).path
        if path.startswith("/jobs") and "/static/" not in path:
            self._seen.append(f"{request.method} {path}")

    @property
    def all(self) -> list[str]:
        return list(self._seen)

    @property
    def streams(self) -> int:
        return self._seen.count("GET /jobs/events")


async def contrasts(bar: Locator, page_color: str) -> dict[str, float]:
    """How the fill stands out from the track and the page, and the texts from the page."""
    found: dict[str, Any] = await bar.evaluate(CONTRASTS, page_color)
    return found


CONTRASTS: Final = """(bar, page) => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const light = (...layers) => {
    for (const layer of layers) {
      context.fillStyle = layer;
      context.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const style = (part) => getComputedStyle(bar.shadowRoot.querySelector(`[part=${part}]`));
  const back = light(page);
  const [track, fill] = [style("bar").backgroundColor, style("fill").backgroundColor];
  const fade = (part) => {
    context.globalAlpha = style(part).opacity;
    const seen = light(style(part).color);
    context.globalAlpha = 1;
    return seen;
  };
  return {
    "fill on track": ratio(light(page, track, fill), light(page, track)),
    "fill on page": ratio(light(page, track, fill), back),
    note: ratio(light(page) && fade("note"), back),
    meta: ratio(light(page) && fade("meta"), back),
  };
}"""
CONNECTED: Final = """
  bar => bar.watcher.connection == "open" || new Promise((done) =>
    bar.addEventListener("headway-connection", ({ detail }) => detail.state == "open" && done()))
"""
