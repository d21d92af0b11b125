"""The acts on jobs, on real servers: each answer by example, all of them together by a model."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from headway import Headway
from headway._link import Link
from headway.acts import Lines
from headway.errors import BadInput, JobNotFound, StartRefused
from headway.job import TRANSITIONS, Failure, Job, State, child_id, flight_of, new_id
from headway.keys import Keys
from headway.record import MUTABLE, told
from headway.store import Claim, Settled, Store
from tests.conftest import PARTITIONS, OwnServer, Until
from tests.keyspace import Keyspace

LONG_S = 60.0
SHORT_S = 0.001
LOST = Failure("lost", "It was lost")
SUCCESS = Settled(State.SUCCEEDED, '{"ratio":1.0}', '{"n":1}')


def record_of(task: str = "work", **fields: str) -> dict[str, str]:
    fixed = {"task": task, "title": "Work", "owner": "me", "args": "[[],{}]", "options": "{}"}
    return fixed | {"on_lost": "fail", "max_attempts": "1"} | fields


@pytest.fixture
def other(link: Link, keys: Keys) -> Store:
    """The store as a second worker has it; what it ends may be swept at once."""
    return Store(link, keys, "other", keep_s=SHORT_S)


async def queued(store: Store, lease_s: float = LONG_S, flight: str = "", **fields: str) -> Job:
    job_id = new_id(PARTITIONS, flight=flight or None)
    return await store.create(job_id, record_of(**fields), lease_s, flight or None)


async def started_by(parent: Job, store: Store, lease_s: float = LONG_S, *, number: int = 1) -> Job:
    record = record_of(parent=parent.id, parent_attempt=str(parent.attempt), owner="")
    return await store.create(child_id(parent.id, number), record, lease_s)


async def running(store: Store, lease_s: float = LONG_S, **fields: str) -> Job:
    job = await queued(store, LONG_S, **fields)
    claim = await store.claim(job.id, lease_s)
    assert claim is not None
    return claim.job


async def beat(link: Link, store: Store, job: Job, lease_s: float = LONG_S, **news: Any) -> str:
    return str(await link.call(store.beat_call(job.id, job.attempt, lease_s, **news)))


class Eye:
    """Looks at the store from beside."""

    def __init__(self, keyspace: Keyspace, keys: Keys) -> None:
        self.keyspace = keyspace
        self.client = keyspace.client
        self.keys = keys

    def record(self, job_id: str) -> dict[str, str]:
        return {str(k): str(v) for k, v in self.client.hgetall(self.keys.record(job_id)).items()}

    def lease_ms(self, job_id: str) -> float | None:
        found: float | None = self.client.zscore(self.keys.leases(job_id[:2]), job_id)
        return found

    def now_ms(self) -> float:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) / 1000

    def past(self, ms: float | str | None) -> None:
        """Return when it is later than *ms* for the store."""
        while ms is not None and self.now_ms() <= float(ms) + 1:
            pass


@pytest.fixture
def eye(keyspace: Keyspace, keys: Keys) -> Eye:
    """What stands in the store, without its own code."""
    return Eye(keyspace, keys)


# ── create ────────────────────────────────────────────────────────────────────────────────────


async def test_create_accepts_a_job(store: Store, eye: Eye) -> None:
    """A new job is queued, leased by who accepted it, and has all that it was given."""
    job = await queued(store, title="Grün 🚀\n", owner="me")

    assert job == await store.get(job.id)
    assert (job.state, job.attempt, job.rev, job.reused) == (State.QUEUED, 0, 1, False)
    assert (job.title, job.owner, job.task) == ("Grün 🚀\n", "me", "work")
    assert eye.lease_ms(job.id) == pytest.approx(eye.now_ms() + 60_000, abs=5000)
    assert eye.record(job.id)["worker"] == "first"


async def test_create_repeated_changes_nothing(store: Store, eye: Eye) -> None:
    """After a lost answer the same create is asked again, and is told the same."""
    job = await queued(store, flight="aa" * 16)
    before = eye.record(job.id)

    again = await store.create(job.id, record_of(title="other"), LONG_S, "aa" * 16)

    assert (again, eye.record(job.id)) == (job, before)


async def test_many_starts_of_one_key_run_one_job(store: Store, other: Store) -> None:
    """Of parallel starts with one key one makes the job, and all the others get it."""
    flight = flight_of("work", "me", "key")

    jobs = await asyncio.gather(*(queued(s, flight=flight) for s in (store, other) * 4))

    assert len({job.id for job in jobs}) == 1
    assert sorted(job.reused for job in jobs) == [False] + [True] * 7


async def test_key_is_free_when_its_job_has_ended(link: Link, store: Store, eye: Eye) -> None:
    """However a job ends, its key starts a new one then, and not before."""
    flight = flight_of("work", "me", "key")
    ids = set()

    for how in ("finish", "cancel", "release", "reap"):
        job = await queued(store, flight=flight)
        assert (await queued(store, flight=flight)).id == job.id
        ids.add(job.id)
        if how == "cancel":
            await store.cancel(job.id)
            continue
        claim = await store.claim(job.id, LONG_S)
        assert claim is not None
        assert (await queued(store, flight=flight)).reused
        if how == "finish":
            await store.finish(claim.job, SUCCESS)
        elif how == "release":
            await store.cancel(job.id)
            assert await store.release(job.id, 1) == "cancelled"
        else:
            await beat(link, store, claim.job, SHORT_S)
            eye.past(eye.lease_ms(job.id))
            assert (await store.reap(job.id, LONG_S, LOST, adopt=True)).word == "ended"

    assert len(ids) == 4


async def test_key_of_a_vanished_job_is_free(store: Store, keyspace: Keyspace, keys: Keys) -> None:
    """A key whose job was removed from outside does not block."""
    flight = flight_of("work", "me", "key")
    job = await queued(store, flight=flight)
    keyspace.client.delete(keys.record(job.id))
    keyspace.client.zrem(keys.leases(job.id[:2]), job.id)

    again = await queued(store, flight=flight)

    assert again.id != job.id
    assert not again.reused


# ── claim ─────────────────────────────────────────────────────────────────────────────────────


async def test_claim_makes_it_run(store: Store) -> None:
    """Who claims a queued job gets what the run needs, as attempt 1."""
    job = await queued(store, args="[[1],{}]", options='{"retries":2}')

    claim = await store.claim(job.id, LONG_S)

    assert isinstance(claim, Claim)
    assert (claim.args, claim.options, claim.checkpoint) == ("[[1],{}]", '{"retries":2}', None)
    assert (claim.job.state, claim.job.attempt) == (State.RUNNING, 1)
    assert claim.job.rev > job.rev
    assert claim.job.started_at is not None


async def test_one_of_many_gets_the_claim(store: Store, other: Store) -> None:
    """Of workers who claim at once exactly one gets the job."""
    jobs = [await queued(store) for _ in range(20)]

    for job in jobs:
        claims = await asyncio.gather(store.claim(job.id, LONG_S), other.claim(job.id, LONG_S))

        assert len([c for c in claims if c is not None]) == 1


async def test_claim_repeated_is_the_same_attempt(store: Store, eye: Eye) -> None:
    """A claim whose answer was lost may be asked again, without a new attempt."""
    job = await running(store)
    before = eye.record(job.id)

    again = await store.claim(job.id, LONG_S)

    assert again is not None
    assert (again.job, eye.record(job.id)) == (job, before)


async def test_claim_of_what_is_not_there(store: Store, other: Store) -> None:
    """What is gone, ended or run by another worker is not claimed."""
    ended = await running(store)
    await store.finish(ended, SUCCESS)
    taken = await running(store)

    claims = [await other.claim(i, LONG_S) for i in (new_id(PARTITIONS), ended.id, taken.id)]

    assert claims == [None, None, None]


async def test_claim_waits_for_the_retry(store: Store, eye: Eye) -> None:
    """A job that was given back with a delay is claimed only after it, as the next attempt."""
    slow, quick = await running(store), await running(store)
    error = Failure("exception", "Something went wrong")

    await store.release(slow.id, 1, delay_s=LONG_S, lease_s=LONG_S, error=error, checkpoint="{}")
    await store.release(quick.id, 1, delay_s=SHORT_S, lease_s=LONG_S, error=error, checkpoint="{}")
    eye.past(eye.record(quick.id)["retry_at"])
    early, late = await store.claim(slow.id, LONG_S), await store.claim(quick.id, LONG_S)

    assert early is None
    assert late is not None
    assert (late.job.attempt, late.job.retry_at, late.checkpoint) == (2, None, "{}")
    assert late.job.error == error


@pytest.mark.parametrize("act", ["beat", "finish", "release"])
async def test_claim_that_the_store_has_lost_is_made_good(
    link: Link, store: Store, eye: Eye, act: str
) -> None:
    """A replica that took over may lack the claim: the run that has it writes as before."""
    job = await running(store)
    eye.client.hset(eye.keys.record(job.id), mapping={"state": "queued", "attempt": "0"})

    if act == "beat":
        assert await beat(link, store, job, progress='{"done":3}') == "ok"
    elif act == "finish":
        assert await store.finish(job, SUCCESS)
    else:
        assert await store.release(job.id, job.attempt) == "ok"

    found = await store.get(job.id)
    expected = {"beat": State.RUNNING, "finish": State.SUCCEEDED, "release": State.QUEUED}
    assert (found.state, found.attempt) == (expected[act], 1)


async def test_only_the_next_attempt_makes_a_claim_good(link: Link, store: Store) -> None:
    """A stale run does not take what waits for another attempt."""
    job = await running(store, on_lost="retry", max_attempts="5")
    await store.release(job.id, 1)

    answers = [await beat(link, store, msgspec.structs.replace(job, attempt=n)) for n in (0, 1, 3)]

    assert answers == ["lost"] * 3
    assert (await store.get(job.id)).state is State.QUEUED


async def test_what_was_handed_over_is_no_attempt(store: Store) -> None:
    """An attempt that is given back without an error raises the limit, for this job alone."""
    job = await running(store, on_lost="retry", max_attempts="2")
    assert await store.release(job.id, 1) == "ok"

    claim = await store.claim(job.id, LONG_S)

    assert claim is not None
    assert (claim.job.attempt, claim.job.max_attempts, claim.handed) == (2, 3, 1)
    assert (await store.args(job.id))["max_attempts"] == "2"


async def test_revisions_leap_over_what_may_be_lost(link: Link, store: Store, eye: Eye) -> None:
    """After a silence more revisions are left out than can have been written meanwhile."""
    job = await running(store)
    updated = [int(eye.now_ms()) - 3_000]
    eye.client.hset(eye.keys.record(job.id), "updated", updated[0])

    revs = [job.rev]
    for done in (1, 2):
        await beat(link, store, job, progress=f'{{"done":{done}}}')
        revs.append((await store.get(job.id)).rev)
        updated.append(int(eye.record(job.id)["updated"]))

    silences_ms = [after - before for before, after in pairwise(updated)]
    assert silences_ms[0] >= 3_000
    assert [after - before for before, after in pairwise(revs)] == [
        1 + (math.ceil(ms / 50) if ms >= 1_000 else 0) for ms in silences_ms
    ]


# ── beat, hold ────────────────────────────────────────────────────────────────────────────────


async def test_beat_renews_and_writes(link: Link, store: Store, eye: Eye) -> None:
    """A beat renews the lease and writes what it brings; only news raise the revision."""
    job = await running(store, SHORT_S)
    lease = eye.lease_ms(job.id) or 0

    bare = await beat(link, store, job)
    silent = await store.get(job.id)
    told = await beat(link, store, job, progress='{"done":3}', checkpoint='{"value":1}')

    assert (bare, told) == ("ok", "ok")
    assert (eye.lease_ms(job.id) or 0) > lease + 50_000
    assert silent == job
    assert (await store.get(job.id)).progress.done == 3
    assert (await store.get(job.id)).rev > job.rev


async def test_beat_hears_of_cancelling(link: Link, store: Store) -> None:
    """A beat of a job that was asked to stop is told so, each time."""
    job = await running(store)
    await store.cancel(job.id)

    assert [await beat(link, store, job) for _ in range(2)] == ["cancel", "cancel"]


async def test_late_writers_change_nothing(
    link: Link, store: Store, other: Store, eye: Eye
) -> None:
    """An old attempt, or another worker, writes not a byte and is told that it lost."""
    job = await running(store, on_lost="retry", max_attempts="3")
    await store.release(job.id, 1)
    claim = await other.claim(job.id, LONG_S)
    assert claim is not None
    before = eye.record(job.id), eye.lease_ms(job.id)

    for late, by in ((job, store), (job, other), (claim.job, store)):
        assert await beat(link, by, late, progress="{}", checkpoint="1") == "lost"
        assert await by.finish(late, SUCCESS) is False
        assert await by.release(late.id, late.attempt, delay_s=1) == "lost"

    assert (eye.record(job.id), eye.lease_ms(job.id)) == before


async def test_hold_renews_what_is_live(link: Link, store: Store, eye: Eye) -> None:
    """Held jobs keep their leases; one that has ended is not revived."""
    held, ended = await queued(store, SHORT_S), await queued(store)
    await store.cancel(ended.id)

    await asyncio.gather(*map(link.call, store.hold_calls([held.id, ended.id], LONG_S)))

    assert (eye.lease_ms(held.id) or 0) > eye.now_ms() + 50_000
    assert eye.lease_ms(ended.id) is None


async def test_sent_is_held_by_nobody(store: Store, other: Store, eye: Eye) -> None:
    """A job whose message is out belongs to nobody, and is due when that may be lost."""
    job = await queued(store)

    store.sent(job.id, 20)
    waiting = await store.get(job.id)
    left_ms = (eye.lease_ms(job.id) or 0) - eye.now_ms()
    early = (await other.due(["work"], 10, orphans=False))[1]
    eye.client.zadd(eye.keys.leases(job.id[:2]), {job.id: 1})  # as if it were over

    assert waiting == job
    assert eye.record(job.id)["worker"] == ""
    assert 0 < left_ms <= 20_000
    assert early == []
    assert (await other.due(["work"], 10, orphans=False))[1] == [(job.id, "work")]
    assert (await other.reap(job.id, LONG_S, LOST, adopt=True)).word == "adopted"


async def test_sent_again_waits_for_longer(store: Store, eye: Eye) -> None:
    """The longer a job has waited, the longer it is until its message may be lost again."""
    job = await queued(store)
    accepted = float(eye.record(job.id)["updated"])
    eye.past(accepted + 200)

    store.sent(job.id, 0.01)
    await store.get(job.id)

    assert (eye.lease_ms(job.id) or 0) - accepted >= 4 * 200


@pytest.mark.parametrize("how", ["running", "another worker's", "its next attempt"])
async def test_sent_too_late(store: Store, other: Store, eye: Eye, how: str) -> None:
    """What is known too late of a message changes nothing of a job that has gone on."""
    by = other if how == "another worker's" else store
    job = await queued(by) if by is other else await running(by)
    if how == "its next attempt":
        await store.release(job.id, 1, delay_s=LONG_S, lease_s=LONG_S)
    before = eye.record(job.id), eye.lease_ms(job.id)

    store.sent(job.id, 2 * LONG_S)
    await store.get(job.id)

    assert (eye.record(job.id), eye.lease_ms(job.id)) == before


async def test_log_lines_are_written_once(link: Link, store: Store) -> None:
    """Beats that repeat or overtake each other write each line once, in order."""
    job = await running(store)

    await beat(link, store, job, progress="{}", lines=Lines(0, ["a", "b"]))
    await beat(link, store, job, progress="{}", lines=Lines(0, ["a", "b"]))
    await beat(link, store, job, progress="{}", lines=Lines(1, ["b", "c"]))
    await beat(link, store, job, progress="{}", lines=Lines(0, ["a"]))

    assert await store.log(job.id) == ["a", "b", "c"]


async def test_log_keeps_the_newest_lines_and_goes_with_the_job(
    link: Link, store: Store, other: Store, eye: Eye
) -> None:
    """The newest 500 lines are kept, the last ones with the end; swept with the record."""
    job = await running(other)
    await beat(link, other, job, progress="{}", lines=Lines(0, [str(n) for n in range(500)]))

    await other.finish(job, Settled(State.SUCCEEDED, "{}", lines=Lines(500, ["last"])))

    lines = await store.log(job.id)
    assert (len(lines), lines[0], lines[-1]) == (500, "1", "last")
    eye.past(eye.record(job.id)["expires"])
    assert await store.sweep(10) == 1
    assert await store.log(job.id) == []


async def test_second_attempt_adds_to_the_log(link: Link, store: Store) -> None:
    """The numbers of lines begin anew with each attempt; the log goes on."""
    job = await running(store)
    await store.release(job.id, 1, lines=Lines(0, ["one"]))
    claim = await store.claim(job.id, LONG_S)
    assert claim is not None

    await beat(link, store, claim.job, progress="{}", lines=Lines(0, ["two"]))

    assert await store.log(job.id) == ["one", "two"]


async def test_lines_of_a_job_that_is_cancelled_in_its_release(store: Store) -> None:
    """Lines that come with the last word expire with the job, whatever the word was."""
    job = await running(store)
    await store.cancel(job.id)

    assert await store.release(job.id, 1, lines=Lines(0, ["last"])) == "cancelled"
    assert await store.log(job.id) == ["last"]


# ── finish, release ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [s for s in State if s.terminal])
async def test_finish_ends_it(store: Store, eye: Eye, state: State) -> None:
    """An end has its state, its times, and what it is to be known for; then nothing changes it."""
    job = await running(store)
    error = None if state is State.SUCCEEDED else Failure("why", "Because", "of it")

    assert await store.finish(job, Settled(state, '{"done":1}', '{"n":1}', error))

    ended = await store.get(job.id)
    assert (ended.state, ended.result, ended.error) == (state, {"n": 1}, error)
    assert (ended.finished_at or 0) + LONG_S == pytest.approx(ended.expires_at)
    assert eye.lease_ms(job.id) is None
    assert await store.cancel(job.id) == ended


async def test_finish_repeated_is_told_the_same(store: Store, eye: Eye) -> None:
    """A finish whose answer was lost may be asked again; another end is refused."""
    job = await running(store)
    await store.finish(job, SUCCESS)
    before = eye.record(job.id)

    again = await store.finish(job, SUCCESS)
    otherwise = await store.finish(job, Settled(State.FAILED, "{}"))

    assert (again, otherwise) == (True, False)
    assert eye.record(job.id) == before


async def test_success_forgets_the_error_of_an_earlier_attempt(store: Store) -> None:
    """The error of an attempt that was retried does not stand beside a success."""
    job = await running(store)
    await store.release(job.id, 1, error=Failure("exception", "Oh"))
    claim = await store.claim(job.id, LONG_S)
    assert claim is not None

    await store.finish(claim.job, SUCCESS)

    assert (await store.get(job.id)).error is None


async def test_release_gives_it_to_anybody(store: Store, other: Store, eye: Eye) -> None:
    """A job given back without a delay belongs to nobody and is due at once."""
    job = await running(store)

    assert await store.release(job.id, 1) == "ok"

    assert eye.record(job.id)["worker"] == ""
    eye.past(eye.lease_ms(job.id))
    assert (await other.due(["work"], 10, orphans=True))[1] == [(job.id, "work")]
    assert (await other.reap(job.id, LONG_S, LOST, adopt=True)).word == "adopted"
    assert await other.claim(job.id, LONG_S) is not None


async def test_release_of_what_waits(store: Store, eye: Eye) -> None:
    """A process that goes away gives back what it only held."""
    job = await queued(store)

    assert await store.release(job.id, 0) == "ok"
    assert await store.release(job.id, 0) == "lost"
    assert eye.record(job.id)["worker"] == ""


# ── cancel ────────────────────────────────────────────────────────────────────────────────────


async def test_cancel_of_a_queued_job_ends_it(store: Store) -> None:
    """A job that does not run yet is cancelled at once, and asking again changes nothing."""
    job = await queued(store)

    first, second = await store.cancel(job.id), await store.cancel(job.id)

    assert (first.state, first.cancel_requested) == (State.CANCELLED, True)
    assert first == second


async def test_cancel_of_a_running_job_asks(store: Store) -> None:
    """A running job is only asked; the second time nothing changes."""
    job = await running(store)

    first, second = await store.cancel(job.id), await store.cancel(job.id)

    assert (first.state, first.cancel_requested) == (State.RUNNING, True)
    assert first.rev > job.rev
    assert first == second


async def test_cancel_of_nothing(store: Store) -> None:
    """A job that is not there cannot be cancelled."""
    with pytest.raises(JobNotFound, match="has expired"):
        await store.cancel(new_id(PARTITIONS))


# ── children ──────────────────────────────────────────────────────────────────────────────────


async def end(how: str, job: Job, link: Link, store: Store, eye: Eye) -> None:
    """End a running job in one of the ways that there are."""
    if how == "finish":
        assert await store.finish(job, SUCCESS)
    elif how == "release":
        await store.cancel(job.id)
        assert await store.release(job.id, job.attempt) == "cancelled"
    elif how == "cancel":
        assert await store.release(job.id, job.attempt) == "ok"
        await store.cancel(job.id)
    else:
        await beat(link, store, job, SHORT_S)
        eye.past(eye.lease_ms(job.id))
        if how == "vanish":
            eye.client.delete(eye.keys.record(job.id))
        assert (await store.reap(job.id, LONG_S, LOST, adopt=True)).word == "ended"


@pytest.mark.parametrize("how", ["finish", "release", "cancel", "reap", "vanish"])
async def test_end_of_a_job_cancels_its_children(
    link: Link, store: Store, other: Store, eye: Eye, ears: list[Ear], how: str
) -> None:
    """However a job ends, what waits of its children has ended with it, and what runs is told."""
    parent = await running(store)
    waits, runs, ended = [await started_by(parent, store, number=n) for n in range(3)]
    assert await other.claim(runs.id, LONG_S) is not None
    claim = await store.claim(ended.id, LONG_S)
    assert claim is not None
    assert await store.finish(claim.job, SUCCESS)
    ears.append(ear := Ear(eye, runs.id))

    await end(how, parent, link, store, eye)

    after = await store.get_all([waits.id, runs.id, ended.id])
    assert [(job.state, job.cancel_requested) for job in after.values()] == [
        (State.CANCELLED, True),
        (State.RUNNING, True),
        (State.SUCCEEDED, False),
    ]
    assert runs.updated(ear.hear()) == after[runs.id]
    assert await beat(link, other, after[runs.id]) == "cancel"
    ear.close()
    assert {"cancel": runs.id} in ear.control
    ears.clear()


async def test_grandchildren_follow(store: Store) -> None:
    """What waits ends down to the last generation; what runs passes it on with its own end."""
    parent = await running(store)
    child = await started_by(parent, store)
    claim = await store.claim(child.id, LONG_S)
    assert claim is not None
    grandchild = await started_by(claim.job, store)
    assert await store.release(child.id, 1) == "ok"

    await store.finish(parent, SUCCESS)

    states = [job.state for job in (await store.get_all([child.id, grandchild.id])).values()]
    assert states == [State.CANCELLED] * 2


@pytest.mark.parametrize("how", ["release", "reap"])
async def test_next_attempt_finds_its_children(
    link: Link, store: Store, eye: Eye, how: str
) -> None:
    """While a job waits for another attempt its children live on, and end with that one."""
    parent = await running(store, on_lost="retry", max_attempts="2")
    child = await started_by(parent, store)

    if how == "release":
        assert await store.release(parent.id, 1) == "ok"
    else:
        await beat(link, store, parent, SHORT_S)
        eye.past(eye.lease_ms(parent.id))
        assert (await store.reap(parent.id, LONG_S, LOST, adopt=True)).word == "adopted"
    claim = await store.claim(parent.id, LONG_S)
    assert claim is not None
    found = await started_by(claim.job, store)

    assert found == child
    await store.finish(claim.job, SUCCESS)
    assert (await store.get(child.id)).state is State.CANCELLED


async def test_only_the_attempt_that_runs_starts_children(
    store: Store, other: Store, keyspace: Keyspace
) -> None:
    """A job that ended, that waits, that another worker or attempt runs: no child, no trace."""
    ended, waits, again = [await running(store, max_attempts="9") for _ in range(3)]
    await store.finish(ended, SUCCESS)
    await store.release(waits.id, 1)
    await store.release(again.id, 1)
    assert await store.claim(again.id, LONG_S) is not None
    runs = await running(store)
    before = keyspace.names()
    gone = msgspec.structs.replace(runs, id=new_id(PARTITIONS))

    for parent, by in (
        (ended, store),
        (waits, store),
        (again, store),
        (runs, other),
        (gone, store),
    ):
        with pytest.raises(StartRefused, match="can start no job in its attempt 1"):
            await started_by(parent, by)

    assert keyspace.names() == before


async def test_child_is_listed_for_its_owner(store: Store, eye: Eye, until: Until) -> None:
    """A job that was started by another one stands in its owner's list like any other."""
    parent = await running(store)
    record = record_of(parent=parent.id, parent_attempt="1", owner="me")
    child = await store.create(child_id(parent.id, 1), record, LONG_S)

    await until(lambda: eye.client.zscore(eye.keys.owner("me"), child.id), "it is listed")


