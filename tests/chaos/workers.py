"""The worker processes of a chaos run; whoever ends is followed by a new one."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.chaos.evidence import Death
from tests.chaos.plan import Plan

POLL_S: Final = 0.02
STOP_S: Final = 30.0
TOKEN: Final = "CHAOS_TOKEN"  # marks our processes, so that orphans are found
ROOT: Final = Path(__file__).parents[2]


class Workers:
    """The worker processes, each in its slot."""

    def __init__(self, plan: Plan, folder: Path, url: str) -> None:
        self.token = secrets.token_hex(8)
        self.deaths: list[Death] = []
        self._env = {
            **os.environ,
            "CHAOS_FOLDER": str(folder),
            "CHAOS_URL": url,
            "CHAOS_LEASE_S": str(plan.lease_s),
            "CHAOS_DRAIN_S": str(plan.drain_s),
            TOKEN: self.token,
        }
        self._folder = folder
        self._number = 0
        self._closing = False
        self.slots = [self._spawn() for _ in range(plan.workers)]

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._number += 1
        with (self._folder / f"worker{self._number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker"],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def keep(self) -> None:
        """Bury the dead, and put others in their place."""
        while True:
            for slot, process in enumerate(self.slots):
                if process.poll() is not None:
                    self._bury(process)
                    self.slots[slot] = self._spawn()
            await asyncio.sleep(POLL_S)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        self.deaths.append(Death(time.monotonic(), process.pid, process.returncode))
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()

    def tell(self, slot: int, do: str, **order: Any) -> None:
        """Say something to a worker. One that dies meanwhile does not hear it."""
        stdin = self.slots[slot].stdin
        assert stdin is not None
        with suppress(BrokenPipeError):
            stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
            stdin.flush()

    async def stop(self) -> list[str]:
        """Let all of them end, and say what is wrong with how they did."""
        for process in self.slots:
            process.terminate()
        give_up_at = time.monotonic() + STOP_S
        while any(p.poll() is None for p in self.slots) and time.monotonic() < give_up_at:
            await asyncio.sleep(POLL_S)
        wrong = [f"worker {p.pid} did not end" for p in self.slots if p.poll() is None]
        wrong += [f"worker {p.pid} ended with {p.returncode}" for p in self.slots if p.returncode]
        self.kill()
        return wrong

    def kill(self) -> None:
        for process in self.slots:
            process.kill()
            process.wait()
            self._bury(process)

    def orphans(self) -> list[int]:
        """Processes of this run that are not one of the workers, nor below one of them."""
        ours = {process.pid for process in self.slots if process.poll() is None}
        return [pid for pid, parent in self._marked() if pid not in ours and parent not in ours]

    def _marked(self) -> Iterator[tuple[int, int]]:
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{TOKEN}={self.token}".encode() in (path / "environ").read_bytes():
                    yield (
                        int(path.name),
                        int((path / "stat").read_text().rpartition(")")[2].split()[1]),
                    )
