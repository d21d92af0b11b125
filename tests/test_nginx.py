"""Behind nginx as it comes: a plain `proxy_pass`, with buffering on, as most people have it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.apps.process import DEADLINE_S, HERE, App, Apps, free_port, wait_until

ROOT = Path(__file__).parent.parent
FOLDERS = (os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", str(ROOT / ".nginx"))
BINARY = shutil.which("nginx", path=os.pathsep.join(FOLDERS))
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(BINARY is None, reason="no nginx is here; scripts/nginx gets one"),
]

SERVERS = {
    "uvicorn": ("uvicorn", "{app}", "--port", "{port}", "--log-level", "warning"),
    "hypercorn": ("hypercorn", "{app}", "-w", "0", "--bind", "127.0.0.1:{port}"),
}
APPS = {"quart": "proxied:quart_app", "asgi": "proxied:asgi_app"}
AT_ONCE_S = 1.0  # many times what it takes, and far below what buffering would cost
GZIP = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;"

CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/errors warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      {more}
    }}
  }}
}}
"""
ONE_DOT_ONE = 'proxy_http_version 1.1; proxy_set_header Connection "";'


class Event(NamedTuple):
    """One event, and when it came in."""

    name: str
    data: Any
    at: float

    @property
    def age_s(self) -> float:
        """How long it took from the store to here."""
        return self.at - datetime.fromisoformat(self.data["updated_at"]).timestamp()


class Proxied:
    """A server, the nginx before it, and a client of that."""

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S)

    def start(self, task: str) -> str:
        answer = self.http.post(f"/start/{task}")
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    @contextmanager
    def stream(self, job_id: str, **headers: str) -> Iterator[Iterator[Event]]:
        """The events of the job, as they come in."""
        with self.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
            assert response.status_code == 200
            yield events(response)

    def open(self) -> int:
        """How many streams the app has; asked past nginx."""
        return int(self.app.http.get("/streams").json()["open"])


def events(response: httpx.Response) -> Iterator[Event]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield Event(name, json.loads(line.removeprefix("data: ")), time.time())


Behind = Callable[..., Proxied]


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    """`behind(more, server=…, door=…, **environment)`: an app behind an nginx with *more* set."""
    running: list[subprocess.Popen[bytes]] = []
    with Apps(tmp_path) as apps, ExitStack() as clients:

        def make(
            more: str = "", *, server: str = "uvicorn", door: str = "asgi", **env: float
        ) -> Proxied:
            app = apps.serve(*SERVERS[server], app=APPS[door], cwd=HERE, **env)
            folder, port = tmp_path / f"nginx{len(running)}", free_port()
            folder.mkdir()
            text = CONFIG.format(folder=folder, port=port, upstream=app.port, more=more)
            # Workers of a master that is root would be somebody who may not enter this folder.
            config = folder / "conf"
            config.write_text(f"master_process off;\n{text}")
            command = [str(BINARY), "-p", str(folder), "-c", str(config), "-e", "stderr"]
            with (folder / "log").open("wb") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
            proxied = Proxied(app, port)
            clients.enter_context(proxied.http)
            wait_until("nginx answers", lambda: answers(proxied, running[-1], folder))
            return proxied

        yield make
        for process in running:
            process.terminate()
            process.wait(DEADLINE_S)


def answers(proxied: Proxied, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "log").read_text()
    try:
        return proxied.http.get("/streams").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("more", ["", ONE_DOT_ONE], ids=["http-1.0", "http-1.1"])
@pytest.mark.parametrize("door", APPS)
@pytest.mark.parametrize("server", SERVERS)
def test_events_pass_as_they_are_sent(behind: Behind, server: str, door: str, more: str) -> None:
    """The first bytes come at once, each event when it happens, and then the end."""
    proxied = behind(more, server=server, door=door)
    job_id = proxied.start("count")
    asked_at = time.time()

    with proxied.stream(job_id) as coming:
        first = next(coming)
        found = [first, *coming]

    jobs = [event for event in found if event.name == "job"]
    ages = sorted(event.age_s for event in jobs[1:])
    print(
        f"{server}, {door}: first event after {(first.at - asked_at) * 1000:.0f} ms, "
        f"{len(ages)} later ones after {ages[len(ages) // 2] * 1000:.0f} ms (median), "
        f"{ages[-1] * 1000:.0f} ms (most)"
    )
    # Held back, all would come at once, and the one in the middle would be half as old as the job.
    assert found[-1].at - first.at > AT_ONCE_S
    assert len(jobs) > 6
    assert ages[len(ages) // 2] < AT_ONCE_S
    assert jobs[-1].data["state"] == "succeeded"
    assert found[-1].name == "end"
    again = proxied.http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "end"})
    assert (again.status_code, again.content) == (204, b"")


