"""A store that lives long does not grow."""

from __future__ import annotations

import asyncio

import redis

from headway import Headway
from tests.conftest import OwnServer, Until

JOBS = 2_000
KEEP_S = 1.0
SLACK_BYTES = 600_000  # buffers of connections, and what the allocator keeps


async def test_everything_goes_at_its_time(own_server: OwnServer, until: Until) -> None:
    """After many short jobs keys and memory are back at the floor, indexes included."""
    headway = Headway(own_server.url, secret="a secret of a test", keep_s=KEEP_S, drain_s=0)

    @headway.task
    async def work() -> None: ...

    with redis.Redis.from_url(own_server.url) as client:
        async with headway:
            store = headway._open_runtime("test").store
            floor = client.info("memory")["used_memory"]
            start = work.using(owner="ann").start
            jobs = await asyncio.gather(*(start() for _ in range(JOBS)))
            engine = headway._open_runtime("test").engine
            await until(lambda: not (engine._running or engine._queue), "all have ended")
            high = client.dbsize()

            async def swept() -> bool:
                await store.sweep(500)
                return bool(client.dbsize() == 0)

            await until(swept, "everything is gone", within_s=20)

            assert high >= JOBS
            assert await headway.list(owner="ann") == []
            assert len({job.id for job in jobs}) == JOBS
        assert client.info("memory")["used_memory"] < floor + SLACK_BYTES
