"""All jobs, for operators: newest first, filtered, page by page.

Read from the indexes that the store keeps anyway: the leases hold what lives, the ends what has
ended, ordered by when. Nothing is written, and no job pays for being listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final, NamedTuple

from headway._link import Link
from headway._wire import Call
from headway.errors import BadInput
from headway.job import Job, State
from headway.keys import Keys
from headway.store import readable

__all__ = ["EVERY", "PAGE", "Filter", "Listing", "Overview"]

PAGE: Final = 50
LIVE_MOST: Final = 2_000  # live jobs that one look reads; more are counted, not listed
LIVE: Final = "l"
ENDED: Final = "e"
CHUNK: Final = 20  # asked of each partition at a time
BATCHES: Final = 8  # a filter that few jobs pass gives up after so many, and says where it stopped
_FIELDS: Final = (
    "id", "task", "title", "owner", "state", "attempt", "max_attempts", "rev", "progress", "cancel",
    "error", "created", "updated", "started", "finished", "expires", "retry_at",
)  # fmt: skip
"""All but what may be large, and is not shown in a list: args, result, checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which jobs; None lets all pass."""

    state: State | None = None
    task: str | None = None
    owner: str | None = None

    def passes(self, job: Job) -> bool:
        """True if *job* is wanted."""
        return (
            self.state in {None, job.state}
            and self.task in {None, job.task}
            and self.owner in {None, job.owner}
        )


EVERY: Final = Filter()


class Listing(NamedTuple):
    """One page. `after` asks for the next one; None: there is none."""

    jobs: list[Job]
    after: str | None


class Overview:
    """Looks at all jobs of one store.

    A page costs two round trips for what lives (some more if there are hundreds), and two or more
    for what has ended; see `BATCHES` for filters that few jobs pass.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def page(self, wanted: Filter, *, after: str | None = None, limit: int = PAGE) -> Listing:
        """One page: first what lives, newest first, then what has ended, the latest first.

        Raises:
            BadInput: *after* is not from an earlier page.
        """
        place = _Place.read(after)
        found: list[Job] = []
        if place.kind == LIVE:
            lives = wanted.state is None or not wanted.state.terminal
            live = [job for job in await self._live() if wanted.passes(job)] if lives else []
            live.sort(key=lambda job: (-job.created_at, job.id))
            found = [job for job in live if place.follows(-job.created_at, job.id)]
            if len(found) >= limit:
                last = found[limit - 1]
                return Listing(found[:limit], _Place(LIVE, -last.created_at, last.id).text)
            if wanted.state in {State.QUEUED, State.RUNNING}:
                return Listing(found, None)
            place = _Place(ENDED, float("-inf"), "")
        return await self._ended_page(wanted, place, found, limit)

    async def _ended_page(
        self, wanted: Filter, place: _Place, found: list[Job], limit: int
    ) -> Listing:
        for _ in range(BATCHES):
            places, more = await self._ended(place)
            jobs = await self._read([p.job_id for p in places])
            for here in places:
                job = jobs.get(here.job_id)
                if job is not None and wanted.passes(job):
                    found.append(job)
                if len(found) == limit:
                    last = not more and here is places[-1]
                    return Listing(found, None if last else here.text)
            place = places[-1] if places else place
            if not more:
                return Listing(found, None)
        return Listing(found, place.text)

    async def _live(self) -> list[Job]:
        names = [self._keys.leases(p) for p in self._keys.all_partitions()]
        most = LIVE_MOST // len(names) + 1
        found = await self._link.call_all([Call(None, ("ZRANGE", n, 0, most)) for n in names])
        jobs = await self._read([i for ids in found for i in ids])
        return [job for job in jobs.values() if not job.state.terminal]

    async def _ended(self, after: _Place, chunk: int = CHUNK) -> tuple[list[_Place], bool]:
        """The next ended jobs after a place, in order, and whether there may be more.

        Each partition gives its next few. What ended no earlier than the last one of a partition
        that has more to give waits for the next time: something of it may belong before.
        """
        highest = "+inf" if after.order == float("-inf") else f"{-after.order:.0f}"
        names = [self._keys.ends(p) for p in self._keys.all_partitions()]
        asks = ("WITHSCORES", "LIMIT", 0, chunk)
        found = await self._link.call_all(
            [Call(None, ("ZREVRANGEBYSCORE", name, highest, "-inf", *asks)) for name in names]
        )
        places: list[_Place] = []
        until = float("inf")
        for flat in found:
            given = [_Place(ENDED, -float(score), i) for i, score in _pairs_of(flat)]
            places += [p for p in given if p > after]
            if len(given) == chunk:
                until = min(until, max(p.order for p in given))
        sure = sorted(p for p in places if p.order < until)
        if not sure and until < float("inf"):  # so many ended within one millisecond
            return await self._ended(after, chunk * 8)
        return sure, until < float("inf")

    async def _read(self, ids: Sequence[str]) -> Mapping[str, Job]:
        calls = [Call(None, ("HMGET", self._keys.record(i), *_FIELDS)) for i in ids]
        rows = await self._link.call_all(calls)
        found = {}
        for job_id, row in zip(ids, rows, strict=True):
            record = {k: v for k, v in zip(_FIELDS, row, strict=True) if v is not None}
            if record and (job := readable(record)) is not None:
                found[job_id] = job
        return found


class _Place(NamedTuple):
    """A place among the live, or among the ended: by order, then by id. `>` compares no kinds."""

    kind: str
    order: float
    job_id: str

    @classmethod
    def read(cls, text: str | None) -> _Place:
        if text is None:
            return cls(LIVE, float("-inf"), "")
        kind, _, rest = text.partition("~")
        order, _, job_id = rest.partition("~")
        try:
            if kind not in {LIVE, ENDED} or isnan(float(order)):
                raise ValueError(text)
            return cls(kind, float(order), job_id)
        except ValueError:
            raise BadInput(f"after {text[:40]!r}: give what an earlier page said") from None

    @property
    def text(self) -> str:
        return f"{self.kind}~{self.order!r}~{self.job_id}"

    def follows(self, order: float, job_id: str) -> bool:
        return (order, job_id) > (self.order, self.job_id)


def _pairs_of(flat: Sequence[Any]) -> Iterable[tuple[str, str]]:
    if flat and isinstance(flat[0], (list, tuple)):
        return [(str(i), str(s)) for i, s in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))
