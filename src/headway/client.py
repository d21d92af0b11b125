"""Jobs of a server, over HTTP: the same streams and polls as the element's, for a terminal.

One stream for all jobs. It is opened anew when it ends too early; where streams are refused, or
do not come through, the server is polled. A server that was never reached is not waited for.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx
from httpx_sse import EventSource, SSEError

from headway.access import SHARE, SHARES_COOKIE
from headway.errors import HeadwayError, JobNotFound
from headway.following import Entry, Following, Wanted
from headway.words import Doc

__all__ = ["Client", "Denied", "NoAnswer", "address"]

GREETING_S: Final = 10.0  # some proxies hold back even the headers
SILENCE_S: Final = 40.0  # over two heartbeats
BLIP_S: Final = 3.0  # a shorter loss is not shown
SKEW_S: Final = 2.0  # a smaller difference between two clocks is not worth a correction
WAIT_S: Final = 25
REFUSED_S: Final = 5.0  # until a stream is tried again, the first time: doubles
BUFFERED_S: Final = 300.0
PAUSE_MOST_S: Final = 30.0
MOST: Final = 50  # jobs of one request: the server's limit
JSON: Final = "application/json"


class NoAnswer(HeadwayError):
    """The server cannot be reached, or what answers there is no Headway."""


class Denied(HeadwayError):
    """The server does not let who asks do this, in its own words."""


class _Refusal(Exception):
    """An answer that is none of those that were hoped for."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.status = response.status_code
        self.response = response

    @property
    def after_s(self) -> float:
        """What Retry-After says; 0 without it."""
        said = self.response.headers.get("retry-after", "")
        return float(said) if said.isdecimal() else 0.0

    def words(self) -> str:
        """The problem document in a line, or what came instead of one."""
        kind = self.response.headers.get("content-type", "").partition(";")[0]
        with suppress(ValueError):
            problem = self.response.json()
            if kind == "application/problem+json" and "title" in problem:
                detail = problem.get("detail")
                return f"{problem['title']}: {detail}" if detail else str(problem["title"])
        where = str(self.response.request.url.copy_with(query=None))
        return f"{where} answers {self.status} ({kind or 'no content type'}), and not as Headway"


