"""A job that starts others and shows one bar over them.

Modelled on `asyncio.TaskGroup`: the block is left when all of its jobs have ended, and whatever
ends the block early ends them too. The ids of the jobs follow from the parent's id and their
order, so that a parent that is run again finds the ones that it had started, and starts none twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Protocol, Self

import msgspec

from headway.errors import BadInput, JobError, StoreError
from headway.job import Job, State, child_id
from headway.progress import Progress
from headway.task import Start, Task, Using

__all__ = ["Group"]

P = ParamSpec("P")
OnFailure = Literal["fail", "ignore"]
STOPPING_S: Final = 30.0  # how long a block that is left early waits for its jobs to stop

logger = logging.getLogger("headway.group")


class Jobs(Protocol):
    """What a group needs of the app-long object."""

    async def begin(self, start: Start) -> Job: ...
    async def cancel(self, job_id: str) -> Job: ...
    def watch(self, *ids: str) -> AsyncIterator[Job]: ...
    def aside(self) -> AbstractContextManager[None]: ...


class Group:
    """Made by `Headway.group()`; use it with `async with`, in an `async def` task.

    `jobs` holds the jobs as they were last seen, in the order of their start.
    """

    def __init__(self, jobs: Jobs, progress: Progress, *, on_failure: OnFailure) -> None:
        if progress.job_id is None:
            raise BadInput("group(): give it the Progress of the job that this code runs in")
        if on_failure not in {"fail", "ignore"}:
            raise BadInput(f"on_failure {on_failure!r}: give 'fail' or 'ignore'")
        self.jobs: list[Job] = []
        self._service = jobs
        self._progress = progress
        self._on_failure = on_failure
        self._following: list[asyncio.Task[None]] = []

    async def start(
        self, task: Task[P, Any] | Using[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job:
        """Start a job of this group: a task, or `task.using(…)`, with its arguments.

        It belongs to the owner of the parent, and is shown as a stage of it. One round trip.

        Raises:
            TypeError, BadInput: as `Task.start()`.
        """
        number = len(self.jobs)
        start = task.start_of(*args, **kwargs)
        if start.key is not None:
            raise BadInput("a job of a group cannot have a key: its place in the group is one")
        job_id = child_id(str(self._progress.job_id), self._progress.next_child())
        owner = start.owner if start.owned else self._progress.owner
        job = await self._service.begin(
            msgspec.structs.replace(start, job_id=job_id, owner=owner, owned=True)
        )
        self.jobs.append(job)
        follow = asyncio.create_task(self._follow(number, job), name=f"headway-child-{job.id}")
        self._following.append(follow)
        return job

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the jobs, or cancel them if the block has failed or was cancelled.

        Raises:
            JobError: one of them failed, and the group was to fail with it; code `child_failed`.

        Cancel: the jobs are cancelled, and waited for (30 s at most).
        """
        try:
            # The parent does nothing meanwhile, so it must not take the place of its children.
            with self._service.aside():
                if error is None:
                    await self._all_ended()
        finally:
            await self._stop_rest()
        if error is None:
            self._judge()

    async def _all_ended(self) -> None:
        pending = set(self._following)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._on_failure == "fail" and self._failed():
                return

    def _failed(self) -> Job | None:
        ended = (job for job in self.jobs if job.state in {State.FAILED, State.CANCELLED})
        return next(ended, None)

    def _judge(self) -> None:
        failed = self._failed()
        if failed is None or self._on_failure == "ignore":
            return
        why = failed.error.title if failed.error else "it was cancelled"
        raise JobError(f"{failed.title}: {why}", code="child_failed")

    async def _stop_rest(self) -> None:
        for job in self.jobs:
            if not job.state.terminal:
                try:
                    await self._service.cancel(job.id)
                except StoreError as error:
                    logger.warning("job %s could not be cancelled: %s", job.id, error)
        pending = [task for task in self._following if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=STOPPING_S)
        for task in pending:
            task.cancel()

    async def _follow(self, number: int, job: Job) -> None:
        with self._progress.child(job.title) as show:
            async for now in self._service.watch(job.id):
                self.jobs[number] = now
                show(now.progress.ratio or 0.0)
