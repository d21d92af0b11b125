"""What goes wrong with a store, done to a real one: each trouble has its error, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from headway import Headway
from headway._address import url_of
from headway._line import PIPELINE_CALLS
from headway._link import Link
from headway._wire import Call
from headway.acts import ThreadStore
from headway.errors import (
    BadInput,
    NotOpen,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from headway.job import Job, State, new_id
from headway.keys import Keys
from headway.store import Settled, Store
from tests.conftest import PARTITIONS, OwnServer

PING = Call(None, ("PING",))
RECORD = {
    "task": "work", "title": "Work", "owner": "me", "args": "[[],{}]", "options": "{}",
    "on_lost": "fail", "max_attempts": "1",
}  # fmt: skip
KEYS = Keys("own", PARTITIONS)


@pytest.fixture
async def own_link(own_server: OwnServer) -> AsyncIterator[Link]:
    """A connection to the server of this test."""
    link = Link(own_server.url)
    link.open()
    yield link
    await link.aclose()


@pytest.fixture
def own_store(own_link: Link) -> Store:
    """A store on the server of this test."""
    return Store(own_link, KEYS, "worker", keep_s=60)


@pytest.fixture
def thread_store(own_server: OwnServer) -> Iterator[ThreadStore]:
    """The beat thread's store on the server of this test."""
    store = ThreadStore(own_server.url, KEYS, "worker")
    yield store
    store.close()


async def create(store: Store) -> Job:
    return await store.create(new_id(PARTITIONS), RECORD, 60)


# ── addresses ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("rediss://u:p@host/2", "rediss://u:p@host/2"),
        ("valkey://localhost", "redis://localhost"),
        ("valkeys://localhost", "rediss://localhost"),
        ("unix:///tmp/a%20b.sock", "unix:///tmp/a%20b.sock"),
    ],
)
def test_addresses_that_are_known(url: str, becomes: str) -> None:
    """Both names of the same protocol are taken."""
    assert url_of(url) == becomes


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://localhost", "redis", "unix", "://", "redis://localhost:port",
     "redis://localhost:99999", "redis://[::1", "redis://localhost?db=x"],
)  # fmt: skip
def test_bad_address_is_refused(url: str) -> None:
    """An address that cannot be served is refused when it is given, with an example."""
    with pytest.raises(BadInput, match=r"store URL .*for example redis://localhost:6379"):
        Headway(url, secret="s")


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@host", "redis://me:s3cret@[::1", "redis://:s3cret@host:port"]
)
def test_bad_address_keeps_the_password(url: str) -> None:
    """The message about a bad address does not tell its password."""
    with pytest.raises(BadInput) as caught:
        Headway(url, secret="s")

    assert "s3cret" not in str(caught.value)


# ── a store that is not there ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "secret", ["me:s3cret@127.0.0.1:1", ":s3cret@127.0.0.1:1/2", "127.0.0.1:1?password=s3cret"]
)
async def test_store_that_is_down_at_the_start(secret: str) -> None:
    """Opening tells where the store was looked for and what to check, but no password."""
    headway = Headway(f"redis://{secret}", secret="s")

    with pytest.raises(StoreUnavailable) as caught:
        await headway.__aenter__()

    words = str(caught.value)
    assert "127.0.0.1:1" in words
    assert "HEADWAY_URL" in words
    assert "s3cret" not in words


async def test_headway_that_could_not_open_opens_later(own_server: OwnServer) -> None:
    """After a failed opening the same Headway opens, as soon as the store is there."""
    headway = Headway(own_server.url, secret="s")
    own_server.stop()

    with pytest.raises(StoreUnavailable):
        await headway.__aenter__()
    own_server.start()

    async with headway:
        assert await headway.list(owner="me") == []


async def test_store_that_goes_and_comes_back(own_server: OwnServer, own_store: Store) -> None:
    """While the store is away calls say so; when it is back they work, and no job is missing."""
    job = await create(own_store)
    own_server.stop()

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await own_store.get(job.id)
    assert own_store.contact_at is None
    own_server.start()

    assert await own_store.get(job.id) == job
    assert own_store.contact_at is not None


async def test_store_that_can_be_revived(own_server: OwnServer) -> None:
    """Where the store is our own, a call that finds it gone brings it back."""
    link = Link(own_server.url, revive=own_server.start)
    link.open()
    own_server.stop()

    assert await link.call(PING) is True
    await link.aclose()


async def test_store_that_wants_a_password(own_server: OwnServer) -> None:
    """A refused login is told as such: waiting would not help."""
    own_server.say("ACL", "SETUSER", "locked", "on", ">right", "+@all")
    link = Link(own_server.url.replace("unix://", "unix://locked:wr0ng@"))
    link.open()

    with pytest.raises(StoreError, match=r"refused the login .*HEADWAY_URL") as caught:
        await link.call(PING)

    assert not isinstance(caught.value, StoreUnavailable)
    assert "wr0ng" not in str(caught.value)
    await link.aclose()


# ── a store that refuses ──────────────────────────────────────────────────────────────────────


def everything(store: Store, running: Job, waiting: Job) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: create(store),
        lambda: store.claim(waiting.id, 60),
        lambda: store.release(waiting.id, 0, delay_s=1),
        lambda: store.cancel(waiting.id),
        lambda: store.finish(running, Settled(State.SUCCEEDED, "{}")),
    ]


