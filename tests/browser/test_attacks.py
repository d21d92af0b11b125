"""Attacks that only a browser can show: scripts in texts, other sites, shared links."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, expect

from tests.apps.process import App, Apps
from tests.browser.conftest import Browse, Complaints
from tests.browser.evil import Evil
from tests.browser.look import Asked, bar, part, shows
from tests.conftest import Until
from tests.test_servers import HYPERCORN

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HERE: Final = Path(__file__).parent
SCRIPT: Final = "window.pwned=(window.pwned||0)+1"
SCRIPTS: Final = {
    "element": f"<script>{SCRIPT}</script>",
    "handler": f'<img src=x onerror="{SCRIPT}"><svg onload={SCRIPT}>',
    "end": f"</script></title></headway-bar><script>{SCRIPT}</script><!--",
    "attribute": f'" onmouseover="{SCRIPT}" autofocus onfocus=\'{SCRIPT}\' x="',
    "frame": f'<iframe srcdoc="<script>parent.{SCRIPT}</script>"></iframe>',
    "url": f"javascript:{SCRIPT}",
    "event": f"x\n\nevent: job\ndata: <script>{SCRIPT}</script>\r\r",
}
FOREIGN: Final = "img, iframe, [onload], [onerror], [onfocus], [onmouseover]"


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apps]:
    """The servers of these tests, on one store."""
    with Apps(tmp_path_factory.mktemp("target")) as apps:
        yield apps


@pytest.fixture(scope="module")
def target(apps: Apps) -> App:
    """The app with all that it ships."""
    return serve(apps)


@pytest.fixture(scope="module")
def bare(apps: Apps) -> App:
    """The same without any policy for contents."""
    return serve(apps, BARE="yes")


@pytest.fixture(scope="module")
def evil() -> Iterator[Evil]:
    """The other site."""
    with Evil() as evil:
        yield evil


def serve(apps: Apps, **settings: Any) -> App:
    return apps.serve(*HYPERCORN, "-w", "0", app="target:app", cwd=HERE, **settings)


def here(app: App, path: str = "/") -> str:
    return f"http://127.0.0.1:{app.port}{path}"


async def start(page: Page, app: App, **form: str | float | bool) -> str:
    """Start a job as the visitor of *page*."""
    answer = await page.context.request.post(
        here(app, "/start"), form=form, headers={"Accept": "application/json"}
    )
    assert answer.status == 202, await answer.text()
    return str((await answer.json())["id"])


async def status(page: Page, app: App, job_id: str) -> dict[str, Any]:
    answer = await page.context.request.get(here(app, f"/jobs/{job_id}"))
    return dict(await answer.json()) if answer.ok else {"status": answer.status}


# ── scripts in texts ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("policy", "ends"),
    [
        ("shipped", "running"),
        ("none", "succeeded"),
        pytest.param("none", "failed", marks=pytest.mark.slow),
        pytest.param("shipped", "failed", marks=pytest.mark.slow),
        pytest.param("shipped", "succeeded", marks=pytest.mark.slow),
        pytest.param("none", "running", marks=pytest.mark.slow),
    ],
)
async def test_no_text_is_a_script(
    target: App, bare: App, page: Page, policy: str, ends: str
) -> None:
    """In title, note, unit, stage, log, error, result and label, with and without a policy."""
    app = target if policy == "shipped" else bare
    for name, text in SCRIPTS.items():
        job_id = await start(page, app, text=text, ends=ends)
        label = page.locator("headway-bar").first
        for path in (f"/jobs/{job_id}", "/jobs", f"/watch?id={job_id}"):
            await page.goto(here(app, path))
            await shows(label, ends)
            assert await page.evaluate("window.pwned") is None, (name, path)
            assert await page.locator(FOREIGN).count() == 0, (name, path)
        await page.goto(here(app, "/watch?id=" + job_id), referer=here(app))
        await page.evaluate("label => document.querySelector('headway-bar').label = label", text)
        await page.locator("headway-bar").evaluate(
            "(bar, text) => bar.setAttribute('label', text)", text
        )
        await expect(part(bar(page), "label")).to_have_text(
            " ".join(text.split()), use_inner_text=False
        )
        await press_all(page)

        assert await page.evaluate("window.pwned") is None, name
        assert await page.locator(FOREIGN).count() == 0, name


async def press_all(page: Page) -> None:
    """Touch everything that a mouse can touch, links included, without leaving."""
    await page.evaluate("addEventListener('click', (event) => event.preventDefault())")
    for one in await page.locator("headway-bar").locator("a, button, summary, [title]").all():
        if await one.is_visible():
            await one.hover()
    for link in await page.locator("headway-bar").locator("a").all():
        if await link.is_visible():
            assert urlsplit(str(await link.get_attribute("href"))).scheme in {"", "http", "https"}
            await link.click()


async def test_no_text_is_a_script_without_javascript(target: App, browse: Browse) -> None:
    """What stands in the page for those without JavaScript is text, too."""
    with_scripts = await browse()
    for name, text in SCRIPTS.items():
        job_id = await start(with_scripts, target, text=text, ends="failed")
        await shows_at(with_scripts, here(target, f"/jobs/{job_id}"), "failed")
        page = await with_scripts.context.browser.new_page(  # type: ignore[union-attr]
            java_script_enabled=False, storage_state=await with_scripts.context.storage_state()
        )
        try:
            await page.goto(here(target, f"/jobs/{job_id}"))
            flat = " ".join(text.split())
            await expect(page.locator("h1")).to_have_text(flat)
            await expect(page.locator("headway-bar > strong")).to_have_text(flat)
            assert await page.locator(FOREIGN).count() == 0, name
        finally:
            await page.context.close()


async def shows_at(page: Page, url: str, state: str) -> None:
    await page.goto(url)
    await shows(bar(page), state)


# ── other sites ───────────────────────────────────────────────────────────────────────────────

HOSTS: Final = {"another port": "127.0.0.1", "another site": "localhost"}
FIRE: Final = """
  const said = {};
  const note = (name, what) => (said[name] = what);
  const ask = (name, path, init) =>
    fetch(TARGET + path, { credentials: "include", ...init })
      .then((answer) => note(name, answer.type + " " + answer.status), () => note(name, "refused"));
  const load = (name, tag, attribute, path) =>
    new Promise((done) => {
      const one = document.createElement(tag);
      one.onload = () => done(note(name, "loaded"));
      one.onerror = () => done(note(name, "error"));
      one[attribute] = TARGET + path;
      document.body.append(one);
    });
  const listen = (name, path) =>
    new Promise((done) => {
      const source = new EventSource(TARGET + path, { withCredentials: true });
      source.onopen = () => done(note(name, "open"));
      source.onerror = () => (source.close(), done(note(name, "error")));
    });
  window.fire = async () => {
    const post = { method: "POST" };
    await ask("cancel", `/jobs/${JOB}/cancel`, post);
    await ask("cancel no-cors", `/jobs/${JOB}/cancel`, { ...post, mode: "no-cors" });
    await ask("cancel as json", `/jobs/${JOB}/cancel`, { ...post, headers: { Prefer: "wait=1" } });
    await ask("retry no-cors", `/jobs/${JOB}/retry`, { ...post, mode: "no-cors" });
    await ask("forget", `/jobs/${JOB}`, { method: "DELETE" });
    await ask("status", `/jobs/${JOB}`, {});
    await ask("status with share", `/jobs/${JOB}`, { headers: { Authorization: "Bearer x" } });
    await ask("stream no-cors", `/jobs/${JOB}/events`, { mode: "no-cors" });
    for (let n = 0; n < 8; n++)
      await ask("streams no-cors", `/jobs/events?id=${JOB}&n=${n}`, { mode: "no-cors" });
    await listen("event source", `/jobs/${JOB}/events`);
    await load("cancel by image", "img", "src", `/jobs/${JOB}/cancel`);
    await load("status as script", "script", "src", `/jobs/${JOB}`);
    await load("element as script", "script", "src", "/jobs/static/headway.js");
    return said;
  };
