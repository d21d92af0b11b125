"""Tasks of a Celery app that Headway did not start: they report, and are jobs by that."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from celery import Celery
from celery.exceptions import Ignore

from headway import EVERYONE, Headway, Job, JobError, current_progress
from headway.engines.celery import CeleryEngine
from headway.errors import BadInput, HeadwayError, JobNotFound
from headway.server import Server
from tests.apps.process import App, Apps, wait_until
from tests.conftest import MakeHeadway, OwnServer, Until
from tests.engines.conftest import LEASE_S
from tests.samples import ROOT, samples_of

PAGE: Final = "report.md"
SAMPLE: Final = next(
    sample.code for sample in samples_of(ROOT / "docs" / PAGE) if sample.arguments[1:] == ["celery"]
)
QUEUES: Final = ROOT / "examples" / "queues"
OPTIONS: Final = ("shadow", "soft_time_limit", "time_limit")
BOTH: Final = pytest.mark.parametrize("pool", ["prefork", "threads"])


class Place:
    """A broker, a store, and for each pool a worker, which is started when it is first needed."""

    def __init__(self, folder: Path, apps: Apps) -> None:
        self._apps = apps
        self._servers = Server(folder / "store"), Server(folder / "broker")
        self.store, broker = (server.open() for server in self._servers)
        self.broker = broker.replace("unix://", "redis+socket://")
        self._results: Any = redis.Redis.from_url(broker)
        self._app = Celery("web", broker=self.broker)
        self._workers: dict[str, App] = {}

    def work(self, pool: str, store: str) -> App:
        """Start a worker, which reads the queue that is called as its pool."""
        words = f"celery --app celery_tasks worker -l INFO -c 2 --pool {pool} -Q {pool} -n {pool}@"
        settings: Any = {"BROKER": self.broker, "STORE": store, "LEASE_S": LEASE_S}
        return self._apps.work(*words.split(), ready=" ready.", **settings)

    def worker(self, pool: str) -> App:
        if pool not in self._workers:
            self._workers[pool] = self.work(pool, self.store)
        return self._workers[pool]

    def send(self, pool: str, task: str, owner: str = "", **named: Any) -> str:
        """Start a task as `apply_async()` does; Celery's id of it."""
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        sent = self._app.send_task(
            f"celery_tasks.{task}", kwargs=named, queue=pool, headers={"owner": owner}, **options
        )
        return str(sent.id)

    def sample(self) -> None:
        """Work for the example of the page, and start its task as the page says."""
        settings: Any = {"BROKER_URL": self.broker, "HEADWAY_URL": self.store}
        words = "celery --app celery_work worker -l INFO -c 1"
        self._apps.work(*words.split(), ready=" ready.", cwd=QUEUES, **settings)
        subprocess.run(
            [sys.executable, "-c", SAMPLE], cwd=QUEUES, env=os.environ | settings, check=True,
            timeout=30,
        )  # fmt: skip

    def revoke(self, task_id: str) -> None:
        self._app.control.revoke(task_id, terminate=True)

    def result(self, task_id: str) -> dict[str, Any]:
        """What Celery says of a task, once it says something."""

        def said() -> dict[str, Any] | None:
            meta = self._results.get(f"celery-task-meta-{task_id}")
            return json.loads(meta) if meta else None

        return wait_until(f"{task_id} has a result", said)

    def close(self) -> None:
        self._app.close()
        self._results.close()
        for server in self._servers:
            server.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests."""
    folder = tmp_path_factory.mktemp("celery")
    with Apps(folder) as apps:
        place = Place(folder, apps)
        # The workers go before their servers do.
        yield place
    place.close()


@pytest.fixture
async def web(place: Place, make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """The web app, as far as the workers are concerned."""
    async with make_headway(url=place.store, prefix="headway", lease_s=LEASE_S) as headway:
        yield headway


@pytest.fixture
def owner() -> str:
    """Has the jobs of this test."""
    return secrets.token_hex(8)


Begin = Callable[..., Any]


@pytest.fixture
def begin(place: Place, web: Headway, owner: str, until: Until) -> Begin:
    """Start a task, and wait until it is a job; Celery's id and the job."""

    async def begin(pool: str, task: str, **named: Any) -> tuple[str, Job]:
        await asyncio.to_thread(place.worker, pool)
        task_id = await asyncio.to_thread(place.send, pool, task, owner, **named)
        return task_id, await until(lambda: found(web, task_id), f"{task} is a job")

    return begin


