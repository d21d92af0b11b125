"""The servers that people use: each stops with open tabs, and none is held up by a stream."""

from __future__ import annotations

import http.client
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.apps.process import HERE, App, Apps, alive, events_of, wait_until

HYPERCORN = ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "60")
UVICORN = ("uvicorn", "{app}", "--port", "{port}")
GRANIAN = ("granian", "--interface", "asgi", "{app}", "--port", "{port}")
SERVERS = {
    "hypercorn": HYPERCORN,
    "hypercorn-0": (*HYPERCORN, "-w", "0"),
    "hypercorn-2": (*HYPERCORN, "-w", "2"),
    "uvicorn": UVICORN,
    "uvicorn-2": (*UVICORN, "--workers", "2"),
    "granian": GRANIAN,
    "quart": ("quart", "run", "--port", "{port}"),
}
WORKERS = {
    "hypercorn": (*HYPERCORN, "-w", "3"),
    "uvicorn": (*UVICORN, "--workers", "3"),
    "granian": (*GRANIAN, "--workers", "3"),
}
READY = {
    "hypercorn": "Running on",
    "uvicorn": "Application startup complete",
    "granian": "Started worker",
}
RELOADERS = {
    "quart": ("quart", "run", "--reload", "--port", "{port}"),
    "app.run": ("edited", "{port}"),
    "uvicorn": (*UVICORN, "--reload"),
    "hypercorn": (*HYPERCORN, "--reload"),
}
EDITED = """
import sys

from works import app, note_down


@app.before_serving
async def up() -> None:
    note_down("up")


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), debug=True)
"""
USUAL = {"hypercorn", "uvicorn", "quart"}
"""What the others do is the same on each Python and with each Quart."""
STOP_S = 10.0  # 0.5 to 1 is usual; who waits for an open connection waits for a minute, or for ever
RESUMED_S = 6.0  # from the start of a process to the moment when jobs run again; 0.2 s is usual


def on_one_python(*names: str) -> list[Any]:
    """As parameters; those that are not USUAL for the first Python only."""
    return [pytest.param(name, marks=() if name in USUAL else pytest.mark.once) for name in names]


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """The servers of this test, with an embedded store of their own."""
    with Apps(tmp_path) as apps:
        yield apps


@pytest.fixture(params=on_one_python("quart", "uvicorn", "granian"))
def app(request: pytest.FixtureRequest, apps: Apps) -> App:
    """One process of each kind of server."""
    return apps.serve(*SERVERS[request.param])


