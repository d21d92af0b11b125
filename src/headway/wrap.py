"""Around an app: its requests become known to Headway, and the two open and close together.

Pure ASGI, and so for every framework. Knows nothing of jobs, and changes no request: an app that
is wrapped sees what it would see without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from headway.asgi import AnyApp, App, Message, Receive, Scope, Send, below, raw
from headway.moment import Moment

__all__ = ["Around", "Within", "Wrap"]

RETURN_S: Final = 1.0  # an app that has answered the shutdown may take so long to return
_STARTS: Final = {"http.response.start", "websocket.accept", "websocket.http.response.start"}

logger = logging.getLogger("headway")

Around = Callable[[Scope], AbstractContextManager[Moment]]
"""Makes a request the current one while it lasts."""


class Within:
    """Middleware: makes each request of *app* the current one, and answers our own errors.

    A `HeadwayError` that leaves *app* before its answer has begun becomes a problem document.

    Args:
        instead: also answer where *app* has made an answer 500 of a refusal of ours.
    """

    def __init__(self, app: AnyApp, around: Around, *, instead: bool = False) -> None:
        self._app = app
        self._around = around
        self._instead = instead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        with self._around(scope) as moment:
            sending = _Sending(send, moment, instead=self._instead)
            error: Exception | None = None
            try:
                await self._app(scope, receive, sending)
            except Exception as raised:
                error = raised
            if sending.refusal is not None:  # whatever the app has said, or raised, after that
                await sending.refusal(scope, receive, send)
            elif error is not None:
                refusal = None if sending.begun else moment.refusal(error)
                if refusal is None or scope["type"] != "http":
                    raise error
                await refusal(scope, receive, send)


class _Sending:
    """What the app sends, with our headers; or nothing of it, if we have to answer instead."""

    def __init__(self, send: Send, moment: Moment, *, instead: bool) -> None:
        self._send = send
        self._moment = moment
        self._instead = instead
        self.begun = False
        self.refusal: App | None = None

    async def __call__(self, message: Message) -> None:
        if self.refusal is not None:
            return
        if message["type"] in _STARTS and not self.begun:
            if self._instead and message.get("status") == 500:
                self.refusal = self._moment.refusal()
                if self.refusal is not None:
                    return
            self.begun = True
            if more := self._moment.headers():
                message = {**message, "headers": [*message.get("headers", []), *raw(more)]}
        await self._send(message)


class Wrap:
    """A whole ASGI app with the surface at *path*, and with requests that Headway knows of.

    Args:
        app: gets every other request, and the lifespan if it understands it.
        surface: the surface.
        lifespan: what to open between the app's start and its end.
    """

    def __init__(
        self, app: AnyApp, around: Around, surface: App, path: str, lifespan: Callable[[], Any]
    ) -> None:
        self._app = app
        self._within = Within(app, around, instead=True)
        self._surface = surface
        self._path = path
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and (inner := below(scope, self._path)) is not None:
            scope.update(inner)  # a copy would live as long as a stream does
            await self._surface(scope, receive, send)
        else:
            await self._within(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open when the app has started, close before it stops: jobs may use what it holds."""
        app, phase, error = _Life(self._app, scope), "startup", None
        await receive()
        try:
            said = await app.tell(phase)
            if not said["type"].endswith("failed"):
                try:
                    async with self._lifespan():
                        await send(said)
                        phase = "shutdown"
                        await receive()
                finally:
                    said = await app.tell("shutdown")
        except Exception as raised:
            error, said = raised, {"type": f"lifespan.{phase}.failed", "message": str(raised)}
        finally:
            await app.end()
        await send(said)  # the last act: hypercorn cancels us as soon as it has heard it
        if error is not None:
            raise error


class _Life:
    """The lifespan of an app, which may know of none."""

    def __init__(self, app: AnyApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._to: asyncio.Queue[Message] = asyncio.Queue()
        self._from: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def tell(self, what: str) -> Message:
        """What the app answers: "complete" for one that has no lifespan, or has left it."""
        self._stopping = what == "shutdown"
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="headway-wrapped-app")
        self._to.put_nowait({"type": f"lifespan.{what}"})
        answer = await self._from.get()
        if answer is None:
            self._from.put_nowait(None)
            return {"type": f"lifespan.{what}.complete"}
        return answer

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._to.get, self._from.put)
        except Exception as error:  # as for servers: an app that raises knows no lifespan
            logger.info("the wrapped app has no lifespan, or has left it: %r", error)
        finally:
            self._from.put_nowait(None)

    async def end(self) -> None:
        """Let it return; one that has failed to start may wait for ever."""
        if self._task is not None:
            if self._stopping:
                await asyncio.wait({self._task}, timeout=RETURN_S)
            self._task.cancel()
            await asyncio.wait({self._task})
