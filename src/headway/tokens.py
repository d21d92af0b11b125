"""What is signed: the name of a visitor, and the right to a job that somebody shares. Pure.

"Not ours", "not valid" and "not valid any more" are the same answer, None. Several keys, oldest
first, change a secret without invalidating what it has signed: the newest signs, all are read.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from itsdangerous import Signer

from headway.job import EVERYONE, Job, is_id

__all__ = [
    "COOKIE",
    "COOKIE_MAX_AGE_S",
    "Share",
    "Viewer",
    "joined",
    "new_visitor",
    "read_share",
    "read_visitor",
    "sign_share",
    "sign_visitor",
]

COOKIE: Final = "headway_visitor"
COOKIE_MAX_AGE_S: Final = 400 * 86_400  # the longest that browsers keep one
# One purpose, one salt: a signature for one of them is none for another.
_VISITOR: Final = b"headway.visitor.1"
_WATCH: Final = b"headway.share.watch.1"
_CANCEL: Final = b"headway.share.cancel.1"
_PREFIX: Final = "visitor-"
_TOKEN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Share:
    """The right to watch one job, and perhaps to cancel it, until a time (epoch seconds)."""

    job_id: str
    until: float
    cancel: bool = False

    def covers(self, other: Share) -> bool:
        """True if it gives all that *other* gives, and as long."""
        same = self.job_id == other.job_id
        return same and self.cancel >= other.cancel and self.until >= other.until


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: the owner of jobs, perhaps an operator, perhaps with shares of others' jobs."""

    owner: str | None
    operator: bool = False
    shares: Mapping[str, Share] = field(default_factory=dict)

    def may_watch(self, job: Job) -> bool:
        """True for the owner, for everyone's jobs, for operators and with a share."""
        mine = job.owner is not None and job.owner in {self.owner, EVERYONE}
        return mine or self.operator or job.id in self.shares

    def may_change(self, job: Job) -> bool:
        """May try it again and forget it: its owner, and operators."""
        mine = job.owner is not None and job.owner == self.owner and job.owner != EVERYONE
        return mine or self.operator

    def may_cancel(self, job: Job) -> bool:
        """As `may_change()`, or with a share that says so."""
        share = self.shares.get(job.id)
        return self.may_change(job) or (share is not None and share.cancel)

    @property
    def until(self) -> float | None:
        """When the first of the shares ends; None if there are none."""
        return min((share.until for share in self.shares.values()), default=None)


def new_visitor() -> str:
    """A name that nobody can guess: 128 random bits."""
    return _PREFIX + secrets.token_urlsafe(16)


def sign_visitor(visitor: str, keys: Sequence[str]) -> str:
    """The cookie's value for *visitor*, signed with the last of *keys*."""
    return _signer(keys, _VISITOR).sign(visitor).decode()


def read_visitor(token: str | None, keys: Sequence[str]) -> str | None:
    """The visitor that a cookie names, if one of *keys* signed it; compared in constant time."""
    visitor = _read(token, keys, _VISITOR)
    return visitor if visitor is not None and visitor.startswith(_PREFIX) else None


def sign_share(share: Share, keys: Sequence[str]) -> str:
    """The share as a token, signed with the last of *keys*."""
    salt = _CANCEL if share.cancel else _WATCH
    return _signer(keys, salt).sign(f"{share.job_id}.{share.until:.0f}").decode()


def read_share(token: str | None, keys: Sequence[str], now: float) -> Share | None:
    """What a token shares at the time *now*, if one of *keys* signed it."""
    for salt in (_WATCH, _CANCEL):
        said = _read(token, keys, salt)
        if said is None:
            continue
        job_id, _, until = said.partition(".")
        if is_id(job_id) and until.isdigit() and now < int(until):
            return Share(job_id, int(until), cancel=salt is _CANCEL)
    return None


def joined(shares: Iterable[Share]) -> dict[str, Share]:
    """By job. Several for one job give what each gives, until the first of them is over."""
    found: dict[str, Share] = {}
    for one in shares:
        old = found.get(one.job_id, one)
        until, cancel = min(old.until, one.until), old.cancel or one.cancel
        found[one.job_id] = Share(one.job_id, until, cancel=cancel)
    return found


def _read(token: str | None, keys: Sequence[str], salt: bytes) -> str | None:
    if not token or len(token) > _TOKEN_CHARS or not token.isascii():
        return None
    said = token.rpartition(".")[0]
    # Signed again and compared: `unsign` overlooks characters that base64 does not know.
    good = [compare_digest(_signer([key], salt).sign(said), token.encode()) for key in keys]
    return said if any(good) else None


def _signer(keys: Sequence[str], salt: bytes) -> Signer:
    return Signer(list(keys), salt=salt, key_derivation="hmac", digest_method=sha256)
