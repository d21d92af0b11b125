"""The demo: real work on a real store, in small sizes, seen through its own routes."""

from __future__ import annotations

import asyncio
import gzip
import re
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from quart import Quart
from quart.testing import QuartClient

from headway import Headway, Job, JobError, Progress, State
from headway.demo import make_app
from headway.demo.kinds import Sizes
from headway.demo.primes import is_prime
from headway.demo.rows import import_orders
from headway.demo.shelf import FOLDERS, Folder, Shelf

SMALL = Sizes(rows=1_500, files=9, width=40, height=24, pairs=3, broken_rows=1_000, megabytes=3)
SLOW = Sizes(width=720, height=8_000)
KINDS = ["rows", "archive", "picture", "primes", "transfer", "broken"]
ID = re.compile(r'id="job-(\w+)"')


class Visitor:
    """A browser's visitor: keeps its cookies, and starts, watches and fetches."""

    def __init__(self, app: Quart) -> None:
        self.headway = cast("Headway", app.extensions["headway"])
        self.http = cast("QuartClient", app.test_client())

    async def page(self) -> str:
        return await (await self.http.get("/")).get_data(as_text=True)

    async def start(self, kind: str) -> str:
        response = await self.http.post(f"/start/{kind}", headers={"Accept": "application/json"})
        assert response.status_code == 202
        return str((await response.get_json())["id"])

    async def ended(self, job_id: str) -> Job:
        jobs = [job async for job in self.headway.watch(job_id)]
        return jobs[-1]

    async def outcome(self, kind: str) -> dict[str, Any]:
        job = await self.ended(await self.start(kind))
        assert job.state is State.SUCCEEDED, job.error
        return cast("dict[str, Any]", job.result)

    async def fetch(self, url: str) -> bytes:
        response = await self.http.get(url)
        assert response.status_code == 200
        return await response.get_data(as_text=False)


def make(url: str, prefix: str, tmp_path: Path, sizes: Sizes = SMALL) -> Quart:
    options = {"url": url, "prefix": prefix, "state_dir": tmp_path, "drain_s": 0.1}
    return make_app(sizes=sizes, **options)


@pytest.fixture
async def app(url: str, prefix: str, tmp_path: Path) -> AsyncIterator[Quart]:
    app = make(url, prefix, tmp_path)
    async with app.test_app():
        yield app


@pytest.fixture
def visitor(app: Quart) -> Visitor:
    return Visitor(app)


# ── the six kinds ─────────────────────────────────────────────────────────────────────────────


async def test_rows_arrive_in_a_database_to_download(visitor: Visitor, tmp_path: Path) -> None:
    """All rows of the CSV file are in the SQLite file that the visitor gets."""
    outcome = await visitor.outcome("rows")
    path = tmp_path / "fetched.sqlite"
    path.write_bytes(await visitor.fetch(outcome["url"]))

    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM orders").fetchone() == (SMALL.rows,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    assert outcome["facts"]["rows"] == SMALL.rows


async def test_archive_holds_what_the_list_of_digests_says(visitor: Visitor) -> None:
    """Every packed file has the digest that stands in the list beside the archive."""
    outcome = await visitor.outcome("archive")
    packed, listed = [await visitor.fetch(link["url"]) for link in outcome["files"]]
    said = {name: digest for digest, name in (n.split("  ") for n in listed.decode().splitlines())}

    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        members = {m.name: archive.extractfile(m) for m in archive.getmembers()}
        digests = {n: sha256(f.read()).hexdigest() for n, f in members.items() if f is not None}
    assert len(digests) == SMALL.files
    assert digests == said


async def test_picture_is_a_png_of_the_size_asked_for(visitor: Visitor) -> None:
    """The picture is shown in the page, may be shown inline, and is a whole PNG file."""
    outcome = await visitor.outcome("picture")
    response = await visitor.http.get(outcome["picture"])
    data = await response.get_data(as_text=False)

    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (SMALL.width, SMALL.height)
    assert data[-8:-4] == b"IEND"
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Content-Disposition"].startswith("inline")
    assert f'src="{outcome["picture"]}"' in await visitor.page()


async def test_primes_are_found_without_a_total(visitor: Visitor) -> None:
    """The search tells what it has found, and no ratio that nobody could know."""
    job_id = await visitor.start("primes")
    ended = await visitor.ended(job_id)
    newest = int(ended.result["facts"]["newest"].split(" ")[0].replace(",", ""))

    assert ended.result["facts"]["pairs"] == SMALL.pairs
    assert is_prime(newest)
    assert is_prime(newest + 2)
    assert ended.progress.total is None


