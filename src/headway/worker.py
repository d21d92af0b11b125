"""Worker processes: `headway worker` opens the app's `Headway` in them, and they run its jobs.

Several are looked after by a parent that starts a new one for each that dies. The first signal to
stop lets what runs come to its end, for `drain_s`; the second stops it at once.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from headway.errors import BadInput
from headway.remote import COMMAND
from headway.service import Service

__all__ = ["Supervisor", "find", "work"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
PARENT: Final = "HEADWAY_WORKER_PARENT"  # the pipe that ends with the process that started this one
LOOK_S: Final = 0.1
SOON_S: Final = 5.0  # a worker that dies sooner than this is started again with a pause
PAUSE_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)

logger = logging.getLogger("headway.worker")


def find(target: str) -> Service:
    """Import the `Headway` that *target* names, as "module:name"; the working directory counts.

    Raises:
        BadInput: there is none, or it has workers of another kind.
    """
    module, colon, name = target.partition(":")
    if not colon or not module or not name:
        raise BadInput(f"{target!r}: name the Headway as MODULE:HEADWAY, like app:headway")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is missing in the app itself
        raise BadInput(f"there is no module {module!r} here: {error}") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Service):
        raise BadInput(f"{target}: that is {found!r}, and not a Headway")
    if found.workers not in {None, COMMAND}:
        raise BadInput(f"start the workers of this Headway with: {found.workers}")
    return found


async def work(
    headway: Service, *, concurrency: int | None = None, drain_s: float | None = None
) -> None:
    """Run jobs until a signal comes, or the process that started this one is gone."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            headway.hurry()
        stopping.set()

    def orphaned() -> None:
        loop.remove_reader(parent)
        stop()

    parent = int(os.environ.get(PARENT, "-1"))
    if parent >= 0:
        loop.add_reader(parent, orphaned)
    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        async with headway.working(concurrency=concurrency, drain_s=drain_s):
            logger.info("working, with the tasks %s", ", ".join(headway.task_names))
            await stopping.wait()
            logger.info("stopping: takes no more jobs, and waits for those that run")
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


class _Worker:
    """One process, and those that replaced it."""

    def __init__(self, command: Sequence[str], pipe: int) -> None:
        self._command = command
        self._pipe = pipe
        self._early = 0
        self.start_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.start_at = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - this very program
            self._command,
            env={**os.environ, PARENT: str(self._pipe)},
            stdin=subprocess.DEVNULL,
            pass_fds=[self._pipe],
            process_group=0,  # Ctrl-C is for the parent, which passes it on once
        )

    def look(self) -> None:
        """Start it if it is time to, and see whether it has died."""
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        self._early = self._early + 1 if time.monotonic() - self.start_at < SOON_S else 0
        pause_s = PAUSE_S[min(self._early, len(PAUSE_S)) - 1] if self._early else 0.0
        words = "worker %d has died (%s); another one is started in %g s"
        logger.error(words, self.process.pid, _how(code), pause_s)
        self.process = None
        self.start_at = time.monotonic() + pause_s


class Supervisor:
    """Keeps *processes* workers alive until a signal comes, and then until they have ended.

    Args:
        command: starts one worker, in the foreground.
    """

    def __init__(self, command: Sequence[str], processes: int) -> None:
        # Nobody writes to it: it ends when this process does, however that comes about.
        self._read, self._write = os.pipe()
        self._workers = [_Worker(command, self._read) for _ in range(processes)]
        self._asked = 0
        self._passed = 0

    def run(self) -> None:
        """Returns when all have ended. The third signal kills those that are left."""
        previous = {number: signal.signal(number, self._hear) for number in SIGNALS}
        try:
            while not self._asked:
                for worker in self._workers:
                    worker.look()
                time.sleep(LOOK_S)
            while left := self._left():
                self._pass_on(left)
                time.sleep(LOOK_S)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(self._write)
            os.close(self._read)

    def _hear(self, *_: object) -> None:
        self._asked += 1

    def _left(self) -> list[subprocess.Popen[bytes]]:
        started = (worker.process for worker in self._workers)
        return [process for process in started if process and process.poll() is None]

    def _pass_on(self, processes: list[subprocess.Popen[bytes]]) -> None:
        if self._passed < self._asked:
            self._passed += 1
            for process in processes:
                process.send_signal(signal.SIGKILL if self._passed > 2 else signal.SIGTERM)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
