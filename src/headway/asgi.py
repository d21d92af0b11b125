"""The surface as a plain ASGI app, to be mounted by any framework.

It sends by hand, and not through a framework's response: so it hears at once that a client went
away, and can give up one that takes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

from headway.http import Reply, Request

__all__ = ["Asgi"]

SEND_S: Final = 30.0  # a client that has taken nothing for so long is given up
BODY_BYTES: Final = 64 * 1024
QUERY_FIELDS: Final = 200

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Asgi:
    """Translates between ASGI and `Request` → `Reply`. Knows nothing of jobs.

    Args:
        answer: answers one request.
        lifespan: what to keep open while the app serves, if this is the whole app.
    """

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Reply]],
        lifespan: Callable[[], Any],
    ) -> None:
        self._answer = answer
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise RuntimeError(f"Headway serves http and lifespan, not {scope['type']!r}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = await self._answer(request_of(scope))
        headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers
        ]
        if isinstance(reply.body, bytes):
            headers.append((b"content-length", str(len(reply.body)).encode()))
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": reply.body})
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await _until_gone(_pour(reply.body, send), receive)


async def _pour(body: AsyncIterator[bytes], send: Send) -> None:
    async for chunk in body:
        async with asyncio.timeout(SEND_S):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(pouring: Any, receive: Receive) -> None:
    """Pour until the stream ends or the client goes; whichever comes first ends the other."""
    pour = asyncio.create_task(pouring)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({pour, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        pour.cancel()
        gone.cancel()
        await asyncio.wait({pour, gone})
    error = None if pour.cancelled() else pour.exception()
    # A client that takes nothing more, or has gone, is no error of ours.
    if error is not None and not isinstance(error, (TimeoutError, OSError)):
        raise error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def request_of(scope: Scope) -> Request:
    """What an ASGI scope says, as a `Request`; what cannot be understood is left out."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    base = scope.get("root_path", "")
    path = scope["path"]
    # Frameworks differ: some leave the mount in `path`, as the ASGI text says, and some do not.
    below = path.removeprefix(base) if base and path.startswith(base) else path
    return Request(
        method=scope["method"],
        path=below or "/",
        base=base,
        headers=headers,
        query=query_of(scope.get("query_string", b"")),
        cookies=cookies_of(headers.get("cookie")),
        native=scope,
    )


def query_of(raw: bytes) -> dict[str, list[str]]:
    """The fields of a query string; too many of them, or nonsense, are none."""
    try:
        return parse_qs(raw.decode("latin-1"), max_num_fields=QUERY_FIELDS, keep_blank_values=True)
    except ValueError:
        return {}


def cookies_of(header: str | None) -> dict[str, str]:
    """The cookies of a header; a malformed header has none."""
    try:
        return {name: one.value for name, one in SimpleCookie(header or "").items()}
    except CookieError:
        return {}
