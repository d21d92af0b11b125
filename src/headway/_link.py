"""Connections to the store: one for the loop, one for the beat thread, one that listens.

A link knows how to bring scripts and commands to a Redis or Valkey and to tell what went wrong;
it does not know what they mean. `Link` gathers what is asked in the same moment into one
pipeline on one connection, so that a process needs no pool, and a caller who is cancelled
leaves the connection in order.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import exceptions as failures
from redis.asyncio.client import PubSub
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from headway.errors import (
    BadInput,
    NotOpen,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

__all__ = ["Call", "Link", "Script", "ThreadLink", "swallowed", "url_of"]

ANSWER_S: Final = 5.0  # a store that has not answered by then is treated as gone
CONNECT_S: Final = 2.0
PIPELINE_CALLS: Final = 512  # bounds the memory of one pipeline; the rest goes with the next

logger = logging.getLogger("headway.store")


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


def url_of(url: str) -> str:
    """Return *url* as the client wants it: `valkey://` is another name for `redis://`.

    Raises:
        BadInput: it is not one that can be served.
    """
    scheme, colon, rest = url.partition(":")
    known = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss"}
    known["unix"] = "unix"
    wanted = f"{known.get(scheme, '')}:{rest}"
    try:
        if scheme not in known or not colon:
            raise ValueError("no scheme that is known")
        parse_url(wanted)  # type: ignore[no-untyped-call]
        _ = urlsplit(wanted).port
    except ValueError:
        raise BadInput(
            f"store URL {_unsecret(url)!r}: use redis://, rediss://, valkey://, valkeys:// or "
            "unix://, for example redis://localhost:6379"
        ) from None
    return wanted


def _unsecret(url: str) -> str:
    # By its looks, for a URL that cannot be parsed can hold a password too.
    url = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url)
    return re.sub(r"(password=)[^&#]*", r"\1***", url)


def _options() -> dict[str, Any]:
    # The client's own defaults retry for seconds behind our back, and its RESP3 pushes leak
    # under hiredis; every wait here is ours to bound.
    return {
        "protocol": 2,
        "decode_responses": True,
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": CONNECT_S,
    }


def _raise(error: Exception, where: str) -> NoReturn:
    """Turn the client's error into ours. The only place where store answers become errors."""
    text = str(error)
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
    if isinstance(error, (OSError, failures.ConnectionError, failures.TimeoutError)):
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


class _Base:
    def __init__(self, url: str) -> None:
        self._url = url_of(url)
        self.where = _unsecret(url)

    def _answers(self, raw: Sequence[Any]) -> list[Any]:
        return [self._answer(one) for one in raw]

    def _answer(self, one: Any) -> Any:
        if not isinstance(one, Exception):
            return one
        try:
            _raise(one, self.where)
        except StoreError as error:
            return error


