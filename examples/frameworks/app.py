"""The element in htmx 2, htmx 4, React, Vue and Alpine; and htmx without the element.

Run it: pip install 'headway[quart,embedded]'; npm install; npm run build; quart run
"""

import asyncio
from pathlib import Path

from quart import Quart, Response, request, send_from_directory

from headway import Progress
from headway.quart import Headway

PLAIN = {  # what shows a job without the element; docs/frameworks.md
    "2": """<div hx-ext="sse, morph" hx-swap="morph:innerHTML"
        sse-connect="{}?as=html" sse-swap="message" sse-close="end"></div>""",
    "4": '<div hx-sse:connect="{}?as=html" hx-sse:close="end" hx-swap="innerMorph"></div>',
}
POLICY = "img-src 'self' data:; default-src 'self'"  # data: for the icon of the job's own page
app = Quart(__name__, static_folder="pages", static_url_path="")
headway = Headway(app)


@headway.task(title="Bread")
async def bake(progress: Progress, loaves: int) -> dict[str, int]:
    async for loaf in progress.track(range(1, loaves + 1), unit="loaf"):
        progress.note(f"Loaf {loaf} is in the oven")
        await asyncio.sleep(0.1)
    return {"loaves": loaves}


@app.post("/bake")
async def start():
    form = await request.form
    job = await bake.start(int(form["loaves"]))
    if "htmx" in form:
        return PLAIN[form["htmx"]].format(f"/jobs/{job.id}/events")
    return await headway.reply(job)  # for htmx the bar, for fetch() the document


@app.get("/baked")
async def baked():
    jobs = await headway.list(owner=await headway.visitor())
    return f"{sum(job.state == 'succeeded' for job in jobs)} done"


@app.get("/")
async def index():
    return await app.send_static_file("index.html")


@app.get("/<any(built, node_modules):folder>/<path:name>")
async def library(folder: str, name: str):
    return await send_from_directory(Path(__file__).parent / folder, name)


@app.after_request
async def strict(response: Response) -> Response:
    # Vue compiles a template that stands in a page by eval(); a build step has done it before.
    more = " 'unsafe-eval'" if request.path == "/vue.html" else ""
    response.headers.setdefault("Content-Security-Policy", POLICY + more)
    return response
