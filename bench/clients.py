"""Clients of event streams, as cheap as they can be: beside them, the server is what is measured.

Bare HTTP/1.1 over a socket. Nothing is decoded but what is asked for, so that one process takes in
what one process of a server can send.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

__all__ = ["Counting", "Stream", "Timing", "opened"]

EVENT: Final = b"event: job\n"
NOTE: Final = b'"note":"'
AT_ONCE: Final = 50  # connections that are opened together; a server's backlog may be as short
OPEN_S: Final = 30.0

S = TypeVar("S", bound="Stream")


class Stream(asyncio.Protocol):
    """One stream. A subclass says what it looks for in what comes.

    Args:
        request: the bytes that ask for it.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self.begun = asyncio.Event()
        """Set when the first event has arrived."""
        self.over = asyncio.Event()
        """Set when the server has closed it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()

    def close(self) -> None:
        """Leave, as a tab that is closed."""
        if self._transport is not None:
            self._transport.abort()


class Counting(Stream):
    """Counts the states of jobs that arrive."""

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self.events = 0
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        joined = self._tail + data
        if found := joined.count(EVENT):
            self.events += found
            self.begun.set()
        self._tail = joined[1 - len(EVENT) :]  # an event may come in two pieces


class Timing(Stream):
    """Keeps when what arrived: `heard` is pairs of time and bytes, both of one event.

    Times are of `time.monotonic_ns()`, which all processes of a machine share.
    """

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self.heard: list[tuple[int, bytes]] = []
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for event in whole:
            if EVENT in event:
                self.heard.append((now, event))
                self.begun.set()

    def notes(self) -> list[tuple[int, int]]:
        """Pairs of when it arrived, and the number that the note of the job was."""
        found = []
        for at, event in self.heard:
            _, note, rest = event.partition(NOTE)
            if note and (number := rest.partition(b'"')[0]).isdigit():
                found.append((at, int(number)))
        return found


@asynccontextmanager
async def opened(kind: type[S], port: int, paths: Sequence[str]) -> AsyncIterator[list[S]]:
    """A stream of each path, at the server on *port*; each has got its first event."""
    _room_for_files(len(paths))
    streams = []
    try:
        for first in range(0, len(paths), AT_ONCE):
            some = [kind(_asking(path, port)) for path in paths[first : first + AT_ONCE]]
            streams += some
            await asyncio.gather(*(_open(stream, port) for stream in some))
        yield streams
    finally:
        for stream in streams:
            stream.close()
        await asyncio.gather(*(stream.over.wait() for stream in streams))


async def _open(stream: Stream, port: int) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(OPEN_S):
        await loop.create_connection(lambda: stream, "127.0.0.1", port)
        await stream.begun.wait()


def _asking(path: str, port: int) -> bytes:
    headers = f"Host: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\nConnection: close\r\n"
    return f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode()


def _room_for_files(streams: int) -> None:
    """Let this process, and those that it starts from now on, have as many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = streams + 1_000
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
