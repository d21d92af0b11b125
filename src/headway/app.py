"""`Headway`: tasks and jobs, and the web around them.

It knows requests only as `Request`. Doors subclass it to translate to and from a framework; by
itself it serves every ASGI app through `wrap()`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final

from headway import environment, moment, pages
from headway._address import url_of
from headway.access import SHARE, Access, Visit
from headway.api import Api
from headway.asgi import Answer, AnyApp, Asgi, Scope, request_of
from headway.context import About, about, current_about
from headway.document import document
from headway.engine import Engine
from headway.errors import BadInput, HeadwayError, JobNotFound, NotOpen
from headway.gate import Asker
from headway.http import Reply, Request, from_here, idempotency_key
from headway.job import Job
from headway.limits import Limits
from headway.moment import Moment
from headway.notice import notice
from headway.problems import Refused, problem_of
from headway.secret import kept_secret, weak
from headway.service import Service
from headway.settings import CONCURRENCY, DRAIN_S, KEEP_S, LEASE_S, PREFIX, Ask, Settings
from headway.task import Start
from headway.tokens import Viewer
from headway.wrap import Within, Wrap

__all__ = ["Headway"]

SHARE_S: Final = 86_400.0

logger = logging.getLogger("headway")


class Headway(Service):
    """Runs tasks behind an async web app and shows how far they are.

    Open it in the app's lifespan (the doors do) or with `async with headway:`. Tasks may be
    registered before and after. If it serves, url, prefix, state_dir and secret that are not
    given are read from HEADWAY_URL, HEADWAY_PREFIX, HEADWAY_STATE_DIR and HEADWAY_SECRET.

    Args:
        url: where the store is: redis://, rediss://, valkey:// or unix://. None starts the
            embedded Valkey, or joins the one that another process of this app has started.
        prefix: begins every key, "headway" by default; apps that share a store need one each.
        state_dir: where the embedded Valkey and the generated secret live; by default
            `.headway` in the working directory.
        engine: where jobs run, such as a `TaskiqEngine`; None makes a `LocalEngine`, which runs
            them in this process.
        identify: tells who asks: given the request, returns the owner's name or None for
            nobody. May be async. Without it every visitor gets a signed cookie.
        operator: tells whether who asks may see and cancel the jobs of all; may be async.
        rate_key: tells whose starts are counted together for `Limits.starts_per_minute`, such as
            the client's address; may be async. By default the owner's.
        secret: signs visitors' cookies and shared links; several, oldest first, to change it
            without logging visitors out. None, with the embedded Valkey, generates one and keeps
            it in *state_dir*; with a store of your own it has to be given.
        origins: other origins whose pages may use the surface, like "https://app.example". None
            by default.
        limits: what strangers and tasks may send and hold.
        lease_s: seconds after which a silent process is taken for dead.
        drain_s: seconds that running jobs get when the server stops. Then they are handed over
            (on_lost="retry") or fail honestly.
        keep_s: seconds that ended jobs are kept.
        concurrency: jobs that run at a time, in this process or in each worker of its engine.
        path: where the surface is mounted.

    Raises:
        BadInput: an option is out of its range.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        engine: Engine | None = None,
        identify: Ask | None = None,
        operator: Ask | None = None,
        rate_key: Ask | None = None,
        secret: str | bytes | Sequence[str | bytes] | None = None,
        origins: Sequence[str] = (),
        limits: Limits | None = None,
        lease_s: float = LEASE_S,
        drain_s: float = DRAIN_S,
        keep_s: float = KEEP_S,
        concurrency: int = CONCURRENCY,
        path: str = "/jobs",
    ) -> None:
        settings = Settings(
            url=url_of(url) if url else None,
            prefix=PREFIX if prefix is None else prefix,
            state_dir=state_dir,
            engine=engine,
            identify=identify,
            operator=operator,
            rate_key=rate_key,
            secret=secret,
            origins=tuple(origins),
            limits=limits or Limits(),
            lease_s=lease_s,
            drain_s=drain_s,
            keep_s=keep_s,
            concurrency=concurrency,
            path=path,
        )
        super().__init__(settings)
        said = {"url": url, "prefix": prefix, "state_dir": state_dir, "secret": secret}
        self._given = {name for name, value in said.items() if value is not None}
        self._access = Access(settings)
        self._api = Api(self, self._access, self.streams, settings)
        self._asgi = Asgi(self._answer, self.lifespan, self._native)
        self._serves = False

    def _settle(self, found: dict[str, Any]) -> None:
        """Take the options that a door has found in the app's own settings."""
        self._given |= found.keys()
        self._settings = settings = replace(self._settings, **found)
        self._access = Access(settings)
        self._api = Api(self, self._access, self.streams, settings)

    # ── serving ───────────────────────────────────────────────────────────────────────────────

    @property
    def asgi(self) -> AnyApp:
        """The surface as an ASGI app; mount it at *path*."""
        self._serve()
        return self._asgi

    def wrap(self, app: AnyApp) -> AnyApp:
        """Around a whole ASGI app, for frameworks without a door: Litestar, Django and others.

        Serves the surface at *path*, before the app and its middleware see the request. Opens
        when the app has started, and closes before the app stops, so that jobs may use what the
        app holds; an app without a lifespan is served, too. `start()` in the app's routes and
        websockets knows who asks.

        What `start()`, `mine()` and `reply()` refuse is answered with a problem document, even
        where the framework has made an answer 500 of it. For what other calls raise (`cancel()`,
        `get()`), the framework's own way with errors is asked: no more can be known from outside.
        """
        return Wrap(app, self._around, self.asgi, self._settings.mount, self.lifespan)

    def middleware(self, app: AnyApp) -> AnyApp:
        """ASGI middleware, for frameworks that mount `asgi` themselves: `start()` and `visitor()`
        know the current request. Let it be the innermost, so that `identify` sees what the
        others have found out."""
        self._serve()
        return Within(app, self._around)

    def _serve(self) -> None:
        """From now on it serves, and needs what signs; at the latest when it opens."""
        if self._runtime is not None and not self._serves:
            late = environment.found({*self._given, "url", "prefix", "state_dir"})
            self._settings = replace(self._settings, **late)
            self._access.keys = self._secrets()
        self._serves = True

    def _around(self, scope: Scope) -> AbstractContextManager[Moment]:
        def understand() -> Request:
            request = request_of(scope, self._native(scope))
            return replace(request, base=f"{request.base.rstrip('/')}{self._settings.mount}")

        return moment.entered(Moment(self, understand, self._cookies, self._refusal))

    def _cookies(self, visit: Visit) -> list[tuple[str, str]]:
        """The header that gives a new visitor the cookie that makes the first job theirs."""
        cookie = self._access.set_cookie(visit)
        if cookie is None:
            return []
        # A shared cache that kept this answer would make one visitor of all.
        return [("Set-Cookie", cookie), ("Cache-Control", "private"), ("Vary", "Cookie")]

    async def _answer(self, request: Request) -> Reply:
        """Answer a request to the surface."""
        now = Moment(self, lambda: request, self._cookies, self._refusal)
        with moment.entered(now), about(self._about()):
            return await self._api.answer(request)

    def _native(self, scope: Any) -> Any:
        """The framework's request, for `identify` and `operator`; here the ASGI scope."""
        return scope

    # ── requests of the app ───────────────────────────────────────────────────────────────────

    def _current(self) -> Visit | None:
        """The request that is being handled here and now."""
        return moment.current(self)

    def _visiting(self) -> Visit:
        if (visit := self._current()) is None:
            raise BadInput(
                "there is no current request here. Call this in a route of an app that a door, "
                "headway.wrap(app) or headway.middleware stands around."
            )
        return visit

    def _about(self) -> About:
        now = current_about()
        if now.request_id is None and (visit := self._current()) is not None:
            return now._replace(request_id=visit.request_id)
        return now

    async def _asker(self) -> Asker | None:
        visit = self._current()
        if visit is None:
            return None
        if visit.asker is None:
            owner = await self._access.owner(visit)
            try:
                key = idempotency_key(visit.request)
            except ValueError:
                raise Refused("bad_key") from None
            rate_key = await self._access.rate_key(visit.request, owner)
            return visit.asks(Asker(owner, rate_key, key))
        return visit.asker

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Remember what is refused here, for those who see of the app only its answer."""
        try:
            yield
        except (HeadwayError, Refused) as error:
            if (visit := self._current()) is not None:
                visit.refused = error
            raise

    async def begin(self, start: Start) -> Job:
        """Accept what a task's `start()` says; the tasks call it."""
        with self._noting():
            return await super().begin(start)

    async def visitor(self) -> str | None:
        """Who asks now. A new visitor gets a name, and the cookie that carries it.

        Call it on the page with the start button: then even the first double click is one job.
        """
        return await self._access.owner(self._visiting())

    async def mine(self, job_id: str) -> Job:
        """The job, if who asks now may watch it; for routes of the app about jobs. One round trip.

        Raises:
            JobNotFound: there is no such job, or it is someone else's.
        """
        with self._noting():
            viewer = await self._access.viewer(self._visiting().request)
            job = await self.get(job_id)
            if not viewer.may_watch(job) or job.expired(time.time()):
                raise JobNotFound(job_id)
            return job

    def same_origin(self) -> bool:
        """False if a browser sends the current request on behalf of another site."""
        return from_here(self._visiting().request, self._settings.origins)

    def share(self, job: Job | str, *, cancel: bool = False, seconds: float = SHARE_S) -> str:
        """A link that lets whoever opens it watch one job, for a time. Costs nothing.

        A browser that opens it gets a cookie, and an address without the token. Other clients
        send what stands behind `share=` as `Authorization: Bearer …`.

        Args:
            cancel: the job may be cancelled through it, too.
            seconds: how long it holds. Changing the secret ends it sooner.

        Raises:
            BadInput: *seconds* is not above 0, or there is no secret.
        """
        job_id = job if isinstance(job, str) else job.id
        token = self._access.share(job_id, cancel=cancel, seconds=seconds)
        return f"{self._base()}/{job_id}?{SHARE}={token}"

    def bar(self, job: Job, **attributes: str | bool) -> str:
        """The bar of *job* as HTML, with the script it needs; templates put it there as it is.

        Args:
            job: as of now; the page shows it before any script has run.
            attributes: of the element, such as `label="Export"`.
        """
        base = self._base()
        found = document(job, base, Viewer(job.owner))
        return pages.Html(pages.script(base) + pages.bar(found, attributes))

    async def reply(
        self, job: Job, request: Request | None = None, *, to: str | None = None
    ) -> Any:
        """The answer to the request that started *job*.

        202 with `Location`, `Retry-After` and the status document. For a form that a browser has
        sent, 303 to the job's page, or to *to*; for htmx, the bar. With `Prefer: wait=5`, if the
        job succeeds so soon, its result. Doors return their framework's response; here it is an
        `Answer` to *request*, or else to the current one: an ASGI app with `status`, `headers`
        and `body`.
        """
        visit = self._current()
        if request is None:
            request = visit.request if visit else Request("POST", "/", self._settings.mount)
        replayed = visit is not None and visit.asker is not None and visit.asker.replayed
        with self._noting():
            reply = await self._api.accepted(request, job, to=to, replayed=replayed)
        return self._response(reply)

    def _response(self, reply: Reply) -> Any:
        """The framework's response."""
        return Answer(reply.status, reply.headers, reply.body)

    def _refusal(self, error: Exception) -> Any:
        """The response to a request in which *error* was raised; None if it is not ours to say."""
        if isinstance(error, NotOpen):
            logger.error("%s", error)  # it tells the developer what to add
        reply, visit = problem_of(error, self._base()), self._current()
        if reply is not None and visit is not None:
            reply = notice(visit.request, reply)
        return None if reply is None else self._response(reply)

    def _base(self) -> str:
        visit = self._current()
        return visit.request.base if visit else self._settings.mount

    # ── opening ───────────────────────────────────────────────────────────────────────────────

    async def _open(self) -> None:
        works = self._settings.works
        if self._serves or works:
            self._settings = replace(self._settings, **environment.found(self._given))
        signs = self._serves and not works  # nobody visits a worker
        self._access.keys = self._secrets() if signs else self._settings.secrets
        await super()._open()

    def _secrets(self) -> list[str]:
        settings = self._settings
        own_store = settings.url is not None
        if (number := weak(settings.secrets)) is not None:
            which = f"secret {number + 1} of {len(settings.secrets)}"
            said = f"{which} is a default, or short: who guesses it can sign in as anybody. {_CURE}"
            if own_store:
                raise BadInput(said)
            logger.warning(said)
        if settings.identify is None:
            logger.warning(
                "identify is not set: visitors are told apart by a signed cookie. If your app has "
                "users, set identify= so that their jobs are theirs on every device."
            )
        if settings.secrets:
            return settings.secrets
        if not own_store:
            return [kept_secret(settings.folder)]
        if settings.identify is None:
            raise BadInput(f"there is no secret to sign visitors' cookies with. {_CURE}")
        return []


_CURE: Final = (
    "Set HEADWAY_SECRET, or secret=, to random text, the same in all processes: "
    "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
)
