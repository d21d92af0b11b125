"""One Chromium and one server for all tests of a process; a fresh context for each test.

It is the headless shell, which is Chromium without what is around a page, and takes a third of the
processor time; tests about what is around a page are marked `whole_browser`.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    WebError,
    async_playwright,
)

from tests.apps.process import wait_until
from tests.browser.serving import Site
from tests.browser.states import CONCURRENCY, Gallery, open_gallery

Browse = Callable[..., Awaitable[Page]]
"""`page = await browse(**options)`: see the fixture `browse`."""

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHELL: Final = "chromium-headless-shell"
ARGS: Final = ["--no-sandbox", "--disable-gpu"]
NETWORK: Final = "Failed to load resource"


@pytest.fixture(autouse=True)
def nothing_runs_on() -> None:
    """Not watched here: Playwright keeps asyncio tasks of its own."""


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where a Chromium is on this machine."""
    return _first(*NAMES)


def _first(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail("there is no Chromium on this machine; scripts/browser installs it")
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playwright() -> AsyncIterator[Playwright]:
    """The driver."""
    async with async_playwright() as playwright:
        yield playwright


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(playwright: Playwright) -> AsyncIterator[Browser]:
    """A browser without a window, nor anything else but pages."""
    path = _first(SHELL, *NAMES)
    browser = await playwright.chromium.launch(executable_path=path, args=ARGS)
    yield browser
    await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def whole_chromium(playwright: Playwright, chromium_path: str) -> AsyncIterator[Browser]:
    """One with all that people have: put-aside pages, notifications."""
    browser = await playwright.chromium.launch(
        executable_path=chromium_path,
        args=ARGS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    await browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server of all tests that leave it alone."""
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gallery(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gallery]:
    """A job in each state, on a server of their own that is full."""
    with Site(tmp_path_factory.mktemp("gallery"), CONCURRENCY=CONCURRENCY) as site:
        context = await chromium.new_context()
        yield await open_gallery(site, await context.new_page())
        await context.close()


@pytest.fixture(autouse=True)
def nobody_works_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the jobs of the shared server are told to end, and nobody watches them."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        site.finish()
        wait_until("its streams are over", lambda: site.streams() == 0)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of the job of this test; its orders are kept under it, and tests of other files may have the
    same name."""
    return f"{request.node.path.stem} {request.node.name}"


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A server that the test may end and start again. It misses its jobs quickly."""
    with Site(tmp_path, LEASE_S=1) as site:
        yield site


@pytest.fixture
def visited(request: pytest.FixtureRequest) -> Browser:
    """The browser of this test."""
    whole = request.node.get_closest_marker("whole_browser") is not None
    browser: Browser = request.getfixturevalue("whole_chromium" if whole else "chromium")
    return browser


class Complaints:
    """What a browser has complained of: errors, warnings, what a policy has blocked."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._allowed: list[str] = []

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", self._error)

    def allow(self, text: str) -> None:
        self._allowed.append(text)

    @property
    def found(self) -> list[str]:
        return [one for one in self._found if not any(text in one for text in self._allowed)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._found.append(f"{message.text} at {message.location['url']}")

    def _error(self, error: WebError) -> None:
        self._found.append(str(error.error))


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Fails the test in which the browser complains."""
    complaints = Complaints()
    yield complaints
    assert complaints.found == []


@pytest.fixture
def network_fails(complaints: Complaints) -> None:
    """In this test requests may fail: it is about that."""
    complaints.allow(NETWORK)


@pytest_asyncio.fixture(loop_scope="session")
async def browse(visited: Browser, complaints: Complaints) -> AsyncIterator[Browse]:
    """Opens a page of a visitor of its own, with the options of a context."""
    contexts: list[BrowserContext] = []

    async def browse(**options: Any) -> Page:
        context = await visited.new_context(**options)
        contexts.append(context)
        complaints.watch(context)
        return await context.new_page()

    yield browse
    for context in contexts:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browse: Browse) -> Page:
    """A page of a new visitor."""
    return await browse()
