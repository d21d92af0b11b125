"""Accepts jobs: from the wish to start a task to a job that is safe in the store and submitted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from headway.context import About, Context, current_about, extra
from headway.errors import AlreadyRunning, JobNotFound, KeySpent, StoreError, TooMany
from headway.gate import Asker, Gate, Reservation
from headway.job import PARTITIONS, Job, flight_of, id_of, new_id
from headway.store import Store
from headway.task import Start
from headway.telemetry import Telemetry

__all__ = ["Intake", "record_of"]

logger = logging.getLogger("headway.intake")


def record_of(start: Start, owner: str | None) -> dict[str, str]:
    """The fixed fields of the record of a job that is to be."""
    return {
        "task": start.task,
        "title": start.title,
        "owner": owner or "",
        "args": start.args,
        "options": msgspec.json.encode(start.options).decode(),
        "on_lost": start.on_lost,
        "max_attempts": str(start.max_attempts),
    }


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be accepted.

    Args:
        about: what it is, as far as an Idempotency-Key is concerned.
        refuse: not, if a job has its key.
    """

    record: dict[str, str]
    flight: str | None
    about: str
    job_id: str | None = None
    refuse: bool = False


class Intake:
    """Accepts jobs for one process.

    Args:
        submit: makes a job that this process has accepted run.
    """

    def __init__(
        self,
        store: Store,
        gate: Gate,
        submit: Callable[[Job], Awaitable[None]],
        *,
        lease_s: float,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._telemetry = telemetry or Telemetry()
        self._gate = gate
        self._submit = submit
        self._lease_s = lease_s

    async def begin(self, start: Start, owner: str | None, asker: Asker | None) -> Job:
        """Accept a job, or find the one that has its key. One round trip; three with an
        Idempotency-Key, two if it finds the job of the first time.

        Args:
            asker: the request that starts it; None for what the app starts by itself.

        Raises:
            StartRefused: the gate is closed to it; see the classes below it.
        """
        record = record_of(start, owner)
        if start.parent is not None:
            parent, attempt = start.parent
            record |= {"parent": parent, "parent_attempt": str(attempt)}
        wish = _Wish(
            record,
            flight_of(start.task, owner, start.key) if start.key is not None else None,
            about=f"{start.task}\n{start.args}",
            job_id=start.job_id,
            refuse=start.if_running == "refuse",
        )
        return await self._begin(wish, asker)

    async def again(self, record: dict[str, str], job_id: str, asker: Asker | None) -> Job:
        """Accept the work of an ended job once more. As many round trips as `begin()`."""
        about = f"retry {job_id}"
        flight = flight_of(record["task"], record.get("owner"), about)
        return await self._begin(_Wish(record, flight, about), asker)

    async def _begin(self, wish: _Wish, asker: Asker | None) -> Job:
        context = Context(request_id=current_about().request_id)
        if not self._telemetry.on:
            return await self._shielded(wish, context, asker)
        with self._telemetry.starting(wish.record["task"], context) as starting:
            job = await self._shielded(wish, starting.context, asker)
            starting.accepted(job)
            return job

    async def _shielded(self, wish: _Wish, context: Context, asker: Asker | None) -> Job:
        if said := context.encoded():
            wish = replace(wish, record={**wish.record, "context": said})
        # A client that goes away must not leave a job that is accepted but never submitted.
        if asker is None or asker.key is None:
            accepting = self._accept(wish, asker)
        else:
            accepting = self._once(wish, asker)
        return await asyncio.shield(asyncio.ensure_future(accepting))

    async def _once(self, wish: _Wish, asker: Asker) -> Job:
        """Accept it, or find the job that the same start of the same request has become."""
        with asker.start() as number:
            reservation = await self._gate.reserve(asker, number, wish.about)
            if reservation.job_id is not None:
                return await self._replayed(reservation.job_id, asker)
            # So that it is one job, too, if this process dies before it can say which.
            what = f"{reservation.name}\n{wish.about}"
            job_id = id_of(PARTITIONS, what, flight=wish.flight)
            try:
                job = await self._accept(replace(wish, job_id=job_id), asker)
            except Exception:
                await self._settle(reservation, None)
                raise
            await self._settle(reservation, job)
            return job

    async def _replayed(self, job_id: str, asker: Asker) -> Job:
        try:
            job = await self._store.get(job_id)
        except JobNotFound:
            raise KeySpent("the job that this Idempotency-Key started is gone") from None
        asker.replayed = True
        return msgspec.structs.replace(job, reused=True)

    async def _settle(self, reservation: Reservation, job: Job | None) -> None:
        try:
            await self._gate.settle(reservation, job)
        except StoreError as error:  # what is true of the job is true all the same
            logger.warning("an Idempotency-Key stays taken for a while: %s", error)

    async def _accept(self, wish: _Wish, asker: Asker | None) -> Job:
        job_id = wish.job_id or new_id(PARTITIONS, flight=wish.flight)
        beside = self._gate.admit_calls(asker, job_id) if asker is not None else []
        job, answers = await self._store.create_beside(
            beside, job_id, wish.record, self._lease_s, wish.flight
        )
        if asker is not None:
            await self._admit(job, job_id, asker, answers)
        if job.reused and wish.refuse:
            raise AlreadyRunning(job.id)
        if not job.reused and not job.state.terminal:
            if logger.isEnabledFor(logging.INFO):
                about = About(job.id, job.task, request_id=current_about().request_id)
                words = "job %s (%s) is accepted"
                logger.info(words, job.id, job.task, extra=extra("create", about))
            await self._submit(job)
        return job

    async def _admit(self, job: Job, job_id: str, asker: Asker, answers: Sequence[object]) -> None:
        if job.reused:  # it holds a place already
            self._gate.leave(asker.owner, job_id)
            return
        try:
            await self._gate.check(asker, job_id, answers, self._living)
        except TooMany:
            await self._store.forget(job, unbegun=True)
            raise

    async def _living(self, ids: Sequence[str]) -> set[str]:
        jobs = await self._store.get_all(ids, strict=False)
        return {i for i, job in jobs.items() if not job.state.terminal}
