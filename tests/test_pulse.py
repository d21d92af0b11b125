"""The beat thread on a real server: few writes, none of them the last lost, leases kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headway._link import Link
from headway.acts import ThreadStore
from headway.job import Job, State, new_id
from headway.keys import Keys
from headway.progress import News, Progress
from headway.pulse import FLUSH_S, Pulse, Source
from headway.store import Settled, Store
from tests.conftest import PARTITIONS, OwnServer, Until
from tests.keyspace import Keyspace
from tests.stepping import at_every_step

RECORD = {
    "task": "work", "title": "Work", "owner": "me", "args": "[[],{}]", "options": "{}",
    "on_lost": "fail", "max_attempts": "1",
}  # fmt: skip
LEASE_S = 10.0


class Run:
    """A run whose heart is beaten; what it is told is remembered."""

    def __init__(self, job: Job, pulse: Pulse) -> None:
        self.job_id = job.id
        self.attempt = job.attempt
        self.progress = Progress(wake=pulse.wake)
        self.source: Source = self.progress
        self.ending = False
        self.told: list[str] = []

    def heard(self, answer: str) -> None:
        self.told.append(answer)


@pytest.fixture
def pulse(url: str, keys: Keys) -> Iterator[Pulse]:
    """A beat thread that beats."""
    pulse = Pulse(ThreadStore(url, keys, "first"), lease_s=LEASE_S)
    pulse.open(tuple)
    yield pulse
    pulse.close()


async def begun(store: Store, pulse: Pulse, lease_s: float = LEASE_S) -> Run:
    job = await store.create(new_id(PARTITIONS), RECORD, lease_s)
    claim = await store.claim(job.id, lease_s)
    assert claim is not None
    run = Run(claim.job, pulse)
    pulse.add(run)
    return run


class Look:
    """Looks at the store from beside."""

    def __init__(self, keyspace: Keyspace, keys: Keys) -> None:
        self._client = keyspace.client
        self._keys = keys

    def deadline(self, job_id: str) -> float:
        """When the lease is over, in ms since the epoch."""
        found: Any = self._client.zscore(self._keys.leases(job_id[:2]), job_id)
        return float(found)

    def left_ms(self, job_id: str) -> float:
        """How long the lease still lasts."""
        seconds, micros = self._client.time()
        return self.deadline(job_id) - int(seconds) * 1000 - int(micros) / 1000

    def stat(self, name: str) -> int:
        return int(self._client.info("stats")[name])

    def beats(self) -> int:
        stats = self._client.info("commandstats")
        return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


@pytest.fixture
def look(keyspace: Keyspace, keys: Keys) -> Look:
    """What stands in the store, without its own code."""
    return Look(keyspace, keys)


# ── writing ───────────────────────────────────────────────────────────────────────────────────


async def test_at_most_ten_writes_a_second(store: Store, pulse: Pulse, until: Until) -> None:
    """However often a job reports, it is written about ten times a second."""
    run = await begun(store, pulse)
    written: list[News] = []
    wrote = run.progress.wrote

    def count(news: News) -> None:
        written.append(news)
        wrote(news)

    run.progress.wrote = count  # type: ignore[method-assign]
    began = time.monotonic()

    while time.monotonic() < began + 1:
        for _ in range(1000):
            run.progress.advance()
        await asyncio.sleep(0)

    await until(lambda: written, "it is written")  # a busy machine may take its time
    assert len(written) <= 1 + (time.monotonic() - began) / (0.9 * FLUSH_S)


async def test_all_jobs_of_a_moment_share_a_pipeline(
    store: Store, pulse: Pulse, look: Look, until: Until
) -> None:
    """The news of many jobs reach the store together, and not one by one."""
    runs = [await begun(store, pulse) for _ in range(50)]
    for run in runs:
        run.progress.advance()
    await until(lambda: all(r.progress.last_lines() == (0, ()) for r in runs), "nothing waits")
    before, reads = look.beats(), look.stat("total_reads_processed")

    for n in range(5):
        for run in runs:
            run.progress.log(f"line {n}")
        await until(lambda: not any(r.progress.last_lines().texts for r in runs), "it is written")

    assert look.beats() - before >= 250
    assert look.stat("total_reads_processed") - reads <= 250 / 4


async def test_first_report_goes_at_once(store: Store, pulse: Pulse, until: Until) -> None:
    """After a quiet time a report does not wait for the next round."""
    run = await begun(store, pulse)
    waits = []

    async def written(note: str) -> bool:
        return (await store.get(run.job_id)).note == note

    for n in range(5):
        await until(lambda: run.progress._quiet, "it is quiet")
        began = time.monotonic()
        run.progress.note(str(n))
        await until(lambda n=n: written(str(n)), "it is written")
        waits.append(time.monotonic() - began)

    assert min(waits) < FLUSH_S / 2


async def test_checkpoint_and_lines_ride_along(store: Store, pulse: Pulse, until: Until) -> None:
    """A checkpoint and a log line are written although no number has changed."""
    run = await begun(store, pulse)

    run.progress.checkpoint({"row": 7})
    run.progress.log("seven")

    await until(lambda: not run.progress.last_lines().texts, "the line is written")
    claim = await store.claim(run.job_id, LEASE_S)
    assert claim is not None
    assert claim.checkpoint == run.progress.last_checkpoint()
    assert await store.log(run.job_id) == ["seven"]


async def test_run_that_ends_writes_no_more(store: Store, pulse: Pulse, until: Until) -> None:
    """From the moment on that a run ends, its end is the only thing that is written."""
    run, other = await begun(store, pulse), await begun(store, pulse)
    run.ending = True

    run.progress.note("too late")
    other.progress.log("written")
    await until(lambda: not other.progress.last_lines().texts, "the other one is written")

    assert (await store.get(run.job_id)).note is None


# ── the store goes away ───────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def own_pulse(own_server: OwnServer) -> AsyncIterator[tuple[Store, Pulse]]:
    keys, link = Keys("own", PARTITIONS), Link(own_server.url)
    link.open()
    pulse = Pulse(ThreadStore(own_server.url, keys, "first"), lease_s=LEASE_S)
    pulse.open(tuple)
    try:
        yield Store(link, keys, "first", keep_s=60), pulse
    finally:
        pulse.close()
        await link.aclose()


async def test_last_value_outlives_an_outage(own_server: OwnServer, until: Until) -> None:
    """What was reported while the store was away is there when it is back, each line once."""
    async with own_pulse(own_server) as (store, pulse):
        run = await begun(store, pulse)
        run.progress.log("before")
        await until(lambda: not run.progress.last_lines().texts, "it is written")

        own_server.stop()
        run.progress.set(done=7, total=9)
        run.progress.log("meanwhile")
        run.progress.checkpoint("here")
        await until(lambda: run.progress._written is None, "a try has failed")
        own_server.start()
        await until(lambda: not run.progress.last_lines().texts, "it is written")

        job, claim = await store.get(run.job_id), await store.claim(run.job_id, LEASE_S)
        assert (job.progress.done, job.progress.total) == (7, 9)
        assert claim is not None
        assert claim.checkpoint == run.progress.last_checkpoint()
        assert await store.log(run.job_id) == ["before", "meanwhile"]


async def test_refused_write_is_tried_again(own_server: OwnServer, until: Until) -> None:
    """A store without memory refuses for a while; then the last value is written."""
    async with own_pulse(own_server) as (store, pulse):
        run = await begun(store, pulse)
        own_server.say("CONFIG", "SET", "maxmemory", "1")
        run.progress.note("the last word")
        await until(lambda: run.progress._written is None, "a try was refused")

        own_server.say("CONFIG", "SET", "maxmemory", "0")

        async def note() -> bool:
            return (await store.get(run.job_id)).note == "the last word"

        await until(note, "it is written")


# ── leases ────────────────────────────────────────────────────────────────────────────────────


async def test_leases_are_kept_while_the_loop_is_blocked(
    url: str, keys: Keys, store: Store, look: Look
) -> None:
    """Code that blocks the event loop for longer than a lease does not lose it."""
    pulse = Pulse(ThreadStore(url, keys, "first"), lease_s=0.6)
    pulse.open(tuple)
    run = await begun(store, pulse, lease_s=0.6)

    first, give_up_at = look.deadline(run.job_id), time.monotonic() + 10
    while look.deadline(run.job_id) < first + 1_500:  # blocks: nothing of the loop runs in here
        assert time.monotonic() < give_up_at, "nobody renews it"
    pulse.close()


async def test_held_jobs_keep_their_leases(
    url: str, keys: Keys, store: Store, look: Look, until: Until
) -> None:
    """Jobs that wait in this process are held by it."""
    pulse = Pulse(ThreadStore(url, keys, "first"), lease_s=0.6)
    job = await store.create(new_id(PARTITIONS), RECORD, 0.001)

    pulse.open(lambda: [job.id])

    await until(lambda: look.left_ms(job.id) > 0, "its lease is renewed")
    pulse.close()


async def test_one_broken_job_costs_no_other_its_lease(
    store: Store, pulse: Pulse, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose progress cannot be read is told in the log; the others are beaten for."""

    class Broken(Progress):
        def take(self) -> News:
            raise OverflowError

    broken, good = await begun(store, pulse), await begun(store, pulse)
    broken.source = Broken()
    words = f"progress of job {broken.job_id} cannot be read"
    await until(lambda: words in caplog.text, "the trouble is told")
    good.progress.log("written")

    await until(lambda: not good.progress.last_lines().texts, "the good one is written")


