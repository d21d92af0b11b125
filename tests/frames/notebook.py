"""Around a cell of a notebook: a coroutine on a loop that runs already. It has to succeed."""

from __future__ import annotations

import asyncio
import os

from headway import Headway

trained: list[int] = []
headway = Headway(os.environ["HEADWAY_URL"], prefix=os.environ["HEADWAY_PREFIX"])


def train(epoch: int) -> None:
    trained.append(epoch)


async def cell() -> None:
    # the sample
    async with headway:
        job = (await headway.list(owner="ann"))[0]
    assert (job.title, job.state, job.progress.done) == ("Training", "succeeded", 10)


asyncio.run(cell())
assert trained == list(range(10))
