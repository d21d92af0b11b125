"""Starlette: a button starts a job, and the page shows the bars of its visitor's jobs.

Run it: pip install 'headway[starlette,embedded]' uvicorn; uvicorn starlette_app:app
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from headway import Progress
from headway.starlette import Headway

headway = Headway()


@headway.task
async def bake(progress: Progress, loaves: int) -> dict[str, int]:
    async for loaf in progress.track(range(1, loaves + 1), unit="loaf"):
        progress.note(f"Loaf {loaf} is in the oven")
        await asyncio.sleep(0.1)
    return {"loaves": loaves}


async def index(request: Request) -> Response:
    jobs = await headway.list(owner=await headway.visitor(), limit=5)
    bars = "".join(headway.bar(job) for job in jobs)
    return HTMLResponse(f'<form method="post"><button>Bake</button></form>{bars}')


async def start(request: Request) -> Response:
    job = await bake.using(key="oven").start(20)  # a second click finds the job that runs
    return await headway.reply(job, to="/")  # 202 for API clients; the form goes back to the page


app = Starlette(routes=[Route("/", index), Route("/", start, methods=["POST"])])
headway.init_app(app)
