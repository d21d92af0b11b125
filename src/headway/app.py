"""`Headway`: the app-long object. Owns the store connection, the hub, the engine.

It puts the rooms together and decides nothing by itself. Doors subclass it to find out, in their
framework's way, who asks and where the surface is mounted.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar, overload

import msgspec

from headway._link import url_of
from headway.api import Api
from headway.asgi import Asgi
from headway.errors import JobFailed, JobNotFinished, JobNotFound, NotOpen, StoreError
from headway.group import Group, OnFailure
from headway.http import Reply, Request
from headway.job import EVERYONE, PARTITIONS, Attempt, Job, State, flight_of, new_id
from headway.local import LocalEngine
from headway.progress import Progress
from headway.runtime import Runtime
from headway.server import Server
from headway.settings import CONCURRENCY, DRAIN_S, KEEP_S, LEASE_S, Ask, Settings
from headway.store import Store
from headway.task import OnLost, Run, Start, Task, Tasks, make_task
from headway.tokens import COOKIE, Viewer, read_visitor
from headway.watch import Hub

__all__ = ["Headway"]

SECRET_FILE: Final = "secret"  # noqa: S105 (a name)

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("headway")


class Headway:
    """Runs tasks behind an async web app and shows how far they are.

    Open it in the app's lifespan (the doors do) or with `async with headway:`. Tasks may be
    registered before and after.

    Args:
        url: where the store is: redis://, rediss://, valkey:// or unix://. None starts the
            embedded Valkey, or joins the one that another process of this app has started.
        prefix: begins every key; apps that share a store need one each.
        state_dir: where the embedded Valkey and the generated secret live; by default
            `.headway` in the working directory.
        engine: where jobs run; None makes a `LocalEngine`, which runs them in this process.
        identify: tells who asks: given the request, returns the owner's name or None for
            nobody. May be async. Without it every visitor gets a signed cookie.
        operator: tells whether who asks may see and cancel the jobs of all; may be async.
        secret: signs visitors' cookies; several, oldest first, to change it without logging
            visitors out. None generates one and keeps it in *state_dir*.
        lease_s: seconds after which a silent process is taken for dead.
        drain_s: seconds that running jobs get when the server stops. Then they are handed over
            (on_lost="retry") or fail honestly.
        keep_s: seconds that ended jobs are kept.
        concurrency: jobs that run in this process at a time, if no engine is given.
        path: where the surface is mounted.

    Raises:
        BadInput: an option is out of its range.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str = "headway",
        state_dir: str | os.PathLike[str] | None = None,
        engine: LocalEngine | None = None,
        identify: Ask | None = None,
        operator: Ask | None = None,
        secret: str | Sequence[str] | None = None,
        lease_s: float = LEASE_S,
        drain_s: float = DRAIN_S,
        keep_s: float = KEEP_S,
        concurrency: int = CONCURRENCY,
        path: str = "/jobs",
    ) -> None:
        self._settings = Settings(
            url=url_of(url) if url else None,
            prefix=prefix,
            state_dir=state_dir,
            engine=engine,
            identify=identify,
            operator=operator,
            secret=secret,
            lease_s=lease_s,
            drain_s=drain_s,
            keep_s=keep_s,
            concurrency=concurrency,
            path=path,
        )
        self._tasks = Tasks()
        self._keys: list[str] = []
        self._api = Api(self, self._who)
        self._runtime: Runtime | None = None
        self._server: Server | None = None
        self._opened = 0
        self.asgi = Asgi(self._api.answer, self.lifespan)
        """The surface as an ASGI app; mount it at *path*."""

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

        Raises:
            TaskError: a task of this name is registered already.
            BadInput: an option is out of its range.
        """

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            task = make_task(function, self.begin, **options)
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

    def aside(self) -> AbstractContextManager[None]:
        """See `LocalEngine.aside()`."""
        return self._open_runtime("wait for jobs").engine.aside()

    async def begin(self, start: Start) -> Job:
        """Accept what a task's `start()` says; the tasks call it."""
        runtime = self._open_runtime("start a task")
        owner = start.owner if start.owned else await self._owner()
        flight = flight_of(start.task, owner, start.key) if start.key is not None else None
        record = {
            "task": start.task,
            "title": start.title,
            "owner": owner or "",
            "args": start.args,
            "options": msgspec.json.encode(start.options).decode(),
            "on_lost": start.on_lost,
            "max_attempts": str(start.max_attempts),
        }
        return await self._create(runtime, record, flight, job_id=start.job_id)

    async def _create(
        self,
        runtime: Runtime,
        record: dict[str, str],
        flight: str | None,
        *,
        job_id: str | None = None,
    ) -> Job:
        job_id = job_id or new_id(PARTITIONS, flight=flight)
        # A client that goes away must not leave a job that is accepted but never submitted.
        accepting = asyncio.ensure_future(self._accept(runtime, job_id, record, flight))
        return await asyncio.shield(accepting)

    async def _accept(
        self, runtime: Runtime, job_id: str, record: dict[str, str], flight: str | None
    ) -> Job:
        job = await runtime.store.create(job_id, record, self._settings.lease_s, flight)
        if not job.reused and not job.state.terminal:
            await runtime.engine.submit(job.id, job.attempt)
            runtime.pulse.wake()
        return job

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
        """
        runtime = self._open_runtime("try a job again")
        record = dict(await runtime.store.args(job_id))
        flight = flight_of(record["task"], record.get("owner"), f"retry {job_id}")
        return await self._create(runtime, record, flight)

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
        """The newest 500 lines that the job logged, oldest first. One round trip."""
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

    async def reply(
        self, job: Job, request: Request | None = None, *, to: str | None = None
    ) -> Any:
        """The answer to the request that started *job*.

        202 with `Location`, `Retry-After` and the status document; 303 to the job's page for a
        form that a browser has sent, or to *to* if that is given. Doors return their framework's
        response; here it is a `Reply`, made for *request*.
        """
        return self._reply(job, request or Request("POST", "/", self._settings.mount), to)

    def _reply(self, job: Job, request: Request, to: str | None) -> Reply:
        cancel = job.owner is not None and job.owner != EVERYONE
        return self._api.told(request, job, 202, may_cancel=cancel, to=to)

    # ── who asks ──────────────────────────────────────────────────────────────────────────────

    async def _owner(self) -> str | None:
        """The owner of what is started here and now; doors know of a current request."""
        return None

    async def _who(self, request: Request) -> Viewer:
        identify, operates = self._settings.identify, self._settings.operator
        operator = await _asked(operates, request.native) if operates else False
        if identify is not None:
            owner = await _asked(identify, request.native)
            return Viewer(str(owner) if owner is not None else None, operator=bool(operator))
        visitor = read_visitor(request.cookies.get(COOKIE), self._keys)
        return Viewer(visitor, operator=bool(operator))

    # ── opening and closing ───────────────────────────────────────────────────────────────────

    def _open_runtime(self, act: str) -> Runtime:
        if self._runtime is None:
            raise NotOpen(act)
        return self._runtime

    async def __aenter__(self) -> Self:
        """Open: connect, start to run and to watch. Opening twice is counted.

        Raises:
            ServerError: the embedded Valkey cannot run here; the message says what to set.
            StoreUnavailable: the store does not answer.
        """
        self._opened += 1
        if self._opened == 1:
            try:
                await self._open()
            except BaseException:
                self._opened = 0
                await self._close_server()
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: hand over or end what runs, within about *drain_s* and a second."""
        self._opened -= 1
        if self._opened:
            return
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.aclose()
        await self._close_server()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For `lifespan=` of Starlette, FastAPI and others: open while the app serves."""
        async with self:
            yield

    async def _open(self) -> None:
        settings, revive = self._settings, None
        url = settings.url
        if url is None:
            self._server = Server(settings.folder)
            url, revive = await asyncio.to_thread(self._server.open), self._server.open
        self._keys = settings.secrets
        if not self._keys and settings.identify is None:
            self._keys = [_kept_secret(settings.folder)]
        runtime = Runtime(settings, self._tasks, self._api.streams, url, revive)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runtime.link.aclose)
            await runtime.open()
            stack.pop_all()
        self._runtime = runtime
        if settings.url is not None:
            await self._warn_of_eviction(runtime.store)

    async def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.close)

    async def _warn_of_eviction(self, store: Store) -> None:
        try:
            policy = await store.eviction_policy()
        except StoreError:
            return
        if policy is not None and policy != "noeviction":
            logger.warning(
                "the store evicts keys when its memory is full (maxmemory-policy %s): jobs can "
                "vanish. Set it to noeviction, or give Headway a store of its own.",
                policy,
            )


class _Register:
    """What `@headway.task(…)` returns; only its type is ever used."""

    @overload
    def __call__(self, function: Callable[Concatenate[Progress, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        raise NotImplementedError


def _kept_secret(state_dir: Path) -> str:
    """The secret of this state folder, made on first use; only its user can read it."""
    path = state_dir / SECRET_FILE
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # It gets its name when it is whole: another process may look for it at this moment.
        draft = path.with_name(f"{SECRET_FILE}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text()


async def _asked(ask: Ask, request: Any) -> Any:
    answer = ask(request)
    return await answer if isawaitable(answer) else answer
