"""The pages of examples/frameworks, each in Chromium, with the framework as npm has it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Dialog, Locator, Page, expect

from tests.apps.process import App, Apps, wait_until
from tests.browser.conftest import Browse
from tests.browser.look import SLOW_MS, Asked, bar, part, shows
from tests.samples import SAMPLES, Sample

FOLDER: Final = Path(__file__).parents[2] / "examples" / "frameworks"
THERE: Final = (FOLDER / "node_modules" / "headway-setup").exists()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.skipif(not THERE, reason="the libraries are not here; scripts/npm gets them"),
    pytest.mark.xdist_group("frameworks"),
]
in_browser = pytest.mark.asyncio(loop_scope="session")

HTMX: Final = ["htmx2", "htmx4"]
RENDERING: Final = ["react", "vue", "alpine"]
LONG, SHORT = "1000", "3"
LOOKED_AT: Final = """
window.bars = () => [...document.querySelectorAll("headway-bar")];
window.ids = () => bars().map((bar) => bar.job.id);
window.until = (holds) => new Promise((done) => {
  const look = () => (holds() ? done() : requestAnimationFrame(look));
  look();
});
for (const name of ["htmx:sseClose", "htmx:sse:close"])
  addEventListener(name, ({ detail }) => {
    document.documentElement.dataset.closed ??= detail.type ?? detail.reason;
  }, true);"""
SAID: Final = [sample for sample in SAMPLES if sample.page.name == "frameworks.md"]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The server of the example."""
    with Apps(tmp_path_factory.mktemp("frameworks")) as apps:
        yield apps.serve(app="app:app", cwd=FOLDER)


def streams(app: App) -> int:
    return int(app.http.get("/jobs/health").json()["streams"])


@pytest_asyncio.fixture(loop_scope="session")
async def page(browse: Browse, app: App) -> AsyncIterator[Page]:
    """A page of a new visitor, whose jobs are cancelled at the end."""
    page = await browse()
    await page.add_init_script(LOOKED_AT)
    yield page
    await page.goto("about:blank")
    jobs = await (await page.context.request.get(f"{url(app)}/jobs", headers=JSON)).json()
    for job in jobs["jobs"]:
        if job["links"]["cancel"]:
            await page.context.request.post(url(app) + job["links"]["cancel"], headers=JSON)
    wait_until("its streams are over", lambda: streams(app) == 0)


JSON: Final = {"accept": "application/json"}


def url(app: App) -> str:
    return f"http://127.0.0.1:{app.port}"


async def bake(page: Page, loaves: str) -> None:
    """Start a job by the page's button."""
    await page.locator("input[name=loaves]").first.fill(loaves)
    await page.get_by_role("button", name="Bake", exact=True).click()


async def baking(page: Page, app: App, name: str, loaves: str = LONG) -> Locator:
    """Open a page and start a job there; its bar."""
    await page.goto(f"{url(app)}/{name}.html")
    await bake(page, loaves)
    return bar(page)


# ── with the element ──────────────────────────────────────────────────────────────────────────


@in_browser
@pytest.mark.parametrize("name", [*HTMX, *RENDERING])
async def test_a_bar_goes_to_its_end_and_the_page_hears_of_it(
    page: Page, app: App, name: str
) -> None:
    """The button starts a job, the framework shows its bar, and counts what is done."""
    shown = await baking(page, app, name, SHORT)

    await shows(shown, "succeeded", "100%")
    await expect(page.get_by_text("1 done")).to_be_visible()
    await expect(shown).to_have_count(1)