def test_without_our_header_nginx_would_hold_events_back(behind: Behind) -> None:
    """The proof that the test above can fail: nginx, told to ignore the header, sends a burst."""
    proxied = behind(
        "proxy_ignore_headers X-Accel-Buffering;"
        "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
    )
    job_id = proxied.start("count")

    with proxied.stream(job_id) as coming:
        found = list(coming)

    ages = sorted(event.age_s for event in found[1:] if event.name == "job")
    assert ages[len(ages) // 2] > AT_ONCE_S


@pytest.mark.parametrize("server", SERVERS)
def test_events_pass_compressed(behind: Behind, server: str) -> None:
    """An nginx that compresses everything holds nothing back either."""
    proxied = behind(GZIP, server=server)
    job_id = proxied.start("count")

    with proxied.http.stream("GET", f"/jobs/{job_id}/events") as response:
        zipped = response.headers.get("content-encoding")
        found = list(events(response))

    print(f"content-encoding: {zipped}")
    assert zipped == "gzip"
    ages = sorted(event.age_s for event in found[1:] if event.name == "job")
    assert ages[len(ages) // 2] < AT_ONCE_S
    assert found[-1].name == "end"


@pytest.mark.parametrize("server", SERVERS)
def test_heartbeats_outlive_the_read_timeout(behind: Behind, server: str) -> None:
    """A job that reports nothing keeps its stream, since heartbeats come before nginx gives up."""
    proxied = behind("proxy_read_timeout 3s;", server=server, HEARTBEAT_S=0.4)

    with proxied.stream(proxied.start("wait")) as coming:
        began_at = time.time()
        for event in coming:
            if event.at - began_at > 5:
                break

    assert event.name == "hb"
    assert event.at - began_at > 5


def test_without_heartbeats_nginx_gives_up(behind: Behind) -> None:
    """The proof that the test above can fail: a stream that says nothing is cut off."""
    proxied = behind("proxy_read_timeout 1s;", HEARTBEAT_S=60)
    began_at = time.monotonic()

    with proxied.stream(proxied.start("wait")) as coming, pytest.raises(httpx.RemoteProtocolError):
        list(coming)

    assert time.monotonic() - began_at < DEADLINE_S / 2


@pytest.mark.parametrize("more", ["", ONE_DOT_ONE], ids=["http-1.0", "http-1.1"])
@pytest.mark.parametrize("door", APPS)
@pytest.mark.parametrize("server", SERVERS)
def test_client_that_leaves_is_noticed(behind: Behind, server: str, door: str, more: str) -> None:
    """A tab that is closed ends its stream in the app, long before the next heartbeat (15 s)."""
    proxied = behind(more, server=server, door=door)
    with proxied.stream(proxied.start("wait")) as coming:
        next(coming)
        assert proxied.open() == 1
    left_at = time.monotonic()

    wait_until("the stream is over in the app", lambda: proxied.open() == 0, within_s=10)
    print(f"{server}, {door}: noticed after {(time.monotonic() - left_at) * 1000:.0f} ms")


@pytest.mark.parametrize("server", SERVERS)
def test_long_poll_passes(behind: Behind, server: str) -> None:
    """`Prefer: wait` answers with the change, and with 304 when there was none."""
    proxied = behind("", server=server)
    job_id = proxied.start("wait")

    def tag() -> str:
        return str(proxied.http.get(f"/jobs/{job_id}").headers["etag"])

    def poll(tag: str, seconds: int) -> httpx.Response:
        asked = {"If-None-Match": tag, "Prefer": f"wait={seconds}"}
        return proxied.http.get(f"/jobs/{job_id}", headers=asked)

    def unchanged() -> httpx.Response | None:
        return answer if (answer := poll(tag(), 1)).status_code == 304 else None

    nothing = wait_until("nothing changes for a second", unchanged)
    with ThreadPoolExecutor() as beside:
        polling = beside.submit(poll, tag(), 25)
        proxied.app.http.post(f"/jobs/{job_id}/cancel")
        found = polling.result()

    assert nothing.elapsed.total_seconds() > 0.9
    assert found.status_code == 200
    assert found.elapsed.total_seconds() < DEADLINE_S / 2
    assert proxied.app.ends(job_id)["state"] == "cancelled"


@pytest.mark.parametrize("door", APPS)
@pytest.mark.parametrize("server", SERVERS)
def test_headers_say_what_proxies_need(behind: Behind, server: str, door: str) -> None:
    """Not to buffer, not to change; and nothing of the connection, which is the server's to say."""
    proxied = behind("", server=server, door=door)
    path = f"/jobs/{proxied.start('wait')}/events"

    direct = proxied.app.http.head(path).headers
    passed = proxied.http.head(path).headers

    assert direct["x-accel-buffering"] == "no"
    assert direct["content-type"] == passed["content-type"] == "text/event-stream; charset=utf-8"
    assert direct["cache-control"] == passed["cache-control"] == "no-store, no-transform"
    assert direct["x-content-type-options"] == "nosniff"
    assert not {"connection", "content-encoding"} & set(direct)
