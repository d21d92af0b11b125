"""The surface as a plain ASGI app, to be mounted by any framework, or wrapped around a whole app.

It sends by hand, and not through a framework's response: so it hears at once that a client went
away, and can give up one that takes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

from headway.http import Reply, Request

__all__ = ["App", "Asgi", "Wrap", "request_of"]

SEND_S: Final = 30.0  # a client that has taken nothing for so long is given up
BODY_BYTES: Final = 64 * 1024
QUERY_FIELDS: Final = 200

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Asgi:
    """Translates between ASGI and `Request` → `Reply`. Knows nothing of jobs.

    Args:
        answer: answers one request.
        lifespan: what to keep open while the app serves, if this is the whole app.
        native: makes of a scope what the app's own `identify` is given.
    """

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Reply]],
        lifespan: Callable[[], Any],
        native: Callable[[Scope], Any],
    ) -> None:
        self._answer = answer
        self._lifespan = lifespan
        self._native = native

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
        reply = await self._answer(request_of(scope, self._native(scope)))
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


class Wrap:
    """A whole ASGI app with the surface at *path*, and with requests that Headway knows of.

    Args:
        app: gets every other request, and the lifespan if it understands it.
        surface: the surface.
        around: given the scope of a request to *app*, stands around its handling, and gives what
            tells the headers to add to the answer.
    """

    def __init__(
        self,
        app: App,
        surface: App,
        path: str,
        lifespan: Callable[[], Any],
        around: Callable[[Scope], AbstractContextManager[Callable[[], list[tuple[str, str]]]]],
    ) -> None:
        self._app = app
        self._surface = surface
        self._path = path
        self._lifespan = lifespan
        self._around = around

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if scope["type"] == "http" and (inner := self._below(scope)) is not None:
            await self._surface(inner, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._around(scope) as more:

            async def sending(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    added = [(n.lower().encode(), v.encode("latin-1")) for n, v in more()]
                    message = {**message, "headers": [*message.get("headers", []), *added]}
                await send(message)

            await self._app(scope, receive, sending)

    def _below(self, scope: Scope) -> Scope | None:
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root) if root else scope["path"]
        if path != self._path and not path.startswith(f"{self._path}/"):
            return None
        return {**scope, "root_path": f"{root}{self._path}"}

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open before the app starts, close after it has stopped; it may know no lifespan."""
        queue: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        await receive()
        try:
            async with self._lifespan():
                inner = asyncio.create_task(_awaited(self._app(scope, queue.get, said.put)))
                started = await _tell(inner, queue, said, "lifespan.startup")
                if started is not None and started["type"].endswith("failed"):
                    await send(started)
                    return
                await send({"type": "lifespan.startup.complete"})
                await receive()
                stopped = await _tell(inner, queue, said, "lifespan.shutdown")
                await _end(inner)
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send(stopped or {"type": "lifespan.shutdown.complete"})


async def _awaited(one: Awaitable[None]) -> None:
    await one


async def _tell(
    inner: asyncio.Task[None],
    queue: asyncio.Queue[MutableMapping[str, Any]],
    said: asyncio.Queue[MutableMapping[str, Any]],
    what: str,
) -> MutableMapping[str, Any] | None:
    """What the app answers to *what*; None if it has no lifespan, and has ended over it."""
    if inner.done():
        return None
    await queue.put({"type": what})
    answer = asyncio.create_task(said.get())
    await asyncio.wait({inner, answer}, return_when=asyncio.FIRST_COMPLETED)
    if answer.done():
        return answer.result()
    answer.cancel()
    # As servers do: an app that raises over the word "lifespan" has none.
    inner.exception()
    return None


async def _end(inner: asyncio.Task[None]) -> None:
    await asyncio.wait({inner}, timeout=1.0)
    inner.cancel()


def request_of(scope: Scope, native: Any) -> Request:
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
        secure=scope.get("scheme") == "https",
        native=native,
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
