"""Litestar: a button starts a job, and the page shows the bars of its visitor's jobs.

Run it: pip install 'headway[embedded]' litestar uvicorn; uvicorn litestar_app:app
"""

import asyncio

from litestar import Litestar, MediaType, get, post
from litestar.types import ASGIApp

from headway import Headway, Progress

headway = Headway()


@headway.task
async def bake(progress: Progress, loaves: int) -> dict[str, int]:
    async for loaf in progress.track(range(1, loaves + 1), unit="loaf"):
        progress.note(f"Loaf {loaf} is in the oven")
        await asyncio.sleep(0.1)
    return {"loaves": loaves}


@get("/", media_type=MediaType.HTML)
async def index() -> str:
    jobs = await headway.list(owner=await headway.visitor(), limit=5)
    bars = "".join(headway.bar(job) for job in jobs)
    return f'<form method="post"><button>Bake</button></form>{bars}'


@post("/")
async def start() -> ASGIApp:
    job = await bake.using(key="oven").start(20)  # a second click finds the job that runs
    return await headway.reply(job, to="/")  # 202 for API clients; the form goes back to the page


app = headway.wrap(Litestar([index, start]))
