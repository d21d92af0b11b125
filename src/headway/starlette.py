"""Headway for Starlette: `Headway(app)`, or `Headway()` and `init_app(app)`.

Or piece by piece, for those who want to see all of it in one place:

    app = Starlette(
        routes=[headway.route, …],
        middleware=[…, Middleware(headway.middleware)],
        lifespan=headway.lifespan,
    )

What that cannot: cut the connection of a client that takes nothing; the server's own way to send
is known to `init_app()` only. The stream of such a client ends all the same.

Translates between Starlette and the neutral surface, and decides nothing. Answers are sent by our
own ASGI app, and never by a `StreamingResponse`: that one may hear of a client that has gone only
when it writes to it the next time, and waits for ever for one that takes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match, Mount

from headway import app as _app
from headway.asgi import App, Receive, Scope, Send, below, raw
from headway.http import Reply
from headway.http import Request as NeutralRequest
from headway.job import Job
from headway.patience import SEND

__all__ = ["Headway"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class Headway(_app.Headway):
    """`headway.Headway` for Starlette.

    `start()` knows the visitor of the current request, in routes, websockets, background tasks
    and threads; `identify`, `operator` and `rate_key` are given Starlette's request, with its
    `session` and `user` if the app has such middleware. `reply()` returns Starlette's response.
    What is raised as a `HeadwayError` and not caught becomes a problem document.

    In templates: `templates.env.globals["headway_bar"] = headway.bar`.

    Opens when the app has started, and closes before the app stops, so that jobs may use what
    the app's own lifespan holds. To start jobs there, open it there as well, `async with
    headway:`; openings are counted. Starlette runs the lifespan of the outermost app only: an
    app that is mounted in another one needs `async with headway:` in the lifespan of that one.
    What is used and not open answers 503, and the log says what is missing.

    Args:
        app: the app to extend now; or call `init_app()` later.
        options: as for `headway.Headway`.
    """

    def __init__(self, app: Starlette | None = None, **options: Any) -> None:
        super().__init__(**options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Starlette) -> None:
        """Mount the surface, open with the app, and make its requests known.

        Raises:
            RuntimeError: the app has already started.
        """
        self._enter(app)
        app.router.routes.insert(0, self.route)  # before those that match everything
        app.router.lifespan_context = _nested(app.router.lifespan_context, self.lifespan)

    def _enter(self, app: Starlette) -> None:
        if app.middleware_stack is not None:
            raise RuntimeError("this app has started already: call init_app() before it does")
        # The innermost: so `identify` finds what the others have put there, such as a session.
        app.user_middleware.append(Middleware(self.middleware))
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: _outermost(build())  # type: ignore[method-assign]

    @property
    def route(self) -> Mount:
        """The surface as a route: unlike a plain `Mount` it serves /jobs itself, too, where that
        one sends clients on to /jobs/."""
        return _Surface(self._settings.mount, self.asgi, name="headway")

    async def reply(
        self, job: Job, request: NeutralRequest | None = None, *, to: str | None = None
    ) -> Response:
        """As in `headway.Headway`; a Starlette response to the current request.

        Raises:
            BadInput: there is none, because the app is without `headway.middleware`.
        """
        if request is None:
            self._visiting()
        return cast("Response", await super().reply(job, request, to=to))

    def _response(self, reply: Reply) -> Response:
        assert isinstance(reply.body, bytes), "streams are sent by the surface itself"
        response = Response(reply.body, reply.status)
        length = [one for one in response.raw_headers if one[0] == b"content-length"]
        response.raw_headers = [*raw(reply.headers), *length]
        return response

    def _native(self, scope: Any) -> HTTPConnection:
        return Request(scope) if scope["type"] == "http" else HTTPConnection(scope)


def _outermost(stack: App) -> App:
    """Keep the server's `send`: only by it can the connection of a stuck client be cut."""

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault(SEND, send)
        await stack(scope, receive, send)

    return outermost


class _Surface(Mount):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or (inner := below(scope, self.path)) is None:
            return Match.NONE, {}
        outer = scope.get("app_root_path", scope.get("root_path", ""))
        return Match.FULL, {**inner, "app_root_path": outer, "endpoint": self.app}


def _nested(outer: Lifespan, inner: Lifespan) -> Lifespan:
    @asynccontextmanager
    async def both(app: Any) -> AsyncIterator[Any]:
        async with outer(app) as state, inner(app):
            yield state

    return both
