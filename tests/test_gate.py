"""The gate, on a real store: how much may be started, and that what is sent twice is one job."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from headway._link import Link
from headway._wire import Call, Script
from headway.acts import SCRIPTS
from headway.errors import KeyInFlight, KeyReused, TooMany
from headway.gate import ACTIVE_S, BUSY_S, Asker, Gate, Reservation
from headway.job import Failure, Job, new_id
from headway.keys import Keys
from headway.limits import Limits
from headway.store import Store
from tests.conftest import Until
from tests.keyspace import Keyspace

ANN = Asker("ann", "ann")
MINUTE_MS = 60_000


def job_of(job_id: str) -> Job:
    record = {
        "id": job_id, "task": "work", "state": "queued", "attempt": "0", "max_attempts": "1",
        "rev": "1", "created": "1", "updated": "1",
    }  # fmt: skip
    return Job.from_record(record)


async def nobody(ids: Sequence[str]) -> set[str]:
    return set()


class Loop:
    """A loop with a link, for tests that are driven from outside of it."""

    def __init__(self, url: str, prefix: str) -> None:
        self._runner = asyncio.Runner()
        self.link = self.do(self._opened(url))
        self.keys = Keys(prefix, 4)

    async def _opened(self, url: str) -> Link:
        link = Link(url)
        link.open()
        return link

    def do(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def gate(self, *, keep_s: float = 60, **limits: Any) -> Gate:
        return Gate(self.link, self.keys, Limits(**limits), keep_s=keep_s)

    async def _sent(self) -> None:
        """What was posted has been done when what is asked after it is answered."""
        await self.link.everywhere(Call(None, ("PING",)))

    def settle(self) -> None:
        self.do(self._sent())

    def close(self) -> None:
        self.do(self.link.aclose())
        self._runner.close()


@pytest.fixture
def loop(url: str, prefix: str) -> Iterator[Loop]:
    """A loop of its own, which is closed in the end."""
    loop = Loop(url, prefix)
    yield loop
    loop.close()


# ── starts a minute ───────────────────────────────────────────────────────────────────────────


class Pace:
    """The generic cell rate algorithm, in fractions. Source: ITU-T I.371, virtual scheduling."""

    def __init__(self, rate: int) -> None:
        self.step = Fraction(MINUTE_MS, rate)
        self.whole = Fraction(0)

    def ask(self, now: int) -> int:
        whole = max(self.whole, Fraction(now)) + self.step
        wait = whole - now - MINUTE_MS
        if wait > 0:
            return math.ceil(wait)
        self.whole = whole
        return 0


class Hand:
    """The act `pace` by a clock that is moved by hand; what it keeps does not expire."""

    def __init__(self, loop: Loop, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = loop
        self._client = keyspace.client
        self._clock = f"clock of {keyspace.prefix}"
        text = SCRIPTS["pace"].text
        begin, end = text.index("local t = redis.call('TIME')"), text.index("local function ms(")
        text = (
            f"{text[:begin]}return tonumber(redis.call('GET', '{self._clock}'))\nend\n{text[end:]}"
        )
        expiry = ", 'PX', ms(math.ceil((whole - now) / rate))"
        assert expiry in text
        monkeypatch.setitem(SCRIPTS, "pace", Script.of(text.replace(expiry, "")))

    def ask(self, rate: int, now: int, who: str) -> int:
        self._client.set(self._clock, now, ex=60)
        gate = self._loop.gate(jobs_per_owner=None, starts_per_minute=rate)
        (call,) = gate.admit_calls(Asker(None, who), "a job")
        return int(self._loop.do(self._loop.link.call(call)))

    def forget(self, keyspace: Keyspace) -> None:
        keyspace.clear()
        self._client.delete(self._clock)


RATES = st.integers(1, 1000) | st.sampled_from([7, 9, 60, 5_000, 100_000])
# Beginning at a time as a store has it: there the numbers are largest.
PAUSES = st.lists(st.integers(0, 3) | st.integers(0, 3 * MINUTE_MS), min_size=1, max_size=25)


@pytest.fixture
def hand(loop: Loop, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hand]:
    """Starts by a clock in the test's hand."""
    hand = Hand(loop, keyspace, monkeypatch)
    yield hand
    hand.forget(keyspace)


