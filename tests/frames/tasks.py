"""Around samples that define tasks: each runs as a job, on a path, and has to succeed."""

from __future__ import annotations

import asyncio
import os

from headway import Headway, Progress, Task  # noqa: F401 - the samples use it

headway = Headway(os.environ["HEADWAY_URL"], prefix=os.environ["HEADWAY_PREFIX"])


def rows(path: str) -> list[str]:
    return [path, path]


# the sample


async def main() -> None:
    tasks = [task for task in globals().values() if isinstance(task, Task)]
    assert tasks
    async with headway:
        for task in tasks:
            started = await task.start("orders.csv")
            states = [job.state async for job in headway.watch(started.id)]
            assert states[-1] == "succeeded", await headway.attempts(started.id)


asyncio.run(main())
