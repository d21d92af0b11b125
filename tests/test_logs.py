"""Log lines know which job and which request they are about, wherever they are written."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from quart import Quart

from headway import Headway, Progress
from headway.context import About, Context, about, current_about, request_id_of
from headway.logs import JobFilter
from headway.quart import Headway as QuartHeadway
from headway.store import Store
from tests.conftest import MakeHeadway, Until, end_of

FIELDS = ("job_id", "task", "attempt", "request_id")
OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"

logger = logging.getLogger("an.app")


class Kept(logging.Handler):
    """A handler of the app, with the filter on it."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(JobFilter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def about(self, message: str) -> About:
        """What the line that says *message* is about."""
        (found,) = (record for record in self.records if message in record.getMessage())
        return About(*(getattr(found, name) for name in FIELDS))


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What is logged in this test."""
    handler, root = Kept(), logging.getLogger()
    levels = {one: one.level for one in (root, logging.getLogger("headway"))}
    root.addHandler(handler)
    for one in levels:
        one.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    for one, level in levels.items():
        one.setLevel(level)


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open Headway."""
    async with make_headway() as headway:
        yield headway


def child(path: str) -> None:
    """Logs in a child process, whose logging it sets up itself."""
    handler = logging.FileHandler(path)
    handler.addFilter(JobFilter())
    handler.setFormatter(logging.Formatter("%(job_id)s %(task)s %(attempt)s %(request_id)s"))
    logging.getLogger().addHandler(handler)
    logger.warning("in a child")
    handler.close()


# ── what a line is about ──────────────────────────────────────────────────────────────────────


async def test_lines_of_tasks_name_their_job(headway: Headway, kept: Kept) -> None:
    """In a coroutine, what it starts, a thread, and what that calls."""

    @headway.task
    async def on_the_loop() -> None:
        logger.info("on the loop")
        await asyncio.create_task(asyncio.to_thread(logger.info, "beside the loop"))

    @headway.task
    def in_a_thread(progress: Progress) -> None:
        logger.info("in a thread")

    with about(About(request_id="r-1")):
        one, other = await on_the_loop.start(), await in_a_thread.start()
    await end_of(headway, one)
    await end_of(headway, other)

    of_one = About(one.id, "on_the_loop", 1, "r-1")
    assert kept.about("on the loop") == kept.about("beside the loop") == of_one
    assert kept.about("in a thread") == About(other.id, "in_a_thread", 1, "r-1")
    assert current_about() == About()


async def test_lines_of_children_name_their_job(headway: Headway, tmp_path: Path) -> None:
    """A child process that sets up its logging has the same filter."""
    task = headway.task(run="process")(child)
    with about(About(request_id="r-2")):
        job = await task.start(str(tmp_path / "log"))

    await end_of(headway, job)

    assert (tmp_path / "log").read_text() == f"{job.id} child 1 r-2\n"


async def test_own_lines_name_their_job(headway: Headway, kept: Kept) -> None:
    """Headway's records have the fields by themselves, and a word for what happened."""

    @headway.task
    async def work() -> None:
        raise ValueError("no")

    job = await work.start()
    await end_of(headway, job)

    own = [vars(record) for record in kept.records if record.name.startswith("headway.")]
    told = [(one["action"], one["job_id"], one["task"]) for one in own if "action" in one]
    assert told == [(action, job.id, "work") for action in ("create", "fail", "finish")]


async def test_a_lost_job_is_told(
    make_headway: MakeHeadway, store: Store, kept: Kept, until: Until
) -> None:
    """Whoever finds a job without a living process says so, and which request wanted it."""
    async with make_headway(lease_s=1) as headway:
        found = await headway._open_runtime("test").store.create(
            "00" + "b" * 26,
            {
                "task": "work",
                "max_attempts": "1",
                "on_lost": "fail",
                "context": Context(request_id="r-3").encoded(),
            },
            0,
        )
        dead = Store(headway._open_runtime("test").link, headway._open_runtime("test").store.keys,
                     "dead", keep_s=60)  # fmt: skip
        assert await dead.claim(found.id, 0.01) is not None

        await until(lambda: any("is lost" in r.getMessage() for r in kept.records), "it is found")

    assert kept.about("is lost") == About(found.id, "work", 1, "r-3")


def test_fields_that_are_there_stay() -> None:
    """A record that says itself what it is about is believed."""
    record = logging.makeLogRecord({"msg": "x", "job_id": "mine"})

    with about(About("other", "work", 2, "r")):
        assert JobFilter().filter(record)

    assert [getattr(record, name) for name in FIELDS] == ["mine", "work", 2, "r"]


