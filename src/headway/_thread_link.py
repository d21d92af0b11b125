"""The beat thread's way to the store: asks and waits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import redis
from redis import exceptions as failures

from headway._address import Address, Kind, unsecret
from headway._client import close, thread_client_of
from headway._slots import ALONE, Slots
from headway._wire import (
    ANSWER_S,
    Call,
    answer_of,
    missing,
    raise_as_ours,
    refused,
)
from headway.errors import StoreUnavailable

__all__ = ["ThreadLink"]

NODES: Final = 16  # threads that wait for the nodes of a cluster; more nodes share them


class ThreadLink:
    """For one thread at a time.

    Args:
        answer_s: seconds after which a node of a cluster is not waited for: as long, all others
            wait with it.
    """

    def __init__(self, url: str, *, answer_s: float = ANSWER_S) -> None:
        self._address = Address.of(url)
        self.where = unsecret(url)
        self._clustered = self._address.kind is Kind.CLUSTER
        self._answer_s = min(answer_s, ANSWER_S) if self._clustered else ANSWER_S
        self._clients: dict[str, redis.Redis] = {}
        self._slots: Slots | None = None
        self._silent: set[str] = set()
        """Nodes that were waited for in vain, since the map was drawn."""
        self._threads = ThreadPoolExecutor(NODES, "headway-pulse") if self._clustered else None

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Ask many things in one round trip; an answer may be an error, which is not raised.

        Raises:
            StoreUnavailable: nothing was answered.
        """
        try:
            raw = self._over_nodes(calls) if self._clustered else self._ask(ALONE, calls)
        except (failures.RedisError, OSError) as error:
            raise_as_ours(error, self.where)
        answers = [answer_of(one, self.where) for one in raw]
        if answers and all(isinstance(one, StoreUnavailable) for one in answers):
            raise answers[0]
        return answers

    def close(self) -> None:
        """Close the connections."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        for client in self._clients.values():
            close(client)

    # ── one server ────────────────────────────────────────────────────────────────────────────

    def _client(self, place: str) -> redis.Redis:
        client = self._clients.get(place)
        if client is None:
            client = thread_client_of(self._address, place, answer_s=self._answer_s)
            self._clients[place] = client
        return client

    def _ask(self, place: str, calls: Sequence[Call]) -> list[Any]:
        client = self._client(place)
        raw = self._pipeline(client, calls)
        if refused(raw):
            client.connection_pool.disconnect()
            raw = self._pipeline(client, calls)
        if unknown := missing(raw):
            again = [calls[i] for i in unknown]
            texts = {call.script.text for call in again if call.script}
            self._execute(client, [("SCRIPT", "LOAD", text) for text in texts])
            for i, answer in zip(unknown, self._pipeline(client, again), strict=True):
                raw[i] = answer
        return raw

    def _pipeline(self, client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
        return self._execute(client, [call.command for call in calls])

    def _execute(self, client: redis.Redis, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return pipeline.execute(raise_on_error=False)

    # ── a cluster ─────────────────────────────────────────────────────────────────────────────

    def _over_nodes(self, calls: Sequence[Call]) -> list[Any]:
        """Ask all nodes at a time; what has moved, once more."""
        answers: list[Any] = [None] * len(calls)
        left = list(range(len(calls)))
        for again in (False, True):
            if again or self._silent or self._slots is None:
                self._draw()
            for i, answer in self._round([(i, calls[i]) for i in left]):
                answers[i] = answer
            left = [i for i in left if _elsewhere(answers[i])]
            if not left:
                break
        return answers

    def _round(self, calls: Sequence[tuple[int, Call]]) -> list[tuple[int, Any]]:
        assert self._slots is not None
        assert self._threads is not None
        groups: dict[str, list[tuple[int, Call]]] = {}
        for i, call in calls:
            place = self._slots.place_of(call.key or "")
            groups.setdefault(place or self._address.hosts[0], []).append((i, call))
        for place in groups:
            self._client(place)  # made here: the threads only use them
        found: list[tuple[int, Any]] = []
        said = self._threads.map(self._try, groups, groups.values())
        for group, answers in zip(groups.values(), said, strict=True):
            found += zip((i for i, _ in group), answers, strict=True)
        return found

    def _try(self, place: str, group: Sequence[tuple[int, Call]]) -> list[Any]:
        try:
            return self._ask(place, [call for _, call in group])
        except (failures.RedisError, OSError) as error:
            if isinstance(error, failures.TimeoutError):
                self._silent.add(place)
            return [error] * len(group)

    def _draw(self) -> None:
        places = self._slots.places if self._slots is not None else ()
        problem: Exception = StoreUnavailable(f"the cluster {self.where} has no node")
        known = dict.fromkeys([*places, *self._address.hosts])
        for place in sorted(known, key=lambda place: place in self._silent):
            try:
                found = self._execute(self._client(place), [("CLUSTER", "SLOTS")])[0]
                if isinstance(found, Exception):
                    raise found
            except (failures.RedisError, OSError) as error:
                problem = error
            else:
                self._slots = Slots(found, place)
                self._silent.clear()
                return
        raise_as_ours(problem, self.where)


def _elsewhere(answer: object) -> bool:
    """True if another node may have the answer. One that is only silent may still act."""
    return isinstance(answer, (failures.ConnectionError, failures.MovedError, OSError))