async def found(headway: Headway, task_id: str) -> Job | None:
    try:
        return await headway.get(CeleryEngine.job_id(task_id))
    except JobNotFound:
        return None


async def steps(headway: Headway, job: Job) -> list[Job]:
    return [now async for now in headway.watch(job.id)]


async def moving(headway: Headway, job: Job) -> Job:
    async for now in headway.watch(job.id):
        if now.progress.done:
            return now
    raise AssertionError("it has ended without")


# ── in workers ────────────────────────────────────────────────────────────────────────────────


@BOTH
async def test_task_is_shown(pool: str, begin: Begin, web: Headway, owner: str) -> None:
    """It is a job of the owner whom the app names, moves, and ends as the task does."""
    _, job = await begin(pool, "import_rows", rows=300, shadow="Rows of May")
    seen = await steps(web, job)
    done = [now.progress.done for now in seen]

    assert (job.title, job.owner, job.task) == ("Rows of May", owner, "headway.report")
    assert [one.id for one in await web.list(owner=owner)] == [job.id]
    assert len(set(done)) > 3
    assert done == sorted(done)
    assert (seen[-1].state, done[-1], seen[-1].progress.unit) == ("succeeded", 300, "row")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("error", ("exception", "Something went wrong")),
        ("told", ("no_name", "Row 7 has no name")),
    ],
)
async def test_task_that_fails(
    begin: Begin, web: Headway, place: Place, how: str, said: tuple[str, str]
) -> None:
    """What it raises is shown as with other tasks, and reaches Celery as it was."""
    task_id, job = await begin("prefork", "fail", how=how)
    ended = (await steps(web, job))[-1]
    result = await asyncio.to_thread(place.result, task_id)

    assert ended.error is not None
    assert (ended.state, ended.error.code, ended.error.title) == ("failed", *said)
    assert result["status"] == "FAILURE"
    assert "headway/run" not in result["traceback"]


async def test_task_that_is_tried_again(
    begin: Begin, web: Headway, owner: str, until: Until
) -> None:
    """Each try is a job of its own; that of the first says that there will be another one."""
    _, first = await begin("prefork", "fail", how="retry")
    failed = (await steps(web, first))[-1]

    async def second() -> list[Job]:
        return [job for job in await web.list(owner=owner) if job.id != first.id]

    (again,) = await until(second, "the second try is a job")
    seen = (await steps(web, again))[-1]

    assert failed.error is not None
    assert (failed.state, failed.error.code) == ("failed", "retry")
    assert "will be tried again" in failed.error.title
    assert (seen.state, seen.title) == ("succeeded", "Fail")


@BOTH
async def test_tasks_do_not_mix(
    pool: str, place: Place, web: Headway, owner: str, until: Until
) -> None:
    """One after another and side by side in one process, each is a job with its own counts."""
    await asyncio.to_thread(place.worker, pool)
    rows = {place.send(pool, "import_rows", owner, rows=n): n for n in range(2, 8)}

    async def all_ended() -> bool:
        jobs = await web.list(owner=owner)
        return len(jobs) == len(rows) and all(job.state.terminal for job in jobs)

    await until(all_ended, "all have ended")
    jobs = {task_id: await web.get(CeleryEngine.job_id(task_id)) for task_id in rows}
    results = [await asyncio.to_thread(place.result, task_id) for task_id in rows]

    assert {task_id: job.progress.done for task_id, job in jobs.items()} == rows
    assert {job.state for job in jobs.values()} == {"succeeded"}
    assert len({result["result"] for result in results}) <= 2


