"""Those who are kept waiting: event streams and long-polls.

A stream keeps nothing but the set of jobs that are not over. It ends when they are, when the
server is about to stop, when its owner is revoked, or when it is old: then it is opened anew, and
who may watch is asked again. Whoever waits holds a place from the first moment on, and until it
is given back: so that no burst passes the limits, and none is lost.

A stream tells each state as a document, or, for pages that show nothing but what the server has
drawn, as a message of HTML. Whatever else it says is the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

import msgspec

from headway import _sse
from headway.document import document, rfc3339
from headway.fragment import gone, news
from headway.job import Job
from headway.limits import Limits
from headway.tokens import Viewer
from headway.watch import Seen, Watcher

__all__ = ["HEARTBEAT_S", "STREAM_AGE_S", "Poll", "Probe", "Stream", "Streams"]

HEARTBEAT_S: Final = 15.0
STREAM_AGE_S: Final = 900.0
RETRY_MS: Final = (1_000, 4_000)  # spread, so that a restart is not followed by a stampede
PROBES: Final = 4  # at a time; anybody may open one
CHUNK_BYTES: Final = 64 * 1024  # many jobs are sent in pieces: a slow client holds no more at once
HURRY_S: Final = 0.5  # what a client gets to take the last words in when the server stops


class Streams:
    """The open streams and long-polls of this process.

    Args:
        heartbeat_s: seconds between two signs of life.
        age_s: how old a stream may become, in seconds, give or take a fifth.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        age_s: float = STREAM_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._age_s = age_s
        self._open: set[Stream] = set()
        self._polls: set[Poll] = set()
        self.revocations = 0
        """How often somebody was revoked; whoever was let in before must be asked again."""
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def patience_s(self) -> float:
        """Seconds that a client gets to take one chunk."""
        return HURRY_S if self.draining else float(self._limits.send_s)

    def drain(self) -> None:
        """End every stream and long-poll, and let no other last: the server is about to stop."""
        self.draining = True
        for stream in self._open:
            stream.hurry()
        for one in self._all():
            one.watcher.nudge()

    def revoke(self, owner: str) -> None:
        """End what *owner* has open: who may watch has to be asked again."""
        self.revocations += 1
        for one in self._all():
            if one.owner == owner:
                one.revoked = True
                one.watcher.nudge()

    def full(self, viewer: Viewer) -> str | None:
        """The code of the limit that another stream of *viewer* would break; None: it may be."""
        return self._full(self._open, viewer)

    def serve(
        self,
        watcher: Watcher,
        viewer: Viewer,
        base: str,
        *,
        single: bool,
        since: int,
        html: bool = False,
    ) -> Stream:
        """Open a stream; it holds its place from now on.

        Args:
            base: where the surface is mounted; links begin with it.
            single: the stream is of one job, so that its revision can be the event's id.
            since: `revocations` before it was asked who *viewer* is.
            html: states are told as HTML, in events without a name.
        """
        stream = Stream(self, watcher, viewer, base, single=single, html=html)
        stream.revoked = since != self.revocations
        self._open.add(stream)
        return stream

    def probe(
        self, watcher: Watcher, viewer: Viewer, *, seconds: float, every_s: float
    ) -> Probe | None:
        """Open a stream of nothing but heartbeats; it holds its place as any other.

        Args:
            watcher: of no job.
            seconds: after which it ends.
            every_s: seconds between two heartbeats; the first comes at once.

        Returns: None if as many as may be are open already.
        """
        if sum(isinstance(one, Probe) for one in self._open) >= PROBES:
            return None
        probe = Probe(self, watcher, viewer, seconds=seconds, every_s=every_s)
        self._open.add(probe)
        return probe

    def leave(self, stream: Stream) -> None:
        """Give its place back; may be repeated."""
        self._open.discard(stream)

    @contextmanager
    def poll(self, watcher: Watcher, viewer: Viewer, seconds: float) -> Iterator[Poll]:
        """Keep a long-poll waiting, for *seconds* at most. If there is no place, not at all."""
        poll = Poll(self, watcher, viewer, seconds)
        if self._full(self._polls, viewer) is not None:
            poll.revoked = True
        with watcher:
            self._polls.add(poll)
            try:
                yield poll
            finally:
                self._polls.discard(poll)

    def _all(self) -> list[Stream | Poll]:
        return [*self._open, *self._polls]

    def _full(self, those: Collection[Stream | Poll], viewer: Viewer) -> str | None:
        if len(those) >= self._limits.streams_per_process:
            return "streams_full"
        if viewer.owner is None:
            return None
        theirs = sum(one.owner == viewer.owner for one in those)
        return "too_many_streams" if theirs >= self._limits.streams_per_owner else None


