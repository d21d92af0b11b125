"""The surface as a plain ASGI app, to be mounted by any framework.

It sends by hand, and not through a framework's response: so it hears at once that a client went
away, and can give up one that takes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from typing import Any, Final
from urllib.parse import parse_qs

from headway.http import BODILESS, Pieces, Reply, Request
from headway.patience import Message, Receive, Send, deliver

__all__ = [
    "Answer",
    "AnyApp",
    "App",
    "Asgi",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "below",
    "raw",
    "request_of",
]

QUERY_FIELDS: Final = 2_000

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
AnyApp = Callable[..., Awaitable[None]]
"""An app as frameworks type it, each in its own words."""


class Answer(Reply):
    """A reply that sends itself: an ASGI app for one request. Litestar and others return it."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. A stream is sent until it ends or the client goes."""
        if not isinstance(self.body, bytes):
            async with aclosing(self.body) as pieces:
                await send(self._start())
                await _pour(pieces, scope, receive, send)
            return
        # What has no body has no length either; 0 would say that GET gives nothing.
        counts = self.status not in BODILESS and scope["method"] != "HEAD"
        await send(self._start(len(self.body) if counts else None))
        await send({"type": "http.response.body", "body": self.body})

    def _start(self, length: int | None = None) -> Message:
        headers = raw(self.headers)
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        return {"type": "http.response.start", "status": self.status, "headers": headers}


def raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


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
            reply = await self._answer(request_of(scope, self._native(scope)))
            await Answer(reply.status, reply.headers, reply.body)(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})  # before it was accepted: a 403
        else:
            raise RuntimeError(f"Headway serves http and lifespan, not {scope['type']!r}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception as error:
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


async def _pour(pieces: Pieces, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a stream until it ends, or the client goes: which is no error of ours, nor is a client
    that takes nothing more."""
    kind = "http.response.body"
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(None) as here:
            gone = asyncio.create_task(_gone(receive))
            gone.add_done_callback(lambda gone: None if gone.cancelled() else here.reschedule(0))
            try:
                async for piece in pieces:
                    message = {"type": kind, "body": piece, "more_body": True}
                    await deliver(pieces, scope, send, message)
                await deliver(pieces, scope, send, {"type": kind, "body": b""})
            finally:
                gone.cancel()
                await asyncio.wait({gone})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def below(scope: Scope, mount: str) -> Scope | None:
    """What changes in the scope of an app for what is mounted in it; None for other addresses."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if path == root or path.startswith(f"{root}/"):  # servers differ in what they leave in it
        path = path[len(root) :]
    if path != mount and not path.startswith(f"{mount}/"):
        return None
    return {"root_path": f"{root}{mount}", "path": f"{root}{path}"}


def request_of(scope: Scope, native: Any) -> Request:
    """What an ASGI scope says, as a `Request`; what cannot be understood is left out.

    The scope may be that of a websocket, too: it begins as a GET.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        between = "; " if key == "cookie" else ", "  # HTTP/2 may bring each cookie by itself
        headers[key] = f"{headers[key]}{between}{text}" if key in headers else text
    base = scope.get("root_path", "")
    path = scope["path"]
    # Frameworks differ: some leave the mount in `path`, as the ASGI text says, and some do not.
    below = path.removeprefix(base) if base and path.startswith(base) else path
    return Request(
        method=scope.get("method", "GET"),
        path=below or "/",
        base=base,
        headers=headers,
        query=query_of(scope.get("query_string", b"")),
        cookies=cookies_of(headers.get("cookie")),
        secure=scope.get("scheme") in {"https", "wss"},
        native=native,
    )


def query_of(raw: bytes) -> dict[str, list[str]]:
    """The fields of a query string; what comes after very many of them is not looked at."""
    fields = raw.decode("latin-1").split("&", QUERY_FIELDS)[:QUERY_FIELDS]
    return parse_qs("&".join(fields), keep_blank_values=True)


def cookies_of(header: str | None) -> dict[str, str]:
    """The cookies of a header; of several with one name the first, which fits the path best.

    Not by `http.cookies`: what one app of the site has put into its cookie must not hide ours.
    """
    found: dict[str, str] = {}
    for part in (header or "").split(";"):
        name, equals, value = part.strip().partition("=")
        if name and equals:
            found.setdefault(name, value.strip('"'))
    return found