def streams(app: App) -> int:
    return int(app.http.get("/streams").json()["open"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
@pytest.mark.parametrize("server", on_one_python(*SERVERS))
def test_server_stops_with_an_open_tab(apps: Apps, server: str, number: signal.Signals) -> None:
    """With an open stream, an idle connection and a running job, it ends at once and in order."""
    app = apps.serve(*SERVERS[server], DRAIN_S=0.5)
    job_id = app.start("once")
    with (
        closing(http.client.HTTPConnection("127.0.0.1", app.port)) as idle,
        app.http.stream("GET", f"/jobs/{job_id}/events") as stream,
    ):
        idle.request("GET", "/jobs")
        idle.getresponse().read()
        lines = stream.iter_lines()
        next(line for line in lines if line == "event: job")
        began_at = time.monotonic()

        app.send(number)

        assert events_of(lines)[-1] == "bye"
        app.process.wait(STOP_S - (time.monotonic() - began_at))
    print(f"{server} took {time.monotonic() - began_at:.2f} s to stop")
    assert "Traceback" not in app.log
    assert not alive(apps.store_pid)


@pytest.mark.parametrize("reloader", RELOADERS)
def test_reloader_takes_the_jobs_along(apps: Apps, reloader: str) -> None:
    """A source file is touched: the restarted process goes on with all that may go on."""
    folder = apps.folder / "source"
    folder.mkdir()
    shutil.copy(HERE / "works.py", folder)
    edited = folder / "edited.py"
    edited.write_text(EDITED)
    command = RELOADERS[reloader]
    app = apps.serve(*command, app="edited:app", cwd=folder, CONCURRENCY=2, DRAIN_S=0.5)
    failing, resumed = app.start("once", "failing"), app.start("resume", "resumed", seconds=5)
    waiting = [app.start("once", f"waiting{n}", seconds=0) for n in range(3)]
    app.moves(failing)
    app.moves(resumed)
    touched_at = time.monotonic()

    edited.touch()

    wait_until("it is up again", lambda: apps.lines().count("up") == 2, within_s=30)
    up_at = time.monotonic()
    attempt = "start resumed 2 "
    wait_until("it goes on", lambda: any(line.startswith(attempt) for line in apps.lines()))
    print(
        f"{reloader}: touched to up {up_at - touched_at:.2f} s, to running again "
        f"{time.monotonic() - up_at:.2f} s"
    )
    assert time.monotonic() - up_at < RESUMED_S
    app.await_answer()
    assert app.ends(resumed)["result"] == 250
    steps = Counter(line.split()[3] for line in apps.lines() if line.startswith("step "))
    assert len(steps) == 250
    assert steps.total() <= 251, "what was under way is done again, and nothing else"
    assert app.job(failing)["error"]["code"] == "interrupted"
    assert [(job := app.ends(i))["state"] + str(job["attempt"]) for i in waiting] == [
        "succeeded1"
    ] * 3
    starts = Counter(line.split()[1] for line in apps.lines() if line.startswith("start "))
    assert starts == {"failing": 1, "resumed": 2, "waiting0": 1, "waiting1": 1, "waiting2": 1}


@pytest.mark.parametrize("server", on_one_python("hypercorn", "uvicorn-2", "granian"))
def test_process_task_runs_in_every_worker(apps: Apps, server: str) -> None:
    """A worker may have children, also where the server has declared it to be "daemonic"."""
    app = apps.serve(*SERVERS[server])

    ended = app.ends(app.start("child", seconds=0.1), within_s=30)

    assert (ended["state"], ended["error"]) == ("succeeded", None)


@pytest.mark.parametrize("server", on_one_python(*WORKERS))
def test_every_worker_drains(apps: Apps, server: str) -> None:
    """A server with several processes lets each of them end its jobs honestly."""
    app = apps.serve(*WORKERS[server])
    # A signal that comes while a worker is still starting gets lost in granian.
    wait_until("all workers are up", lambda: app.log.count(READY[server]) == 3)
    ids = [app.start("once", str(number)) for number in range(8)]
    for job_id in ids:
        app.reaches(job_id, "running")

    app.send(signal.SIGTERM)
    app.process.wait(STOP_S)
    after = apps.serve()

    errors = {(job := after.job(job_id))["state"]: job["error"]["code"] for job_id in ids}
    assert errors == {"failed": "interrupted"}


def test_server_stops_after_its_last_request(apps: Apps) -> None:
    """A server that ends itself after so many requests is not kept alive by an open stream."""
    app = apps.serve(*UVICORN, "--limit-max-requests", "20")
    with app.http.stream("GET", f"/jobs/{app.start('once')}/events") as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line == "event: job")

        with suppress(httpx.TransportError):  # from the 18th on it may be gone
            for _ in range(20):
                app.http.get("/streams")

        assert events_of(lines)[-1] == "bye"
    app.process.wait(STOP_S)


def test_head_leaves_the_connection_in_order(app: App) -> None:
    """HEAD of a stream is answered at once, and the connection serves what comes next."""
    path = f"/jobs/{app.start('once')}/events"
    with closing(http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)) as connection:
        connection.request("HEAD", path)
        with connection.getresponse() as head:
            body = head.read()
        socket = connection.sock
        connection.request("GET", "/streams")
        with connection.getresponse() as answer:
            told = answer.read()

        assert (head.status, body, head.getheader("content-type")) == (
            200,
            b"",
            "text/event-stream; charset=utf-8",
        )
        assert b'"open":0' in told.replace(b" ", b"")
        assert connection.sock is socket


def test_client_that_leaves_frees_its_stream(app: App) -> None:
    """A tab that is closed costs nothing any more, a moment later."""
    path = f"/jobs/{app.start('once')}/events"
    with app.http.stream("GET", path) as stream:
        lines = stream.iter_lines()
        next(lines)
        wait_until("the stream is open", lambda: streams(app) == 1)

    wait_until("it is gone", lambda: streams(app) == 0)


def test_stream_outlives_the_response_timeout(app: App) -> None:
    """Quart's limit for responses, one second in this app, does not cut a stream off."""
    began_at = time.monotonic()
    path = f"/jobs/{app.start('count', seconds=2.5)}/events"

    with app.http.stream("GET", path) as stream:
        events = events_of(stream.iter_lines())

    assert events[-1] == "end"
    assert time.monotonic() - began_at > 2
