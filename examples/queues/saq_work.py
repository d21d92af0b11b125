"""A task of SAQ, shown as a job. Run it: saq saq_work.settings"""

import asyncio
import os
from contextlib import suppress

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from headway import Headway, JobCancelled

URL = os.environ["HEADWAY_URL"]
queue = RedisQueue(Redis.from_url(URL, socket_timeout=None))  # SAQ's reads wait longer than 5 s
headway = Headway(URL)


async def import_rows(ctx: dict[str, object], *, owner: str, rows: int) -> None:
    with suppress(JobCancelled):  # SAQ would take it for a task that is stuck
        async with headway, headway.report("Import", owner=owner) as progress:
            for _ in progress.track(range(rows), unit="row"):
                await asyncio.sleep(0.01)


settings = {"queue": queue, "functions": [import_rows]}
