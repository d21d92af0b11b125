"""All jobs, for operators: newest first, filtered, page by page; and how it goes at present.

Read from the indexes that the store keeps anyway: the leases hold what lives, the ends what has
ended, ordered by when. Scripts look through them beside the records, and tell only what is asked
for. Nothing is written, and no job pays for being listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final, NamedTuple

from headway._link import Link
from headway._wire import Call
from headway.acts import SCRIPTS
from headway.errors import BadInput
from headway.figures import Ended, Recent, joined
from headway.job import Job, State
from headway.keys import Keys
from headway.record import readable, two_by_two

__all__ = ["EVERY", "PAGE", "Filter", "Listing", "Overview"]

PAGE: Final = 50
LIVE_MOST: Final = 10_000  # live jobs that one look goes through; what is beyond is not listed
LIVE: Final = "l"
ENDED: Final = "e"
CHUNK: Final = 20  # asked of each partition at a time
BATCHES: Final = 8  # a filter that few jobs pass gives up after so many, and says where it stopped
RECENT: Final = 500  # ended jobs that figures are made of
RECENT_CHUNK: Final = 50  # of one partition: jobs with one key are all in one
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

    @property
    def wanted(self) -> tuple[str, str, str]:
        """As the scripts take it."""
        return self.state or "", self.task or "", self.owner or ""


EVERY: Final = Filter()


class Listing(NamedTuple):
    """One page. `after` asks for the next one; None: there is none."""

    jobs: list[Job]
    after: str | None


class Overview:
    """Looks at all jobs of one store.

    A page costs two round trips for what lives, and two for what has ended, or some more for a
    filter that few jobs pass: see `BATCHES`. The store goes through what lives in about
    three milliseconds for each thousand jobs.
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
            places = await self._live(wanted, place, limit)
            # What has ended meanwhile comes again among the ended.
            found = [job for job in await self._read(places) if not job.state.terminal]
            if len(places) == limit:
                return Listing(found, places[-1].text)
            if wanted.state in {State.QUEUED, State.RUNNING}:
                return Listing(found, None)
            place = _Place(ENDED, float("-inf"), "")
        return await self._ended_page(wanted, place, found, limit)

    async def _ended_page(
        self, wanted: Filter, place: _Place, found: list[Job], limit: int
    ) -> Listing:
        places: list[_Place] = []
        more = True
        for _ in range(BATCHES):
            some, place, more = await self._ended(wanted, place, limit - len(found) - len(places))
            places += some
            if not more or len(found) + len(places) == limit:
                break
        ended = await self._read(places)
        both = {job.id for job in ended}  # those that have ended since they were found alive
        living = [job for job in found if job.id not in both]
        return Listing(living + ended, place.text if more else None)

    async def recent(self) -> Recent:
        """What lives, and what has ended of late. One round trip."""
        kinds = (self._keys.leases, self._keys.ends)
        said = await self._act("figures", kinds, LIVE_MOST, RECENT_CHUNK, RECENT)
        return joined([_recent(*one) for one in said])

    async def _live(self, wanted: Filter, after: _Place, limit: int) -> list[_Place]:
        """The next live jobs after a place."""
        if wanted.state is not None and wanted.state.terminal:
            return []
        top = after.order == float("-inf")
        created = "-1" if top else f"{-after.order * 1000:.0f}"
        kinds = (self._keys.leases,)
        said = await self._act(
            "living", kinds, LIVE_MOST, limit, created, after.job_id, *wanted.wanted
        )
        found = [_Place(LIVE, -int(ms) / 1000, i) for flat in said for i, ms in two_by_two(flat)]
        return sorted(found)[:limit]

    async def _ended(
        self, wanted: Filter, after: _Place, limit: int
    ) -> tuple[list[_Place], _Place, bool]:
        """The next ended jobs after a place that fit, the place up to which all were looked at, and
        whether there may be more."""
        highest = "+inf" if after.order == float("-inf") else f"{-after.order:.0f}"
        kinds = (self._keys.ends,)
        said = await self._act("ended", kinds, CHUNK, limit, highest, after.job_id, *wanted.wanted)
        found: list[_Place] = []
        came: list[_Place] = []
        ahead: list[_Place] = []
        for more, score, last, *flat in said:
            found += (_Place(ENDED, -float(at), i) for i, at in two_by_two(flat))
            came.append(_Place(ENDED, -float(score), last) if last else after)
            ahead += came[-1:] if more == "1" else []
        # What lies behind the place that a partition with more to give came to waits for it.
        sure = sorted(place for place in found if not ahead or place <= min(ahead))
        if len(sure) > limit:
            return sure[:limit], sure[limit - 1], True
        return sure, min(ahead) if ahead else max(came), bool(ahead)

    async def _act(
        self, name: str, kinds: Sequence[Callable[[str], str]], *args: str | int
    ) -> list[Any]:
        """The answers of one script over all partitions; in a cluster of one for each, as a script
        has to stay in its slot."""
        partitions = self._keys.all_partitions()
        groups = [[p] for p in partitions] if self._link.clustered else [partitions]
        calls = []
        for group in groups:
            keys = [kind(partition) for kind in kinds for partition in group]
            calls.append(Call(SCRIPTS[name], (len(keys), *keys, *args)))
        return await self._link.call_all(calls)

    async def _read(self, places: Sequence[_Place]) -> list[Job]:
        """The jobs as they are now; without those that are gone."""
        calls = [Call(None, ("HMGET", self._keys.record(p.job_id), *_FIELDS)) for p in places]
        found = []
        for row in await self._link.call_all(calls):
            record = {k: v for k, v in zip(_FIELDS, row, strict=True) if v is not None}
            if record and (job := readable(record)) is not None:
                found.append(job)
        return found


class _Place(NamedTuple):
    """A place among the live, or among the ended: by order, then by id."""

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


def _recent(now: str, queued: int, running: int, cut: str, *flat: str) -> Recent:
    ended = [
        Ended(
            State(flat[n]),
            int(flat[n + 1]) / 1000,
            int(flat[n + 2]) / 1000 if flat[n + 2] else None,
            int(flat[n + 3]) / 1000,
        )
        for n in range(0, len(flat), 4)
    ]
    return Recent(int(now) / 1000, int(queued), int(running), ended, cut == "1")
