"""The app that the browser tests attack: its tasks say whatever they are told, everywhere.

In the environment: BARE leaves out every policy, ORIGINS lists the other origins that may use it,
PER_OWNER and PER_PROCESS limit the streams.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from quart import Quart, Response, render_template_string, request

from headway import JobError, Progress
from headway.limits import Limits
from headway.quart import Headway

INDEX: Final = """<!doctype html><html lang="en"><title>Target</title>
<form method="post" action="/start"><input name="text"><button>Start</button></form>"""
WATCH: Final = """<!doctype html><html lang="en"><title>Target</title>
{% for job in jobs %}{{ headway_bar(job, label=label) }}{% endfor %}"""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'"
)

app = Quart(__name__)
headway = Headway(
    app,
    origins=os.environ.get("ORIGINS", "").split(),
    limits=Limits(
        streams_per_owner=int(os.environ.get("PER_OWNER", "10")),
        streams_per_process=int(os.environ.get("PER_PROCESS", "2000")),
        jobs_per_owner=None,
    ),
)
steps: Final = asyncio.Condition()
done: dict[str, int] = {}


@headway.task
async def say(progress: Progress, text: str, ends: str) -> dict[str, Any]:
    """Put *text* wherever a task can put text."""
    progress.set(total=4, unit=text)
    progress.note(text)
    progress.log(text)
    with progress.stage(text, total=4):
        progress.advance(2)
        if ends == "failed":
            raise JobError(text, code=text)
        if ends == "running":
            await asyncio.Event().wait()
    return {"url": text, text: text}


@headway.task(title="Packing")
async def wait(progress: Progress) -> None:
    """As far as `/step` has said."""
    progress.set(total=4)
    here, seen = str(progress.job_id), 0
    async with steps:
        while True:
            if (now := done.get(here, 0)) > seen:
                progress.advance(now - seen)
                seen = now
            await steps.wait()


@app.after_request
async def policy(response: Response) -> Response:
    if os.environ.get("BARE"):
        response.headers.pop("Content-Security-Policy", None)
    else:
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response


@app.get("/")
async def index() -> str:
    await headway.visitor()
    return INDEX


@app.post("/start")
async def start() -> Any:
    form = await request.form
    if "text" not in form:
        return await headway.reply(await wait.start())
    text = form["text"]
    return await headway.reply(await say.using(title=text).start(text, form.get("ends", "running")))


@app.post("/step/<job_id>")
async def step(job_id: str) -> dict[str, int]:
    async with steps:
        done[job_id] = done.get(job_id, 0) + 1
        steps.notify_all()
    return done


@app.get("/watch")
async def watch() -> str:
    jobs = [await headway.get(job_id) for job_id in request.args.getlist("id")]
    return await render_template_string(WATCH, jobs=jobs, label=request.args.get("label", False))


@app.post("/share/<job_id>")
async def share(job_id: str) -> str:
    asked = request.args
    return headway.share(job_id, cancel="cancel" in asked, seconds=float(asked["seconds"]))


@app.get("/favicon.ico")
async def icon() -> tuple[str, int]:
    return "", 204


@app.get("/streams")
async def streams() -> dict[str, int]:
    return {"open": len(headway.streams)}
