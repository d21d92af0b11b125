"""Headway for Quart: `Headway(app)`, or `Headway()` and `init_app(app)`.

Translates between Quart and the neutral surface, and decides nothing. Only Quart's documented
hooks are used, so that one code base serves 0.22 and 0.23.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup
from quart import (
    Blueprint,
    Quart,
    Response,
    g,
    has_request_context,
    has_websocket_context,
    request,
    websocket,
)
from quart import Request as QuartRequest

from headway import app as _app
from headway import environment
from headway.access import Visit
from headway.errors import HeadwayError
from headway.http import BODILESS, Reply, Request
from headway.job import Job
from headway.patience import STREAM, Patient
from headway.problems import Refused
from headway.settings import STATE_DIR

__all__ = ["Headway"]


class Headway(_app.Headway):
    """`headway.Headway` as a Quart extension.

    Options are arguments here, else `app.config["HEADWAY_URL"]` and the like, else, for url,
    prefix, state_dir and secret, environment variables of the same names. The app's SECRET_KEY
    signs visitors' cookies if no secret is given. In this door `start()` knows the visitor of
    the current request, and `identify`, `operator` and `rate_key` are given Quart's request.

    In a websocket it knows a visitor who was named before: Quart lets nobody but the app itself
    add a cookie as it opens. So call `visitor()` on the page.

    Opens after the functions of `before_serving` and closes before those of `after_serving`, so
    that jobs may use what these hold. Of `while_serving` that holds for generators registered
    before `init_app()` only.

    Args:
        app: the app to extend now; or call `init_app()` later.
        options: as for `headway.Headway`.
    """

    def __init__(self, app: Quart | None = None, **options: Any) -> None:
        self._options = options
        super().__init__(**options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        """Mount the surface, open with the app, and give templates `headway_bar(job)`."""
        self._settle(_options(app, self._options))
        self._serves = True
        app.extensions["headway"] = self
        app.asgi_app = cast("Any", Patient(app.asgi_app))  # type: ignore[method-assign]
        app.register_blueprint(self._blueprint())
        app.while_serving(self._serving)
        app.after_request(self._remember)
        app.register_error_handler(HeadwayError, self._refused)
        app.register_error_handler(Refused, self._refused)
        app.jinja_env.globals["headway_bar"] = self.bar

    def bar(self, job: Job, **attributes: str | bool) -> Markup:
        """As in `headway.Headway`; in templates `{{ headway_bar(job) }}`."""
        return Markup(super().bar(job, **attributes))  # noqa: S704 - it is escaped

    async def _serving(self) -> AsyncGenerator[None, None]:
        async with self:
            yield

    # ── requests ──────────────────────────────────────────────────────────────────────────────

    def _blueprint(self) -> Blueprint:
        blueprint = Blueprint("headway", "headway", url_prefix=self._settings.mount)
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        for rule in ("", "/", "/<path:path>"):
            blueprint.add_url_rule(
                rule, "answer", self._view, methods=methods, strict_slashes=False
            )
        return blueprint

    async def _view(self, path: str = "") -> Response:
        return self._response(await self._answer(self._request(f"/{path}")))

    async def _refused(self, error: Exception) -> Response:
        response = self._refusal(error)
        if response is None:
            raise error
        return cast("Response", response)

    def _request(self, path: str) -> Request:
        asked: Any = request if has_request_context() else websocket
        native: QuartRequest = asked._get_current_object()  # or a Websocket, which has the same
        return Request(
            method=native.method,
            path=path,
            base=f"{native.root_path.rstrip('/')}{self._settings.mount}",
            headers={name.lower(): value for name, value in native.headers.items()},
            query={name: native.args.getlist(name) for name in native.args},
            cookies=native.cookies,
            secure=native.is_secure,
            native=native,
        )

    # ── visitors ──────────────────────────────────────────────────────────────────────────────

    def _current(self) -> Visit | None:
        if (visit := super()._current()) is not None:
            return visit
        if not has_request_context() and not has_websocket_context():
            return None
        if "headway_visit" not in g:
            g.headway_visit = Visit(self._request("/"))
        return cast("Visit", g.headway_visit)

    async def _remember(self, response: Response) -> Response:
        if (visit := g.get("headway_visit")) is not None:
            for name, value in self._cookies(visit):
                response.headers.add(name, value)
        return response

    def _response(self, reply: Reply) -> Response:
        response = Response(reply.body, status=reply.status)
        response.headers.clear()
        for name, value in reply.headers:
            response.headers.add(name, value)
        if isinstance(reply.body, bytes):
            if reply.status not in BODILESS:
                response.content_length = len(reply.body)
        else:
            response.timeout = None  # else Quart cuts a stream off, or hangs, after 60 s
            cast("dict[str, Any]", request.scope)[STREAM] = reply.body
        return response


def _options(app: Quart, options: dict[str, Any]) -> dict[str, Any]:
    given = {name for name, value in options.items() if value is not None}
    found = environment.found(given, app.config)
    if "state_dir" not in given:
        found.setdefault("state_dir", Path(app.root_path) / STATE_DIR)
    if "secret" not in given and "secret" not in found and app.config.get("SECRET_KEY"):
        old = app.config.get("SECRET_KEY_FALLBACKS") or []
        found["secret"] = [*old, app.config["SECRET_KEY"]]
    return found
