"""Each door on each server that people use: one small contract, over real connections."""

from __future__ import annotations

import http.client
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.apps.doors import DOORS
from tests.apps.process import App, Apps, events_of, wait_until

ROOT = Path(__file__).parent.parent
FORM = {"accept": "text/html,application/xhtml+xml"}
SERVERS = {
    "hypercorn": ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "60"),
    "uvicorn": ("uvicorn", "{app}", "--port", "{port}"),
    "granian": ("granian", "--interface", "asgi", "{app}", "--port", "{port}"),
}
STOP_S = 10.0  # 0.5 to 1 is usual; who waits for an open connection waits for a minute, or for ever
USUAL = {
    "starlette": "uvicorn",
    "fastapi": "uvicorn",
    "litestar": "granian",
    "django": "hypercorn",
    "plain": "granian",
}
"""Which pairs are always tried, beside all of Quart; the others take their turn more seldom."""


def pair(door: str, server: str) -> Any:
    """As a parameter. Only Quart's versions differ between the Pythons."""
    marks = [pytest.mark.xdist_group(f"{door}-{server}")]
    marks += [pytest.mark.once] if door != "quart" else []
    marks += [pytest.mark.slow] if USUAL.get(door, server) != server else []
    return pytest.param((door, server), id=f"{door}-{server}", marks=marks)


PAIRS = [pair(door, server) for door in DOORS for server in SERVERS]


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apps]:
    """The servers of these tests, all on one store."""
    with Apps(tmp_path_factory.mktemp("doors")) as apps:
        yield apps


def serve(apps: Apps, door: str, server: str) -> App:
    return apps.serve(*SERVERS[server], app="tests.apps.doors.served:app", cwd=ROOT, DOOR=door)


@pytest.fixture(scope="module", params=PAIRS)
def served(request: pytest.FixtureRequest, apps: Apps) -> Iterator[App]:
    """Each door on each server, for several tests."""
    app = serve(apps, *request.param)
    yield app
    app.kill()


@pytest.fixture
def app(served: App) -> App:
    """The same, visited by somebody who was never here."""
    served.http.cookies.clear()
    served.http.get("/").raise_for_status()
    return served


def start(app: App, task: str) -> dict[str, Any]:
    answer = app.http.post(f"/start/{task}")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == answer.json()["links"]["self"]
    return dict(answer.json())


def streams(app: App) -> int:
    return int(app.http.get("/streams").json()["open"])


def test_a_form_is_led_to_the_page_of_its_job(app: App) -> None:
    """303, and there is a page with the bar."""
    sent = app.http.post("/start/count", headers=FORM)
    page = app.http.get(sent.headers["location"], headers=FORM)

    assert sent.status_code == 303
    assert f'<headway-bar src="{sent.headers["location"]}"' in page.text


def test_a_client_asks_for_nothing_twice(app: App) -> None:
    """202, then 304 for what is known, and with patience the next change."""
    here = start(app, "long")["links"]["self"]
    app.moves(here.rpartition("/")[2])
    seen = app.http.get(here)
    app.http.post(f"{here}/cancel").raise_for_status()
    ended = app.ends(here.rpartition("/")[2])
    last = app.http.get(here)
    again = app.http.get(here, headers={"if-none-match": last.headers["etag"]})

    assert seen.headers["etag"] != last.headers["etag"]
    assert ended["state"] == "cancelled"
    assert (again.status_code, again.content) == (304, b"")


def test_a_long_poll_ends_with_the_change(app: App) -> None:
    """`Prefer: wait` is answered as soon as there is something new."""
    here = start(app, "long")["links"]["self"]
    tag = app.http.get(here).headers["etag"]

    told = app.http.get(here, headers={"if-none-match": tag, "prefer": "wait=20"})

    assert told.status_code == 200
    assert told.headers["preference-applied"] == "wait=20"


def test_a_stream_tells_the_story_to_its_end(app: App) -> None:
    """It ends with the job, is not packed or kept, and its place is free at once."""
    job = start(app, "count")
    with app.http.stream("GET", job["links"]["events"]) as stream:
        events = events_of(stream.iter_lines())

    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events[0] == "job"
    assert events[-1] == "end"
    assert app.http.get(job["links"]["self"]).json()["result"] == 5
    wait_until("it is over", lambda: streams(app) == 0, within_s=10)


def test_a_client_that_leaves_frees_its_stream(app: App) -> None:
    """A tab that is closed costs nothing any more, a moment later."""
    events = start(app, "long")["links"]["events"]
    with app.http.stream("GET", events) as stream:
        lines = stream.iter_lines()
        next(lines)
        wait_until("the stream is open", lambda: streams(app) == 1)

    wait_until("it is gone", lambda: streams(app) == 0, within_s=10)


def test_head_leaves_the_connection_in_order(app: App) -> None:
    """HEAD is answered without a body, opens no stream, and the connection goes on to serve."""
    job = start(app, "long")
    cookie = "; ".join(f"{name}={value}" for name, value in app.http.cookies.items())
    with closing(http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)) as connection:
        for path in (job["links"]["self"], job["links"]["events"], "/jobs/static/headway.js"):
            connection.request("HEAD", path, headers={"cookie": cookie})
            with connection.getresponse() as head:
                assert (head.status, head.read()) == (200, b"")
        socket = connection.sock
        connection.request("GET", "/streams")
        with connection.getresponse() as answer:
            told = answer.read()

        assert b'"open":0' in told.replace(b" ", b"")
        assert connection.sock is socket


@pytest.mark.parametrize("pair", PAIRS)
def test_a_server_stops_with_an_open_tab(apps: Apps, pair: tuple[str, str]) -> None:
    """On SIGTERM an open stream says goodbye, the job ends honestly, and the server is gone."""
    app = serve(apps, *pair)
    events = start(app, "long")["links"]["events"]
    with app.http.stream("GET", events) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line == "event: job")
        began_at = time.monotonic()

        app.send(signal.SIGTERM)

        assert events_of(lines)[-1] == "bye"
        app.process.wait(STOP_S - (time.monotonic() - began_at))
    print(f"{pair} took {time.monotonic() - began_at:.2f} s to stop")
    assert "Traceback" not in app.log
