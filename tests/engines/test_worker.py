"""The worker command: what it opens, how it ends, and how several of them are looked after."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from headway.cli import main
from tests.apps.process import App, alive, wait_until
from tests.engines.conftest import KINDS, Fleet

pytestmark = [pytest.mark.fault, pytest.mark.once]

on_redis = pytest.mark.parametrize("fleet", [KINDS[1]], indirect=True, ids=["redis"])
COMMAND = ("headway", "worker", "works:headway", "--concurrency", "2")
READY = "working, with"


@pytest.fixture
def site(fleet: Fleet) -> Fleet:
    """One that accepts and shows; the tests add the workers."""
    fleet.open(workers=0)
    return fleet


def work(site: Fleet, *options: str) -> App:
    return site.apps.work(*COMMAND, *options, ready=READY, **site._settings)


def children(parent: int) -> set[int]:
    told = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, check=False)
    return {int(pid) for pid in told.stdout.split()}


# ── one process ───────────────────────────────────────────────────────────────────────────────


@on_redis
def test_first_signal_waits_for_what_runs(site: Fleet) -> None:
    """A job that ends within the time that it gets is not disturbed."""
    worker = work(site, "--drain-s", "15")
    job_id = site.start("once", seconds=3)
    site.runs()

    worker.send(signal.SIGTERM)
    worker.process.wait(10)

    assert site.web.job(job_id)["state"] == "succeeded"
    assert worker.process.returncode == 0


@on_redis
def test_second_signal_does_not_wait(site: Fleet) -> None:
    """Asked twice, it stops what runs, and the page says why."""
    worker = work(site, "--drain-s", "60")
    job_id = site.start("once")
    site.runs()

    worker.send(signal.SIGINT)
    wait_until("it stops", lambda: "stopping:" in worker.log)
    going_on = site.web.moves(job_id)
    worker.send(signal.SIGINT)
    worker.process.wait(5)

    assert going_on["state"] == "running"
    assert site.web.job(job_id)["error"]["code"] == "interrupted"


@on_redis
def test_jobs_beyond_the_concurrency_stay_with_the_broker(site: Fleet) -> None:
    """A worker takes as many as it can run; the rest is there for the next worker."""
    work(site)
    first = [site.start("once", f"first{n}") for n in range(2)]
    for n in range(2):
        site.runs(f"first{n}")
    third = site.start("once", "third", seconds=0)

    other = work(site)
    ended = site.web.ends(third)

    assert ended["result"]["pid"] == other.pid
    assert {site.web.job(job_id)["state"] for job_id in first} == {"running"}


# ── several ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def parent(site: Fleet) -> App:
    """Two workers and who looks after them."""
    parent = work(site, "--processes", "2", "--drain-s", "1")
    wait_until("both work", lambda: parent.log.count(READY) == 2)
    return parent


@on_redis
def test_dead_worker_is_replaced(site: Fleet, parent: App) -> None:
    """For one that is killed another one is started, and its job runs again."""
    job_id = site.start("again", again_s=0)
    pid = site.runs()

    os.kill(pid, signal.SIGKILL)
    ended = site.web.ends(job_id)
    wait_until("there are two again", lambda: parent.log.count(READY) == 3)

    assert ended["result"]["attempt"] == 2
    assert f"worker {pid} has died (SIGKILL)" in parent.log
    assert len(children(parent.pid)) == 2


@on_redis
def test_signal_is_passed_on(site: Fleet, parent: App) -> None:
    """SIGTERM to the parent ends all of them, in order."""
    job_id = site.start("once")
    site.runs()
    workers = children(parent.pid)

    parent.send(signal.SIGTERM)
    parent.process.wait(10)

    assert parent.process.returncode == 0
    assert site.web.job(job_id)["error"]["code"] == "interrupted"
    assert not any(map(alive, workers))


@on_redis
def test_workers_end_with_their_parent(parent: App) -> None:
    """A parent that is killed leaves nothing behind."""
    workers = children(parent.pid)

    os.kill(parent.pid, signal.SIGKILL)

    assert len(workers) == 2
    wait_until("they have ended", lambda: not any(map(alive, workers)))


# ── what it is told to run ────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two modules."""
    (tmp_path / "local_app.py").write_text("from headway import Headway\nheadway = Headway()\n")
    (tmp_path / "broken_app.py").write_text("import not_there_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("local_app:headway", "there is nothing for a worker to do"),
        ("local_app:nothing", "not a Headway"),
        ("local_app", "MODULE:HEADWAY"),
        ("nowhere.app:headway", "no module 'nowhere.app'"),
    ],
)
def test_target_that_cannot_work(folder: Path, target: str, said: str) -> None:
    """Whoever names what has nothing to run is told what to do instead."""
    result = CliRunner().invoke(main, ["worker", target])

    assert result.exit_code == 2
    assert said in result.output


def test_error_of_the_app_itself_is_shown(folder: Path) -> None:
    """What is missing in the app is not taken for a wrong target."""
    result = CliRunner().invoke(main, ["worker", "broken_app:headway"])

    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == "not_there_at_all"
