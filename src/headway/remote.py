"""What engines with workers elsewhere have in common: an outbox, and what to do with what arrives.

A job that is accepted waits in the outbox, held by the lease of this process, until a message about
it is out. Then nobody holds it, and its lease says when the message is to be taken for lost:
after `resend_s`, then after four times as long, and so on, so that a long backlog is no flood.
While the broker is away, the outbox is where jobs wait; if this process dies, another one finds
their leases over, and puts them into its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

from headway.context import About, current_about, extra
from headway.engine import Workplace
from headway.errors import BadInput, StoreError
from headway.job import is_id

__all__ = ["COMMAND", "RESEND_S", "RemoteEngine"]

COMMAND: Final = "headway worker MODULE:HEADWAY"
RESEND_S: Final = 300.0
AT_ONCE: Final = 16  # messages under way
OUTBOX: Final = 50  # with so many that wait here, nothing is taken over from others
REACH_S: Final = 10.0  # a broker that takes longer than this is away
AGAIN_S: Final = (0.25, 0.5, 1.0, 2.0)  # between tries to reach it; the last repeats
STORE_AGAIN_S: Final = 1.0
LEAVE_S: Final = 0.5
LAST_S: Final = 2.5  # a read that has not heard of the end is over by then: taskiq's takes 2 s

logger = logging.getLogger("headway.engine")


class RemoteEngine:
    """Sends the ids of jobs to workers, and runs here what arrives if this process is one.

    A subclass knows one kind of broker. It says how to `_connect`, `_send`, `_listen` and
    `_disconnect`, and calls `_deliver()` with what it has heard.

    Args:
        resend_s: seconds after which a message that nobody has acted upon is taken for lost, for
            the first time.
    """

    workers: str | None = COMMAND

    def __init__(self, *, resend_s: float = RESEND_S) -> None:
        if not 1 <= resend_s < math.inf:
            raise BadInput(f"resend_s {resend_s!r}: give seconds, at least 1")
        self._resend_s = resend_s
        self._outbox: dict[str, int] = {}  # id → attempt, in the order they came
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._slots: dict[str, asyncio.Event] = {}
        self._serving: list[asyncio.Task[None]] = []
        self._place: Workplace | None = None
        self._taking = False
        self._away = False
        self._wake = asyncio.Event()
        self._context = Context()

    # ── what a subclass says ──────────────────────────────────────────────────────────────────

    async def _connect(self, place: Workplace) -> None:
        """Connect to the broker. Tried again until it works."""
        raise NotImplementedError

    async def _send(self, job_id: str, attempt: int) -> None:
        """Send one message. Tried again until it works."""
        raise NotImplementedError

    async def _listen(self, place: Workplace) -> None:
        """Hand each message to `_deliver()`, and wait until it returns, for at most
        `place.concurrency` at a time. Called again if it returns or raises."""
        raise NotImplementedError

    def _stop_listening(self) -> None:
        """Take no more messages from the broker."""

    async def _disconnect(self) -> None:
        """Let go of the broker."""

    # ── the contract ──────────────────────────────────────────────────────────────────────────

    @property
    def room(self) -> int:
        """How many more jobs this process could send messages about."""
        return max(OUTBOX - len(self._outbox), 0)

    def bind(self, headway: Any) -> None:
        """Nothing to do: `headway worker` opens the `Headway`."""

    def held(self) -> Iterable[str]:
        """Ids that wait here: for the broker, or for their next attempt."""
        return [*self._outbox.copy(), *self._later.copy()]

    async def submit(self, job_id: str, attempt: int) -> None:
        """Put the job into the outbox."""
        self._outbox.setdefault(job_id, attempt)
        self._wake.set()

    async def serve(self, place: Workplace) -> None:
        """Begin to send, and to listen if this is a worker."""
        self._place = place
        self._taking = True
        self._context = copy_context()
        self._wake = asyncio.Event()
        if self._outbox:
            self._wake.set()
        self._serving = [asyncio.create_task(self._serve(place), name="headway-engine")]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around the waiting of a job for jobs: the worker takes another message meanwhile."""
        if slot := self._slots.get(current_about().job_id or ""):
            slot.set()
        yield

    def stop_taking(self) -> list[str]:
        """Send and take no more messages. Returns the ids that waited here."""
        self._taking = False
        self._stop_listening()
        if self._serving:
            self._serving[0].cancel()
        for timer in self._later.values():
            timer.cancel()
        waiting = [*self._outbox, *self._later]
        self._outbox.clear()
        self._later.clear()
        return waiting

    async def aclose(self, drain_s: float) -> None:
        """Return when nothing runs here any more, or after *drain_s* seconds."""
        self._taking = False
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain_s)

    async def leave(self) -> None:
        """Stop listening, and let go of the broker. At once, or when a read of it has ended."""
        # On Python 3.11 redis-py swallows a cancellation now and then. So what the broker is asked
        # for may still come: it is sent again, and not dropped, as long as somebody listens.
        if self._serving:
            await asyncio.wait(self._serving, timeout=LAST_S)
        # Twice: what taskiq then waits for ends with its connection only.
        await self._cancel()
        try:
            async with asyncio.timeout(REACH_S):
                await self._disconnect()
        except Exception as error:  # there is nothing left that could depend on it
            logger.warning("the broker was not left in order: %s", _said(error))
        if not await self._cancel():
            logger.warning("listening to the broker did not end")
        self._serving = []

    async def _cancel(self) -> bool:
        """Ask the tasks of this engine to end, and wait a moment; whether they have."""
        for task in self._serving:
            task.cancel()
        return not self._serving or not (await asyncio.wait(self._serving, timeout=LEAVE_S))[1]

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    async def _serve(self, place: Workplace) -> None:
        await self._reach(lambda: self._connect(place))
        if place.works:
            listening = self._keep_listening(place)
            self._serving.append(asyncio.create_task(listening, name="headway-engine-listen"))
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await self._reach(partial(self._send_some, place))

    async def _reach(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it, again and again until the broker lets it be done."""
        tries = 0
        while True:
            try:
                async with asyncio.timeout(REACH_S):
                    await act()
            except Exception as error:  # each broker's library has errors of its own
                if not self._away:
                    words = "the broker cannot be reached; jobs are accepted, and wait: %s"
                    logger.warning(words, _said(error), extra=extra("send"))
                self._away = True
            else:
                if self._away:
                    logger.warning("the broker is back", extra=extra("send"))
                self._away = False
                return
            longest = AGAIN_S[min(tries, len(AGAIN_S) - 1)]
            tries += 1
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load

    async def _send_some(self, place: Workplace) -> None:
        some = [pair for pair, _ in zip(self._outbox.items(), range(AT_ONCE), strict=False)]
        sending = (self._send(job_id, attempt) for job_id, attempt in some)
        answers = await asyncio.gather(*sending, return_exceptions=True)
        failed = None
        for (job_id, _), answer in zip(some, answers, strict=True):
            if isinstance(answer, BaseException):
                failed = answer
            elif self._outbox.pop(job_id, None) is not None:
                place.sent(job_id, self._resend_s)
        if failed is not None:
            raise failed

    # ── running ───────────────────────────────────────────────────────────────────────────────

    async def _keep_listening(self, place: Workplace) -> None:
        while self._taking:
            try:
                await self._listen(place)
            except Exception as error:  # as above
                if self._taking:  # else it was torn off
                    logger.warning("listening to the broker has ended: %s", _said(error))
            if self._taking:
                await asyncio.sleep(random.uniform(0.5, 1) * AGAIN_S[1])  # noqa: S311 - as above

    async def _deliver(self, job_id: object, attempt: int) -> None:
        """Run the job here, if it is to be run; returns when it is over or stands aside."""
        if not isinstance(job_id, str) or not is_id(job_id):
            logger.error("the broker brought %.60r, which is no job", job_id)
            return
        if not self._taking or self._place is None or not self._place.works:
            # It came too late, and is for another worker. Lost now, it would wait for long.
            await self._send(job_id, attempt)
            return
        if job_id in self._running:
            return
        slot = asyncio.Event()
        task = asyncio.create_task(
            self._run(job_id, self._place),
            name=f"headway-job-{job_id}",
            context=self._context.copy(),  # and not that of the broker's library
        )
        self._running[job_id], self._slots[job_id] = task, slot
        task.add_done_callback(partial(self._over, job_id, slot))
        await slot.wait()

    def _over(self, job_id: str, slot: asyncio.Event, _: asyncio.Task[None]) -> None:
        self._running.pop(job_id, None)
        self._slots.pop(job_id, None)
        slot.set()

    async def _run(self, job_id: str, place: Workplace) -> None:
        try:
            delay_s = await self._claimed(job_id, place)
        except Exception:
            said = extra("run", About(job_id))
            logger.exception("job %s met an error of Headway's own", job_id, extra=said)
            return
        if delay_s is not None and self._taking:
            loop = asyncio.get_running_loop()
            self._later[job_id] = loop.call_later(delay_s, self._due, job_id)

    async def _claimed(self, job_id: str, place: Workplace) -> float | None:
        while True:
            try:
                return await place.run(job_id)
            except StoreError as error:
                said = extra("claim", About(job_id))
                logger.warning("job %s waits for the store: %s", job_id, error, extra=said)
            # Here, and not in the outbox: so a worker without a store takes no further messages.
            await asyncio.sleep(STORE_AGAIN_S)
            if not self._taking:
                return None

    def _due(self, job_id: str) -> None:
        """The next attempt is for whichever worker is free."""
        del self._later[job_id]
        self._outbox.setdefault(job_id, 0)
        self._wake.set()


def _said(error: BaseException) -> str:
    """What an error of a broker's library says; of a group, what the first of them says."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = error.__cause__
    return f"{error!r} from {cause!r}" if cause is not None else repr(error)
