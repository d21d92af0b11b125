"""The lifespan of any ASGI app, spoken as servers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class LifespanFailed(Exception):
    """The app has said so; its message is ours."""


@asynccontextmanager
async def lived(app: AsgiApp) -> AsyncIterator[dict[str, Any]]:
    """Start the app, and stop it in the end; gives the state that it has left for its requests.

    Raises:
        LifespanFailed: the app told that it cannot start, or could not stop.
    """
    to: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}

    async def serve() -> None:
        try:
            await app(scope, to.get, said.put)
        except Exception:
            said.put_nowait({"type": "lifespan.raised", "message": "raised"})
            raise

    async def tell(what: str) -> None:
        await to.put({"type": f"lifespan.{what}"})
        answer = await said.get()
        if answer["type"] != f"lifespan.{what}.complete":
            raise LifespanFailed(f"{answer['type']}: {answer.get('message', '')}")

    life = asyncio.create_task(serve())
    try:
        await tell("startup")
        yield state
        await tell("shutdown")
    finally:
        life.cancel()
        await asyncio.wait({life})
        if not life.cancelled():
            life.exception()  # it was told in a message


@asynccontextmanager
async def visiting(app: AsgiApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, while it lives."""
    transport = httpx.ASGITransport(app)
    async with lived(app), httpx.AsyncClient(transport=transport, base_url="http://s") as client:
        yield client
