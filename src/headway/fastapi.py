"""Headway for FastAPI: `Headway(app)`, or `Headway()` and `init_app(app)`; or piece by piece:

    app.include_router(headway.router())
    app.add_middleware(headway.middleware)

The surface is a router and not a mount, so that the app's documents tell of it, and so that
dependencies of the app can stand before it. What its routes return is sent by our own ASGI app,
and never by a `StreamingResponse` or an `EventSourceResponse`; see `headway.starlette`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import APIRouter, FastAPI, Path, Request, Response
from starlette.applications import Starlette
from starlette.routing import NoMatchFound

from headway import starlette as _starlette
from headway.asgi import App, Receive, Scope, Send, below
from headway.errors import BadInput
from headway.job import Job
from headway.models import JobBatch, JobDocument, JobProblem
from headway.responses import STARTED, problems, told

__all__ = ["STARTED", "Headway", "JobBatch", "JobDocument", "JobProblem", "problems"]

_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_QUIET: Final = {"openapi", "static"}  # no client needs to be generated for these


class Headway(_starlette.Headway):
    """`headway.starlette.Headway`, with a router, dependencies and response models.

    A route that starts jobs documents its answers with `responses=STARTED`, one that asks for a
    job of its visitor with `responses=problems("not_found")`. `Depends(headway.owner)` is who
    asks, `Depends(headway.job)` the job of the path parameter `job_id`, if who asks may watch it.

    Of streams the app's document tells no more than that they are text: OpenAPI 3.1 has no words
    for their events. The surface's own document has.
    """

    def init_app(self, app: Starlette) -> None:
        """Include the router, and make the app's requests known.

        Raises:
            RuntimeError: the app has already started.
            TypeError: it is no FastAPI app.
        """
        if not isinstance(app, FastAPI):
            raise TypeError(f"{type(app).__name__} is not FastAPI: take headway.starlette")
        self._enter(app)
        routes = app.router.routes
        before = len(routes)
        app.include_router(self.router())
        routes[:] = [*routes[before:], *routes[:before]]  # before those that match everything

    def router(self) -> APIRouter:
        """The surface, at *path*; whoever includes it opens Headway with the app.

        Include it without a prefix: the addresses in documents, pages and `Location` begin with
        the option *path*, which may be "/api/jobs".
        """
        mount = self._settings.mount
        router = APIRouter(prefix=mount, lifespan=self._opened_with, tags=["jobs"])
        for one in told(mount, self._settings.limits):
            if one.name not in _QUIET:
                router.add_api_route(
                    one.path, self._answering, methods=[one.method], response_class=one.kind,
                    name=f"headway:{one.name}", operation_id=f"jobs_{one.name}",
                    summary=one.summary, status_code=one.status, responses=one.responses,
                    openapi_extra={"parameters": one.parameters},
                )  # fmt: skip
        # HEAD, OPTIONS, static files, and problem documents for what is not there.
        for path in ("", "/{path:path}"):
            router.add_api_route(path, self._answering, methods=_METHODS, include_in_schema=False)
        return router

    async def _answering(self, request: Request) -> Response:
        inner = below(request.scope, self._settings.mount)
        assert inner is not None, "checked as the app started"
        return _Ours(self.asgi, inner)

    @asynccontextmanager
    async def _opened_with(self, app: FastAPI) -> AsyncIterator[None]:
        try:
            here = str(app.url_path_for("headway:list"))
        except NoMatchFound:
            here = self._settings.mount
        if here != self._settings.mount:
            raise BadInput(
                f"headway.router() is included at {here!r}, and its links lead to "
                f"{self._settings.mount!r}: say Headway(path={here!r}), and include it without a "
                "prefix"
            )
        async with self.lifespan(app):
            yield

    # ── dependencies ──────────────────────────────────────────────────────────────────────────

    async def owner(self) -> str | None:
        """Who asks, for `Annotated[str | None, Depends(headway.owner)]`; see `visitor()`."""
        return await self.visitor()

    async def job(self, job_id: Annotated[str, Path(description="The job.")]) -> Job:
        """The job *job_id* of the path, for `Annotated[Job, Depends(headway.job)]`; see `mine()`.

        Raises:
            JobNotFound: there is no such job, or it is someone else's: a 404.
        """
        return await self.mine(job_id)


class _Ours(Response):
    """What the surface answers, sent by itself."""

    def __init__(self, asgi: App, inner: Scope) -> None:
        super().__init__()
        self._asgi = asgi
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi({**scope, **self._inner}, receive, send)
        if self.background is not None:  # of a dependency of the app
            await self.background()
