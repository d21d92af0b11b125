"""Processes beside this one: they let jobs begin and report, and hear of them."""

from __future__ import annotations

import asyncio
import multiprocessing
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from bench.hub import LEASE_S, place
from headway.acts import ThreadStore
from headway.job import PARTITIONS
from headway.keys import Keys

__all__ = ["KEYS", "PIPELINE", "Work", "begun_beside", "hearing", "reporting", "say"]

PIPELINE: Final = 10  # jobs of one process that report in one moment
KEYS: Final = Keys(f"p{PARTITIONS}", PARTITIONS)  # as `place()` has them
END_S: Final = 30.0

Work = tuple[str, int]
"""The id of a job that runs, and its attempt."""


def say(store: ThreadStore, works: Sequence[Work]) -> None:
    """One report of each, in one pipeline."""
    said = f'{{"done":{time.monotonic_ns()},"ratio":0.1,"note":"Reading orders"}}'
    calls = [store.beat_call(i, attempt, LEASE_S, progress=said) for i, attempt in works]
    assert store.send(calls) == ["ok"] * len(calls)


def begun_beside(url: str, jobs: int) -> list[Work]:
    """So many jobs that run; another process has made them, so that they weigh nothing here."""
    with _beside(_begin, url, jobs) as line:
        works: list[Work] = line.recv()
    return works


@contextmanager
def reporting(url: str, works: Sequence[Work], pause_s: float) -> Iterator[Connection]:
    """The jobs report, no faster than one in *pause_s*; the line tells when the last one has, in
    seconds of `time.monotonic()`."""
    with _beside(_report, url, works, pause_s) as line:
        yield line


@contextmanager
def hearing(url: str, works: Sequence[Work], many: int) -> Iterator[None]:
    """*many* connections subscribe to all of the jobs, and drop what they hear."""
    with _beside(_hear, url, [KEYS.record(job_id) for job_id, _ in works], many):
        yield


@contextmanager
def _beside(target: Any, *args: Any) -> Iterator[Connection]:
    """A process of its own runs *target*; the line to it, which has told that it is ready."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*args, there))
    process.start()
    there.close()
    try:
        here.recv()
        yield here
    finally:
        here.close()
        process.join(END_S)
        assert process.exitcode == 0, process.exitcode


def _begin(url: str, jobs: int, line: Connection) -> None:
    async def works() -> list[Work]:
        async with place(url) as here:
            return [(job.id, job.attempt) for job in await here.jobs(jobs)]

    line.send(None)
    line.send(asyncio.run(works()))


def _report(url: str, works: Sequence[Work], pause_s: float, line: Connection) -> None:
    store = ThreadStore(url, KEYS, "bench")
    line.send(None)
    began = time.monotonic()
    for n in range(0, len(works), PIPELINE):
        time.sleep(max(began + n * pause_s - time.monotonic(), 0))
        say(store, works[n : n + PIPELINE])
    line.send(time.monotonic())
    store.close()


def _hear(url: str, channels: Sequence[str], many: int, line: Connection) -> None:
    words = ["SSUBSCRIBE", *channels]
    command = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
    with selectors.DefaultSelector() as selector:
        for _ in range(many):
            one = socket.socket(socket.AF_UNIX)
            one.connect(unquote(urlsplit(url).path))
            one.sendall(command.encode())
            selector.register(one, selectors.EVENT_READ)
        selector.register(line, selectors.EVENT_READ)
        line.send(None)
        while not line.poll():  # until the other end is closed
            for key, _ in selector.select():
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.recv(1 << 20)
