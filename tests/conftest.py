"""What all tests share: real servers, a prefix of its own for each test, and guards."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from hypothesis import HealthCheck, settings

from headway import Headway
from headway._link import Link
from headway.job import Job, State
from headway.keys import Keys
from headway.server import Server
from headway.store import Store

DEADLINE_S = 10.0
PARTITIONS = 4
REDIS: Final = shutil.which("redis-server") or shutil.which(
    Path(__file__).parents[1] / ".redis" / "redis-server"
)
"""The program; scripts/redis gets one."""
ON_BOTH_SERVERS = {"test_gate", "test_store", "test_watch"}

Until = Callable[..., Awaitable[Any]]
"""`value = await until(condition, what)`: see the fixture `until`."""
MakeHeadway = Callable[..., Headway]
"""`async with make_headway(**options) as headway:`: see the fixture `make_headway`."""

settings.register_profile(
    "headway",
    deadline=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("headway")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of the store and the hub run once more on the oldest Redis that is supported."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if name in ON_BOTH_SERVERS and "url" in metafunc.fixturenames:
        metafunc.parametrize("url", ["valkey", "redis"], indirect=True)


# ── servers ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded server, one for all tests of this process."""
    with Server(tmp_path_factory.mktemp("state")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis, if this machine has one."""
    if REDIS is None:
        pytest.skip("there is no redis-server on this machine")
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        path = Path(folder, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen([REDIS, *options], stdout=log, start_new_session=True)
        try:
            _await_answer(f"unix://{path}")
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def _await_answer(url: str) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    with redis.Redis.from_url(url, retry=None) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                assert time.monotonic() < give_up_at, f"{url} does not answer"
                time.sleep(0.005)
            else:
                return


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Where a real store is: the embedded Valkey, or Redis for the tests that run on both."""
    kind = getattr(request, "param", "valkey")
    return str(request.getfixturevalue(f"{kind}_url"))


class OwnServer:
    """A server of one test, which may stop it, start it again over the same data, or spoil it."""

    def __init__(self, folder: Path) -> None:
        self._server = Server(folder)
        self.url = self._server.open()

    def stop(self) -> None:
        self._server.close()

    def start(self) -> None:
        assert self._server.open() == self.url

    def say(self, *command: str) -> Any:
        with redis.Redis.from_url(self.url, decode_responses=True, retry=None) as client:
            return client.execute_command(*command)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    """A real server that no other test uses."""
    server = OwnServer(tmp_path / "own")
    yield server
    server.stop()


# ── what a test works with ────────────────────────────────────────────────────────────────────


class Keyspace:
    """All that stands in the store under one prefix, and the rules that it has to keep."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.client = redis.Redis.from_url(url, decode_responses=True)

    def names(self) -> list[str]:
        return sorted(self.client.scan_iter(match=f"{self.prefix}:*", count=1000))

    def clear(self) -> None:
        if names := self.names():
            self.client.delete(*names)

    def check(self) -> None:
        """Assert the rules at the top of store.lua: nothing is left that nobody removes."""
        names = self.names()
        with self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.pttl(name)
            expiring = {n: ttl > 0 for n, ttl in zip(names, pipeline.execute(), strict=True)}
        records = [n for n in names if ":job:" in n]
        states = self._states(records)
        for name in names:
            self._check_one(name, states, expires=expiring[name])
        live = {i for i, state in states.items() if not state.terminal}
        self._check_kids(names, live, self._fields(records, "parent"))
        leased = {m for n in names if n.endswith(":leases") for m in self._members(n)}
        ended = {m for n in names if n.endswith(":ends") for m in self._members(n)}
        assert leased == live, "the leases hold exactly the live jobs"
        assert ended == states.keys() - live, "the ends hold exactly the ended jobs"

    def _states(self, records: list[str]) -> dict[str, State]:
        return {i: State(state) for i, state in self._fields(records, "state").items()}

    def _fields(self, records: list[str], name: str) -> dict[str, str]:
        with self.client.pipeline(transaction=False) as pipeline:
            for record in records:
                pipeline.hget(record, name)
            found = pipeline.execute()
        return {r.rpartition(":")[2]: v for r, v in zip(records, found, strict=True) if v}

    def _check_kids(self, names: list[str], live: set[str], parents: dict[str, str]) -> None:
        kids = {n.rpartition(":")[2]: self.client.smembers(n) for n in names if ":kids:" in n}
        expected: dict[str, set[str]] = {}
        for kid, parent in parents.items():
            if {kid, parent} <= live:
                expected.setdefault(parent, set()).add(kid)
        assert kids == expected, "live jobs know exactly the live jobs that they have started"

    def _members(self, name: str) -> list[str]:
        return [str(member) for member in self.client.zrange(name, 0, -1)]

    def _check_one(self, name: str, states: dict[str, State], *, expires: bool) -> None:
        kind, last = name.removeprefix(f"{self.prefix}:").split(":")[-2:]
        if kind in {"owner", "active", "pace", "once"}:
            assert expires, f"{name} lives for ever"
        elif kind == "key":
            target = str(self.client.get(name))
            assert target in states, f"{name} points to {target}, which does not exist"
            assert not states[target].terminal, f"{name} points to a job that has ended"
        elif kind in {"job", "log", "tries", "kids"}:
            assert last in states, f"{name} belongs to no job"
            assert expires == states[last].terminal, f"{name}: expires={expires}"
        else:
            assert last in {"leases", "ends"}, f"{name} is not in the data model"


@pytest.fixture
def keyspace(url: str) -> Iterator[Keyspace]:
    """What this test writes; looked over, and removed, when the test is over."""
    keyspace = Keyspace(url, f"t{secrets.token_hex(6)}")
    yield keyspace
    try:
        keyspace.check()
    finally:
        keyspace.clear()
        keyspace.client.close()


@pytest.fixture
def prefix(keyspace: Keyspace) -> str:
    """Begins every key of this test, and of no other one."""
    return keyspace.prefix


@pytest.fixture
async def link(url: str) -> AsyncIterator[Link]:
    """The connection of the store below."""
    link = Link(url)
    link.open()
    yield link
    await link.aclose()


@pytest.fixture
def keys(prefix: str) -> Keys:
    """The names of what this test keeps."""
    return Keys(prefix, PARTITIONS)


@pytest.fixture
def store(link: Link, keys: Keys) -> Store:
    """The store as the worker "first" has it."""
    return Store(link, keys, "first", keep_s=60)


@pytest.fixture
def make_headway(url: str, prefix: str) -> MakeHeadway:
    """Makes a Headway on the store of this test; open it with `async with`."""

    def make(kind: type[Headway] = Headway, **options: Any) -> Headway:
        options.setdefault("drain_s", 0.1)
        if "identify" not in options:
            options.setdefault("secret", "the secret of a test")
        return kind(**{"url": url, "prefix": prefix, **options})

    return make


async def end_of(headway: Headway, job: Job) -> Job:
    """The job as it ended, after all that its end brings about in this process."""
    async for now in headway.watch(job.id):
        job = now
    runner = headway._open_runtime("test").runner
    while job.id in runner.running:
        await asyncio.sleep(0.001)
    return job


@pytest.fixture
def until() -> Until:
    """`await until(condition, what)` waits until *condition()* is true, and returns its value.

    The condition may be async. *what* says in the failure what was waited for in vain.
    """

    async def until(
        condition: Callable[[], Any], what: str, *, within_s: float = DEADLINE_S
    ) -> Any:
        give_up_at = time.monotonic() + within_s
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            assert time.monotonic() < give_up_at, f"waited in vain until {what}"
            await asyncio.sleep(0.003)

    return until


# ── guards ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def nothing_runs_on(request: pytest.FixtureRequest) -> None:
    """After each asynchronous test no asyncio task may be left; it looks after all fixtures."""
    function = getattr(request, "function", None)
    if inspect.iscoroutinefunction(function):
        request.getfixturevalue("no_task_is_left")


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    """Fails the test that leaves an asyncio task behind."""
    before = asyncio.all_tasks()
    yield
    # What was asked to end in the last moment may do so.
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks are left: {sorted(str(t.get_coro()) for t in left)}"
