"""How many jobs a second, how soon one of them is done, and how long it takes to accept one.

In one process, which accepts jobs and works; and in two, one of which is a worker.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Final

import psutil
import redis

from bench.measure import Budget, Finding, Row, percentile, taken_in_turns
from bench.peers.celery import CeleryPeer
from bench.peers.contract import RAN, Peer, Worker, full_name, worker
from bench.peers.docket import DocketPeer
from bench.peers.headway import HeadwayPeer
from bench.peers.saq import SaqPeer
from bench.peers.streaq import StreaqPeer
from bench.peers.taskiq import TaskiqPeer
from bench.processor import processor_s
from bench.store import free_port, fresh_store

ROUNDS: Final = 3
RATE_ROUNDS: Final = 5  # some of these are close to each other
TURN_S: Final = 0.4  # of work; how many jobs that is, is seen while warming up
WARM: Final = 30
STARTERS: Final = 16
SINGLES: Final = 4  # at least, and as many as fit into a turn
RATE: Final = 200.0  # jobs a second, when it is looked how long accepting takes
LOAD_S: Final = 0.6
LOOK_S: Final = 0.005
LAST_S: Final = 0.05  # the store knows of the last end; its answer is on the way to the worker
DEADLINE_S: Final = 30.0
BUDGET: Final = 1_500
WHY: Final = (
    "Most of the time goes into reading answers of the store: two of a job's bring its whole "
    "record, field by field, which the client parses in Python."
)


@dataclass
class Contender:
    """A library as it is set; where it is kept in the store; and, in two processes, its worker."""

    peer: Peer
    url: str
    worker: Worker | None = None
    processor_us: list[float] = field(default_factory=list)
    """Of all its processes, for a job; one of each turn."""
    accepting_s: list[float] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether it works in this process."""
        return self.worker is None

    def processor_s(self) -> float:
        """What its processes have taken until now, in seconds."""
        taken = time.process_time()
        if self.worker is not None:
            pid = self.worker.pid
            children = psutil.Process(pid).children(recursive=True)
            taken += sum(processor_s(one) for one in (pid, *(child.pid for child in children)))
        return taken


def measure() -> list[Finding]:
    """See `bench`."""
    port = free_port()
    with fresh_store(port=port):
        server = f"redis://127.0.0.1:{port}"
        one = [Contender(peer, f"{server}/{n}") for n, peer in enumerate(_here())]
        found = _measured(one, "one", "In one process", _words_here(), BUDGET)
        with redis.Redis.from_url(server) as store:
            store.flushall()
        with _working(server) as two:
            found += _measured(two, "two", "In two processes", _words_apart())
    return found


def _here() -> list[Peer]:
    return [HeadwayPeer(), *_peers()]


def _apart() -> list[Peer]:
    return [HeadwayPeer(remote=True), *_peers(), CeleryPeer(), CeleryPeer(tuned=True)]


def _peers() -> list[Peer]:
    kinds: list[Callable[..., Peer]] = [DocketPeer, TaskiqPeer, StreaqPeer, SaqPeer]
    return [kind(tuned=tuned) for kind in kinds for tuned in (False, True)]


@contextmanager
def _working(server: str) -> Iterator[list[Contender]]:
    """Each with a worker, which has shown that it works."""
    contenders = []
    with ExitStack() as stack:
        for n, peer in enumerate(_apart()):
            url = f"{server}/{n}"
            contenders.append(Contender(peer, url, stack.enter_context(worker(peer, url))))
        for contender in contenders:
            _wait_for(contender)
        yield contenders


def _wait_for(contender: Contender) -> None:
    assert contender.worker is not None
    try:
        asyncio.run(_opened(contender, _nothing_more))
    except TimeoutError as error:
        name, said = full_name(contender.peer), contender.worker.said()
        raise RuntimeError(f"the worker of {name} does not work: {said}") from error


# ── what is done ──────────────────────────────────────────────────────────────────────────────


def _measured(
    contenders: Sequence[Contender], slug: str, where: str, words: str, budget: int = 0
) -> list[Finding]:
    rates = _in_turns(_throughput, [c for c in contenders if not _only_asks(c)], RATE_ROUNDS)
    waiting = [c for c in contenders if not c.peer.tuning or _only_asks(c)]
    singles = _in_turns(_single, waiting, ROUNDS)
    # Docket's defaults cannot take so many.
    loaded = [c for c in contenders if bool(c.peer.tuning) == isinstance(c.peer, DocketPeer)]
    accepting = _in_turns(_accepting, loaded, 2)
    return [
        _rates_found(rates, contenders, slug, where, words, budget),
        _singles_found(singles, slug, where),
        _accepting_found(accepting, loaded, slug, where),
    ]


def _only_asks(contender: Contender) -> bool:
    """What is tuned is how it asks for results, which takes no part in the throughput."""
    return isinstance(contender.peer, TaskiqPeer) and bool(contender.peer.tuning)


Act = Callable[[Contender, redis.Redis], Awaitable[float]]


def _in_turns(act: Act, contenders: Sequence[Contender], rounds: int) -> dict[str, float]:
    turns = {full_name(c.peer): partial(_turn, c, act) for c in contenders}
    return taken_in_turns(turns, rounds=rounds)


def _turn(contender: Contender, act: Act) -> float:
    gc.collect()  # each begins with the same heap, and pays for its own
    return asyncio.run(_opened(contender, act))


async def _opened(contender: Contender, act: Act) -> float:
    peer = contender.peer
    with redis.Redis.from_url(contender.url) as store:
        async with peer.opened(contender.url, works=contender.works):
            async with asyncio.timeout(DEADLINE_S):
                await peer.ended(await peer.start())
                found = await act(contender, store)
            await asyncio.sleep(LAST_S)
        return found


