"""What holds with every engine: its messages, its workers and its broker may fail as they like.

Each test says in a few words what it has seen; `make engines` puts that into the table of the docs.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
import redis

from headway.server import Server
from tests.apps.process import wait_until
from tests.engines.conftest import KINDS, LEASE_S, REMOTE, Fleet, Kind

pytestmark = [pytest.mark.fault, pytest.mark.once]

TABLE = "ENGINES_TABLE" in os.environ
"""Whether the table of the docs is to be made."""
SOON_S = 3 * LEASE_S + 2.0
"""More than a lease, and two looks of a watchdog."""
BROKERED = REMOTE if TABLE else REMOTE[:-1]
"""Both pools of Celery have the same messages: only the table tries that with each."""
BACKLOG = 10_000 if TABLE else 1_000
FLOOD = 500
"""Messages: 50 at each look that falls into this time, however many jobs wait."""


def every(*kinds: Kind) -> pytest.MarkDecorator:
    """With each of these engines; all but the first two are for `make test-all`."""
    params = [
        pytest.param(kind, id=kind.name, marks=() if kind in KINDS[:2] else pytest.mark.slow)
        for kind in kinds
    ]
    return pytest.mark.parametrize("fleet", params, indirect=True)


def let_pass(seconds: float) -> None:
    """Time itself is what is waited for: a timeout of the engine, or a lease."""
    until = time.monotonic() + seconds
    wait_until(f"{seconds} s are over", lambda: time.monotonic() > until, within_s=seconds + 5)


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


# ── workers ───────────────────────────────────────────────────────────────────────────────────


@every(*KINDS)
def test_killed_while_running(fleet: Fleet) -> None:
    """kill -9: the job is shown as lost, or runs again in another worker if it may."""
    web = fleet.open()
    lost, again = fleet.start("once", "lost"), fleet.start("again", "again", again_s=0)
    pids = {fleet.runs("lost"), fleet.runs("again")}
    watch = Watch()

    for worker in {fleet.worker_of(pid) for pid in pids}:
        worker.kill()
    if all(worker.process.poll() is not None for worker in fleet.workers):
        fleet.add_worker()
    ended, shown = web.ends(lost, within_s=SOON_S), str(watch)
    done = web.ends(again, within_s=SOON_S)

    assert (ended["state"], ended["error"]["code"]) == ("failed", "lost")
    assert (done["state"], done["result"]["attempt"]) == ("succeeded", 2)
    assert done["result"]["pid"] not in pids
    assert (fleet.starts("lost"), fleet.starts("again")) == (1, 2)
    fleet.says(f"shown after {shown}, done again after {watch}")


@every(*KINDS)
def test_longer_than_every_timeout(fleet: Fleet) -> None:
    """A healthy job that outlasts each timeout of the engine runs once, to its end."""
    web = fleet.open()
    job_id = fleet.start("again", seconds=6)
    pid = fleet.runs()

    for number in range(4):
        let_pass(1)  # some engines look at what is overdue only when there is something new
        web.ends(fleet.start("again", f"other{number}", seconds=0))
    ended = web.ends(job_id)

    assert ended["result"] == {"attempt": 1, "pid": pid}
    assert fleet.starts() == 1
    fleet.says("runs once")


@every(*KINDS)
def test_asked_to_end_while_working(fleet: Fleet) -> None:
    """SIGTERM: the job is handed over at once, or the worker waits for it; never is it lost."""
    web = fleet.open(LEASE_S=60)  # so that who waits for it is told from who is slow
    job_id = fleet.start("again", seconds=5, again_s=0)
    worker = fleet.worker_of(fleet.runs())
    watch = Watch()

    worker.send(signal.SIGTERM)
    worker.process.wait(25)
    ended = web.ends(job_id, within_s=10)

    assert ended["state"] == "succeeded"
    assert ended["result"]["attempt"] == (1 if fleet.kind.waits else 2)
    assert fleet.starts() == ended["result"]["attempt"]
    fleet.says("the worker waits for it" if fleet.kind.waits else f"done elsewhere after {watch}")


@every(*KINDS)
def test_frozen_beyond_the_lease(fleet: Fleet) -> None:
    """A worker that wakes after its lease has no say in its job any more, and stops it."""
    web = fleet.open()
    job_id = fleet.start("again", again_s=1)
    pid = fleet.runs()
    watch = Watch()

    fleet.send(pid, signal.SIGSTOP)
    web.reaches(job_id, "running", "succeeded", attempt=2, within_s=SOON_S)
    taken = str(watch)
    fleet.send(pid, signal.SIGCONT)
    wait_until("its run has stopped", lambda: f"stop one 1 {pid}" in fleet.apps.lines())
    ended = web.ends(job_id)

    assert (ended["state"], ended["result"]["attempt"]) == ("succeeded", 2)
    assert ended["result"]["pid"] != pid
    fleet.says(f"taken over after {taken}; it stops as it wakes")


@every(*KINDS)
def test_cancelled(fleet: Fleet) -> None:
    """Whatever kind of code it is: it is stopped, cleans up, and then it is cancelled."""
    web = fleet.open(workers=1)
    tasks = ["once", "thread", "child"]
    longest_s = 0.0

    for task in tasks:
        job_id = fleet.start(task, task)
        fleet.runs(task)
        watch = Watch()
        web.http.post(f"/jobs/{job_id}/cancel")
        ended = web.ends(job_id)
        longest_s = max(longest_s, watch.seconds)

        assert ended["state"] == "cancelled"

    lines = [line.split()[:2] for line in fleet.apps.lines()]
    assert lines == [[word, task] for task in tasks for word in ("start", "stop")]
    fleet.says(f"within {longest_s:.1f} s")


# ── messages ──────────────────────────────────────────────────────────────────────────────────


@every(*BROKERED)
def test_message_is_lost(fleet: Fleet) -> None:
    """A message that the broker has lost is sent again; until then the job is shown as queued."""
    web = fleet.open(workers=0, RESEND_S=3)
    job_id = fleet.start("once", seconds=0)
    watch = Watch()
    wait_until("its message is out", lambda: fleet.broker.sent() == 1)

    fleet.broker.lose()
    before = web.job(job_id)
    fleet.add_worker()
    ended = web.ends(job_id, within_s=3 + SOON_S)

    assert before["state"] == "queued"
    assert (ended["state"], fleet.starts()) == ("succeeded", 1)
    fleet.says(f"done after {watch}, with `resend_s=3`")


@every(*BROKERED)
def test_message_is_doubled(fleet: Fleet) -> None:
    """Of several messages about one job, one makes it run."""
    web = fleet.open(workers=0)
    job_id = fleet.start("once", seconds=2)
    wait_until("its message is out", lambda: fleet.broker.sent() == 1)

    fleet.broker.double()
    fleet.broker.double()
    doubled = fleet.broker.sent()
    for _ in range(2):
        fleet.add_worker()
    ended = web.ends(job_id)
    web.ends(fleet.start("once", "behind them", seconds=0))

    assert doubled == 4
    assert (ended["state"], ended["attempt"], fleet.starts()) == ("succeeded", 1, 1)
    fleet.says("runs once")


@pytest.mark.slow
@pytest.mark.timeout(240)
@every(*BROKERED)
def test_backlog_is_no_flood(fleet: Fleet) -> None:
    """Jobs that nobody begins for long cause few messages more, and then all run once.

    There are 10,000 for the table of the docs.
    """
    web = fleet.open(workers=0, RESEND_S=2)
    thousands = range(BACKLOG // 1_000)
    ids = [i for _ in thousands for i in web.http.post("/many/1000", timeout=60).json()["ids"]]
    wait_until("all messages are out", lambda: fleet.broker.sent() >= BACKLOG, within_s=60)

    let_pass(4)  # twice as long as it takes until each of them could be lost
    surplus = fleet.broker.sent() - BACKLOG
    fleet.add_worker()
    with Server(fleet.apps.state_dir) as url, redis.Redis.from_url(url) as store:
        wait_until("all have ended", lambda: ended(store) == BACKLOG, within_s=180)
        states = outcomes(store, ids)

    assert surplus < FLOOD
    assert states == {("succeeded", "1"): BACKLOG}
    fleet.says(f"{surplus} messages more; all run once")


def ended(store: redis.Redis) -> int:
    """How many jobs have ended."""
    with store.pipeline(transaction=False) as pipeline:
        for number in range(64):
            pipeline.zcard(f"headway:{{{number:02x}}}:ends")
        return sum(pipeline.execute())


def outcomes(store: redis.Redis, ids: list[str]) -> Counter[tuple[str, str]]:
    """How the jobs ended, and in which attempt."""
    with store.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hmget(f"headway:{{{job_id[:2]}}}:job:{job_id}", "state", "attempt")
        return Counter((state.decode(), attempt.decode()) for state, attempt in pipeline.execute())


# ── brokers ───────────────────────────────────────────────────────────────────────────────────


@every(*BROKERED)
def test_all_connections_are_dropped(fleet: Fleet) -> None:
    """Cut off from the broker, the job goes on, can be cancelled, and new ones are run."""
    web = fleet.open()
    job_id, cancelled = fleet.start("once", seconds=4), fleet.start("once", "cancelled")
    fleet.runs()
    fleet.runs("cancelled")

    for _ in range(3):
        fleet.broker.cut()
        let_pass(0.3)
    watch = Watch()
    web.http.post(f"/jobs/{cancelled}/cancel")
    other = web.ends(fleet.start("once", "other", seconds=0), within_s=SOON_S)
    other_s = str(watch)
    stopped, done = web.ends(cancelled, within_s=5), web.ends(job_id)

    assert (stopped["state"], other["state"]) == ("cancelled", "succeeded")
    assert (done["state"], done["attempt"]) == ("succeeded", 1)
    fleet.says(f"it goes on; the next one is done after {other_s}")


@every(*BROKERED)
def test_broker_is_down_at_accept(fleet: Fleet) -> None:
    """A job is accepted without its broker, at once, and runs when that is back."""
    web = fleet.open(workers=1)
    web.ends(fleet.start("once", "before", seconds=0))

    fleet.broker.stop()
    watch = Watch()
    job_id = fleet.start("once", seconds=0)
    accepted_s = watch.seconds
    let_pass(2 * LEASE_S)
    waiting = web.job(job_id)
    fleet.broker.start()
    watch = Watch()
    ended = web.ends(job_id, within_s=20)

    assert accepted_s < 5, "the broker is given 10 s"
    assert waiting["state"] == "queued"
    assert (ended["state"], fleet.starts()) == ("succeeded", 1)
    fleet.says(f"accepted in {accepted_s:.2f} s; done {watch} after it is back")


@every(*BROKERED)
def test_accepting_process_dies_without_a_broker(fleet: Fleet) -> None:
    """What waits for the broker in a process that is killed is sent by another one."""
    fleet.open(workers=1)
    fleet.broker.stop()
    job_id = fleet.start("once", seconds=0)

    fleet.web.kill()
    fleet.broker.start()
    watch = Watch()
    ended = fleet.serve().ends(job_id, within_s=20)

    assert (ended["state"], fleet.starts()) == ("succeeded", 1)
    fleet.says(f"done {watch} after it is back")
