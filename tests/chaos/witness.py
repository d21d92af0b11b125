"""Sees from the outside what the store announces and holds."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headway.job import PARTITIONS
from headway.keys import Keys
from tests.chaos.evidence import TERMINAL, Evidence, Sight

PREFIX: Final = "chaos"
POLL_S: Final = 0.02
READ_S: Final = 0.5


class Witness:
    """Sees every announcement of every job, and reads each record now and then."""

    def __init__(self, url: str, evidence: Evidence) -> None:
        self._client = redis.asyncio.Redis.from_url(
            url, decode_responses=True, protocol=2, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )
        self._keys = Keys(PREFIX, PARTITIONS)
        self._evidence = evidence
        self._known: dict[str, None] = {}
        self._subscribed = 0

    def watch(self, job_id: str) -> None:
        self._known.setdefault(job_id)

    async def listen(self) -> None:
        """Hear, for ever; after a break begin anew with all."""
        while True:
            with suppress(redis.RedisError, OSError):
                async with self._client.pubsub() as pubsub:
                    await pubsub.ssubscribe("nothing")
                    self._subscribed = 0
                    while True:
                        await self._subscribe(pubsub)
                        self._hear(await pubsub.get_message(timeout=POLL_S))
            await asyncio.sleep(POLL_S)

    async def _subscribe(self, pubsub: Any) -> None:
        new = [*self._known][self._subscribed :]
        if new:
            await pubsub.ssubscribe(*map(self._keys.record, new))
            self._subscribed += len(new)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message and message["type"] == "smessage":
            job_id = message["channel"].rpartition(":")[2]
            sight = Sight(time.monotonic(), json.loads(message["data"]))
            self._evidence.story(job_id).heard.append(sight)

    async def read_on(self) -> None:
        """Read what has not ended, for ever."""
        while True:
            with suppress(redis.RedisError, OSError):
                await self.read([i for i in self._known if not self._ended(i)])
            await asyncio.sleep(READ_S)

    def _ended(self, job_id: str) -> bool:
        read = self._evidence.story(job_id).read
        return bool(read) and read[-1].state in TERMINAL

    async def read(self, job_ids: list[str]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(self._keys.record(job_id))
            records = await pipeline.execute()
        for job_id, fields in zip(job_ids, records, strict=True):
            if fields:
                self._evidence.story(job_id).read.append(Sight(time.monotonic(), fields))

    async def aclose(self) -> None:
        await self._client.aclose()
