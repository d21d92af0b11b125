"""What Python knows of jobs in Redis: one method for each act of `store.lua` on a job.

The acts around starting have a room of their own, `gate`, and so has the list of all, `overview`.
Calls are made in `acts`, and answers are read in `record`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from headway._link import Link
from headway._wire import Call
from headway.acts import NO_LINES, Acts, Lines, milliseconds
from headway.context import Context
from headway.errors import JobNotFound, StartRefused, StoreError
from headway.job import Attempt, Failure, Job, State, is_id
from headway.keys import Keys
from headway.limits import LOG_LINES
from headway.record import FIXED, fields_of, readable, two_by_two

__all__ = ["Claim", "Reaped", "Settled", "Store"]

OWNER_INDEX_DAYS: Final = 30  # an index that nobody touched for so long lists nothing that lives
logger = logging.getLogger("headway.store")


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker may run now, with what the run needs to know."""

    job: Job
    args: str
    options: str
    checkpoint: str | None
    context: Context
    handed: int = 0  # how many attempts were handed over before


class Reaped(NamedTuple):
    """What became of a job whose lease may be over.

    Args:
        word: 'adopted' (this worker must run it), 'queued' (another one must), 'ended' or 'early'.
        lost: the job as it is now, if an attempt of it was found lost.
    """

    word: str
    lost: Job | None = None
    context: Context = Context()


@dataclass(frozen=True, slots=True)
class Settled:
    """How a run ended, as it is written to the record."""

    state: State
    progress: str
    result: str = ""
    error: Failure | None = None
    lines: Lines = NO_LINES
    trace: str = ""


