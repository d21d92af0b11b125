"""The gate: how much one owner may start, and that a request sent twice starts one job.

It holds for what requests start; code of the app that starts jobs by itself is not counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from headway._link import Link
from headway._wire import Call
from headway.acts import SCRIPTS
from headway.errors import KeyInFlight, KeyReused, TooMany
from headway.job import Job
from headway.keys import Keys, digest
from headway.limits import Limits

__all__ = ["Asker", "Gate", "Reservation"]

ACTIVE_S: Final = 30 * 86_400  # places that nobody gave back are free after so long
BUSY_S: Final = 30.0  # a request that died does not block its Idempotency-Key for longer
FULL_AGAIN_S: Final = 5.0  # when a place is free is not known; sooner would be a storm


@dataclass(slots=True)
class Asker:
    """The request that starts a job, as far as the gate is concerned.

    Args:
        owner: who asks.
        rate_key: whose starts are counted together.
        key: the Idempotency-Key, if one was sent.
        starts: how many the request has made.
        replayed: one of them had been made before, by the same request sent earlier.
    """

    owner: str | None
    rate_key: str | None
    key: str | None = None
    starts: int = 0
    replayed: bool = False

    @contextmanager
    def start(self) -> Iterator[int]:
        """Around one start: its number in the request. One that fails has not been made."""
        number, self.starts = self.starts, self.starts + 1
        try:
            yield number
        except BaseException:
            self.starts = number
            raise


@dataclass(frozen=True, slots=True)
class Reservation:
    """An Idempotency-Key that this request has taken, or that was used before."""

    name: str
    token: str
    job_id: str | None


class Gate:
    """Keeps the limits of `Limits` that concern starting, across all processes."""

    def __init__(self, link: Link, keys: Keys, limits: Limits, *, keep_s: float) -> None:
        self._link = link
        self._keys = keys
        self._limits = limits
        self._keep_ms = round(keep_s * 1000)

    # ── how much ──────────────────────────────────────────────────────────────────────────────

    def admit_calls(self, asker: Asker, job_id: str) -> list[Call]:
        """To be asked together with the act that accepts the job; `check()` reads the answers."""
        calls = []
        if self._counts(asker.owner):
            calls.append(self._admit(str(asker.owner), job_id))
        if (pace := self._limits.starts_per_minute) is not None and asker.rate_key is not None:
            name = self._keys.pace(f"{pace} {asker.rate_key}")
            calls.append(Call(SCRIPTS["pace"], (1, name, pace)))
        return calls

    async def check(
        self,
        asker: Asker,
        job_id: str,
        answers: Sequence[Any],
        alive: Callable[[Sequence[str]], Awaitable[set[str]]],
    ) -> None:
        """Read the answers to `admit_calls()`.

        Args:
            alive: tells which of the ids are jobs that have not ended.

        Raises:
            TooMany: the job may not be; no place is taken.
        """
        rest = list(answers)
        if self._counts(asker.owner) and (held := rest.pop(0)) != ["ok"]:
            await self._admit_again(str(asker.owner), job_id, held, alive)
        if rest and (wait_ms := int(rest[0])):
            self.leave(asker.owner, job_id)
            raise TooMany("too_many_starts", wait_ms / 1000)

    def leave(self, owner: str | None, job_id: str) -> None:
        """The job has ended, or never was: its place is free. Costs no round trip of its own."""
        if owner is not None and self._counts(owner):
            self._link.post(Call(None, ("SREM", self._keys.active(owner), job_id)))

    def _counts(self, owner: str | None) -> bool:
        return owner is not None and self._limits.jobs_per_owner is not None

    def _admit(self, owner: str, job_id: str) -> Call:
        most = self._limits.jobs_per_owner or 1
        return Call(SCRIPTS["admit"], (1, self._keys.active(owner), job_id, most, ACTIVE_S))

    async def _admit_again(
        self,
        owner: str,
        job_id: str,
        held: Sequence[str],
        alive: Callable[[Sequence[str]], Awaitable[set[str]]],
    ) -> None:
        # Places of jobs that ended while nobody could give them back must not lock out for ever.
        living = await alive(held)
        if over := [i for i in held if i not in living]:
            free = Call(None, ("SREM", self._keys.active(owner), *over))
            if (await self._link.call_all([free, self._admit(owner, job_id)]))[1] == ["ok"]:
                return
        raise TooMany("too_many_jobs", FULL_AGAIN_S)

    # ── once ──────────────────────────────────────────────────────────────────────────────────

    async def reserve(self, asker: Asker, number: int, about: str) -> Reservation:
        """Take the request's Idempotency-Key for its *number*-th start. One round trip.

        Source: draft-ietf-httpapi-idempotency-key-header: another payload, and one that is being
        handled, are refused.

        Args:
            about: what is to be started; the same key with something else is refused.

        Raises:
            KeyReused, KeyInFlight: see there.
        """
        said = f"{asker.owner}\n{number}\n{asker.key}"
        name, token = self._keys.once(said), secrets.token_hex(8)
        act = Call(SCRIPTS["reserve"], (1, name, digest(about), token, round(BUSY_S * 1000)))
        word, *job = await self._link.call(act)
        if word == "other":
            raise KeyReused("this Idempotency-Key was used for something else")
        if word == "busy":
            raise KeyInFlight("a request with this Idempotency-Key is being handled")
        return Reservation(name, token, job[0] if job else None)

    async def settle(self, reservation: Reservation, job: Job | None) -> None:
        """The key stands for *job* from now on; or for nothing, if none came of it."""
        args = (1, reservation.name, reservation.token, job.id if job else "", self._keep_ms)
        await self._link.call(Call(SCRIPTS["settle"], args))