@pytest.mark.one_server
def test_pace_is_the_one_of_the_model(hand: Hand, keyspace: Keyspace) -> None:
    """Every start is let through, or told to wait, to the millisecond as by the pure algorithm."""

    @settings(max_examples=100)
    @given(RATES, PAUSES)
    def every_time(rate: int, pauses: list[int]) -> None:
        keyspace.clear()
        model, now = Pace(rate), 1_795_000_000_000
        for pause in pauses:
            now += pause
            assert hand.ask(rate, now, "ann") == model.ask(now)

    every_time()


@pytest.mark.one_server
def test_wait_is_just_as_long_as_it_must_be(hand: Hand, keyspace: Keyspace) -> None:
    """Whoever waits as told is let through; a millisecond earlier it is not."""

    @settings(max_examples=60)
    @given(st.integers(1, 12), st.integers(0, 20))
    def every_time(rate: int, apart: int) -> None:
        keyspace.clear()
        now = 1_795_000_000_000
        while not (wait := hand.ask(rate, now, "ann")):
            now += apart
        assert hand.ask(rate, now + wait - 1, "ann") == 1
        assert hand.ask(rate, now + wait, "ann") == 0

    every_time()


@pytest.mark.parametrize("rate", [1, 7, 9, 60, 333])
@pytest.mark.one_server
def test_whole_allowance_may_be_spent_at_once(hand: Hand, rate: int) -> None:
    """As many starts as the limit says are let through in one moment, and not one more."""
    now = 1_795_000_000_000

    waits = [hand.ask(rate, now, "ann") for _ in range(rate + 1)]

    assert waits == [0] * rate + [math.ceil(MINUTE_MS / rate)]
    assert hand.ask(rate, now, "bob") == 0


def test_what_pace_keeps_expires(loop: Loop, keyspace: Keyspace) -> None:
    """When the allowance is whole again there is nothing to remember."""
    gate = loop.gate(starts_per_minute=2, jobs_per_owner=None)
    began = time.monotonic()

    for left_ms in (30_000, 60_000):
        loop.do(loop.link.call_all(gate.admit_calls(ANN, "a job")))
        (name,) = keyspace.names()
        found: Any = keyspace.client.pttl(name)
        passed_ms = (time.monotonic() - began) * 1_000
        assert left_ms - passed_ms - 10 <= found <= left_ms


# ── jobs at a time ────────────────────────────────────────────────────────────────────────────


async def enter(gate: Gate, link: Link, asker: Asker, job_id: str, alive: Any = nobody) -> None:
    """What accepting a job does at the gate."""
    answers = await link.call_all(gate.admit_calls(asker, job_id))
    await gate.check(asker, job_id, answers, alive)


async def reaped(store: Store, job_id: str) -> bool:
    return (await store.reap(job_id, 60, Failure("lost", "Lost"), adopt=False)).word == "ended"


async def test_places_of_lost_jobs_are_free(
    link: Link, store: Store, keys: Keys, until: Until
) -> None:
    """A job whose process died holds no place: whoever finds no room looks who really lives."""
    gate = Gate(link, keys, Limits(jobs_per_owner=2), keep_s=60)
    record = {"task": "work", "args": "", "options": "", "on_lost": "fail", "max_attempts": "1"}
    dead = Store(link, keys, "dead", keep_s=60)
    going, lost = new_id(4), new_id(4)
    for job_id, lease_s in ((going, 60.0), (lost, 0.001)):
        await dead.create(job_id, record, lease_s)
        await dead.claim(job_id, lease_s)
        await enter(gate, link, ANN, job_id)

    async def alive(ids: Sequence[str]) -> set[str]:
        return {i for i, j in (await store.get_all(ids)).items() if not j.state.terminal}

    with pytest.raises(TooMany) as full:
        await enter(gate, link, ANN, "another", alive)
    await until(lambda: reaped(store, lost), "the lease of the dead is over")
    await enter(gate, link, ANN, "another", alive)

    assert (full.value.code, full.value.again_s) == ("too_many_jobs", 5)
    await store.cancel(going)


