"""The demo's routes: the page, the starts, the files.

The page works without JavaScript. Its script only saves the reload, and takes what it shows from
this same page.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from quart import Quart, Response, abort, render_template, send_file
from quart.typing import ResponseReturnValue

from headway.demo.kinds import FULL, Sizes, register
from headway.demo.shelf import FILES, Shelf
from headway.errors import JobNotFound, StoreError
from headway.job import Job
from headway.quart import Headway
from headway.secret import kept_secret
from headway.settings import STATE_DIR

__all__ = ["build"]

JOBS_SHOWN: Final = 8
HEADERS: Final = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
FILE_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"


def build(*, sizes: Sizes = FULL, **options: Any) -> Quart:
    """Make the app. See `headway.demo.make_app`."""
    app = Quart("headway.demo")
    shelf = Shelf()
    app.extensions["headway_demo"] = shelf
    app.while_serving(_while_open(shelf))  # before Headway, so that it closes after it
    folder = options.setdefault("state_dir", Path.cwd() / STATE_DIR)
    app.secret_key = kept_secret(Path(folder))  # so that it runs on a store of one's own, too
    _Routes(Headway(app, **options), shelf, sizes).add_to(app)
    return app


def _while_open(shelf: Shelf) -> Any:
    async def serving() -> AsyncGenerator[None, None]:
        shelf.open()
        yield
        shelf.close()

    return serving


class _Routes:
    def __init__(self, headway: Headway, shelf: Shelf, sizes: Sizes) -> None:
        self._headway = headway
        self._shelf = shelf
        self._kinds = register(headway, shelf, sizes)

    def add_to(self, app: Quart) -> None:
        app.add_url_rule("/", "index", self.index)
        app.add_url_rule("/start/<name>", "start", self.start, methods=["POST"])
        app.add_url_rule(f"{FILES}/<job_id>/<name>", "file", self.file)
        app.register_error_handler(StoreError, _no_store)
        app.add_template_filter(_shown, "shown")
        app.after_request(_guarded)

    async def index(self) -> str:
        # Names a new visitor now, so that the very first two starts belong to the same one.
        visitor = await self._headway.visitor()
        jobs = await self._headway.list(owner=visitor, limit=JOBS_SHOWN) if visitor else []
        entries = [(job, self._outcome(job)) for job in jobs]
        return await render_template("index.html", kinds=self._kinds.values(), entries=entries)

    async def start(self, name: str) -> ResponseReturnValue:
        if (kind := self._kinds.get(name)) is None:
            abort(404)
        if not self._headway.same_origin():
            abort(403)
        job = await kind.start()
        reply: Response = await self._headway.reply(job, to=f"/#job-{job.id}")
        return reply

    async def file(self, job_id: str, name: str) -> Response:
        try:
            job = await self._headway.mine(job_id)
        except JobNotFound:
            abort(404)
        if all(link["name"] != name for link in _links(job)):
            abort(404)
        if (path := self._shelf.find(job.id, name)) is None:
            abort(410)
        picture = name.endswith(".png")
        kind = "image/png" if picture else "application/octet-stream"
        response = await send_file(path, mimetype=kind, as_attachment=not picture)
        response.headers["Cache-Control"] = HEADERS["Cache-Control"]
        response.headers["Content-Security-Policy"] = FILE_POLICY
        if picture:
            response.headers["Content-Disposition"] = f"inline; filename={name}"
        return response

    def _outcome(self, job: Job) -> dict[str, Any] | None:
        if not isinstance(job.result, dict) or "facts" not in job.result:
            return None
        gone = any(self._shelf.find(job.id, link["name"]) is None for link in _links(job))
        return {**job.result, "gone": gone}


def _links(job: Job) -> list[dict[str, Any]]:
    """The files that a job has left, according to its result."""
    files = job.result.get("files") if isinstance(job.result, dict) else None
    return files if isinstance(files, list) else []


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


async def _guarded(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _no_store(_: StoreError) -> ResponseReturnValue:
    text = "The job store does not answer. Nothing is lost: try again in a moment.\n"
    return text, 503, {"Content-Type": "text/plain; charset=utf-8", "Retry-After": "2"}