"""


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_another_site_reaches_nothing(
    target: App, evil: Evil, page: Page, complaints: Complaints, host: str, until: Until
) -> None:
    """By fetch with and without CORS, EventSource, image, script: nothing changes or is told."""
    complaints.allow("")  # the browser complains of each of these
    await page.goto(here(target))
    job_id = await start(page, target)
    script = FIRE.replace("TARGET", json.dumps(here(target, ""))).replace("${JOB}", job_id)
    evil.serve("/", f"<script>{script}</script>")
    await page.goto(evil.url(host))
    said = await page.evaluate("fire()")

    assert said == {
        "cancel": "refused",
        "cancel no-cors": "refused",
        "cancel as json": "refused",
        "retry no-cors": "refused",
        "forget": "refused",
        "status": "refused",
        "status with share": "refused",
        "stream no-cors": "refused",
        "streams no-cors": "refused",
        "event source": "error",
        "cancel by image": "error",
        "status as script": "error",
        "element as script": "error",
    }
    seen = await status(page, target, job_id)
    assert (seen["state"], seen["cancel_requested"]) == ("running", False)
    await until(lambda: target.http.get("/streams").json() == {"open": 0}, "no stream is open")


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
@pytest.mark.parametrize("act", ["cancel", "retry"])
async def test_another_sites_form_changes_nothing(
    target: App, evil: Evil, page: Page, complaints: Complaints, host: str, act: str
) -> None:
    """A form that a page of another site sends by itself is refused, and says why."""
    complaints.allow("403")
    await page.goto(here(target))
    job_id = await start(page, target)
    action = here(target, f"/jobs/{job_id}/{act}")
    form = f'<form method="post" action="{action}"></form>'
    evil.serve("/", f"{form}<script>document.forms[0].submit()</script>")
    async with page.expect_response(action) as answered:
        await page.goto(evil.url(host))

    answer = await answered.value
    assert answer.status == 403
    assert "comes from another site" in await answer.text()
    seen = await status(page, target, job_id)
    assert (seen["state"], seen["cancel_requested"]) == ("running", False)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/JOB", "/jobs/static/headway.js", "/jobs/none"])
async def test_nothing_is_shown_in_a_frame(
    target: App, evil: Evil, page: Page, complaints: Complaints, host: str, path: str
) -> None:
    """No page, document or file of ours can be framed, and so none can be clicked unseen."""
    complaints.allow("")
    await page.goto(here(target))
    url = here(target, path.replace("JOB", await start(page, target)))
    evil.serve("/", f'<iframe src="{url}" onload="window.framed = 1"></iframe>')
    await page.goto(evil.url(host))
    await page.wait_for_function("window.framed")

    assert page.frames[1].url.startswith("chrome-error:")


async def test_a_listed_origin_may_read_follow_and_cancel(
    apps: Apps, evil: Evil, page: Page, until: Until
) -> None:
    """Its page reads the status, follows the stream by the element, and cancels."""
    origin = evil.url("127.0.0.1", "")
    app = serve(apps, ORIGINS=origin)
    await page.goto(here(app))
    job_id = await start(page, app)
    job = here(app, f"/jobs/{job_id}")
    module = here(app, "/jobs/static/headway.js")
    script = (
        f'import {{ JobWatcher }} from "{module}";'
        "JobWatcher.fetch = (url, init) => fetch(url, { ...init, credentials: 'include' });"
        f"document.body.innerHTML = '<headway-bar src=\"{job}\"></headway-bar>';"
    )
    evil.serve("/", f'<script type="module">{script}</script>')
    await page.goto(f"{origin}/")
    await shows(bar(page), "running")
    app.http.post(f"/step/{job_id}")
    await shows(bar(page), "running", "25%")
    await page.get_by_role("button", name="Cancel").click()

    await shows(bar(page), "cancelled")


# ── shares ────────────────────────────────────────────────────────────────────────────────────


async def test_a_shared_link_shows_the_job_and_hides_its_token(
    target: App, browse: Browse, until: Until
) -> None:
    """A stranger follows the job live; no script, address or referrer ever has the token."""
    owner, stranger = await browse(), await browse()
    await owner.goto(here(target))
    job_id = await start(owner, target)
    link = target.http.post(f"/share/{job_id}", params={"seconds": 600}).text
    token = link.partition("=")[2]
    sent: list[str] = []
    stranger.on(
        "request", lambda request: sent.append(f"{request.url} {request.headers.get('referer')}")
    )
    await stranger.goto(here(target, link))
    await shows(bar(stranger), "running")
    target.http.post(f"/step/{job_id}")
    await shows(bar(stranger), "running", "25%")

    assert stranger.url == here(target, f"/jobs/{job_id}")
    assert [one for one in sent if token in one] == [f"{here(target, link)} None"]
    assert await stranger.evaluate("document.cookie") == ""
    assert token not in await stranger.content()
    assert await stranger.evaluate("document.referrer") == ""
    await expect(stranger.get_by_role("button", name="Cancel")).to_have_count(0)
    await stranger.goto(here(target, "/jobs"))
    await expect(stranger.locator("headway-bar[src]")).to_have_count(0)


async def test_a_shared_link_may_cancel(target: App, browse: Browse) -> None:
    """With the right to cancel there is the button, and it works."""
    owner, stranger = await browse(), await browse()
    await owner.goto(here(target))
    job_id = await start(owner, target)
    link = target.http.post(f"/share/{job_id}", params={"seconds": 600, "cancel": ""}).text
    await stranger.goto(here(target, link))
    await shows(bar(stranger), "running")
    await stranger.get_by_role("button", name="Cancel").click()

    await shows(bar(stranger), "cancelled")


@pytest.mark.usefixtures("network_fails")
async def test_a_shared_link_that_is_over_shows_nothing_more(target: App, browse: Browse) -> None:
    """When the share ends, the open page learns nothing more, and says so."""
    owner, stranger = await browse(), await browse()
    await owner.goto(here(target))
    job_id = await start(owner, target)
    await stranger.goto(
        here(target, target.http.post(f"/share/{job_id}", params={"seconds": 6}).text)
    )
    await shows(bar(stranger), "running")

    await shows(bar(stranger), "gone")


# ── limits ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("network_fails")
@pytest.mark.parametrize("limit", ["PER_OWNER", "PER_PROCESS"])
async def test_where_streams_are_refused_the_bar_goes_on_by_polling(
    apps: Apps, browse: Browse, until: Until, limit: str
) -> None:
    """A tab that gets no stream, by 429 or 503, shows every step all the same, and the end."""
    app = serve(apps, **{limit: 1})
    first = await browse()
    await first.goto(here(app))
    job_id = await start(first, app)
    await first.goto(here(app, f"/jobs/{job_id}"))
    await shows(bar(first), "running")
    await until(lambda: app.http.get("/streams").json() == {"open": 1}, "the first tab streams")
    second = await first.context.new_page()
    asked, refused = Asked(second), []
    second.on("response", lambda answer: refused.append(answer.status))
    await second.goto(here(app, f"/jobs/{job_id}"))
    await until(lambda: {429, 503} & set(refused), "the second tab is refused")

    for percent in ("25%", "50%", "75%"):
        app.http.post(f"/step/{job_id}")
        await shows(bar(first), "running", percent)
        await shows(bar(second), "running", percent)
    assert (429 if limit == "PER_OWNER" else 503) in refused
    assert asked.streams <= 3
    await second.get_by_role("button", name="Cancel").click()
    await shows(bar(second), "cancelled")
    await shows(bar(first), "cancelled")