class Client:
    """Watches, lists and cancels the jobs of one server. Use it as an async context manager.

    Args:
        base: where the surface is mounted, such as https://example.org/jobs.
        headers: sent with each request: who asks.
        shares: tokens of links that were shared.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        shares: tuple[str, ...] = (),
    ) -> None:
        self.base = base.rstrip("/")
        cookie = "; ".join(
            [
                *([given] if (given := (headers or {}).get("Cookie")) else []),
                *([f"{SHARES_COOKIE}={'~'.join(shares)}"] if shares else []),
            ]
        )
        self.http = httpx.AsyncClient(
            headers={"Accept": JSON, **(headers or {}), **({"Cookie": cookie} if cookie else {})},
            timeout=httpx.Timeout(GREETING_S, read=SILENCE_S),
        )

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def follow(self, following: Following) -> None:
        """Tell *following* of each change, until all of its jobs have ended or are lost.

        Raises:
            NoAnswer: the server was not reached at the first attempt, or is no Headway.
            Denied: it does not take the request.
        """
        ids = following.ids
        feeds = [_Feed(self, ids[n : n + MOST], following) for n in range(0, len(ids), MOST)]
        try:
            async with asyncio.TaskGroup() as group:
                for feed in feeds:
                    group.create_task(feed.run())
        except* HeadwayError as errors:
            raise errors.exceptions[0] from None

    async def entries(self, wanted: Wanted) -> AsyncGenerator[Entry, None]:
        """The jobs of who asks, 50 at most; or, for operators, everybody's, page by page.

        Raises:
            NoAnswer, Denied
        """
        if not (wanted.everybody or wanted.owner):
            for job in (await self._ask("GET", "")).get("jobs", []):
                if job["state"] == (wanted.state or job["state"]) and job["task"] == (
                    wanted.task or job["task"]
                ):
                    yield Entry(None, job)
            return
        said = {"owner": wanted.owner, "state": wanted.state, "task": wanted.task}
        asked = {name: value for name, value in said.items() if value}
        after: str | None = ""
        while after is not None:
            page = await self._ask("GET", "/overview", {**asked, "after": after})
            for entry in page["jobs"]:
                yield Entry(entry["owner"], entry["job"])
            after = page["after"]

    async def cancel(self, job_id: str) -> Doc:
        """Ask a job to stop; as it is after asking.

        Raises:
            JobNotFound: it is unknown, or someone else's.
            NoAnswer, Denied
        """
        try:
            return await self._ask("POST", f"/{job_id}/cancel")
        except Denied as error:
            if getattr(error.__cause__, "status", 0) in {404, 410}:
                raise JobNotFound(job_id) from error
            raise

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = f"{self.base}{path}"
        try:
            response = await self.http.request(method, url, params=query)
        except httpx.TransportError as error:
            raise NoAnswer(f"{url} cannot be reached: {_said(error)}") from error
        if not response.is_success or not _is(response, JSON):
            raise refused(_Refusal(response))
        return dict(response.json())


def address(url: str) -> tuple[str, str, str | None]:
    """Of the address of a job: where the surface is mounted, the id, and a share if it has one."""
    parts = httpx.URL(url)
    base, _, job_id = parts.path.rstrip("/").rpartition("/")
    mount = parts.copy_with(path=base or "/", query=None, fragment=None)
    return str(mount).rstrip("/"), job_id, parts.params.get(SHARE)


def refused(refusal: _Refusal) -> HeadwayError:
    """What the answer means for the user; its cause is the answer."""
    response = refusal.response
    error: HeadwayError
    if _is(response, "application/problem+json"):
        error = Denied(refusal.words())
    elif response.is_redirect:
        error = NoAnswer(
            f"{response.request.url.copy_with(query=None)} leads to "
            f"{response.headers.get('location')}: give that address; or, if that is a login, say "
            "who asks with --header or --cookie"
        )
    else:
        error = NoAnswer(f"{refusal.words()}: is this where Headway is mounted? (headway doctor)")
    error.__cause__ = refusal
    return error


def _is(response: httpx.Response, kind: str) -> bool:
    return bool(response.headers.get("content-type", "").partition(";")[0] == kind)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Feed:
    """One stream, or the polls in its place."""

    def __init__(self, client: Client, ids: tuple[str, ...], following: Following) -> None:
        self._client = client
        self._ids = ids
        self._following = following
        self._etag: tuple[list[str], str] | None = None
        self._reached = False
        self._failures = self._refusals = 0
        self._stream_at = 0.0
        self._blip: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until all have ended or are lost."""
        try:
            while ids := self._going:
                stream = time.monotonic() >= self._stream_at
                try:
                    pause = await (self._listen(ids) if stream else self._poll(ids))
                except (httpx.TransportError, TimeoutError, SSEError, _Refusal) as error:
                    pause = self._failed(error, stream=stream)
                if self._going:
                    await asyncio.sleep(pause)
        finally:
            self._good()

    @property
    def _going(self) -> list[str]:
        return [i for i in self._following.going if i in self._ids]

    async def _listen(self, ids: list[str]) -> float:
        """Hear a stream to its end; the pause until the next one, in seconds."""
        loop = asyncio.get_running_loop()
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        url = f"{self._client.base}/events"
        async with asyncio.timeout(GREETING_S) as patience:
            stream = self._client.http.stream("GET", url, params={"id": ids}, headers=headers)
            async with stream as response:
                if response.status_code != 200 or not _is(response, "text/event-stream"):
                    await response.aread()
                    raise _Refusal(response)
                self._answered(response)
                async for event in EventSource(response).aiter_sse():
                    patience.reschedule(loop.time() + SILENCE_S)
                    self._refusals = 0
                    if event.event == "bye":
                        return random.random() / 2  # noqa: S311 - no secret hangs on it
                    self._hear(event.event, event.data)
                    if not self._going:
                        return 0.0
        raise httpx.RemoteProtocolError("the stream was cut")

    def _hear(self, name: str, data: str) -> None:
        told = json.loads(data) if data else {}
        match name:
            case "job":
                self._following.take(told)
            case "gone":
                self._following.lose(told["id"], "gone")
        if name == "hb" and not told["live"]:
            self._bad()
        else:
            self._good()

    async def _poll(self, ids: list[str]) -> float:
        """Ask once; the answer comes with the next change."""
        headers = {}
        if self._etag is not None and self._etag[0] == ids:
            headers = {"If-None-Match": self._etag[1], "Prefer": f"wait={WAIT_S}"}
        response = await self._client.http.get(
            self._client.base, params={"id": ids}, headers=headers
        )
        if response.status_code != 304:
            if response.status_code != 200 or not _is(response, JSON):
                raise _Refusal(response)
            self._answered(response)
            batch = response.json()
            for job in batch["jobs"]:
                self._following.take(job)
            for job_id in batch["gone"]:
                self._following.lose(job_id, "gone")
            self._etag = (ids, response.headers.get("etag", ""))
        self._good()
        return 1.0

    def _answered(self, response: httpx.Response) -> None:
        self._reached = True
        if said := response.headers.get("date"):
            ahead_s = time.time() - parsedate_to_datetime(said).timestamp()
            self._following.ahead_s = ahead_s if abs(ahead_s) > SKEW_S else 0.0

    def _failed(self, error: Exception, *, stream: bool) -> float:
        """Take note of it; the pause until the next attempt, in seconds."""
        self._etag = None  # so that the next poll is answered at once
        after_s = 0.0
        if isinstance(error, _Refusal):
            after_s = error.after_s
            self._refused(error)
        buffered = stream and isinstance(error, TimeoutError)
        if not (self._reached or buffered or isinstance(error, _Refusal)):
            raise NoAnswer(f"{self._client.base} cannot be reached: {_said(error)}") from error
        full = isinstance(error, _Refusal) and error.status in {429, 503}
        if stream and (buffered or full):
            pause = (BUFFERED_S if buffered else REFUSED_S) * 2**self._refusals
            self._refusals += 1
            self._stream_at = time.monotonic() + max(after_s, min(pause, 3600.0))
            return 0.0  # polls meanwhile
        self._bad()
        self._failures += 1
        most = min(PAUSE_MOST_S, 2.0 ** (self._failures - 1))
        return after_s + random.random() * most  # noqa: S311 - spread, not secret

    def _refused(self, refusal: _Refusal) -> None:
        """What does not get better by asking again."""
        if refusal.status in {401, 403}:
            for job_id in self._going:
                self._following.lose(job_id, "forbidden")
        elif refusal.status not in {429, 503} and (refusal.status < 500 or not self._reached):
            raise refused(refusal)

    def _bad(self) -> None:
        if self._blip is None:
            loop = asyncio.get_running_loop()
            self._blip = loop.call_later(BLIP_S, self._following.connect, "reconnecting")

    def _good(self) -> None:
        if self._blip is not None:
            self._blip.cancel()
            self._blip = None
        self._failures = 0
        self._following.connect("open")
