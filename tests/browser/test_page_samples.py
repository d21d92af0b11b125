"""The samples of the docs that belong into a page, in Chromium."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import bar, says, shows
from tests.browser.serving import Site
from tests.samples import SAMPLES, Sample

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="session"),
]

Check = Callable[[str, Page, Site, str], Awaitable[None]]


async def html(code: str, page: Page, site: Site, job_id: str) -> None:
    """A bar, and a list that has it."""
    await site.bare(page, code.replace("/jobs/ID", f"/jobs/{job_id}"))

    await shows(bar(page), "running")
    await expect(page.locator("headway-jobs headway-bar")).to_have_count(1)


async def css(code: str, page: Page, site: Site, job_id: str) -> None:
    """Until the script is there, the bar has its height, and what is for others is hidden."""
    await page.set_content(f"<style>{code}</style><headway-bar><p>waits</p></headway-bar>")

    await expect(page.locator("headway-bar")).to_have_css("block-size", "68px")
    await expect(page.get_by_text("waits")).to_be_hidden()


async def words(code: str, page: Page, site: Site, job_id: str) -> None:
    """The bar speaks German, and counts in the plural."""
    await site.bare(page, "")
    await page.add_script_tag(content=code, type="module")
    await page.evaluate(ADD, f"/jobs/{job_id}")

    await shows(bar(page), "running")
    await says(bar(page), "1 von 4 Zeilen", "meta")


async def watch(code: str, page: Page, site: Site, job_id: str) -> None:
    """`draw` is called with the job."""
    await site.bare(page, "")
    await page.evaluate("window.draw = (job, state) => (window.drawn = [job?.id, state])")
    code = code.replace("/jobs/ID", f"/jobs/{job_id}")
    await page.add_script_tag(content=code, type="module")

    await page.wait_for_function("window.drawn?.[0]")
    assert (await page.evaluate("window.drawn"))[0] == job_id


ADD: Final = """src => {
  const bar = document.createElement("headway-bar");
  bar.setAttribute("src", src);
  document.body.append(bar);
}"""
CHECKS: Final[dict[str, Check]] = {"html": html, "css": css, "words": words, "watch": watch}
HERE: Final = [sample for sample in SAMPLES if sample.way == "page"]


@pytest.mark.parametrize("sample", HERE, ids=str)
async def test_a_sample_works_in_a_page(sample: Sample, site: Site, browse: Browse) -> None:
    """What the page of the docs shows works in a page of a browser."""
    page = await browse(bypass_csp=True)
    name = f"sample {sample.arguments[0]}"
    site.tell(name, total=4, to=1, unit="row")
    job_id = await site.begin(page, name)

    await CHECKS[sample.arguments[0]](sample.code, page, site, job_id)
