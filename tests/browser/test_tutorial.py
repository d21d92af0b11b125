"""The tutorial, followed word for word: in an empty folder, with nothing but what it installs."""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.apps.process import App, wait_until
from tests.browser.conftest import Browse
from tests.browser.learner import PROGRAMS, Learner, block, install, patched
from tests.browser.look import bar, part, says, shows
from tests.samples import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("tutorial"),
]
in_browser = pytest.mark.asyncio(loop_scope="session")

BUTTON: Final = "Start some test work"
BUSY: Final = "Please wait for current work to finish."
LOST: Final = "The process that ran this stopped without a word"
LEASE_MS: Final = 15_000
SLOW, QUICK = 0.3, 0.02
LONG = 1.0  # where the end is not waited for

Learn = Callable[[float], Learner]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the first commands of the page have made."""
    return install(tmp_path_factory.mktemp("tutorial"))


@pytest.fixture
def learn(installed: Path, tmp_path: Path) -> Iterator[Learn]:
    """Makes the learner of this test, whose work takes so many seconds a step."""
    learners: list[Learner] = []

    def learn(dice: float) -> Learner:
        learners.append(Learner(tmp_path, installed, dice=dice))
        return learners[-1]

    yield learn
    for learner in learners:
        learner.__exit__(None, None, None)


def status(app: App) -> dict[str, Any]:
    return dict(httpx.get(f"{app.http.base_url}/check_status/").json())


async def press(page: Page, app: App) -> None:
    """Press the button on the first page."""
    await page.goto(f"{app.http.base_url}/")
    await page.get_by_role("button", name=BUTTON).click()


# ── the page ──────────────────────────────────────────────────────────────────────────────────


def test_it_ends_with_the_example() -> None:
    """The last program is the example of the repository, byte for byte."""
    example = ROOT / "examples" / "AsyncProgressBar" / "progress_bar.py"

    assert PROGRAMS[-1].code == example.read_text()


@pytest.mark.parametrize("number", range(1, len(PROGRAMS)))
def test_new_lines_are_marked(number: int) -> None:
    """Each program marks the lines that the one before did not have."""
    old, new = (PROGRAMS[n].code.splitlines() for n in (number - 1, number))
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    changed = {
        line + 1
        for act, _, _, begin, end in matcher.get_opcodes()
        if act in {"replace", "insert"}
        for line in range(begin, end)
        if new[line]
    }
    told = re.search(r'hl_lines="(.*?)"', PROGRAMS[number].info)

    assert told is not None
    spans = [[int(n) for n in span.split("-")] for span in told[1].split()]
    assert {n for span in spans for n in range(span[0], span[-1] + 1)} == changed


# ── the steps ─────────────────────────────────────────────────────────────────────────────────


def test_a_page_with_a_button(learn: Learn) -> None:
    """Step 1: there is a button, and nothing behind it yet."""
    learner = learn(QUICK)
    learner.save(PROGRAMS[0].code)
    app = learner.serve()

    page = app.http.get("/").text
    pressed = app.http.post("/start_work/")

    assert BUTTON in page
    assert (pressed.status_code, "Method Not Allowed" in pressed.text) == (405, True)


@pytest.mark.slow
def test_the_work_without_headway(learn: Learn) -> None:
    """Step 2: the answer comes when all is done, and a second press does it all once more."""
    learner = learn(QUICK)
    learner.save(PROGRAMS[1].code)
    app = learner.serve()
    began_at = time.monotonic()

    pressed = app.http.post("/start_work/")

    assert time.monotonic() - began_at >= 25 * QUICK
    assert "Done!" in pressed.text


@in_browser
@pytest.mark.usefixtures("network_fails")
async def test_handed_to_headway(learn: Learn, page: Page, browse: Browse) -> None:
    """Step 3: a bar at once, the same after a reload; Cancel, Try again, and nobody else's."""
    learner = learn(SLOW)
    learner.save(PROGRAMS[2].code)
    app = learner.serve()

    await press(page, app)
    await page.wait_for_url("**/jobs/*")
    await expect(part(bar(page), "percent")).to_have_text(re.compile("[48]%"))
    await page.reload()
    reloaded = await page.content()
    await part(bar(page), "cancel").click()
    await shows(bar(page), "cancelled")
    await says(bar(page), "Cancelled")
    await part(bar(page), "retry").click()
    await shows(bar(page), "running")
    await shows(bar(page), "succeeded")
    private = await browse()
    await private.goto(page.url)

    assert re.search(r'<progress[^>]* value="0\.\d', reloaded)
    await expect(private.get_by_text("No such job")).to_be_visible()
    assert "identify is not set" in app.log


