"""`CeleryEngine`, beside what the suite shows: the loop of the web app stays free."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from celery import Celery

from headway.engines.celery import CeleryEngine
from headway.errors import BadInput
from headway.job import State
from tests.apps.process import wait_until
from tests.conftest import MakeHeadway, Until
from tests.engines.conftest import KINDS, LEASE_S, Fleet

PREFORK = KINDS[3]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A broker that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def test_broker_that_hangs_does_not_block_the_loop(
    make_headway: MakeHeadway, silent: socket.socket, until: Until
) -> None:
    """Celery's calls block; the web app accepts, cancels and closes all the same."""
    app = Celery("t", broker=f"redis://127.0.0.1:{silent.getsockname()[1]}")
    headway = make_headway(engine=CeleryEngine(app))
    longest_s, ticking = 0.0, True

    async def tick() -> None:
        nonlocal longest_s
        while ticking:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, time.monotonic() - began)

    @headway.task
    async def work() -> None: ...

    began = time.monotonic()
    async with headway, asyncio.timeout(20):
        ticker = asyncio.create_task(tick())
        jobs = [await work.start() for _ in range(20)]
        await until(lambda: select.select([silent], [], [], 0)[0], "the broker is called")
        cancelled = await headway.cancel(jobs[-1].id)
        waiting = await headway.get(jobs[0].id)
        ticking = False
        await ticker

    assert (waiting.state, cancelled.state) == (State.QUEUED, State.CANCELLED)
    assert longest_s < 2
    assert time.monotonic() - began < 8


def test_task_is_registered_as_it_must_be() -> None:
    """Acknowledged early, without a result, as JSON: whatever the app's own defaults are."""
    app = Celery("t", broker="memory://")
    app.conf.update(task_acks_late=True, task_serializer="pickle", task_ignore_result=False)

    CeleryEngine(app, name="shop.run", queue="long")
    task = app.tasks["shop.run"]

    assert (task.acks_late, task.ignore_result, task.serializer) == (False, True, "json")


def test_engine_without_a_headway_says_so() -> None:
    """A worker that loads the Celery app alone, and not the module with the Headway."""
    app = Celery("t", broker="memory://")
    CeleryEngine(app)

    with pytest.raises(BadInput, match="was not given to a Headway"):
        app.tasks["headway.run"]("00-none", 0)


@pytest.mark.fault
@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize("fleet", [PREFORK], indirect=True, ids=["prefork"])
def test_killed_child_of_the_pool(fleet: Fleet) -> None:
    """One process of the pool is killed: its job is shown as lost, and the pool goes on."""
    web = fleet.open(workers=1)
    job_id = fleet.start("once")
    pid = fleet.runs()

    os.kill(pid, signal.SIGKILL)
    lost = web.ends(job_id, within_s=3 * LEASE_S + 2)
    other = web.ends(fleet.start("once", "other", seconds=0))

    assert lost["error"]["code"] == "lost"
    assert other["state"] == "succeeded"
    wait_until("its pool has noticed", lambda: "SIGKILL" in fleet.workers[0].log)
