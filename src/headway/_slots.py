"""Which node of a cluster serves what. Pure.

A key's slot follows from its hash tag; a node serves whole ranges of slots.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

from redis.crc import key_slot

__all__ = ["ALONE", "Slots"]

ALONE: Final = ""
"""The place of a server that is no node of a cluster."""


class Slots:
    """The map of a cluster, as one of its nodes has drawn it.

    Args:
        ranges: the answer to CLUSTER SLOTS.
        asked: host:port of who gave it; a node that does not know its own address means this host.
    """

    def __init__(self, ranges: Sequence[Any], asked: str) -> None:
        host = asked.rpartition(":")[0]
        rows = sorted((int(r[0]), int(r[1]), f"{r[2][0] or host}:{r[2][1]}") for r in ranges)
        self._starts = [start for start, _, _ in rows]
        self._rows = rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slots) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    @property
    def places(self) -> frozenset[str]:
        """host:port of every primary that serves something."""
        return frozenset(place for _, _, place in self._rows)

    def place_of(self, key: str) -> str | None:
        """host:port of the primary that serves *key*; None if, for now, none does."""
        slot = key_slot(key.encode())
        at = bisect_right(self._starts, slot) - 1
        if at < 0:
            return None
        _, end, place = self._rows[at]
        return place if slot <= end else None
