"""When something between the job and its owner breaks, and when it is whole again."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from playwright.async_api import Page, Playwright

from tests.browser.conftest import ARGS, Browse, Complaints
from tests.browser.look import Asked, bar, says, shows
from tests.browser.proxy import holding_back
from tests.browser.serving import Site
from tests.conftest import OwnServer, Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

EVENTS = "**/jobs/events*"
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
CONNECTIONS = """
  window.connections = [];
  addEventListener("headway-connection", (event) => connections.push(event.detail.state));
"""


@pytest.mark.usefixtures("network_fails")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
async def test_bar_outlives_its_server(
    own_site: Site, page: Page, name: str, number: signal.Signals
) -> None:
    """A longer loss is shown, the last value stays; then all goes on by itself to a true end."""
    own_site.tell(name, total=4, to=2)
    await own_site.watch(page, await own_site.begin(page, name, again="yes"))
    await shows(bar(page), "running", "50%")
    lost_at = time.monotonic()
    own_site.end(number)
    await shows(bar(page), "reconnecting", "50%")
    await says(bar(page), "Reconnecting…")
    assert time.monotonic() - lost_at > 3

    own_site.tell(name, total=4, to=3)
    own_site.start()
    await says(bar(page), re.compile("Attempt 2 of 3"), "meta")
    await shows(bar(page), "running", "75%")
    own_site.tell(name, end=True)
    await shows(bar(page), "succeeded", "100%")


async def test_goodbye_of_the_server_is_not_seen(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """A stream that ends with "bye" is opened anew at once, and the bar says nothing of it."""
    await page.add_init_script(CONNECTIONS)
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    asked = Asked(page)
    await page.context.request.post(f"{site.url}/bye")
    await until(lambda: asked.streams and site.streams(), "the stream is open again", within_s=2)
    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")

    assert await page.evaluate("connections") == ["open"]


@pytest.mark.usefixtures("network_fails")
async def test_browser_without_a_network_says_so(site: Site, page: Page, name: str) -> None:
    """Offline is told from a server that is away, and over as soon as the network is back."""
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await page.context.set_offline(True)
    await shows(bar(page), "offline", "25%")
    await says(bar(page), "You are offline")

    await page.context.set_offline(False)
    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")


async def test_hidden_tab_lets_go_of_its_connection(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """After ten seconds out of sight it asks now and then; back in sight it streams again."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await until(lambda: site.streams() == 1, "the stream is open")
    await page.evaluate(HIDE, True)
    async with page.expect_response("**/jobs/?id=*"):
        await page.clock.fast_forward(11_000)
    await until(lambda: site.streams() == 0, "the stream is closed")
    site.tell(name, total=4, to=2)
    async with page.expect_response("**/jobs/?id=*"):
        await page.clock.fast_forward(15_000)

    await page.evaluate(HIDE, False)
    await shows(bar(page), "running", "50%")
    await until(lambda: site.streams() == 1, "the stream is open again")


async def test_way_back_shows_the_present_state(
    site: Site,
    playwright: Playwright,
    chromium_path: str,
    complaints: Complaints,
    name: str,
    until: Until,
) -> None:
    """A page that the browser had put aside has let go of its stream, and takes it up again."""
    browser = await playwright.chromium.launch(
        executable_path=chromium_path,
        args=ARGS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    try:
        page = await browser.new_page()
        complaints.watch(page.context)
        await page.add_init_script("onpageshow = (event) => (window.kept = event.persisted)")
        site.tell(name, total=4, to=1)
        await site.watch(page, await site.begin(page, name))
        await shows(bar(page), "running", "25%")
        await page.goto(site.url)
        await until(lambda: site.streams() == 0, "the stream is closed")
        site.tell(name, total=4, to=2)
        await page.go_back(wait_until="commit")
        await shows(bar(page), "running", "50%")

        assert await page.evaluate("window.kept")
    finally:
        await browser.close()


@pytest.mark.usefixtures("network_fails")
async def test_busy_server_is_asked_again_when_it_wants(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """A 503 with Retry-After is not asked again before, and then all is well."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    await page.route(EVENTS, lambda r: r.fulfill(status=503, headers={"Retry-After": "100"}))
    asked = Asked(page)
    async with page.expect_response(EVENTS):
        await site.watch(page, job_id)
    await page.clock.fast_forward(90_000)
    await shows(bar(page), "reconnecting")
    assert asked.streams == 1

    await page.unroute(EVENTS)
    await page.clock.fast_forward(15_000)
    await shows(bar(page), "running", "25%")
    assert asked.streams == 2


@pytest.mark.usefixtures("network_fails")
@pytest.mark.parametrize(
    ("status", "state", "text"),
    [
        (404, "gone", "No longer available"),
        (410, "gone", "No longer available"),
        (401, "forbidden", "You may not see this"),
        (403, "forbidden", "You may not see this"),
    ],
)
async def test_final_answer_is_believed(
    site: Site, page: Page, name: str, status: int, state: str, text: str
) -> None:
    """What is gone or forbidden is said so, and not asked for again."""
    await page.clock.install()
    job_id = await site.begin(page, name)
    await page.route(EVENTS, lambda route: route.fulfill(status=status))
    asked = Asked(page)
    await site.watch(page, job_id)
    await shows(bar(page), state)
    await says(bar(page), text)
    await page.clock.fast_forward(100_000)

    assert asked.all == ["GET /jobs/events"]


async def test_job_of_somebody_else_is_not_there(site: Site, browse: Browse, name: str) -> None:
    """A stranger's page learns nothing new of the job, and stops to ask."""
    owner, stranger = await browse(), await browse()
    job_id = await site.begin(owner, name)
    await site.watch(stranger, job_id)

    await shows(bar(stranger), "gone")


async def test_behind_a_proxy_that_holds_streams_back_it_asks(
    site: Site, page: Page, name: str
) -> None:
    """Where no byte of a stream arrives, long polls take over, and it still ends truthfully."""
    async with holding_back(site.url) as url:
        await page.clock.install()
        site.tell(name, total=4, to=1)
        job_id = await site.begin(page, name)
        async with page.expect_request(EVENTS):
            await page.goto(f"{url}/watch?id={job_id}")
        async with page.expect_request("**/jobs/?id=*") as polled:
            await page.clock.fast_forward(12_000)
        await shows(bar(page), "running", "25%")
        site.tell(name, total=4, to=3)
        await shows(bar(page), "running", "75%")
        site.tell(name, end=True)
        await shows(bar(page), "succeeded", "100%")

        assert (await polled.value).headers["prefer"] == "wait=25"


@pytest.mark.usefixtures("network_fails")
async def test_loss_of_the_store_is_not_taken_for_standstill(
    tmp_path: Path, own_server: OwnServer, page: Page, name: str
) -> None:
    """The server says that it is cut off; what is asked for meanwhile is refused in plain words."""
    with Site(tmp_path, HEADWAY_URL=own_server.url) as site:
        site.tell(name, total=4, to=2)
        await site.watch(page, await site.begin(page, name))
        await shows(bar(page), "running", "50%")
        own_server.stop()
        await shows(bar(page), "reconnecting", "50%")
        await page.get_by_role("button", name="Cancel").click()
        await says(bar(page), re.compile("did not work: The job store does not answer"))

        own_server.start()
        site.tell(name, total=4, to=3)
        await shows(bar(page), "running", "75%")
        site.tell(name, end=True)
        await shows(bar(page), "succeeded", "100%")