class Poll:
    """One long-poll. `revoked`: it waits no longer, and tells nothing that came meanwhile."""

    def __init__(self, streams: Streams, watcher: Watcher, viewer: Viewer, seconds: float) -> None:
        self._streams = streams
        self.watcher = watcher
        self.owner = viewer.owner
        self.revoked = False
        self._until = _first(time.monotonic() + seconds, viewer)

    async def wait(self) -> bool:
        """Wait for a change. False: there was none, and the time is over."""
        left = self._until - time.monotonic()
        if left <= 0 or self.revoked or self._streams.draining:
            return False
        await self.watcher.wait(left)
        return not self.revoked


class Stream:
    """The bytes of one stream, from the first state to its end. Close it, whatever happens."""

    # There are thousands, and what they hold has to be fetched for each event of each.
    __slots__ = (
        "_alarm", "_base", "_bytes", "_going", "_gone", "_html", "_limit", "_patience",
        "_patient_until", "_single", "_streams", "_viewer", "owner", "revoked", "watcher",
    )  # fmt: skip

    def __init__(
        self,
        streams: Streams,
        watcher: Watcher,
        viewer: Viewer,
        base: str,
        *,
        single: bool,
        html: bool = False,
    ) -> None:
        self._streams = streams
        self.watcher = watcher
        self.owner = viewer.owner
        self.revoked = False
        self._viewer = viewer
        self._base = base
        self._single = single
        self._html = html
        self._going = watcher.ids  # and what is gone: tuples, as most streams are of one job
        self._gone: tuple[str, ...] = ()
        self._patience: asyncio.Timeout | None = None
        self._patient_until = 0.0
        # One timer each for the whole stream: one for each chunk costs as much as to send it.
        self._limit: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._bytes = self._chunks()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._bytes)

    async def aclose(self) -> None:
        """End it, and give its place back; may be repeated."""
        self._leave()
        await self._bytes.aclose()

    def _leave(self) -> None:
        self._streams.leave(self)
        for timer in (self._limit, self._alarm):
            if timer is not None:
                timer.cancel()
        self._limit = self._alarm = None

    def patience(self) -> asyncio.Timeout:
        """Stands around the sending of one chunk. TimeoutError: the client takes nothing."""
        self._patience = asyncio.timeout(None)
        self._patient_until = asyncio.get_running_loop().time() + self._streams.patience_s
        if self._limit is None or self._limit.when() > self._patient_until:
            self._set_limit()
        return self._patience

    def hurry(self) -> None:
        """Wait no longer for a client that takes nothing just now."""
        self._end_patience(HURRY_S)

    def _set_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = asyncio.get_running_loop().call_at(self._patient_until, self._look)

    def _look(self) -> None:
        self._limit = None
        if asyncio.get_running_loop().time() < self._patient_until:  # of what was sent since
            self._set_limit()
        else:
            self._end_patience(0)

    def _end_patience(self, in_s: float) -> None:
        if self._patience is not None:
            with suppress(RuntimeError):  # nothing is being sent
                self._patience.reschedule(asyncio.get_running_loop().time() + in_s)

    def __enter__(self) -> Watcher:
        """From the first state to the last word; then its place is free, whoever closes it."""
        return self.watcher.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.watcher.__exit__(kind, error, trace)
        finally:
            self._leave()

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        yield _retry()
        with self as watcher:
            clock, every_s = self._streams._clock, self._streams._heartbeat_s
            spread = random.uniform(0.8, 1.2)  # noqa: S311 - no secret hangs on it
            age_s = self._streams._age_s * spread
            until = _first(clock() + age_s, self._viewer)
            beat_at, live = clock() + every_s, watcher.live
            if not live:
                yield _heartbeat(live=False)
            while True:
                reason = self._over(old=clock() >= until)
                if reason in {None, "drain"}:  # else who may watch has to be asked first
                    for chunk in _gathered(self._frames()):
                        yield chunk
                if not self._going:
                    yield _end()
                    return
                if reason is not None:
                    yield _bye(reason)
                    return
                if clock() >= beat_at or live != watcher.live:
                    live, beat_at = watcher.live, clock() + every_s
                    yield _heartbeat(live=live)
                if self._alarm is None:
                    in_s = max(min(beat_at, until) - clock(), 0)
                    self._alarm = asyncio.get_running_loop().call_later(in_s, self._ring)
                await watcher.wait()

    def _ring(self) -> None:
        self._alarm = None
        self.watcher.nudge()

    def _over(self, *, old: bool) -> str | None:
        if self.revoked:
            return "revoked"
        if self._streams.draining:
            return "drain"
        return "age" if old else None

    def _frames(self) -> Iterator[bytes]:
        for job_id, seen in self.watcher.take():
            # Of what is gone for this viewer nothing more is said: not even that it lives.
            if job_id not in self._gone:
                yield self._frame(job_id, seen)

    def _frame(self, job_id: str, seen: Seen) -> bytes:
        job, viewer = seen.job, self._viewer
        if job is None or not viewer.may_watch(job) or job.expired(time.time()):
            self._is_over(job_id)
            self._gone += (job_id,)
            return self._farewell(job_id[:64])
        if job.state.terminal:
            self._is_over(job_id)
        may = (viewer.may_cancel(job), viewer.may_change(job))
        view = (self._base, may, self._single, self._html)
        if seen.frame is None or seen.frame[0] != view:
            seen.frame = (view, self._state(job))
        return seen.frame[1]

    def _is_over(self, job_id: str) -> None:
        self._going = tuple(going for going in self._going if going != job_id)

    def _state(self, job: Job) -> bytes:
        event_id = str(job.rev) if self._single else None
        found = document(job, self._base, self._viewer)
        if self._html:
            return _sse.message(news(found, alone=self._single), event_id=event_id)
        return _sse.frame("job", msgspec.json.encode(found), event_id=event_id)

    def _farewell(self, job_id: str) -> bytes:
        shown = _sse.message(gone(job_id, alone=self._single)) if self._html else b""
        return shown + _sse.frame("gone", msgspec.json.encode({"id": job_id}))


