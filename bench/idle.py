"""Idle: what a process that has nothing to do asks of the store, and of the processor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Final, NamedTuple

import redis

from bench.clients import Counting, opened
from bench.measure import Finding, Row
from bench.peers.celery import CeleryPeer
from bench.peers.contract import Peer, Worker, worker
from bench.peers.docket import DocketPeer
from bench.peers.headway import HeadwayPeer
from bench.peers.saq import SaqPeer
from bench.peers.streaq import StreaqPeer
from bench.peers.taskiq import TaskiqPeer
from bench.processor import processor_s
from bench.served import Served, pids, served
from bench.store import Asked, free_port, fresh_store

SERVER: Final = "uvicorn"
WATCHERS: Final = 100
BEGIN_S: Final = 30.0
SETTLE_S: Final = 2.0
LOOK_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.05

BARE: Final = "a web process without Headway"
WEB: Final = "Headway, a web process"
WATCHED: Final = f"Headway, a web process with {WATCHERS} watchers"
WORKER: Final = "Headway, a worker"


class Process(NamedTuple):
    """One that is looked at, with those below it."""

    name: str
    pid: int
    url: str
    """Of a store that it has for itself."""


class Idle(NamedTuple):
    """What it has taken, each second."""

    trips: float
    commands: float
    said: str
    """Which commands, the most frequent first."""
    processor_ms: float


def measure() -> list[Finding]:
    """See `bench`."""
    with ExitStack() as stack:
        workers = [stack.enter_context(_working(peer)) for peer in _peers()]
        bare, web, watched = (
            stack.enter_context(_web(name, app))
            for name, app in ((BARE, "bare"), (WEB, "plain"), (WATCHED, "plain"))
        )
        for peer, process, worker in workers:
            _await_work(peer, process.url, worker)
        processes = [bare[0], web[0], watched[0], *(process for _, process, _ in workers)]
        found = asyncio.run(_watched(watched[1], processes))
    return [_commands(found), _processor(found)]


# ── what is done ──────────────────────────────────────────────────────────────────────────────


def _peers() -> list[Peer]:
    kinds: list[Callable[[], Peer]] = [DocketPeer, TaskiqPeer, StreaqPeer, SaqPeer, CeleryPeer]
    return [HeadwayPeer(remote=True), *(kind() for kind in kinds)]


@contextmanager
def _working(peer: Peer) -> Iterator[tuple[Peer, Process, Worker]]:
    port = free_port()
    with fresh_store(port=port):
        url = f"redis://127.0.0.1:{port}/0"
        with worker(peer, url) as started:
            name = WORKER if isinstance(peer, HeadwayPeer) else f"{peer.name}, a worker"
            yield peer, Process(name, started.pid, url), started


def _await_work(peer: Peer, url: str, started: Worker) -> None:
    """Return when it has run a job: so it works, and is as idle as it can be after that."""
    try:
        asyncio.run(_worked(peer, url))
    except TimeoutError:
        raise RuntimeError(f"the worker of {peer.name} does not work: {started.said()}") from None


async def _worked(peer: Peer, url: str) -> None:
    with redis.Redis.from_url(url) as store:
        async with asyncio.timeout(BEGIN_S), peer.opened(url, works=False):
            await peer.start()
            while peer.left(store):
                await asyncio.sleep(LOOK_AGAIN_S)


@contextmanager
def _web(name: str, app: str) -> Iterator[tuple[Process, Served]]:
    with fresh_store() as url, served(app, SERVER, url) as serving:
        yield Process(name, serving.pid, url), serving


async def _watched(app: Served, processes: list[Process]) -> dict[str, Idle]:
    """While a silent job of *app* is watched."""
    path = f"/jobs/{await asyncio.to_thread(app.start, 'watched')}/events"
    async with opened(Counting, app.port, [path] * WATCHERS):
        await asyncio.sleep(SETTLE_S)
        return await _looked(processes)


async def _looked(processes: list[Process]) -> dict[str, Idle]:
    """All at the same time: each has a store for itself, which counts."""
    before, began = [_processor_s(one) for one in processes], time.monotonic()
    async with AsyncExitStack() as stack:
        asked = [stack.enter_context(Asked(one.url)) for one in processes]
        await asyncio.sleep(LOOK_S)
    seconds = time.monotonic() - began
    found = {}
    for one, of, at in zip(processes, asked, before, strict=True):
        found[one.name] = Idle(
            trips=of.trips / seconds,
            commands=of.commands.total() / seconds,
            said=", ".join(f"{n / seconds:.2g} {c}" for c, n in of.commands.most_common(4)),
            processor_ms=1000 * (_processor_s(one) - at) / seconds,
        )
    return found


def _processor_s(process: Process) -> float:
    return sum(map(processor_s, pids(process.pid)))


# ── what is told of it ────────────────────────────────────────────────────────────────────────


def _commands(found: dict[str, Idle]) -> Finding:
    return Finding(
        slug="idle-store",
        title="What an idle process asks of the store",
        unit="commands a second",
        base=WORKER,
        rows=[
            Row(name, one.commands, f"{one.trips:.2g} round trips a second: {one.said}")
            for name, one in found.items()
            if name != BARE
        ],
        words=(
            f"{LOOK_S:g} s, with a store for each. Each worker is started by the command of its "
            "library, with its defaults, and has run one job before; then there is nothing to do. "
            "Headway's workers are those of taskiq's Redis stream broker: what they ask for "
            "messages is in it. In the second web process a job runs that says nothing, and "
            f"{WATCHERS} streams watch it."
        ),
    )


def _processor(found: dict[str, Idle]) -> Finding:
    return Finding(
        slug="idle-processor",
        title="What an idle process takes of the processor",
        unit="ms a second",
        base=WORKER,
        rows=[Row(name, one.processor_ms) for name, one in found.items()],
        words=(
            "The same, all processes of each together: taskiq's and Celery's commands start some "
            "that only look after the others, and Celery one child for each core. The web "
            f"processes are {SERVER}'s, which wakes ten times a second by itself. For each stream "
            "Headway says once in 15 s that it is alive, and while a job runs here it looks ten "
            "times a second whether there is news of it."
        ),
    )
