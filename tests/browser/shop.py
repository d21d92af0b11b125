"""The app that the browser tests look at. Its tasks do what the test has ordered, and wait else.

The orders stand in files, so that they outlive a server that is killed: see `Site.tell`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from quart import Quart, Response, render_template_string, request
from tqdm import tqdm

from headway import JobError, Limits, Progress
from headway.document import rfc3339
from headway.quart import Headway

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'"
)
INDEX: Final = """<!doctype html><html lang="en"><title>Shop</title>
<form method="post" action="/start?page=1"><input name="name"><button>Start</button></form>"""
WATCH: Final = """<!doctype html><html lang="{{ lang }}" dir="{{ dir }}"><title>Watch</title>
<meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/jobs/static/headway.css"><link rel="icon" href="/favicon.ico">
<main><h1>Jobs</h1>{% for job in jobs %}{{ headway_bar(job, **attributes) }}{% endfor %}</main>"""
BARE: Final = """<!doctype html><html lang="en"><title>Watch</title>
<link rel="stylesheet" href="/jobs/static/headway.css"><link rel="icon" href="/favicon.ico">
<script type="module" src="/jobs/static/headway.js"></script>
<main><h1>Jobs</h1>{{ markup | safe }}</main>"""

app = Quart(__name__)
headway = Headway(
    app,
    lease_s=float(os.environ.get("LEASE_S", "10")),
    drain_s=float(os.environ.get("DRAIN_S", "0")),
    concurrency=int(os.environ.get("CONCURRENCY", "100")),
    operator=lambda request: request.cookies.get("operator") == "yes",
    limits=Limits(jobs_per_owner=None, starts_per_minute=None),
)


def orders(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(os.environ["ORDERS"], name).read_bytes()))
    except FileNotFoundError:
        return {}


async def work(progress: Progress, name: str) -> dict[str, str]:
    """Follow the orders until they say `end` or `fail`; when stopped, wait until they allow it.

    Orders: `total`, `to`, `unit`, `note`, `log` (lines), `stages` (plans, see `stage()`), `endless`
    (they run in a loop of unknown length), `crash`, `fail`, `end`, `hold`.
    """
    seen: dict[str, Any] = {"to": 0, "log": 0}
    try:
        while not (said := orders(name)).get("end"):
            await follow(progress, name, said, seen)
            await asyncio.sleep(0.01)
        report(progress, said, seen)
        return {"url": "/result.txt"}
    except asyncio.CancelledError:
        while orders(name).get("hold"):
            await asyncio.sleep(0.01)
        raise


async def follow(progress: Progress, name: str, said: dict[str, Any], seen: dict[str, Any]) -> None:
    """Do what is said, as far as it was not done before."""
    if "fail" in said:
        raise JobError(said["fail"])
    if "crash" in said:
        raise RuntimeError(said["crash"])
    report(progress, said, seen)
    if "stages" in said and "stages" not in seen:
        seen["stages"] = True
        if said.get("endless"):
            seen["loop"] = iter(progress.track(itertools.count()))
            next(seen["loop"])
        await asyncio.gather(*[stage(progress, name, one) for one in said["stages"]])


def report(progress: Progress, said: dict[str, Any], seen: dict[str, Any]) -> None:
    """Tell the progress what is new."""
    if "total" in said:
        progress.set(total=said["total"], unit=said.get("unit"))
    if "note" in said:
        progress.note(said["note"])
    for line in said.get("log", [])[seen["log"] :]:
        progress.log(line)
        seen["log"] += 1
    while seen["to"] < said.get("to", 0):
        progress.advance()
        seen["to"] += 1


async def stage(progress: Progress, name: str, plan: dict[str, Any]) -> None:
    """One stage, and those in it one after the other, until it is closed.

    A plan has a `name`, and may have `total`, `to`, `unit`, `closed` (from the first) and `stages`.
    Orders: `at` (stage → done), `closed` (names).
    """
    done = 0
    with progress.stage(plan["name"], total=plan.get("total")):
        if "unit" in plan:
            progress.set(unit=plan["unit"])
        progress.advance(done := plan.get("to", 0))
        for inner in plan.get("stages", []):
            await stage(progress, name, inner)
        while not plan.get("closed"):
            said = orders(name)
            to = said.get("at", {}).get(plan["name"], done)
            progress.advance(max(to - done, 0))
            done = max(to, done)
            if said.get("end") or plan["name"] in said.get("closed", []):
                return
            await asyncio.sleep(0.01)


async def bars(name: str) -> None:
    """Show bars of tqdm one after the other, half full: as many as `bars` says, until `end`."""
    for number in itertools.count(1):
        with tqdm(total=4, desc=f"Bar {number}", disable=None) as bar:
            bar.update(2)
            while number >= (said := orders(name)).get("bars", 1) and not said.get("end"):
                await asyncio.sleep(0.01)
        if said.get("end"):
            return


once = headway.task(name="once", title="Packing", stall_s=3_600)(work)
again = headway.task(name="again", title="Packing", stall_s=3_600, on_lost="retry")(work)
stubborn = headway.task(name="stubborn", title="Packing", retries=3)(work)
silent = headway.task(name="silent", title="Packing", stall_s=0.2)(work)
captured = headway.task(name="captured", title="Packing", capture=("tqdm",))(bars)


@app.after_request
async def strict(response: Response) -> Response:
    """Every page is as strict as it gets."""
    policy = response.headers.get("Content-Security-Policy", POLICY)
    trusted = "; require-trusted-types-for 'script'; trusted-types 'none'"
    response.headers["Content-Security-Policy"] = policy + trusted
    return response


@app.get("/")
async def index() -> str:
    return INDEX


@app.post("/start")
async def start() -> Any:
    form = await request.form
    task = next((t for t in (again, stubborn, silent, captured) if t.name in form), once)
    title = form.get("title", "Packing")
    return await headway.reply(await task.using(title=title).start(form["name"]))


@app.get("/watch")
async def watch() -> str:
    """The bars of the jobs in `id`; what else is asked for become attributes of theirs."""
    asked = request.args.to_dict()
    asked.pop("id", None)
    page = {"lang": asked.pop("lang", "en"), "dir": asked.pop("dir", "ltr")}
    jobs = [await headway.get(job_id) for job_id in request.args.getlist("id")]
    return await render_template_string(WATCH, jobs=jobs, attributes=asked, **page)


@app.get("/bare")
async def bare() -> str:
    """A page with this markup of the test's own, and the script."""
    return await render_template_string(BARE, markup=request.args["markup"])


