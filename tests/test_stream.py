"""When a stream beats, and when it is old: with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from headway import Headway
from headway.limits import Limits
from headway.stream import HEARTBEAT_S, RETRY_MS, STREAM_AGE_S, Stream, Streams
from headway.tokens import Viewer
from tests.conftest import MakeHeadway, Until
from tests.stepping import Clock

MANY = 40


@pytest.fixture
def clock() -> Clock:
    """The clock of the streams below."""
    return Clock()


@pytest.fixture
def streams(clock: Clock) -> Streams:
    """As many streams as a test wants."""
    return Streams(Limits(streams_per_owner=MANY, streams_per_process=MANY), clock=clock)


Open = Callable[[], Stream]


@pytest.fixture
async def open_one(
    streams: Streams, make_headway: MakeHeadway, until: Until
) -> AsyncIterator[Open]:
    """Opens a stream of a job that runs and reports nothing."""
    async with make_headway() as headway:
        job_id = await waiting(headway, until)

        def make() -> Stream:
            watcher = headway.hub.watcher([job_id])
            viewer = Viewer("ann")
            return streams.serve(watcher, viewer, "/jobs", single=True, since=streams.revocations)

        yield make
        for stream in [*streams._open]:
            await stream.aclose()


async def waiting(headway: Headway, until: Until) -> str:
    @headway.task
    async def wait() -> None:
        await asyncio.Event().wait()

    job = await wait.using(owner="ann").start()
    await until(lambda: headway._open_runtime("test").runner.running, "it runs")
    return job.id


async def after(stream: Stream, clock: Clock, seconds: float) -> bytes:
    """What the stream says next, *seconds* later."""
    clock.now += seconds
    stream.watcher.nudge()
    return await anext(stream)


async def begun(stream: Stream, clock: Clock) -> int:
    """Take the first words of a stream; the pause that it asks for, in ms."""
    first = (await anext(stream)).decode()
    assert b"event: job" in await anext(stream)
    return int(first.removeprefix("retry: "))


async def test_reconnections_are_spread(open_one: Open, clock: Clock) -> None:
    """Each stream asks for another pause, so that a restart is not followed by a stampede."""
    pauses = [await begun(open_one(), clock) for _ in range(MANY)]

    assert all(RETRY_MS[0] <= pause <= RETRY_MS[1] for pause in pauses)
    assert len({*pauses}) > MANY / 2
    assert max(pauses) - min(pauses) > (RETRY_MS[1] - RETRY_MS[0]) / 2


async def test_heartbeats_come_at_their_time(open_one: Open, clock: Clock) -> None:
    """Not before, and then again after as long."""
    stream = open_one()
    await begun(stream, clock)

    clock.now += HEARTBEAT_S - 0.1
    stream.watcher.nudge()
    early = asyncio.ensure_future(anext(stream))
    while stream.watcher._new:
        await asyncio.sleep(0)
    assert not early.done()
    clock.now += 0.1
    stream.watcher.nudge()

    assert b"event: hb" in await early
    assert b"event: hb" in await after(stream, clock, HEARTBEAT_S)


async def test_headers_say_nothing_of_the_connection(
    make_headway: MakeHeadway, until: Until
) -> None:
    """Not to buffer and not to change; how it is sent is the server's to say, and no one else's."""
    async with make_headway(identify=lambda _: "ann") as headway:
        job_id = await waiting(headway, until)
        transport = httpx.ASGITransport(headway.asgi, root_path="/jobs")
        async with httpx.AsyncClient(transport=transport) as http:
            answer = await http.head(f"http://site.test/jobs/{job_id}/events")

    wanted = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
    }
    hop_by_hop = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "trailer"}
    assert wanted.items() <= dict(answer.headers).items()
    assert not hop_by_hop & answer.headers.keys()


async def test_streams_grow_old_at_different_ages(open_one: Open, clock: Clock) -> None:
    """Each ends with `bye`, a fifth sooner or later: who may watch is asked again, not by all at
    once."""
    ages = []
    for _ in range(MANY):
        stream, born_at = open_one(), clock.now
        await begun(stream, clock)
        while b"event: hb" in (said := await after(stream, clock, HEARTBEAT_S)):
            pass
        assert said == b'event: bye\ndata: {"reason":"age"}\n\n'
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        ages.append(clock.now - born_at)

    assert min(ages) >= 0.8 * STREAM_AGE_S
    assert max(ages) <= 1.2 * STREAM_AGE_S + HEARTBEAT_S
    assert max(ages) - min(ages) > 0.2 * STREAM_AGE_S