# ── due, reap, sweep ──────────────────────────────────────────────────────────────────────────


async def test_due_tells_what_can_be_dealt_with(store: Store, eye: Eye) -> None:
    """Due are jobs without a lease: those that run, and those that wait and are known here."""
    lost = await running(store, SHORT_S, task="strange")
    mine = await queued(store, SHORT_S, task="mine")
    strange = await queued(store, SHORT_S, task="strange")
    await queued(store, LONG_S, task="mine")
    eye.past(max(eye.lease_ms(job.id) or 0 for job in (lost, mine, strange)))

    now, due = await store.due(["mine"], 10, orphans=False)

    assert sorted(due) == sorted([(lost.id, "strange"), (mine.id, "mine")])
    assert now * 1000 == pytest.approx(eye.now_ms(), abs=1000)
    assert (await store.due(["mine"], 10, orphans=True))[1] == []
    assert len((await store.due(["mine", "strange"], 2, orphans=False))[1]) == 2


async def test_reap_of_a_live_lease_is_early(store: Store, other: Store, eye: Eye) -> None:
    """Nobody touches a job whose lease is not over, nor one that has ended."""
    live, ended = await running(store), await queued(store)
    await store.cancel(ended.id)
    before = eye.record(live.id), eye.record(ended.id)

    answers = [(await other.reap(j.id, LONG_S, LOST, adopt=True)).word for j in (live, ended)]

    assert answers == ["early", "early"]
    assert (eye.record(live.id), eye.record(ended.id)) == before


