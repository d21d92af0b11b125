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
from headway import pages
from headway._link import url_of
from headway.document import document
from headway.errors import JobNotFound
from headway.http import Reply, Request, from_here
from headway.job import EVERYONE, Job
from headway.settings import STATE_DIR
from headway.tokens import (
    COOKIE,
    COOKIE_MAX_AGE_S,
    new_visitor,
    sign_visitor,
)

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
        self._settings = replace(self._settings, **_options(app, self._given))
        app.extensions["headway"] = self
        app.register_blueprint(self._blueprint())
        app.while_serving(self._serving)
        app.after_request(self._remember)
        app.jinja_env.globals["headway_bar"] = self.bar

    def bar(self, job: Job, **attributes: str | bool) -> Markup:
        """The bar of *job* as HTML, with the script it needs; `headway_bar(job)` in templates.

        Args:
            job: as of now; the page shows it before any script has run.
            attributes: of the element, such as `label="Export"`.
        """
        found = document(job, self._settings.mount, may_cancel=job.owner != EVERYONE)
        return Markup(pages.script(self._settings.mount) + pages.bar(found, attributes))  # noqa: S704

    async def reply(
        self, job: Job, request_: Request | None = None, *, to: str | None = None
    ) -> Any:
        """The response to the request that started *job*.

        202 with the status document for a client; for a form 303 to the job's page, or to *to*.
        """
        return _response(self._reply(job, request_ or self._request("/"), to))

    async def visitor(self) -> str | None:
        """Who asks now. A new visitor gets a name, and the cookie that carries it.

        Call it on the page with the start button: then even the first double click is one job.
        """
        return await self._owner()

    async def mine(self, job_id: str) -> Job:
        """The job, if who asks now may watch it; for routes of the app about jobs. One round trip.

        Raises:
            JobNotFound: there is no such job, or it is someone else's.
        """
        viewer = await self._who(self._request("/"))
        job = await self.get(job_id)
        if not viewer.may_watch(job):
            raise JobNotFound(job_id)
        return job

    def same_origin(self) -> bool:
        """False if a browser sends the current request on behalf of another site."""
        return from_here(self._request("/"))

    async def _serving(self) -> AsyncGenerator[None, None]:
        async with self:
            yield

    # ── requests ──────────────────────────────────────────────────────────────────────────────

    def _blueprint(self) -> Blueprint:
        blueprint = Blueprint("headway", "headway", url_prefix=self._settings.mount)
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        for rule in ("", "/", "/<path:path>"):
            blueprint.add_url_rule(
                rule, "answer", self._view, methods=methods, strict_slashes=False
            )
        return blueprint

    async def _view(self, path: str = "") -> Response:
        return _response(await self._api.answer(self._request(f"/{path}")))

    def _request(self, path: str) -> Request:
        return Request(
            method=request.method,
            path=path,
            base=f"{request.root_path.rstrip('/')}{self._settings.mount}",
            headers={name.lower(): value for name, value in request.headers.items()},
            query={name: request.args.getlist(name) for name in request.args},
            cookies=request.cookies,
            native=cast("QuartRequest", request._get_current_object()),  # type: ignore[attr-defined]
        )

    # ── visitors ──────────────────────────────────────────────────────────────────────────────

    async def _owner(self) -> str | None:
        if not has_request_context():
            return None
        viewer = await self._who(self._request("/"))
        if viewer.owner is not None or self._settings.identify is not None:
            return viewer.owner
        if "headway_visitor" not in g:
            g.headway_visitor = new_visitor()
        return cast("str", g.headway_visitor)

    async def _remember(self, response: Response) -> Response:
        """Give a visitor who has just started a first job the cookie that makes it theirs."""
        if (visitor := g.get("headway_visitor")) is not None:
            response.set_cookie(
                COOKIE,
                sign_visitor(visitor, self._keys),
                max_age=COOKIE_MAX_AGE_S,
                httponly=True,
                samesite="Lax",
                secure=request.is_secure,
            )
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


def _response(reply: Reply) -> Response:
    response = Response(reply.body, status=reply.status)
    response.headers.clear()
    for name, value in reply.headers:
        response.headers.add(name, value)
    if isinstance(reply.body, bytes):
        if reply.status not in _BODILESS:
            response.content_length = len(reply.body)
    else:
        response.timeout = None  # else Quart cuts a stream off, or leaves it hanging, after 60 s
    return response
