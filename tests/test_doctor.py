"""The doctor: what it says of each fault between an app and browsers, and of the setup here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import Headway
from headway.checkup import checkup
from headway.diagnosis import Beat, Finding, Heard, judge
from headway.doctor import Doctor
from headway.stream import PROBES
from tests.apps.process import free_port
from tests.apps.served import served
from tests.browser.proxy import holding_back
from tests.conftest import DEADLINE_S, MakeHeadway, OwnServer, Until
from tests.test_api import Site, open_site
from tests.test_nginx import BINARY, CONFIG, GZIP

pytestmark = pytest.mark.once

SHORT: Final = {"seconds": 1.0, "every_s": 0.1}
FAR: Final = "http://127.0.0.1"


async def found(base: str, **options: Any) -> list[Finding]:
    """What the doctor finds."""
    doctor = Doctor(base, **{**SHORT, **options})
    findings = [finding async for finding in doctor.findings()]
    print("\n".join(map(str, findings)))
    return findings


def wrong(findings: list[Finding]) -> list[str]:
    """What is wrong, in the first word that tells it."""
    return [f"{one.what}: {one.said.partition(' ')[0]}" for one in findings if one.level == "wrong"]


def of(findings: list[Finding], what: str) -> Finding:
    """The first finding of a kind."""
    return next(one for one in findings if one.what == what)


@pytest.fixture
async def headway(make_headway: MakeHeadway) -> AsyncIterator[Headway]:
    """An open one."""
    async with make_headway(identify=lambda _: None) as headway:
        yield headway


@pytest.fixture
async def app(headway: Headway) -> AsyncIterator[str]:
    """Where its surface is, with nothing before it."""
    async with served(headway.wrap(_page)) as port:
        yield f"{FAR}:{port}/jobs"


async def _page(scope: Any, receive: Any, send: Any) -> None:
    """An app with a route for everything."""
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<h1>Welcome</h1>"})


# ── a stream that was heard ───────────────────────────────────────────────────────────────────


def heard(ways: list[float], *, end: Any = "end", ended_at: float | None = None) -> Heard:
    """Ten beats a second from 0 on, each so long under way; the clocks are a year apart."""
    beats = [Beat(3e7 + n / 10, n / 10 + way) for n, way in enumerate(ways)]
    last = beats[-1].came_at if beats else 0.0
    return Heard(
        0.0, beats, {"cache-control": "no-store"}, end, last if ended_at is None else ended_at
    )


@given(st.lists(st.floats(0, 0.04), min_size=1, max_size=50))
def test_a_healthy_stream_is_well(ways: list[float]) -> None:
    """Whatever the clocks say, and however the way trembles."""
    (finding,) = judge(heard(ways), seconds=1, every_s=0.1, answer_s=0.1)

    assert finding.level == "ok"


@given(st.integers(4, 50), st.floats(0, 0.02))
def test_what_comes_all_at_once_was_buffered(n: int, tremble: float) -> None:
    """Each was under way until the last was sent."""
    ways = [(n - 1 - i) / 10 + tremble * (i % 2) for i in range(n)]

    (finding,) = judge(heard(ways), seconds=n / 10, every_s=0.1, answer_s=0.1)

    assert (finding.level, finding.said.partition(":")[0]) == ("wrong", "Buffered")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (heard([]), "Buffered: nothing of it came"),
        (heard([0.4, 0.3, 0.2, 0.1, 0.0] * 4), "Held back: heartbeats came in bursts"),
        (heard([2.0] * 10), "Delayed: the first heartbeat came after 2.0 s"),
        (heard([0.0], end="cut", ended_at=4.0), "the last 4.0 s were silent"),
        (heard([0.0] * 10, end="cut", ended_at=0.95), "Cut after 0.9 s of 9, although"),
        (heard([0.0] * 10, end="bye"), "about to stop"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_each_fault_has_its_words(told: Heard, words: str) -> None:
    """So that what helps can be told."""
    findings = judge(told, seconds=9, every_s=0.1, answer_s=0.1)

    assert any(words in finding.said for finding in findings)


# ── through an address ────────────────────────────────────────────────────────────────────────


async def test_nothing_is_wrong_without_anything_between(app: str) -> None:
    """An app that is asked itself is well, in all that is looked at."""
    findings = await found(app)

    assert wrong(findings) == []
    levels = {finding.what: finding.level for finding in findings if finding.what != "reached"}
    assert levels == dict.fromkeys(("health", "buttons", "script", "stream", "leaving"), "ok")


@contextmanager
def nginx(folder: Path, upstream: str, more: str) -> Iterator[str]:
    """An nginx with *more* set before the app; gives the address of the mount."""
    port = free_port()
    there = httpx.URL(upstream).port
    text = CONFIG.format(folder=folder, port=port, upstream=there, more=more)
    (folder / "conf").write_text(f"master_process off;\n{text}")
    command = [str(BINARY), "-p", str(folder), "-c", str(folder / "conf"), "-e", "stderr"]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(process.wait, DEADLINE_S)
        stack.callback(process.terminate)
        yield f"{FAR}:{port}/jobs"


async def through(until: Until, folder: Path, app: str, more: str, **options: Any) -> list[Finding]:
    """What the doctor finds through such an nginx."""
    with nginx(folder, app, more) as base:
        async with httpx.AsyncClient() as http:
            await until(lambda: _listens(http, base), "nginx answers")
        return await found(base, **options)


async def _listens(http: httpx.AsyncClient, base: str) -> bool:
    try:
        await http.get(f"{base}/health")
    except httpx.TransportError:
        return False
    return True


NAMED: Final = "proxy_set_header Host $http_host; proxy_http_version 1.0;"
needs_nginx = pytest.mark.skipif(BINARY is None, reason="no nginx is here; scripts/nginx gets one")


@needs_nginx
async def test_a_good_nginx_is_well(until: Until, tmp_path: Path, app: str) -> None:
    """Buffering is on, as it comes; our header keeps streams out of it."""
    findings = await through(until, tmp_path, app, NAMED)

    assert wrong(findings) == []
    assert of(findings, "stream").level == of(findings, "leaving").level == "ok"


@needs_nginx
async def test_buffering_is_found(until: Until, tmp_path: Path, app: str) -> None:
    """Told to ignore our header, nginx holds all back to the end."""
    findings = await through(
        until, tmp_path, app, f"{NAMED} proxy_ignore_headers X-Accel-Buffering;"
    )

    assert wrong(findings) == ["stream: Buffered:"]
    assert "proxy_buffering off" in of(findings, "stream").cure


@needs_nginx
async def test_compression_is_found(until: Until, tmp_path: Path, app: str) -> None:
    """It is told, and that nothing is held back by it."""
    findings = await through(until, tmp_path, app, NAMED + GZIP)

    assert wrong(findings) == []
    assert "gzip" in of(findings, "headers").said
    assert of(findings, "stream").level == "ok"


@needs_nginx
async def test_cut_in_silence_is_found(until: Until, tmp_path: Path, app: str) -> None:
    """An nginx that waits for less than the time between two heartbeats."""
    findings = await through(
        until, tmp_path, app, f"{NAMED} proxy_read_timeout 1s;", seconds=5, every_s=4
    )

    assert wrong(findings) == ["stream: Cut"]
    assert any("were silent" in finding.said for finding in findings)
    assert any("proxy_read_timeout" in finding.cure for finding in findings)


@needs_nginx
async def test_changed_host_is_found(until: Until, tmp_path: Path, app: str) -> None:
    """Without a word of ours nginx tells the app another name than browsers use."""
    finding = of(await through(until, tmp_path, app, ""), "buttons")

    assert finding.level == "note", "here, browsers tell by themselves"
    assert "proxy_set_header Host" in finding.cure


@needs_nginx
async def test_dead_app_is_found(until: Until, tmp_path: Path) -> None:
    """A proxy that answers, and nothing behind it."""
    nobody = f"{FAR}:{free_port()}/jobs"
    findings = await through(until, tmp_path, nobody, "")

    assert wrong(findings) == ["health: A"]
    assert "A proxy answers (502)" in findings[-1].said


Pass = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def proxied(app: str, back: Pass) -> AsyncIterator[str]:
    """A proxy that passes requests on, and what comes of them as *back* does."""
    tasks: set[asyncio.Task[Any]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection("127.0.0.1", httpx.URL(app).port)
        writers.extend((writer, theirs[1]))
        for one in (_plainly(reader, theirs[1]), back(theirs[0], writer)):
            tasks.add(asyncio.create_task(one))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield f"{FAR}:{server.sockets[0].getsockname()[1]}/jobs"
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.close()
        await asyncio.gather(
            *tasks, *(writer.wait_closed() for writer in writers), return_exceptions=True
        )


async def _plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def test_delay_is_found(app: str) -> None:
    """Each event comes, one by one, but later than other answers do."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65_536):
            if b"event: hb" in data or b"event-stream" in data or b"retry" in data:
                loop.call_later(1.2, writer.write, data)
            else:
                writer.write(data)

    async with proxied(app, late) as base:
        findings = await found(base)

    assert wrong(findings) == ["stream: Delayed:"]