@BOTH
async def test_task_is_cancelled(pool: str, begin: Begin, web: Headway, place: Place) -> None:
    """It stops whatever it catches; to Celery it is revoked, is not tried again, and the next
    one runs."""
    task_id, job = await begin(pool, "stubborn")
    await moving(web, job)
    await web.cancel(job.id)
    ended = (await steps(web, job))[-1]
    result = await asyncio.to_thread(place.result, task_id)
    _, other = await begin(pool, "import_rows", rows=1)

    assert ended.state == "cancelled"
    assert (result["status"], result["result"]["exc_type"]) == ("REVOKED", "TaskRevokedError")
    assert (await steps(web, other))[-1].state == "succeeded"


@pytest.mark.fault
async def test_child_that_is_killed(begin: Begin, web: Headway) -> None:
    """Its job is lost, the worker goes on."""
    _, job = await begin("prefork", "import_rows", rows=6000)
    moved = await moving(web, job)
    os.kill(int(moved.note or 0), signal.SIGKILL)
    lost = (await steps(web, job))[-1]
    _, other = await begin("prefork", "import_rows", rows=1)

    assert lost.error is not None
    assert (lost.state, lost.error.code) == ("failed", "lost")
    assert (await steps(web, other))[-1].state == "succeeded"


@pytest.mark.once
@pytest.mark.slow
async def test_sample_of_the_page(place: Place, web: Headway, until: Until) -> None:
    """The example works as the page says."""
    await asyncio.to_thread(place.sample)

    async def shown() -> list[Job]:
        return await web.list(owner="ann")

    (job,) = await until(shown, "it is on the page of ann")
    ended = (await steps(web, job))[-1]

    assert (ended.title, ended.state, ended.progress.done) == ("Import rows", "succeeded", 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"soft_time_limit": 1}, "exception"),
        ({"time_limit": 1}, "interrupted"),
        ({}, "interrupted"),
    ],
    ids=["soft", "hard", "revoked"],
)
async def test_task_that_celery_stops(
    begin: Begin, web: Headway, place: Place, limits: dict[str, int], code: str
) -> None:
    """By its time limits, or by revoking it with `terminate=True`."""
    task_id, job = await begin("prefork", "import_rows", rows=6000, **limits)
    await moving(web, job)
    if not limits:
        await asyncio.to_thread(place.revoke, task_id)
    ended = (await steps(web, job))[-1]

    assert ended.error is not None
    assert (ended.state, ended.error.code) == ("failed", code)


async def test_what_never_asks_costs_nothing(
    place: Place, own_server: OwnServer, owner: str
) -> None:
    """Nothing is opened before the first task asks; then it stays open, until the worker ends."""

    def clients() -> int:
        return len(own_server.say("CLIENT", "LIST").splitlines()) - 1  # without the one that asks

    worker = await asyncio.to_thread(place.work, "solo", own_server.url)
    for number in range(3):
        assert place.result(place.send("solo", "quiet", number=number))["result"] == number + 1
    before = clients()
    assert place.result(place.send("solo", "import_rows", owner, rows=1))["result"]
    between = clients()
    worker.send(signal.SIGTERM)
    code = await asyncio.to_thread(worker.process.wait, 15)

    assert (before, clients(), code) == (0, 0, 0)
    assert between > 0


# ── in this process: called by other code, and eager ──────────────────────────────────────────


@pytest.fixture
def app() -> Celery:
    """A Celery app whose tasks run where they are started."""
    app = Celery("t", broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True)
    return app


@pytest.fixture
def headway(app: Celery, make_headway: MakeHeadway) -> Headway:
    """Not yet open."""
    engine = CeleryEngine(app, owner=lambda request: request.kwargs.get("owner"))
    return make_headway(engine=engine)


async def test_eager_task_is_a_job(app: Celery, headway: Headway) -> None:
    """Of the owner whom the app finds in its arguments."""

    @app.task(name="shop.import_rows", shared=False)
    def work(*, owner: str) -> str | None:
        for _ in current_progress().track(range(3)):
            pass
        return current_progress().job_id

    async with headway:
        result = await asyncio.to_thread(work.delay, owner="ann")
        (job,) = await headway.list(owner="ann")

    assert result.get() == job.id == CeleryEngine.job_id(result.id)
    assert (job.title, job.state, job.progress.done) == ("Import rows", "succeeded", 3)