class Store(Acts):
    """The acts on jobs, for the loop. Each method costs one round trip unless it says otherwise.

    Every method may raise StoreUnavailable, StoreFull or StoreReadOnly. All acts may be repeated
    after a lost answer.
    """

    def __init__(
        self, link: Link, keys: Keys, worker: str, *, keep_s: float, log_lines: int = LOG_LINES
    ) -> None:
        super().__init__(keys, worker, log_lines)
        self._link = link
        self._keep_ms = milliseconds(keep_s)

    @property
    def contact_at(self) -> float | None:
        """Since when contact was unbroken, monotonic seconds; None while there is none."""
        return self._link.contact_at

    @property
    def link(self) -> Link:
        """Where it is asked; for those who listen there."""
        return self._link

    def _by_slot(self, kind: str) -> list[list[str]]:
        """The keys of a kind, together as far as one script may touch them."""
        keys = [getattr(self.keys, kind)(p) for p in self.keys.all_partitions()]
        return [[key] for key in keys] if self._link.clustered else [keys]

    async def create(
        self, job_id: str, record: Mapping[str, str], lease_s: float, flight: str | None = None
    ) -> Job:
        """Accept a job: from here on it cannot be lost; or return the one that has the key."""
        return (await self.create_beside((), job_id, record, lease_s, flight))[0]

    async def create_beside(
        self,
        beside: Sequence[Call],
        job_id: str,
        record: Mapping[str, str],
        lease_s: float,
        flight: str | None = None,
    ) -> tuple[Job, list[Any]]:
        """As `create()`, and ask *beside* in the same round trip; the answers are returned too."""
        keys = [*self._two(job_id), *([self.keys.flight(job_id, flight)] if flight else [])]
        fixed = dict(record)
        parent = fixed.pop("parent", ""), fixed.pop("parent_attempt", "")
        begun = fixed.pop("begun", "")
        fields = [part for pair in fixed.items() for part in pair]
        create = self._act(
            "create", keys, job_id, self.worker, milliseconds(lease_s), *parent, begun, *fields
        )
        owner = record.get("owner")
        # Before it is known who has the key, the index may not name this id: it may never exist.
        sure = not (flight or parent[0])
        index = self._index(owner, job_id) if sure else []
        answers = await self._link.call_all([create, *beside, *index])
        word, *found = answers[0]
        if word == "late":
            raise StartRefused(
                f"job {parent[0]} can start no job in its attempt {parent[1]}: it has ended, or "
                "another attempt runs. Start jobs only while the task runs, and await them."
            )
        known = fixed if word == "created" else {}
        job = Job.from_record({**known, **fields_of(found[0])}, reused=word == "reused")
        if not (sure or job.reused):
            self._post_index(job)
        return job, answers[1 : len(beside) + 1]

    def _post_index(self, job: Job) -> None:
        for call in self._index(job.owner, job.id):
            self._link.post(call)

    def _index(self, owner: str | None, job_id: str) -> list[Call]:
        # The owner's index lives in another slot, so it goes beside the act and not inside. Its
        # score only orders the list; what is true stands in the records.
        if not owner:
            return []
        key = self.keys.owner(owner)
        return [
            Call(None, ("ZADD", key, "NX", _order(), job_id)),
            Call(None, ("EXPIRE", key, OWNER_INDEX_DAYS * 86400)),
        ]

    async def claim(self, job_id: str, lease_s: float) -> Claim | None:
        """Become the one that runs the job; None if it is not to be run here and now."""
        found = await self.claim_or_ended(job_id, lease_s)
        return found if isinstance(found, Claim) else None

    async def claim_or_ended(self, job_id: str, lease_s: float) -> Claim | Job | None:
        """As `claim()`; or the job, if it has ended before it could begin (again)."""
        act = self._act("claim", self._two(job_id), job_id, self.worker, milliseconds(lease_s))
        answer = await self._link.call(act)
        if answer[0] == "gone":
            logger.warning("job %s is not in the store: forgotten, or lost by the store", job_id)
        if len(answer) == 1:
            return None
        record = fields_of(answer[1])
        if answer[0] != "claimed":
            return readable(record)
        job = Job.from_record(record)
        self._post_index(job)  # the process that accepted it may have died before it did
        return Claim(
            job,
            args=record.get("args", ""),
            options=record.get("options", ""),
            checkpoint=record.get("checkpoint"),
            handed=int(record.get("handed", "0")),
            context=Context.decoded(record.get("context")),
        )

    def sent(self, job_id: str, resend_s: float) -> None:
        """A message about a job that waited here is out; nobody holds it now. Does not wait.

        Lost, this costs a second message at most: the job is held here until its lease is over.
        """
        self._link.post(
            self._act("sent", self._two(job_id), job_id, self.worker, milliseconds(resend_s))
        )

    async def finish(self, job: Job, settled: Settled) -> bool:
        """Write how the run ended. False: the job is no longer ours, and nothing was written."""
        act = self._act(
            "finish", self._three(job.id), job.id, self.worker, job.attempt, settled.state,
            self._keep_ms, settled.progress, settled.result, _error(settled.error),
            settled.trace, *self._numbered(settled.lines),
        )  # fmt: skip
        answers = await self._link.call_all([act, *self._index(job.owner, job.id)])
        return bool(answers[0] == "ok")

    async def release(
        self,
        job_id: str,
        attempt: int,
        *,
        delay_s: float = 0,
        lease_s: float = 0,
        progress: str = "",
        error: Failure | None = None,
        checkpoint: str = "",
        lines: Lines = NO_LINES,
        trace: str = "",
    ) -> str:
        """Give the job back to the queue: 'ok', 'cancelled' (it was asked to stop) or 'lost'."""
        act = self._act(
            "release", self._three(job_id), job_id, self.worker, attempt, milliseconds(delay_s),
            milliseconds(lease_s), self._keep_ms, progress, _error(error), checkpoint,
            trace, *self._numbered(lines),
        )  # fmt: skip
        return str(await self._link.call(act))

    async def cancel(self, job_id: str) -> Job:
        """Ask the job to stop; a queued one is cancelled at once. Repeating changes nothing."""
        act = self._act("cancel", self._three(job_id), job_id, self._keep_ms)
        answer = await self._link.call(act)
        if answer[0] == "gone":
            raise JobNotFound(job_id)
        return Job.from_record(fields_of(answer[1]))

    async def forget(self, job: Job, *, unbegun: bool = False) -> str:
        """Remove an ended job: 'ok', 'going' or 'gone'.

        Args:
            unbegun: also one that waits in this process and has never begun.
        """
        worker = self.worker if unbegun else ""
        act = self._act("forget", self._three(job.id), job.id, worker)
        answer = str(await self._link.call(act))
        if job.owner and answer != "going":
            self._link.post(Call(None, ("ZREM", self.keys.owner(job.owner), job.id)))
        return answer

    async def due(
        self, tasks: Iterable[str], limit: int, *, orphans: bool
    ) -> tuple[float, list[tuple[str, str]]]:
        """The store's time in seconds, and (id, task) of jobs whose lease is over, *limit* at most.

        With *orphans* only those that were given back. One script over all partitions; in a cluster
        one for each, as a script has to stay in its slot.
        """
        which, names = "orphans" if orphans else "all", list(tasks)
        answers = await self._link.try_all(
            [self._act("due", keys, limit, which, *names) for keys in self._by_slot("leases")]
        )
        good = [one for one in answers if not isinstance(one, BaseException)]
        for error in answers:
            if isinstance(error, BaseException):
                if not good or not isinstance(error, StoreError):
                    raise error
                logger.warning("some leases could not be looked at: %s", error)
                break
        due = [one for found in good for one in two_by_two(found[1:])]
        return int(good[0][0]) / 1000, due[:limit]

    async def reap(self, job_id: str, lease_s: float, error: Failure, *, adopt: bool) -> Reaped:
        """Deal with one job whose lease is over."""
        act = self._act(
            "reap", self._three(job_id), job_id, self.worker, milliseconds(lease_s),
            self._keep_ms, _error(error), "1" if adopt else "",
        )  # fmt: skip
        word, *lost = await self._link.call(act)
        if not lost:
            return Reaped(word)
        record = fields_of(lost[0])
        return Reaped(word, readable(record), Context.decoded(record.get("context")))

    async def sweep(self, limit: int) -> int:
        """Remove ended jobs whose time is over; at most *limit* a partition. Two round trips."""
        acts = [self._act("sweep", keys, limit) for keys in self._by_slot("ends")]
        gone = [one for found in await self._link.call_all(acts) for one in two_by_two(found)]
        trims = [Call(None, ("ZREM", self.keys.owner(o), i)) for i, o in gone if o]
        if trims:
            await self._link.call_all(trims)
        return len(gone)

    async def get(self, job_id: str) -> Job:
        """Read one job."""
        jobs = await self.get_all([job_id])
        return jobs[job_id]

    async def get_all(self, job_ids: Sequence[str], *, strict: bool = True) -> dict[str, Job]:
        """Read many jobs in one round trip, in the order asked for.

        Raises:
            JobNotFound: *strict*, and one of them is not there.
        """
        asked = [i for i in job_ids if is_id(i)]
        reads = [Call(None, ("HGETALL", self.keys.record(i))) for i in asked]
        answers = await self._link.call_all(reads)
        records = ((i, fields_of(a)) for i, a in zip(asked, answers, strict=True))
        found = {i: job for i, r in records if r and (job := readable(r)) is not None}
        if strict:
            for job_id in job_ids:
                if job_id not in found:
                    raise JobNotFound(job_id)
        return found

    async def log(self, job_id: str) -> list[str]:
        """The newest lines of the job's log, oldest first."""
        lines = await self._link.call(Call(None, ("LRANGE", self.keys.log(job_id), 0, -1)))
        return [str(line) for line in lines]

    async def attempts(self, job_id: str) -> list[Attempt]:
        """The attempts of the job that are over, oldest first; the newest 100."""
        tries = await self._link.call(Call(None, ("LRANGE", self.keys.tries(job_id), 0, -1)))
        return [Attempt.from_record(json.loads(one)) for one in tries]

    async def args(self, job_id: str) -> Mapping[str, str]:
        """The fixed fields that a second run of the same work needs."""
        record = fields_of(await self._link.call(Call(None, ("HGETALL", self.keys.record(job_id)))))
        if not record:
            raise JobNotFound(job_id)
        # Attempts that were handed over have raised it, and are none of the next job's.
        most = int(record["max_attempts"]) - int(record.get("handed", "0"))
        return {k: v for k, v in record.items() if k in FIXED} | {"max_attempts": str(most)}

    async def of_owner(self, owner: str, limit: int) -> list[Job]:
        """The owner's newest jobs, newest first. Two round trips; a third if some have expired."""
        key = self.keys.owner(owner)
        ids = await self._link.call(Call(None, ("ZREVRANGE", key, 0, limit - 1)))
        jobs = await self.get_all(ids, strict=False)
        if gone := [i for i in ids if i not in jobs]:
            await self._link.call(Call(None, ("ZREM", key, *gone)))
        return [job for job in jobs.values() if job.owner == owner]

    async def tell(self, word: str, about: str) -> None:
        """Say something to all processes, on one of the channels that all of them hear."""
        channel = self.keys.control()[0]
        await self._link.call(Call(None, ("SPUBLISH", channel, json.dumps({word: about}))))

    async def meet(self) -> None:
        """One round trip that proves that the store is one, and may be used."""
        await self.due((), 1, orphans=True)

    async def ping(self) -> None:
        """One round trip that proves contact with each server."""
        await self._link.everywhere(Call(None, ("PING",)))

    async def eviction_policy(self) -> str | None:
        """The server's maxmemory-policy; None where it may not be asked.

        Managed services refuse CONFIG, but not INFO.
        """
        try:
            told = await self._link.call(Call(None, ("INFO", "memory")))
        except StoreError:
            return None
        return str(told.get("maxmemory_policy") or "") or None


def _order() -> int:
    # Orders one owner's list; a clock that is wrong by seconds only misplaces a row.
    return int(time.time() * 1000)


def _error(failure: Failure | None) -> str:
    return msgspec.json.encode(failure).decode() if failure else ""