async def test_bursts_are_found(app: str) -> None:
    """What collects for a while, and then passes on."""

    async def clumps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        while data := await reader.read(65_536):
            held += data
            if b"event: hb" not in held or held.count(b"event: hb") >= 4 or b"event: end" in held:
                writer.write(held)
                held = b""

    async with proxied(app, clumps) as base:
        findings = await found(base)

    assert wrong(findings) == ["stream: Held"]


async def test_cut_for_its_age_is_found(app: str) -> None:
    """What ends requests after a time, however much comes."""

    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beats = 0
        while data := await reader.read(65_536):
            writer.write(data)
            beats += data.count(b"event: hb")
            if beats > 5:
                break
        writer.close()

    async with proxied(app, impatient) as base:
        findings = await found(base)

    assert wrong(findings) == ["stream: Cut"]
    assert any("although it was not silent" in finding.said for finding in findings)


async def test_stream_that_never_comes_is_found(app: str) -> None:
    """What keeps even the headers of a stream."""
    async with holding_back(app.removesuffix("/jobs")) as proxy:
        findings = await found(f"{proxy.url}/jobs", grace_s=0.2)

    assert wrong(findings) == ["stream: Buffered:"]


@asynccontextmanager
async def answering(status: int, body: bytes, **headers: str) -> AsyncIterator[str]:
    """A server that answers everything so."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async with served(app) as port:
        yield f"{FAR}:{port}/jobs"


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, {"content_type": "text/html"}, "A page answers in the place of Headway"),
        (302, {"location": "/login?next=/jobs"}, "A login stands before it: /login"),
        (401, {}, "A login stands before it: status 401"),
        (504, {"content_type": "text/html"}, "A proxy answers (504)"),
        (404, {}, "No Headway is here: status 404"),
    ],
)
async def test_what_stands_before_it_is_told(
    status: int, headers: dict[str, str], words: str
) -> None:
    """Whatever answers in the place of Headway is called by its name, and nothing more is asked."""
    async with answering(status, b"<p>no</p>", **headers) as base:
        findings = await found(base)

    (finding,) = findings
    assert finding.level == "wrong"
    assert words in finding.said
    assert finding.cure


async def test_wrong_mounts_are_told(app: str) -> None:
    """Too deep, or beside it: then it is told where it is."""
    deep = await found(f"{app}/00{'a' * 26}")
    root = await found(app.removesuffix("/jobs"))

    assert "not mounted here" in deep[-1].said
    assert wrong(root) == ["health: A"], "the route for everything answers there"


async def test_what_cannot_be_reached_is_told(app: str) -> None:
    """In words, from the bottom of what was raised."""
    for base, words in (
        (f"{FAR}:{free_port()}/jobs", "Nothing listens at 127.0.0.1:"),
        ("http://no-such-host.invalid/jobs", "There is no host of the name no-such-host.invalid"),
        (app.replace("http:", "https:"), "speaks no TLS"),
    ):
        (finding,) = await found(base)
        assert (finding.level, finding.what) == ("wrong", "reached")
        assert words in finding.said


async def test_the_command_says_all_of_it(app: str) -> None:
    """A finding a line, and whether something is wrong as its exit code."""
    command = str(Path(sys.executable).parent / "headway")

    async def typed(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            command, "doctor", *words, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        return process.returncode or 0, out.decode()

    good, told = await typed(app, "--seconds", "0.3", "--every", "0.1", "--json")
    bad, plain = await typed(f"{app}/x")

    assert (good, bad) == (0, 1)
    findings = [json.loads(line) for line in told.splitlines()]
    assert {one["what"] for one in findings} >= {"reached", "health", "stream"}
    assert plain.startswith("wrong")
    assert "→ Give the address where Headway is mounted" in plain


# ── the probe ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def site(make_headway: MakeHeadway) -> AsyncIterator[Site]:
    """A site without a proxy; each answer is held against the OpenAPI document."""
    async with open_site("asgi", make_headway) as site:
        yield site


async def test_probe_beats_and_ends(site: Site) -> None:
    """With the headers of other streams, for anybody."""
    reply = await site.get("/probe?seconds=2.5&every=1", x_user="")

    names = [line for line in reply.text.splitlines() if line.startswith("event: ")]
    assert names == ["event: hb"] * 3 + ["event: end"]
    job = await site.wait.using(owner="ann").start()
    other = await site.http.head(f"/jobs/{job.id}/events")
    assert reply.headers == other.headers
    site.go.set()


@pytest.mark.parametrize(
    "query",
    ["seconds=0", "seconds=1e9", "seconds=301", "seconds=nan", "every=", "every=0.01", "every=x",
     "every=1&every=2", "seconds=-1", "seconds=%D9%A1"],
)  # fmt: skip
async def test_probe_refuses_other_paces(site: Site, query: str) -> None:
    """Numbers that are too small, too large or none would be work for the server."""
    reply = await site.get(f"/probe?{query}")

    assert (reply.status_code, reply.json()["code"]) == (400, "bad_query")


async def test_probe_is_not_for_other_sites(site: Site) -> None:
    """As any other stream."""
    reply = await site.get("/probe", sec_fetch_site="cross-site")

    assert (reply.status_code, reply.json()["code"]) == (403, "cross_origin")


async def test_few_probes_are_open_at_a_time(site: Site, until: Until) -> None:
    """Anybody may open one, so there are few, and they end when the server is about to stop."""
    streams = site.headway.streams
    probes = [asyncio.create_task(site.get("/probe?seconds=300&every=60")) for _ in range(PROBES)]
    await until(lambda: len(streams) == PROBES, "all are open")

    more = await site.get("/probe")
    streams.drain()
    ended = await asyncio.gather(*probes)

    assert (more.status_code, more.json()["code"]) == (503, "streams_full")
    assert all('{"reason":"drain"}' in reply.text for reply in ended)
    assert len(streams) == 0


# ── this machine ──────────────────────────────────────────────────────────────────────────────


async def looked(url: str | None, state_dir: Path | None = None) -> list[Finding]:
    return [finding async for finding in checkup(url, "headway", state_dir)]


async def test_setup_without_a_store_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was started yet, nothing is left behind; afterwards it is the app's own."""
    monkeypatch.delenv("HEADWAY_SECRET", raising=False)
    folder = tmp_path / "state"

    before = await looked(None, folder)
    made = folder.exists()
    folder.mkdir()
    after = await looked(None, folder)

    for findings in (before, after):
        assert wrong(findings) == []
        assert {finding.what for finding in findings} == {
            "here", "secret", "folder", "store", "memory", "disk",
        }  # fmt: skip
        assert of(findings, "store").said.startswith("Embedded Valkey ")
    assert not made


async def test_store_that_forgets_is_found(
    own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that evicts keys; one without a file; a replica; and a secret that everybody knows."""
    monkeypatch.setenv("HEADWAY_SECRET", "changeme")
    own_server.say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own_server.say("CONFIG", "SET", "appendonly", "no")

    findings = await looked(own_server.url)
    own_server.say("REPLICAOF", "127.0.0.1", str(free_port()))
    replica = await looked(own_server.url)
    own_server.say("REPLICAOF", "NO", "ONE")

    assert wrong(findings) == ["secret: HEADWAY_SECRET", "memory: Full,"]
    assert of(findings, "disk").level == "note"
    assert any("replica" in finding.said for finding in replica)


async def test_store_that_does_not_answer_is_found() -> None:
    """With the words and the cure that an app would have."""
    findings = await looked(f"redis://127.0.0.1:{free_port()}")
    strange = await looked("ftp://x")

    assert wrong(findings) == ["store: the"]
    assert "does not answer" in findings[-1].said
    assert "use redis://" in strange[-1].said
