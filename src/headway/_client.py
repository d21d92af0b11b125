"""The clients of a store's servers, as its address asks for them: plain, TLS, by Sentinels."""

from __future__ import annotations

import socket
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from headway._address import Address, Kind
from headway._slots import ALONE
from headway._wire import ANSWER_S, CONNECT_S, options

__all__ = ["aclose", "client_of", "close", "thread_client_of"]

CONNECTIONS = 4  # one that asks, one that listens, and two while those are made anew
ARRIVE_S: Final = ANSWER_S + CONNECT_S  # by then who asked is told that there is no answer


def client_of(address: Address, place: str = ALONE) -> redis.asyncio.Redis:
    """A client of the server at *place* (host:port), or of the only one. Connects when used."""
    given = {**options(), **_sockets(address), "retry": AsyncRetry(NoBackoff(), 0)}
    if address.kind is Kind.SENTINEL:
        sentinels, kwargs = _sentinels(address)
        one = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            sentinels, sentinel_kwargs={**kwargs, **given}, **_server(address), **given
        )
        client: redis.asyncio.Redis = one.master_for(address.service, max_connections=CONNECTIONS)
        return client
    url = address.node(place or address.hosts[0])
    return redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS, **given)


def thread_client_of(
    address: Address, place: str = ALONE, *, answer_s: float = ANSWER_S
) -> redis.Redis:
    """The same for a thread.

    Args:
        answer_s: seconds to wait for an answer.
    """
    given = {**options(answer_s), **_sockets(address), "retry": Retry(NoBackoff(), 0)}
    if address.kind is Kind.SENTINEL:
        sentinels, kwargs = _sentinels(address)
        one = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            sentinels, sentinel_kwargs={**kwargs, **given}, **_server(address), **given
        )
        client: redis.Redis = one.master_for(address.service, max_connections=1)  # type: ignore[no-untyped-call]
        return client
    url = address.node(place or address.hosts[0])
    return redis.Redis.from_url(url, max_connections=1, **given)


def _sockets(address: Address) -> dict[str, Any]:
    """How long the kernel tries to bring to the server what was said.

    Left to itself it goes on after the connection was given up, for a minute or more: then a job
    begins of which everybody was told that it could not be started.

    Source: tcp(7), TCP_USER_TIMEOUT. Linux has it.
    """
    if address.scheme == "unix" or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return {}
    kept = {  # the first two as the client has them
        socket.TCP_KEEPIDLE: 30,
        socket.TCP_KEEPINTVL: 5,
        socket.TCP_USER_TIMEOUT: round(ARRIVE_S * 1000),
    }
    return {"socket_keepalive": True, "socket_keepalive_options": kept}


def _server(address: Address) -> dict[str, Any]:
    """Options for the server that the sentinels name."""
    found = address.options(address.hosts[0])
    for name in ("host", "port", "connection_class"):
        found.pop(name, None)
    return {**found, "ssl": True} if address.scheme == "rediss" else found


def _sentinels(address: Address) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    hosts = [(host, int(port)) for host, _, port in (h.rpartition(":") for h in address.hosts)]
    tls = {k: v for k, v in _server(address).items() if k.startswith("ssl")}
    return hosts, {**tls, **dict(address.sentinel)}


async def aclose(client: redis.asyncio.Redis) -> None:
    """Close the client's connections, and those to the sentinels, which it leaves open."""
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


def close(client: redis.Redis) -> None:
    """The same for a thread's."""
    client.close()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        sentinel.close()