@pytest.mark.parametrize(
    ("spoil", "mend", "error", "cure"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", StoreFull, "maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", StoreReadOnly, "HEADWAY_URL at the primary"),
    ],
    ids=["full", "replica"],
)
async def test_store_that_refuses_to_write(
    own_server: OwnServer,
    own_store: Store,
    spoil: str,
    mend: str,
    error: type[StoreError],
    cure: str,
) -> None:
    """Each act says why it was refused and what helps; nothing is half done, reading goes on."""
    running, waiting = await create(own_store), await create(own_store)
    claim = await own_store.claim(running.id, 60)
    assert claim is not None
    own_server.say(*spoil.split())

    for act in everything(own_store, claim.job, waiting):
        with pytest.raises(error, match=cure):
            await act()

    assert await own_store.get_all([running.id, waiting.id]) == {
        running.id: claim.job,
        waiting.id: waiting,
    }
    own_server.say(*mend.split())
    for act in everything(own_store, claim.job, waiting):
        await act()


async def test_beats_that_are_refused(own_server: OwnServer, thread_store: ThreadStore) -> None:
    """The beat thread gets a refusal as the answer of the call, and goes on."""
    own_server.say("CONFIG", "SET", "maxmemory", "1")
    calls = [thread_store.hold_calls([new_id(PARTITIONS)], 60)[0], PING]

    refused, answered = thread_store.send(calls)

    assert isinstance(refused, StoreFull)
    assert answered is True
    own_server.say("CONFIG", "SET", "maxmemory", "0")


async def test_beats_of_a_store_that_is_away(
    own_server: OwnServer, thread_store: ThreadStore
) -> None:
    """The beat thread is told that nothing was answered, and goes on when the store is back."""
    calls = thread_store.hold_calls([new_id(PARTITIONS)], 60)
    own_server.stop()

    with pytest.raises(StoreUnavailable, match="does not answer"):
        thread_store.send(calls)
    own_server.start()

    assert thread_store.send(calls) == ["ok"]


# ── a store that forgets, or cuts ─────────────────────────────────────────────────────────────


async def test_scripts_that_were_flushed(
    own_server: OwnServer, own_store: Store, thread_store: ThreadStore
) -> None:
    """A server that has forgotten the scripts is taught them again, and nobody notices."""
    job = await create(own_store)

    own_server.say("SCRIPT", "FLUSH")
    claims = await asyncio.gather(*(own_store.claim(job.id, 60) for _ in range(5)))
    own_server.say("SCRIPT", "FLUSH")

    assert {claim.job.attempt for claim in claims if claim} == {1}
    assert thread_store.send([thread_store.beat_call(job.id, 1, 60), PING]) == ["ok", True]


async def test_connections_that_were_cut(own_server: OwnServer, own_store: Store) -> None:
    """A connection that was cut is made anew, and nobody notices."""
    job = await create(own_store)

    for _ in range(3):
        own_server.say("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        assert await own_store.get(job.id) == job


# ── one connection for all ────────────────────────────────────────────────────────────────────


async def test_answers_come_to_who_asked(link: Link) -> None:
    """However many ask at once, each gets his own answer."""
    many = 3 * PIPELINE_CALLS + 1

    answers = await asyncio.gather(*(link.call(Call(None, ("ECHO", str(n)))) for n in range(many)))

    assert answers == [str(n) for n in range(many)]


async def test_many_calls_share_a_connection(link: Link) -> None:
    """What is asked at once goes over one connection."""
    calls = [Call(None, ("CLIENT", "ID"))] * 50

    assert len(set(await link.call_all(calls))) == 1


async def test_error_of_one_call_is_its_own(link: Link) -> None:
    """A call that the store refuses does not spoil those beside it."""
    wrong = Call(None, ("NOSUCHCOMMAND",))

    good = asyncio.create_task(link.call(PING))
    with pytest.raises(StoreError, match="unknown command"):
        await link.call(wrong)
    with pytest.raises(StoreError, match="unknown command"):
        await link.call_all([PING, wrong, PING])

    assert await good is True


async def test_caller_who_is_cancelled_disturbs_nobody(link: Link) -> None:
    """Who gives up waiting leaves the connection in order for the others."""
    for _ in range(20):
        caller = asyncio.create_task(link.call(Call(None, ("ECHO", "mine"))))
        other = asyncio.create_task(link.call(Call(None, ("ECHO", "other"))))
        await asyncio.sleep(0)
        caller.cancel()

        assert await other == "other"
        with pytest.raises(asyncio.CancelledError):
            await caller


async def test_closing_serves_what_was_asked(url: str) -> None:
    """What was asked before the closing is answered; after it, nothing is."""
    link = Link(url)
    link.open()
    asked = [asyncio.create_task(link.call(PING)) for _ in range(10)]
    await asyncio.sleep(0)

    await link.aclose()

    assert await asyncio.gather(*asked) == [True] * 10
    with pytest.raises(NotOpen, match="cannot reach the store"):
        await link.call(PING)


async def test_link_that_was_never_opened(url: str) -> None:
    """Before the opening nothing is asked, and closing is no error."""
    link = Link(url)

    with pytest.raises(NotOpen):
        await link.call(PING)

    await link.aclose()