async def test_reap_fails_what_may_not_be_repeated(store: Store, other: Store, eye: Eye) -> None:
    """A lost run ends as failed, with the code lost, and its progress stays to be seen."""
    job = await running(store, SHORT_S)
    eye.past(eye.lease_ms(job.id))

    assert (await other.reap(job.id, LONG_S, LOST, adopt=True)).word == "ended"

    ended = await store.get(job.id)
    assert (ended.state, ended.error, ended.attempt) == (State.FAILED, LOST, 1)


@pytest.mark.parametrize("adopt", [True, False])
async def test_reap_repeats_what_may_be_repeated(
    store: Store, other: Store, eye: Eye, adopt: bool
) -> None:
    """A lost run that may be retried is queued again, for who found it or for anybody."""
    job = await running(store, SHORT_S, on_lost="retry", max_attempts="2")
    eye.past(eye.lease_ms(job.id))

    answer = await other.reap(job.id, LONG_S, LOST, adopt=adopt)

    assert answer.word == ("adopted" if adopt else "queued")
    assert answer.lost == await store.get(job.id)
    assert eye.record(job.id)["worker"] == ("other" if adopt else "")
    assert (await store.get(job.id)).state is State.QUEUED


async def test_reap_counts_the_attempts(store: Store, eye: Eye) -> None:
    """A job that kills its workers is not repeated for ever."""
    job = await queued(store, on_lost="retry", max_attempts="2")
    answers = []

    for _ in range(2):
        assert await store.claim(job.id, SHORT_S) is not None
        eye.past(eye.lease_ms(job.id))
        answers.append((await store.reap(job.id, LONG_S, LOST, adopt=True)).word)

    assert answers == ["adopted", "ended"]
    assert (await store.get(job.id)).error == LOST