class Probe(Stream):
    """A stream by which clients find out how streams get to them. It tells nothing of jobs."""

    def __init__(
        self,
        streams: Streams,
        watcher: Watcher,
        viewer: Viewer,
        *,
        seconds: float,
        every_s: float,
    ) -> None:
        super().__init__(streams, watcher, viewer, "", single=False)
        self._seconds = seconds
        self._every_s = every_s

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        yield _retry()
        with self as watcher:
            clock = self._streams._clock
            beat_at = clock()
            end_at, old_at = beat_at + self._seconds, beat_at + self._streams._age_s
            while True:
                watcher.take()
                if (reason := self._over(old=clock() >= old_at)) is not None:
                    yield _bye(reason)
                    return
                if clock() >= beat_at:
                    yield _heartbeat(live=watcher.live)
                    beat_at += self._every_s
                if clock() >= end_at:
                    yield _end()
                    return
                await watcher.wait(max(min(beat_at, end_at, old_at) - clock(), 0))


def _first(until: float, viewer: Viewer) -> float:
    """The earlier of *until* (monotonic) and the end of the viewer's first share."""
    if viewer.until is None:
        return until
    return min(until, time.monotonic() + viewer.until - time.time())


def _gathered(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The frames in pieces of about CHUNK_BYTES; each is made when its piece is asked for."""
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        piece.append(frame)
        size += len(frame)
        if size >= CHUNK_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


def _retry() -> bytes:
    return _sse.retry(random.randint(*RETRY_MS))  # noqa: S311 - no secret hangs on it


def _heartbeat(*, live: bool) -> bytes:
    now = rfc3339(time.time())
    return _sse.frame("hb", msgspec.json.encode({"now": now, "live": live}))


def _end() -> bytes:
    return _sse.frame("end", b"{}", event_id=_sse.END)


def _bye(reason: str) -> bytes:
    return _sse.frame("bye", msgspec.json.encode({"reason": reason}))
