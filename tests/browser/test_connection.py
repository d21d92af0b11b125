"""When something between the job and its owner breaks, and when it is whole again."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Browse
from tests.browser.look import SLOW_MS, Asked, bar, connected, says, shows
from tests.browser.proxy import holding_back
from tests.browser.serving import Site
from tests.conftest import OwnServer, Until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

EVENTS = "**/jobs/events*"
POLLS = "**/jobs/?id=*"
SLOTS = 4
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
    await page.add_init_script("Math.random = () => 0.5")  # of the pauses one may be 30 s else
    own_site.tell(name, total=4, to=2)
    await own_site.watch(page, await own_site.begin(page, name, again="yes"))
    await shows(bar(page), "running", "50%")
    await connected(bar(page))
    lost_at = time.monotonic()
    own_site.end(number)
    await shows(bar(page), "reconnecting", "50%")
    await says(bar(page), "Reconnecting…")
    assert time.monotonic() - lost_at > 3

    own_site.tell(name, total=4, to=3)
    own_site.start()
    await says(bar(page), re.compile("Attempt 2 of"), "meta")
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
    await connected(bar(page))
    asked = Asked(page)
    await page.context.request.post(f"{site.url}/bye")
    await until(lambda: asked.streams and site.streams(), "the stream is open again")
    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")

    assert await page.evaluate("connections") == ["open"]


@pytest.mark.usefixtures("network_fails")
async def test_browser_without_a_network_says_so(site: Site, page: Page, name: str) -> None:
    """Offline is told from a server that is away, and over as soon as the network is back."""
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await page.route(EVENTS, lambda route: route.abort())  # else one may slip through
    await page.context.set_offline(True)
    await shows(bar(page), "offline", "25%")
    await says(bar(page), "You are offline")

    await page.unroute(EVENTS)
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
    await connected(bar(page))
    await page.evaluate(HIDE, True)
    async with page.expect_response(POLLS):
        await page.clock.fast_forward(11_000)
    await until(lambda: site.streams() == 0, "the stream is closed")
    site.tell(name, total=4, to=2)
    async with page.expect_response(POLLS):
        await page.clock.fast_forward(15_000)

    await page.evaluate(HIDE, False)
    await shows(bar(page), "running", "50%")
    await until(lambda: site.streams() == 1, "the stream is open again")


@pytest.mark.whole_browser
async def test_way_back_shows_the_present_state(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """A page that the browser had put aside has let go of its stream, and takes it up again."""
    await page.add_init_script("onpageshow = (event) => (window.kept = event.persisted)")
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await shows(bar(page), "running", "25%")
    await connected(bar(page))
    await page.goto(site.url)
    await until(lambda: site.streams() == 0, "the stream is closed")
    site.tell(name, total=4, to=2)
    await page.go_back(wait_until="commit")
    await shows(bar(page), "running", "50%")

    assert await page.evaluate("window.kept")


@pytest.mark.usefixtures("network_fails")
@pytest.mark.parametrize("status", [429, 503])
async def test_refused_stream_is_replaced_by_polls(
    site: Site, page: Page, name: str, until: Until, status: int
) -> None:
    """Where there is no room for a stream, the bar is as live, and the stream is tried later."""
    await page.clock.install()
    await page.add_init_script(CONNECTIONS)
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    await page.route(EVENTS, lambda r: r.fulfill(status=status, headers={"Retry-After": "100"}))
    asked = Asked(page)
    async with page.expect_request(POLLS) as first, page.expect_response(POLLS):
        await site.watch(page, job_id)
        await page.clock.run_for(100)
    assert "prefer" in (await first.value).headers
    await connected(bar(page))
    await shows(bar(page), "running", "25%")
    await page.clock.fast_forward(10_000)
    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")
    assert asked.streams == 1
    assert "reconnecting" not in await page.evaluate("connections")

    await page.unroute(EVENTS)
    await page.clock.fast_forward(100_000)
    site.tell(name, total=4, to=3)
    await shows(bar(page), "running", "75%")
    await page.clock.fast_forward(2_000)
    await until(lambda: site.streams() == 1, "it streams")
    assert asked.streams == 2


@pytest.mark.usefixtures("network_fails")
async def test_busy_server_is_asked_again_when_it_wants(site: Site, page: Page, name: str) -> None:
    """A 503 with Retry-After is not asked again before, and then all is well."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    for url in (EVENTS, POLLS):
        await page.route(url, lambda r: r.fulfill(status=503, headers={"Retry-After": "100"}))
    asked = Asked(page)
    async with page.expect_response(POLLS):
        await site.watch(page, job_id)
        await page.clock.run_for(100)
    await page.clock.fast_forward(90_000)
    await shows(bar(page), "reconnecting")
    assert asked.all == ["GET /jobs/events", "GET /jobs/"]

    await page.unroute_all()
    await page.clock.fast_forward(15_000)
    await shows(bar(page), "running", "25%")