def test_nothing_is_none() -> None:
    """Outside of jobs and requests the fields are there, and empty."""
    record = logging.makeLogRecord({})

    JobFilter().filter(record)

    assert [getattr(record, name) for name in FIELDS] == [None] * 4


# ── requests ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", ["a", "7f.3-X_1:/+=@", "x" * 128])
def test_request_id_is_kept(sent: str) -> None:
    """What clients and proxies use as ids is taken as it is."""
    assert request_id_of(sent) == sent


@pytest.mark.parametrize(
    "sent", [None, "", "x" * 129, "a b", "a\nb", "a\n", 'a"b', "<b>", "é", "\x00", "١"]
)
def test_request_id_is_made(sent: str | None) -> None:
    """What could forge a line of a log, or fill it, is replaced; no two are the same."""
    made = request_id_of(sent)

    assert re.fullmatch("[0-9a-f]{32}", made)
    assert request_id_of(sent) != made


@pytest.mark.parametrize("context", [Context(), Context(request_id="r", traceparent="t")])
def test_context_is_read_back(context: Context) -> None:
    """What is written into a record is read from it; nothing costs nothing."""
    assert Context.decoded(context.encoded()) == context
    assert bool(context.encoded()) == (context != Context())


@pytest.mark.parametrize("text", [None, "", "{", '{"request_id": 7}', "[]", '{"later": true}'])
def test_context_that_cannot_be_read_is_none(text: str | None) -> None:
    """Another version's records do not stop a job."""
    assert Context.decoded(text) == Context()


async def test_request_id_travels_with_the_job(make_headway: MakeHeadway) -> None:
    """From the header of the request, through the store, into the run; the same for a retry."""
    app = Quart(__name__)
    headway = make_headway(QuartHeadway, identify=lambda _: "ann")
    assert isinstance(headway, QuartHeadway)
    headway.init_app(app)
    seen: list[str | None] = []

    @headway.task
    async def work() -> None:
        seen.append(current_about().request_id)
        raise ValueError

    @app.post("/")
    async def start() -> Any:
        return await headway.reply(await work.start())

    transport = httpx.ASGITransport(cast("Any", app))
    async with app.test_app(), httpx.AsyncClient(transport=transport) as http:

        async def ended(path: str, **headers: str) -> str:
            answer = await http.post(f"http://site.test{path}", headers=headers)
            job = await end_of(headway, await headway.get(answer.json()["id"]))
            return job.id

        job_id = await ended("/", **{"X-Request-ID": "from-a-proxy"})
        await ended("/", **{"X-Request-ID": "a b"})
        await ended("/")
        await ended(f"/jobs/{job_id}/retry", **{"X-Request-ID": "again"})

    made = [one for one in seen[1:3] if one is not None]
    assert (seen[0], seen[3]) == ("from-a-proxy", "again")
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert len({*made}) == 2


async def test_lines_about_requests_name_them(make_headway: MakeHeadway, kept: Kept) -> None:
    """What goes wrong while Headway answers is told with the id of the request."""

    def fail(_: Any) -> None:
        raise ValueError("no database")

    headway = make_headway(identify=fail)
    transport = httpx.ASGITransport(headway.asgi, root_path="/jobs")
    async with headway, httpx.AsyncClient(transport=transport) as http:
        answer = await http.get("http://site.test/jobs", headers={"X-Request-ID": "r-5"})

    assert answer.status_code == 500
    assert kept.about("could not be answered") == About(request_id="r-5")


async def test_jobs_of_jobs_keep_the_request(headway: Headway) -> None:
    """What a job starts is still about the request that started it."""
    seen = []

    @headway.task
    async def small() -> None:
        seen.append(current_about())

    @headway.task
    async def large(progress: Progress) -> None:
        async with headway.group(progress) as group:
            await group.start(small)

    with about(About(request_id="r-4")):
        job = await large.start()
    await end_of(headway, job)

    assert [(one.task, one.request_id) for one in seen] == [("small", "r-4")]


# ── the page about it ─────────────────────────────────────────────────────────────────────────


async def test_the_sample_writes_json(headway: Headway, capsys: pytest.CaptureFixture[str]) -> None:
    """The formatter in the docs makes one object of each line."""
    sample = OPERATIONS.read_text().split("```python\n", 1)[1].split("```", 1)[0]
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    root.handlers.clear()  # as in an app that has set up nothing yet
    try:
        exec(compile(sample, "operations.md", "exec"), {})

        @headway.task
        async def work() -> None:
            logger.warning("a line with \n a break")

        job = await work.start()
        await end_of(headway, job)
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    (line,) = (one for one in lines if one["logger"] == "an.app")
    assert line["message"] == "a line with \n a break"
    assert (line["job_id"], line["task"], line["attempt"]) == (job.id, "work", 1)