async def test_start_that_comes_too_fast_takes_no_place(
    link: Link, keys: Keys, keyspace: Keyspace, until: Until
) -> None:
    """What the pace refuses leaves the place that it was given."""
    gate = Gate(link, keys, Limits(jobs_per_owner=5, starts_per_minute=1), keep_s=60)
    await enter(gate, link, ANN, "first")

    with pytest.raises(TooMany) as refused:
        await enter(gate, link, ANN, "second")

    assert refused.value.code == "too_many_starts"
    assert 30 < refused.value.again_s <= 60
    (places,) = (name for name in keyspace.names() if ":active:" in name)
    await until(lambda: keyspace.client.smembers(places) == {"first"}, "the place is left")


async def test_nothing_is_counted_without_limits(link: Link, keys: Keys) -> None:
    """Who sets no limit, and who is nobody, asks the store nothing."""
    free = Gate(link, keys, Limits(jobs_per_owner=None, starts_per_minute=None), keep_s=60)
    gate = Gate(link, keys, Limits(), keep_s=60)

    assert free.admit_calls(ANN, "a job") == []
    assert gate.admit_calls(Asker(None, None), "a job") == []


class Places(RuleBasedStateMachine):
    """Jobs come, end with and without leaving, and vanish; a model says who gets a place."""

    loop: Loop
    keyspace: Keyspace
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.gate = self.loop.gate(jobs_per_owner=3, starts_per_minute=None)
        self.living: set[str] = set()
        self.held: set[str] = set()
        self.number = 0

    async def alive(self, ids: Sequence[str]) -> set[str]:
        return {i for i in ids if i in self.living}

    @rule(target=jobs)
    def start(self) -> str:
        self.number += 1
        job_id = f"job {self.number}"
        self.come(job_id)
        return job_id

    @rule(job_id=jobs)
    def start_again(self, job_id: str) -> None:
        """As after an answer that was lost."""
        if job_id in self.living:
            self.come(job_id)

    def come(self, job_id: str) -> None:
        room = job_id in self.held or len(self.held) < 3
        if not room:
            self.held &= self.living
            room = len(self.held) < 3
        if not room:
            with pytest.raises(TooMany):
                self.loop.do(enter(self.gate, self.loop.link, ANN, job_id, self.alive))
            return
        self.loop.do(enter(self.gate, self.loop.link, ANN, job_id, self.alive))
        self.held.add(job_id)
        self.living.add(job_id)

    @rule(job_id=jobs)
    def end(self, job_id: str) -> None:
        self.living.discard(job_id)
        self.held.discard(job_id)
        self.loop.do(self.leave(job_id))

    async def leave(self, job_id: str) -> None:
        self.gate.leave("ann", job_id)
        await self.loop._sent()

    @rule(job_id=jobs)
    def vanish(self, job_id: str) -> None:
        """It ended where nobody could give its place back."""
        self.living.discard(job_id)

    @invariant()
    def places_are_what_the_model_says(self) -> None:
        names = self.keyspace.names()
        found = {m for name in names for m in self.keyspace.client.smembers(name)}
        assert found == self.held
        assert len(self.living) <= 3
        assert all(0 < self.keyspace.client.ttl(name) <= ACTIVE_S for name in names)

    def teardown(self) -> None:
        self.keyspace.clear()


def run(machine: type[Any], loop: Loop, keyspace: Keyspace, examples: int) -> None:
    class Here(machine):  # type: ignore[misc]
        pass

    Here.loop, Here.keyspace = loop, keyspace
    run_state_machine_as_test(Here, settings=settings(max_examples=examples))


def test_places_in_any_order(loop: Loop, keyspace: Keyspace) -> None:
    """However jobs come and go, no more than the limit live, and none is locked out by the dead."""
    run(Places, loop, keyspace, 20)


# ── one request, one job ──────────────────────────────────────────────────────────────────────


@dataclass
class Known:
    """What must be known of one Idempotency-Key."""

    about: str
    token: str
    job_id: str | None = None


@dataclass
class Held:
    """A reservation that a request holds, which may have been lost meanwhile."""

    reservation: Reservation
    slot: tuple[str, int, str]
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.token = self.reservation.token


