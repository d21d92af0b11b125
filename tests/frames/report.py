"""Around a script that reports: it has to succeed."""

from __future__ import annotations

import asyncio
import os

from headway import Headway

rows = ["one", "two"]
loaded: list[str] = []
headway = Headway(os.environ["HEADWAY_URL"], prefix=os.environ["HEADWAY_PREFIX"])


def load(row: str) -> None:
    loaded.append(row)


# the sample


async def look() -> None:
    async with headway:
        newest = (await headway.list(owner="ann"))[0]
    assert (newest.title, newest.state) == ("Nightly import", "succeeded")


asyncio.run(look())
assert loaded == rows
