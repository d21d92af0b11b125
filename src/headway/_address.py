"""Where a store is, as its URL says: one server, one that Sentinels know, or a cluster. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

from redis.connection import parse_url

from headway.errors import BadInput

__all__ = ["Address", "Kind", "unsecret", "url_of"]

SENTINEL_PORT: Final = 26379
PORT: Final = 6379
_SENTINEL_OPTIONS: Final = {"sentinel_username": "username", "sentinel_password": "password"}
_SHAPE: Final = re.compile(
    r"(?P<scheme>(?:redis|valkey)s?(?:\+cluster|\+sentinel)?|unix)://"
    r"(?:(?P<login>.*)@)?(?P<hosts>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?"
)


class Kind(StrEnum):
    """How the server that is to be asked is found."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Address:
    """A store URL, understood.

    Args:
        scheme: of one server: redis, rediss or unix.
        login: `user:password`, as the URL has it.
        hosts: host:port of the servers, the sentinels, or of some nodes of the cluster.
        path: the number of the database, or the path of the socket.
        query: the client's further options, as the URL has them.
        service: what the sentinels call the server.
        sentinel: options for talking to the sentinels.
    """

    kind: Kind
    scheme: str
    login: str
    hosts: tuple[str, ...]
    path: str
    query: str
    service: str = ""
    sentinel: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, url: str) -> Address:
        """Understand *url*.

        Raises:
            BadInput: it is not one that can be served.
        """
        try:
            address = cls._read(url)
            for host in address.hosts:
                parse_url(address.node(host))  # type: ignore[no-untyped-call]
        except ValueError:
            raise BadInput(
                f"store URL {unsecret(url)!r}: use redis://, rediss://, valkey://, valkeys:// or "
                "unix://, for example redis://localhost:6379; for a cluster "
                "redis+cluster://host:6379,host:6379, for Sentinel "
                "redis+sentinel://host:26379,host:26379/SERVICE"
            ) from None
        return address

    @classmethod
    def _read(cls, url: str) -> Address:
        if (found := _SHAPE.fullmatch(url)) is None:
            raise ValueError(url)
        scheme, _, how = found["scheme"].replace("valkey", "redis").partition("+")
        kind = Kind(how) if how else Kind.SERVER
        login, path, query = found["login"] or "", found["path"], found["query"] or ""
        if kind is Kind.SERVER:
            return cls(kind, scheme, login, (found["hosts"],), path, query)
        port = SENTINEL_PORT if kind is Kind.SENTINEL else PORT
        hosts = tuple(_with_port(host, port) for host in found["hosts"].split(","))
        if kind is Kind.CLUSTER:
            if path not in {"", "/", "/0"}:
                raise ValueError("a cluster has no other database than 0")
            return cls(kind, scheme, login, hosts, "", query)
        service, _, database = path.removeprefix("/").partition("/")
        if not service or not (database or "0").isdigit():
            raise ValueError("no service, or no number of a database")
        options = parse_qsl(query)
        return cls(
            kind, scheme, login, hosts, f"/{database}",
            urlencode([(k, v) for k, v in options if k not in _SENTINEL_OPTIONS]),
            unquote(service),
            tuple((_SENTINEL_OPTIONS[k], v) for k, v in options if k in _SENTINEL_OPTIONS),
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The URL again, with the names that the client knows."""
        how = "" if self.kind is Kind.SERVER else f"+{self.kind}"
        path = f"/{self.service}{self.path.rstrip('/')}" if self.service else self.path
        more = urlencode([(f"sentinel_{name}", value) for name, value in self.sentinel])
        query = "&".join(filter(None, (self.query, more)))
        return self._url(f"{self.scheme}{how}", ",".join(self.hosts), path, query)

    def node(self, host: str) -> str:
        """The URL of one server, at host:port."""
        return self._url(self.scheme, host, self.path, self.query)

    def options(self, host: str) -> dict[str, Any]:
        """What the client needs to connect to the server at host:port."""
        found: dict[str, Any] = parse_url(self.node(host))  # type: ignore[no-untyped-call]
        return found

    def _url(self, scheme: str, hosts: str, path: str, query: str) -> str:
        login = f"{self.login}@" if self.login else ""
        return f"{scheme}://{login}{hosts}{path}{f'?{query}' if query else ''}"


def url_of(url: str) -> str:
    """Return *url* as the client wants it: `valkey://` is another name for `redis://`.

    Raises:
        BadInput: it is not one that can be served.
    """
    return Address.of(url).url


def unsecret(url: str) -> str:
    """The URL without its passwords, for people to read."""
    # By its looks, for a URL that cannot be parsed can hold a password too.
    url = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url)
    return re.sub(r"(password=)[^&#]*", r"\1***", url)


def _with_port(host: str, port: int) -> str:
    if not host:
        raise ValueError("an empty host")
    return host if re.search(r":\d+$", host) else f"{host}:{port}"
