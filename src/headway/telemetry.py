"""Traces and metrics, by OpenTelemetry: the only room that knows of it.

Needs the extra `otel`, which is the API alone; the app brings the SDK and the exporter, and sets
them up as it likes, before or after Headway opens. Without the extra nothing is imported, and
what stands in the other rooms is one question: `if telemetry.on`.

Names are those of the semantic conventions for messaging where there are such, else `headway.…`.
Source: OpenTelemetry semantic conventions 1.44 (package opentelemetry-semantic-conventions 0.66b2),
messaging spans, recording errors, naming of metrics. Those for messaging are in development, so
metrics, which alerts hang on, have names of our own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headway.context import TRACESTATE_CHARS, Context
from headway.job import Failure, Job

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Status

__all__ = ["Counts", "Running", "Starting", "Telemetry", "joined", "telemetry"]

DURATIONS_S: Final = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)  # of work
DELAYS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SYSTEM: Final = "headway"


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What one open Headway counts when it is asked. Called from any thread."""

    running: Callable[[], int]
    queued: Callable[[], int]
    streams: Callable[[], int]


class Starting:
    """The span around one start; `context` is what the job takes with it."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def accepted(self, job: Job) -> None:
        """The job is safe in the store, or was there already."""


class Running:
    """The span of one attempt, the current one for whatever the task does.

    `context` is what a child process needs to go on in it.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def told(self, why: str) -> None:
        """The code was asked to stop."""

    def over(self, error: BaseException | None) -> None:
        """The code has come to its end."""

    def became(self, state: str, failure: Failure | None) -> None:
        """What the attempt led to: a state of the job, "queued" for another attempt, or "lost"."""


class Telemetry:
    """Nothing: what there is without OpenTelemetry. Ask `on` first; then no call is made at all."""

    on: bool = False

    def starting(self, task: str, context: Context) -> AbstractContextManager[Starting]:
        """Around accepting a job."""
        return nullcontext(Starting(context))

    def running(self, job: Job, context: Context) -> AbstractContextManager[Running]:
        """Around one attempt, from its claim to its end in the store."""
        return nullcontext(Running(context))

    def ended(self, task: str, state: str) -> None:
        """A job has ended; called once for each, by the process that ended it."""

    def lost(self, task: str) -> None:
        """An attempt was found without a living process."""

    def flushing(self) -> AbstractContextManager[None]:
        """Around one write of the beat thread."""
        return nullcontext()

    def heard(self, seconds: float) -> None:
        """How long an answer of the store took on the line of the announcements."""

    def add(self, counts: Counts) -> None:
        """Count this Headway from now on."""

    def remove(self, counts: Counts) -> None:
        """Count it no longer."""


@cache
def telemetry() -> Telemetry:
    """That of this process: OpenTelemetry has one too, and instruments cannot be taken back."""
    try:
        return _OpenTelemetry()
    except ImportError:
        return Telemetry()


def joined(context: Context) -> AbstractContextManager[None]:
    """In a child process: the span in which its parent runs the attempt is the current one."""
    found = telemetry() if context.traceparent else None
    return found.joined(context) if isinstance(found, _OpenTelemetry) else nullcontext()