@in_browser
@pytest.mark.parametrize("name", RENDERING)
async def test_a_listener_can_hold_a_cancel_back(page: Page, app: App, name: str) -> None:
    """`preventDefault()` in the framework's listener: nothing is sent. Else it is cancelled."""
    asked, answers = Asked(page), iter([False, True])

    async def answer(dialog: Dialog) -> None:
        await (dialog.accept() if next(answers) else dialog.dismiss())

    page.on("dialog", answer)
    shown = await baking(page, app, name)
    await shows(shown, "running")
    await page.get_by_label("Ask before").check()

    await part(shown, "cancel").click()
    await expect(shown).to_have_attribute("data-state", "running")
    held_back = [one for one in asked.all if one.startswith("POST")]
    await part(shown, "cancel").click()

    await shows(shown, "cancelled")
    assert held_back == []


@in_browser
@pytest.mark.parametrize("name", RENDERING)
async def test_a_bar_that_is_not_shown_holds_no_stream(page: Page, app: App, name: str) -> None:
    """Taken out by the framework, it lets go of its job; put back, it follows it again."""
    shown = await baking(page, app, name)
    await shows(shown, "running")
    assert streams(app) == 1

    await page.get_by_label("Show").uncheck()
    await expect(page.locator("headway-bar")).to_have_count(0)
    wait_until("its stream is closed", lambda: streams(app) == 0)
    await page.get_by_label("Show").check()

    await shows(shown, "running")
    wait_until("it has a stream again", lambda: streams(app) == 1)


@in_browser
@pytest.mark.parametrize("name", RENDERING)
async def test_bars_of_a_list_turned_round_stay_the_same(page: Page, app: App, name: str) -> None:
    """A keyed list moves its bars: they go on, with one stream for all."""
    await baking(page, app, name)
    await shows(bar(page, 0), "running")
    await bake(page, LONG)
    await shows(bar(page, 1), "running")
    before = await page.evaluate("(window.kept = bars().reverse(), ids())")
    await page.get_by_role("button", name="Turn round").click()

    await page.evaluate("until(() => kept.every((bar, n) => bar == bars()[n]))")
    await shows(bar(page, 0), "running")
    wait_until("they share one stream", lambda: streams(app) == 1)
    done = await bar(page, 0).evaluate("bar => bar.job.progress.done")
    await page.evaluate("done => until(() => bars()[0].job.progress.done > done)", done)
    assert await page.evaluate("ids()") == before[::-1]


@in_browser
@pytest.mark.parametrize("name", ["react", "vue"])
async def test_a_job_set_as_a_property_is_there_at_once(page: Page, app: App, name: str) -> None:
    """Before any answer of the stream: the bar has it from the framework."""
    await page.route("**/jobs/events**", lambda route: None)

    shown = await baking(page, app, name)

    await expect(part(shown, "label")).to_have_text("Bread")


# ── htmx ──────────────────────────────────────────────────────────────────────────────────────


@in_browser
@pytest.mark.parametrize("name", HTMX)
async def test_bars_that_htmx_puts_in_share_a_stream(page: Page, app: App, name: str) -> None:
    """Two starts, two bars, one stream; none when something else is swapped in."""
    await baking(page, app, name)
    await shows(bar(page, 0), "running")
    await bake(page, LONG)
    await expect(page.locator("headway-bar")).to_have_count(2)
    await shows(bar(page, 0), "running")
    await shows(bar(page, 1), "running")
    wait_until("they share one stream", lambda: streams(app) == 1)

    await page.evaluate("htmx.ajax('GET', '/baked', '#jobs')")

    await expect(page.locator("headway-bar")).to_have_count(0)
    wait_until("nobody listens", lambda: streams(app) == 0)


@in_browser
@pytest.mark.parametrize("name", HTMX)
async def test_a_boosted_form_leads_to_the_job(page: Page, app: App, name: str) -> None:
    """htmx follows to the job's page, whose bar goes to its end."""
    await page.goto(f"{url(app)}/{name}.html")
    await page.get_by_role("button", name="Bake, and see").click()

    await page.wait_for_url(re.compile(r"/jobs/\w+$"))
    await shows(bar(page), "succeeded")


# ── without the element ───────────────────────────────────────────────────────────────────────


