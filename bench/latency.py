"""Latency: from the line of code that reports to the client that has been told."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from multiprocessing import get_context
from typing import Any, Final

import httpx

from bench.clients import Timing, opened
from bench.measure import Budget, Finding, Row, percentile
from bench.served import Served, served
from bench.store import fresh_store

SERVER: Final = "uvicorn"
STREAMS: Final = 1_000
JOBS: Final = 20
SECONDS: Final = 8.0
SHORT_S: Final = 5.0
OPENING_S: Final = 3.0  # what it takes to open very many streams
SELDOM_S: Final = (0.1, 0.9)  # between two reports
OFTEN_S: Final = (0.0, 0.02)
ENDS_S: Final = (0.2, 0.8)  # how long those live that are to end
TUTORIAL_S: Final = 1.0
CELERY_S: Final = 0.5
P50_MS: Final = 60.0
P99_MS: Final = 200.0
END_P99_MS: Final = 30.0

OURS: Final = "Headway"
BUSY: Final = "Headway, reports all the time"
CROWD: Final = f"Headway, {STREAMS:,} streams of the job"
CELERY: Final = f"asked each {CELERY_S:g} s, as celery-progress does"
TUTORIAL: Final = f"asked each {TUTORIAL_S:g} s, as the tutorial does"
BESIDE: Final = f"Headway, beside {STREAMS:,} streams"

Delays = list[float]
"""From what was said to what was heard, in ms."""


def measure() -> list[Finding]:
    """See `bench`."""
    with fresh_store() as url, served("plain", SERVER, url) as app:
        told, ended = asyncio.run(_all(app))
    return [_progress(told), _ends(ended)]


# ── what is done ──────────────────────────────────────────────────────────────────────────────


async def _all(app: Served) -> tuple[dict[str, Delays], dict[str, Delays]]:
    told = {OURS: await _streamed(app, JOBS, SELDOM_S, SECONDS)}
    told[BUSY] = await _streamed(app, JOBS // 4, OFTEN_S, SHORT_S)
    told[CELERY], told[TUTORIAL] = await _polled(app, (CELERY_S, TUTORIAL_S))
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        run = asyncio.get_running_loop().run_in_executor
        ended = {OURS: await run(elsewhere, _ends_of, app.port, SHORT_S, 0.0)}
        told[CROWD], ended[BESIDE] = await asyncio.gather(
            _streamed(app, 1, SELDOM_S, SECONDS + OPENING_S, each=STREAMS),
            run(elsewhere, _ends_of, app.port, SECONDS, OPENING_S),
        )
    return told, ended


async def _streamed(
    app: Served, jobs: int, gaps_s: tuple[float, float], seconds: float, *, each: int = 1
) -> Delays:
    """Jobs that note the time at random moments, and *each* so many streams of them."""
    async with AsyncExitStack() as clients:
        streams: list[Timing] = []
        for _ in range(jobs):
            path = f"/jobs/{await _reporting(app, seconds, gaps_s)}/events"
            streams += await clients.enter_async_context(opened(Timing, app.port, [path] * each))
        began_at = time.monotonic_ns()
        await asyncio.gather(*(stream.over.wait() for stream in streams))
        return [
            delay
            for stream in streams
            for delay in _delays(_last(stream)["result"], stream.notes(), began_at)
        ]


async def _polled(app: Served, intervals_s: Sequence[float]) -> list[Delays]:
    """Jobs that do the same, and clients that ask for them at each of the intervals."""
    address = f"http://127.0.0.1:{app.port}"
    async with httpx.AsyncClient(base_url=address) as http:
        ids = [await _reporting(app, SHORT_S, SELDOM_S) for _ in range(JOBS)]
        asking = [_asked(http, f"/jobs/{one}", every) for every in intervals_s for one in ids]
        found = await asyncio.gather(*asking)
    return [
        [delay for delays in found[first : first + JOBS] for delay in delays]
        for first in range(0, len(found), JOBS)
    ]


async def _asked(http: httpx.AsyncClient, path: str, every_s: float) -> Delays:
    await asyncio.sleep(random.uniform(0, every_s))
    heard, job = [], {"state": "running"}
    while job["state"] in {"queued", "running"}:
        job = (await http.get(path)).json()
        if job["note"]:
            heard.append((time.monotonic_ns(), int(job["note"])))
        await asyncio.sleep(every_s)
    return _delays(job["result"], heard, heard[0][0])


async def _reporting(app: Served, seconds: float, gaps_s: tuple[float, float]) -> str:
    return await asyncio.to_thread(app.start, "reports", seconds=seconds, gaps_s=gaps_s)


def _ends_of(port: int, seconds: float, after_s: float) -> Delays:
    """In a process of its own: what a thousand streams bring must not hold up what is timed."""
    time.sleep(after_s)
    return asyncio.run(_ending(port, time.monotonic() + seconds))


async def _ending(port: int, until: float) -> Delays:
    """Jobs that end at a random moment, one after another in some lines, each with a stream."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        lines = [_ending_one(http, port, until) for _ in range(JOBS // 2)]
        return [delay for line in await asyncio.gather(*lines) for delay in line]


