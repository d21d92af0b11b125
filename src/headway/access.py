"""Who asks, and how it is remembered: owners, visitors, operators, shares.

Whatever cannot be read, is forged or is over counts as not sent. An `identify` or `operator` of
the app that raises ends the request; it never lets anybody in.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from inspect import isawaitable
from typing import Any, Final
from uuid import UUID

from headway.context import request_id_of
from headway.errors import BadInput
from headway.gate import Asker
from headway.http import Request
from headway.settings import Ask, Settings
from headway.tokens import (
    COOKIE,
    COOKIE_MAX_AGE_S,
    Share,
    Viewer,
    joined,
    new_visitor,
    read_share,
    read_visitor,
    sign_share,
    sign_visitor,
)

__all__ = ["SHARE", "SHARES_COOKIE", "Access", "Visit", "name_of"]

SHARE: Final = "share"  # the field of a link's query
SHARES_COOKIE: Final = "headway_shares"
SHARES_KEPT: Final = 8  # the newest ones; a cookie has to stay small
COOKIE_CHARS: Final = 4096  # what browsers keep of one
_BEARER: Final = "bearer "


@dataclass(slots=True)
class Visit:
    """One request to the app, while it is handled: who makes it, and who is new.

    `request_id` is what its client, or a proxy before us, calls it; or a new name.
    """

    request: Request
    request_id: str = field(init=False)
    new_visitor: str | None = None
    viewer: Viewer | None = None
    asker: Asker | None = None
    refused: Exception | None = None  # what was refused of late; see `wrap()`

    def __post_init__(self) -> None:
        self.request_id = request_id_of(self.request.headers.get("x-request-id"))

    def asks(self, asker: Asker) -> Asker:
        """Keep the first one: of two starts of one request at a time both have made one."""
        if self.asker is None:
            self.asker = asker
        return self.asker


class Access:
    """Tells who asks, and signs what has to be recognised later.

    `keys` are the secrets, oldest first; empty until Headway is open.
    """

    def __init__(self, settings: Settings) -> None:
        self.keys: list[str] = []
        self._identify: Ask | None = settings.identify
        self._operator: Ask | None = settings.operator
        self._rate_key: Ask | None = settings.rate_key
        self._path = settings.mount

    async def viewer(self, request: Request) -> Viewer:
        """Who asks."""
        operator = bool(await _asked(self._operator, request.native)) if self._operator else False
        if self._identify is not None:
            owner = name_of("identify", await _asked(self._identify, request.native))
        else:
            owner = read_visitor(request.cookies.get(COOKIE), self.keys)
        return Viewer(owner, operator=operator, shares=self._shares(request))

    async def owner(self, visit: Visit) -> str | None:
        """Who owns what this request starts. A new visitor gets a name; see `set_cookie()`."""
        if visit.viewer is None:
            visit.viewer = await self.viewer(visit.request)
        if visit.viewer.owner is not None or self._identify is not None:
            return visit.viewer.owner
        if visit.new_visitor is None:
            visit.new_visitor = new_visitor()
        return visit.new_visitor

    async def rate_key(self, request: Request, owner: str | None) -> str | None:
        """Whose starts are counted together."""
        if self._rate_key is None:
            return owner
        key = name_of("rate_key", await _asked(self._rate_key, request.native))
        return key if key is not None else owner

    def set_cookie(self, visit: Visit) -> str | None:
        """The Set-Cookie header that makes a new visitor known; None if there is none."""
        if visit.new_visitor is None:
            return None
        token = sign_visitor(visit.new_visitor, self.keys)
        return _cookie(COOKIE, token, "/", COOKIE_MAX_AGE_S, secure=visit.request.secure)

    # ── shares ────────────────────────────────────────────────────────────────────────────────

    def share(self, job_id: str, *, cancel: bool, seconds: float) -> str:
        """A token for one job.

        Raises:
            BadInput: *seconds* is not above 0, or there is no secret to sign it with.
        """
        if not 0 < seconds < 10 * 366 * 86_400:
            raise BadInput(f"share(seconds={seconds!r}): give seconds above 0")
        if not self.keys:
            raise BadInput("share(): there is no secret to sign with; set HEADWAY_SECRET")
        return sign_share(Share(job_id, time.time() + seconds, cancel=cancel), self.keys)

    def shares_cookie(self, request: Request, job_id: str, token: str) -> str | None:
        """The Set-Cookie header that takes a token out of a link; None if it is not valid there."""
        now = time.time()
        share = read_share(token, self.keys, now)
        if share is None or share.job_id != job_id:
            return None
        held = ((one, read_share(one, self.keys, now)) for one in _held(request))
        still = [(one, old.until) for one, old in held if old and not share.covers(old)]
        kept = [*still, (token, share.until)][-SHARES_KEPT:]
        tokens, untils = zip(*kept, strict=True)
        seconds = int(max(untils) - now)
        path = request.base or "/"
        return _cookie(SHARES_COOKIE, "~".join(tokens), path, seconds, secure=request.secure)

    def _shares(self, request: Request) -> dict[str, Share]:
        tokens = _held(request)
        said = request.headers.get("authorization", "")
        if said[: len(_BEARER)].lower() == _BEARER:
            tokens.append(said[len(_BEARER) :].strip())
        now = time.time()
        found = (read_share(token, self.keys, now) for token in tokens)
        return joined(share for share in found if share is not None)


def _held(request: Request) -> list[str]:
    """The tokens in the cookie; no more than we put there, for each of them is work."""
    said = request.cookies.get(SHARES_COOKIE, "")[:COOKIE_CHARS]
    return [token for token in said.split("~")[:SHARES_KEPT] if token]


def _cookie(name: str, value: str, path: str, max_age_s: int, *, secure: bool) -> str:
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = value
    cookie[name]["path"] = path
    cookie[name]["max-age"] = max_age_s
    cookie[name]["httponly"] = True
    cookie[name]["samesite"] = "Lax"
    if secure:
        cookie[name]["secure"] = True
    return cookie[name].OutputString()


def name_of(who: str, said: Any) -> str | None:
    """What *who*, a function of the app, has said, as text; None for nobody.

    Raises:
        BadInput: it could be the same for two people.
    """
    if said is None or said == "":
        return None
    if isinstance(said, (str, int, UUID)) and not isinstance(said, bool):
        return str(said)
    raise BadInput(
        f"{who} returned a {type(said).__name__}: return text, a number or a UUID that is this "
        "user's alone, such as the user's id, or None for nobody"
    )


async def _asked(ask: Ask, request: Any) -> Any:
    answer = ask(request)
    return await answer if isawaitable(answer) else answer
