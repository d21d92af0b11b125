"""Requests, replies and the small rules of HTTP. Pure; no framework, and nothing of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

__all__ = [
    "JSON", "NOSNIFF", "NO_STORE", "PRIVATE", "VARY", "Reply", "Request",
    "entity_tags", "from_here", "problem", "safe_url", "wait_s", "waited",
]  # fmt: skip

WAIT_MAX_S: Final = 25.0  # under the 29 s after which some gateways give up

NO_STORE: Final = ("Cache-Control", "no-store")
PRIVATE: Final = ("Cache-Control", "private, no-cache")
JSON: Final = ("Content-Type", "application/json")
NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")
VARY: Final = ("Vary", "Accept, Cookie")


@dataclass(frozen=True, slots=True)
class Request:
    """What a door has understood of a request.

    Args:
        path: below the mount, beginning with "/".
        base: where the surface is mounted, such as "/jobs"; links begin with it.
        headers: names in lower case.
        native: the framework's own request, for `identify` and `operator`.
    """

    method: str
    path: str
    base: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, list[str]] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    native: Any = None

    @property
    def wants_html(self) -> bool:
        """True for a browser that navigates: it prefers HTML to JSON."""
        accept = self.headers.get("accept", "")
        return "text/html" in accept and "application/json" not in accept


@dataclass(frozen=True, slots=True)
class Reply:
    """What a door has to send. A stream body ends by itself, or when the door closes it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] = b""


def problem(
    status: int,
    code: str,
    title: str,
    detail: str | None = None,
    *,
    headers: list[tuple[str, str]] | None = None,
    **more: Any,
) -> Reply:
    """An error as a document. Source: RFC 9457; `code` is ours, and stable."""
    body = {"type": f"urn:headway:{code}", "title": title, "status": status, "code": code}
    if detail is not None:
        body["detail"] = detail
    kind = ("Content-Type", "application/problem+json")
    return Reply(
        status,
        [kind, NO_STORE, NOSNIFF, *(headers or [])],
        msgspec.json.encode({**body, **more}),
    )


def entity_tags(request: Request) -> set[str]:
    """The entity tags of If-None-Match; nonsense matches nothing."""
    header = request.headers.get("if-none-match", "")
    return {tag.strip().removeprefix("W/") for tag in header.split(",")[:100]}


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
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme in {"http", "https"} and parts.netloc:
        return url if url.isascii() else None
    local = not parts.scheme and not parts.netloc and url.startswith("/")
    return url if local and url.isascii() else None


def from_here(request: Request) -> bool:
    """False for what a browser sends on behalf of another site.

    Source: Fetch Metadata (W3C) first, then the Origin header, as in Go's CrossOriginProtection.
    A client that sends neither is no browser, and carries no cookies it was not given.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        return False