@app.get("/busy/events")
async def busy() -> Response:
    """A stream as busy as wished: so many states of each job in a second, made up."""
    ids, per_s = request.args.getlist("id"), float(request.args.get("per_s", "10"))
    now = rfc3339(time.time())

    def state(job_id: str, rev: int) -> str:
        made = {
            "id": job_id, "task": "busy", "title": f"Export {job_id}", "state": "running",
            "rev": rev, "attempt": 1, "max_attempts": 1, "note": f"Reading {rev % 97}",
            "progress": {"done": rev, "total": 9999, "ratio": rev % 900 / 999, "unit": "row"},
            "eta_s": 84, "created_at": now, "started_at": now, "updated_at": now,
            "links": {"self": f"/busy/{job_id}", "cancel": "x"},
        }  # fmt: skip
        return f"event: job\ndata: {json.dumps(made)}\n\n"

    async def states() -> AsyncIterator[str]:
        for rev in itertools.count(1):
            yield "".join(state(job_id, rev * 7) for job_id in ids)
            await asyncio.sleep(1 / per_s)

    response = Response(states(), content_type="text/event-stream")
    response.timeout = None
    return response


@app.get("/favicon.ico")
async def icon() -> tuple[str, int]:
    return "", 204


@app.get("/result.txt")
async def result() -> str:
    return "packed"


@app.post("/bye")
async def bye() -> dict[str, int]:
    """End the streams as they end when they are old, or when the server stops."""
    headway.streams.drain()
    while headway.streams:
        await asyncio.sleep(0.01)
    headway.streams.draining = False
    return await streams()


@app.get("/streams")
async def streams() -> dict[str, int]:
    return {"open": len(headway.streams)}
