"""Tasks of RQ, Dramatiq and SAQ that report: the samples of the page, with real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from headway import Headway, Job
from tests.apps.process import alive, wait_until
from tests.conftest import MakeHeadway, OwnServer, Until
from tests.samples import ROOT, samples_of

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.timeout(90)]

PAGE: Final = "report.md"
SAMPLES: Final = {
    sample.arguments[1]: sample.code
    for sample in samples_of(ROOT / "docs" / PAGE)
    if sample.way == "by"
}
START_S: Final = 30.0  # what a worker gets to import everything, on a machine that does much else
WORKERS: Final = {
    "rq": ("rq.cli", "worker", "--url", "{url}", "imports"),
    "dramatiq": ("dramatiq", "--processes", "1", "--threads", "1", "dramatiq_work"),
    "saq": ("saq", "saq_work.settings"),
}

TAKEN: Final = {
    "dramatiq": (("HLEN", "dramatiq:default.msgs"), ("HLEN", "dramatiq:default.DQ.msgs")),
    "saq": (("LLEN", "saq:default:active"), ("ZCARD", "saq:default:incomplete")),
}
"""How many tasks a worker has taken and not yet given back, and how many are to be tried again."""


@pytest.fixture
def url(own_server: OwnServer) -> str:
    """These libraries have names of their own for what they keep, so they get a server."""
    return own_server.url


@pytest.fixture
def prefix() -> str:
    """The samples take the default."""
    return "headway"


class Place:
    """A folder with the samples, and the worker that runs there."""

    def __init__(self, library: str, folder: Path, server: OwnServer) -> None:
        url = server.url
        self.library = library
        self._server = server
        self._folder = folder
        self._env = {**os.environ, "HEADWAY_URL": url, "PYTHONPATH": str(folder)}
        self._command = [word.format(url=url) for word in WORKERS[library]]
        self._log = folder / "log"
        self._worker: subprocess.Popen[bytes] | None = None
        name = f"{library}_work.py"
        (folder / name).write_text((ROOT / "examples" / "queues" / name).read_text())

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def add(self, code: str) -> None:
        """Put more code into the module of the tasks."""
        path = self._folder / f"{self.library}_work.py"
        path.write_text(f"{path.read_text()}\n\n{code}")

    def work(self) -> None:
        """Start the worker, as the first line of the sample says."""
        with self._log.open("wb") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", *self._command], cwd=self._folder, env=self._env,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def works(self) -> bool:
        return self._worker is not None and self._worker.poll() is None

    def start(self) -> None:
        """Start a task, as the page says."""
        if self.library == "saq":  # as it starts, it aborts what it has just taken
            wait_until("SAQ has swept", self._has_swept, within_s=START_S)
        told = subprocess.run(
            [sys.executable, "-c", SAMPLES[self.library]], cwd=self._folder, env=self._env,
            capture_output=True, text=True, check=False, timeout=START_S,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr

    def _has_swept(self) -> bool:
        assert self.works, self.log
        return bool(self._server.say("EXISTS", "saq:default:sweep"))

    def stop(self) -> int:
        """Ask the worker to end; returns what it said."""
        assert self._worker is not None
        self._worker.send_signal(signal.SIGTERM)
        return self._worker.wait(START_S)

    def close(self) -> None:
        if self._worker is not None and self.works:
            os.killpg(self._worker.pid, signal.SIGKILL)  # our own session: nobody else is in it
            self._worker.wait(START_S)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, own_server: OwnServer) -> Iterator[Place]:
    """The samples of one library."""
    place = Place(request.param, tmp_path, own_server)
    yield place
    place.close()
    if place._log.exists():
        print(place.log)


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """Another process of the app, as far as the worker is concerned."""
    async with make_headway() as headway:
        yield headway


async def started(place: Place, headway: Headway, until: Until, number: int) -> Job:
    """Start a task, and wait until it has been shown as a job, the *number*th."""
    await asyncio.to_thread(place.start)

    async def shown() -> Job | None:
        assert place.works, place.log
        jobs = await headway.list(owner="ann")
        return jobs[0] if len(jobs) == number else None

    job: Job = await until(shown, "the task is a job", within_s=START_S)
    return job


async def steps(headway: Headway, job: Job) -> list[Job]:
    return [now async for now in headway.watch(job.id)]


@pytest.mark.parametrize("place", WORKERS, indirect=True)
async def test_task_is_shown(place: Place, headway: Headway, until: Until) -> None:
    """Who watches sees it move, to its end."""
    place.work()
    seen = await steps(headway, await started(place, headway, until, 1))
    done = [job.progress.done for job in seen]

    assert len(set(done)) > 5
    assert done == sorted(done)
    assert (seen[-1].state, done[-1], seen[-1].progress.total) == ("succeeded", 200, 200)


@pytest.mark.parametrize("place", WORKERS, indirect=True)
async def test_cancelled_task_leaves_its_worker(
    place: Place, headway: Headway, until: Until
) -> None:
    """The worker goes on with the next one, and does not begin the cancelled one again."""
    place.work()
    first = await started(place, headway, until, 1)
    await headway.cancel(first.id)
    cancelled = (await steps(headway, first))[-1]
    second = await started(place, headway, until, 2)
    succeeded = (await steps(headway, second))[-1]

    assert (cancelled.state, succeeded.state) == ("cancelled", "succeeded")
    assert cancelled.progress.done < 200
    assert place.works
    assert len(await headway.list(owner="ann")) == 2


@pytest.mark.parametrize("place", TAKEN, indirect=True)
async def test_cancelled_task_is_over_for_its_queue(
    place: Place, headway: Headway, until: Until, own_server: OwnServer
) -> None:
    """It is neither kept as one that runs, nor put aside for another try after many seconds."""
    place.work()
    job = await started(place, headway, until, 1)
    await headway.cancel(job.id)
    await steps(headway, job)
    taken, again = TAKEN[place.library]
    await until(lambda: own_server.say(*taken) == 0, "it is no longer taken")

    assert own_server.say(*again) == 0


@pytest.mark.fault
@pytest.mark.parametrize("place", ["rq"], indirect=True)
async def test_fork_that_is_killed_is_lost(place: Place, headway: Headway, until: Until) -> None:
    """The worker outlives what it has forked for the task, and the job is seen to be lost."""
    place.work()
    job = await started(place, headway, until, 1)
    assert place._worker is not None
    (fork,) = children(place._worker.pid)
    os.kill(fork, signal.SIGKILL)
    lost = (await steps(headway, job))[-1]
    second = (await steps(headway, await started(place, headway, until, 2)))[-1]

    assert lost.error is not None
    assert (lost.state, lost.error.code) == ("failed", "lost")
    assert second.state == "succeeded"


def children(pid: int) -> list[int]:
    told = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(one) for one in told.stdout.split() if alive(int(one))]


@pytest.mark.parametrize("place", ["dramatiq", "saq"], indirect=True)
async def test_worker_keeps_it_open(
    place: Place, make_headway: MakeHeadway, until: Until, own_server: OwnServer
) -> None:
    """With its hooks, Headway stays open between tasks, and is closed with the worker."""

    def subscribed() -> Any:
        return own_server.say("PUBSUB", "SHARDCHANNELS", "headway*")

    place.add(SAMPLES[f"{place.library}-open"])
    place.work()
    await until(subscribed, "it is open", within_s=START_S)
    async with make_headway() as headway:
        ended = (await steps(headway, await started(place, headway, until, 1)))[-1]
    between = subscribed()
    code = await asyncio.to_thread(place.stop)

    assert ended.state == "succeeded"
    assert between
    assert (code, subscribed()) == (0, [])
