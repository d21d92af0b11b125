"""The example, served as its first lines say and visited as by a browser."""

from __future__ import annotations

import asyncio
import importlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from quart.typing import TestClientProtocol as Client

from tests.apps.dice import loaded
from tests.apps.process import App, Apps, free_port, wait_until
from tests.conftest import REDIS, Until

FOLDER = Path(__file__).parent.parent / "examples" / "AsyncProgressBar"
FORM = '<form method="post" action="/start_work/">'
QUART_RUN = ("quart", "run", "--port", "{port}")
KEYS = {"state", "processed", "length_of_work", "percent_complete", "hint"}
BUSY = "Please wait for current work to finish."
LINK = '<a href="/progress/">'


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """The processes of this test."""
    with Apps(tmp_path) as apps:
        yield apps


def serve(apps: Apps, **settings: str) -> App:
    return apps.serve(*QUART_RUN, app="progress_bar:app", cwd=FOLDER, **settings)


def status(app: App) -> dict[str, Any]:
    # A visitor without cookies, as every one of these.
    return dict(httpx.get(f"{app.http.base_url}/check_status/").json())


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """The app in this process, with dice that make its steps short."""
    monkeypatch.setenv("HEADWAY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("HEADWAY_URL", raising=False)
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(random, "random", lambda: 0.02)
    module = importlib.reload(importlib.import_module("progress_bar"))
    async with module.app.test_app() as app:
        yield app.test_client()


async def status_of(client: Client) -> dict[str, Any]:
    return dict(await (await client.get("/check_status/")).get_json())


# ── in this process ───────────────────────────────────────────────────────────────────────────


def test_example_is_short() -> None:
    """It fits on a page: under 80 lines."""
    assert len((FOLDER / "progress_bar.py").read_text().splitlines()) < 80


async def test_get_starts_nothing(client: Client) -> None:
    """The pages offer the button, and looking at them changes nothing."""
    for path in ("/", "/start_work/"):
        page = await client.get(path)
        assert (page.status_code, FORM in await page.get_data(as_text=True)) == (200, True)

    assert await status_of(client) == {
        "state": "ready",
        "processed": 0,
        "length_of_work": 25,
        "percent_complete": 0,
        "hint": "refresh me.",
    }


async def test_post_starts_and_leads_to_the_bar(client: Client, until: Until) -> None:
    """The button starts the work and leads to its bar, which says "Done!" at the end."""
    started = await client.post("/start_work/")
    bar = await (await client.get("/progress/")).get_data(as_text=True)

    async def ready() -> bool:
        return bool((await status_of(client))["state"] == "ready")

    await until(ready, "the work is done")
    done = await (await client.get("/progress/")).get_data(as_text=True)

    assert (started.status_code, started.headers["location"]) == (303, "/progress/")
    assert "<headway-bar" in bar
    assert "Done!" in done


async def test_second_start_has_to_wait(client: Client, until: Until) -> None:
    """While work runs a second start is refused, with words and a link; afterwards it may."""
    await client.post("/start_work/")

    second = await client.post("/start_work/")
    text = await second.get_data(as_text=True)

    async def again() -> bool:
        return (await client.post("/start_work/")).status_code == 303

    assert (second.status_code, BUSY in text, LINK in text) == (409, True, True)
    assert await until(again, "it may start again")


async def test_eight_starts_run_one_job(client: Client, until: Until) -> None:
    """However many press the button at once, one job runs, and one of them has started it."""
    answers = await asyncio.gather(*(client.post("/start_work/") for _ in range(8)))
    headway = importlib.import_module("progress_bar").headway
    jobs = await headway.list(owner="*")

    assert Counter(answer.status_code for answer in answers) == {303: 1, 409: 7}
    assert len(jobs) == 1


# ── as it is run ──────────────────────────────────────────────────────────────────────────────


def watch(app: App) -> list[dict[str, Any]]:
    """Every different status until the work is done."""
    seen = [status(app)]

    def ready() -> bool:
        if (now := status(app)) != seen[-1]:
            seen.append(now)
        return bool(now["state"] == "ready")

    wait_until("the work is done", ready, within_s=40)
    return seen


def test_whole_way(apps: Apps, tmp_path: Path) -> None:
    """From the button to the end the status tells the truth, and the percents never fall."""
    app = serve(apps, **loaded(tmp_path / "dice", 0.5))
    with ThreadPoolExecutor(8) as pool:
        url = f"{app.http.base_url}/start_work/"
        answers = list(pool.map(lambda _: httpx.post(url).status_code, range(8)))

    seen = watch(app)
    running, (last,) = seen[:-1], seen[-1:]
    percents = [one["percent_complete"] for one in running]

    assert Counter(answers) == {303: 1, 409: 7}
    assert {frozenset(one) for one in seen} == {frozenset(KEYS)}
    assert {(one["state"], one["length_of_work"]) for one in running} == {("running", 25)}
    assert percents == sorted(percents)
    assert percents[-1] < 100
    assert [one["processed"] for one in running] == sorted(one["processed"] for one in running)
    assert len(running) > 20
    assert (last["state"], last["processed"], last["percent_complete"]) == ("ready", 25, 100)
    assert "Done!" in httpx.get(f"{app.http.base_url}/progress/").text


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """A Redis that listens at a port, if this machine has one."""
    if REDIS is None:
        pytest.skip("there is no redis-server on this machine")
    port = free_port()
    command = [REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with (tmp_path / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, start_new_session=True)
    yield port
    server.kill()
    server.wait(10)


def test_example_on_redis(apps: Apps, redis_port: int) -> None:
    """With HEADWAY_URL it works on a Redis, starts no store of its own, and two share the work."""
    first, second = (serve(apps, HEADWAY_URL=f"redis://127.0.0.1:{redis_port}") for _ in range(2))

    started = first.http.post("/start_work/")
    refused = second.http.post("/start_work/")
    wait_until("the other sees it move", lambda: status(second)["processed"] > 0)

    assert (started.status_code, refused.status_code) == (303, 409)
    assert apps.store_pid == 0


def test_killed_in_the_middle(apps: Apps) -> None:
    """After a kill and a restart it says what became of the work, and new work may start."""
    first = serve(apps)
    first.http.post("/start_work/")
    wait_until("it moves", lambda: status(first)["processed"] > 0)
    first.send(signal.SIGKILL)
    first.process.wait(10)
    second = serve(apps)
    began_at = time.monotonic()

    seen = watch(second)

    assert time.monotonic() - began_at < 15
    assert {one["state"] for one in seen[:-1]} == {"running"}
    assert seen[-1]["state"] == "ready"
    assert 0 < seen[-1]["processed"] < 25
    assert 0 < seen[-1]["percent_complete"] < 100
    assert second.http.post("/start_work/").status_code == 303