def swallowed() -> bool:
    """True if this task was cancelled, and the client did not tell: on Python 3.11 it can happen in
    the first moment of a call (CPython issue 86296)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("something that repairs itself was not written: %s", error)


def _missing(calls: Sequence[Call], raw: Sequence[Any]) -> list[int]:
    return [i for i, one in enumerate(raw) if isinstance(one, failures.NoScriptError)]


def _refused(raw: Sequence[Any]) -> bool:
    # A primary that has become a replica keeps its connections. New ones lead to the new primary,
    # where the address has moved; the acts may be repeated.
    return any(isinstance(one, failures.ReadOnlyError) for one in raw)


class _Listening(PubSub):
    """A subscription whose owner makes a new one when its connection is lost."""

    async def _reconnect(self, conn: Connection, *args: Any, **kwargs: Any) -> None:
        # The client's own would connect and subscribe again, only to raise the error after it;
        # and two of them at once, of a reader and a writer, leave a connection behind.
        await conn.disconnect()


class Link(_Base):
    """The loop's connection. Whatever is asked while a pipeline is under way goes in the next one.

    Args:
        url: where the store is.
        revive: called in a thread when the store does not answer, before the second try; it may
            bring an embedded server back. Its errors are logged.
    """

    def __init__(self, url: str, revive: Callable[[], object] | None = None) -> None:
        super().__init__(url)
        self._revive = revive
        self._queue: list[tuple[Call, asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._torn = False
        self._pump: asyncio.Task[None] | None = None
        self.client = redis.asyncio.Redis.from_url(
            self._url, retry=AsyncRetry(NoBackoff(), 0), max_connections=4, **_options()
        )
        self.contact_at: float | None = None
        """When this link last began to have contact without a break; monotonic seconds."""

    def pubsub(self) -> PubSub:
        """A connection of its own that listens. The caller closes it."""
        return _Listening(self.client.connection_pool)

    def open(self) -> None:
        """Start to serve calls. Connects with the first one."""
        self._pump = asyncio.create_task(self._serve(), name="headway-link")
        self._pump.add_done_callback(self._pumped)

    async def aclose(self) -> None:
        """Serve what is queued, then close the connection."""
        self._closing = True
        self._wake.set()
        while self._pump is not None and not self._pump.done():
            await asyncio.wait({self._pump})
        await self.client.aclose()

    async def call(self, call: Call) -> Any:
        """Ask one thing. One round trip, shared with whatever else is asked at the moment.

        Cancel: the call is, or will be, done by the store all the same.
        """
        return await self._ask(call)

    def _ask(self, call: Call) -> asyncio.Future[Any]:
        if self._closing or self._pump is None:
            raise NotOpen("reach the store")
        future = asyncio.get_running_loop().create_future()
        self._queue.append((call, future))
        self._wake.set()
        if self._pump.done():
            self.open()
        return future

    def post(self, call: Call) -> None:
        """Ask one thing and do not wait for the answer; an error is only logged."""
        self._ask(call).add_done_callback(_log_failure)

    async def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Ask many things in one round trip; the first error is raised after all were asked."""
        futures = [self._ask(call) for call in calls]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch, self._queue = self._queue[:PIPELINE_CALLS], self._queue[PIPELINE_CALLS:]
                try:
                    await self._bring(batch)
                except asyncio.CancelledError:
                    self._queue[:0] = batch
                    raise
            if self._closing or self._torn or swallowed():
                return

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        # Whoever takes the loop down cancels every task of it, and only then is what is open closed
        # (Quart's reloader, or a second Ctrl-C). What is asked until then is served all the same.
        self._torn = self._torn or pump.cancelling() > 0
        if self._queue and self._pump is pump:  # else whoever asked has opened another
            self._wake.set()
            self.open()

    async def _bring(self, batch: list[tuple[Call, asyncio.Future[Any]]]) -> None:
        try:
            answers = await self._send([call for call, _ in batch])
        except Exception as error:  # whatever it is, every caller must hear of it
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _send(self, calls: list[Call]) -> list[Any]:
        try:
            try:
                raw = await self._pipeline([call.command for call in calls])
            except (failures.ConnectionError, failures.TimeoutError, OSError):
                # A connection that was cut while it lay idle fails once; the acts may be repeated.
                self.contact_at = None
                await self._bring_back()
                raw = await self._pipeline([call.command for call in calls])
            if _refused(raw):
                self.contact_at = None
                await self.client.connection_pool.disconnect()
                raw = await self._pipeline([call.command for call in calls])
            if missing := _missing(calls, raw):
                await self._teach(calls, missing)
                again = await self._pipeline([calls[i].command for i in missing])
                for i, answer in zip(missing, again, strict=True):
                    raw[i] = answer
        except (failures.RedisError, OSError) as error:
            self.contact_at = None
            _raise(error, self.where)
        if self.contact_at is None:
            self.contact_at = time.monotonic()
        return self._answers(raw)

    async def _pipeline(self, commands: list[tuple[str | int, ...]]) -> list[Any]:
        async with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    async def _teach(self, calls: list[Call], missing: list[int]) -> None:
        texts = {calls[i].script.text for i in missing if calls[i].script}  # type: ignore[union-attr]
        await self._pipeline([("SCRIPT", "LOAD", text) for text in texts])

    async def _bring_back(self) -> None:
        if self._revive is None:
            return
        try:
            await asyncio.to_thread(self._revive)
        except Exception:
            logger.exception("the embedded store could not be started again")


class ThreadLink(_Base):
    """The same for a thread: asks and waits. Not for use from two threads at a time."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._client = redis.Redis.from_url(
            self._url, retry=Retry(NoBackoff(), 0), max_connections=1, **_options()
        )

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Ask many things in one round trip; an answer may be an error, which is not raised.

        Raises:
            StoreUnavailable: nothing was answered.
        """
        try:
            raw = self._pipeline([call.command for call in calls])
            if _refused(raw):
                self._client.connection_pool.disconnect()
                raw = self._pipeline([call.command for call in calls])
            if missing := _missing(calls, raw):
                texts = {s.text for i in missing if (s := calls[i].script)}
                self._pipeline([("SCRIPT", "LOAD", text) for text in texts])
                again = self._pipeline([calls[i].command for i in missing])
                for i, answer in zip(missing, again, strict=True):
                    raw[i] = answer
        except (failures.RedisError, OSError) as error:
            _raise(error, self.where)
        return self._answers(raw)

    def _pipeline(self, commands: list[tuple[str | int, ...]]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return pipeline.execute(raise_on_error=False)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