def test_eager_task_in_a_script(app: Celery, headway: Headway) -> None:
    """Headway is open for the time of the task, if nobody else has opened it."""

    @app.task(shared=False)
    def work() -> bool:
        current_progress()
        return headway.loop is not None

    app.finalize()  # as whatever sends, or asks for a task by its name
    threads = threading.active_count()

    assert work.delay().get()
    assert headway.loop is None
    wait_until("no thread is left", lambda: threading.active_count() <= threads)


async def test_eager_task_beside_a_loop(app: Celery, headway: Headway) -> None:
    """In a thread it uses the loop that is there; in the loop itself it says what to do."""
    begun, told = threading.Event(), threading.Event()

    @app.task(shared=False)
    def work(*, waits: bool) -> None:
        progress = current_progress()
        begun.set()
        while waits:
            told.wait(0.001)
            progress.advance()

    async with headway:
        in_loop = work.delay(waits=False)
        eager = asyncio.create_task(asyncio.to_thread(work.delay, waits=True))
        assert await asyncio.to_thread(begun.wait, 5)
        (job,) = (await headway.overview()).jobs
        await headway.cancel(job.id)
        cancelled = await eager
        ended = await headway.get(job.id)

    assert isinstance(in_loop.result, HeadwayError)
    assert "asyncio.to_thread(task.delay)" in str(in_loop.result)
    assert (ended.state, cancelled.state) == ("cancelled", "IGNORED")
    with pytest.raises(HeadwayError, match=r"outside of a job\. Call it from a task"):
        current_progress()


async def test_task_whose_headway_closes(app: Celery, headway: Headway) -> None:
    """It is stopped, and has failed: nobody has cancelled it."""
    begun = threading.Event()

    @app.task(shared=False)
    def work() -> None:
        progress = current_progress()
        begun.set()
        while True:
            progress.advance()

    async with headway:
        eager = asyncio.create_task(asyncio.to_thread(work.delay))
        assert await asyncio.to_thread(begun.wait, 5)
    result = await eager
    async with headway:
        (job,) = (await headway.overview()).jobs

    assert (result.state, type(result.result)) == ("FAILURE", HeadwayError)
    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", "interrupted")