@pytest.mark.usefixtures("network_fails")
async def test_too_many_streams_of_one_visitor_are_no_loss(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """The real server refuses the eleventh stream: the page polls until there is room."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    cookies = {one["name"]: one["value"] for one in await page.context.cookies()}
    async with httpx.AsyncClient(base_url=site.url, cookies=cookies, timeout=30) as client:
        requests = [client.build_request("GET", f"/jobs/events?id={job_id}") for _ in range(10)]
        others = [await client.send(request, stream=True) for request in requests]
        assert [other.status_code for other in others] == [200] * 10
        await until(lambda: site.streams() == 10, "all are open")
        asked = Asked(page)
        async with page.expect_response(POLLS):
            await site.watch(page, job_id)
            await page.clock.run_for(100)
        assert asked.streams == 1
        await page.clock.fast_forward(2_000)
        site.tell(name, total=4, to=2)
        await shows(bar(page), "running", "50%")
    await until(lambda: site.streams() == 0, "the others are gone")
    await page.clock.fast_forward(10_000)
    site.tell(name, total=4, to=3)
    await shows(bar(page), "running", "75%")
    await page.clock.fast_forward(2_000)
    await until(lambda: site.streams() == 1, "it streams")


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
    site: Site, page: Page, name: str, until: Until
) -> None:
    """Where no byte of a stream arrives, long polls take over; minutes later it tries again."""
    async with holding_back(site.url) as proxy:
        await page.clock.install()
        site.tell(name, total=4, to=1)
        job_id = await site.begin(page, name)
        async with page.expect_request(EVENTS):
            await page.goto(f"{proxy.url}/watch?id={job_id}")
        async with page.expect_request(POLLS) as polled:
            await page.clock.fast_forward(12_000)
        await shows(bar(page), "running", "25%")
        site.tell(name, total=4, to=2)
        await shows(bar(page), "running", "50%")
        assert (await polled.value).headers["prefer"] == "wait=25"

        proxy.holds = False
        await until(lambda: site.streams() == 0, "the silent stream is given up")
        await page.clock.fast_forward(300_000)
        site.tell(name, total=4, to=3)
        await shows(bar(page), "running", "75%")
        await page.clock.fast_forward(2_000)
        await until(lambda: site.streams() == 1, "it streams")
        site.tell(name, end=True)
        await shows(bar(page), "succeeded", "100%")


async def test_after_a_sleep_the_connection_is_new(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """A clock that leaps means that the machine has slept: what was connected then is dead."""
    await page.clock.install()
    site.tell(name, total=4, to=1)
    await site.watch(page, await site.begin(page, name))
    await until(lambda: site.streams() == 1, "it streams")
    await page.clock.run_for(2_000)
    asked = Asked(page)
    async with page.expect_request(EVENTS):
        await page.clock.fast_forward(3_600_000)
        await page.clock.run_for(1_000)
    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")

    assert asked.all == ["GET /jobs/events"]
    await until(lambda: site.streams() == 1, "the old one is gone")


async def test_tab_opened_behind_another_holds_no_connection(
    site: Site, page: Page, name: str
) -> None:
    """A tab that nobody has seen yet asks now and then, from the start."""
    await page.add_init_script(f"({HIDE})(true)")
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    asked = Asked(page)
    async with page.expect_response(POLLS) as polled:
        await site.watch(page, job_id)
    assert "prefer" not in (await polled.value).request.headers
    assert asked.streams == 0

    await page.evaluate(HIDE, False)
    site.tell(name, total=4, to=2)
    await shows(bar(page), "running", "50%")
    assert asked.streams == 1


async def test_seventh_tab_still_loads(site: Site, page: Page, name: str, until: Until) -> None:
    """Six tabs in sight over HTTP/1.1 leave room for a seventh, and each of them is live."""
    site.tell(name, total=4, to=1)
    job_id = await site.begin(page, name)
    tabs = [page, *[await page.context.new_page() for _ in range(6)]]
    for tab in tabs:
        await site.watch(tab, job_id)
        await shows(bar(tab), "running", "25%")
    await until(lambda: site.streams() == SLOTS, "four stream")
    site.tell(name, total=4, to=2)
    for tab in tabs:
        await shows(bar(tab), "running", "50%")
    assert site.streams() == SLOTS

    for tab in tabs[:5]:
        await tab.close()
    await until(lambda: site.streams() == 2, "those that are left have taken their places")


async def test_page_of_sixty_bars_has_one_connection(
    site: Site, page: Page, name: str, until: Until
) -> None:
    """A stream has fifty jobs at most: the rest is polled, without a second connection."""
    names = [f"{name} {number}" for number in range(60)]
    first = await site.begin(page, names[0])  # names the visitor
    rest = await asyncio.gather(*[site.begin(page, one) for one in names[1:]])
    await site.watch(page, first, *rest)
    await until(lambda: site.streams() == 1, "it streams")
    for one in names:
        site.tell(one, total=4, to=1)
    for number in (0, 49, 50, 59):
        await shows(bar(page, number), "running", "25%")
    assert site.streams() == 1

    for one in names:
        site.tell(one, end=True)
    ended = page.locator("headway-bar[data-state=succeeded]")
    await expect(ended).to_have_count(60, timeout=SLOW_MS)
    await until(lambda: site.streams() == 0, "it is over")


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
