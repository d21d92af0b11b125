"""The apps of `bench.sites` on the servers that people use, each in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from bench.processor import memory_bytes, processor_s
from bench.store import free_port

__all__ = ["SERVERS", "Served", "pids", "served"]

SERVERS: Final = {
    "uvicorn": ("uvicorn", "{app}", "--port", "{port}", "--log-level", "warning"),
    "hypercorn": ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}"),
    "granian": ("granian", "--interface", "asgi", "{app}", "--port", "{port}"),
}
READY_S: Final = 30.0
STOP_S: Final = 5.0
ANSWER_S: Final = 60.0


def pids(pid: int) -> list[int]:
    """The process and those below it: servers and workers have some that only look after others."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


class Served:
    """One server, with one process that serves."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_S)

    def start(self, task: str, **options: Any) -> str:
        """Start a job of this task; its id."""
        answer = self.http.post("/start", json={"task": task, "options": options})
        return str(answer.raise_for_status().json()["id"])

    def go(self, seconds: float) -> float:
        """Let the job `watched` say something new all the time; how long that took, in seconds."""
        answer = self.http.post("/go", json={"seconds": seconds})
        return float(answer.raise_for_status().json()["seconds"])

    def processor_s(self) -> float:
        """Processor time that its processes have taken so far."""
        return sum(map(processor_s, pids(self.pid)))

    def memory_bytes(self) -> int:
        """What its processes hold."""
        return sum(map(memory_bytes, pids(self.pid)))

    def await_port(self) -> None:
        """Return when it takes connections."""
        give_up_at = time.monotonic() + READY_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"it does not serve:\n{self._log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; what does not end by itself is killed."""
        self.http.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: nobody else is in it
            self._process.wait()


@contextmanager
def served(app: str, server: str, url: str) -> Iterator[Served]:
    """Serve one of the apps of `bench.sites` on one of SERVERS.

    Args:
        url: the store, of this app alone.
    """
    port = free_port()
    command = [word.format(app=f"bench.sites:{app}", port=port) for word in SERVERS[server]]
    settings = {"HEADWAY_URL": url, "HEADWAY_SECRET": "of no account, but long enough for it"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        serving = Served(process, port, log)
        try:
            serving.await_port()
            yield serving
        finally:
            serving.stop()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