class Once(RuleBasedStateMachine):
    """Requests reserve, settle, give back, die and come back; a model says who is let through."""

    loop: Loop
    keyspace: Keyspace
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.gate = self.loop.gate()
        self.known: dict[tuple[str, int, str], Known] = {}
        self.names: dict[tuple[str, int, str], str] = {}

    @rule(
        target=held,
        owner=st.sampled_from(["ann", "bob"]),
        number=st.integers(0, 1),
        key=st.sampled_from(["k", "l"]),
        about=st.sampled_from(["rows", "columns"]),
    )
    def reserve(self, owner: str, number: int, key: str, about: str) -> Held | None:
        slot = (owner, number, key)
        act = self.gate.reserve(Asker(owner, owner, key), number, about)
        known = self.known.get(slot)
        if known is not None and (known.about != about or known.job_id is None):
            error = KeyReused if known.about != about else KeyInFlight
            with pytest.raises(error):
                self.loop.do(act)
            return None
        reservation = self.loop.do(act)
        assert reservation.job_id == (known.job_id if known else None)
        if known is not None:
            return None
        self.known[slot] = Known(about, reservation.token)
        self.names[slot] = reservation.name
        return Held(reservation, slot)

    @rule(held=held, job_id=st.sampled_from([None, "one", "two"]))
    def settle(self, held: Held | None, job_id: str | None) -> None:
        if held is None:
            return
        job = job_of(job_id) if job_id else None
        self.loop.do(self.gate.settle(held.reservation, job))
        known = self.known.get(held.slot)
        if known is None or known.token != held.token:
            return  # it was too late: what another request knows stays as it is
        if job_id is None:
            del self.known[held.slot]
        else:
            known.job_id = job_id

    @rule(slot=st.tuples(st.sampled_from(["ann", "bob"]), st.integers(0, 1), st.just("k")))
    def expire(self, slot: tuple[str, int, str]) -> None:
        """The request died, or the time of the key is over."""
        if self.known.pop(slot, None) is not None:
            self.keyspace.client.delete(self.names[slot])

    @invariant()
    def keys_are_what_the_model_says(self) -> None:
        for slot, known in self.known.items():
            said = self.keyspace.client.hgetall(self.names[slot])
            assert said.get("job") == known.job_id
            left_s = self.keyspace.client.pttl(self.names[slot]) / 1000
            assert 0 < left_s <= (BUSY_S if known.job_id is None else 60)
        assert len(self.keyspace.names()) == len(self.known)

    def teardown(self) -> None:
        self.keyspace.clear()


def test_keys_in_any_order(loop: Loop, keyspace: Keyspace) -> None:
    """Whatever requests do with their keys, and wherever they die, none gets another one's job."""
    run(Once, loop, keyspace, 30)


async def test_reserve_repeated_is_told_the_same(link: Link, keys: Keys) -> None:
    """An answer that was lost does not make a request stand in its own way."""
    act = SCRIPTS["reserve"]
    call = Call(act, (1, f"{keys.prefix}:once:x", "print", "token", 1000))

    assert await link.call(call) == await link.call(call) == ["new"]


async def test_one_of_many_processes_gets_the_key(link: Link, keys: Keys) -> None:
    """Of all who come with a key at the same moment one is let through."""
    gates = [Gate(link, keys, Limits(), keep_s=60) for _ in range(20)]
    asker = Asker("ann", "ann", "k")

    answers = await asyncio.gather(
        *(gate.reserve(asker, 0, "rows") for gate in gates), return_exceptions=True
    )

    assert sum(isinstance(answer, Reservation) for answer in answers) == 1
    assert sum(isinstance(answer, KeyInFlight) for answer in answers) == 19


def test_number_of_a_start_that_failed_is_free() -> None:
    """A start that the app tries again has the number that it had."""
    asker = Asker("ann", "ann", "k")

    with pytest.raises(ValueError, match="no"), asker.start() as first:
        raise ValueError("no")
    with asker.start() as again, asker.start() as beside:
        pass

    assert (first, again, beside, asker.starts) == (0, 0, 1, 2)
