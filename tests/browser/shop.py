"""The app that the browser tests look at. Its tasks do what the test has ordered, and wait else.

The orders stand in files, so that they outlive a server that is killed: see `Site.tell`.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

from quart import Quart, Response, render_template_string, request

from headway import JobError, Progress
from headway.quart import Headway

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'"
)
INDEX: Final = """<!doctype html><html lang="en"><title>Shop</title>
<form method="post" action="/start?page=1"><input name="name"><button>Start</button></form>"""
WATCH: Final = """<!doctype html><html lang="de"><title>Watch</title>
<meta name="color-scheme" content="light dark">
<h1>Jobs</h1>{% for job in jobs %}{{ headway_bar(job, label=label) }}{% endfor %}"""

app = Quart(__name__)
headway = Headway(
    app,
    lease_s=float(os.environ.get("LEASE_S", "10")),
    drain_s=float(os.environ.get("DRAIN_S", "0")),
    concurrency=64,
)


def orders(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(os.environ["ORDERS"], name).read_bytes()))
    except FileNotFoundError:
        return {}


async def work(progress: Progress, name: str) -> dict[str, str]:
    """Follow the orders until they say `end` or `fail`; when stopped, wait until they allow it."""
    done = 0
    try:
        while not (said := orders(name)).get("end"):
            if "fail" in said:
                raise JobError(said["fail"])
            if "total" in said:
                progress.set(total=said["total"])
            if "note" in said:
                progress.note(said["note"])
            while done < said.get("to", 0):
                progress.advance()
                done += 1
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        while orders(name).get("hold"):
            await asyncio.sleep(0.01)
        raise
    return {"url": "/result.txt"}


once = headway.task(name="once", title="Packing")(work)
again = headway.task(name="again", title="Packing", on_lost="retry")(work)


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
    task = again if "again" in form else once
    return await headway.reply(await task.start(form["name"]))


@app.get("/watch")
async def watch() -> str:
    jobs = [await headway.get(job_id) for job_id in request.args.getlist("id")]
    label = request.args.get("label", False)
    return await render_template_string(WATCH, jobs=jobs, label=label)


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
