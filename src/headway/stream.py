"""Event streams: what the hub tells, as bytes for one client.

A stream keeps nothing but the set of jobs that are not over. It ends when they are, when the
server is about to stop, or when it is old: then it is opened anew, and who may watch is asked
again.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from headway import _sse
from headway.document import document, rfc3339
from headway.limits import Limits
from headway.tokens import Viewer
from headway.watch import Seen, Watcher

__all__ = ["HEARTBEAT_S", "STREAM_AGE_S", "Streams"]

HEARTBEAT_S: Final = 15.0
STREAM_AGE_S: Final = 900.0
RETRY_MS: Final = (1_000, 4_000)  # spread, so that a restart is not followed by a stampede


class Streams:
    """The open streams of this process.

    Args:
        heartbeat_s: seconds between two signs of life.
        age_s: how old a stream may become, in seconds, give or take a fifth.
    """

    def __init__(
        self, limits: Limits, *, heartbeat_s: float = HEARTBEAT_S, age_s: float = STREAM_AGE_S
    ) -> None:
        self._limits = limits
        self._heartbeat_s = heartbeat_s
        self._age_s = age_s
        self._open: dict[Watcher, str | None] = {}
        self._revoked: set[Watcher] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    def drain(self) -> None:
        """End every stream, and let no other last: the server is about to stop."""
        self.draining = True
        for watcher in self._open:
            watcher.nudge()

    def revoke(self, owner: str) -> None:
        """End the streams of *owner*: who may watch has to be asked again."""
        for watcher in [w for w, who in self._open.items() if who == owner]:
            self._revoked.add(watcher)
            watcher.nudge()

    def full(self, viewer: Viewer) -> str | None:
        """The code of the limit that another stream of *viewer* would break; None: it may be."""
        if len(self._open) >= self._limits.streams_per_process:
            return "streams_full"
        if viewer.owner is None:
            return None
        theirs = sum(who == viewer.owner for who in self._open.values())
        return "too_many_streams" if theirs >= self._limits.streams_per_owner else None

    async def serve(
        self, watcher: Watcher, viewer: Viewer, base: str, *, single: bool
    ) -> AsyncIterator[bytes]:
        """The bytes of one stream, from the first state to its end.

        Args:
            base: where the surface is mounted; links begin with it.
            single: the stream is of one job, so that its revision can be the event's id.
        """
        yield _sse.retry(random.randint(*RETRY_MS))  # noqa: S311
        with watcher:
            self._open[watcher] = viewer.owner
            try:
                async for chunk in self._chunks(watcher, viewer, base, single=single):
                    yield chunk
            finally:
                del self._open[watcher]
                self._revoked.discard(watcher)

    async def _chunks(
        self, watcher: Watcher, viewer: Viewer, base: str, *, single: bool
    ) -> AsyncIterator[bytes]:
        going = set(watcher.ids)
        clock = time.monotonic
        until = clock() + self._age_s * random.uniform(0.8, 1.2)  # noqa: S311
        if viewer.until is not None:
            until = min(until, clock() + viewer.until - time.time())
        beat_at, live = clock() + self._heartbeat_s, watcher.live
        if not live:
            yield _heartbeat(live=False)
        while True:
            frames = [
                _frame(job_id, seen, viewer, base, going, single=single)
                for job_id, seen in watcher.take()
            ]
            if frames:
                yield b"".join(frames)
            if not going:
                yield _sse.frame("end", b"{}", event_id=_sse.END)
                return
            if (reason := self._over(watcher, old=clock() >= until)) is not None:
                yield _sse.frame("bye", msgspec.json.encode({"reason": reason}))
                return
            if clock() >= beat_at or live != watcher.live:
                live, beat_at = watcher.live, clock() + self._heartbeat_s
                yield _heartbeat(live=live)
            await watcher.wait(max(min(beat_at, until) - clock(), 0))

    def _over(self, watcher: Watcher, *, old: bool) -> str | None:
        if self.draining:
            return "drain"
        if watcher in self._revoked:
            return "revoked"
        return "age" if old else None


def _frame(
    job_id: str, seen: Seen, viewer: Viewer, base: str, going: set[str], *, single: bool
) -> bytes:
    job = seen.job
    if job is None or not viewer.may_watch(job):
        going.discard(job_id)
        return _sse.frame("gone", msgspec.json.encode({"id": job_id[:64]}))
    if job.state.terminal:
        going.discard(job_id)
    view = (base, viewer.may_cancel(job), viewer.may_change(job), single)
    if seen.frame is None or seen.frame[0] != view:
        data = msgspec.json.encode(document(job, base, viewer))
        event_id = str(job.rev) if single else None
        seen.frame = (view, _sse.frame("job", data, event_id=event_id))
    return seen.frame[1]


def _heartbeat(*, live: bool) -> bytes:
    now = rfc3339(time.time())
    return _sse.frame("hb", msgspec.json.encode({"now": now, "live": live}))
