"""Traces and metrics, as an app with the SDK gets them; and nothing at all without the extra."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics as api_metrics
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import generate_latest

from headway import Headway, JobError, Progress
from headway.context import About, about
from headway.job import new_id
from headway.store import Store
from headway.telemetry import Telemetry, telemetry
from tests.apps.process import free_port
from tests.conftest import PARTITIONS, MakeHeadway, Until, end_of
from tests.keyspace import Keyspace

ROOT = Path(__file__).parent.parent


class Backend:
    """What an app's backend has received."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        telemetry()  # before the SDK is there: then it must still work
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        trace.set_tracer_provider(provider)
        readers = [self._reader, PrometheusMetricReader()]
        api_metrics.set_meter_provider(MeterProvider(readers))
        self.tracer = trace.get_tracer("an app")

    def spans(self, name: str) -> list[ReadableSpan]:
        """Those of this name, in the order of their ends."""
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def span(self, name: str) -> Any:
        (found,) = self.spans(name)
        return found

    def points(self, name: str, **attributes: str) -> list[Any]:
        wanted = {f"headway.{key}": value for key, value in attributes.items()}
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if wanted.items() <= dict(point.attributes or {}).items()
        ]

    def count(self, name: str, **attributes: str) -> float:
        return float(sum(point.value for point in self.points(name, **attributes)))

    def measured(self, name: str, **attributes: str) -> int:
        return sum(point.count for point in self.points(name, **attributes))


@pytest.fixture(scope="session")
def backend() -> Backend:
    """One for all tests of this process: OpenTelemetry lets it be set once."""
    return Backend()


