"""A proxy like those between some offices and the world: it collects a body before it passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Proxy", "holding_back"]

STREAM = b"text/event-stream"


@dataclass
class Proxy:
    """Where it is, and whether it holds streams back."""

    url: str = ""
    holds: bool = True


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: Proxy, *, back: bool
) -> None:
    """Pass on what comes; of an answer that is a stream nothing, not even its head."""
    try:
        while data := await reader.read(65_536):
            if back and proxy.holds and STREAM in data.partition(b"\r\n\r\n")[0]:
                await reader.read(-1)
                return
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def holding_back(url: str) -> AsyncIterator[Proxy]:
    """Serve the site at *url* through the proxy."""
    upstream, proxy = urlsplit(url), Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection(upstream.hostname, upstream.port)
        there = _pass(reader, theirs[1], proxy, back=False)
        back = _pass(theirs[0], writer, proxy, back=True)
        tasks.update(map(asyncio.create_task, (there, back)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