@in_browser
async def test_a_bar_on_a_page_of_ones_own(learn: Learn, page: Page, browse: Browse) -> None:
    """Step 4: everybody watches the newest work, nobody cancels it, and a second one may start."""
    learner = learn(LONG)
    learner.save(PROGRAMS[3].code)
    app = learner.serve()
    other = await browse()

    await press(page, app)
    await page.wait_for_url("**/progress/")
    await other.goto(f"{app.http.base_url}/progress/")
    for one in (page, other):
        await shows(bar(one), "running")
        await expect(part(bar(one), "cancel")).to_be_hidden()
    first = await bar(page).get_attribute("src")
    await press(page, app)
    await page.wait_for_url("**/progress/")

    assert first == await bar(other).get_attribute("src")
    assert first != await bar(page).get_attribute("src")


@in_browser
@pytest.mark.usefixtures("network_fails")
async def test_one_at_a_time(learn: Learn, page: Page) -> None:
    """Step 5: a second press is told to wait; when the work is done the button starts again."""
    learner = learn(SLOW)
    learner.save(PROGRAMS[4].code)
    app = learner.serve()

    await press(page, app)
    await press(page, app)
    await expect(page.get_by_text(BUSY)).to_be_visible()
    second = app.http.post("/start_work/")
    await page.get_by_role("link", name="See the progress").click()
    await shows(bar(page), "succeeded")
    await press(page, app)
    await page.wait_for_url("**/progress/")

    assert second.status_code == 409


def test_a_status_for_programs(learn: Learn) -> None:
    """Step 6: the command tells how far the work is, never 100 % before the end."""
    learner = learn(LONG)
    learner.save(PROGRAMS[5].code)
    app = learner.serve()
    app.http.post("/start_work/")
    wait_until("it moves", lambda: status(app)["processed"] > 1)

    told = json.loads(learner.ask(app))

    assert told["state"] == "running"
    assert 0 < told["percent_complete"] < 100


@in_browser
@pytest.mark.fault
@pytest.mark.usefixtures("network_fails")
async def test_a_crash_is_told(learn: Learn, page: Page) -> None:
    """Step 7: after a crash and a restart the page says what became of the work."""
    learner = learn(LONG)
    learner.save(PROGRAMS[5].code)
    first = learner.serve()
    await press(page, first)
    await shows(bar(page), "running")

    learner.crash(first)
    second = learner.serve()
    await page.goto(f"{second.http.base_url}/progress/")

    await expect(bar(page)).to_contain_text(LOST, timeout=LEASE_MS)


@in_browser
@pytest.mark.fault
@pytest.mark.usefixtures("network_fails")
async def test_a_crash_is_survived(learn: Learn, page: Page) -> None:
    """Step 7: with the two lines changed the work goes on where it was."""
    learner = learn(SLOW)
    learner.save(patched(PROGRAMS[5].code, block("diff").code))
    first = learner.serve()
    await press(page, first)
    wait_until("it moves", lambda: status(first)["processed"] > 2)

    learner.crash(first)
    second = learner.serve()
    await page.goto(f"{second.http.base_url}/progress/")

    await expect(bar(page)).to_contain_text("resumed at", timeout=LEASE_MS)
    await shows(bar(page), "succeeded")


@pytest.mark.parametrize("name", [pytest.param("workers", marks=pytest.mark.slow), "store"])
def test_on_a_server(learn: Learn, name: str, valkey_url: str) -> None:
    """Step 8: two processes share the work, by the folder or by a store of one's own."""
    learner = learn(LONG)
    learner.save(PROGRAMS[5].code)
    stores = {"redis://localhost:6379": valkey_url} if name == "store" else {}
    app = learner.serve(name, **stores)
    with ThreadPoolExecutor(8) as pool:
        url = f"{app.http.base_url}/start_work/"
        answers = list(pool.map(lambda _: httpx.post(url).status_code, range(8)))

    seen = [status(app)["state"] for _ in range(20)]

    assert sorted(answers) == [303, *[409] * 7]
    assert set(seen) == {"running"}
    assert (learner.folder / ".headway").exists() == (name == "workers")
