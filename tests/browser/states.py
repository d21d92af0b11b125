"""Brings a job, or what a browser sees of it, into each state that a bar can show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from playwright.async_api import Page, Route, expect

from tests.browser.look import bar, part, shows
from tests.browser.serving import Site

__all__ = [
    "CONCURRENCY",
    "GALLERY",
    "IN_PAGE",
    "STAGES",
    "Gallery",
    "hang",
    "open_gallery",
    "refuse",
]

STAGES: Final = [
    {"name": "Download the archive", "total": 1, "to": 1, "closed": True},
    {"name": "Unpack", "total": 312, "to": 312, "unit": "file", "closed": True},
    {"name": "Read", "total": 40_000, "to": 40_000, "unit": "row", "closed": True},
    {
        "name": "Check every row for what is missing in it, or double",
        "total": 3,
        "to": 1,
        "stages": [{"name": "Postcodes", "total": 40_000, "to": 25_600, "unit": "row"}],
    },
]
"""Three that are over, one that runs, and one in it."""

GALLERY: Final[dict[str, tuple[str, dict[str, Any], dict[str, str]]]] = {
    "succeeded": ("Resize pictures", {"total": 4, "to": 4, "end": True}, {}),
    "failed": ("Load the file", {"total": 4, "to": 2, "fail": "Row 7 has no name"}, {}),
    "cancelled": ("Send letters", {"total": 8, "to": 6}, {}),
    "retrying": ("Ask the archive", {"crash": "no answer"}, {"stubborn": "yes"}),
    "running": (
        "Export orders",
        {"total": 1000, "to": 312, "unit": "row", "note": "Reading orders"},
        {},
    ),
    "indeterminate": ("Count words", {"note": "Reading the book"}, {}),
    "finishing": ("Pack the box", {"total": 10, "to": 10}, {}),
    "staged": ("Nightly import", {"stages": STAGES, "log": ["Began", "Read it all"]}, {}),
    "stalled": ("Transfer", {"total": 10, "to": 4}, {"silent": "yes"}),
    "cancelling": ("Clean up", {"total": 9, "to": 3, "hold": True}, {}),
    "queued": ("Make a backup", {}, {}),
}
"""State → title, orders, form. In this order: those that run on fill a server of CONCURRENCY."""

CONCURRENCY: Final = 6
DISPLAY: Final = {"inline": "flex", "ring": "grid"}  # of bars whose variant has come
IN_PAGE: Final = ("connecting", "reconnecting", "offline", "gone", "forbidden")
"""The states that are not the job's: what stands between it and the browser."""


@dataclass
class Gallery:
    """A job in each state, of one visitor."""

    site: Site
    ids: dict[str, str]
    cookies: Any

    async def show(self, page: Page, *states: str, **attributes: str) -> None:
        """Open a page with the bars of these states, by default all; wait until it shows them."""
        await page.context.add_cookies(self.cookies)
        states = states or tuple(self.ids)
        await self.site.watch(page, *[self.ids[state] for state in states], **attributes)
        for number, state in enumerate(states):
            if state != "retrying":  # that comes and goes
                await shows(bar(page, number), "indeterminate" if state == "staged" else state)
                # Until what its variant needs has come it holds its place, and shows nothing.
                base = part(bar(page, number), "base")
                await expect(base).to_be_visible()
                if variant := attributes.get("variant"):  # it shows after 0.4 s in any case
                    await expect(base).to_have_css("display", DISPLAY[variant])


_THERE: Final[dict[str, Callable[[Any], Any]]] = {
    "running": lambda job: job["progress"]["ratio"] == 0.312,
    "indeterminate": lambda job: job["note"],
    "finishing": lambda job: job["progress"]["ratio"] == 0.99,
    "staged": lambda job: len(job["progress"]["stages"]) == 5,
    "stalled": lambda job: job["stalled"],
    "retrying": lambda job: job["retry_at"],
    "cancelling": lambda job: job["progress"]["done"] == 3,
    "cancelled": lambda job: job["progress"]["done"] == 6,
}


async def open_gallery(site: Site, page: Page) -> Gallery:
    """Begin the jobs as the visitor of *page*, and wait until each is in its state."""
    ids: dict[str, str] = {}
    for state, (title, orders, form) in GALLERY.items():
        site.tell(state, **orders)
        ids[state] = await site.begin(page, state, title=title, **form)
        await _until(site, page, ids[state], _THERE.get(state, _is(state)))
        if state in {"cancelling", "cancelled"}:
            await page.context.request.post(f"{site.url}/jobs/{ids[state]}/cancel")
            end = _is("cancelled") if state == "cancelled" else lambda job: job["cancel_requested"]
            await _until(site, page, ids[state], end)
    return Gallery(site, ids, await page.context.cookies())


def _is(state: str) -> Callable[[Any], Any]:
    return lambda job: job["state"] == state


async def _until(site: Site, page: Page, job_id: str, holds: Callable[[Any], Any]) -> None:
    async with asyncio.timeout(15):
        while True:
            headers = {"Accept": "application/json"}
            url = f"{site.url}/jobs/{job_id}"
            answer = await page.context.request.get(url, headers=headers)
            if holds(await answer.json()):
                return
            await asyncio.sleep(0.02)


async def hang(route: Route) -> None:
    """Never answer."""
    await asyncio.sleep(0)


async def refuse(route: Route) -> None:
    """Answer as to somebody who may not see it."""
    await route.fulfill(status=403)
