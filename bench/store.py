"""A store for one topic, and what it was asked to do."""

from __future__ import annotations

import re
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import redis

from headway.server import Server
from tests.apps.process import free_port

__all__ = ["Asked", "free_port", "fresh_store"]

COMMAND: Final = re.compile(rb'^\+[\d.]+ \[\d+ ([^\]]+)\] "([^"]*)"', re.MULTILINE)
MARK_S: Final = 10.0
RECENT: Final = 1 << 20


@contextmanager
def fresh_store(*, port: int = 0) -> Iterator[str]:
    """A Valkey of one's own, without a trace of another topic; its URL.

    Args:
        port: also listen there, on loopback: not every peer can connect to a socket file.
    """
    with (
        tempfile.TemporaryDirectory(prefix="headway-bench-") as folder,
        Server(Path(folder)) as url,
    ):
        if port:
            with redis.Redis.from_url(url) as client:
                client.config_set("bind", "127.0.0.1")
                client.config_set("port", port)
        yield url


class Asked:
    """What clients asked of the store in between, by its own count: `with Asked(url) as asked: …`.

    What this object asks itself is taken off, and what the store tells it of the others, too. It
    slows the store down, as each command is told to it: so nothing is timed meanwhile.

    Attributes:
        commands: by name. What a script does inside is none here, as it costs no round trip:
            `MONITOR` tells them apart, `INFO commandstats` does not.
        trips: how often the store read from a client. A pipeline that is sent in one piece is read
            at once (up to 16 KiB of it), so this is the number of round trips; a connection that is
            closed counts as one, too.
        received: bytes that clients sent.
        sent: bytes that they got.
        connected: connections that were made.
    """

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True, max_connections=1)
        self._monitor = _Monitor(url)
        self.commands: Counter[str] = Counter()
        self.trips = self.received = self.sent = self.connected = 0

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.received + self.sent

    def __enter__(self) -> Self:
        self._own = int(self._client.client_id())
        self._before = self._look("before")
        return self

    def __exit__(self, *error: object) -> None:
        now = self._look("after")
        self._monitor.close()
        self._client.close()
        found = {name: count - self._before[name] for name, count in now.items()}
        self.trips = found["trips"] - 1  # the look that has just been taken
        self.received, self.sent = found["received"], found["sent"]
        self.connected = found["connected"]
        for client, command in COMMAND.findall(self._monitor.between("before", "after")):
            if client != b"lua":
                self.commands[command.decode().lower()] += 1

    def _look(self, mark: str) -> dict[str, int]:
        # In one pipeline: nothing is sent or read between the two counts.
        with self._client.pipeline(transaction=False) as pipeline:
            if mark == "after":
                pipeline.echo(self._monitor.mark(mark))
            pipeline.info("stats")
            pipeline.client_list(client_id=[str(self._own), str(self._monitor.id)])
            if mark == "before":
                pipeline.echo(self._monitor.mark(mark))
            answers: Any = pipeline.execute()
        self._monitor.wait(mark)
        stats, observers = (one for one in answers if not isinstance(one, str))
        return {
            "trips": stats["total_reads_processed"],
            "received": stats["total_net_input_bytes"] - _sum(observers, "tot-net-in"),
            "sent": stats["total_net_output_bytes"] - _sum(observers, "tot-net-out"),
            "connected": stats["total_connections_received"],
        }


def _sum(clients: list[dict[str, str]], name: str) -> int:
    return sum(int(client[name]) for client in clients)


class _Monitor:
    """Keeps what `MONITOR` tells as it comes, and leaves the reading of it for afterwards."""

    def __init__(self, url: str) -> None:
        self._socket = _connected(url)
        self._socket.sendall(b"CLIENT ID\r\n")
        self.id = int(self._socket.recv(64)[1:])
        self._heard = bytearray()
        self._news = threading.Condition()
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)
        self._thread.start()

    def mark(self, name: str) -> str:
        """A text that is found in nothing else."""
        return f"mark-{name}-{self.id}-{id(self)}"

    def wait(self, name: str) -> None:
        """Return when it has heard of the mark, and so of all that came before."""
        mark = self.mark(name).encode()
        with self._news:
            if not self._news.wait_for(lambda: mark in self._heard[-RECENT:], MARK_S):
                raise TimeoutError(f"the monitor has not heard of {name}")

    def between(self, before: str, after: str) -> bytes:
        """The lines that it heard between two marks."""
        _, _, rest = bytes(self._heard).partition(self.mark(before).encode())
        return rest.partition(self.mark(after).encode())[0].rpartition(b"\n")[0]

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(MARK_S)
        self._socket.close()

    def _listen(self) -> None:
        while some := self._socket.recv(1 << 20):
            with self._news:
                self._heard += some
                self._news.notify_all()


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        found = socket.socket(socket.AF_UNIX)
        found.connect(parts.path)
        return found
    return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
