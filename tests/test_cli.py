"""The command line: what it shows, what it exits with, and how it bears what happens meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from headway import EVERYONE, Headway, Job, JobError, Progress, State
from headway.client import Client
from headway.direct import Direct
from headway.document import document
from headway.following import Entry, Following
from headway.job import Failure, Reading, StageReading
from headway.limits import Limits
from headway.terminal import LINE_EVERY_S, Bars, Lines, table
from headway.tokens import Viewer
from headway.words import SAID, clock, counts, percent, state_of, time_left
from tests.apps.process import free_port
from tests.apps.served import served
from tests.conftest import DEADLINE_S, MakeHeadway, OwnServer, Until
from tests.house import SECRET, user
from tests.stepping import Clock

pytestmark = pytest.mark.once

ID: Final = "00" + "a" * 26
OTHER: Final = "01" + "b" * 26
HEADWAY: Final = str(Path(sys.executable).parent / "headway")
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOW: Final = 1_000.0


def doc(job_id: str = ID, **changes: Any) -> dict[str, Any]:
    """A status document, as it comes over the wire."""
    reading: dict[str, Any] = {
        "done": 312, "total": 1000, "ratio": 0.312, "unit": "row", "rate_per_s": 12.34,
        "eta_s": 84.0, "note": "Reading orders",
    }  # fmt: skip
    reading |= changes.pop("progress", {})
    given = {
        "id": job_id, "task": "export", "title": "Export", "state": State.RUNNING, "attempt": 1,
        "max_attempts": 1, "rev": 7, "progress": Reading(**reading), "owner": "ann",
        "created_at": NOW - 30, "started_at": NOW - 25, "updated_at": NOW, **changes,
    }  # fmt: skip
    told = document(Job(**given), "/jobs", Viewer("ann"))
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    return found


def following(*jobs: dict[str, Any]) -> Following:
    found = Following(job["id"] for job in jobs)
    found.connect("open")
    for job in jobs:
        found.take(job)
    return found


LOOKS: Final = {
    "queued": doc(state=State.QUEUED, attempt=0, started_at=None),
    "running": doc(),
    "finishing": doc(progress={"ratio": 0.99}),
    "stalled": doc(progress={"stalled": True}),
    "retrying": doc(state=State.QUEUED, retry_at=NOW + 30, max_attempts=3),
    "cancelling": doc(cancel_requested=True),
    "cancelled": doc(state=State.CANCELLED, finished_at=NOW),
    "succeeded": doc(state=State.SUCCEEDED, finished_at=NOW),
    "failed": doc(state=State.FAILED, finished_at=NOW, error=Failure("x", "No name", "Row 7")),
}


# ── words ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", LOOKS)
def test_a_job_is_in_one_word(state: str) -> None:
    """Each way to be has a word of its own, for people and for scripts."""
    assert state_of(LOOKS[state], NOW) == state
    assert state in SAID


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (percent(0.9999), "99%"),
        (percent(0.29), "29%"),
        (percent(None), ""),
        (clock(3_725.9), "1:02:05"),
        (clock(65), "1:05"),
        (counts({"done": 1.5, "total": 1_000, "unit": "entry"}), "1.5 of 1,000 entries"),
        (counts({"done": 1, "unit": "box"}), "1 box"),
        (counts({"done": 3}), ""),
        (time_left(doc(), NOW), "about 90 seconds left"),
        (time_left(doc(progress={"eta_s": 5.0}), NOW), "a few seconds left"),
        (time_left(doc(progress={"eta_s": 7_000.0}), NOW), "about 2 hours left"),
    ],
)
def test_numbers_are_said_as_people_say_them(said: str, wanted: str) -> None:
    """Rounded, with their unit, and never 100 % before the end."""
    assert said == wanted


# ── what is known ─────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3), st.floats(0, 0.99)), min_size=1))
def test_news_may_come_in_any_order(news: list[tuple[int, int, float]]) -> None:
    """The newest is what is known, and within an attempt it never falls back."""
    known = Following([ID])
    seen: list[tuple[int, int, float]] = []
    for rev, attempt, ratio in news:
        known.take(doc(rev=rev, attempt=attempt, progress={"ratio": ratio}))
        job = known.jobs[ID]
        seen.append((job["rev"], job["attempt"], job["progress"]["ratio"]))

    assert seen[-1][0] == max(rev for rev, _, _ in news)
    for before, after in pairwise(seen):
        assert after[0] >= before[0]
        assert after[1] != before[1] or after[2] >= before[2]


@pytest.mark.parametrize(
    ("states", "lost", "code"),
    [
        (["succeeded", "succeeded"], [], 0),
        (["succeeded", "failed"], [], 1),
        (["cancelled"], [], 1),
        (["failed"], [OTHER], 3),
        ([], [OTHER], 3),
    ],
)
def test_the_exit_code_tells_the_worst(states: list[str], lost: list[str], code: int) -> None:
    """What is not there comes before what has failed."""
    ids = [f"{n:02x}" + "a" * 26 for n in range(len(states))]
    known = Following([*ids, *lost])
    for job_id, state in zip(ids, states, strict=True):
        known.take(doc(job_id, state=State(state), finished_at=NOW))
    for job_id in lost:
        known.lose(job_id, "gone")

    assert known.code == code
    assert known.going == []


# ── bars and lines ────────────────────────────────────────────────────────────────────────────


def drawn(known: Following, *, width: int = 100, height: int = 30) -> str:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None
    )
    console.print(Bars(known, console, now=lambda: NOW).render())
    assert isinstance(console.file, io.StringIO)
    return ESCAPES.sub("", console.file.getvalue())


def test_a_bar_says_all_that_is_known() -> None:
    """Its percent, its time, its counts, its rate, what is left, its attempt, note and stages."""
    stages = (StageReading("Parse", done=1, total=2, ratio=0.5), StageReading("Rows", depth=1))
    job = doc(attempt=2, max_attempts=3, progress={"stages": stages, "resumed_ratio": 0.2})

    shown = drawn(following(job), width=140)

    for text in (
        "Export", "31%", "0:25", "312 of 1,000 rows", "12.3 rows/s", "about 90 seconds left",
        "attempt 2 of 3", "resumed at 20%", "Reading orders", "    Parse", "50%", "      Rows",
    ):  # fmt: skip
        assert text in shown, text


def test_each_state_looks_different() -> None:
    """By its shape and its words, without any colour."""
    looks = {state: drawn(following(job)) for state, job in LOOKS.items()}
    away = following(doc())
    away.connect("reconnecting")
    looks["reconnecting"] = drawn(away)

    shapes = {look.lstrip()[0] for look in looks.values()}
    assert len(shapes) == len(looks) - 1, "only finishing has the shape of running"
    for state in ("queued", "stalled", "retrying", "cancelling", "reconnecting"):
        assert SAID[state] in looks[state]
    assert "No name · Row 7" in looks["failed"]
    assert "again in 30 seconds" in looks["retrying"]
    assert "100%" in looks["succeeded"]


def test_texts_of_tasks_are_text() -> None:
    """Neither markup of rich nor escapes of terminals get through, from whatever server."""
    job = doc()
    job |= {"title": "[red]x[/red]\x1b[31m", "note": "a\x1b]0;evil\x07b"}
    known = following(job)

    shown = drawn(known)

    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_what_does_not_fit_is_left_out() -> None:
    """First the details, then what has ended; and it is told how much."""
    jobs = [doc(f"{n:02x}" + "a" * 26, title=f"Job {n}") for n in range(20)]
    jobs[3] |= {"state": "succeeded"}

    small = drawn(following(*jobs), height=25)
    least = drawn(following(*jobs), height=20)

    assert small.count("Job ") == 20
    assert "Reading orders" not in small
    assert least.count("\n") == 19
    assert "Job 3 " not in least
    assert "and 2 more" in least


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_bars_fit_into_the_window(width: int) -> None:
    """No line is longer than the window is wide, so that none is broken."""
    shown = drawn(following(*(doc(title=t * 30, state=State.RUNNING) for t in "x")), width=width)

    assert max(map(len, shown.splitlines())) <= width


def test_lines_come_at_a_sane_rate() -> None:
    """A new state is said at once; all else at its time, and then as it is by then."""
    now, said = Clock(), list[str]()
    known = Following([ID])
    lines = Lines(known, said.append, now)
    known.told = lines.show
    known.connect("open")

    for rev in range(1, 50):
        known.take(doc(rev=rev, progress={"done": rev}))
    at_once = len(said)
    now.now += LINE_EVERY_S
    lines.tick()
    later = said[at_once:]
    known.take(doc(rev=60, state=State.SUCCEEDED, finished_at=NOW))

    assert at_once == 1
    assert len(later) == 1
    assert "49 of 1,000" in later[0]
    assert len(said) == 3
    assert "succeeded" in said[2]


def test_a_list_is_a_table() -> None:
    """With whose they are, if that is known."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    console.print(table([Entry("ann", LOOKS["failed"]), Entry(None, doc(OTHER))], console, NOW))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()

    for text in (ID, OTHER, "failed", "Export · No name · Row 7", "31%", "ann", "owner"):
        assert text in shown


