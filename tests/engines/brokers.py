"""The brokers under the engines: real servers that a test kills, cuts, empties and fills."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import nats
import redis
from nats.js import JetStreamContext

from headway.server import Server
from tests.apps.process import alive, free_port, wait_until

__all__ = ["NATS", "Broker", "Nats", "Redis"]

T = TypeVar("T")
DEADLINE_S = 10.0
NATS: Final = shutil.which("nats-server") or shutil.which(
    Path(__file__).parents[2] / ".nats" / "nats-server"
)
"""The program; scripts/nats gets one."""


class Broker(Protocol):
    """What a test does to a broker. *url* stays the same all the while."""

    url: str

    def stop(self) -> None:
        """Kill it."""

    def start(self) -> None:
        """Start it again, over the same data."""

    def cut(self) -> None:
        """Cut all its connections."""

    def sent(self) -> int:
        """How many messages stand in its queue, delivered ones too if it keeps them."""

    def lose(self) -> None:
        """Remove all messages from its queue."""

    def double(self) -> None:
        """Put each message into the queue once more."""

    def close(self) -> None:
        """End it for good."""


class Redis:
    """A Valkey of its own, as taskiq-redis uses it (a stream), or Celery (a list)."""

    def __init__(self, folder: Path, *, kind: str) -> None:
        self._server = Server(folder)
        where = self._server.open()
        self._client: Any = redis.Redis.from_url(where)
        self._stream = kind == "stream"
        self.url = where if self._stream else where.replace("unix://", "redis+socket://")

    def stop(self) -> None:
        pid = int(self._client.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        wait_until("the killed broker is gone", lambda: not alive(pid))

    def start(self) -> None:
        self._server.open()

    def cut(self) -> None:
        for kind in ("normal", "pubsub"):
            self._client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def sent(self) -> int:
        return int(self._client.xlen("taskiq") if self._stream else self._client.llen("celery"))

    def lose(self) -> None:
        if self._stream:
            self._client.xtrim("taskiq", maxlen=0, approximate=False)
        else:
            self._client.delete("celery")

    def double(self) -> None:
        if self._stream:
            for _, fields in self._client.xrange("taskiq"):
                self._client.xadd("taskiq", fields)
        else:
            for message in self._client.lrange("celery", 0, -1):
                self._client.lpush("celery", message)

    def close(self) -> None:
        self._client.close()
        self._server.close()


class Nats:
    """A nats-server with a stream on disk."""

    def __init__(self, folder: Path) -> None:
        assert NATS is not None
        self._port = free_port()
        self.url = f"nats://127.0.0.1:{self._port}"
        self._command = [NATS, "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(folder)]
        self._log = folder.with_suffix(".log")
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, start_new_session=True)
        wait_until("NATS answers", self._answers)

    def _answers(self) -> bool:
        # Its library takes seconds to see that nobody is there yet.
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self._port)) != 0:
                return False
        return self._ask(lambda js: js.account_info()) is not None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def cut(self) -> None:
        self.stop()  # it has no command that does
        self.start()

    def sent(self) -> int:
        return int(self._ask(lambda js: js.stream_info("taskiq_jetstream")).state.messages)

    def lose(self) -> None:
        self._ask(lambda js: js.purge_stream("taskiq_jetstream"))

    def double(self) -> None:
        async def double(js: JetStreamContext) -> None:
            for number in range(1, (await js.stream_info("taskiq_jetstream")).state.last_seq + 1):
                message = await js.get_msg("taskiq_jetstream", number)
                await js.publish(str(message.subject), message.data or b"", headers=message.headers)

        self._ask(double)

    def close(self) -> None:
        self.stop()

    def _ask(self, act: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        async def ask() -> T:
            async def quiet(_: Any) -> None:
                """It may not be there yet."""

            client = await nats.connect(
                self.url, allow_reconnect=False, connect_timeout=1, error_cb=quiet
            )
            try:
                return await act(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(ask())
