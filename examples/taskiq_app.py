"""Jobs in workers of their own, brought to them by taskiq; here through Redis.

Serve it with any ASGI server, and work for it: headway worker taskiq_app:headway
"""

import asyncio
import os

from quart import Quart
from taskiq_redis import RedisStreamBroker

from headway import Progress
from headway.engines.taskiq import TaskiqEngine
from headway.quart import Headway

broker = RedisStreamBroker(os.environ.get("BROKER_URL", "redis://localhost"))
app = Quart(__name__)
headway = Headway(app, engine=TaskiqEngine(broker))


@headway.task(on_lost="retry")
async def bake(progress: Progress, loaves: int) -> dict[str, int]:
    async for _ in progress.track(range(loaves), unit="loaf"):
        await asyncio.sleep(0.1)
    return {"loaves": loaves}


@app.get("/")
async def index():
    await headway.visitor()
    return '<form method="post"><button>Bake</button></form>'


@app.post("/")
async def start():
    return await headway.reply(await bake.using(key="mine").start(20))