# ── what is heard ─────────────────────────────────────────────────────────────────────────────


async def test_run_hears_that_it_is_to_stop(store: Store, pulse: Pulse, until: Until) -> None:
    """The wish to cancel comes with the answer to a beat."""
    run = await begun(store, pulse)
    await store.cancel(run.job_id)

    run.progress.advance()

    await until(lambda: "cancel" in run.told, "it is heard")


async def test_run_hears_that_it_lost(store: Store, pulse: Pulse, until: Until) -> None:
    """A run that is no longer the one hears so, and has changed nothing."""
    run = await begun(store, pulse)
    await store.finish(await store.get(run.job_id), Settled(State.FAILED, "{}"))
    ended = await store.get(run.job_id)

    run.progress.advance()

    await until(lambda: "lost" in run.told, "it is heard")
    assert await store.get(run.job_id) == ended


# ── quiet ─────────────────────────────────────────────────────────────────────────────────────


async def test_idle_thread_sleeps(store: Store, pulse: Pulse, until: Until) -> None:
    """Without jobs the thread waits until it is woken."""
    idle = pulse._pause()
    run = await begun(store, pulse)
    busy = pulse._pause()

    pulse.remove(run)

    assert (idle, pulse._pause()) == (None, None)
    assert busy is not None
    assert busy <= FLUSH_S


