"""An app whose jobs start others. With ELSEWHERE set these run in another process of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from quart import Quart, Response, request

from headway import Progress
from headway.local import LocalEngine
from headway.quart import Headway


class Elsewhere(LocalEngine):
    """Runs the parents; their children are for whoever else takes them."""

    @property
    def room(self) -> int:
        return 0

    async def submit(self, job_id: str, attempt: int) -> None:
        if (await headway.get(job_id)).task == "child":
            await headway._open_runtime("give a job away").store.release(job_id, attempt)
        else:
            await super().submit(job_id, attempt)


app = Quart(__name__)
headway = Headway(
    app,
    identify=lambda request: "tester",
    lease_s=float(os.environ.get("LEASE_S", "10")),
    engine=Elsewhere() if "ELSEWHERE" in os.environ else None,
)


def note_down(*words: object) -> None:
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(" ".join(map(str, words)) + "\n")


@headway.task
async def child(name: str) -> None:
    """Does not end by itself."""
    note_down("start", name, os.getpid())
    try:
        await asyncio.Event().wait()
    finally:
        note_down("stop", name, os.getpid())


async def family(progress: Progress, children: int) -> None:
    """Start the children, note their ids, and wait for them."""
    async with headway.group(progress) as group:
        for number in range(children):
            await group.start(child, f"child{number}")
        progress.note(" ".join(job.id for job in group.jobs))


TASKS = {
    "once": headway.task(name="once")(family),
    "again": headway.task(name="again", on_lost="retry")(family),
}


@app.post("/start/<task>")
async def start(task: str) -> Response:
    job = await TASKS[task].start(int(request.args.get("children", 2)))
    response: Response = await headway.reply(job)
    return response
