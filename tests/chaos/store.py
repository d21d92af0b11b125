"""The store of a chaos run: a Valkey that is killed, frozen, paused and started again."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import redis

from headway.server import OPTIONS, _carried_binary

LIMIT_S: Final = 20.0


class ChaosStore:
    """One server over one folder. With fsync "always" an acknowledged write is on the disk."""

    def __init__(self, folder: Path, *, fsync: str) -> None:
        self._folder = folder
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        self.url = f"unix://{folder / 'valkey.sock'}"

    def start(self) -> None:
        """Start it over what is there, and wait until it answers."""
        options = [*OPTIONS, "--appendfsync", self._fsync, "--unixsocket", "valkey.sock"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_carried_binary(), *options], cwd=self._folder, stdout=log, start_new_session=True
            )
        give_up_at = time.monotonic() + LIMIT_S
        while not self._answers():
            assert time.monotonic() < give_up_at, "the store does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return bool(self.say("PING"))
        except redis.RedisError:  # not there yet, or reading its data back
            return False

    def say(self, *command: str | int) -> Any:
        with redis.Redis.from_url(self.url, retry=None, socket_timeout=LIMIT_S) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
