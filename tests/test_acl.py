"""The rights of Headway's user in the store: those of the docs are enough, and none is too much."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import redis

from headway import Headway, JobError, Progress
from headway.acts import SCRIPTS
from headway.errors import StoreError
from headway.job import Job
from headway.overview import Filter, Overview
from tests.conftest import Until

ROOT: Final = Path(__file__).parent.parent
pytestmark = pytest.mark.parametrize("url", ["valkey", "redis"], indirect=True)


def setuser() -> list[str]:
    """The command in the docs, word by word."""
    text = (ROOT / "docs" / "security.md").read_text()
    found = re.search(r"```\n(ACL SETUSER .*?)```", text, re.DOTALL)
    assert found is not None
    return found[1].split()


class Users:
    """Makes users of the server, as the docs say."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.admin = redis.Redis.from_url(url, decode_responses=True)
        self._made: list[str] = []

    def make(self, prefix: str) -> str:
        """A user for *prefix*; returns the URL for it."""
        name, password = f"u{secrets.token_hex(4)}", secrets.token_urlsafe()
        words = [
            word.replace("headway:", f"{prefix}:").replace("PASSWORD", password)
            for word in setuser()
        ]
        words[2] = name
        self.admin.execute_command(*words)  # type: ignore[no-untyped-call]
        self._made.append(name)
        return self._url.replace("unix://", f"unix://{name}:{password}@")

    def denied(self) -> set[str]:
        """What users were not allowed to do, but for the client's greeting."""
        log: Any = self.admin.acl_log()
        told = {str(one["object"]) for one in log if one["username"] in self._made}
        return told - {"client|setinfo", "info"}

    def close(self) -> None:
        for name in self._made:
            self.admin.acl_deluser(name)
        self.admin.close()


@pytest.fixture
def users(url: str) -> Iterator[Users]:
    """The users of this test."""
    users = Users(url)
    users.admin.acl_log_reset()
    yield users
    users.close()


@pytest.fixture
def open_as(users: Users, prefix: str) -> Callable[..., Headway]:
    """Makes a Headway that has the rights of the docs, and no others."""
    url = users.make(prefix)

    def make(**options: Any) -> Headway:
        given = {"identify": lambda scope: "ann", "operator": lambda scope: True, "drain_s": 0.0}
        return Headway(url, prefix=prefix, **{**given, **options})

    return make


async def ended(headway: Headway, job: Job) -> None:
    async for _ in headway.watch(job.id):
        pass


async def test_jobs_live_with_the_rights_in_the_docs(
    users: Users, open_as: Callable[..., Headway]
) -> None:
    """Keys, logs, checkpoints, jobs of jobs, retries, lists, sweeping: nothing is denied."""
    headway = open_as()
    broken = [True]

    @headway.task
    async def small() -> None: ...

    @headway.task(retries=1)
    async def work(progress: Progress, n: int) -> int:
        for at in progress.track(range(n), resume=True):
            progress.note("working")
            progress.log(f"item {at}")
            progress.checkpoint(at)
        async with headway.group(progress) as group:
            await group.start(small)
        return n

    @headway.task
    async def fail() -> None:
        if broken:
            raise JobError("not yet")

    async with headway:
        assert headway.hub.live
        done = await work.using(owner="ann", key="only").start(3)
        failed = await fail.using(owner="ann").start()
        await asyncio.gather(ended(headway, done), ended(headway, failed))
        broken.clear()
        again = await headway.retry(failed.id)
        await ended(headway, again)
        runtime = headway._open_runtime("test")
        overview = Overview(runtime.link, runtime.store.keys)

        assert await headway.result(done.id) == 3
        assert len(await headway.log(done.id)) == 3
        assert len(await headway.attempts(failed.id)) == 1
        listed = {job.id for job in await headway.list(owner="ann")}
        assert {done.id, failed.id, again.id} <= listed
        assert len((await overview.page(Filter())).jobs) == 4
        assert await headway.forget(done.id)
        await runtime.store.sweep(100)
    assert users.denied() == set()


