"""Around samples that stand inside of a task: it runs as a job, and has to succeed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

from headway import Headway, Progress

rows = ["one", "two"]
paths = ["one.png", "two.png"]
n = len(rows)
headway = Headway(os.environ["HEADWAY_URL"], prefix=os.environ["HEADWAY_PREFIX"])


def lines() -> Iterator[str]:
    yield from rows


async def stream() -> AsyncIterator[str]:
    for row in rows:
        yield row


@headway.task
async def resize(progress: Progress, path: str) -> None:
    progress.note(path)


@headway.task
async def work(progress: Progress) -> None:
    progress.note("Here it is:")
    # the sample


async def main() -> None:
    async with headway:
        started = await work.start()
        states = [job.state async for job in headway.watch(started.id)]
        assert states[-1] == "succeeded", await headway.attempts(started.id)


asyncio.run(main())
