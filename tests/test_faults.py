"""Faults: processes, stores and connections are really killed, and nothing of a job is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway import ear
from headway.secret import kept_secret
from tests.apps.process import TERMINAL, App, Apps, alive, events_of, wait_until
from tests.conftest import MakeHeadway, OwnServer

pytestmark = [pytest.mark.fault, pytest.mark.once]

SHOWN_S = 15.0  # from the death of a process to the moment when everyone can see it
AT_ONCE_S = 10.0  # well below a lease of a minute; a tenth of a second is usual
SHORT: dict[str, Any] = {"LEASE_S": 2}


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """The processes of this test."""
    with Apps(tmp_path) as apps:
        yield apps


@pytest.fixture
def two(apps: Apps) -> Callable[..., tuple[App, App]]:
    """Makes two processes of one app; both have the same settings."""

    def two(**settings: Any) -> tuple[App, App]:
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: apps.serve(**settings), range(2))
        return first, second

    return two


def starts(apps: Apps) -> Counter[str]:
    """How often each name was started."""
    return Counter(line.split()[1] for line in apps.lines() if line.startswith("start "))


def kill_store(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until("the killed store is gone", lambda: not alive(pid))


def pid_of(store: OwnServer) -> int:
    return int(store.say("INFO", "server")["process_id"])


def let_pass(seconds: float) -> None:
    """Time itself is what these tests are about: more than a lease has to go by."""
    until = time.monotonic() + seconds
    wait_until(f"{seconds} s are over", lambda: time.monotonic() > until, within_s=seconds + 5)


# ── a process dies ────────────────────────────────────────────────────────────────────────────


def test_killed_process_is_shown(two: Callable[..., tuple[App, App]]) -> None:
    """With the default lease, within 15 s of a kill: lost, or running again if it may be."""
    first, second = two()
    lost = first.start("once")
    again = first.start("again", again_s=0.5)
    first.moves(lost)
    first.moves(again)
    killed_at = time.monotonic()

    first.kill()
    ended = second.ends(lost, within_s=SHOWN_S)
    print(f"kill to shown: {time.monotonic() - killed_at:.1f} s")
    left_s = SHOWN_S - (time.monotonic() - killed_at)
    second.reaches(again, "running", "succeeded", attempt=2, within_s=left_s)

    assert (ended["state"], ended["error"]["code"]) == ("failed", "lost")
    assert ended["progress"]["done"] > 0
    assert second.ends(again)["result"] == {"attempt": 2, "pid": second.pid}


def test_queue_of_a_killed_process_is_run_once(
    two: Callable[..., tuple[App, App]], apps: Apps
) -> None:
    """What waited in a killed process is run by another one: all of it, and once each."""
    first, second = two(**SHORT, CONCURRENCY=1)
    running = first.start("once", "running")
    waiting = [first.start("once", f"waiting{n}", seconds=0) for n in range(20)]
    first.moves(running)

    first.kill()

    assert [second.ends(job_id)["state"] for job_id in waiting] == ["succeeded"] * 20
    assert second.ends(running)["error"]["code"] == "lost"
    assert set(starts(apps).values()) == {1}
    assert len(starts(apps)) == 21


def test_no_acknowledged_job_is_missing(two: Callable[..., tuple[App, App]], apps: Apps) -> None:
    """Killed in a storm of starts, every job that was acknowledged is there, and ends."""
    first, second = two(**SHORT, CONCURRENCY=4)
    acknowledged: dict[str, str] = {}

    def storm(thread: int) -> None:
        number = 0
        while first.process.poll() is None:
            name = f"{thread}-{(number := number + 1)}"
            try:
                acknowledged[name] = first.start("once", name, seconds=0.05)
            except httpx.TransportError:
                return

    with ThreadPoolExecutor(4) as pool:
        stormed = [pool.submit(storm, thread) for thread in range(4)]
        wait_until("the storm is on", lambda: len(acknowledged) > 60)
        first.send(signal.SIGKILL)
        for one in stormed:
            one.result()
    ended = {name: second.ends(job_id, within_s=30) for name, job_id in acknowledged.items()}

    states = Counter(job["state"] for job in ended.values())
    assert states.keys() <= {"succeeded", "failed"}
    assert states["failed"] <= 4
    assert {job["error"]["code"] for job in ended.values() if job["error"]} <= {"lost"}
    # A lost one may have been claimed, and its process killed before the first line of its code.
    began = starts(apps)
    assert all(began[name] == 1 for name, job in ended.items() if job["state"] == "succeeded")
    assert all(began[name] <= 1 for name in ended)


def test_all_processes_are_killed(two: Callable[..., tuple[App, App]], apps: Apps) -> None:
    """After a kill of every process the next one finds all jobs, and sees each to its end."""
    first, second = two(**SHORT, CONCURRENCY=2)
    lost, again = first.start("once", "lost"), first.start("again", "again", again_s=0)
    waiting = [first.start("once", f"waiting{n}", seconds=0) for n in range(5)]
    done = second.start("once", "done", seconds=0)
    second.ends(done)
    before = {job_id: first.moves(job_id) for job_id in (lost, again)}
    store_pid = apps.store_pid

    first.kill()
    second.kill()
    third = apps.serve(**SHORT)
    at_once = third.job(lost)

    assert at_once["progress"]["done"] >= before[lost]["progress"]["done"]
    assert third.job(done)["state"] == "succeeded"
    assert third.ends(lost)["error"]["code"] == "lost"
    assert third.ends(again)["result"] == {"attempt": 2, "pid": third.pid}
    assert [third.ends(job_id)["attempt"] for job_id in waiting] == [1] * 5
    assert starts(apps) == {"lost": 1, "again": 2, "done": 1} | {f"waiting{n}": 1 for n in range(5)}
    assert apps.store_pid == store_pid


def test_processes_that_start_together_share_a_secret(tmp_path: Path) -> None:
    """Whoever comes while another one makes the secret waits for it, and never gets half of it."""
    with ThreadPoolExecutor(4) as pool:
        for number in range(50):
            folder = tmp_path / str(number)
            found = set(pool.map(kept_secret, [folder] * 4))

            assert found == {(folder / "secret").read_text()}
            assert len(found.pop()) > 40
            assert [path.name for path in folder.iterdir()] == ["secret"]


# ── a process is frozen ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seconds", [1, 60], ids=["ends-as-it-wakes", "would-go-on"])
@pytest.mark.parametrize("task", ["again", "once"])
def test_frozen_process_has_no_say_any_more(
    two: Callable[..., tuple[App, App]], apps: Apps, task: str, seconds: int
) -> None:
    """A process that wakes after its lease can neither move nor end its job, and stops it."""
    first, second = two(**SHORT)
    job_id = first.start(task, seconds=seconds, again_s=3)
    first.moves(job_id)

    first.send(signal.SIGSTOP)
    taken = second.reaches(
        job_id, "running" if task == "again" else "failed", attempt=1 + (task == "again")
    )
    first.send(signal.SIGCONT)
    wait_until("its run has stopped", lambda: f"stop one 1 {first.pid}" in apps.lines())
    first.ends(first.start("once", "other", seconds=0))

    if task == "again":
        assert second.ends(job_id)["result"] == {"attempt": 2, "pid": second.pid}
    else:
        assert second.job(job_id) == taken
        assert taken["error"]["code"] == "lost"


def test_whole_machine_is_frozen(two: Callable[..., tuple[App, App]]) -> None:
    """When all were frozen together, as in a suspended machine, nobody is taken for dead."""
    first, second = two(**SHORT)
    job_id = first.start("again", seconds=7, again_s=0)
    first.moves(job_id)

    for number in (signal.SIGSTOP, signal.SIGCONT):
        for app in (second, first):
            app.send(number)
        if number is signal.SIGSTOP:
            let_pass(4)

    assert second.ends(job_id)["result"] == {"attempt": 1, "pid": first.pid}


def test_blocked_loop_keeps_its_lease(two: Callable[..., tuple[App, App]], apps: Apps) -> None:
    """A task that blocks the event loop for longer than the lease is not taken for lost."""
    first, second = two(**SHORT)

    job_id = first.start("block", seconds=5)

    assert second.ends(job_id)["state"] == "succeeded"
    assert starts(apps) == {"one": 1}


# ── a process is asked to end ─────────────────────────────────────────────────────────────────


def test_stopping_process_hands_over(two: Callable[..., tuple[App, App]], apps: Apps) -> None:
    """SIGTERM: what may run again runs elsewhere at once, what waited too, the rest says why."""
    first, second = two(CONCURRENCY=2, LEASE_S=60)
    failing, again = first.start("once", "failing"), first.start("again", "again", again_s=5)
    waiting = [first.start("once", f"waiting{n}", seconds=0) for n in range(4)]
    first.moves(failing)
    first.moves(again)
    asked_at = time.monotonic()

    first.send(signal.SIGTERM)
    early = [second.ends(job_id, within_s=AT_ONCE_S) for job_id in waiting]
    gave_back_s = time.monotonic() - asked_at
    first.process.wait(AT_ONCE_S)
    ended_at = time.monotonic()
    taken = second.reaches(again, "running", attempt=2, within_s=AT_ONCE_S)
    print(
        f"queue handed over {gave_back_s:.2f} s after SIGTERM; process ended after "
        f"{ended_at - asked_at:.2f} s; running job {time.monotonic() - ended_at:.2f} s later"
    )

    assert [job["state"] for job in early] == ["succeeded"] * 4
    assert second.job(failing)["error"]["code"] == "interrupted"
    assert taken["state"] == "running"
    assert second.ends(again)["result"] == {"attempt": 2, "pid": second.pid}
    assert starts(apps) == {"failing": 1, "again": 2} | {f"waiting{n}": 1 for n in range(4)}


# ── the store goes away ───────────────────────────────────────────────────────────────────────


def test_killed_embedded_store_comes_back(two: Callable[..., tuple[App, App]], apps: Apps) -> None:
    """The app starts its store again by itself; the job goes on to its end, which counts once."""
    first, second = two()
    job_id = first.start("count", seconds=4)
    first.moves(job_id)

    with second.http.stream("GET", f"/jobs/{job_id}/events") as stream:
        killed = apps.store_pid
        kill_store(killed)
        events = events_of(stream.iter_lines())
    ended = second.job(job_id)
    second.ends(first.start("once", "other", seconds=0))

    assert (ended["state"], ended["attempt"], ended["result"]) == ("succeeded", 1, 200)
    assert ended["progress"]["done"] == ended["progress"]["total"] == 200
    assert second.job(job_id) == ended
    assert events[-1] == "end"
    assert apps.store_pid != killed


def test_killed_server_is_started_again(
    two: Callable[..., tuple[App, App]], own_server: OwnServer
) -> None:
    """A store that somebody else restarts is found again, and the last progress arrives."""
    first, second = two(HEADWAY_URL=own_server.url)
    job_id = first.start("count", seconds=3)
    before = first.moves(job_id)

    with second.http.stream("GET", f"/jobs/{job_id}/events") as stream:
        kill_store(pid_of(own_server))
        let_pass(1)
        own_server.start()
        events = events_of(stream.iter_lines())
    ended = second.job(job_id)

    assert (ended["state"], ended["attempt"], ended["result"]) == ("succeeded", 1, 150)
    assert ended["progress"]["done"] == 150 > before["progress"]["done"]
    assert events[-1] == "end"


@pytest.mark.parametrize("how", ["down", "frozen"])
def test_outage_longer_than_the_lease(
    two: Callable[..., tuple[App, App]], own_server: OwnServer, apps: Apps, how: str
) -> None:
    """When the store is back, the living get the time to say so: nothing is taken for lost."""
    first, second = two(**SHORT, HEADWAY_URL=own_server.url, CONCURRENCY=1)
    job_id = first.start("again", seconds=8, again_s=0)
    waiting = first.start("once", "waiting", seconds=0)
    first.moves(job_id)
    pid = pid_of(own_server)

    if how == "down":
        kill_store(pid)
        let_pass(4)
        own_server.start()
    else:
        os.kill(pid, signal.SIGSTOP)
        let_pass(4)
        os.kill(pid, signal.SIGCONT)

    assert second.ends(job_id)["result"] == {"attempt": 1, "pid": first.pid}
    assert second.ends(waiting)["result"]["attempt"] == 1
    assert starts(apps) == {"one": 1, "waiting": 1}


def test_all_connections_are_cut(
    two: Callable[..., tuple[App, App]], own_server: OwnServer
) -> None:
    """Connections that are cut, again and again, cost neither a job nor a watcher anything."""
    first, second = two(HEADWAY_URL=own_server.url)
    job_id = first.start("count", seconds=3)
    first.moves(job_id)

    with second.http.stream("GET", f"/jobs/{job_id}/events") as stream:
        lines = stream.iter_lines()
        for _ in range(6):
            next(line for line in lines if line == "event: job")
            for kind in ("normal", "pubsub"):
                own_server.say("CLIENT", "KILL", "TYPE", kind)
        events = events_of(lines)

    assert events[-1] == "end"
    assert first.job(job_id) == second.job(job_id)
    assert second.job(job_id)["result"] == 150


async def test_nothing_is_missed_beside_a_pong(
    make_headway: MakeHeadway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is announced while the hub asks whether its connection lives is heard like the rest."""
    monkeypatch.setattr(ear, "QUIET_S", 0.0005)
    headway = make_headway()

    @headway.task
    async def short() -> None:
        await asyncio.sleep(0.001)

    async def last(job_id: str) -> str:
        return [job.state async for job in headway.watch(job_id)][-1]

    async with headway, asyncio.timeout(20):
        for _ in range(60):
            assert await last((await short.start()).id) == "succeeded"


# ── cancel ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", ["once", "thread", "blind", "child"])
def test_cancel_from_another_process(
    two: Callable[..., tuple[App, App]], apps: Apps, task: str
) -> None:
    """It says "cancelled" when the code has stopped, its clean-up included, and not before."""
    first, second = two()
    job_id = first.start(task, again_s=0.6)
    first.reaches(job_id, "running")
    wait_until("its code runs", apps.lines)

    asked = second.http.post(f"/jobs/{job_id}/cancel")
    states = {(asked.json()["state"], asked.json()["cancel_requested"])}
    while (job := second.job(job_id))["state"] not in TERMINAL:
        states.add((job["state"], job["cancel_requested"]))

    assert [line.split()[0] for line in apps.lines()] == ["start", "stop"]
    assert job["state"] == "cancelled"
    assert asked.status_code == 202
    assert states == {("running", True)}
