"""Who may see and cancel what, and who a visitor is when the app has no users. Pure.

"Not ours" and "not valid" are the same answer, None: a visitor without a name owns nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from itsdangerous import Signer

from headway.job import EVERYONE, Job

__all__ = ["COOKIE", "COOKIE_MAX_AGE_S", "Viewer", "new_visitor", "read_visitor", "sign_visitor"]

COOKIE: Final = "headway_visitor"
COOKIE_MAX_AGE_S: Final = 400 * 86_400  # the longest that browsers keep one
_SALT: Final = b"headway.visitor.1"  # one purpose, one salt: no other signature passes for this
_PREFIX: Final = "visitor-"
_TOKEN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: the owner of jobs, perhaps an operator, or nobody."""

    owner: str | None
    operator: bool = False

    def may_watch(self, job: Job) -> bool:
        mine = job.owner is not None and job.owner in {self.owner, EVERYONE}
        return mine or self.operator

    def may_cancel(self, job: Job) -> bool:
        mine = job.owner is not None and job.owner == self.owner and job.owner != EVERYONE
        return mine or self.operator


def new_visitor() -> str:
    """A name that nobody can guess: 128 random bits."""
    return _PREFIX + secrets.token_urlsafe(16)


def sign_visitor(visitor: str, keys: Sequence[str]) -> str:
    """The cookie's value for *visitor*, signed with the last of *keys*."""
    return _signer(keys).sign(visitor).decode()


def read_visitor(token: str | None, keys: Sequence[str]) -> str | None:
    """The visitor that a cookie names, if one of *keys* signed it; compared in constant time."""
    if not token or len(token) > _TOKEN_CHARS or not token.isascii():
        return None
    visitor = token.rpartition(".")[0]
    # Signed again and compared: `unsign` overlooks characters that base64 does not know.
    good = [compare_digest(_signer([key]).sign(visitor), token.encode()) for key in keys]
    return visitor if any(good) and visitor.startswith(_PREFIX) else None


def _signer(keys: Sequence[str]) -> Signer:
    return Signer(list(keys), salt=_SALT, key_derivation="hmac", digest_method=sha256)
