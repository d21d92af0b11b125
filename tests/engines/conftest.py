"""The engines under test, each with its broker and its kind of worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apps.process import App, Apps, wait_until
from tests.engines.brokers import NATS, Broker, Nats, Redis
from tests.engines.table import write

LEASE_S: Final = 2


@dataclass(frozen=True)
class Kind:
    """One engine, as the table in the docs names it.

    Args:
        engine: what tests/apps/brokers.py calls it; None is the one in the process.
        worker: the command, and what it says when it is ready.
        waits: whether a worker that is asked to end waits for its jobs, however long.
    """

    name: str
    engine: str | None = None
    worker: tuple[str, ...] = ()
    ready: str = ""
    waits: bool = False


HEADWAY: Final = ("headway", "worker", "works:headway", "--drain-s", "1", "--concurrency", "4")
CELERY: Final = ("celery", "--app", "celery_works", "worker", "--concurrency", "2", "-l", "INFO")
KINDS: Final = (
    Kind("in-process"),
    Kind("taskiq, Redis streams", "redis", HEADWAY, "working, with"),
    Kind("taskiq, NATS JetStream", "nats", HEADWAY, "working, with"),
    Kind("Celery, prefork", "celery", (*CELERY, "--pool", "prefork"), " ready.", waits=True),
    Kind("Celery, threads", "celery", (*CELERY, "--pool", "threads"), " ready.", waits=True),
)
REMOTE: Final = KINDS[1:]


class Fleet:
    """The processes of one app: who accepts, who shows, and who runs its jobs."""

    def __init__(
        self,
        kind: Kind,
        apps: Apps,
        broker: Broker | None,
        record: Callable[[str, object], None],
    ) -> None:
        self._record = record
        self.kind = kind
        self.apps = apps
        self._broker = broker
        self.workers: list[App] = []
        self._settings: dict[str, Any] = {"LEASE_S": LEASE_S}

    @property
    def broker(self) -> Broker:
        assert self._broker is not None
        return self._broker

    def open(self, workers: int = 2, **settings: Any) -> App:
        """Start one that accepts and shows, and the workers; in-process they are all alike."""
        self._settings |= settings
        if self._broker is not None:
            self._settings |= {"ENGINE": self.kind.engine, "BROKER": self.broker.url}
        self.web = self.serve()
        for _ in range(workers):
            self.add_worker()
        return self.web

    def serve(self) -> App:
        """Another one that accepts and shows."""
        return self.apps.serve(**self._settings)

    def add_worker(self) -> App:
        if self._broker is None:
            worker = self.serve()
        else:
            words = self.kind.worker
            worker = self.apps.work(*words, ready=self.kind.ready, **self._settings)
        self.workers.append(worker)
        return worker

    @property
    def starter(self) -> App:
        """Who accepts jobs, so that a worker runs them."""
        return self.web if self._broker is not None else self.workers[0]

    def start(self, task: str, name: str = "one", **options: float | str) -> str:
        return self.starter.start(task, name, **options)

    def runs(self, name: str = "one", attempt: int = 1) -> int:
        """Wait until the code of the job runs; the process in which it does."""
        word = f"start {name} {attempt} "

        def began() -> int | None:
            pids = [line.split()[3] for line in self.apps.lines() if line.startswith(word)]
            return int(pids[0]) if pids else None

        return wait_until(f"attempt {attempt} of {name} runs", began)

    def worker_of(self, pid: int) -> App:
        """The worker to which this process belongs."""
        group = os.getpgid(pid)
        return next(worker for worker in self.workers if worker.pid == group)

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send it to the whole worker of this process."""
        os.killpg(self.worker_of(pid).pid, number)

    def says(self, result: str) -> None:
        """What the table in the docs says of this test."""
        self._record("result", result)

    def starts(self, name: str = "one") -> int:
        return sum(line.startswith(f"start {name} ") for line in self.apps.lines())


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Fleet]:
    """The fleet of one kind, nothing of it started but its broker."""
    kind: Kind = request.param
    broker: Broker | None = None
    if kind.engine == "nats":
        if NATS is None:
            pytest.skip("there is no nats-server on this machine")
        broker = Nats(tmp_path / "nats")
    elif kind.engine is not None:
        use = "stream" if kind.engine == "redis" else "list"
        broker = Redis(tmp_path / "broker", kind=use)
    try:
        with Apps(tmp_path) as apps:
            yield Fleet(kind, apps, broker, record_property)
    finally:
        if broker is not None:
            broker.close()


# ── the table in the docs ─────────────────────────────────────────────────────────────────────

_results: dict[tuple[str, str], str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what a test has said, or that it has failed."""
    test, _, engine = report.nodeid.rpartition("::")[2].rstrip("]").partition("[")
    if report.failed:
        _results[test, engine] = "**fails**"
    for name, value in report.user_properties:
        if name == "result" and report.when == "call":
            _results.setdefault((test, engine), str(value))


def pytest_sessionfinish() -> None:
    """Write the table, if `make engines` asks for it."""
    if "ENGINES_TABLE" in os.environ:
        write(_results, [kind.name for kind in KINDS])
