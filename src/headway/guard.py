"""Who may do what with which job, asked once for each request.

Someone else's job does not exist: it is refused with the same words as an id that nobody has.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Sequence
from typing import Protocol

from headway.access import Access
from headway.document import Figures
from headway.http import Request, from_here
from headway.job import Attempt, Job, is_id
from headway.overview import Filter, Listing
from headway.problems import Refused
from headway.tokens import Viewer
from headway.watch import Hub

__all__ = ["Guard", "Jobs"]


class Jobs(Protocol):
    """What the surface needs of the app-long object."""

    @property
    def hub(self) -> Hub: ...
    @property
    def task_names(self) -> builtins.list[str]: ...
    async def figures(self) -> Figures: ...
    async def get(self, job_id: str) -> Job: ...
    async def get_all(self, ids: Sequence[str]) -> builtins.list[Job]: ...
    async def cancel(self, job_id: str) -> Job: ...
    async def retry(self, job_id: str) -> Job: ...
    async def forget(self, job_id: str) -> bool: ...
    async def ping(self) -> float: ...
    async def overview(self, wanted: Filter, *, after: str | None = ...) -> Listing: ...
    async def log(self, job_id: str) -> builtins.list[str]: ...
    async def attempts(self, job_id: str) -> builtins.list[Attempt]: ...
    async def list(self, *, owner: str, limit: int = ...) -> builtins.list[Job]: ...


class Guard:
    """Lets pass who may, and raises `Refused` for everybody else.

    Args:
        jobs: reads them.
        access: tells who asks.
        origins: other sites whose pages may change things.
    """

    def __init__(self, jobs: Jobs, access: Access, origins: Sequence[str]) -> None:
        self._jobs = jobs
        self._access = access
        self._origins = origins

    async def viewer(self, request: Request) -> Viewer:
        """Who asks."""
        return await self._access.viewer(request)

    async def operator(self, request: Request) -> Viewer:
        """Who asks, if it is an operator: for everybody else there is nothing here."""
        viewer = await self.viewer(request)
        if not viewer.operator:
            raise Refused("not_found")
        return viewer

    def same_site(self, request: Request) -> None:
        """Refuse what a browser sends on behalf of another site."""
        if not from_here(request, self._origins):
            raise Refused("cross_origin")

    async def watchable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        """The job, if who asks may watch it, and who asks."""
        viewer = await self.viewer(request)
        if not is_id(job_id):
            raise Refused("not_found")
        job = await self._jobs.get(job_id)
        if not viewer.may_watch(job):
            raise Refused("not_found")
        if job.expired(time.time()):
            raise Refused("expired")
        return job, viewer

    async def changeable(self, request: Request, job_id: str) -> tuple[Job, Viewer]:
        """As `watchable()`, for a request that changes something. What is a further question."""
        self.same_site(request)
        return await self.watchable(request, job_id)