@in_browser
@pytest.mark.parametrize("name", HTMX)
async def test_a_page_without_the_element_goes_to_the_end(page: Page, app: App, name: str) -> None:
    """The fragments are swapped in until the job has ended; then the connection is closed."""
    asked = Asked(page)
    await baking(page, app, f"{name}-plain", "20")
    await expect(page.get_by_role("progressbar", name="Bread")).to_be_visible()
    await expect(page.get_by_text("is in the oven")).to_be_visible()

    await expect(page.get_by_text("Done!, 100 %")).to_be_visible(timeout=SLOW_MS)
    await expect(page.locator("html")).to_have_attribute("data-closed", "message")

    assert await page.get_by_role("link", name="Result").get_attribute("href")
    assert len(asked.all) == 1
    assert await page.locator("headway-bar").count() == 0
    wait_until("nobody listens", lambda: streams(app) == 0)


@in_browser
@pytest.mark.parametrize("name", HTMX)
async def test_a_button_can_be_pressed_while_the_rest_changes(
    page: Page, app: App, name: str
) -> None:
    """A slow press of "Cancel" counts, though messages come meanwhile; the page stays."""
    await baking(page, app, f"{name}-plain")
    cancel = page.get_by_role("button", name="Cancel")
    await expect(page.locator("progress")).to_be_visible()
    await cancel.focus()
    await cancel.hover()
    await page.mouse.down()
    said = await page.locator("#jobs progress").get_attribute("value")
    await expect(page.locator("#jobs progress")).not_to_have_attribute("value", said or "")
    await expect(cancel).to_be_focused()
    await page.mouse.up()

    await expect(page.locator("#jobs").get_by_text("Cancelled")).to_be_visible()
    assert page.url.endswith("-plain.html")


@in_browser
@pytest.mark.parametrize("name", HTMX)
async def test_a_job_is_tried_again_without_the_element(page: Page, app: App, name: str) -> None:
    """The form of an ended job leads to the page of the new one."""
    await baking(page, app, f"{name}-plain")
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Try again").click()

    await page.wait_for_url(re.compile(r"/jobs/\w+$"))
    await shows(bar(page), "running")


@in_browser
@pytest.mark.parametrize(("name", "mark"), [("htmx2", "sse-connect"), ("htmx4", "hx-sse:connect")])
async def test_several_jobs_come_by_one_stream(page: Page, app: App, name: str, mark: str) -> None:
    """Each fragment goes to its place, also that of a job that is not to be seen."""
    await page.goto(f"{url(app)}/{name}-plain.html")
    answer = await page.context.request.post(
        f"{url(app)}/bake", form={"loaves": SHORT}, headers=JSON
    )
    job_id = (await answer.json())["id"]
    code = next(s.code for s in SAID if f" {mark}" in s.code and "ONE" in s.code)
    await page.evaluate(
        "html => { jobs.innerHTML = html; htmx.process(jobs); }",
        code.replace("ONE", job_id).replace("TWO", "none"),
    )

    await expect(page.locator(f"#headway-{job_id}")).to_contain_text("Done!", timeout=SLOW_MS)
    await expect(page.locator("#headway-none")).to_have_text("No longer available")
    await expect(page.locator("html")).to_have_attribute("data-closed", "message")


# ── the docs ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sample", SAID, ids=str)
def test_samples_are_in_the_examples(sample: Sample) -> None:
    """What the page shows stands in the pages that are opened here, or is put into one of them."""
    files = [FOLDER / "app.py", FOLDER / "react.tsx", *(FOLDER / "pages").iterdir()]
    code = stripped(sample.code.replace("/jobs/ID/events", "{}"))

    assert "ONE" in code or any(code in stripped(file.read_text()) for file in files)
    assert len(sample.code.splitlines()) <= 15


def stripped(text: str) -> str:
    """Without what stands before each line."""
    return "\n".join(line.strip() for line in text.strip().splitlines())