async def test_quiet_job_is_not_written(
    store: Store, pulse: Pulse, look: Look, until: Until
) -> None:
    """A job that reports nothing costs the store nothing between two beats."""
    run, other = await begun(store, pulse), await begun(store, pulse)
    await until(lambda: run.progress._written and run.progress._quiet, "it is quiet")
    other.progress.log("first")  # by it the store learns the script
    await until(lambda: not other.progress.last_lines().texts, "the other one is written")
    rev, before = (await store.get(run.job_id)).rev, look.beats()

    other.progress.log("written")
    await until(lambda: not other.progress.last_lines().texts, "the other one is written")

    assert (await store.get(run.job_id)).rev == rev
    assert look.beats() - before == 1


@pytest.mark.parametrize("look", [Pulse.wake, Pulse._wait])
def test_wake_may_come_at_any_instant(
    url: str, keys: Keys, look: Callable[[Pulse], object]
) -> None:
    """A finalizer may report in the middle of a wake, or while the thread waits for one."""

    def scene() -> Pulse:
        pulse = Pulse(ThreadStore(url, keys, "first"), lease_s=LEASE_S)
        pulse.wake()
        return pulse

    assert at_every_step(scene, look=look, act=Pulse.wake, check=lambda pulse, _: pulse.close())


def test_closing_what_was_never_opened(url: str, keys: Keys) -> None:
    """Closing is no error before the opening."""
    Pulse(ThreadStore(url, keys, "first"), lease_s=LEASE_S).close()


async def test_closing_ends_the_thread(store: Store, pulse: Pulse) -> None:
    """After the closing nothing beats any more."""
    run = await begun(store, pulse)

    pulse.close()
    run.progress.note("too late")

    assert not pulse._thread.is_alive()
    assert (await store.get(run.job_id)).note is None