async def test_reap_cancels_what_was_asked_to_stop(store: Store, eye: Eye) -> None:
    """A lost run that was asked to stop has stopped."""
    job = await running(store, SHORT_S, on_lost="retry", max_attempts="9")
    await store.cancel(job.id)
    eye.past(eye.lease_ms(job.id))

    assert (await store.reap(job.id, LONG_S, LOST, adopt=True)).word == "ended"
    assert (await store.get(job.id)).state is State.CANCELLED


async def test_reap_clears_a_lease_without_a_record(store: Store, keyspace: Keyspace) -> None:
    """The lease of a record that has vanished is removed."""
    job_id = new_id(PARTITIONS)
    keyspace.client.zadd(store.keys.leases(job_id[:2]), {job_id: 1})

    due = (await store.due([], 10, orphans=False))[1]
    answer = await store.reap(job_id, LONG_S, LOST, adopt=True)

    assert (due, answer.word, answer.lost) == ([(job_id, "")], "ended", None)


async def test_sweep_removes_what_is_over(store: Store, other: Store, eye: Eye) -> None:
    """Ended jobs go when their time is over, out of their owner's list too; others stay."""
    kept, over, live = await running(store), await running(other), await running(store)
    await store.finish(kept, SUCCESS)
    await other.finish(over, SUCCESS)
    eye.past(eye.record(over.id)["expires"])

    assert [await store.sweep(10), await store.sweep(10)] == [1, 0]
    assert list(await store.get_all([over.id, kept.id, live.id], strict=False)) == [
        kept.id,
        live.id,
    ]
    assert eye.client.zrange(eye.keys.owner("me"), 0, -1) == [kept.id, live.id]


