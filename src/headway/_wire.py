"""What is asked of a store, and what its answers mean. Knows commands and errors, but no jobs."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final, NamedTuple, NoReturn

import redis
from redis import exceptions as failures
from redis.driver_info import DriverInfo

from headway.errors import StoreError, StoreFull, StoreReadOnly, StoreUnavailable

__all__ = [
    "ANSWER_S", "CONNECT_S", "Call", "Moved", "Script", "answer_of", "missing", "options",
    "raise_as_ours", "refused",
]  # fmt: skip

ANSWER_S: Final = 5.0  # a store that has not answered by then is treated as gone
CONNECT_S: Final = 2.0
_KEYLESS: Final = frozenset({"PING", "CLIENT", "ECHO", "INFO"})


class Script(NamedTuple):
    """A Lua script and the digest under which a server remembers it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Call(NamedTuple):
    """One thing to ask of the store: a script with its keys, or a plain command."""

    script: Script | None
    args: tuple[str | int, ...]

    @property
    def command(self) -> tuple[str | int, ...]:
        return self.args if self.script is None else ("EVALSHA", self.script.sha, *self.args)

    @property
    def key(self) -> str | None:
        """What decides which node of a cluster is asked; None: any of them."""
        if self.script is None and (self.args[0] in _KEYLESS or len(self.args) < 2):
            return None
        return str(self.args[1])


class Moved(StoreError):
    """The key is served by another node, or is on its way there.

    Args:
        to: host:port of who knows what to do with it once; None: ask anew.
    """

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(
            f"the store at {where} is a node of a cluster. Say so in HEADWAY_URL: "
            "redis+cluster://host:port"
        )
        once = isinstance(error, failures.AskError) and not isinstance(error, failures.MovedError)
        self.to = f"{error.host}:{error.port}" if once else None  # type: ignore[attr-defined]


# Else the client asks the disk for its own version, for each connection anew.
_DRIVER: Final = DriverInfo(lib_version=redis.__version__)


def options(answer_s: float = ANSWER_S) -> dict[str, Any]:
    """How connections are made. Every wait is ours to bound, and every retry ours to do."""
    # The client's own defaults retry for seconds behind our back, and its RESP3 pushes leak
    # under hiredis.
    return {
        "protocol": 2,
        "decode_responses": True,
        "socket_timeout": answer_s,
        "socket_connect_timeout": min(CONNECT_S, answer_s),
        "driver_info": _DRIVER,
    }


def raise_as_ours(error: Exception, where: str) -> NoReturn:
    """Turn the client's error into ours. The only place where store answers become errors."""
    text = str(error)
    if isinstance(error, _ELSEWHERE):
        raise Moved(where, error) from error
    if isinstance(error, failures.OutOfMemoryError) or text.startswith("OOM"):
        raise StoreFull(
            f"the store at {where} has no memory left and refuses to write ({text}). Raise its "
            "maxmemory, or remove what else is kept there."
        ) from error
    if isinstance(error, failures.ReadOnlyError) or text.startswith(("READONLY", "MISCONF")):
        raise StoreReadOnly(
            f"the store at {where} refuses to write ({text}). Point HEADWAY_URL at the primary, "
            "or look at the server's disk."
        ) from error
    if isinstance(error, _AWAY):
        # The client has no class of its own for WRONGPASS, and cuts the word off.
        wrong = text.startswith("invalid username-password")
        if wrong or isinstance(error, failures.AuthenticationError):
            raise StoreError(
                f"the store at {where} refused the login ({text}). Check the user and password "
                "in HEADWAY_URL."
            ) from error
        raise StoreUnavailable(
            f"the store at {where} does not answer ({text or type(error).__name__}). Is it "
            "running, and is HEADWAY_URL right?"
        ) from error
    raise StoreError(f"the store at {where} answered: {text}") from error


_ELSEWHERE: Final = (
    failures.AskError, failures.MovedError, failures.TryAgainError, failures.ClusterCrossSlotError,
)  # fmt: skip
_AWAY: Final = (
    OSError, failures.ConnectionError, failures.TimeoutError, failures.ClusterDownError,
)  # fmt: skip


def answer_of(raw: Any, where: str) -> Any:
    """The answer; or, as a value, what went wrong with it, as an error of ours."""
    if not isinstance(raw, Exception):
        return raw
    try:
        raise_as_ours(raw, where)
    except StoreError as error:
        return error


def missing(raw: Sequence[Any]) -> list[int]:
    """Which of the answers say that the server does not know the script."""
    return [i for i, one in enumerate(raw) if isinstance(one, failures.NoScriptError)]


def refused(raw: Sequence[Any]) -> bool:
    """True if a server answers that it is a replica.

    A primary that has become one keeps its connections. New ones lead to the new primary, where
    the address has moved; the acts may be repeated.
    """
    return any(isinstance(one, failures.ReadOnlyError) for one in raw)
