"""Bars of code that knows nothing of Headway, as the owner of the job sees them."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.look import bar, part, shows
from tests.browser.serving import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_captured_bars_move_the_element(site: Site, page: Page, name: str) -> None:
    """A lone bar is the bar of the job; with a second one behind it, nobody knows how many come."""
    await site.watch(page, await site.begin(page, name, captured="yes"))
    stages = part(bar(page), "stage")
    await shows(bar(page), "running", "50%")
    await expect(stages.filter(has_text="Bar 1")).to_contain_text("2 of 4")

    site.tell(name, bars=2)
    await shows(bar(page), "indeterminate", "")
    await expect(stages.filter(has_text="Bar 2")).to_contain_text("2 of 4")

    site.tell(name, bars=2, end=True)
    await shows(bar(page), "succeeded", "100%")
