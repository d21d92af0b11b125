"""The main path in Firefox: the element is not made for Chromium alone."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from PIL import Image

from tests.browser.bidi import Firefox, Tab, open_firefox
from tests.browser.serving import Site
from tests.conftest import Until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("firefox"),
]

NAMES: Final = ("firefox-esr", "firefox")
OLDEST: Final = 153  # 140 has no emulation.setNetworkConditions, and loses preload scripts
FORCED: Final = {"browser.display.document_color_use": 2, "ui.useAccessibilityTheme": 1}
SLOW_S: Final = 20
LIST: Final = "<headway-jobs></headway-jobs>"
Shows = Callable[..., Awaitable[None]]
"""`await shows(tab, state, percent)`: see the fixture `shows`."""
EYES: Final = """() => {
  Math.random = () => 0.5;  // of the pauses between two tries one may be 30 s else
  window.find = (selector, root = document) =>
    root.querySelector(selector) ??
    [...root.querySelectorAll("*")].reduce(
      (found, one) => found ?? (one.shadowRoot && find(selector, one.shadowRoot)), null);
  window.state = () => find("headway-bar")?.dataset.state;
  window.percent = () => find("[part=percent]")?.textContent;
  window.visible = () => find("[part=base]")?.checkVisibility({ visibilityProperty: true });
  window.box = (name) => find(`[part=${name}]`).getBoundingClientRect();
  window.heard = [];
  for (const name of ["before-cancel", "retry", "succeeded", "failed", "cancelled", "done"])
    addEventListener(`headway-${name}`, () => heard.push(name));
  window.connections = [];
  addEventListener("headway-connection", ({ detail }) => connections.push(detail.state));
  window.frames = [];
  const look = () => {
    const bar = find("headway-bar");
    if (bar) frames.push([state(), percent(), Math.round(bar.getBoundingClientRect().height)]);
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""
"""Finds in shadow trees; keeps which events were heard, and what each frame showed."""


@pytest.fixture(scope="session")
def firefox_path() -> str:
    """Where a Firefox is on this machine."""
    for found in filter(None, map(shutil.which, NAMES)):
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"\d+", said.stdout)
        if version and int(version[0]) >= OLDEST:
            return found
    pytest.skip(f"there is no Firefox {OLDEST} or newer here; scripts/firefox installs it")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(
    firefox_path: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Firefox]:
    """One for all tests."""
    async with open_firefox(firefox_path, tmp_path_factory.mktemp("firefox"), {}) as firefox:
        await firefox.send("script.addPreloadScript", functionDeclaration=EYES)
        yield firefox


@pytest.fixture
def firefox(running: Firefox) -> Iterator[Firefox]:
    """The same, and the test fails if a page complains."""
    running.complaints.clear()
    yield running
    assert running.complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def tab(firefox: Firefox) -> AsyncIterator[Tab]:
    """A tab of a new visitor."""
    tab = await firefox.open()
    yield tab
    await tab.close()


async def begin(site: Site, tab: Tab, name: str, form: str = "", **orders: Any) -> str:
    """Start a job with these orders as the visitor of *tab*; returns its id."""
    site.tell(name, **orders)
    await tab.goto(site.url)
    return str(
        await tab.run(
            f"fetch('/start', {{ method: 'POST', headers: {{ Accept: 'application/json' }},"
            f" body: new URLSearchParams('name={name}&{form}') }})"
            ".then(async (answer) => (await answer.json()).id)"
        )
    )


@pytest.fixture
def shows(until: Until) -> Shows:
    """`await shows(tab, state, percent)` waits until the first bar of the tab shows that."""

    async def shows(tab: Tab, state: str, percent: str | None = None) -> None:
        wanted = [state, percent]

        async def shown() -> bool:
            seen = await tab.run("visible() && [state(), percent()]") or [None]
            return bool(seen == wanted if percent else seen[0] == state)

        await until(shown, f"{wanted} is shown", within_s=SLOW_S)

    return shows


async def test_form_leads_to_a_live_bar_and_to_the_result(
    site: Site, tab: Tab, name: str, shows: Shows, until: Until
) -> None:
    """A form starts the job; its page follows it to the end, and its events are heard."""
    await tab.goto(site.url)
    await tab.run(f"find('input').value = '{name}'")
    await tab.click("find('button')")
    for done, percent in ((1, "25%"), (2, "50%")):
        site.tell(name, total=4, to=done)
        await shows(tab, "running", percent)
    site.tell(name, total=4, to=4)
    await shows(tab, "finishing", "99%")
    site.tell(name, end=True)
    await shows(tab, "succeeded", "100%")

    assert await tab.run("heard") == ["succeeded", "done"]
    assert await tab.run("connections") == ["open"]
    await tab.click("find('[part=result]')")
    await until(lambda: tab.run("document.body?.textContent == 'packed'"), "the result is shown")


async def test_nothing_flashes_before_the_first_news(
    site: Site, tab: Tab, name: str, shows: Shows
) -> None:
    """From what the page holds without scripts to the live bar: same height, never less done."""
    await site.watch(tab, await begin(site, tab, name, total=4, to=2))
    await shows(tab, "running", "50%")
    bypass = {"cacheBehavior": "bypass", "contexts": [tab.id]}  # the script comes late
    await tab.firefox.send("network.setCacheBehavior", **bypass)
    await tab.firefox.send("browsingContext.reload", context=tab.id, wait="complete")
    await shows(tab, "running", "50%")
    site.tell(name, total=4, to=3)
    await shows(tab, "running", "75%")
    frames = await tab.run("frames")

    assert {tuple(frame[:2]) for frame in frames} <= {
        (None, None),
        ("running", "50%"),
        ("running", "75%"),
    }
    assert len({height for _, _, height in frames}) == 1


async def test_cancel_and_retry_by_hand(site: Site, tab: Tab, name: str, shows: Shows) -> None:
    """Each button does what it says; the job that is tried again is followed by the same bar."""
    await site.watch(tab, first := await begin(site, tab, name, total=4, to=1))
    await shows(tab, "running", "25%")
    await tab.click("find('[part=cancel]')")
    await shows(tab, "cancelled", "25%")
    assert await tab.run("heard") == ["before-cancel", "cancelled", "done"]
    site.tell(name, total=4, to=3)
    await tab.click("find('[part=retry]')")
    await shows(tab, "running", "75%")
    site.tell(name, fail="Row 7 has no name")
    await shows(tab, "failed", "75%")

    assert (await tab.run("heard"))[3:] == ["retry", "failed", "done"]
    assert first not in await tab.run("find('headway-bar').src")
    assert "Row 7 has no name" in await tab.run("find('[part=note]').textContent")


async def test_list_finds_the_job_after_a_reload_and_from_another_tab(
    site: Site, tab: Tab, name: str, shows: Shows
) -> None:
    """What one tab starts appears in the other's list, moves in both, and is there afterwards."""
    await site.bare(tab, LIST)
    other = await tab.firefox.open(tab.visitor)
    await site.watch(other, await begin(site, other, name, total=4, to=1))
    await shows(other, "running", "25%")
    await tab.show()
    await shows(tab, "running", "25%")
    await tab.run("location.reload()")
    site.tell(name, total=4, to=2)
    for one in (tab, other):
        await shows(one, "running", "50%")
    await other.close()
    site.tell(name, end=True)

    await shows(tab, "succeeded", "100%")


async def test_bar_outlives_its_server(own_site: Site, tab: Tab, name: str, shows: Shows) -> None:
    """While the server is away the last value stays; then all goes on by itself to a true end."""
    await own_site.watch(tab, await begin(own_site, tab, name, "again=yes", total=4, to=2))
    await shows(tab, "running", "50%")
    own_site.end(signal.SIGKILL)
    await shows(tab, "reconnecting", "50%")
    own_site.tell(name, total=4, to=3)
    own_site.start()
    await shows(tab, "running", "75%")
    own_site.tell(name, end=True)
    await shows(tab, "succeeded", "100%")

    assert (await tab.run("connections"))[-2:] == ["reconnecting", "open"]


async def test_browser_without_a_network_says_so(
    site: Site, tab: Tab, name: str, shows: Shows
) -> None:
    """Offline is told from a server that is away, and over as soon as the network is back."""
    await site.watch(tab, await begin(site, tab, name, total=4, to=1))
    await shows(tab, "running", "25%")
    network = {"type": "offline"}
    set_network = "emulation.setNetworkConditions"
    await tab.firefox.send(set_network, networkConditions=network, contexts=[tab.id])
    await shows(tab, "offline", "25%")
    await tab.firefox.send(set_network, networkConditions=None, contexts=[tab.id])
    site.tell(name, total=4, to=2)

    await shows(tab, "running", "50%")


async def test_hidden_tab_lets_go_of_its_connection(
    site: Site, tab: Tab, name: str, shows: Shows, until: Until
) -> None:
    """A tab behind another one has no stream after ten seconds; in front again it streams."""
    await site.watch(tab, await begin(site, tab, name, total=4, to=1))
    await shows(tab, "running", "25%")
    await until(lambda: site.streams() == 1, "the stream is open")
    other = await tab.firefox.open()
    assert await tab.run("document.hidden")
    await until(lambda: site.streams() == 0, "the stream is closed", within_s=SLOW_S)
    site.tell(name, total=4, to=2)
    await other.close()
    await tab.show()

    await shows(tab, "running", "50%")
    await until(lambda: site.streams() == 1, "the stream is open again")


async def test_way_back_shows_the_present_state(
    site: Site, tab: Tab, name: str, shows: Shows, until: Until
) -> None:
    """A page that is left has let go of its stream; who comes back sees how it is now."""
    await site.watch(tab, await begin(site, tab, name, total=4, to=1))
    await shows(tab, "running", "25%")
    await tab.goto(site.url)
    await until(lambda: site.streams() == 0, "the stream is closed")
    site.tell(name, total=4, to=2)
    await tab.firefox.send("browsingContext.traverseHistory", context=tab.id, delta=-1)
    await shows(tab, "running", "50%")


async def test_complaints_are_heard(running: Firefox, site: Site, until: Until) -> None:
    """What a page does against its policy would fail the test that does it."""
    tab = await running.open()
    await tab.goto(site.url)
    running.complaints.clear()
    await tab.run("document.body.setAttribute('style', 'color: red')")
    await until(lambda: running.complaints, "Firefox complains")
    await tab.close()

    assert "style-src" in running.complaints[0]


# ── looks ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
async def test_fill_grows_from_the_start_of_the_line(
    site: Site, tab: Tab, name: str, shows: Shows, direction: str
) -> None:
    """From the left in English, from the right in Arabic; as far as the ratio says."""
    job_id = await begin(site, tab, name, total=4, to=1)
    await site.watch(tab, job_id, dir=direction)
    await shows(tab, "running", "25%")
    start, middle, end = await colours(tab, (0.1, 0.5), (0.5, 0.5), (0.9, 0.5))

    assert (start != middle) == (direction == "ltr")
    assert (end != middle) == (direction == "rtl")


async def test_ring_is_round_and_fills_clockwise(
    site: Site, tab: Tab, name: str, shows: Shows, until: Until
) -> None:
    """What the variants need comes by itself; a quarter done is the quarter after the top."""
    job_id = await begin(site, tab, name, total=4, to=1)
    await site.watch(tab, job_id, variant="ring")
    await shows(tab, "running", "25%")
    await until(lambda: tab.run("box('bar').width == 64 && box('bar').height == 64"), "it is round")
    first, second, third, fourth = await colours(
        tab, (0.82, 0.18), (0.82, 0.82), (0.18, 0.82), (0.18, 0.18)
    )

    assert first != second == third == fourth


async def test_inline_bar_stands_in_one_line(
    site: Site, tab: Tab, name: str, shows: Shows, until: Until
) -> None:
    """Label, bar and percent are beside each other."""
    job_id = await begin(site, tab, name, total=4, to=1)
    await site.watch(tab, job_id, variant="inline")
    await shows(tab, "running", "25%")
    await until(lambda: tab.run("box('base').height <= 32"), "it is as high as a line")
    start, middle = await colours(tab, (0.1, 0.5), (0.5, 0.5))

    assert start != middle
    assert await tab.run("box('label').right <= box('bar').left")
    assert await tab.run("box('bar').right <= box('percent').left")


async def test_forced_colours_keep_the_shape(
    firefox_path: str, site: Site, tmp_path: Path, name: str, shows: Shows
) -> None:
    """With the colours of the system alone a bar has a border, and a fill that is told from it."""
    async with open_firefox(firefox_path, tmp_path, FORCED) as firefox:
        await firefox.send("script.addPreloadScript", functionDeclaration=EYES)
        tab = await firefox.open()
        await site.watch(tab, await begin(site, tab, name, total=4, to=1))
        await shows(tab, "running", "25%")
        assert await tab.run("matchMedia('(forced-colors: active)').matches")
        start, middle = await colours(tab, (0.1, 0.5), (0.5, 0.5))
        edge = await tab.run("getComputedStyle(find('[part=bar]')).borderTopStyle")

    assert start != middle
    assert edge == "solid"
    assert firefox.complaints == []


async def colours(tab: Tab, *places: tuple[float, float]) -> list[object]:
    """What is seen at these places of the bar: (0, 0) is its top left, (1, 1) its bottom right."""
    await tab.run("find('[part=base]').getAnimations({ subtree: true }).map((one) => one.finish())")
    box = await tab.run("box('bar')")
    picture = Image.open(io.BytesIO(await tab.picture())).convert("RGB")
    return [
        picture.getpixel((int(box["x"] + x * box["width"]), int(box["y"] + y * box["height"])))
        for x, y in places
    ]