# ── reading ───────────────────────────────────────────────────────────────────────────────────


async def test_get_all_keeps_the_order(store: Store) -> None:
    """Many jobs are read in the order asked for; what is not there is left out or an error."""
    jobs = [await queued(store) for _ in range(5)]
    ids = [job.id for job in reversed(jobs)]

    found = await store.get_all([ids[0], "garbage", new_id(PARTITIONS), *ids[1:]], strict=False)

    assert list(found) == ids
    assert list(found.values()) == jobs[::-1]


@pytest.mark.parametrize("job_id", ["", "garbage", "00" + "a" * 26, "*", "{x}:job:1"])
async def test_get_of_nothing(store: Store, job_id: str) -> None:
    """An id that names nothing is told as such, garbage or not."""
    with pytest.raises(JobNotFound, match="the id is wrong"):
        await store.get(job_id)


async def test_owner_lists_the_newest_first(store: Store, eye: Eye) -> None:
    """An owner sees his own jobs, newest first; what has vanished leaves his list."""
    jobs = [await queued(store, owner="me") for _ in range(3)]
    await queued(store, owner="you")
    for n, job in enumerate(jobs):
        eye.client.zadd(eye.keys.owner("me"), {job.id: n})
    gone = new_id(PARTITIONS)
    eye.client.zadd(eye.keys.owner("me"), {gone: 99})

    mine = await store.of_owner("me", 10)

    assert mine == jobs[::-1]
    assert await store.of_owner("me", 2) == jobs[:0:-1]
    assert eye.client.zscore(eye.keys.owner("me"), gone) is None


async def test_owner_s_list_is_repaired_by_the_claim(store: Store, eye: Eye, until: Until) -> None:
    """A job whose acceptor died before it was listed is listed when it begins to run."""
    job = await queued(store, owner="me")
    eye.client.delete(eye.keys.owner("me"))

    await store.claim(job.id, LONG_S)

    await until(lambda: eye.client.zscore(eye.keys.owner("me"), job.id), "it is listed")


