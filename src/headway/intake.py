"""Accepts jobs: from the wish to start a task to a job that is safe in the store and submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from headway.errors import AlreadyRunning, StoreError, TooLarge, TooMany
from headway.gate import Asker, Gate, Reservation
from headway.job import PARTITIONS, Job, flight_of, id_of, new_id
from headway.store import Store
from headway.task import Start

__all__ = ["Intake"]


class Intake:
    """Accepts jobs for one process.

    Args:
        submit: makes a job that this process has accepted run.
        args_bytes: how large the arguments may be.
    """

    def __init__(
        self,
        store: Store,
        gate: Gate,
        submit: Callable[[Job], Awaitable[None]],
        *,
        lease_s: float,
        args_bytes: int,
    ) -> None:
        self._store = store
        self._gate = gate
        self._submit = submit
        self._lease_s = lease_s
        self._args_bytes = args_bytes

    async def begin(self, start: Start, owner: str | None, asker: Asker | None) -> Job:
        """Accept a job, or find the one that has its key. One round trip.

        Args:
            asker: the request that starts it; None for what the app starts by itself.

        Raises:
            TooLarge: the arguments are over the limit.
            StartRefused: the gate is closed to it; see the classes below it.
        """
        if (size := len(start.args.encode())) > self._args_bytes:
            raise TooLarge(
                f"arguments of {start.task} are {size} bytes as JSON, at most {self._args_bytes}. "
                "Store the data elsewhere (a file, a table) and pass where it is."
            )
        flight = flight_of(start.task, owner, start.key) if start.key is not None else None
        record = {
            "task": start.task,
            "title": start.title,
            "owner": owner or "",
            "args": start.args,
            "options": msgspec.json.encode(start.options).decode(),
            "on_lost": start.on_lost,
            "max_attempts": str(start.max_attempts),
        }
        job_id = start.job_id or new_id(PARTITIONS, flight=flight)
        # A client that goes away must not leave a job that is accepted but never submitted.
        accepting = self._begin(job_id, record, flight, asker)
        job = await asyncio.shield(asyncio.ensure_future(accepting))
        if job.reused and start.if_running == "refuse":
            raise AlreadyRunning(job.id)
        return job

    async def again(self, record: dict[str, str], job_id: str, asker: Asker | None) -> Job:
        """Accept the work of an ended job once more. One round trip."""
        flight = flight_of(record["task"], record.get("owner"), f"retry {job_id}")
        new = new_id(PARTITIONS, flight=flight)
        accepting = self._accept(new, record, flight, asker)
        return await asyncio.shield(asyncio.ensure_future(accepting))

    async def _begin(
        self, job_id: str, record: dict[str, str], flight: str | None, asker: Asker | None
    ) -> Job:
        if asker is None or asker.key is None:
            return await self._accept(job_id, record, flight, asker)
        about = f"{record['task']}\n{record['args']}"
        reservation = await self._gate.reserve(asker, about)
        asker.started += 1
        if reservation.job_id is not None:
            asker.replayed = True
            return msgspec.structs.replace(await self._store.get(reservation.job_id), reused=True)
        if flight is None:  # so that it is one job, too, if the answer to accepting it gets lost
            job_id = id_of(PARTITIONS, reservation.name)
        return await self._once(reservation, job_id, record, flight, asker)

    async def _once(
        self,
        reservation: Reservation,
        job_id: str,
        record: dict[str, str],
        flight: str | None,
        asker: Asker,
    ) -> Job:
        try:
            job = await self._accept(job_id, record, flight, asker)
        except (StoreError, TooMany):
            await self._gate.settle(reservation, None)
            raise
        await self._gate.settle(reservation, job)
        return job

    async def _accept(
        self, job_id: str, record: dict[str, str], flight: str | None, asker: Asker | None
    ) -> Job:
        beside = self._gate.admit_calls(asker, job_id) if asker is not None else []
        job, answers = await self._store.create_beside(
            beside, job_id, record, self._lease_s, flight
        )
        if asker is not None:
            await self._admit(job, job_id, asker, answers)
        if not job.reused and not job.state.terminal:
            await self._submit(job)
        return job

    async def _admit(self, job: Job, job_id: str, asker: Asker, answers: Sequence[object]) -> None:
        if job.reused:  # it holds a place already, and the start costs nobody anything
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