async def test_transfer_packs_the_bytes_that_were_sent(visitor: Visitor) -> None:
    """What the server packed is, unpacked, what the sender hashed."""
    outcome = await visitor.outcome("transfer")
    data = gzip.decompress(await visitor.fetch(outcome["url"]))

    assert len(data) == SMALL.megabytes * 1_000_000
    assert sha256(data).hexdigest() == outcome["facts"]["sha256"]


async def test_broken_row_is_told_and_may_be_tried_again(visitor: Visitor) -> None:
    """The failure names the row; a second try is a job of its own, and meets the same row."""
    first = await visitor.ended(await visitor.start("broken"))
    answer = await visitor.http.post(f"/jobs/{first.id}/retry")
    again = await visitor.ended((await answer.get_json())["id"])

    assert first.state is again.state is State.FAILED
    assert first.error is not None
    assert first.error.title == "Row 612 has 4 fields instead of 5"
    assert again.id != first.id
    assert again.error == first.error


async def test_render_stops_when_it_is_cancelled(url: str, prefix: str, tmp_path: Path) -> None:
    """A picture that would take minutes ends at once, and leaves no file."""
    app = make(url, prefix, tmp_path, SLOW)
    async with app.test_app():
        visitor = Visitor(app)
        job_id = await visitor.start("picture")
        async for job in visitor.headway.watch(job_id):
            if job.progress.done and not job.cancel_requested:
                await visitor.http.post(f"/jobs/{job_id}/cancel")
        shelf = app.extensions["headway_demo"]

        assert job.state is State.CANCELLED
        assert not list(shelf.root.iterdir())


# ── the page ──────────────────────────────────────────────────────────────────────────────────


async def test_page_offers_all_kinds_and_finds_jobs_again(visitor: Visitor) -> None:
    """A form for each kind; and after a start, its bar, newest first."""
    empty = await visitor.page()
    ids = [await visitor.start("broken"), await visitor.start("primes")]
    page = await visitor.page()

    assert re.findall(r'action="/start/(\w+)"', empty) == KINDS
    assert not ID.findall(empty)
    assert ID.findall(page) == ids[::-1]
    assert page.count("<headway-bar ") == 2
    for job_id in ids:
        await visitor.ended(job_id)


async def test_form_works_without_javascript(visitor: Visitor) -> None:
    """A browser that sends the form is led back to the page, to its new job."""
    page = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    response = await visitor.http.post("/start/primes", headers=page)

    job_id = ID.findall(await visitor.page())[0]
    await visitor.ended(job_id)

    assert response.status_code == 303
    assert response.headers["Location"] == f"/#job-{job_id}"


async def test_double_click_of_a_new_visitor_starts_one(
    url: str, prefix: str, tmp_path: Path
) -> None:
    """The page names its visitor, so that two starts at the same time are those of one."""
    app = make(url, prefix, tmp_path, SLOW)
    async with app.test_app():
        visitor = Visitor(app)
        await visitor.page()
        first, second = await asyncio.gather(visitor.start("picture"), visitor.start("picture"))
        page = await visitor.page()
        await visitor.http.post(f"/jobs/{first}/cancel")
        await visitor.ended(first)

    assert first == second
    assert ID.findall(page) == [first]


async def test_start_refuses_other_sites_and_unknown_kinds(visitor: Visitor) -> None:
    """Another site cannot make a visitor's browser start anything; GET starts nothing."""
    foreign = {"Sec-Fetch-Site": "cross-site", "Accept": "text/html"}
    statuses = [
        (await visitor.http.post("/start/rows", headers=foreign)).status_code,
        (await visitor.http.post("/start/rows", headers={"Origin": "http://x.org"})).status_code,
        (await visitor.http.post("/start/nothing")).status_code,
        (await visitor.http.get("/start/rows")).status_code,
    ]

    assert statuses == [403, 403, 404, 405]
    assert not ID.findall(await visitor.page())


async def test_page_has_a_strict_policy_and_nothing_inline(visitor: Visitor) -> None:
    """No script but from here, none in the page; and all that it needs is served."""
    response = await visitor.http.get("/")
    page = await response.get_data(as_text=True)
    policy = response.headers["Content-Security-Policy"]
    linked = re.findall(r'(?:src|href)="(/[^"#]+)"', page)

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*(src=|json))|style=| on\w+=", page)
    assert {(await visitor.http.get(path)).status_code for path in linked} == {200}