# ── the command ───────────────────────────────────────────────────────────────────────────────


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class House:
    """A server with tasks, and a command that is typed beside it."""

    def __init__(self, headway: Headway, url: str, store: str, prefix: str) -> None:
        self.headway = headway
        self.url = url
        self.store = store
        self.go = asyncio.Event()
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")},
            "HEADWAY_PREFIX": prefix,
            "PYTHONUNBUFFERED": "1",
        }
        self.wait = headway.task(name="wait")(self._wait)
        self.fail = headway.task(name="fail")(self._fail)
        self.give = headway.task(name="give")(self._give)

    async def _wait(self, progress: Progress) -> None:
        progress.set(done=1, total=2)
        await self.go.wait()

    async def _fail(self) -> None:
        raise JobError("Row 7 has no name")

    async def _give(self, value: str) -> str:
        return value

    async def type(self, *words: str, env: dict[str, str] | None = None) -> Ran:
        process = await asyncio.create_subprocess_exec(
            HEADWAY, *words, env={**self.env, **(env or {})},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return Ran(process.returncode, out.decode(), err.decode())

    async def ended(self, job: Job) -> None:
        async for _ in self.headway.watch(job.id):
            pass


@asynccontextmanager
async def open_house(
    make_headway: MakeHeadway, url: str, prefix: str, **options: Any
) -> AsyncIterator[House]:
    given = {"identify": user, "secret": SECRET, "limits": Limits(jobs_per_owner=None)}
    headway = make_headway(**{**given, "operator": _operates, **options})
    async with headway, served(headway.wrap(_nothing)) as port:
        house = House(headway, f"http://127.0.0.1:{port}/jobs", url, prefix)
        yield house
        house.go.set()


def _operates(scope: Any) -> bool:
    return user(scope) == "op"


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<h1>Log in</h1>"})


@pytest.fixture
async def house(make_headway: MakeHeadway, url: str, prefix: str) -> AsyncIterator[House]:
    """A house whose users are named in the header X-User; "op" operates it."""
    async with open_house(make_headway, url, prefix) as house:
        yield house


ANN: Final = ("--header", "X-User: ann")


@pytest.mark.parametrize("over", ["store", "http"])
async def test_watch_ends_with_its_jobs(house: House, over: str) -> None:
    """Several jobs, each in lines, and the code of what became of them."""
    good = await house.give.using(owner="ann", title="Good").start("x")
    bad = await house.fail.using(owner="ann").start()
    where = ["--url", house.store] if over == "store" else ["--url", house.url, *ANN]

    one = await house.type("watch", good.id, *where)
    both = await house.type("watch", good.id, bad.id, *where)

    assert (one.code, one.err) == (0, "")
    assert re.fullmatch(rf"{good.id}  succeeded +100%  Good\n", one.out)
    assert both.code == 1
    assert "Row 7 has no name" in both.out


@pytest.mark.parametrize("over", ["store", "http"])
async def test_watch_writes_documents(house: House, until: Until, over: str) -> None:
    """With --json each change is the status document, on one line, to the last one."""
    job = await house.wait.using(owner="ann").start()
    where = ["--url", house.store] if over == "store" else ["--url", house.url, *ANN]
    watching = asyncio.create_task(house.type("watch", job.id, "--json", *where))
    if over == "http":
        await until(lambda: len(house.headway.streams), "it listens")

    house.go.set()
    ran = await watching

    assert ran.code == 0
    revs = [told["rev"] for told in ran.documents]
    assert revs == sorted(set(revs))
    assert ran.documents[-1]["state"] == "succeeded"
    assert ("links" in ran.documents[-1]) == (over == "http")


async def test_bars_are_drawn_into_a_terminal(house: House, until: Until) -> None:
    """In a real terminal there are bars, which move, and stay there in the end."""
    job = await house.wait.using(owner="ann", title="Long work").start()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    process = await asyncio.create_subprocess_exec(
        HEADWAY, "watch", job.id, "--url", house.url, *ANN,
        env={**house.env, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        try:
            seen.extend(os.read(ours, 65_536))
        except OSError:  # Linux says so when the other end is closed
            asyncio.get_running_loop().remove_reader(ours)

    asyncio.get_running_loop().add_reader(ours, read)
    await until(lambda: b"50%" in seen, "the bar stands at its half")
    house.go.set()
    code = await asyncio.wait_for(process.wait(), DEADLINE_S)
    await until(lambda: b"100%" in seen, "the last frame came")
    asyncio.get_running_loop().remove_reader(ours)
    os.close(ours)

    last = ESCAPES.sub("", seen.decode()).rstrip().splitlines()[-1]
    assert code == 0
    assert "✔ Long work" in last
    assert "━━━━" in last


async def test_ctrl_c_leaves_the_job_alone(house: House, until: Until) -> None:
    """It ends the watching at once, says how to go on, and the job goes on."""
    job = await house.wait.using(owner="ann").start()
    process = await asyncio.create_subprocess_exec(
        HEADWAY, "watch", job.id, "--url", house.url, *ANN, env=house.env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await until(lambda: len(house.headway.streams), "it listens")

    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)

    assert process.returncode == 130
    assert "the work goes on" in err.decode()
    assert f"headway watch {job.id} --url {house.url}" in err.decode()
    assert "ann" not in err.decode(), "who asks may be secret"
    now = await house.headway.get(job.id)
    assert (now.state, now.cancel_requested) == (State.RUNNING, False)


async def test_watch_tells_what_is_not_to_be_seen(house: House) -> None:
    """What is unknown, or someone else's, is gone: with a code of its own."""
    job = await house.give.using(owner="bob").start("x")
    await house.ended(job)

    unknown = await house.type("watch", ID, "--url", house.store)
    other = await house.type("watch", job.id, "--url", house.url, *ANN)
    told = await house.type("watch", job.id, "--url", house.url, "--json", *ANN)
    cancel = await house.type("cancel", job.id, "--url", house.url, *ANN)

    assert (unknown.code, other.code, told.code, cancel.code) == (3, 3, 3, 3)
    assert "gone" in unknown.out
    assert told.documents == [{"id": job.id, "state": "gone"}]
    assert f"no job '{job.id}'" in cancel.err


async def test_shared_link_is_enough(house: House) -> None:
    """The address that was shared can be watched as it is; two of them as well."""
    jobs = [await house.give.using(owner="ann").start(text) for text in "xy"]
    host = house.url.removesuffix("/jobs")
    links = [host + house.headway.share(job) for job in jobs]

    ran = await house.type("watch", *links)
    plain = await house.type("watch", *(link.partition("?")[0] for link in links))

    assert ran.code == 0
    assert all(job.id in ran.out for job in jobs)
    assert plain.code == 3


async def test_wrong_use_is_told(house: House) -> None:
    """With the code of wrong usage, and without what may be secret."""
    for words in (
        ["watch"],
        ["watch", ID, "--url", "ftp://x"],
        ["watch", ID, "--url", house.store, "--header", "X-User: ann"],
        ["watch", ID, "--url", house.url, "--header", "Bearer s3cret"],
        ["watch", "http://a.test/jobs/x", "http://b.test/jobs/y"],
        ["watch", ID, "--state-dir", "/nowhere/at/all"],
        ["list", "--state", "lost"],
        ["doctor", "example.org/jobs"],
    ):
        ran = await house.type(*words)
        assert ran.code == 2, words
        assert ran.out == ""
        assert "s3cret" not in ran.err


@pytest.mark.parametrize("path", ["", "/elsewhere"])
async def test_what_is_no_headway_is_told(house: House, path: str) -> None:
    """Nobody at the port, or somebody else: it is not waited for."""
    url = house.url.replace("/jobs", path) if path else f"http://127.0.0.1:{free_port()}/jobs"

    for words in (["watch", ID], ["list"], ["cancel", ID]):
        ran = await house.type(*words, "--url", url)
        assert ran.code == 4, words
        assert ("cannot be reached" in ran.err) or ("not as Headway" in ran.err)
    assert (await house.type("list", "--url", f"redis://127.0.0.1:{free_port()}")).code == 4


async def test_list_shows_who_asks_their_jobs(house: House) -> None:
    """Over HTTP one's own, for operators everybody's; from the store everybody's."""
    mine = await house.give.using(owner="ann", title="Mine").start("x")
    theirs = await house.fail.using(owner="bob").start()
    await house.ended(mine)
    await house.ended(theirs)
    server = ("--url", house.url)

    own = await house.type("list", *server, *ANN)
    refused = await house.type("list", "--all", *server, *ANN)
    every = await house.type("list", "--all", "--json", *server, "--header", "X-User: op")
    store = await house.type("list", "--json", "--url", house.store)
    failed = await house.type("list", "--state", "failed", "--url", house.store)
    bob = await house.type("list", "--owner", "bob", "--task", "fail", "--url", house.store)

    assert re.fullmatch(rf"{mine.id}  succeeded +100%  Mine\n", own.out)
    assert refused.code == 3
    for ran in (every, store):
        assert {(job["id"], job["owner"]) for job in ran.documents} == {
            (mine.id, "ann"), (theirs.id, "bob"),
        }  # fmt: skip
    assert failed.out == bob.out
    assert theirs.id in bob.out


@pytest.mark.parametrize("over", ["store", "http"])
async def test_list_has_as_many_as_are_wanted(house: House, over: str) -> None:
    """The newest only, or page after page."""
    jobs = [await house.give.using(owner="ann").start(str(n)) for n in range(60)]
    for job in jobs:
        await house.ended(job)
    who = ["--url", house.store] if over == "store" else ["--url", house.url]
    who += [] if over == "store" else ["--header", "X-User: op"]

    every = await house.type("list", "--all", *who)
    some = await house.type("list", "--owner", "ann", "--limit", "7", *who)

    assert len(set(every.out.splitlines())) == 60
    assert len(some.out.splitlines()) == 7


@pytest.mark.parametrize("over", ["store", "http"])
async def test_cancel_asks_jobs_to_stop(house: House, until: Until, over: str) -> None:
    """All that are named; it shows how they are then."""
    jobs = [await house.wait.using(owner="ann").start() for _ in range(2)]
    where = ["--url", house.store] if over == "store" else ["--url", house.url, *ANN]

    ran = await house.type("cancel", *(job.id for job in jobs), *where)
    for job in jobs:
        await house.ended(job)

    assert ran.code == 0
    assert len(ran.out.splitlines()) == 2
    assert "cancel" in ran.out
    assert all([(await house.headway.get(job.id)).state == "cancelled" for job in jobs])


async def test_quart_has_it_too(house: House) -> None:
    """`quart headway …` is the same command."""
    job = await house.give.using(owner=EVERYONE).start("x")
    await house.ended(job)
    process = await asyncio.create_subprocess_exec(
        str(Path(HEADWAY).with_name("quart")), "headway", "watch", job.id, "--url", house.store,
        env=house.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)

    assert process.returncode == 0, err.decode()
    assert job.id in out.decode()


async def test_help_is_quick(house: House) -> None:
    """What only one command needs is not loaded for another."""
    code = (
        "import sys; from headway.cli import main; main(['--help'], standalone_mode=False); "
        "print({'rich', 'httpx', 'httpx_sse', 'quart'} & set(sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    assert out.decode().splitlines()[-1] == "set()"
    assert "doctor" in out.decode()


# ── what happens meanwhile ────────────────────────────────────────────────────────────────────


def moving(known: Following, job: Job) -> Callable[[], bool]:
    return lambda: job.id in known.jobs and known.jobs[job.id]["progress"]["done"] == 1


@asynccontextmanager
async def followed(source: Client | Direct, known: Following) -> AsyncIterator[None]:
    """Follow meanwhile, and then to the end."""
    task = asyncio.create_task(source.follow(known))
    try:
        yield
        await asyncio.wait_for(task, DEADLINE_S)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_watching_goes_on_after_a_restart(
    make_headway: MakeHeadway, url: str, prefix: str, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says goodbye and is gone is shown as lost, and found again when it is back."""
    monkeypatch.setattr("headway.client.BLIP_S", 0.05)
    headway, port = make_headway(identify=lambda _: "ann"), free_port()
    house = House(headway, f"http://127.0.0.1:{port}/jobs", url, prefix)
    app = headway.wrap(_nothing)
    async with headway, Client(house.url) as client:
        job = await house.wait.using(owner="ann").start()
        known = Following([job.id])
        async with served(app, port):
            following_it = followed(client, known)
            await following_it.__aenter__()
            await until(moving(known, job), "it is watched")
            headway.streams.drain()
        await until(lambda: known.connection == "reconnecting", "the loss is shown")
        assert known.state(job.id, 0) == "reconnecting"
        headway.streams.draining = False
        async with served(app, port):
            await until(lambda: known.connection == "open", "it is found again")
            house.go.set()
            await following_it.__aexit__(None, None, None)

    assert known.code == 0


async def test_watching_goes_on_where_streams_are_refused(
    make_headway: MakeHeadway, url: str, prefix: str, until: Until
) -> None:
    """Without a place for a stream the server is polled, and the end is not missed."""
    limits = Limits(streams_per_owner=1)
    async with open_house(make_headway, url, prefix, limits=limits) as house:
        job = await house.wait.using(owner="ann").start()
        first, second = Following([job.id]), Following([job.id])
        who = {"X-User": "ann"}
        streams = house.headway.streams
        async with Client(house.url, headers=who) as client, followed(client, first):
            await until(lambda: len(streams) == 1, "the place is taken")
            async with followed(client, second):
                await until(lambda: streams._polls, "the other one polls")
                house.go.set()

    assert (first.code, second.code) == (0, 0)


async def test_watching_goes_on_when_the_store_is_away(
    own_server: OwnServer, prefix: str, until: Until
) -> None:
    """From the store itself: its loss is shown, and what comes after it."""
    go = asyncio.Event()
    headway = Headway(own_server.url, prefix=prefix)

    @headway.task
    async def wait(progress: Progress) -> None:
        progress.set(done=1, total=2)
        await go.wait()

    async with headway:
        job = await wait.start()
        known = Following([job.id])
        async with followed(Direct(headway), known):
            await until(moving(known, job), "it is watched")
            own_server.stop()
            await until(lambda: known.connection == "reconnecting", "the loss is shown")
            own_server.start()
            await until(lambda: known.connection == "open", "it is found again")
            go.set()

    assert known.code == 0


async def test_more_jobs_than_a_stream_takes(house: House) -> None:
    """Sixty are two streams; each of them is told."""
    jobs = [await house.give.using(owner="ann").start(str(n)) for n in range(60)]
    known = Following([*(job.id for job in jobs), ID])

    async with Client(house.url, headers={"X-User": "ann"}) as client:
        await asyncio.wait_for(client.follow(known), DEADLINE_S)

    assert len(known.jobs) == 60
    assert known.lost == {ID: "gone"}
