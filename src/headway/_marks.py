"""The checkpoint of a job: the task's own value, and how far each resumable loop has come."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headway._tree import Loop
from headway.job import CHECKPOINT_BYTES, to_json

__all__ = ["Marks"]

CURE: Final = "Store the data elsewhere, and a reference to it here."


class _Record(msgspec.Struct):
    """What a checkpoint holds, as it is written."""

    value: Any = None
    loops: dict[str, int] = {}


class Marks:
    """What the next attempt may resume from. `resume` and `json` are called one at a time.

    Args:
        checkpoint: what the last attempt left behind, as `json()` gave it; None or empty: nothing.
        most: how large a value may be, in bytes of JSON.
    """

    def __init__(self, checkpoint: str | None, most: int = CHECKPOINT_BYTES) -> None:
        self._most = most
        self._before = _decode(checkpoint) if checkpoint else _Record()
        self._loops: list[tuple[Loop, int]] = []
        self._set = False
        self.value = self._before.value

    def keep(self, value: Any) -> None:
        """Remember *value* as it is now.

        Raises:
            BadInput: it is not JSON.
            TooLarge: it is over the limit.
        """
        text = to_json(value, what="checkpoint", limit=self._most, cure=CURE)
        self.value = msgspec.json.decode(text)
        self._set = True

    def resume(self, loop: Loop) -> int:
        """Register a loop that may be resumed; how many of its items were done before."""
        before = self._before.loops.get(str(len(self._loops)), 0)
        self._loops.append((loop, before))
        return before

    def json(self) -> str:
        """As it is to be written; empty if there is nothing."""
        if not self._set and not self._loops:
            return ""
        loops = dict(self._before.loops)
        for number, (loop, before) in enumerate(self._loops):
            # While a loop still skips what was done before, that stays done.
            loops[str(number)] = int(max(loop.done, before))
        return msgspec.json.encode(_Record(self.value, loops)).decode()


_decode = msgspec.json.Decoder(_Record).decode
