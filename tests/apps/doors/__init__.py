"""One app, written for each door: what it does stands here, and each door translates it.

GET  /                names the visitor, and shows the bars of their jobs
POST /start/<task>    starts one, and answers with `reply()`
GET  /mine/<id>       the bar of one job, for who may watch it
GET  /streams         how many are open
POST /broken          raises what is no error of Headway
WS   /ws              starts a job, and says its id (not in django and plain)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

from headway import Headway, Progress
from headway.limits import Limits

__all__ = ["DOORS", "Site", "make"]

DOORS = ["quart", "starlette", "fastapi", "litestar", "django", "plain"]
STEP_S = 0.01
LIMITS = Limits(jobs_per_owner=3, starts_per_minute=None)

MakeHeadway = Callable[..., Headway]


class Site:
    """What the app does, whatever the framework."""

    def __init__(self, headway: Headway) -> None:
        self.headway = headway
        self.open: list[str] = []
        """What the app's own lifespan has done, and whether Headway was open then."""
        self.tasks: dict[str, Any] = {
            "count": headway.task(name="count")(self._count),
            "long": headway.task(name="long")(self._long),
        }

    async def _count(self, progress: Progress) -> int:
        """Counts to five."""
        async for _ in progress.track(range(5), unit="row"):
            await asyncio.sleep(STEP_S)
        return 5

    async def _long(self, progress: Progress) -> None:
        """Works on until it is stopped."""
        async for _ in progress.track(range(10_000), unit="row"):
            await asyncio.sleep(STEP_S)

    async def page(self) -> str:
        owner = await self.headway.visitor()
        jobs = await self.headway.list(owner=owner) if owner else []
        return "<!doctype html>" + "".join(self.headway.bar(job) for job in jobs)

    async def start(self, task: str) -> Any:
        return await self.headway.reply(await self.tasks[task].start())

    async def mine(self, job_id: str) -> str:
        return self.headway.bar(await self.headway.mine(job_id))

    async def streams(self) -> dict[str, int]:
        return {"open": len(self.headway.streams)}

    async def broken(self) -> str:
        raise LookupError("this is no error of Headway")

    async def started(self) -> str:
        """For a websocket: starts a job, and tells its id."""
        job = await self.tasks["count"].start()
        return str(job.id)

    def note(self, what: str) -> None:
        """Write down what the app's own lifespan does."""
        is_open = self.headway._runtime is not None
        self.open.append(f"{what}, headway {'open' if is_open else 'closed'}")


def make(door: str, make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    """The app behind *door*, and its site."""
    return import_module(f"{__name__}.{door}_site").make(make_headway, **options)  # type: ignore[no-any-return]
