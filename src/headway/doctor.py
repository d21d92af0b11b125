"""Looks at an app from outside, through its public address: what stands between it and browsers?

It needs no job and no login: the surface has a probe, a stream of heartbeats that carry the time
when they were sent. What that tells is judged in `diagnosis.py`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urljoin

import httpx
from httpx_sse import EventSource

from headway.diagnosis import BUFFERING, Beat, Finding, Heard, judge

__all__ = ["Doctor"]

ANSWER_S: Final = 10.0
GRACE_S: Final = 10.0  # after its end, for a stream that is held back
SLOW_S: Final = 1.0
LEAVE_S: Final = 5.0
HEARTBEAT_S: Final = 15.0  # of real streams
SHORT_S: Final = 30.0  # less is not enough for these
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})

LOGIN: Final = (
    "Let this path through: Headway decides itself who may see a job. Or say who asks, with "
    "--header or --cookie."
)
MOUNT: Final = "Give the address where Headway is mounted (option path, /jobs by default)."
HOST: Final = (
    "Let the proxy pass on the name that browsers use, or buttons are refused: without TLS all, "
    "else those of browsers that send no Sec-Fetch-Site. nginx: "
    "'proxy_set_header Host $host;' (with a port of your own: $http_host)."
)
SIX: Final = (
    "A page with bars takes one, all tabs four at most. HTTP/2 at the proxy lifts that (browsers "
    "speak it over TLS only)."
)


class Doctor:
    """Examines one mount.

    Args:
        base: its address, such as https://example.org/jobs.
        seconds: how long to listen to a stream.
        every_s: seconds between two heartbeats; None: half a second, or, for half a minute and
            more, what real streams have.
        headers: sent with each request.
        grace_s: seconds after its end in which a stream that was held back may still come.
    """

    def __init__(
        self,
        base: str,
        *,
        seconds: float = 3.0,
        every_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._base = base.rstrip("/")
        self._seconds = seconds
        self._every_s = every_s or (HEARTBEAT_S if seconds >= SHORT_S else 0.5)
        self._http = httpx.AsyncClient(http2=True, headers=headers, timeout=ANSWER_S)
        # Over HTTP/2 the client does not tell that it wants no more of a stream, as browsers do.
        self._tab = httpx.AsyncClient(headers=headers, timeout=ANSWER_S)
        self._grace_s = grace_s
        self._answer_s = 0.0
        self._version = ""
        self._over = False

    async def findings(self) -> AsyncIterator[Finding]:
        """What is found, as it is found. Stops where going on has no sense."""
        checks = (self._health, self._buttons, self._file, self._stream, self._leaving)
        async with self._http, self._tab:
            for check in checks:
                try:
                    found = await check()
                except httpx.TransportError as error:
                    yield Finding("wrong", "reached", _why(error, httpx.URL(self._base)))
                    return
                for finding in found:
                    yield finding
                if self._over:
                    return

    # ── answers ───────────────────────────────────────────────────────────────────────────────

    async def _health(self) -> list[Finding]:
        answer = await self._get("/health")
        found: list[Finding] = []
        where = answer.headers.get("location")
        if answer.is_redirect and where and _only_https(str(answer.url), where):
            self._base = urljoin(str(answer.url), where).removesuffix("/health")
            found.append(Finding("note", "reached", f"It leads to {self._base}: looking there."))
            answer = await self._get("/health")
        self._answer_s, self._version = answer.elapsed.total_seconds(), answer.http_version
        told = _json(answer)
        if "status" not in told or "live" not in told:
            self._over = True
            return [*found, await self._strange(answer)]
        return [*found, *self._connection(answer), _well(told)]

    def _connection(self, answer: httpx.Response) -> Iterator[Finding]:
        version, secure = self._version, answer.url.scheme == "https"
        took = f"{self._answer_s * 1000:.0f} ms"
        if self._answer_s > SLOW_S:
            yield Finding("note", "reached", f"Slow: {version}, a plain answer took {took}.")
        else:
            yield Finding("ok", "reached", f"{version}{_tls(answer)}, answers in {took}.")
        if not secure and answer.url.host not in LOCAL:
            cure = "Serve it over https, and let the app know (--proxy-headers, ProxyFix)."
            yield Finding("note", "reached", "Without TLS: cookies can be read on the way.", cure)
        if version in {"HTTP/1.0", "HTTP/1.1"}:
            said = f"{version}: browsers hold six connections to it, in all tabs together."
            yield Finding("note", "reached", said, SIX)

    async def _strange(self, answer: httpx.Response) -> Finding:
        """What is wrong with an answer that is not the health of a Headway."""
        status, told = answer.status_code, _json(answer)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if told.get("code") == "not_open":
            cure = "Open it with the app: Headway(app), or lifespan=headway.lifespan."
            return Finding("wrong", "health", "Headway is there, but is not open.", cure)
        if str(told.get("type", "")).startswith("urn:headway:"):
            said = f"Headway is there, but not mounted here ({told['code']})."
            return Finding("wrong", "health", said, MOUNT)
        if answer.is_redirect or status in {401, 403}:
            to = answer.headers.get("location", f"status {status}")
            return Finding("wrong", "health", f"A login stands before it: {to}.", LOGIN)
        if status in {500, 502, 503, 504}:
            said = f"A proxy answers ({status}), the app behind it does not."
            return Finding(
                "wrong", "health", said, "Is the app running, and where the proxy looks?"
            )
        if kind == "text/html" and status == 200:
            said = "A page answers in the place of Headway: a login, or a route for everything."
            return Finding("wrong", "health", said, LOGIN)
        usual = str(answer.url.copy_with(path="/jobs", query=None))
        if self._base != usual and "status" in _json(await self._http.get(f"{usual}/health")):
            return Finding("wrong", "health", f"Headway is not here, but at {usual}.", MOUNT)
        return Finding("wrong", "health", f"No Headway is here: status {status}.", MOUNT)

    async def _buttons(self) -> list[Finding]:
        """Would a button come through? What a page sends when it is pressed, for no job."""
        here = httpx.URL(self._base)
        origin = f"{here.scheme}://{here.netloc.decode()}"
        url = f"{self._base}/none/cancel"
        request = self._http.build_request("POST", url, headers={"Origin": origin})
        if self._version == "HTTP/2":  # as browsers do: that there is no body needs no word there
            del request.headers["Content-Length"]
        answer = await self._http.send(request)
        match _json(answer).get("code"):
            case "not_found":
                return [Finding("ok", "buttons", f"They come through, as from {origin}.")]
            case "cross_origin":
                said = f"The app takes {origin} for another site: the proxy changes the Host."
                # Over TLS, and here, browsers say by themselves that it is not; old ones do not.
                told_so = here.scheme == "https" or here.host in LOCAL
                return [Finding("note" if told_so else "wrong", "buttons", said, HOST)]
        said = f"POST does not come through: it is answered with {answer.status_code}."
        cure = "Let the proxy, and what filters requests, pass POST and DELETE below this path."
        return [Finding("wrong", "buttons", said, cure)]

    async def _file(self) -> list[Finding]:
        """The script without which there are no bars."""
        answer = await self._get("/static/headway.js")
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code == 200 and kind == "text/javascript":
            return [Finding("ok", "script", "The element's script comes as JavaScript.")]
        said = f"The element's script is answered with {answer.status_code}, {kind or 'no type'}."
        cure = "Let the proxy pass all below this path on, .js files too."
        return [Finding("wrong", "script", said, cure)]

    # ── streams ───────────────────────────────────────────────────────────────────────────────

    async def _stream(self) -> list[Finding]:
        heard = Heard(time.monotonic())
        refused = await self._listen(heard)
        heard.ended_at = time.monotonic()
        if refused is not None:
            self._over = True
            return [refused]
        found = judge(heard, seconds=self._seconds, every_s=self._every_s, answer_s=self._answer_s)
        self._over = any(finding.level == "wrong" for finding in found)
        return found

    async def _listen(self, heard: Heard) -> Finding | None:
        """Hear a probe to its end; what is wrong if there is none."""
        limit_s = self._seconds + self._grace_s
        try:
            async with asyncio.timeout(limit_s), self._probe(self._seconds) as answer:
                if (refused := await _refused(answer)) is not None:
                    return refused
                heard.headers = answer.headers
                heard.end = "cut"
                async for event in EventSource(answer).aiter_sse():
                    if event.event == "hb":
                        sent_at = datetime.fromisoformat(json.loads(event.data)["now"]).timestamp()
                        heard.beats.append(Beat(sent_at, time.monotonic()))
                    elif event.event == "end":
                        heard.end = "end"
                    elif event.event == "bye":
                        heard.end = "bye"
        except TimeoutError:
            heard.end = "silence"
        except httpx.TransportError:
            heard.end = "cut"
        return None

    async def _leaving(self) -> list[Finding]:
        """Does the app hear that a tab was closed? It is seen only where one process answers."""
        before = await self._open()
        async with self._probe(LEAVE_S * 4, every_s=LEAVE_S * 4, http=self._tab) as answer:
            if answer.status_code != 200:
                return []
            coming = answer.aiter_bytes()  # kept: what is thrown away closes the answer
            await anext(coming)
            during = await self._open()
        if during <= before:
            said = "Several processes answer: whether they hear that a tab was closed is not seen."
            return [Finding("note", "leaving", said)]
        left_at = time.monotonic()
        while time.monotonic() - left_at < LEAVE_S:
            if await self._open() < during:
                took = (time.monotonic() - left_at) * 1000
                said = f"A closed tab is heard of, after {took:.0f} ms."
                return [Finding("ok", "leaving", said)]
            await asyncio.sleep(0.05)
        cure = "nginx: no 'proxy_ignore_client_abort on'. Else it is noticed with a heartbeat."
        said = f"A closed tab is not heard of within {LEAVE_S:.0f} s."
        return [Finding("note", "leaving", said, cure)]

    async def _open(self) -> int:
        """How many streams the process has that answers."""
        return int(_json(await self._get("/health")).get("streams", 0))

    def _probe(
        self, seconds: float, every_s: float | None = None, http: httpx.AsyncClient | None = None
    ) -> Any:
        query = {"seconds": f"{seconds:g}", "every": f"{every_s or self._every_s:g}"}
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        patience = httpx.Timeout(ANSWER_S, read=seconds + ANSWER_S + self._grace_s)
        return (http or self._http).stream(
            "GET", f"{self._base}/probe", params=query, headers=headers, timeout=patience
        )

    async def _get(
        self, path: str, query: Mapping[str, str] | None = None, **headers: str
    ) -> httpx.Response:
        return await self._http.get(f"{self._base}{path}", params=query, headers=headers)


async def _refused(answer: httpx.Response) -> Finding | None:
    """What is wrong with an answer that is no stream."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status_code == 200 and kind == "text/event-stream":
        return None
    await answer.aread()
    if _json(answer).get("code") == "not_found":
        return Finding("note", "stream", "This Headway is older, and has no probe to look at.")
    if title := _json(answer).get("title"):
        return Finding("note", "stream", f"It is refused just now: {title}. Ask again later.")
    said = f"In the place of a stream came {answer.status_code}, {kind or 'no type'}."
    return Finding("wrong", "stream", said, BUFFERING if answer.status_code >= 500 else LOGIN)


