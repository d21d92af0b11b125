"""A proxy like those between some offices and the world: it collects a body before it passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ["holding_back"]


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hold: bytes | None = None
) -> None:
    """Pass on what comes, until a head has *hold* in it: of that nothing, not even its head."""
    try:
        while data := await reader.read(65_536):
            if hold and hold in data.partition(b"\r\n\r\n")[0]:
                await reader.read(-1)
                return
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def holding_back(url: str) -> AsyncIterator[str]:
    """Serve the site at *url* through the proxy; gives the proxy's own URL."""
    upstream = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection(upstream.hostname, upstream.port)
        there = _pass(reader, theirs[1])
        back = _pass(theirs[0], writer, hold=b"text/event-stream")
        tasks.update(map(asyncio.create_task, (there, back)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
