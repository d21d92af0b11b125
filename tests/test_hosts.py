"""Hosts that are cut off from each other: nothing is lost, nothing is run twice, all recover.

The web server, the worker, the store and the broker have a host each, see tests/namespaces.py. A
cut drops packets, as a broken switch or a firewall does: who waits for an answer waits for ever,
unless it stops by itself. Shown with -rP: how long that took.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import pytest

from headway.front import HEALTH_S
from tests.apps.hosts import LEASE_S, Site, Tab
from tests.apps.process import App, wait_until
from tests.namespaces import why_not

pytestmark = [pytest.mark.fault, pytest.mark.once]

SAID_S: Final = 10.0  # from the cut until the page says so
REFUSED_S: Final = 10.0  # from the wish to start a job until it is refused
BACK_S: Final = 10.0  # from the end of the cut until all is as before
GAVE_UP: Final = "progress and leases could not be written"
DEAF: Final = "listening to the broker has ended"


@pytest.fixture
def site() -> Iterator[Site]:
    """The hosts of this test, and one app on them."""
    if (why := why_not()) is not None:
        pytest.skip(why)
    with Site() as site:
        yield site


def begun(site: Site, task: str, name: str = "one", **options: float) -> tuple[str, Tab]:
    """A job that runs on the worker, and a page that has seen it move."""
    job_id = site.web.start(task, name, **options)
    tab = Tab(site.web, job_id)
    tab.sees_job(state="running", attempt=1)
    assert site.runs(name) == "worker"
    return job_id, tab


def ask(app: App, method: str, path: str, **options: Any) -> tuple[httpx.Response, float]:
    """The answer, and how long it took."""
    began_at = time.monotonic()
    answer = app.http.request(method, path, **options)
    return answer, time.monotonic() - began_at


def well(app: App) -> bool:
    return app.http.get("/jobs/health").status_code == 200


def said(what: str, seconds: float) -> float:
    print(f"{what}: {seconds:.1f} s")
    return seconds


# ── the web host ──────────────────────────────────────────────────────────────────────────────


def test_web_host_without_its_store(site: Site) -> None:
    """The page says that it hears nothing, and makes nothing up; health and starts are refused in
    bounded time. The job goes on, and its page shows how it ended as soon as it can."""
    site.web.ends(site.web.start("once", "before", seconds=0))
    job_id, tab = begun(site, "once", seconds=3)

    with site.network.cut("web", "store"), ThreadPoolExecutor() as beside:
        cut_at = time.monotonic()
        start = beside.submit(ask, site.web, "POST", "/start/once", params={"name": "refused"})
        health, health_s = ask(site.web, "GET", "/jobs/health")
        refused, refused_s = start.result()
        # What was refused must not get to the store after all, when that can be reached again.
        wait_until("nothing is under way", lambda: not site.network.given_up("web"))
        told = tab.hears_nothing(since=cut_at)
        assert site.store.record(job_id)["state"] == "succeeded"
        shown = tab.states()[-1]
    healed_at = time.monotonic()
    first = tab.sees_job(since=healed_at)
    wait_until("the web host is well", lambda: well(site.web), within_s=BACK_S)
    well_s = time.monotonic() - healed_at

    assert said("the page says so", told.at - cut_at) < SAID_S
    assert said("health", health_s) < HEALTH_S + 2.5
    assert said("start() is refused", refused_s) < REFUSED_S
    assert said("first true state after the cut", first.at - healed_at) < BACK_S
    assert said("well after the cut", well_s) < BACK_S
    assert said("the page's longest silence", first.at - shown.at) < SAID_S + BACK_S
    assert (health.status_code, health.json()["status"]) == (503, "store")
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert "retry-after" in refused.headers
    assert (shown.data["state"], shown.at < cut_at + 1) == ("running", True)
    assert (tab.ends()["state"], tab.ends()["attempt"]) == ("succeeded", 1)
    assert tab.ends()["rev"] == int(site.store.record(job_id)["rev"])
    assert (site.starts(), site.starts("refused")) == (1, 0)


def test_web_host_without_its_broker(site: Site) -> None:
    """Jobs are accepted and wait, and run when it is back; what runs already is shown as before."""
    running, tab = begun(site, "once")
    names = [f"waits{n}" for n in range(3)]

    with site.network.cut("web", "broker"):
        began_at = time.monotonic()
        waiting = [site.web.start("once", name, seconds=0) for name in names]
        accepted_s = time.monotonic() - began_at
        wait_until("it is missed", lambda: "the broker cannot be reached" in site.web.log)
        states = {site.web.job(job_id)["state"] for job_id in waiting}
        sane, moves = well(site.web), tab.sees_job(since=time.monotonic(), state="running")
    healed_at = time.monotonic()
    ended = [site.web.ends(job_id) for job_id in waiting]
    ended_s = time.monotonic() - healed_at
    site.web.http.post(f"/jobs/{running}/cancel")

    assert said("three jobs accepted without the broker", accepted_s) < 5
    assert said("all have ended after the cut", ended_s) < BACK_S
    assert (states, sane, moves.data["attempt"]) == ({"queued"}, True, 1)
    assert {job["state"] for job in ended} == {"succeeded"}
    assert [site.starts(name) for name in names] == [1, 1, 1]
    assert tab.ends()["state"] == "cancelled"


def test_web_host_and_worker_need_no_path(site: Site) -> None:
    """They never talk: without a path between them a job is started, watched and cancelled."""
    with site.network.cut("web", "worker", "spare"):
        done, watched = begun(site, "once", "done", seconds=0.5)
        _, tab = begun(site, "once", "cancelled")
        asked_at = time.monotonic()
        site.web.http.post(tab.states()[-1].data["links"]["cancel"])
        site.stops("cancelled")
        stopped_s = time.monotonic() - asked_at

        assert watched.ends()["state"] == "succeeded"
        assert tab.ends()["state"] == "cancelled"
    assert site.web.job(done)["result"]["pid"] == site.workers["worker"].pid
    assert said("the code has stopped after cancel()", stopped_s) < 5


# ── a worker ──────────────────────────────────────────────────────────────────────────────────


def test_worker_that_is_cut_off(site: Site) -> None:
    """Its job is shown as lost. It stops when it learns of it, changes nothing, and works again."""
    job_id, tab = begun(site, "once")
    worker = site.workers["worker"]

    with site.network.cut("worker", "store", "broker"):
        cut_at = time.monotonic()
        lost = tab.sees_job(since=cut_at, state="failed")
        record = site.store.record(job_id)
        wait_until("it misses them", lambda: GAVE_UP in worker.log and DEAF in worker.log)
        assert f"stop one 1 {worker.pid}" not in site.lines()
        following = site.web.start("once", "next", seconds=0)
    healed_at = time.monotonic()
    site.stops()
    stopped_s = time.monotonic() - healed_at
    ended = site.web.ends(following)
    ended_s = time.monotonic() - healed_at

    assert said("shown as lost", lost.at - cut_at) < LEASE_S + 4
    assert said("the cut worker stops after the cut", stopped_s) < BACK_S
    assert said("it has done its next job after the cut", ended_s) < BACK_S
    assert lost.data["error"]["code"] == "lost"
    assert (ended["state"], ended["result"]["pid"]) == ("succeeded", worker.pid)
    assert site.store.record(job_id) == record
    assert site.starts() == 1


def test_worker_that_is_cut_off_is_replaced(site: Site) -> None:
    """Another one takes over what may be repeated. What the first one goes on with, or has ended
    meanwhile, counts for nothing."""
    cut_off = site.workers["worker"]
    long_id, long_tab = begun(site, "again", "long", again_s=0.5)
    late_id, late_tab = begun(site, "again", "late", seconds=4, again_s=8)

    with site.network.cut("worker", "store", "broker"):
        cut_at = time.monotonic()
        spare = site.work("spare")
        again = long_tab.sees_job(since=cut_at, attempt=2)
        ended = long_tab.ends()
        site.stops("late")  # at its end, which it now tries to write
        assert site.runs("late", attempt=2) == "spare"
        record = site.store.record(long_id)
    healed_at = time.monotonic()
    site.stops("long")
    stopped_s = time.monotonic() - healed_at
    wait_until("the late end is refused", lambda: "no longer ours when it ended" in cut_off.log)
    fenced = late_tab.states()[-1].data

    assert said("the next attempt is seen to move", again.at - cut_at) < LEASE_S + BACK_S
    assert said("the cut worker stops after the cut", stopped_s) < BACK_S
    assert (ended["state"], ended["result"]["pid"]) == ("succeeded", spare.pid)
    assert site.store.record(long_id) == record
    assert (fenced["state"], fenced["attempt"]) == ("running", 2)
    assert late_tab.ends()["result"] == {"attempt": 2, "pid": spare.pid}
    assert (site.starts("long"), site.starts("late")) == (2, 2)
    assert site.web.job(late_id)["attempt"] == 2
    wait_until("both work again", lambda: took_one(site, cut_off) and took_one(site, spare))


def took_one(site: Site, worker: App) -> bool:
    """Start a job; whether it ran there."""
    done = site.web.ends(site.web.start("once", "more", seconds=0))
    return bool(done["result"]["pid"] == worker.pid)


# ── the store ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_store_that_is_cut_off_from_all(site: Site) -> None:
    """Nobody is taken for dead: one job goes on, one has ended meanwhile, each of them once."""
    _, long_tab = begun(site, "once", "long", seconds=14)
    _, short_tab = begun(site, "once", "short", seconds=3)

    with site.network.cut("store", "web", "worker"), ThreadPoolExecutor() as beside:
        cut_at = time.monotonic()
        start = beside.submit(ask, site.web, "POST", "/start/once", params={"name": "refused"})
        told = [tab.hears_nothing(since=cut_at) for tab in (long_tab, short_tab)]
        refused, refused_s = start.result()
        again, again_s = ask(site.web, "POST", "/start/once", params={"name": "refused"})
        site.stops("short")
        cut_s = time.monotonic() - cut_at
    healed_at = time.monotonic()
    ended = short_tab.sees_job(since=healed_at, state="succeeded")
    moves = long_tab.sees_job(since=healed_at, state="running")
    wait_until("the web host is well", lambda: well(site.web), within_s=BACK_S)
    well_s = time.monotonic() - healed_at
    following = site.web.ends(site.web.start("once", "next", seconds=0))

    assert said("the cut", cut_s) > 2 * LEASE_S
    assert said("the pages say so", max(e.at for e in told) - cut_at) < SAID_S
    assert said("start() is refused", refused_s) < REFUSED_S
    assert said("start() is refused once more", again_s) < REFUSED_S / 2
    assert said("the end is shown after the cut", ended.at - healed_at) < BACK_S
    assert said("the other is seen to move after the cut", moves.at - healed_at) < BACK_S
    assert said("well after the cut", well_s) < BACK_S
    assert (refused.status_code, again.status_code) == (503, 503)
    assert following["state"] == "succeeded"
    for tab in (long_tab, short_tab):
        assert (tab.ends()["state"], tab.ends()["attempt"]) == ("succeeded", 1)
    assert [site.starts(name) for name in ("long", "short", "next", "refused")] == [1, 1, 1, 0]
