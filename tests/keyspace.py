"""What stands in a store, on whatever kind of store it is."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import redis

from headway.job import State

__all__ = ["Keyspace", "client_of"]

GONE: Final = -2  # what PTTL says of a key that is not there


def client_of(url: str) -> Any:
    """A client of redis-py, for whatever kind of store *url* names. Close it."""
    known: Any = redis  # its own types say too little
    kind, _, hosts = url.partition("://")
    pairs = [(one.hostname, one.port) for one in map(_host, hosts.partition("/")[0].split(","))]
    if kind == "redis+cluster":
        nodes = [known.cluster.ClusterNode(host, port) for host, port in pairs]
        return known.RedisCluster(startup_nodes=nodes, decode_responses=True)
    if kind == "redis+sentinel":
        service = hosts.partition("/")[2]
        return known.Sentinel(pairs).master_for(service, decode_responses=True)
    return redis.Redis.from_url(url, decode_responses=True)


def _host(text: str) -> Any:
    return urlsplit(f"//{text}")


class Keyspace:
    """All that stands in the store under one prefix, and the rules that it has to keep."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.client = client_of(url)

    def pubsub(self, name: str) -> Any:
        """Listens at the server that keeps *name*. Close it."""
        client = self.client
        if hasattr(client, "get_node_from_key"):
            client = client.get_redis_connection(client.get_node_from_key(name))
        return client.pubsub()

    def names(self) -> list[str]:
        return sorted(self.client.scan_iter(match=f"{self.prefix}:*", count=1000))

    def clear(self) -> None:
        if names := self.names():
            self.client.delete(*names)

    def check(self) -> None:
        """Assert the rules at the top of store.lua: nothing is left that nobody removes."""
        names = self.names()
        with self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.pttl(name)
            left = dict(zip(names, pipeline.execute(), strict=True))
        names = [name for name in names if left[name] != GONE]  # meanwhile
        expiring = {name: left[name] >= 0 for name in names}
        records = [n for n in names if ":job:" in n]
        states = self._states(records)
        for name in names:
            self._check_one(name, states, expires=expiring[name])
        live = {i for i, state in states.items() if not state.terminal}
        self._check_kids(names, live, self._fields(records, "parent"))
        leased = {m for n in names if n.endswith(":leases") for m in self._members(n)}
        ended = {m for n in names if n.endswith(":ends") for m in self._members(n)}
        assert leased == live, "the leases hold exactly the live jobs"
        assert ended == states.keys() - live, "the ends hold exactly the ended jobs"

    def _states(self, records: list[str]) -> dict[str, State]:
        return {i: State(state) for i, state in self._fields(records, "state").items()}

    def _fields(self, records: list[str], name: str) -> dict[str, str]:
        with self.client.pipeline(transaction=False) as pipeline:
            for record in records:
                pipeline.hget(record, name)
            found = pipeline.execute()
        return {r.rpartition(":")[2]: v for r, v in zip(records, found, strict=True) if v}

    def _check_kids(self, names: list[str], live: set[str], parents: dict[str, str]) -> None:
        kids = {n.rpartition(":")[2]: self.client.smembers(n) for n in names if ":kids:" in n}
        expected: dict[str, set[str]] = {}
        for kid, parent in parents.items():
            if {kid, parent} <= live:
                expected.setdefault(parent, set()).add(kid)
        assert kids == expected, "live jobs know exactly the live jobs that they have started"

    def _members(self, name: str) -> list[str]:
        return [str(member) for member in self.client.zrange(name, 0, -1)]

    def _check_one(self, name: str, states: dict[str, State], *, expires: bool) -> None:
        kind, last = name.removeprefix(f"{self.prefix}:").split(":")[-2:]
        if kind in {"owner", "active", "pace", "once"}:
            assert expires, f"{name} lives for ever"
        elif kind == "key":
            target = str(self.client.get(name))
            assert target in states, f"{name} points to {target}, which does not exist"
            assert not states[target].terminal, f"{name} points to a job that has ended"
        elif kind in {"job", "log", "tries", "kids"}:
            assert last in states, f"{name} belongs to no job"
            assert expires == states[last].terminal, f"{name}: expires={expires}"
        else:
            assert last in {"leases", "ends"}, f"{name} is not in the data model"