@pytest.fixture
async def headway(make_headway: MakeHeadway, backend: Backend) -> AsyncIterator[Headway]:
    """An open Headway."""
    async with make_headway() as headway:
        yield headway


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A task of this test, and of no other one."""
    return str(request.node.name).replace("[", "-").replace("]", "")


def ids(span: Any) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def parent(span: Any) -> tuple[int, int]:
    return span.parent.trace_id, span.parent.span_id


def child(kind: str) -> list[int]:
    """In a child process: which span is the current one there."""
    if kind == "bug":
        raise ValueError("no such row")
    here = trace.get_current_span().get_span_context()
    return [here.trace_id, here.span_id]


# ── traces ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_one_trace_from_request_to_end(
    headway: Headway, backend: Backend, name: str, kind: str
) -> None:
    """Request → start → run → the task's own spans, with the names of the conventions."""

    async def coroutine() -> None:
        with backend.tracer.start_as_current_span(f"inside {name}"):
            await asyncio.sleep(0)

    def thread() -> None:
        with backend.tracer.start_as_current_span(f"inside {name}"):
            pass

    task = headway.task(name=name)(coroutine if kind == "coroutine" else thread)
    with about(About(request_id="r-1")), backend.tracer.start_as_current_span(f"POST {name}"):
        job = await task.start()
    await end_of(headway, job)

    request, inside = backend.span(f"POST {name}"), backend.span(f"inside {name}")
    start, run = backend.span(f"start {name}"), backend.span(f"run {name}")
    assert [parent(one) for one in (start, run, inside)] == [ids(request), ids(start), ids(run)]
    assert [(link.context.trace_id, link.context.span_id) for link in run.links] == [ids(start)]
    assert (start.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert run.status.status_code is StatusCode.UNSET
    both = {
        "messaging.system": "headway",
        "messaging.destination.name": name,
        "messaging.message.id": job.id,
        "headway.request_id": "r-1",
    }
    assert dict(start.attributes) == {
        **both,
        "messaging.operation.name": "start",
        "messaging.operation.type": "send",
    }
    assert dict(run.attributes) == {
        **both,
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "headway.attempt": 1,
        "headway.state": "succeeded",
    }


async def test_trace_goes_on_in_another_process(
    make_headway: MakeHeadway, backend: Backend, name: str
) -> None:
    """The trace is in the record: whoever runs the job goes on with it."""
    go = asyncio.Event()
    async with make_headway() as other:
        async with make_headway(concurrency=1) as first:
            blocking = first.task(name=f"blocking {name}".replace(" ", "-"))(go.wait)
            first.task(name=name)(go.wait)
            await blocking.start()
            waiting = await first._tasks.get(name).start()
            other.task(name=name)(go.wait)
        go.set()
        await end_of(other, waiting)

    assert parent(backend.span(f"run {name}")) == ids(backend.span(f"start {name}"))


async def test_a_child_process_is_in_the_span(
    headway: Headway, backend: Backend, name: str
) -> None:
    """What the code of a child records is part of its run."""
    job = await headway.task(run="process", name=name)(child).start("here")

    ended = await end_of(headway, job)

    assert tuple(ended.result) == ids(backend.span(f"run {name}"))


@pytest.mark.parametrize("way", ["coroutine", "thread", "process"])
async def test_a_failure_is_recorded(
    headway: Headway, backend: Backend, name: str, way: str
) -> None:
    """Status, class and traceback, wherever it was raised."""

    async def coroutine(kind: str) -> Any:
        return child(kind)

    def thread(kind: str) -> Any:
        return child(kind)

    if way == "process":
        task: Any = headway.task(run="process", name=name)(child)
    else:
        task = headway.task(name=name)(coroutine if way == "coroutine" else thread)
    await end_of(headway, await task.start("bug"))

    run = backend.span(f"run {name}")
    (event,) = run.events
    assert run.status.status_code is StatusCode.ERROR
    assert run.attributes["error.type"] == "ValueError"
    assert run.attributes["headway.state"] == "failed"
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"].endswith("no such row")
    assert "in child" in event.attributes["exception.stacktrace"]


async def test_words_for_the_user_have_their_code(
    headway: Headway, backend: Backend, name: str
) -> None:
    """A `JobError` is told apart by its code."""

    @headway.task(name=name)
    async def work() -> None:
        raise JobError("Row 7 has no name", code="no_name")

    await end_of(headway, await work.start())

    run = backend.span(f"run {name}")
    assert run.attributes["error.type"] == "no_name"
    assert run.status.description == "Row 7 has no name"


async def test_each_attempt_has_a_span(
    headway: Headway, backend: Backend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one trace; a failed attempt that is followed by another counts as retried."""
    monkeypatch.setattr("headway.run.RETRY_FIRST_S", 0.02)

    @headway.task(name=name, retries=1)
    async def work(progress: Progress) -> None:
        if progress.attempt == 1:
            raise ValueError

    await end_of(headway, await work.start())

    runs: list[Any] = backend.spans(f"run {name}")
    told = [(one.attributes["headway.attempt"], one.attributes["headway.state"]) for one in runs]
    assert told == [(1, "queued"), (2, "succeeded")]
    assert {parent(one) for one in runs} == {ids(backend.span(f"start {name}"))}
    assert backend.count("headway.retried.attempts", task=name) == 1
    assert backend.count("headway.ended.jobs", task=name) == 1


async def test_a_cancelled_run_is_no_error(
    headway: Headway, backend: Backend, name: str, until: Until
) -> None:
    """It has an event that says when it was asked to stop."""

    @headway.task(name=name)
    async def work() -> None:
        await asyncio.Event().wait()

    job = await work.start()
    await until(lambda: headway._open_runtime("test").runner.running, "it runs")
    await headway.cancel(job.id)
    await end_of(headway, job)

    run = backend.span(f"run {name}")
    assert [event.name for event in run.events] == ["cancel"]
    assert run.status.status_code is StatusCode.UNSET
    assert run.attributes["headway.state"] == "cancelled"


async def test_a_run_that_loses_its_job_says_so(
    headway: Headway, backend: Backend, name: str, keyspace: Keyspace, until: Until
) -> None:
    """Its span is an error, whatever became of the job elsewhere."""
    go, stopped = asyncio.Event(), asyncio.Event()

    @headway.task(name=name)
    async def work(progress: Progress) -> None:
        await go.wait()
        progress.note("something to write")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    job = await work.start()
    await until(lambda: headway._open_runtime("test").runner.running, "it runs")
    record = headway._open_runtime("test").store.keys.record(job.id)
    keyspace.client.hset(record, "worker", "another one")
    go.set()
    await stopped.wait()
    await until(lambda: backend.spans(f"run {name}"), "the span is over")
    keyspace.client.hset(record, "worker", headway._open_runtime("test").worker)
    await headway._open_runtime("test").store.release(job.id, 1, delay_s=60)
    await headway.cancel(job.id)

    run = backend.span(f"run {name}")
    assert run.events[0].name == "lost"
    assert run.attributes["error.type"] == run.attributes["headway.state"] == "lost"
    assert run.status.status_code is StatusCode.ERROR


async def test_a_refused_start_is_recorded(headway: Headway, backend: Backend, name: str) -> None:
    """With the class of what was raised; it counts as no start."""

    @headway.task(name=name)
    async def work() -> None:
        await asyncio.Event().wait()

    using = work.using(key="one", if_running="refuse")
    await using.start()
    with pytest.raises(Exception, match="has this key"):
        await using.start()

    first, second = backend.spans(f"start {name}")
    assert first.status.status_code is StatusCode.UNSET
    assert second.status.status_code is StatusCode.ERROR
    assert dict(second.attributes or {})["error.type"] == "AlreadyRunning"
    assert backend.count("headway.started.jobs", task=name) == 1


# ── metrics ───────────────────────────────────────────────────────────────────────────────────


async def test_jobs_are_counted(headway: Headway, backend: Backend, name: str) -> None:
    """Each start and each end once, by task and state, and how long it waited and ran."""

    @headway.task(name=name)
    async def work(n: int) -> None:
        if n:
            raise ValueError

    for n in (0, 0, 1):
        await end_of(headway, await work.start(n))
    using = work.using(key="same")
    one = await using.start(0)
    await end_of(headway, one)

    assert backend.count("headway.started.jobs", task=name) == 4
    assert backend.count("headway.ended.jobs", task=name, state="succeeded") == 3
    assert backend.count("headway.ended.jobs", task=name, state="failed") == 1
    assert backend.measured("headway.wait.duration", task=name) == 4
    assert backend.measured("headway.run.duration", task=name, state="succeeded") == 3
    (point,) = backend.points("headway.run.duration", task=name, state="failed")
    assert point.explicit_bounds[0] == 0.01


async def test_a_job_that_was_found_again_is_no_start(
    headway: Headway, backend: Backend, name: str
) -> None:
    """A second click is a span, but no job."""

    @headway.task(name=name)
    async def work() -> None:
        await asyncio.Event().wait()

    jobs = [await work.using(key="one").start() for _ in range(2)]

    assert jobs[0].id == jobs[1].id
    assert backend.count("headway.started.jobs", task=name) == 1
    assert dict(backend.spans(f"start {name}")[1].attributes or {})["headway.reused"] is True


async def test_what_is_cancelled_while_it_waits_is_counted(
    make_headway: MakeHeadway, backend: Backend, name: str
) -> None:
    """A job that ends without having begun has ended, too."""
    go = asyncio.Event()
    async with make_headway(concurrency=1) as headway:
        work = headway.task(name=name)(go.wait)
        first, second = await work.start(), await work.start()
        await headway.cancel(second.id)
        go.set()
        await end_of(headway, first)
        await end_of(headway, await work.start())

    assert backend.count("headway.ended.jobs", task=name, state="cancelled") == 1
    assert backend.count("headway.ended.jobs", task=name, state="succeeded") == 2


async def test_what_was_cancelled_before_a_stop_is_counted(
    make_headway: MakeHeadway, backend: Backend, name: str
) -> None:
    """Even if its turn never comes."""
    async with make_headway(concurrency=1) as headway:
        work = headway.task(name=name)(asyncio.Event().wait)
        _, waiting = await work.start(), await work.start()
        await headway.cancel(waiting.id)

    assert backend.count("headway.ended.jobs", task=name, state="cancelled") == 1
    assert backend.count("headway.ended.jobs", task=name, state="failed") == 1


async def test_lost_attempts_are_counted(
    make_headway: MakeHeadway, backend: Backend, name: str, link: Any, until: Until
) -> None:
    """By the process that found them, and their job's end with them."""
    async with make_headway(lease_s=1) as headway:
        store = Store(link, headway._open_runtime("test").store.keys, "dead", keep_s=60)
        record = {"task": name, "max_attempts": "1", "on_lost": "fail"}
        job = await store.create(new_id(PARTITIONS), record, 0)
        assert await store.claim(job.id, 0.01) is not None

        await until(lambda: backend.count("headway.lost.attempts", task=name), "it is found")

    assert backend.count("headway.lost.attempts", task=name) == 1
    assert backend.count("headway.ended.jobs", task=name, state="failed") == 1


async def test_what_there_is_now_is_counted_when_asked(
    make_headway: MakeHeadway, backend: Backend, name: str, until: Until
) -> None:
    """Running, queued and watched, of all that is open in this process; closed, it counts none."""
    go = asyncio.Event()

    def now() -> list[float]:
        names = ("headway.job.running", "headway.job.queued", "headway.stream.open")
        return [backend.count(one) for one in names]

    async with make_headway(concurrency=2) as headway:
        work = headway.task(name=name)(go.wait)
        jobs = [await work.start() for _ in range(5)]
        await until(lambda: now() == [2, 3, 0], "two run and three wait")
        go.set()
        for job in jobs:
            await end_of(headway, job)
        assert now() == [0, 0, 0]

    assert now() == [0, 0, 0]


async def test_delays_are_measured(
    headway: Headway, backend: Backend, name: str, until: Until
) -> None:
    """Each write of the beat thread, and each answer beside the announcements."""
    before = backend.measured("headway.flush.duration")

    @headway.task(name=name)
    async def work(progress: Progress) -> None:
        progress.note("something")
        await asyncio.Event().wait()

    lags = backend.measured("headway.watch.lag")
    await work.start()

    await until(lambda: backend.measured("headway.flush.duration") > before, "a write is seen")
    await until(lambda: backend.measured("headway.watch.lag") > lags, "the lag is known")


async def test_prometheus_reads_them(headway: Headway, backend: Backend, name: str) -> None:
    """Through OpenTelemetry's own exporter, under these names: alerts hang on them."""

    @headway.task(name=name)
    async def work() -> None: ...

    await end_of(headway, await work.start())

    text = generate_latest().decode()
    about_it = f'headway_task="{name}"'
    assert "headway_job_running{" in text
    (ended,) = (
        line
        for line in text.splitlines()
        if line.startswith("headway_ended_jobs_total{") and about_it in line
    )
    assert 'headway_state="succeeded"' in ended
    assert ended.endswith(" 1.0")
    page = (ROOT / "docs" / "operations.md").read_text()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE headway_")}
    assert not {one for one in names if f"`{one.removesuffix('_created')}`" not in page}


SERVED = """
import urllib.request
from headway.telemetry import telemetry
telemetry().lost("work")
print(urllib.request.urlopen("http://127.0.0.1:%d/metrics").read().decode())
"""


def test_the_sample_serves_prometheus() -> None:
    """What the page says to write is enough."""
    sample = (ROOT / "docs" / "operations.md").read_text().split("```python\n")[2].split("```")[0]
    port = free_port()
    code = sample.replace("9464", str(port)) + SERVED % port

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert "headway_lost_attempts_total{" in done.stdout, done.stderr


# ── nothing ───────────────────────────────────────────────────────────────────────────────────

WITHOUT = """
import asyncio, sys

class Blocked:
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            self.asked.append(name)
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())

from headway import Headway
from headway.telemetry import telemetry

async def main(url, prefix):
    headway = Headway(url, prefix=prefix, drain_s=0)

    @headway.task
    async def work(progress):
        for _ in progress.track(range(3)):
            await asyncio.sleep(0)

    @headway.task
    def thread(): ...

    before = len(Blocked.asked)  # the Redis client asks, too
    async with headway:
        for task in (work, thread):
            job = await task.start()
            async for job in headway.watch(job.id):
                pass
            assert job.state == "succeeded", job
            await headway.forget(job.id)
    assert Blocked.asked[before:] == ["opentelemetry"], Blocked.asked[before:]
    assert not telemetry().on
    assert not [name for name in sys.modules if name.startswith("opentelemetry")]

asyncio.run(main(*sys.argv[1:]))
print("fine")
"""


def test_without_the_extra_nothing_is_imported(url: str, prefix: str) -> None:
    """Jobs run as ever, and the package is looked for once."""
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT), url, prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.stdout == "fine\n", done.stderr


class Counting(Telemetry):
    """What is there without the extra, and counts how often it is asked for anything."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def __getattribute__(self, name: str) -> Any:
        if name != "asked":
            object.__getattribute__(self, "asked").append(name)
        return object.__getattribute__(self, name)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was asked of telemetry since the last call."""
    counting = Counting()
    monkeypatch.setattr("headway.runtime.telemetry", lambda: counting)

    def asked() -> list[str]:
        found = list(counting.asked)
        counting.asked.clear()
        return found

    return asked


async def test_without_the_extra_a_job_costs_three_questions(
    make_headway: MakeHeadway, counting: Callable[[], list[str]]
) -> None:
    """Is it on: at the start, the run and the end; and once for each write of the beat thread."""
    jobs = 20
    async with make_headway() as headway:
        writes, send = [], headway._open_runtime("test").pulse._store.send

        def sending(calls: Any) -> Any:
            writes.append(calls)
            return send(calls)

        headway._open_runtime("test").pulse._store.send = sending  # type: ignore[method-assign]

        @headway.task
        async def work(progress: Progress) -> None:
            async for _ in progress.track(range(100)):
                pass

        counting()
        for _ in range(jobs):
            await end_of(headway, await work.start())
        asked = counting()

    assert set(asked) == {"on"}
    # And a few times by those that listen to the store, whenever it answers them.
    assert 3 * jobs + len(writes) <= len(asked) < 4 * jobs + len(writes)
