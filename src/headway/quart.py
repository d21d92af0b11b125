"""Headway for Quart: `Headway(app)`, or `Headway()` and `init_app(app)`.

Translates between Quart and the neutral surface, and decides nothing. Only Quart's documented
hooks are used, so that one code base serves 0.22 and 0.23.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from markupsafe import Markup
from quart import Blueprint, Quart, Response, g, has_request_context, request
from quart import Request as QuartRequest

from headway import app as _app
from headway._link import url_of
from headway.access import Visit
from headway.errors import HeadwayError
from headway.http import Reply, Request
from headway.job import Job
from headway.problems import Refused
from headway.settings import STATE_DIR

__all__ = ["Headway"]

CONFIG: Final = ("url", "prefix", "state_dir", "secret", "lease_s", "drain_s", "keep_s", "path")
_BODILESS: Final = frozenset({204, 304})
ENVIRONMENT: Final = ("url", "prefix", "state_dir", "secret")


class Headway(_app.Headway):
    """`headway.Headway` as a Quart extension.

    Options are arguments here, else `app.config["HEADWAY_URL"]` and the like, else, for url,
    prefix, state_dir and secret, environment variables of the same names. The app's SECRET_KEY
    signs visitors' cookies if no secret is given. In this door `start()` knows the visitor of
    the current request, and `identify` and `operator` are given Quart's request.

    Args:
        app: the app to extend now; or call `init_app()` later.
        options: as for `headway.Headway`.
    """

    def __init__(self, app: Quart | None = None, **options: Any) -> None:
        self._given = options
        super().__init__(**options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        """Mount the surface, open with the app, and give templates `headway_bar(job)`."""
        self._settle(replace(self._settings, **_options(app, self._given)))
        self._serves = True
        app.extensions["headway"] = self
        app.register_blueprint(self._blueprint())
        app.while_serving(self._serving)
        app.after_request(self._remember)
        app.register_error_handler(HeadwayError, self._refused)
        app.register_error_handler(Refused, self._refused)
        app.jinja_env.globals["headway_bar"] = self.bar

    def bar(self, job: Job, **attributes: str | bool) -> Markup:
        """As in `headway.Headway`; in templates `{{ headway_bar(job) }}`."""
        return Markup(super().bar(job, **attributes))  # noqa: S704

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
        return Request(
            method=request.method,
            path=path,
            base=f"{request.root_path.rstrip('/')}{self._settings.mount}",
            headers={name.lower(): value for name, value in request.headers.items()},
            query={name: request.args.getlist(name) for name in request.args},
            cookies=request.cookies,
            secure=request.is_secure,
            native=cast("QuartRequest", request._get_current_object()),  # type: ignore[attr-defined]
        )

    # ── visitors ──────────────────────────────────────────────────────────────────────────────

    def _current(self) -> Visit | None:
        if (visit := super()._current()) is not None or not has_request_context():
            return visit
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
            if reply.status not in _BODILESS:
                response.content_length = len(reply.body)
        else:
            response.timeout = None  # else Quart cuts a stream off, or hangs, after 60 s
        return response


def _options(app: Quart, given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in CONFIG:
        key = f"HEADWAY_{name.upper()}"
        if given.get(name) is not None:
            continue
        if app.config.get(key) is not None:
            found[name] = app.config[key]
        elif name in ENVIRONMENT and os.environ.get(key):
            found[name] = os.environ[key]
    if "url" in found:
        found["url"] = url_of(found["url"])
    if given.get("state_dir") is None:
        found.setdefault("state_dir", Path(app.root_path) / STATE_DIR)
    if given.get("secret") is None and "secret" not in found and app.config.get("SECRET_KEY"):
        old = app.config.get("SECRET_KEY_FALLBACKS") or []
        found["secret"] = [*old, app.config["SECRET_KEY"]]
    return found
