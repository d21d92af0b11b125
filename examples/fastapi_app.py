"""FastAPI: a button starts a job, the page shows its visitor's jobs, /docs tells the API.

Run it: pip install 'headway[fastapi,embedded]' uvicorn; uvicorn fastapi_app:app
"""

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, Response
from fastapi.responses import HTMLResponse

from headway import Job, Progress
from headway.fastapi import STARTED, Headway, problems

app = FastAPI()
headway = Headway(app)
Owner = Annotated[str, Depends(headway.owner)]
MyJob = Annotated[Job, Depends(headway.job)]


@headway.task
async def bake(progress: Progress, loaves: int) -> dict[str, int]:
    async for loaf in progress.track(range(1, loaves + 1), unit="loaf"):
        progress.note(f"Loaf {loaf} is in the oven")
        await asyncio.sleep(0.1)
    return {"loaves": loaves}


@app.get("/", response_class=HTMLResponse)
async def index(owner: Owner) -> str:
    bars = "".join(headway.bar(job) for job in await headway.list(owner=owner, limit=5))
    return f'<form method="post"><button>Bake</button></form>{bars}'


@app.post("/", status_code=202, responses=STARTED)
async def start(loaves: int = 20) -> Response:
    job = await bake.using(key="oven").start(loaves)  # a second click finds the job that runs
    return await headway.reply(job, to="/")  # 202 for API clients; the form goes back to the page


@app.get("/loaves/{job_id}", responses=problems("not_found"))
async def loaves(job: MyJob) -> dict[str, float]:
    return {"baked": job.progress.done}
