"""Server processes of a test: started in sessions of their own, and gone when it is over."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

T = TypeVar("T")

HERE = Path(__file__).parent
DEADLINE_S = 15.0
PYTHON = sys.executable
TERMINAL = {"succeeded", "failed", "cancelled"}


def wait_until(what: str, holds: Callable[[], T | None], *, within_s: float = DEADLINE_S) -> T:
    """Ask until the answer is true, and return it; *what* tells what was waited for in vain."""
    give_up_at = time.monotonic() + within_s
    while not (answer := holds()):
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.005)
    return answer


def free_port() -> int:
    """One that nobody else is given: neither by the kernel, nor by another process of the tests."""
    return next(filter(_is_free, PORTS))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ports() -> Iterator[int]:
    # Below those that Linux gives to whoever asks for any, and above the last that browsers refuse.
    # Two runs at a time begin elsewhere.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, start = 11_000 + worker % 20 * 1_000, os.getpid() % 1_000
    return itertools.cycle([first + (start + n) % 1_000 for n in range(1_000)])  # threads share it


PORTS: Final = _ports()


def alive(pid: int) -> bool:
    # Whoever inherits the orphans may take its time to bury them: a zombie is not alive.
    told = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, check=False)
    return told.stdout[:1] not in (b"", b"Z")


def _hear_signals() -> None:
    # A shell that runs the tests in the background makes all below it deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class App:
    """One server: its process, its log, and a client that talks to it."""

    def __init__(self, command: list[str], port: int, log: Path, cwd: Path, **env: str) -> None:
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_signals,  # noqa: PLW1509 - it takes no lock
            )
        self.pid = self.process.pid
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S)

    @property
    def log(self) -> str:
        """What the process has said so far."""
        return self._log.read_text(errors="replace")

    def await_answer(self) -> Self:
        wait_until(f"port {self.port} answers", self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the server ended at once:\n{self.log}"
        try:
            return self.http.get("/jobs").status_code == 200
        except httpx.TransportError:
            return False

    # ── what the apps in this folder serve ────────────────────────────────────────────────────

    def start(self, task: str, name: str = "one", **options: float | str) -> str:
        """Start a job; returns its id, once it is acknowledged."""
        # A connection of its own, so that another worker of the server may take it.
        answer = self.http.post(
            f"/start/{task}", params={"name": name, **options}, headers={"Connection": "close"}
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def reaches(
        self, job_id: str, *states: str, within_s: float = DEADLINE_S, **fields: object
    ) -> dict[str, Any]:
        """Wait until the job is in one of *states* with these *fields*; return it."""

        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            same = all(job[name] == value for name, value in fields.items())
            return job if job["state"] in states and same else None

        try:
            return wait_until(f"{job_id} is {states} {fields}", reached, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}, it is {self.job(job_id)}") from None

    def moves(self, job_id: str) -> dict[str, Any]:
        """Wait until the job is running and something of it is done."""

        def moved() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] == "running" and job["progress"]["done"] > 0 else None

        return wait_until(f"{job_id} moves", moved)

    def ends(self, job_id: str, *, within_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until the job has ended; return it."""
        return self.reaches(job_id, *TERMINAL, within_s=within_s)

    # ── signals ───────────────────────────────────────────────────────────────────────────────

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, and the workers below it, without a warning."""
        self.http.close()
        self.strike()
        self.process.wait(DEADLINE_S)

    def strike(self) -> None:
        """The same, without waiting until it is gone."""
        # Our own session: nobody else is in it, and the stopped ones die as well. Not the group:
        # the workers of `headway worker` have groups of their own.
        subprocess.run(["pkill", "-KILL", "--session", str(self.pid)], check=False)


class Apps:
    """The servers of one test, all on one store: the embedded one unless HEADWAY_URL is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.journal = folder / "journal"
        self._runtime = Path(tempfile.mkdtemp(prefix="hw"))
        self._apps: list[App] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for app in self._apps:  # at once: else one starts the store anew that was another's
            app.strike()
        for number, app in enumerate(self._apps):
            app.kill()
            print(f"── log of server {number} (pid {app.pid})\n{app.log}")
        if (pid := self.store_pid) and alive(pid):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._runtime, ignore_errors=True)

    @property
    def store_pid(self) -> int:
        """The embedded Valkey; 0 if there is none."""
        try:
            return int((self.state_dir / "valkey" / "valkey.pid").read_text())
        except (OSError, ValueError):
            return 0

    def serve(
        self, *command: str, app: str = "works:app", cwd: Path = HERE, **settings: float | str
    ) -> App:
        """Serve *app* and wait until it answers; uvicorn does, unless *command* says who.

        In the command {app} and {port} stand for these. The settings go into the environment.
        """
        command = command or ("uvicorn", "{app}", "--port", "{port}", "--log-level", "warning")
        return self._run(command, app, cwd, settings).await_answer()

    def work(self, *command: str, ready: str, cwd: Path = HERE, **settings: float | str) -> App:
        """Start a worker, and wait until it says that it is *ready*."""
        worker = self._run(command, "works:app", cwd, settings)

        def is_ready() -> bool:
            assert worker.process.poll() is None, f"the worker ended at once:\n{worker.log}"
            return ready in worker.log

        wait_until(f"a worker says {ready!r}", is_ready)
        return worker

    def _run(
        self, command: tuple[str, ...], app: str, cwd: Path, settings: dict[str, float | str]
    ) -> App:
        port = free_port()
        words = [word.format(app=app, port=port) for word in command]
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")},
            "HEADWAY_STATE_DIR": str(self.state_dir),
            "HEADWAY_SECRET": "the secret of the servers of a test",
            "XDG_RUNTIME_DIR": str(self._runtime),
            "PYTHONPATH": os.pathsep.join([str(cwd), *os.environ.get("PYTHONPATH", "").split()]),
            "JOURNAL": str(self.journal),
            "QUART_APP": app,
            **{name: str(value) for name, value in settings.items()},
        }
        log = self.folder / f"server{len(self._apps)}.log"
        served = App([PYTHON, "-m", *words], port, log, cwd, **env)
        self._apps.append(served)
        return served

    def lines(self) -> list[str]:
        """What the tasks have written into their journal."""
        return self.journal.read_text().splitlines() if self.journal.exists() else []


def events_of(lines: Iterator[str]) -> list[str]:
    """The names of the events that are left in a stream, read to its end."""
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
