"""`Service`: the app-long object without the web: tasks, and the jobs that they become.

It asks the rooms that are open for it, and decides nothing by itself.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from headway.context import About, about, current_about
from headway.document import Figures
from headway.errors import JobFailed, JobNotFinished, JobNotFound, TaskError
from headway.figures import figures
from headway.gate import Asker
from headway.group import Group, OnFailure
from headway.job import REPORT, Attempt, Job, State
from headway.opening import Opening
from headway.overview import EVERY, Filter, Listing
from headway.progress import Progress
from headway.report import Report, report_start
from headway.task import OnLost, Run, Start, Task, make_task
from headway.watch import Hub

__all__ = ["Service"]

P = ParamSpec("P")
R = TypeVar("R")


class Service(Opening):
    """Tasks, and the jobs they become. `Headway` adds the web; see there for the options."""

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────

    @overload
    def task(self, function: Callable[Concatenate[Progress, P], R], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        title: str | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
        on_lost: OnLost = "fail",
        max_attempts: int | None = None,
        stall_s: float | None = None,
        run: Run | None = None,
        capture: Iterable[str] = (),
    ) -> _Register: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Register a function as a task: `@headway.task`, or with options in parentheses.

        `async def` runs on the loop, `def` in a thread of its own. A first parameter annotated
        `Progress` gets the job's `Progress`; the others are what `start()` takes.

        Args:
            name: what the store and other processes know it by; the function's name by default.
            title: what the owner sees; made of the name by default.
            timeout_s: seconds that one attempt may take; None, the default, sets no limit.
            retries: how often it is tried again after an exception, with growing pauses.
            on_lost: what happens when its process dies: "fail", or "retry" for work that may
                safely be done twice.
            max_attempts: all attempts together, lost ones too; 3 with on_lost="retry".
            stall_s: seconds without a report after which it is shown as stalled.
            run: "process" for CPU work: in a child process of its own, that can be killed. The
                function must stand at the top of a module.
            capture: "tqdm", "rich", "logging": whose bars and lines report to the job as well,
                without a change to the code that shows them.

        Raises:
            TaskError: a task of this name is registered already.
            BadInput: an option is out of its range, or what is to be captured is not installed.
        """

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            most = self._settings.limits.args_bytes
            task = make_task(function, self.begin, args_bytes=most, **options)
            self._tasks.add(task)
            return task

        return register if function is None else register(function)

    def group(self, progress: Progress, *, on_failure: OnFailure = "fail") -> Group:
        """Start other jobs from inside of a job, under one bar: `async with headway.group(…)`.

        Args:
            progress: of the job that this code runs in.
            on_failure: "fail": when one of the jobs fails, the others are cancelled and the block
                raises `JobError`. "ignore": all of them are waited for, whatever becomes of them.
        """
        return Group(self, progress, on_failure=on_failure)

    def report(
        self,
        title: str,
        *,
        owner: str | None = None,
        key: str | None = None,
        stall_s: float | None = None,
    ) -> Report:
        """Show work that Headway does not run: a script, cron, a notebook, a task of another queue.

        `async with headway.report("Nightly import", owner="ann") as progress:`; or `with`, where
        there is no loop: it opens Headway in a thread of its own, if it is not open, and closes it
        with the block; `with headway:` around several keeps it open. The job runs from the first
        line of the block to its end, has a lease, and can be cancelled: the block raises
        `JobCancelled` then, as a coroutine where it awaits, else at the next report or step.
        `current_progress()` finds it. What the block raises is shown as with tasks, and goes on. If
        the process dies, the job has failed: `lost`. It cannot be tried again from the page.

        Args:
            title: what the owner sees, cut to 200 characters.
            owner: who may watch and cancel it; `EVERYONE`: all may watch. None: operators only.
            key: single flight: while a report of this owner and key runs, the block is not entered.
            stall_s: seconds without a report after which it is shown as stalled.

        Raises:
            AlreadyRunning: a report has the key; from entering the block.
            BadInput: an option is out of its range.

        Cost: two round trips to begin, one to end; and the beats of any job.
        """
        return Report(self, report_start(title, owner=owner, key=key, stall_s=stall_s))

    @property
    def task_names(self) -> builtins.list[str]:
        """Of the tasks that are registered here, in order."""
        return sorted(self._tasks.names)

    def aside(self) -> AbstractContextManager[None]:
        """See `Engine.aside()`."""
        return self._open_runtime("wait for jobs").engine.aside()

    async def begin(self, start: Start) -> Job:
        """Accept what a task's `start()` says; the tasks call it."""
        runtime = self._open_runtime("start a task")
        asker = await self._asker()
        owner = start.owner if start.owned else asker.owner if asker else None
        if start.job_id is not None:
            asker = None  # a job of a job is no request of its own
        with about(self._about()):
            return await runtime.intake.begin(start, owner, asker)

    def _about(self) -> About:
        """What a line of the log is about here and now."""
        return current_about()

    async def _asker(self) -> Asker | None:
        """The request that starts what is started here and now, if there is one."""
        return None

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────

    @property
    def hub(self) -> Hub:
        """The hub of this process."""
        return self._open_runtime("watch jobs").hub

    async def get(self, job_id: str) -> Job:
        """The job as it is now. One round trip.

        Raises:
            JobNotFound: the id is wrong, or the job has expired.
        """
        return await self._open_runtime("read a job").store.get(job_id)

    async def get_all(self, ids: Sequence[str]) -> builtins.list[Job]:
        """Those of the jobs that exist, in the order asked for. One round trip."""
        store = self._open_runtime("read jobs").store
        return list((await store.get_all(ids, strict=False)).values())

    async def list(self, *, owner: str, limit: int = 50) -> builtins.list[Job]:
        """The newest jobs of *owner*, newest first. Two round trips."""
        return await self._open_runtime("list jobs").store.of_owner(owner, limit)

    async def overview(self, wanted: Filter = EVERY, *, after: str | None = None) -> Listing:
        """One page of all jobs, 50 at most: for operators. What lives comes first, newest first;
        then what has ended, the latest first.

        Nothing is written, and no job pays for it. The jobs come without their results. A filter
        that few pass may give less than a page although there is more: `after` tells.

        Args:
            after: of the page before; None begins at the top.

        Raises:
            BadInput: *after* is not from an earlier page.

        Cost: two round trips for what lives, and two for what has ended; up to nine with a filter
        that few pass.
        """
        runtime = self._open_runtime("list all jobs")
        return await runtime.overview.page(wanted, after=after)

    async def figures(self) -> Figures:
        """How it goes, all jobs together: what lives, and rates, waiting times and durations of the
        last hour, or of the time that the newest 500 ended jobs reach back to. One round trip."""
        return figures(await self._open_runtime("count jobs").overview.recent())

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to stop, wherever it runs; returns it as it is after asking. One round trip.

        A queued job is cancelled at once. A running one is `cancelled` when its code has really
        stopped; until then `cancel_requested` is set. Asking again, or too late, changes nothing.

        Raises:
            JobNotFound: the id is wrong, or the job has expired.
        """
        return await self._open_runtime("cancel a job").store.cancel(job_id)

    async def retry(self, job_id: str) -> Job:
        """Start the work of an ended job again, as a new job of the same owner. Two round trips.

        While that one is queued or running, asking again returns it, with `reused` set.

        Raises:
            JobNotFound: the id is wrong, or the job has expired.
            TaskError: it was reported by code that Headway does not run.
        """
        runtime = self._open_runtime("try a job again")
        record = dict(await runtime.store.args(job_id))
        if record["task"] == REPORT:
            raise TaskError(f"job {job_id} was reported by other code: start that again")
        asker = await self._asker()
        with about(self._about()):
            return await runtime.intake.again(record, job_id, asker)

    async def forget(self, job_id: str) -> bool:
        """Remove an ended job before its time; False if it has not ended. Two round trips.

        Raises:
            JobNotFound: the id is wrong, or the job has expired.
        """
        store = self._open_runtime("forget a job").store
        return await store.forget(await store.get(job_id)) != "going"

    async def revoke(self, owner: str) -> None:
        """End all open streams of *owner*, in every process: call it when somebody logs out.

        Their pages ask again who they are, and get what they may see then. One round trip.
        """
        await self._open_runtime("revoke").store.tell("revoke", owner)

    async def ping(self) -> float:
        """Ask the store for a sign of life; how long it took, in seconds. One round trip.

        Raises:
            StoreError: it gave none.
        """
        began = time.perf_counter()
        await self._open_runtime("ask the store").store.ping()
        return time.perf_counter() - began

    async def result(self, job_id: str) -> Any:
        """What the task returned, as plain JSON values. One round trip.

        Raises:
            JobNotFound: the id is wrong, or the job has expired.
            JobNotFinished: it is queued or running; `watch()` tells when it is done.
            JobFailed: it failed or was cancelled; the message says why.
        """
        job = await self.get(job_id)
        if not job.state.terminal:
            raise JobNotFinished(f"job {job_id} is {job.state}: watch it until it has ended")
        if job.state is not State.SUCCEEDED:
            why = f": {job.error.title}" if job.error else ""
            raise JobFailed(f"job {job_id} {job.state}{why}")
        return job.result

    async def log(self, job_id: str) -> builtins.list[str]:
        """The newest lines that the job logged, oldest first; `Limits.log_lines` of them. One
        round trip."""
        return await self._open_runtime("read a log").store.log(job_id)

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """The attempts of a job that are over, with their errors and traces, oldest first.

        For operators: do not show it to owners. One round trip.
        """
        return await self._open_runtime("read attempts").store.attempts(job_id)

    async def watch(self, *ids: str) -> AsyncIterator[Job]:
        """Each change of the jobs, beginning with their present state, until all have ended.

        States may be skipped when they come faster than they are taken, the last one never.
        Goes silent while the store is away, and on when it is back. Costs the store nothing
        beyond one subscription and one read per job, shared with all watchers of the process.

        Raises:
            JobNotFound: one of the ids is wrong, or its job has expired.
        """
        with self.hub.watcher(ids) as watcher:
            going = set(watcher.ids)
            while going:
                await watcher.wait()
                for job_id, seen in watcher.take():
                    if seen.job is None:
                        raise JobNotFound(job_id)
                    if seen.job.state.terminal:
                        going.discard(job_id)
                    yield seen.job


class _Register:
    """What `@headway.task(…)` returns; only its type is ever used."""

    @overload
    def __call__(self, function: Callable[Concatenate[Progress, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        raise NotImplementedError