async def _ending_one(http: httpx.AsyncClient, port: int, until: float) -> Delays:
    found, wanted = [], {"task": "ends", "options": {"within_s": ENDS_S}}
    while time.monotonic() < until:
        job = (await http.post("/start", json=wanted)).json()["id"]
        async with opened(Timing, port, [f"/jobs/{job}/events"]) as (stream,):
            await stream.over.wait()
        told, (at, _) = _last(stream), stream.heard[-1]
        said = int(told["result"] or told["error"]["title"])
        if stream.heard[0][0] < said:  # else it has come too late to be told of the end
            found.append((at - said) / 1e6)
    return found


def _last(stream: Timing) -> dict[str, Any]:
    """The job as its stream told it at last."""
    found: dict[str, Any] = json.loads(stream.heard[-1][1].partition(b"data: ")[2])
    return found


def _delays(said: Iterable[str], heard: Sequence[tuple[int, int]], since: int) -> Delays:
    """How long each instant that was said *since* then took until it, or a later one, was heard."""
    found, rest = [], iter(heard)
    at, newest = next(rest)
    for instant in (one for one in map(int, said) if one >= since):
        while newest < instant:
            at, newest = next(rest)
        found.append((at - instant) / 1e6)
    return found


# ── what is told of it ────────────────────────────────────────────────────────────────────────


def _both(delays: Delays) -> str:
    return f"p50 {percentile(delays, 50):.1f} ms, p99 {percentile(delays, 99):.1f} ms"


def _rows(found: dict[str, Delays], percent: float) -> list[Row]:
    return [
        Row(name, percentile(delays, percent), f"{_both(delays)}, of {len(delays):,}")
        for name, delays in found.items()
    ]


def _keeps(delays: Delays) -> bool:
    return percentile(delays, 50) <= P50_MS and percentile(delays, 99) <= P99_MS


def _progress(told: dict[str, Delays]) -> Finding:
    return Finding(
        slug="latency-progress",
        title="From a task's line of code to the client: progress",
        unit="ms, p50",
        base=OURS,
        rows=_rows(told, 50),
        words=(
            "The task notes the time, and a client in another process looks at its clock, which "
            "is the same, when it has been told of that time or a later one: over HTTP, through "
            f"the store, from {SERVER}. {JOBS} jobs with a stream each report at random moments, "
            f"{SELDOM_S[0]:g} to {SELDOM_S[1]:g} s apart. What comes after a pause is written at "
            "once; what comes sooner than 0.1 s after the last waits for the rest of that time. A "
            f"job that reports all the time ({2 / sum(OFTEN_S):.0f} times a second) is written ten "
            "times a second, so that a report waits 0.05 s in the middle; only the newest is told. "
            f"With {STREAMS:,} streams of one job, each of them is counted: they are told one "
            "after another, and the last of them has to wait for all others. The clients that ask "
            "(`GET /jobs/ID`) ask this very server: what they lose is their interval."
        ),
        budgets=[
            Budget(
                f"progress → browser: p50 ≤ {P50_MS:g} ms, p99 ≤ {P99_MS:g} ms",
                _both(told[OURS]),
                _keeps(told[OURS]),
            ),
            Budget(
                "the same for a job that reports all the time",
                _both(told[BUSY]),
                _keeps(told[BUSY]),
            ),
            Budget(
                f"the same for {STREAMS:,} streams of one job",
                _both(told[CROWD]),
                _keeps(told[CROWD]),
                "One process tells them one after another.",
            ),
        ],
    )


def _ends(ended: dict[str, Delays]) -> Finding:
    quick, beside = (percentile(ended[name], 99) for name in (OURS, BESIDE))
    return Finding(
        slug="latency-ends",
        title="From a task's last line of code to the client: its end",
        unit="ms, p99",
        better=None,
        base=OURS,
        rows=_rows(ended, 99),
        words=(
            "Jobs that succeed or fail at a random moment, with a stream each; the time is in the "
            f"result, or in the words of the error. Beside {STREAMS:,} streams of another job, "
            "which reports about twice a second: who comes while these are told waits until all of "
            "them are."
        ),
        budgets=[
            Budget(
                f"end states: p99 ≤ {END_P99_MS:g} ms", f"p99 {quick:.1f} ms", quick <= END_P99_MS
            ),
            Budget(
                f"the same beside {STREAMS:,} streams of a job that reports",
                f"p99 {beside:.1f} ms",
                beside <= END_P99_MS,
                "It waits while one process tells a thousand others.",
            ),
        ],
    )
