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
from headway._wire import Call
from headway.job import Job
from headway.keys import Keys
from headway.server import Server
from headway.store import Store
from tests.apps.cluster import PATIENT_MS, Cluster, Watched
from tests.keyspace import Keyspace

DEADLINE_S = 10.0
PARTITIONS = 4
REDIS: Final = shutil.which("redis-server") or shutil.which(
    Path(__file__).parents[1] / ".redis" / "redis-server"
)
"""The program; scripts/redis gets one."""
ON_BOTH_SERVERS: Final = {"test_gate", "test_store", "test_watch"}
ON_ALL_KINDS: Final = ON_BOTH_SERVERS | {
    "test_api",
    "test_doors",
    "test_fastapi",
    "test_group",
    "test_job",
    "test_limits",
    "test_overview",
    "test_process",
    "test_protocol",
    "test_report",
    "test_runner",
    "test_starlette",
    "test_stream",
    "test_task",
    "test_teardown",
    "test_telemetry",
    "test_wrap",
}

OTHER_DOORS: Final = {"asgi", "starlette", "fastapi", "wrap"}
"""All but Quart's."""

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
    """What meets a store runs once more on others.

    The tests of the store and the hub on the oldest Redis that is supported; and with `make
    test-all` whatever works on one server on a cluster, and on one that Sentinels watch over.
    """
    name = metafunc.module.__name__.rpartition(".")[2]
    if "url" not in metafunc.fixturenames or name not in ON_ALL_KINDS:
        return
    kinds: list[Any] = ["valkey"]
    kinds += [pytest.param("redis", marks=pytest.mark.once)] if name in ON_BOTH_SERVERS else []
    if metafunc.definition.get_closest_marker("one_server"):
        metafunc.parametrize("url", kinds, indirect=True)
        return
    for kind in ("cluster", "sentinel"):  # in one process each: their many servers are never idle
        marks = [pytest.mark.slow, pytest.mark.once, pytest.mark.xdist_group(kind)]
        kinds.append(pytest.param(kind, marks=marks))
    metafunc.parametrize("url", kinds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On clusters one door is enough: what a door does has nothing to do with the store."""
    left_out = {item for item in items if _is_other_door_on_a_cluster(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_other_door_on_a_cluster(item: pytest.Item) -> bool:
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    doors = {params.get("site"), params.get("shop")}
    return params.get("url") in {"cluster", "sentinel"} and not doors.isdisjoint(OTHER_DOORS)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where groups do not hold together: each process would make all anew."""
    for item in session.items if session.config.getoption("loadgroup", default=False) else ():
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError("pytest-xdist does not see the groups: take another pytest")


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


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three primaries with a replica each."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "nodes", timeout_ms=PATIENT_MS)
    yield cluster.url
    cluster.close()


@pytest.fixture(scope="session")
def sentinel_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A primary and its replica, and three Sentinels."""
    watched = Watched(tmp_path_factory.mktemp("watched") / "nodes", timeout_ms=PATIENT_MS)
    yield watched.url
    watched.close()


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
    """Where a real store is: the embedded Valkey, or another kind for tests that run on several."""
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
    """The connection of the store below, which has found its servers."""
    link = Link(url)
    link.open()
    await link.call(Call(None, ("PING",)))
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