async def _nothing_more(contender: Contender, store: redis.Redis) -> float:
    return 0.0


async def _throughput(contender: Contender, store: redis.Redis) -> float:
    """Jobs a second, from the first start to the last end."""
    warm = WARM / await _seconds(contender, store, WARM)
    jobs = max(round(warm * TURN_S), WARM // 2)
    before = contender.processor_s()
    rate = jobs / await _seconds(contender, store, jobs)
    contender.processor_us.append((contender.processor_s() - before) / jobs * 1e6)
    return rate


async def _seconds(contender: Contender, store: redis.Redis, jobs: int) -> float:
    peer, until, numbers = contender.peer, RAN.jobs + jobs, iter(range(jobs))

    async def start() -> None:
        for _ in numbers:
            await peer.start()

    began = time.perf_counter()
    await asyncio.gather(*(start() for _ in range(STARTERS)))
    await _all_ended(contender, store, until)
    return time.perf_counter() - began


async def _all_ended(contender: Contender, store: redis.Redis, ran: int) -> None:
    while contender.works and RAN.jobs < ran:  # to look there would cost who works here
        await asyncio.sleep(LOOK_S)
    while contender.peer.left(store):
        await asyncio.sleep(LOOK_S)


async def _single(contender: Contender, store: redis.Redis) -> float:
    """Milliseconds from starting a job to knowing its result, one after another."""
    found: list[float] = []
    until = time.perf_counter() + TURN_S
    while len(found) < SINGLES or time.perf_counter() < until:
        began = time.perf_counter()
        await contender.peer.ended(await contender.peer.start())
        found.append((time.perf_counter() - began) * 1e3)
    return median(found)


async def _accepting(contender: Contender, store: redis.Redis) -> float:
    """Milliseconds that `start()` takes while jobs come at a rate that does not wait for it."""
    peer, jobs, until = contender.peer, round(RATE * LOAD_S), RAN.jobs

    async def start(at: float) -> float:
        await asyncio.sleep(at - time.perf_counter())
        began = time.perf_counter()
        await peer.start()
        return time.perf_counter() - began

    now = time.perf_counter()
    took = await asyncio.gather(*(start(now + n / RATE) for n in range(jobs)))
    contender.accepting_s += took
    await _all_ended(contender, store, until + jobs)
    return median(took) * 1e3


# ── what is told of it ────────────────────────────────────────────────────────────────────────


def _rates_found(
    rates: Mapping[str, float],
    contenders: Sequence[Contender],
    slug: str,
    where: str,
    words: str,
    budget: int,
) -> Finding:
    processor = {full_name(c.peer): c.processor_us for c in contenders}
    promised = f"> {budget:,} jobs/s in one process"
    ours = rates["Headway"]
    return Finding(
        slug=f"jobs-{slug}",
        title=f"{where}: jobs a second",
        unit="jobs/s",
        better="more",
        rows=[
            Row(name, rate, f"{median(processor[name]):,.0f} µs of processor time a job")
            for name, rate in rates.items()
        ],
        words=words,
        budgets=[Budget(promised, f"{ours:,.0f} jobs/s", ours > budget, WHY)] if budget else [],
    )


def _words_here() -> str:
    return (
        f"Jobs that do nothing, started by {STARTERS} coroutines at a time in the process that "
        "works, too: from the first start to the last end in the store. Each library at its "
        "defaults, and then with what is named set. While all its places are taken, docket sleeps: "
        "it does no more than its concurrency (10) in each check interval (0.25 s). A job of "
        "Headway's has an owner, and a record that is announced at each change; the others keep "
        "less of a job. Celery is missing: it cannot work on an event loop."
    )


def _words_apart() -> str:
    return (
        "The same with a worker in a process of its own, as each library's command starts it: "
        "`headway worker`, `docket worker`, `taskiq worker --workers 1`, `streaq run`, `saq`, and "
        "`celery worker`, which is three processes. Headway pays twice here: for a message of "
        "taskiq's and for its own record. Its worker takes no more messages than it can begin at "
        "once, the others take what comes. Processor time is that of all processes together, "
        "without the store's."
    )


def _singles_found(singles: Mapping[str, float], slug: str, where: str) -> Finding:
    return Finding(
        slug=f"jobs-latency-{slug}",
        title=f"{where}: from starting a job to knowing its result",
        unit="ms",
        rows=[Row(name, ms) for name, ms in singles.items()],
        words=(
            "One job that does nothing after another, the middle one. Waited for with "
            "`headway.watch()`, docket's `get_result()`, taskiq's `wait_result()`, streaQ's "
            "`task.result()`, SAQ's `job.refresh(until_complete=1)`, Celery's `get()` in a thread. "
            "taskiq asks again and again: what has not ended at the first time costs its interval. "
            "SAQ does not hear of an end that comes while it begins to listen: now and then it is "
            "known a second later."
        ),
    )


def _accepting_found(
    accepting: Mapping[str, float], contenders: Sequence[Contender], slug: str, where: str
) -> Finding:
    took: dict[str, Any] = {full_name(c.peer): c.accepting_s for c in contenders}
    return Finding(
        slug=f"jobs-accept-{slug}",
        title=f"{where}: accepting a job under load",
        unit="ms, p50",
        rows=[
            Row(name, ms, f"p99 {percentile(took[name], 99) * 1e3:.3g} ms")
            for name, ms in accepting.items()
        ],
        words=(
            f"`start()` while {RATE:g} jobs that do nothing come in a second, whether or not those "
            "before them are accepted yet. Celery's blocks, and so runs in a thread. Docket is "
            "tuned, as its defaults cannot take so many."
        ),
    )
