"""A store for one topic, and what it was asked to do."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis

from headway.server import Server

__all__ = ["Commands", "Traffic", "fresh_store"]


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


class Commands:
    """The commands that clients send in between, by name: `with Commands(url) as sent: …`.

    What a script does inside is no command of its own here, as it costs no round trip; `MONITOR`
    tells them apart, `INFO commandstats` does not.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)
        self._mark = f"end-of-{id(self)}"
        self.by_name: Counter[str] = Counter()

    def __len__(self) -> int:
        return self.by_name.total()

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.echo(self._mark)
        self._thread.join(10)
        self._monitor.__exit__(*error)
        self._client.close()

    def _listen(self) -> None:
        for seen in self._monitor.listen():
            if self._mark in seen["command"]:
                return
            if seen["client_type"] != "lua":
                self.by_name[seen["command"].split(" ", 1)[0].lower()] += 1


class Traffic:
    """The bytes between clients and the store in between. Not together with `Commands`, whose
    monitor is itself told all of them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.received = self.sent = 0

    def __enter__(self) -> Self:
        received, sent = self._now()
        self.received, self.sent = -received, -sent
        return self

    def __exit__(self, *error: object) -> None:
        received, sent = self._now()
        self.received += received
        self.sent += sent

    @property
    def total(self) -> int:
        """Both ways."""
        return self.received + self.sent

    def _now(self) -> tuple[int, int]:
        with redis.Redis.from_url(self._url) as client:
            stats = client.info("stats")
        return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])
