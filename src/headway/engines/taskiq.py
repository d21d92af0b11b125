"""Jobs on any broker that taskiq has: RabbitMQ, NATS, Redis, SQS and others.

A message is acknowledged when it is received: the lease in the store, and not the broker, notices
that a worker is dead. So no timeout of a broker is too short for a long job.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from taskiq import AsyncBroker
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from headway.engine import Workplace
from headway.errors import BadInput
from headway.remote import RESEND_S, RemoteEngine

__all__ = ["TaskiqEngine"]


class TaskiqEngine(RemoteEngine):
    """Runs jobs in workers that are started with `headway worker`.

    Args:
        broker: any broker of taskiq. Workers run its other tasks as well.
        name: of the one task that is registered on it; apps that share a broker need one each.
        lifespan: whether it is started and shut down with the `Headway`; false if your app does.
        resend_s: seconds after which a message that nobody has acted upon is taken for lost, for
            the first time.

    Raises:
        BadInput: the broker has a task of this name, or `resend_s` is out of its range.
    """

    def __init__(
        self,
        broker: AsyncBroker,
        *,
        name: str = "headway.run",
        lifespan: bool = True,
        resend_s: float = RESEND_S,
    ) -> None:
        super().__init__(resend_s=resend_s)
        if broker.find_task(name) is not None:
            raise BadInput(f"the broker has a task {name!r} already: give another name=")
        self._broker: Any = broker
        self._most: int | None = getattr(broker, "count", None)
        self._lifespan = lifespan
        self._started = False
        self._finish = asyncio.Event()

        async def run(job_id: str, attempt: int) -> None:
            await self._deliver(job_id, attempt)

        self._task = broker.register_task(
            run, task_name=name, ack_type=AcknowledgeType.WHEN_RECEIVED.value
        )

    async def _connect(self, place: Workplace) -> None:
        if self._lifespan:
            if self._started:  # it has failed half-way, and may hold something open
                await self._disconnect()
            self._started = True
            self._broker.is_worker_process = place.works
            await self._broker.startup()
        self._finish = asyncio.Event()
        if place.works:
            # One for the whole time: what runs on after a lost connection still counts.
            self._receiver = Receiver(
                self._broker, max_async_tasks=place.concurrency, run_startup=False
            )
            if hasattr(self._broker, "count"):  # RedisStreamBroker
                places = _Places(place.concurrency, self._broker, self._most)
                self._receiver.sem_prefetch = places

    async def _send(self, job_id: str, attempt: int) -> None:
        await self._task.kiq(job_id, attempt)

    async def _listen(self, place: Workplace) -> None:
        # A Redis that came back empty has lost the group, too; nothing else makes it anew.
        if declare := getattr(self._broker, "_declare_consumer_group", None):
            await declare()
        await self._receiver.listen(self._finish)

    def _stop_listening(self) -> None:
        self._finish.set()

    async def _disconnect(self) -> None:
        if self._started:
            self._started = False
            await self._broker.shutdown()


class _Places(asyncio.Semaphore):
    """The places of a worker, one of which is taken before the broker is asked for messages.

    It is asked for as many as half of the free places: none of them waits here while another
    worker is idle, a burst is spread over the workers, and the four round trips in which
    taskiq-redis fetches are not paid for each message.

    Args:
        most: messages that it may be asked for at a time; None: as many as there are places.
    """

    def __init__(self, places: int, broker: Any, most: int | None) -> None:
        super().__init__(places)
        self._free = places
        self._broker = broker
        self._most = most or places
        broker.count = 1

    async def acquire(self) -> Literal[True]:
        taken = await super().acquire()
        self._free -= 1
        self._broker.count = min(self._free // 2 + 1, self._most)
        return taken

    def release(self) -> None:
        super().release()
        self._free += 1