async def test_job_that_is_reused_is_listed_once(store: Store, until: Until) -> None:
    """Starts that were answered with a running job leave nothing else in the list."""
    flight = flight_of("work", "me", "key")
    jobs = [await queued(store, flight=flight, owner="me") for _ in range(3)]

    async def listed() -> list[Job]:
        return await store.of_owner("me", 10)

    await until(listed, "it is listed")

    assert [job.id for job in await listed()] == [jobs[0].id]


async def test_args_are_what_a_second_run_needs(store: Store) -> None:
    """The fixed fields come back as they were given, without what the first run left."""
    record = record_of(args='[["ü"],{}]', on_lost="retry", max_attempts="3")
    job = await store.create(new_id(PARTITIONS), record, LONG_S)
    await store.claim(job.id, LONG_S)

    assert await store.args(job.id) == record
    with pytest.raises(JobNotFound):
        await store.args(new_id(PARTITIONS))


@pytest.mark.parametrize("prefix", ["", "a b", "a{b}", "a\nb", "x:job:y", "job", "a:job"])
def test_bad_prefix_is_refused(prefix: str) -> None:
    """A prefix that would break the names of keys is refused."""
    with pytest.raises(BadInput, match="use a word without braces or spaces"):
        Keys(prefix, PARTITIONS)


async def test_policy_is_told(store: Store) -> None:
    """The server says whether it evicts."""
    assert await store.eviction_policy() == "noeviction"


