"""The beat thread: renews the leases of this process and writes the news of its jobs.

A thread of its own with a connection of its own, so that a blocked event loop loses no lease and
hides no progress. All that is due at one moment goes in one pipeline. It sleeps while there is
nothing to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from headway._wire import Call
from headway.acts import NO_LINES, Lines, ThreadStore
from headway.context import About, extra
from headway.errors import HeadwayError, StoreError, StoreUnavailable
from headway.progress import News
from headway.telemetry import Telemetry

__all__ = ["Beating", "Pulse", "Source"]

FLUSH_S: Final = 0.1  # at most ten writes a second and job
BEATS_A_LEASE: Final = 3.3  # so that two beats in a row may be lost
AGAIN_S: Final = 0.5  # after a failure
NO_NEWS: Final = News("", "", NO_LINES)

logger = logging.getLogger("headway.pulse")


class Source(Protocol):
    """Where the beat thread and the runner get from what is to be written: see `Progress`."""

    def take(self) -> News: ...
    def wrote(self, news: News) -> None: ...
    def give_back(self) -> None: ...
    def final(self, *, succeeded: bool) -> str: ...
    def last_checkpoint(self) -> str: ...
    def last_lines(self) -> Lines: ...


class Beating(Protocol):
    """A run whose heart this thread is."""

    job_id: str
    attempt: int
    source: Source
    ending: bool

    def heard(self, answer: str) -> None:
        """Told (in the beat thread) what the store answered, if it was not 'ok'."""


class _Beat:
    """When one run was last written and last renewed; seconds of the pulse's clock."""

    __slots__ = ("news", "renewed_at", "run", "written_at")

    def __init__(self, run: Beating, now: float) -> None:
        self.run = run
        self.renewed_at = now
        self.written_at = now - FLUSH_S
        self.news: News | None = None


