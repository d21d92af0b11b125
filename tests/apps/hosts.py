"""One app over several hosts: who serves it, its workers, the store and the broker.

The stores and the web server have a unix socket beside their address. Tests look in there, whatever
is cut off from what.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import httpx
import redis

from headway.job import PARTITIONS
from headway.keys import Keys
from headway.server import _carried_binary
from headway.settings import PREFIX
from tests.apps.process import DEADLINE_S, HERE, PYTHON, App, wait_until
from tests.namespaces import Network

__all__ = ["LEASE_S", "Event", "Site", "Tab"]

LEASE_S: Final = 2.0
PASSWORD: Final = "the-password-of-a-test"
KEYS: Final = Keys(PREFIX, PARTITIONS)
WORK: Final = ("headway", "worker", "works:headway", "--drain-s", "1", "--concurrency", "4")
SERVE: Final = ("uvicorn", "works:app", "--log-level", "warning", "--uds")


class Event(NamedTuple):
    """One event of a stream, and when it came; monotonic seconds."""

    name: str
    data: Any
    at: float


class Tab:
    """A page that watches one job: what its stream has brought so far."""

    def __init__(self, app: App, job_id: str) -> None:
        self.events: list[Event] = []
        self._http = app.http
        self._path = f"/jobs/{job_id}/events"
        self._thread = threading.Thread(target=self._read, name="tab", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        name = ""
        try:
            with self._http.stream("GET", self._path) as response:
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        self._take(name, json.loads(line.removeprefix("data: ")))
        except httpx.TransportError as error:
            self._take("broken", repr(error))

    def _take(self, name: str, data: Any) -> None:
        self.events.append(Event(name, data, time.monotonic()))

    def sees(self, what: str, holds: Callable[[Event], bool], *, since: float = 0.0) -> Event:
        """Wait until an event came, after *since*, of which that holds; the first of them."""

        def found() -> Event | None:
            return next((e for e in list(self.events) if e.at >= since and holds(e)), None)

        return wait_until(f"the page sees {what}", found)

    def sees_job(self, since: float = 0.0, **fields: object) -> Event:
        """Wait until a state of the job came that has these *fields*."""

        def holds(event: Event) -> bool:
            same = event.name == "job" and all(event.data[k] == v for k, v in fields.items())
            return same and (event.data["state"] != "running" or event.data["progress"]["done"] > 0)

        return self.sees(f"the job with {fields}", holds, since=since)

    def hears_nothing(self, since: float) -> Event:
        """Wait until the page is told that what it shows may be old."""
        return self.sees(
            "that nothing is heard", lambda e: e.name == "hb" and not e.data["live"], since=since
        )

    def ends(self) -> dict[str, Any]:
        """Wait until the stream is over; the last state of the job in it."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the stream goes on"
        assert self.events[-1].name == "end", self.events[-1]
        return dict(self.states()[-1].data)

    def states(self, since: float = 0.0, until: float = float("inf")) -> list[Event]:
        """What came of the job between these times."""
        return [e for e in list(self.events) if e.name == "job" and since <= e.at <= until]


class Valkey:
    """A real one that asks for a password and keeps all in its memory."""

    def __init__(self, network: Network, host: str, folder: Path) -> None:
        address, beside = network.address(host), folder / f"{host}.sock"
        words = ["--bind", address, "--requirepass", PASSWORD, "--unixsocket", str(beside)]
        command = network.on(host, str(_carried_binary()), *words, "--save", "")
        with (folder / f"{host}.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        self.url = f"redis://:{PASSWORD}@{address}:6379"
        self._client = redis.Redis.from_url(
            f"unix://:{PASSWORD}@{beside}", retry=None, decode_responses=True
        )

    def await_answer(self) -> None:
        wait_until(f"{self.url} answers", self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.ConnectionError:
            return False

    def record(self, job_id: str) -> dict[str, str]:
        """What is true of the job, whoever can see it."""
        found: Any = self._client.hgetall(KEYS.record(job_id))
        return dict(found)

    def close(self) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait(DEADLINE_S)


def _takes(where: str) -> bool:
    # Asked by ourselves: httpx leaves a socket open when nobody takes its connection.
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(where) == 0


class Site:
    """The hosts web, worker, spare, store and broker. On spare nobody works until told to."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hw"))  # short: sockets lie in it
        self.journal = self.folder / "journal"
        self.workers: dict[str, App] = {}
        with ExitStack() as undo:
            self._ends = undo
            undo.callback(shutil.rmtree, self.folder)
            self._open()
            self._ends = undo.pop_all()

    def _open(self) -> None:
        self.network = Network("web", "worker", "spare", "store", "broker")
        self._ends.callback(self.network.close)
        self.store, self.broker = self._valkey("store"), self._valkey("broker")
        self.store.await_answer()
        self.broker.await_answer()
        where = str(self.folder / "web.sock")
        self.web = self._run("web", *SERVE, where)
        self.web.http.close()
        self.web.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=where),
            base_url="http://site.test",
            timeout=2 * DEADLINE_S,
        )
        self.work("worker")
        wait_until("the web server is there", lambda: _takes(where))
        self.web.await_answer()

    def _valkey(self, host: str) -> Valkey:
        server = Valkey(self.network, host, self.folder)
        self._ends.callback(server.close)
        return server

    def work(self, host: str) -> App:
        """Start a worker on the host, and wait until it works."""
        worker = self.workers[host] = self._run(host, *WORK)
        wait_until(f"{host} works", lambda: "working, with" in worker.log)
        return worker

    def _run(self, host: str, *words: str) -> App:
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")},
            "HEADWAY_URL": self.store.url,
            "HEADWAY_SECRET": "the secret of the servers of a test",
            "PYTHONPATH": str(HERE),
            "JOURNAL": str(self.journal),
            "LEASE_S": str(LEASE_S),
            "ENGINE": "redis",
            "BROKER": self.broker.url,
        }
        command = self.network.on(host, PYTHON, "-m", *words)
        app = App(command, 0, self.folder / f"{host}.log", HERE, **env)
        self._ends.callback(self._end, host, app)
        return app

    def _end(self, host: str, app: App) -> None:
        app.kill()
        print(f"── log of {host} (pid {app.pid})\n{app.log}")

    # ── what the tasks have written down ──────────────────────────────────────────────────────

    def lines(self) -> list[str]:
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    def starts(self, name: str = "one") -> int:
        return sum(line.startswith(f"start {name} ") for line in self.lines())

    def runs(self, name: str = "one", attempt: int = 1) -> str:
        """Wait until the code of the job runs; the host on which it does."""
        pid = self._wrote("start", name, attempt)
        return next(host for host, worker in self.workers.items() if worker.pid == pid)

    def stops(self, name: str = "one", attempt: int = 1) -> None:
        """Wait until the code of the job runs no more."""
        self._wrote("stop", name, attempt)

    def _wrote(self, word: str, name: str, attempt: int) -> int:
        begin = f"{word} {name} {attempt} "

        def found() -> int | None:
            pids = [line.split()[3] for line in self.lines() if line.startswith(begin)]
            return int(pids[0]) if pids else None

        return wait_until(f"attempt {attempt} of {name}: {word}", found)

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()