async def test_the_surface_works_with_the_rights_in_the_docs(
    users: Users, open_as: Callable[..., Headway]
) -> None:
    """Limits, idempotency keys, batches, cancelling, forgetting and health: nothing is denied."""
    headway = open_as()

    @headway.task
    async def wait() -> None:
        await asyncio.Event().wait()

    async def site(scope: Any, receive: Any, send: Any) -> None:
        await (await headway.reply(await wait.start()))(scope, receive, send)

    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(headway.wrap(site)), base_url="http://site.test"
    )
    async with headway, client as http:
        starts = [await http.post("/", headers={"idempotency-key": '"1"'}) for _ in range(2)]
        job_id = starts[0].json()["id"]
        paths = ("", f"?id={job_id}", f"/{job_id}", f"/{job_id}/log", f"/{job_id}/attempts")
        seen = [await http.get(f"/jobs{path}") for path in (*paths, "/health")]
        cancelled = await http.post(f"/jobs/{job_id}/cancel")
        await ended(headway, await headway.get(job_id))
        forgotten = await http.delete(f"/jobs/{job_id}")

    assert starts[1].json()["id"] == job_id
    assert [reply.status_code for reply in seen] == [200] * 6
    assert (cancelled.status_code, forgotten.status_code) == (202, 204)
    assert users.denied() == set()


async def test_processes_work_together_with_the_rights_in_the_docs(
    users: Users, open_as: Callable[..., Headway], until: Until
) -> None:
    """Handing over, taking over and revoking between two processes: nothing is denied."""
    one, two = open_as(), open_as()

    async def wait(progress: Progress) -> None:
        progress.set(done=1, total=2)
        await asyncio.Event().wait()

    start = one.task(on_lost="retry")(wait).using(owner="ann").start
    two.task(on_lost="retry")(wait)
    async with two:
        async with one:
            job = await start()
            await until(lambda: one._open_runtime("test").runner.running, "it runs")
            await one.revoke("ann")
            await until(lambda: two.streams.revocations, "the other process has heard it")
        await until(lambda: two._open_runtime("test").runner.running, "the other one runs it")
        await two.cancel(job.id)
        await ended(two, job)
    assert users.denied() == set()


def test_the_rights_in_the_docs_are_needed(url: str) -> None:
    """Each command stands in a script or in Python, and each of these is among the rights."""
    source = ROOT / "src" / "headway"
    python = "".join(path.read_text() for path in source.glob("*.py"))
    used = {
        word
        for script in SCRIPTS.values()
        for word in re.findall(r"redis\.call\(\s*'(\w+)'", script.text)
    }
    used |= set(re.findall(r"Call\(\s*None,\s*\(\s*\"([A-Z]+)\"", python))
    used |= {"EVALSHA", "SCRIPT|LOAD", "SSUBSCRIBE", "SUNSUBSCRIBE", "PING"}
    allowed = {word[1:].upper() for word in setuser() if word.startswith("+")}

    assert used - {"INFO"} == allowed, "this one may be refused"


async def test_another_user_reaches_nothing(users: Users, prefix: str, until: Until) -> None:
    """With rights for another prefix: no read, no write, no listening, no script; nor a Headway."""
    mine, theirs = users.make(prefix), users.make(f"{prefix}x")
    headway = Headway(mine, prefix=prefix, identify=lambda scope: "ann", drain_s=0)

    @headway.task
    async def wait(progress: Progress) -> None:
        progress.set(done=1, total=2)
        await asyncio.Event().wait()

    async with headway:
        job = await wait.using(owner="ann").start()
        async for seen in headway.watch(job.id):
            if seen.progress.done:
                break
        keys = headway._open_runtime("test").store.keys
        record, leases = keys.record(job.id), keys.leases(job.id[:2])
        with redis.Redis.from_url(theirs) as other:
            for command in (
                ["HGETALL", record],
                ["HSET", record, "state", "failed"],
                ["DEL", record],
                ["LRANGE", keys.log(job.id), 0, -1],
                ["ZRANGE", leases, 0, -1],
                ["ZREVRANGE", keys.owner("ann"), 0, -1],
                ["SPUBLISH", leases, f'{{"cancel": "{job.id}"}}'],
                ["SSUBSCRIBE", record],
                ["SUBSCRIBE", record],
                ["PSUBSCRIBE", "*"],
                ["KEYS", "*"],
                ["SCAN", 0],
                ["PUBSUB", "SHARDCHANNELS"],
                ["MONITOR"],
                ["CONFIG", "GET", "*"],
                ["ACL", "LIST"],
                ["EVAL", "return redis.call('HGETALL', KEYS[1])", 1, record],
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    other.execute_command(*command)
            hidden = other.script_load("return redis.call('HGETALL', ARGV[1])")
            with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|access"):
                other.evalsha(hidden, 0, record)
        with pytest.raises(StoreError):
            async with Headway(theirs, prefix=prefix, identify=lambda scope: "ann") as intruder:
                await intruder.get(job.id)

        assert (await headway.get(job.id)).state == "running"
        assert not (await headway.get(job.id)).cancel_requested
