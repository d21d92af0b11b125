"""A job that starts others and shows one bar over them.

Modelled on `asyncio.TaskGroup`: the block is left when all of its jobs have ended, and whatever
ends the block early ends them too. If its process dies, the store does: the act that ends a parent
cancels its children. The ids of the jobs follow from the parent's id and their order, so that a
parent that is run again finds the ones that it had started, and starts none twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Protocol, Self

import msgspec

from headway.context import About, extra
from headway.errors import BadInput, JobError, JobNotFound, StoreError
from headway.job import Job, State, child_id
from headway.progress import Progress
from headway.task import Start, Task, Using

__all__ = ["Group"]

P = ParamSpec("P")
OnFailure = Literal["fail", "ignore"]
STOPPING_S: Final = 30.0  # how long a block that is left early waits for its jobs to stop
GOES_ON: Final = frozenset({"drain", "lost"})  # why an attempt stops whose job may have another one

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
            StartRefused: the parent has ended, or has another attempt by now.
        """
        start = task.start_of(*args, **kwargs)
        if start.key is not None:
            raise BadInput("a job of a group cannot have a key: its place in the group is one")
        parent = str(self._progress.job_id)
        job = await self._service.begin(
            msgspec.structs.replace(
                start,
                job_id=child_id(parent, self._progress.next_child()),
                parent=(parent, self._progress.attempt),
                owner=start.owner if start.owned else self._progress.owner,
                owned=True,
            )
        )
        number = len(self.jobs)
        self.jobs.append(job)
        stage = self._progress.child(job.title)
        following = self._follow(number, job, stage)
        follow = asyncio.create_task(following, name=f"headway-child-{job.id}")
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

        Cancel: the jobs are cancelled, and waited for (30 s at most). Not so if the server stops,
            or the lease is lost: a next attempt finds them, or the end of the parent ends them.
        """
        try:
            # The parent does nothing meanwhile, so it must not take the place of its children.
            with self._service.aside():
                if error is None:
                    self._progress.all_begun()
                    await self._all_ended()
        finally:
            if not await self._goes_on():
                await self._cancel_rest()
            for task in self._following:
                task.cancel()
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

    async def _goes_on(self) -> bool:
        """True if this attempt stops, but perhaps not its job: then its jobs are left alone."""
        # If the whole loop is taken down, who runs this code was cancelled with it, and knows why.
        await asyncio.sleep(0)
        return self._progress.stopped in GOES_ON

    async def _cancel_rest(self) -> None:
        for job in self.jobs:
            if not job.state.terminal:
                try:
                    await self._service.cancel(job.id)
                except (StoreError, JobNotFound) as error:
                    said = extra("cancel", About(job.id, job.task))
                    logger.warning("job %s could not be cancelled: %s", job.id, error, extra=said)
        pending = [task for task in self._following if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=STOPPING_S)

    async def _follow(
        self, number: int, job: Job, stage: AbstractContextManager[Callable[[float], None]]
    ) -> None:
        with stage as show:
            async for now in self._service.watch(job.id):
                self.jobs[number] = now
                show(now.progress.ratio or 0.0)
