"""Requests, replies and the small rules of HTTP. Pure; no framework, and nothing of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

__all__ = [
    "BODILESS", "JSON", "NOSNIFF", "NO_STORE", "PRIVATE", "VARY", "Pieces", "Reply", "Request",
    "came_from", "cors", "from_here", "idempotency_key", "preflight", "safe_url", "unchanged",
    "wait_s", "waited",
]  # fmt: skip

BODILESS: Final = frozenset({204, 304})  # statuses that come without a body
WAIT_MAX_S: Final = 25.0  # under the 29 s after which some gateways give up

NO_STORE: Final = ("Cache-Control", "no-store")
PRIVATE: Final = ("Cache-Control", "private, no-cache")
JSON: Final = ("Content-Type", "application/json")
NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")
VARY: Final = ("Vary", "Accept, Cookie, Authorization")


@dataclass(frozen=True, slots=True)
class Request:
    """What a door has understood of a request.

    Args:
        path: below the mount, beginning with "/".
        base: where the surface is mounted, such as "/jobs"; links begin with it.
        headers: names in lower case.
        secure: it came over HTTPS.
        native: the framework's own request, for `identify` and `operator`.
    """

    method: str
    path: str
    base: str
    # Not in the repr: these hold cookies and tokens, and a repr ends up in logs.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, list[str]] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    secure: bool = False
    native: Any = field(default=None, repr=False)

    @property
    def wants_html(self) -> bool:
        """True for a browser that navigates: it prefers HTML to JSON."""
        accept = self.headers.get("accept", "")
        if "hx-request" in self.headers and not self.wants_fragment:
            return True  # boosted: htmx stands in for the browser, and accepts anything
        return "text/html" in accept and "application/json" not in accept

    @property
    def wants_fragment(self) -> bool:
        """True for htmx that puts the answer into its page, and not in the place of it."""
        whole = "hx-boosted" in self.headers or self.headers.get("hx-request-type") == "full"
        return "hx-request" in self.headers and not whole


class Pieces(Protocol):
    """A body that comes piece by piece. A door sends each with patience, and closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None: ...
    def patience(self) -> AbstractAsyncContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a door has to send. A body of pieces ends by itself, or when the door closes it."""

    status: int
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes | Pieces = field(default=b"", repr=False)


def unchanged(request: Request, tag: str) -> bool:
    """True if If-None-Match knows *tag*; nonsense matches nothing. Source: RFC 9110, 13.1.2."""
    header = request.headers.get("if-none-match", "")
    known = {one.strip().removeprefix("W/") for one in header.split(",")[:100]}
    return tag in known or header.strip() == "*"


def wait_s(request: Request) -> float:
    """Seconds in `Prefer: wait=N`, up to what gateways bear. Source: RFC 7240, section 4.3."""
    for part in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        digits = value.strip().strip('"')
        if name.strip().lower() == "wait" and digits.isascii() and digits.isdigit():
            return min(float(digits[:6]), WAIT_MAX_S)
    return 0.0


def waited(request: Request) -> list[tuple[str, str]]:
    seconds = wait_s(request)
    return [("Preference-Applied", f"wait={seconds:.0f}")] if seconds else []


def safe_url(result: Any) -> str | None:
    """The address of a result that is kept elsewhere: {"url": …}, http(s) or a path of ours."""
    url = result.get("url") if isinstance(result, dict) else None
    if not isinstance(url, str) or any(ord(c) <= 0x20 or c in "\\\x7f" for c in url):
        return None
    if url.startswith("//"):  # browsers take every number of slashes for the begin of a host
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme in {"http", "https"} and parts.netloc:
        return url if url.isascii() else None
    local = not parts.scheme and not parts.netloc and url.startswith("/")
    return url if local and url.isascii() else None


def from_here(request: Request, origins: Sequence[str] = ()) -> bool:
    """False for what a browser sends on behalf of another site that is not one of *origins*.

    Source: Fetch Metadata (W3C) first, then the Origin header, as in Go's CrossOriginProtection.
    A client that sends neither is no browser, and carries no cookies it was not given.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin in origins:
        return True
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    if origin is None:
        return True
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(host) and host == request.headers.get("host")


def came_from(request: Request) -> str | None:
    """The address, on this site, of the page that a form was sent from; None if that is not said.

    Source: RFC 9110, 10.1.3. Only its path and query are returned: they lead nowhere else.
    """
    said = request.headers.get("referer", "")
    try:
        parts = urlsplit(said)
    except ValueError:
        return None
    here = parts.scheme in {"http", "https"} and parts.netloc == request.headers.get("host")
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return path if here and path.isascii() and safe_url({"url": path}) else None


_EXPOSED: Final = "Location, Retry-After, ETag, Preference-Applied, Idempotency-Replayed"


def cors(request: Request, origins: Sequence[str]) -> list[tuple[str, str]]:
    """What lets the pages of *origins*, and no others, read the answer. Source: Fetch, 3.2."""
    if not origins:
        return []
    origin = request.headers.get("origin")
    if origin not in origins or origin is None:
        return [("Vary", "Origin")]
    return [
        ("Vary", "Origin"),
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", _EXPOSED),
    ]


_ASKABLE: Final = "Accept, Authorization, If-None-Match, Last-Event-ID, Prefer, Idempotency-Key"


def preflight(request: Request, origins: Sequence[str]) -> Reply:
    """The answer to OPTIONS: which methods and headers a page of *origins* may send.

    Without what `cors()` says; that is added to every answer.
    """
    headers: list[tuple[str, str]] = []
    if request.headers.get("origin") in origins:
        headers = [
            ("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE"),
            ("Access-Control-Allow-Headers", _ASKABLE),
            ("Access-Control-Max-Age", "600"),
        ]
    return Reply(204, [*headers, ("Allow", "GET, HEAD, POST, DELETE, OPTIONS"), NO_STORE])


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key: a quoted string, as the draft says, or what clients send without quotes.

    Raises:
        ValueError: it is empty, too long or not printable.
    """
    said = request.headers.get("idempotency-key")
    if said is None:
        return None
    key = said.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= 200 or not key.isascii() or not key.isprintable():
        raise ValueError(key)
    return key