async def test_store_that_evicts_is_warned_of(
    own_server: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Who opens a store that may drop jobs is told so, and what to set, also without CONFIG."""
    own_server.say("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    own_server.say("ACL", "SETUSER", "default", "-config")

    async with Headway(own_server.url, secret="the secret of a test"):
        pass

    assert "evicts keys when its memory is full (maxmemory-policy volatile-lru)" in caplog.text
    assert "Set it to noeviction" in caplog.text


# ── announcements ─────────────────────────────────────────────────────────────────────────────


def test_lists_of_what_can_change_agree() -> None:
    """The scripts announce exactly the fields that Python replaces by an announcement."""
    text = files("headway").joinpath("store.lua").read_text()
    block = re.search(r"local TOLD = \{(.*?)\}", text, re.DOTALL)

    assert block is not None
    assert set(re.findall(r"'(\w+)'", block[1])) == MUTABLE


class Ear:
    """Hears what is announced about one job, and what workers are told."""

    def __init__(self, eye: Eye, job_id: str) -> None:
        self._control = eye.keys.leases(job_id[:2])
        self._pubsub = eye.keyspace.pubsub(self._control)
        self._pubsub.ssubscribe(eye.keys.record(job_id), self._control)
        self.control: list[dict[str, str]] = []
        self._next("ssubscribe")
        self._next("ssubscribe")

    def _next(self, kind: str) -> dict[str, Any]:
        message = self._pubsub.get_message(timeout=5)
        assert message is not None
        assert message["type"] == kind
        return dict(message)

    def hear(self) -> dict[str, str]:
        """The next announcement about the job."""
        while (message := self._next("smessage"))["channel"] == self._control:
            self.control.append(json.loads(message["data"]))
        return told(message["data"])

    def close(self) -> None:
        while message := self._pubsub.get_message(timeout=0.05):
            assert message["channel"] == self._control, "an announcement that nobody expected"
            self.control.append(json.loads(message["data"]))
        self._pubsub.close()


@pytest.fixture
def ears(eye: Eye) -> Iterator[list[Ear]]:
    """Ears that are closed after the test."""
    ears: list[Ear] = []
    yield ears
    for ear in ears:
        ear.close()


async def test_each_change_is_announced_whole(
    link: Link, store: Store, eye: Eye, ears: list[Ear]
) -> None:
    """After every act the announcement alone makes an old snapshot equal to the record."""
    old = await queued(store, on_lost="retry", max_attempts="5")
    ears.append(ear := Ear(eye, old.id))

    async def announced() -> Job:
        fields = ear.hear()
        stored = eye.record(old.id)
        assert fields == {k: v for k, v in stored.items() if k in MUTABLE}
        assert old.updated(fields) == await store.get(old.id)
        return old.updated(fields)

    claim = await store.claim(old.id, LONG_S)
    assert claim is not None
    revs = [(await announced()).rev]
    await beat(link, store, claim.job, progress='{"done":1}')
    revs.append((await announced()).rev)
    await store.release(old.id, 1, delay_s=SHORT_S, lease_s=LONG_S, error=LOST)
    revs.append((await announced()).rev)
    eye.past(eye.record(old.id)["retry_at"])
    claim = await store.claim(old.id, SHORT_S)
    assert claim is not None
    revs.append((await announced()).rev)
    eye.past(eye.lease_ms(old.id))
    await store.reap(old.id, LONG_S, LOST, adopt=True)
    revs.append((await announced()).rev)
    claim = await store.claim(old.id, LONG_S)
    assert claim is not None
    revs.append((await announced()).rev)
    await store.cancel(old.id)
    revs.append((await announced()).rev)
    await store.finish(claim.job, Settled(State.CANCELLED, '{"done":2}', error=LOST))
    revs.append((await announced()).rev)

    assert all(before < after for before, after in pairwise([old.rev, *revs]))


async def test_workers_are_told(store: Store, eye: Eye, ears: list[Ear], until: Until) -> None:
    """Workers hear of a wish to cancel, and of a job that nobody holds."""
    cancelled, released = await running(store), await running(store)
    ears += [Ear(eye, cancelled.id), Ear(eye, released.id)]

    await store.cancel(cancelled.id)
    await store.release(released.id, 1)
    for ear in ears:
        ear.hear()
        ear.close()

    assert {"cancel": cancelled.id} in ears[0].control
    assert {"orphan": released.id} in ears[1].control
    ears.clear()


# ── all acts in any order, against a model ────────────────────────────────────────────────────


@dataclass
class Model:
    """What a job must be, by the acts that were done on it."""

    id: str
    flight: str | None
    max_attempts: int
    retry: bool
    worker: str
    leased: bool
    parent: str | None = None
    state: State = State.QUEUED
    attempt: int = 0
    cancel: bool = False
    early: bool = False
    delayed: bool = False
    swept: bool = False
    brief: bool = False
    ended_by: tuple[str, int] | None = None
    record: dict[str, str] = field(default_factory=dict)

    def owned_by(self, worker: str, attempt: int) -> bool:
        mine = (self.state, self.worker, self.attempt) == (State.RUNNING, worker, attempt)
        return mine and not self.swept

    def end(self, state: State, *, brief: bool) -> None:
        self.state, self.worker, self.leased, self.brief = state, "", False, brief
        self.early = self.delayed = False

    def queue(self, worker: str, *, leased: bool) -> None:
        self.state, self.worker, self.leased = State.QUEUED, worker, leased

    @property
    def live(self) -> bool:
        return not self.swept and not self.state.terminal


WORKERS = ("first", "second", "third")
BRIEF = "third"  # what this one ends may be swept at once
WHO = st.sampled_from(WORKERS)
LEASES = st.sampled_from([SHORT_S, LONG_S])


class StoreAndModel(RuleBasedStateMachine):
    """Three workers do what they like, with right and with stale attempts."""

    jobs = Bundle("jobs")

    runner: asyncio.Runner
    link: Link
    keyspace: Keyspace

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys(self.keyspace.prefix, 2)
        self.eye = Eye(self.keyspace, self.keys)
        self.stores = {
            w: Store(self.link, self.keys, w, keep_s=SHORT_S if w == BRIEF else LONG_S)
            for w in WORKERS
        }
        self.all: dict[str, Model] = {}
        self.acts: dict[str, str] = {}

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def acted(self, act: str, job: Model, lease_s: float) -> None:
        """Note what was done; wait for the end of a lease that was made to end."""
        self.acts[job.id] = act
        if job.live and not job.leased and lease_s == SHORT_S:
            self.eye.past(self.eye.lease_ms(job.id))

    @rule(
        target=jobs, who=WHO, lease_s=LEASES, retry=st.booleans(),
        attempts=st.integers(1, 3), key=st.sampled_from([None, "a", "b"]),
    )  # fmt: skip
    def create(self, who: str, lease_s: float, retry: bool, attempts: int, key: str | None) -> Any:
        flight = flight_of("work", None, key) if key else None
        job_id = new_id(2, flight=flight)
        record = record_of(on_lost="retry" if retry else "fail", max_attempts=str(attempts))
        same = [m for m in self.all.values() if m.live and flight and m.flight == flight]

        job = self.do(self.stores[who].create(job_id, record, lease_s, flight))

        assert job.reused == bool(same)
        if same:
            assert job.id == same[0].id
            return multiple()
        model = Model(job_id, flight, attempts, retry, who, leased=lease_s == LONG_S)
        self.all[job_id] = model
        self.acted("create", model, lease_s)
        return model

    def ends(self, job: Model, state: State, *, brief: bool) -> None:
        """The job ends, and so its children are cancelled."""
        job.end(state, brief=brief)
        for kid in self.all.values():
            if kid.parent == job.id and kid.live:
                self.cancels(kid, brief=brief)

    def cancels(self, job: Model, *, brief: bool) -> None:
        self.acts.setdefault(job.id, "cancel")
        if job.state is State.QUEUED:
            job.cancel = True
            self.ends(job, State.CANCELLED, brief=brief)
        job.cancel = job.cancel or job.state is State.RUNNING

    @initialize(target=jobs, retry=st.booleans())
    def family(self, retry: bool) -> Any:
        """Begin with a job that runs and has children, one of them with a child of its own."""
        root = self.create("first", LONG_S, retry, 3, None)
        self.claim(root, "first", LONG_S)
        waits, runs = [self.create_child(root, "first", 0, LONG_S) for _ in range(2)]
        self.claim(runs, "second", LONG_S)
        return multiple(root, waits, runs, self.create_child(runs, "second", 0, LONG_S))

    @rule(target=jobs, job=jobs, who=WHO, stale=st.integers(0, 1), lease_s=LEASES)
    def create_child(self, job: Model, who: str, stale: int, lease_s: float) -> Any:
        attempt = job.attempt - stale
        number = sum(kid.parent == job.id for kid in self.all.values())
        kid_id = child_id(job.id, number)
        record = record_of(parent=job.id, parent_attempt=str(attempt))
        create = self.stores[who].create(kid_id, record, lease_s)

        if not job.owned_by(who, attempt):
            with pytest.raises(StartRefused):
                self.do(create)
            return multiple()
        self.do(create)

        kid = Model(kid_id, None, 1, False, who, leased=lease_s == LONG_S, parent=job.id)
        self.all[kid_id] = kid
        self.acted("create", kid, lease_s)
        return kid

    @rule(job=jobs, who=WHO)
    def create_again(self, job: Model, who: str) -> None:
        if not job.swept:
            again = self.do(self.stores[who].create(job.id, record_of(), LONG_S, job.flight))
            assert (again.id, again.reused) == (job.id, False)

    @rule(job=jobs, who=WHO, lease_s=LEASES)
    def claim(self, job: Model, who: str, lease_s: float) -> None:
        mine = job.owned_by(who, job.attempt)
        free = job.live and job.state is State.QUEUED and not job.early

        claim = self.do(self.stores[who].claim(job.id, lease_s))

        assert (claim is not None) == (mine or free)
        if free:
            job.state, job.worker, job.leased = State.RUNNING, who, lease_s == LONG_S
            job.attempt += 1
            job.delayed = False
            self.acted("claim", job, lease_s)
        if claim is not None:
            assert claim.job.attempt == job.attempt

    @rule(job=jobs, who=WHO, stale=st.integers(0, 1), lease_s=LEASES, news=st.booleans())
    def beat(self, job: Model, who: str, stale: int, lease_s: float, news: bool) -> None:
        attempt = job.attempt - stale
        owned = job.owned_by(who, attempt)
        call = self.stores[who].beat_call(
            job.id, attempt, lease_s, progress='{"done":1}' if news else "", checkpoint="1"
        )

        answer = self.do(self.link.call(call))

        assert answer == ("lost" if not owned else "cancel" if job.cancel else "ok")
        if owned:
            job.leased = lease_s == LONG_S
            self.acted("beat", job, lease_s)

    @rule(job=jobs, who=WHO, lease_s=LEASES)
    def hold(self, job: Model, who: str, lease_s: float) -> None:
        for call in self.stores[who].hold_calls([job.id], lease_s):
            self.do(self.link.call(call))
        if job.live:
            job.leased = lease_s == LONG_S
            self.acted("hold", job, lease_s)

    @rule(
        job=jobs, who=WHO, stale=st.integers(0, 1),
        state=st.sampled_from([s for s in State if s.terminal]),
    )  # fmt: skip
    def finish(self, job: Model, who: str, stale: int, state: State) -> None:
        attempt = job.attempt - stale
        owned = job.owned_by(who, attempt)
        again = not job.swept and job.state is state and job.ended_by == (who, attempt)
        snapshot = Job.from_record({**self.some_record(job), "attempt": str(attempt)})

        done = self.do(self.stores[who].finish(snapshot, Settled(state, "{}")))

        assert done == (owned or again)
        if owned:
            job.ended_by = (who, attempt)
            self.ends(job, state, brief=who == BRIEF)
            self.acted("finish", job, LONG_S)

    @rule(job=jobs, state=st.sampled_from([s for s in State if s.terminal]))
    def finish_own(self, job: Model, state: State) -> None:
        if job.live and job.state is State.RUNNING:
            self.finish(job, job.worker, 0, state)

    def some_record(self, job: Model) -> dict[str, str]:
        return job.record or self.eye.record(job.id)

    @rule(
        job=jobs, who=WHO, stale=st.integers(0, 1), lease_s=LEASES,
        delay_s=st.sampled_from([0, SHORT_S, LONG_S]),
    )  # fmt: skip
    def release(self, job: Model, who: str, stale: int, lease_s: float, delay_s: float) -> None:
        attempt = job.attempt - stale
        mine = job.live and (job.worker, job.attempt) == (who, attempt)
        stops = mine and job.state is State.RUNNING and job.cancel

        answer = self.do(
            self.stores[who].release(job.id, attempt, delay_s=delay_s, lease_s=lease_s)
        )

        assert answer == ("cancelled" if stops else "ok" if mine else "lost")
        if stops:
            self.ends(job, State.CANCELLED, brief=who == BRIEF)
        elif mine:
            long = LONG_S in (delay_s, lease_s) and delay_s > 0
            job.queue(who if delay_s else "", leased=long)
            job.delayed = job.delayed or delay_s > 0
            job.early = delay_s == LONG_S or (delay_s == 0 and job.early)
            if delay_s == SHORT_S:
                self.eye.past(self.eye.record(job.id)["retry_at"])
        if mine:
            self.acted("release", job, SHORT_S)

    @rule(job=jobs, who=WHO)
    def cancel(self, job: Model, who: str) -> None:
        if job.swept:
            with pytest.raises(JobNotFound):
                self.do(self.stores[who].cancel(job.id))
            return

        after = self.do(self.stores[who].cancel(job.id))

        self.cancels(job, brief=who == BRIEF)
        self.acted("cancel", job, LONG_S)
        assert (after.state, after.cancel_requested) == (job.state, job.cancel)

    @rule(job=jobs, who=WHO, lease_s=LEASES, adopt=st.booleans())
    def reap(self, job: Model, who: str, lease_s: float, adopt: bool) -> None:
        lost, brief = job.live and not job.leased, who == BRIEF

        answer, told, _ = self.do(self.stores[who].reap(job.id, lease_s, LOST, adopt=adopt))
        assert (told is not None) == (lost and job.state is State.RUNNING)

        if not lost:
            assert answer == "early"
            return
        if job.state is State.RUNNING and (
            job.cancel or not job.retry or job.attempt >= job.max_attempts
        ):
            assert answer == "ended"
            self.ends(job, State.CANCELLED if job.cancel else State.FAILED, brief=brief)
        elif job.state is State.RUNNING:
            assert answer == ("adopted" if adopt else "queued")
            job.queue(who if adopt else "", leased=adopt and lease_s == LONG_S)
        else:
            assert answer == ("adopted" if adopt else "queued")
            if adopt:
                job.queue(who, leased=lease_s == LONG_S)
        self.acted("reap", job, lease_s if adopt else SHORT_S)

    @rule(known=st.booleans(), orphans=st.booleans())
    def due(self, known: bool, orphans: bool) -> None:
        _, due = self.do(self.stores["first"].due(["work"] if known else [], 1000, orphans=orphans))
        assert {job_id for job_id, _ in due} == {
            m.id
            for m in self.all.values()
            if m.live and not m.leased
            and (known or m.state is State.RUNNING)
            and (m.worker == "" or not orphans)
        }  # fmt: skip

    @rule()
    def sweep(self) -> None:
        over = [m for m in self.all.values() if m.state.terminal and m.brief and not m.swept]
        for model in over:
            self.eye.past(self.eye.record(model.id)["expires"])

        assert self.do(self.stores["first"].sweep(1000)) == len(over)

        for model in over:
            model.swept = True

    @rule(job=consumes(jobs))
    def forget(self, job: Model) -> None:
        """Leave this one alone from now on, so that others get their turns."""

    @invariant()
    def records_are_what_the_model_says(self) -> None:
        """States, fences, flags and revisions are right, and nothing changed that was not to."""
        for model in self.all.values():
            before, record = model.record, self.eye.record(model.id)
            assert bool(record) != model.swept
            if model.swept:
                continue
            assert (record["state"], int(record["attempt"])) == (model.state, model.attempt)
            assert record["worker"] == model.worker
            assert (record.get("cancel") == "1") == model.cancel
            assert ("retry_at" in record) == model.delayed
            self.check_change(model, before, record)
            model.record = record
        self.acts.clear()

    def check_change(self, model: Model, before: dict[str, str], record: dict[str, str]) -> None:
        if before and model.id not in self.acts:
            assert record == before, "an act that was refused, or on another job, changed it"
        elif before:
            old = State(before["state"])
            allowed = TRANSITIONS.get((old, self.acts[model.id]), frozenset({old}))
            assert model.state in allowed
            seen = {k: v for k, v in record.items() if k in MUTABLE and k != "rev"}
            seen_before = {k: v for k, v in before.items() if k in MUTABLE and k != "rev"}
            assert int(record["rev"]) >= int(before["rev"]) + (seen != seen_before)

    @invariant()
    def every_key_has_an_end(self) -> None:
        """Leases hold what lives, ends what ended, keys and jobs point to what lives."""
        self.keyspace.check()

    def teardown(self) -> None:
        self.do(asyncio.sleep(0))  # what was posted goes before what is cleared
        self.keyspace.clear()


def test_all_acts_in_any_order(url: str, keyspace: Keyspace) -> None:
    """Whatever three workers do in whatever order, the store does as the model says."""

    async def opened() -> Link:
        link = Link(url)
        link.open()
        return link

    class Here(StoreAndModel):
        pass

    with asyncio.Runner() as runner:
        Here.runner, Here.link, Here.keyspace = runner, runner.run(opened()), keyspace
        run_state_machine_as_test(Here, settings=settings(max_examples=30, stateful_step_count=40))
        runner.run(Here.link.aclose())