# ── the files ─────────────────────────────────────────────────────────────────────────────────


async def test_files_are_only_for_who_owns_the_job(app: Quart, visitor: Visitor) -> None:
    """To another visitor, and to one without a name, the file does not exist."""
    outcome = await visitor.outcome("rows")
    other = Visitor(app)
    stranger = await other.http.get(outcome["url"])
    await other.page()
    named = await other.http.get(outcome["url"])
    mine = await visitor.http.get(outcome["url"])

    assert (stranger.status_code, named.status_code, mine.status_code) == (404, 404, 200)
    assert mine.headers["Content-Disposition"] == "attachment; filename=orders.sqlite"
    assert "sandbox" in mine.headers["Content-Security-Policy"]
    assert "private" in mine.headers["Cache-Control"]


async def test_files_that_were_not_linked_cannot_be_fetched(visitor: Visitor) -> None:
    """Only the names in the job's result are served, whatever else stands in the folder."""
    outcome = await visitor.outcome("archive")
    folder = outcome["url"].rpartition("/")[0]
    names = ["other", "..%2f..%2fetc%2fpasswd", "%2e%2e/folder.tar.gz", "folder.tar.gz/", ""]
    urls = [*(f"{folder}/{name}" for name in names), "/files/x/folder.tar.gz"]
    statuses = [(await visitor.http.get(url)).status_code for url in urls]

    assert statuses == [404] * len(urls)


async def test_files_that_have_gone_are_told_as_gone(url: str, prefix: str, tmp_path: Path) -> None:
    """After a restart the job is still there; the page says that its files are not."""
    app = make(url, prefix, tmp_path)
    async with app.test_app():
        visitor = Visitor(app)
        outcome = await visitor.outcome("picture")
    restarted = make(url, prefix, tmp_path)
    async with restarted.test_app():
        again = Visitor(restarted)
        again.http.cookie_jar = visitor.http.cookie_jar
        response = await again.http.get(outcome["url"])
        page = await again.page()

    assert response.status_code == 410
    assert "Its files are gone" in page
    assert f'src="{outcome["picture"]}"' not in page


async def test_files_end_with_the_app(url: str, prefix: str, tmp_path: Path) -> None:
    """When the app has closed, its temporary folder is gone."""
    app = make(url, prefix, tmp_path)
    async with app.test_app():
        await Visitor(app).outcome("picture")
        shelf = app.extensions["headway_demo"]
        root = shelf.root
        assert root.is_dir()

    assert not root.exists()


def test_shelf_keeps_only_the_newest_folders() -> None:
    """What many visitors make cannot fill the disk; and what fails leaves nothing."""
    shelf, ids = Shelf(), [f"job-{number}" for number in range(FOLDERS + 3)]
    shelf.open()
    try:
        for job_id in ids:
            with shelf.folder(job_id) as folder:
                (folder / "file").write_text("something")
        with suppress(JobError), shelf.folder("failing") as folder:
            (folder / "file").write_text("something")
            raise JobError("no")

        assert [i for i in ids if shelf.find(i, "file")] == ids[3:]
        assert shelf.find("failing", "file") is None
    finally:
        shelf.close()


# ── by itself ─────────────────────────────────────────────────────────────────────────────────


def test_work_runs_without_a_store(tmp_path: Path) -> None:
    """The work is ordinary code: a test of it needs a Progress and nothing else."""
    outcome = import_orders(Progress(), Folder("none", tmp_path), 250)

    assert outcome["facts"]["rows"] == 250


def test_unreadable_amount_is_told_by_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row whose fields are all there but senseless fails with its number, too."""
    row = ("1", "2024-02-30", "Ada L.", "Lamp", "1.00")
    monkeypatch.setattr("headway.demo.rows._order", lambda number, random: row)

    with pytest.raises(JobError, match="Row 1 cannot be read"):
        import_orders(Progress(), Folder("none", tmp_path), 1)


def test_demo_is_not_loaded_with_the_library() -> None:
    """Who imports Headway pays nothing for its demo, nor for Quart."""
    code = "import headway, sys; print([m for m in sys.modules if 'demo' in m or m == 'quart'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"


def test_missing_quart_is_told_with_the_cure() -> None:
    """Without Quart the demo says what to install."""
    code = (
        "import sys; sys.modules['quart'] = None\n"
        "from headway.demo import make_app\n"
        "try: make_app()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.startswith("HeadwayError")
    assert "pip install 'headway[quart]'" in told.stdout