def _well(told: Mapping[str, Any]) -> Finding:
    """What the health of a process says."""
    match told["status"]:
        case "ok":
            took = (told.get("store_s") or 0.0) * 1000
            return Finding("ok", "health", f"It is well; its store answers in {took:.1f} ms.")
        case "draining":
            return Finding("note", "health", "This process is about to stop.")
        case "store":
            cure = "Is the store running, and is HEADWAY_URL right? (headway doctor, there)"
            return Finding("wrong", "health", "Its store does not answer.", cure)
        case _:
            said = "It does not hear of changes: the store answers, its announcements do not come."
            return Finding("wrong", "health", said, "May the store's user subscribe (+ssubscribe)?")


def _json(answer: httpx.Response) -> dict[str, Any]:
    """The object that an answer is; an empty one if it is none."""
    if not answer.headers.get("content-type", "").partition(";")[0].endswith("json"):
        return {}
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _only_https(url: str, where: str) -> bool:
    """True if a redirect changes nothing but the scheme, to https."""
    old, new = httpx.URL(url), httpx.URL(urljoin(url, where))
    same = (old.host, old.path) == (new.host, new.path)
    return same and (old.scheme, new.scheme) == ("http", "https")


def _tls(answer: httpx.Response) -> str:
    stream = answer.extensions.get("network_stream")
    secured = stream.get_extra_info("ssl_object") if stream is not None else None
    return f", {secured.version()}" if secured is not None else ""


def _why(error: BaseException, url: httpx.URL) -> str:
    """Why nothing was reached, from what lies at the bottom."""
    where = f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"
    for cause in _causes(error):
        match cause:
            case socket.gaierror():
                return f"There is no host of the name {url.host}."
            case ssl.SSLCertVerificationError():
                return f"The certificate of {where} is not trusted: {cause.verify_message}."
            case ssl.SSLError():
                return f"{where} speaks no TLS that we speak: {cause.reason}."
            case ConnectionRefusedError():
                return f"Nothing listens at {where}."
            case TimeoutError():
                return f"{where} did not answer within {ANSWER_S:.0f} s."
    return f"{where} cannot be reached: {str(error) or type(error).__name__}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what lies below it."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _causes(one)
        error = error.__cause__ or error.__context__
