"""An ASGI app on a port of this machine, in the loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.apps.process import free_port

__all__ = ["served"]


@asynccontextmanager
async def served(app: Any, port: int | None = None) -> AsyncIterator[int]:
    """Serve *app*, which somebody else opens; gives the port."""
    port = port or free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=port, lifespan="off", log_level="critical", ws="none",
            timeout_graceful_shutdown=1,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving.done(), "the server ended at once"
            await asyncio.sleep(0.005)
        yield port
    finally:
        server.should_exit = True
        await serving
