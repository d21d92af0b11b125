"""What a benchmark does with each library, and what their files have in common."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

from redis import Redis

__all__ = [
    "RAN", "Peer", "Worker", "end", "full_name", "paced", "store_url", "tool", "tuned", "worker",
]  # fmt: skip

STORE: Final = "BENCH_STORE"
TUNED: Final = "BENCH_TUNED"
END_S: Final = 3.0  # taskiq takes longer, and does not come to an end by itself
ROOT: Final = Path(__file__).parents[2]


class Peer(Protocol):
    """A library in this process. What `start()` returns is handed to the others.

    It has two jobs: one that does nothing, and one that lives a while and reports.
    """

    name: str
    tuning: str
    """What is set when it is tuned; '' if nothing is."""

    def opened(self, url: str, *, works: bool) -> AbstractAsyncContextManager[None]:
        """Open it at the store; with *works*, its worker runs on this very loop."""

    async def start(self) -> Any:
        """Start a job that does nothing."""

    async def start_long(self, seconds: float, every_s: float) -> Any:
        """Start one that lives so long, and reports so often, if it can."""

    async def ended(self, job: Any) -> None:
        """Return when it is known here that the job has ended, and what its result is."""

    async def watch(self, job: Any) -> None:
        """What a page that shows the job would make of it, until it has ended."""

    def left(self, store: Redis) -> int:
        """How many jobs have not ended yet."""

    def worker(self, url: str) -> Sequence[str]:
        """The command of a worker of its own. What it imports finds the store by `store_url()`."""


def full_name(peer: Peer) -> str:
    """Its name, and what is set."""
    return f"{peer.name}, {peer.tuning}" if peer.tuning else peer.name


class _Ran:
    """How many jobs that do nothing have run in this process, and how many reports were made."""

    jobs = 0
    reports = 0


RAN: Final = _Ran()


async def paced(seconds: float, every_s: float) -> AsyncIterator[int]:
    """Numbers, one each *every_s* seconds; what came too late is made up for."""
    began, number = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        yield number
        number += 1
        RAN.reports += 1
        await asyncio.sleep(max(began + number * every_s - time.monotonic(), 0))


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel it, and again if that got lost: on Python 3.11 it can (CPython issue 86296)."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)


# ── workers ───────────────────────────────────────────────────────────────────────────────────


def store_url() -> str | None:
    """In a worker: where the store is. Elsewhere None, and then nothing is made at import."""
    return os.environ.get(STORE)


def tuned() -> bool:
    """In a worker: whether it is to be tuned."""
    return TUNED in os.environ


def tool(name: str) -> str:
    """The path of a command that a library brings."""
    return str(Path(sys.executable).with_name(name))


class Worker(NamedTuple):
    """A process, and where it writes to."""

    pid: int
    output: IO[bytes]

    def said(self) -> str:
        """The end of what it has written."""
        self.output.seek(0)
        return self.output.read()[-2_000:].decode(errors="replace")


@contextmanager
def worker(peer: Peer, url: str) -> Iterator[Worker]:
    """A worker of *peer* in a process of its own. It may not have begun to work yet."""
    # Not every command looks for modules where it was called.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), STORE: url}
    if peer.tuning:
        environment[TUNED] = "1"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            peer.worker(url),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - it takes no lock
        )
        try:
            yield Worker(process.pid, said)
        finally:
            _end(process)


def _end_with_parent() -> None:
    """Called in a child: it ends, too, if this process is killed. Linux can do that.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own children, too
        process.wait()
