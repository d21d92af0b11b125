"""Asynchronous Progress Bar: one piece of work at a time for the whole site, watched by everyone.

Run it:  QUART_APP=progress_bar:app quart run   and open http://localhost:5000/
"""

import asyncio
import random

from quart import Quart, redirect, render_template_string

from headway import EVERYONE, Job, Progress
from headway.quart import Headway

STEPS = 25

app = Quart(__name__)
headway = Headway(app)

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Asynchronous Progress Bar</title><h1>Asynchronous Progress Bar</h1>"""
START = (
    PAGE
    + """<form method="post" action="/start_work/"><button>Start some test work</button>
</form><p><a href="/progress/">See the progress</a></p>"""
)
BUSY = (
    PAGE
    + """<p>Please wait for current work to finish. <a href="/progress/">See the progress</a></p>"""
)
PROGRESS = (
    PAGE
    + """{% if job %}{{ headway_bar(job) }}{% else %}<p>Nothing was started yet.</p>
{% endif %}<p><a href="/">Back</a></p>"""
)


@headway.task(title="Test work")
async def work(progress: Progress) -> None:
    async for _ in progress.track(range(STEPS), unit="step"):
        await asyncio.sleep(random.random())


@app.get("/")
@app.get("/start_work/")
async def index():
    return await render_template_string(START)


@app.post("/start_work/")
async def start_work():
    job = await work.using(key="the only one", owner=EVERYONE).start()
    if job.reused:
        return await render_template_string(BUSY), 409
    return redirect("/progress/", 303)


async def newest() -> Job | None:
    jobs = await headway.list(owner=EVERYONE, limit=1)
    return jobs[0] if jobs else None


@app.get("/progress/")
async def progress():
    return await render_template_string(PROGRESS, job=await newest())


@app.get("/check_status/")
async def check_status():
    job = await newest()
    running = job is not None and not job.state.terminal
    return {
        "state": "running" if running else "ready",
        "processed": int(job.progress.done) if job else 0,
        "length_of_work": STEPS,
        "percent_complete": int(100 * (job.progress.ratio or 0)) if job else 0,
        "hint": "refresh me.",
    }
