"""Fan-out: what an event for each of a thousand streams costs, what a stream holds, and 5,000."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Final

from bench.clients import Counting, opened
from bench.measure import Budget, Finding, Row
from bench.served import SERVERS, Served, served
from bench.sites import EVERY_S
from bench.store import fresh_store

STREAMS: Final = 1_000
FEW: Final = 100  # after these a server holds all that it holds but once
MANY: Final = 5_000
ROUNDS: Final = 3
ROUND_S: Final = 1.2
WARM_S: Final = 0.3
REST_S: Final = 0.3  # what is under way arrives
FULL_S: Final = 4.0
IDLE_S: Final = 15.0  # in which each stream has its heartbeat
MANY_ON: Final = "uvicorn"
SHARE: Final = 0.9
ROOM: Final = 1.5

BARE: Final = "bare ASGI app"
PLAIN: Final = "Headway"
BARE_QUART: Final = "bare Quart app"
QUART: Final = "Headway in Quart"
APPS: Final = {BARE: "bare", PLAIN: "plain", BARE_QUART: "bare_quart", QUART: "quart"}


@dataclass
class Turn:
    """One round of one app."""

    events_per_s: float
    processor_us: float
    processor: float
    slowest: float


@dataclass
class Seen:
    """What was found out about one app on one server; of several turns the middle one."""

    turns: list[Turn] = field(default_factory=list)
    stream_bytes: float = 0.0
    idle: float = 0.0
    """The part of one core that its processes take while nothing happens."""

    @property
    def events_per_s(self) -> float:
        """What has arrived, at all streams together."""
        return statistics.median(turn.events_per_s for turn in self.turns)

    @property
    def processor_us(self) -> float:
        """Processor time of all its processes for each event that has arrived."""
        return statistics.median(turn.processor_us for turn in self.turns)

    @property
    def processor(self) -> float:
        """The part of one core that they took."""
        return statistics.median(turn.processor for turn in self.turns)

    @property
    def slowest(self) -> float:
        """How much of what the quickest stream has got the slowest one has got, at worst."""
        return min(turn.slowest for turn in self.turns)


def measure() -> list[Finding]:
    """See `bench`."""
    seen = {}
    for server in SERVERS:
        found = asyncio.run(_thousand(server))
        seen.update({f"{name}, on {server}": one for name, one in found.items()})
    many = asyncio.run(_many(MANY_ON))
    return [_cost(seen), _delivered(seen), _memory(seen), _full(many), _idle(many)]


# ── what is done ──────────────────────────────────────────────────────────────────────────────


async def _thousand(server: str) -> dict[str, Seen]:
    """Each app with its streams, all open at a time; one of them is fed, in turns."""
    seen = {name: Seen() for name in APPS}
    with ExitStack() as processes:
        apps = _started(server, APPS.values(), processes)
        async with AsyncExitStack() as clients:
            streams = {}
            for (name, one), app in zip(seen.items(), apps, strict=True):
                streams[name] = await _opened(app, clients, FEW, STREAMS, one)
            for _ in range(ROUNDS):
                for (name, one), app in zip(seen.items(), apps, strict=True):
                    one.turns.append(await _fed(app, streams[name], ROUND_S))
    return seen


async def _many(server: str) -> dict[str, Seen]:
    """The same for very many streams, of the two that are compared."""
    seen = {BARE: Seen(), PLAIN: Seen()}
    with ExitStack() as processes:
        apps = _started(server, [APPS[name] for name in seen], processes)
        async with AsyncExitStack() as clients:
            for one, app in zip(seen.values(), apps, strict=True):
                streams = await _opened(app, clients, STREAMS, MANY, one)
                one.turns.append(await _fed(app, streams, FULL_S))
            before, began = [app.processor_s() for app in apps], time.monotonic()
            await asyncio.sleep(IDLE_S)
            took_s = time.monotonic() - began
            for one, app, at in zip(seen.values(), apps, before, strict=True):
                one.idle = (app.processor_s() - at) / took_s
    return seen


def _started(server: str, apps: Iterable[str], processes: ExitStack) -> list[Served]:
    enter = processes.enter_context
    return [enter(served(app, server, enter(fresh_store()))) for app in apps]


async def _opened(
    app: Served, clients: AsyncExitStack, few: int, all_of_them: int, seen: Seen
) -> list[Counting]:
    """Streams of the job `watched`; notes how much each holds beyond the first *few*."""
    path = f"/jobs/{await asyncio.to_thread(app.start, 'watched')}/events"
    streams: list[Counting] = []
    held = []
    for count in (few, all_of_them - few):
        more = opened(Counting, app.port, [path] * count)
        streams += await clients.enter_async_context(more)
        await asyncio.to_thread(app.go, WARM_S)
        await asyncio.sleep(REST_S)
        held.append(app.memory_bytes())
    seen.stream_bytes = (held[1] - held[0]) / (all_of_them - few)
    return streams


async def _fed(app: Served, streams: list[Counting], seconds: float) -> Turn:
    before, at = [stream.events for stream in streams], app.processor_s()
    took_s = await asyncio.to_thread(app.go, seconds)
    await asyncio.sleep(REST_S)
    processor_s = app.processor_s() - at
    events = [stream.events - old for stream, old in zip(streams, before, strict=True)]
    return Turn(
        events_per_s=sum(events) / took_s,
        processor_us=1e6 * processor_s / sum(events),
        processor=processor_s / (took_s + REST_S),
        slowest=min(events) / max(events),
    )


# ── what is told of it ────────────────────────────────────────────────────────────────────────


def _against(seen: Mapping[str, Seen], name: str, bare: str, of: str) -> dict[str, float]:
    """By server: a figure of the app *name* as a multiple of that of *bare*."""
    return {
        server: getattr(seen[f"{name}, on {server}"], of)
        / getattr(seen[f"{bare}, on {server}"], of)
        for server in SERVERS
    }


def _said(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{server} {ratio:.2f}" for server, ratio in ratios.items())


def _rows(seen: Mapping[str, Seen], of: str, *, in_units: float = 1.0) -> list[Row]:
    """A row for each; of Headway with how many times the same without it."""
    rows = []
    for title, one in seen.items():
        name, _, server = title.partition(", on ")
        bare = {PLAIN: BARE, QUART: BARE_QUART}.get(name)
        note = ""
        if bare is not None:
            ratio = _against(seen, name, bare, of)[server]
            note = f"{ratio:.2f} × the {bare}"
        rows.append(Row(title, getattr(one, of) / in_units, note))
    return rows


def _cost(seen: Mapping[str, Seen]) -> Finding:
    return Finding(
        slug="fanout-cost",
        title="What it costs a server to tell one stream of one change",
        unit="µs of a processor",
        base=f"{PLAIN}, on {MANY_ON}",
        rows=_rows(seen, "processor_us"),
        words=(
            f"{STREAMS:,} streams of one job in one process of a server. The job reports all the "
            f"time, so that it is written ten times a second, and each stream is told each time: "
            f"about 770 bytes. {ROUNDS} turns of {ROUND_S:g} s for each app; what its processes "
            "take, by the events that arrive at real clients. In Headway's figure are the job "
            "itself and what it writes to the store. The bare apps push the same bytes with the "
            "same headers from one source, ten times a second: they keep the newest bytes and one "
            "event for all streams, and know of no owners, no heartbeats, no slow clients and no "
            "end. Servers as pip installs them: without uvloop and httptools."
        ),
    )


def _delivered(seen: Mapping[str, Seen]) -> Finding:
    ours = _against(seen, PLAIN, BARE, "events_per_s")
    quarts = _against(seen, QUART, BARE, "events_per_s")
    slowest = min(one.slowest for title, one in seen.items() if title.startswith(PLAIN))
    return Finding(
        slug="fanout-delivered",
        title=f"Events that arrive at {STREAMS:,} streams, ten times a second each",
        unit="events a second",
        better=None,
        base=f"{PLAIN}, on {MANY_ON}",
        rows=[
            Row(title, one.events_per_s, f"{one.processor:.0%} of a core")
            for title, one in seen.items()
        ],
        words=(
            "The same turns. An app that has time left delivers all, so this is no contest, and "
            f"tells nothing but that it had: {STREAMS / EVERY_S:,.0f} is ten a second. The bare "
            "apps' source is late by its own work; of a job that was silent the first report is "
            "written at once, which makes some more. Of what the quickest of Headway's streams "
            f"got, the slowest got {slowest:.0%}: a stream that is late is told the newest state, "
            "and not each in between."
        ),
        budgets=[
            Budget(
                "fan-out, 1,000 streams × 10 events/s, one process: ≥ 90 % of a bare ASGI app "
                "pushing the same bytes",
                f"as a part of it: {_said(ours)}; in Quart {_said(quarts)}",
                min(*ours.values(), *quarts.values()) >= SHARE,
                "The server had not the processor time for it in this run.",
            )
        ],
    )


def _memory(seen: Mapping[str, Seen]) -> Finding:
    ours = _against(seen, PLAIN, BARE, "stream_bytes")
    quarts = _against(seen, QUART, BARE_QUART, "stream_bytes")
    return Finding(
        slug="fanout-memory",
        title="Memory of an open stream",
        unit="KiB",
        base=f"{PLAIN}, on {MANY_ON}",
        rows=_rows(seen, "stream_bytes", in_units=1024),
        words=(
            f"What the server's processes hold alone (USS) with {STREAMS:,} streams, less what "
            f"they hold with {FEW}, by the number of streams in between; all have had events."
        ),
        budgets=[
            Budget(
                "memory per open stream ≤ 1.5 × a bare ASGI stream",
                f"{_said(ours)}; in Quart, beside a bare Quart stream: {_said(quarts)}",
                max(*ours.values(), *quarts.values()) <= ROOM,
                "What Headway keeps for each stream weighs most where the server keeps least.",
            )
        ],
    )


def _full(many: Mapping[str, Seen]) -> Finding:
    return Finding(
        slug="fanout-full",
        title=f"{MANY:,} streams in one process, and more to say than it can",
        unit="events a second",
        better="more",
        rows=[
            Row(
                name,
                one.events_per_s,
                f"{one.processor:.0%} of a core, {one.processor_us:.0f} µs for each event; "
                f"{one.stream_bytes / 1024:.1f} KiB for each stream; "
                f"the slowest stream got {one.slowest:.0%} of what the quickest got",
            )
            for name, one in many.items()
        ],
        words=(
            f"On {MANY_ON}, with `Limits(streams_per_process=…, streams_per_owner=…)` raised: "
            f"{MANY:,} streams × 10 events a second would be {MANY / EVERY_S:,.0f}. All streams "
            "are in one process, and all clients in another. Where the processor time ends, "
            "streams are told the newest state less often; none is forgotten. Headway's job runs "
            "in the same process: while that tells its streams, the job waits, and has the less to "
            "say. So its core is not full; with the work elsewhere it could tell as many as the "
            "time for each event allows."
        ),
    )


def _idle(many: Mapping[str, Seen]) -> Finding:
    return Finding(
        slug="fanout-idle",
        title=f"What {MANY:,} streams cost that have nothing to say",
        unit="% of a core",
        rows=[Row(name, 100 * one.idle) for name, one in many.items()],
        words=(
            f"The same streams, {IDLE_S:g} s long: Headway says of each that it is alive, once in "
            "that time, and renews the lease of the job; the bare app does nothing at all."
        ),
    )