async def test_task_waits_for_the_store(
    app: Celery, make_headway: MakeHeadway, own_server: OwnServer, until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """While the store is away it does not fail, but begins later."""
    headway = make_headway(url=own_server.url, engine=CeleryEngine(app))

    @app.task(shared=False)
    def work() -> str | None:
        return current_progress().job_id

    async with headway:
        await asyncio.to_thread(own_server.stop)
        eager = asyncio.create_task(asyncio.to_thread(work.delay))
        await until(lambda: "waits for the store" in caplog.text, "it waits")
        await asyncio.to_thread(own_server.start)
        job_id = (await eager).get()
        job = await headway.get(job_id)

    assert job.state == "succeeded"


async def test_task_that_comes_twice(app: Celery, headway: Headway, until: Until) -> None:
    """A second delivery is a job of its own; of what was cancelled it does not even begin."""
    ran: list[str] = []

    @app.task(shared=False)
    def work(*, waits: bool) -> None:
        progress = current_progress()
        ran.append(str(progress.job_id))
        while waits:
            progress.advance()

    def start(task_id: str, *, waits: bool = False) -> Any:
        return work.apply(kwargs={"waits": waits}, task_id=task_id)

    async with headway:
        for _ in range(2):
            await asyncio.to_thread(start, "one")
        cancelled = asyncio.create_task(asyncio.to_thread(start, "two", waits=True))
        await until(lambda: len(ran) == 3, "it runs")
        await headway.cancel(ran[2])
        await cancelled
        again = await asyncio.to_thread(start, "two")
        jobs = (await headway.overview()).jobs

    assert [ran[0], ran[2]] == [CeleryEngine.job_id("one"), CeleryEngine.job_id("two")]
    assert len(set(ran)) == 3
    assert {job.id: job.state for job in jobs} == dict(
        zip(ran, ["succeeded", "succeeded", "cancelled"], strict=True)
    )
    assert again.state == "IGNORED"


async def test_words_of_a_try(app: Celery, headway: Headway) -> None:
    """What is for the owner to read is told of a try that others follow, too."""

    @app.task(bind=True, shared=False)
    def work(self: Any) -> None:
        current_progress()
        if self.request.retries == 0:
            raise self.retry(exc=JobError("Row 7 has no name"), countdown=0)

    async with headway:
        await asyncio.to_thread(work.delay)
        last, first = (await headway.overview()).jobs

    assert first.error is not None
    assert first.error.title == "Row 7 has no name (it will be tried again)"
    assert (first.error.code, first.state, last.state) == ("retry", "failed", "succeeded")


async def test_task_that_others_call_is_part_of_their_job(app: Celery, headway: Headway) -> None:
    """A task that is called is a function; called by nobody's job, it is outside of one."""
    found: list[object] = []

    @app.task(shared=False)
    def inner() -> None:
        found.append(current_progress())

    @app.task(shared=False)
    def outer() -> None:
        inner()
        inner.apply()
        found.append(current_progress())

    async with headway:
        await asyncio.to_thread(outer.delay)
        jobs = (await headway.overview()).jobs
    with pytest.raises(HeadwayError, match="outside of a job"):
        inner()

    assert [job.title for job in jobs] == ["Outer"]
    assert len(found) == 3
    assert len(set(map(id, found))) == 1


async def test_threads_of_a_task(app: Celery, headway: Headway) -> None:
    """A thread finds the job of its task, but begins none; nor does one that outlives it."""
    said: list[object] = []

    def ask(context: contextvars.Context) -> None:
        def asks() -> None:
            try:
                said.append(current_progress().job_id)
            except HeadwayError as error:
                said.append("outside" in str(error))

        thread = threading.Thread(target=context.run, args=(asks,))
        thread.start()
        thread.join()

    contexts: list[contextvars.Context] = []

    @app.task(shared=False)
    def work() -> str | None:
        contexts.append(contextvars.copy_context())
        ask(contexts[0])
        job_id = current_progress().job_id
        ask(contexts[0])
        return job_id

    async with headway:
        result = await asyncio.to_thread(work.delay)
    ask(contexts[0])

    assert said == [True, result.get(), True]


@pytest.mark.parametrize("error", [Ignore(), SystemExit(3)], ids=["ignored", "exits"])
async def test_task_that_leaves_early(app: Celery, headway: Headway, error: BaseException) -> None:
    """It has not done its work, and nothing went wrong that could be told."""

    @app.task(shared=False)
    def work() -> None:
        current_progress()
        raise error

    def start() -> None:
        with suppress(SystemExit):
            work.delay()

    async with headway:
        await asyncio.to_thread(start)
        (job,) = (await headway.overview()).jobs

    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", "interrupted")


@pytest.mark.parametrize(
    ("owned", "shown"), [(7, "7"), (EVERYONE, EVERYONE), (None, None), (["ann"], BadInput)]
)
async def test_owner_of_a_task(
    app: Celery, make_headway: MakeHeadway, owned: object, shown: Any
) -> None:
    """Owners are what `identify` may return."""
    headway = make_headway(engine=CeleryEngine(app, owner=lambda request: owned))

    @app.task(shared=False)
    def work() -> None:
        current_progress()

    async with headway:
        result = await asyncio.to_thread(work.delay)
        owners = [job.owner for job in (await headway.overview()).jobs]

    if shown is BadInput:
        assert isinstance(result.result, BadInput)
    assert owners == ([] if shown is BadInput else [shown])


def test_tasks_of_an_app_without_a_headway(app: Celery) -> None:
    """They run as ever; who asks is told what is missing."""
    CeleryEngine(app)

    @app.task(shared=False)
    def work(*, asks: bool) -> int:
        if asks:
            current_progress()
        return 1

    app.finalize()

    assert work.delay(asks=False).get() == 1
    assert isinstance(work.delay(asks=True).result, BadInput)