class _OpenTelemetry(Telemetry):
    on = True

    def __init__(self) -> None:
        from opentelemetry import context, metrics, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        made_by = _version()
        self._trace = trace
        self._context = context
        self._propagator = TraceContextTextMapPropagator()
        self._observation = metrics.Observation
        self._tracer = trace.get_tracer(SYSTEM, made_by)
        self._all: set[Counts] = set()
        self._make_instruments(metrics.get_meter(SYSTEM, made_by))

    def _make_instruments(self, meter: Any) -> None:
        self._started = meter.create_counter(
            "headway.started.jobs", "{job}", "Jobs that this process has accepted"
        )
        self._ended = meter.create_counter(
            "headway.ended.jobs", "{job}", "Jobs that this process has brought to their end"
        )
        self._lost = meter.create_counter(
            "headway.lost.attempts", "{attempt}", "Attempts whose process died or fell silent"
        )
        self._retried = meter.create_counter(
            "headway.retried.attempts", "{attempt}", "Failed attempts that are followed by another"
        )
        self._waited = meter.create_histogram(
            "headway.wait.duration", "s", "From accepting a job to the begin of its first attempt",
            explicit_bucket_boundaries_advisory=DURATIONS_S,
        )  # fmt: skip
        self._ran = meter.create_histogram(
            "headway.run.duration", "s", "How long the code of an attempt ran",
            explicit_bucket_boundaries_advisory=DURATIONS_S,
        )  # fmt: skip
        self._flushed = meter.create_histogram(
            "headway.flush.duration", "s", "One write of progress and leases to the store",
            explicit_bucket_boundaries_advisory=DELAYS_S,
        )  # fmt: skip
        self._lag = meter.create_histogram(
            "headway.watch.lag", "s", "How long the store's answer took beside the announcements",
            explicit_bucket_boundaries_advisory=DELAYS_S,
        )  # fmt: skip
        for name, unit, what, count in (
            ("headway.job.running", "{job}", "Jobs that run in this process", "running"),
            ("headway.job.queued", "{job}", "Jobs that wait in this process", "queued"),
            ("headway.stream.open", "{stream}", "Event streams of this process", "streams"),
        ):
            meter.create_observable_up_down_counter(name, [self._counting(count)], unit, what)

    def _counting(self, count: str) -> Callable[[Any], Iterable[Any]]:
        def observe(_: Any) -> Iterable[Any]:
            return [self._observation(sum(getattr(one, count)() for one in self._all.copy()))]

        return observe

    # ── spans ─────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def starting(self, task: str, context: Context) -> Iterator[Starting]:
        with self._tracer.start_as_current_span(
            f"start {task}",
            kind=self._trace.SpanKind.PRODUCER,
            attributes=_about(task, "start", "send"),
        ) as span:
            try:
                yield _Starting(self, span, task, self._here(context))
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    @contextmanager
    def running(self, job: Job, context: Context) -> Iterator[Running]:
        if job.attempt == 1 and job.started_at is not None:
            self._waited.record(max(job.started_at - job.created_at, 0), {"headway.task": job.task})
        start = self._remote(context)
        origin = self._trace.get_current_span(start).get_span_context()
        span = self._tracer.start_span(
            f"run {job.task}",
            context=start,
            kind=self._trace.SpanKind.CONSUMER,
            # The conventions want a link in any case, the same trace only if they may.
            links=[self._trace.Link(origin)] if origin.is_valid else None,
            attributes={
                **_about(job.task, "run", "process"),
                "messaging.message.id": job.id,
                "headway.attempt": job.attempt,
                **({"headway.request_id": context.request_id} if context.request_id else {}),
            },
        )
        with self._trace.use_span(span, end_on_exit=True):
            yield _Running(self, span, job.task, self._here(context))

    @contextmanager
    def joined(self, context: Context) -> Iterator[None]:
        token = self._context.attach(self._remote(context))
        try:
            yield
        finally:
            self._context.detach(token)

    def _here(self, context: Context) -> Context:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        state = carrier.get("tracestate", "")
        return msgspec.structs.replace(
            context,
            traceparent=carrier.get("traceparent"),
            tracestate=state if 0 < len(state) <= TRACESTATE_CHARS else None,
        )

    def _remote(self, context: Context) -> Any:
        carrier = {"traceparent": context.traceparent, "tracestate": context.tracestate}
        told = {name: value for name, value in carrier.items() if value}
        return self._propagator.extract(told, self._context.get_current())

    # ── numbers ───────────────────────────────────────────────────────────────────────────────

    def started(self, task: str) -> None:
        self._started.add(1, {"headway.task": task})

    def ended(self, task: str, state: str) -> None:
        self._ended.add(1, {"headway.task": task, "headway.state": state})

    def lost(self, task: str) -> None:
        self._lost.add(1, {"headway.task": task})

    def retried(self, task: str) -> None:
        self._retried.add(1, {"headway.task": task})

    def ran(self, task: str, became: str, seconds: float) -> None:
        self._ran.record(seconds, {"headway.task": task, "headway.state": became})

    @contextmanager
    def flushing(self) -> Iterator[None]:
        began, failed = time.perf_counter(), {}
        try:
            yield
        except Exception as error:
            failed = {"error.type": type(error).__qualname__}
            raise
        finally:
            self._flushed.record(time.perf_counter() - began, failed)

    def heard(self, seconds: float) -> None:
        self._lag.record(seconds)

    def error(self, why: str) -> Status:
        return self._trace.Status(self._trace.StatusCode.ERROR, why)

    def add(self, counts: Counts) -> None:
        self._all.add(counts)

    def remove(self, counts: Counts) -> None:
        self._all.discard(counts)


def _version() -> str:
    try:
        return version("headway")
    except PackageNotFoundError:  # it is not installed, only found
        return ""


def _about(task: str, name: str, kind: str) -> dict[str, str]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": task,
    }


class _Starting(Starting):
    def __init__(self, owner: _OpenTelemetry, span: Span, task: str, context: Context) -> None:
        super().__init__(context)
        self._owner = owner
        self._span = span
        self._task = task

    def accepted(self, job: Job) -> None:
        self._span.set_attribute("messaging.message.id", job.id)
        if self.context.request_id:
            self._span.set_attribute("headway.request_id", self.context.request_id)
        if job.reused:
            self._span.set_attribute("headway.reused", True)  # noqa: FBT003
        else:
            self._owner.started(self._task)


class _Running(Running):
    def __init__(self, owner: _OpenTelemetry, span: Span, task: str, context: Context) -> None:
        super().__init__(context)
        self._owner = owner
        self._span = span
        self._task = task
        self._began = time.perf_counter()
        self._ran_s = 0.0
        self._error: BaseException | None = None

    def told(self, why: str) -> None:
        self._span.add_event(why)

    def over(self, error: BaseException | None) -> None:
        self._ran_s = time.perf_counter() - self._began
        self._error = error

    def became(self, state: str, failure: Failure | None) -> None:
        self._owner.ran(self._task, state, self._ran_s)
        self._span.set_attribute("headway.state", state)
        if state == "queued" and failure is not None:
            self._owner.retried(self._task)
        if state == "lost":
            failure = Failure("lost", "The lease of this attempt ended")
        if failure is not None:
            self._failed(failure)

    def _failed(self, failure: Failure) -> None:
        kind = failure.code
        if self._error is not None:
            kind = _kind_of(self._error) if kind == "exception" else kind
            self._span.record_exception(self._error, _told_of(self._error))
        self._span.set_attribute("error.type", kind)
        self._span.set_status(self._owner.error(failure.title))


def _kind_of(error: BaseException) -> str:
    return str(getattr(error, "kind", "") or type(error).__qualname__)


def _told_of(error: BaseException) -> dict[str, str] | None:
    """An error of a child process is told by its traceback, and has the kind it had there."""
    if not hasattr(error, "kind"):
        return None
    trace = str(error)
    return {
        "exception.type": _kind_of(error),
        "exception.message": trace.rstrip().rpartition("\n")[2],
        "exception.stacktrace": trace,
    }