class Pulse:
    """Beats for every registered run and held job until it is closed.

    Args:
        store: the thread's own store; closed with the pulse.
        lease_s: how long a lease lasts after each beat.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: ThreadStore,
        *,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._telemetry = telemetry or Telemetry()
        self._lease_s = lease_s
        self._beat_s = lease_s / BEATS_A_LEASE
        self._clock = clock
        self._runs: dict[str, _Beat] = {}
        self._held: Callable[[], Iterable[str]] = tuple
        self._held_at = clock()
        self._lock = threading.Lock()
        self._looked_at = clock()
        self._resting = True
        # No Event: whose code a finalizer interrupts inside of `Event.set` would wait for itself.
        self._wakes: SimpleQueue[str | None] = SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="headway-pulse", daemon=True)

    def open(self, held: Callable[[], Iterable[str]]) -> None:
        """Start to beat; *held* tells the ids of jobs that wait in this process."""
        self._held = held
        self._thread.start()

    def close(self) -> None:
        """Stop beating, after what is under way. Blocks for one round trip at most."""
        self._closing = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=2)
        self._store.close()

    def add(self, run: Beating) -> None:
        """Beat for *run* from now on; its lease is fresh."""
        with self._lock:
            self._runs[run.job_id] = _Beat(run, self._clock())
        self.rouse()

    def remove(self, run: Beating) -> None:
        """Beat for it no longer."""
        with self._lock:
            self._runs.pop(run.job_id, None)

    def wake(self, job_id: str | None = None) -> None:
        """There is news that should not wait for the next round: of this job, or of who knows.

        Callable from any thread and at any instant, also from a finalizer: it never waits.

        Source: Python's `queue` module, which promises it of `SimpleQueue.put()`.
        """
        self._wakes.put(job_id)

    def rouse(self) -> None:
        """There is something new to beat for, with a fresh lease: wake it if it sleeps for good."""
        if self._resting:
            self.wake()

    def _serve(self) -> None:
        while not self._closing:
            woken = self._wait()
            try:
                self._round(woken)
            except StoreError as error:
                logger.warning("progress and leases could not be written: %s", error)
                self._wait_after_failure()
            except Exception:  # the thread must live: without it every lease of the process ends
                logger.exception("the beat thread met an error of its own")
                self._wait_after_failure()

    def _wait(self) -> set[str | None]:
        woken: set[str | None] = set()
        self._resting = True  # before the look: who adds something after it must see this
        pause = self._pause()
        self._resting = pause is None
        with suppress(Empty):
            woken.add(self._wakes.get(timeout=pause))
            while True:  # all that woke it until now is served by one round
                woken.add(self._wakes.get_nowait())
        return woken

    def _wait_after_failure(self) -> None:
        if not self._closing:
            time.sleep(AGAIN_S)

    def _pause(self) -> float | None:
        """Seconds until the next round; None, until woken, if nothing runs or waits here."""
        if self._runs:
            return max(self._looked_at + FLUSH_S - self._clock(), 0)
        return self._beat_s / 2 if any(True for _ in self._held()) else None

    def _round(self, woken: set[str | None]) -> None:
        now = self._clock()
        beats = self._looked_at_now(woken, now)
        due = [(beat, call) for beat in beats if (call := self._call(beat, now))]
        holds = self._hold_calls(now)
        if not due and not holds:
            return
        try:
            answers = self._send([*(call for _, call in due), *holds])
        except HeadwayError:
            for beat, _ in due:
                self._undo(beat)
            raise
        for (beat, _), answer in zip(due, answers[: len(due)], strict=True):
            self._settle(beat, answer, now)
        if holds:
            self._settle_holds(answers[len(due) :], now)
        for answer in answers:
            if isinstance(answer, StoreUnavailable):  # one node of a cluster; told once for all
                raise answer

    def _looked_at_now(self, woken: set[str | None], now: float) -> list[_Beat]:
        """Those that have woken it; all, when it is time. Else each report would cost a look at all
        jobs of the process."""
        with self._lock:
            if woken and None not in woken and now - self._looked_at < FLUSH_S:
                return [beat for i in woken if i and (beat := self._runs.get(i)) is not None]
            self._looked_at = now
            return list(self._runs.values())

    def _send(self, calls: list[Call]) -> list[Any]:
        if not self._telemetry.on:
            return self._store.send(calls)
        with self._telemetry.flushing():
            return self._store.send(calls)

    def _call(self, beat: _Beat, now: float) -> Call | None:
        run = beat.run
        renew = now - beat.renewed_at >= self._beat_s
        write = now - beat.written_at >= FLUSH_S * 0.9 and not run.ending
        beat.news = self._take(run) if write else None
        if not renew and not (beat.news and (beat.news.progress or beat.news.lines.texts)):
            return None
        news = beat.news or NO_NEWS
        return self._store.beat_call(
            run.job_id,
            run.attempt,
            self._lease_s,
            progress=news.progress,
            checkpoint=news.checkpoint,
            lines=news.lines,
        )

    def _take(self, run: Beating) -> News | None:
        try:
            return run.source.take()
        except Exception:  # the trouble of one job must not cost the others their leases
            said = extra("flush", About(run.job_id, attempt=run.attempt))
            logger.exception("the progress of job %s cannot be read", run.job_id, extra=said)
            return None

    def _settle(self, beat: _Beat, answer: object, now: float) -> None:
        if isinstance(answer, StoreError):
            self._undo(beat)
            if isinstance(answer, StoreUnavailable):
                return
            run, words = beat.run, "progress of job %s could not be written: %s"
            said = extra("flush", About(run.job_id, attempt=run.attempt))
            logger.warning(words, run.job_id, answer, extra=said)
            return
        beat.renewed_at = now
        if beat.news is not None and beat.news.progress:
            beat.written_at = now
            beat.run.source.wrote(beat.news)
        if answer != "ok" and not beat.run.ending:
            beat.run.heard(str(answer))

    def _undo(self, beat: _Beat) -> None:
        if beat.news is not None:
            beat.run.source.give_back()
            beat.news = None

    def _hold_calls(self, now: float) -> list[Call]:
        if now - self._held_at < self._beat_s:
            return []
        return self._store.hold_calls(self._held(), self._lease_s)

    def _settle_holds(self, answers: list[object], now: float) -> None:
        refused = [answer for answer in answers if isinstance(answer, StoreError)]
        if refused and not isinstance(refused[0], StoreUnavailable):
            logger.warning("leases of queued jobs could not be renewed: %s", refused[0])
        if not refused:
            self._held_at = now
