"""Patience with clients, and its end: a stream whose client takes nothing is given up.

Each piece of a stream is sent within a time. Then the connection is cut, as far as the server lets
us, so that it holds up neither memory nor the server's stop. Knows nothing of jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from headway.context import extra
from headway.http import Pieces

__all__ = ["SEND", "STREAM", "Message", "Patient", "Receive", "Send", "deliver"]

STREAM: Final = "headway.stream"  # where a door leaves the stream of a request, in its scope
SEND: Final = "headway.send"  # and the server's own `send`, if a framework stands before it
STEPS: Final = 4  # from what sends down to the connection; three, in hypercorn
CANCEL_S: Final = 1.0  # a framework that hears of a disconnect cancels what sends; at once, mostly

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

logger = logging.getLogger("headway.patience")


async def deliver(pieces: Pieces, scope: Message, send: Send, message: Message) -> None:
    """Send one message of a stream.

    Raises:
        TimeoutError: the client takes nothing, and was given up.
    """
    try:
        async with pieces.patience():
            await send(message)
    except TimeoutError:
        cut = scope.get("http_version", "").startswith("1") and _cut(scope.get(SEND, send))
        logger.info(
            "a client takes nothing of its stream, and is given up%s",
            "" if cut else "; its connection is left to the server",
            extra=extra("give_up"),
        )
        await asyncio.sleep(0)  # lets the server see that the connection is gone
        raise


def _cut(send: Send) -> bool:
    """Cut the connection under *send*. A polite end would wait for what nobody takes.

    By looking at the insides of uvicorn and hypercorn; False where that shows nothing.
    """
    owner: Any = getattr(send, "__self__", None)
    for _ in range(STEPS):
        if owner is None:
            return False
        connection = getattr(owner, "writer", owner)
        abort = getattr(getattr(connection, "transport", None), "abort", None)
        if callable(abort):
            abort()
            return True
        owner = getattr(getattr(owner, "send", None), "__self__", None)
    return False


class Patient:
    """A whole ASGI app whose streams are given up, for frameworks that send by themselves.

    Such an app leaves its stream in the scope. When a client takes nothing, the app is told that
    it went away, which every framework understands; and when the app has dealt with the request,
    whatever came of it, the stream is closed.
    """

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        talk = _Talk(scope, receive, send)
        try:
            await self._app(scope, talk.receive, talk.send)
        finally:
            if (stream := scope.get(STREAM)) is not None:
                await stream.aclose()


class _Talk:
    """What one request hears and says."""

    __slots__ = ("_given_up", "_listener", "_receive", "_scope", "_send")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._listener: asyncio.Task[Any] | None = None
        self._given_up = False

    async def send(self, message: Message) -> None:
        stream: Pieces | None = self._scope.get(STREAM)
        if stream is None:
            await self._send(message)
            return
        try:
            await deliver(stream, self._scope, self._send, message)
        except TimeoutError:
            self._given_up = True
            if self._listener is not None:
                self._listener.cancel()
            await asyncio.sleep(CANCEL_S)
            raise OSError("the client takes nothing") from None

    async def receive(self) -> Message:
        if self._given_up:
            return {"type": "http.disconnect"}
        self._listener = listener = asyncio.current_task()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self._woken() or listener is None:
                raise
            listener.uncancel()
            return {"type": "http.disconnect"}
        finally:
            self._listener = None

    def _woken(self) -> bool:
        return self._given_up
