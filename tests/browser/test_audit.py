"""What axe-core, a checker of accessibility, finds on the pages: nothing, in any state."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import bar, part, shows
from tests.browser.serving import Site
from tests.browser.states import Gallery, hang, refuse

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("gallery"),
]

Scheme = Literal["light", "dark"]


@cache
def axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


async def violations(page: Page) -> list[str]:
    """Every rule that is broken, with where it is."""
    await page.evaluate(axe())
    found: dict[str, Any] = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {one['help']} at {[node['target'] for node in one['nodes']]}"
        for one in found["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("variant", ["", "inline", "ring"])
async def test_bars_in_every_state_of_the_job(
    gallery: Gallery, browse: Browse, variant: str, scheme: Scheme
) -> None:
    """Each state of a job, in each variant, in light and dark."""
    page = await browse(color_scheme=scheme)
    await gallery.show(page, **({"variant": variant} if variant else {"log": "yes"}))
    if not variant:
        staged = bar(page, list(gallery.ids).index("staged"))
        await part(staged, "stages-toggle").click()
        await part(staged, "log-toggle").click()
        await expect(part(staged, "log")).to_have_text("Began\nRead it all")

    assert await violations(page) == []


@pytest.mark.usefixtures("network_fails")
async def test_bars_in_every_state_of_the_connection(site: Site, page: Page, name: str) -> None:
    """Connecting, no longer there, not to be seen, cut off, offline."""
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    for route, state in ((hang, "connecting"), (refuse, "forbidden")):
        await page.route("**/jobs/**events*", route)
        await site.bare(page, f'<headway-bar src="/jobs/{job_id}" label="Work"></headway-bar>')
        await shows(bar(page), state)
        await expect(part(bar(page), "note")).to_be_visible()
        assert await violations(page) == []
        await page.unroute("**/jobs/**events*")
    await site.bare(page, '<headway-bar src="/jobs/0" label="Work"></headway-bar>')
    await shows(bar(page), "gone")
    assert await violations(page) == []

    await site.watch(page, job_id)
    await shows(bar(page), "running")
    await page.route("**/jobs/events*", lambda route: route.abort())  # else one may slip through
    await page.context.set_offline(True)
    await shows(bar(page), "offline")
    assert await violations(page) == []
    await page.evaluate("Object.defineProperty(navigator, 'onLine', { value: true })")
    await shows(bar(page), "reconnecting")
    assert await violations(page) == []


@pytest.mark.whole_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("network_fails")
async def test_pages_of_headway(gallery: Gallery, browse: Browse, scheme: Scheme) -> None:
    """The list of one's jobs, a job's page, somebody else's, and the list of who has none."""
    page, other = await browse(color_scheme=scheme), await browse(color_scheme=scheme)
    await page.context.add_cookies(gallery.cookies)
    await page.goto(f"{gallery.site.url}/jobs")
    await expect(page.locator("headway-jobs headway-bar")).to_have_count(len(gallery.ids))
    await expect(page.get_by_role("button", name="Forget · Resize pictures")).to_be_visible()
    assert await violations(page) == []
    await page.goto(f"{gallery.site.url}/jobs/{gallery.ids['staged']}")
    await expect(part(bar(page), "notify")).to_be_visible()
    assert await violations(page) == []
    await other.goto(f"{gallery.site.url}/jobs/{gallery.ids['staged']}")
    await expect(other.get_by_role("heading", name="No such job")).to_be_visible()
    assert await violations(other) == []
    await other.goto(f"{gallery.site.url}/jobs")
    await expect(other.get_by_text("You have started nothing yet.")).to_be_visible()
    assert await violations(other) == []


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"forced_colors": "active"},
        {"viewport": {"width": 360, "height": 740}},
    ],
    ids=["light", "dark", "forced", "narrow"],
)
async def test_pages_of_operators(
    gallery: Gallery, browse: Browse, options: dict[str, Any]
) -> None:
    """All jobs in every state, none of them, and what stands inside of one."""
    page = await browse(**options)
    await page.context.add_cookies([{"name": "operator", "value": "yes", "url": gallery.site.url}])
    await page.goto(f"{gallery.site.url}/jobs/overview")
    await expect(page.get_by_role("row")).to_have_count(len(gallery.ids) + 1)
    await shows(bar(page), "queued")
    assert await violations(page) == []
    await page.goto(f"{gallery.site.url}/jobs/overview?owner=nobody%20here")
    await expect(page.get_by_text("No job here is like that.")).to_be_visible()
    assert await violations(page) == []
    await page.goto(f"{gallery.site.url}/jobs/{gallery.ids['failed']}")
    await page.get_by_text("Log, 0 lines").click()
    assert await violations(page) == []
