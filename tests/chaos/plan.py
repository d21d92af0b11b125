"""What is going to happen in one chaos run: which jobs, which faults, and when. All of it follows
from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Final

__all__ = ["FAULTS", "Order", "Plan", "Strike"]

FAULTS: Final = {
    "kill": 15,  # kill -9 of a worker
    "freeze": 7,  # SIGSTOP, and SIGCONT before its leases are over
    "freeze_past_lease": 8,
    "term": 10,  # SIGTERM, and a new worker when it is gone
    "poison": 1,  # a job that kills each of its workers
    "clock": 5,  # the wall clock of one worker jumps by an hour
    "store_kill": 6,  # kill -9 of the store, and a restart over its data
    "store_freeze": 5,
    "store_pause": 5,
    "cut_normal": 5,  # all connections at once
    "cut_pubsub": 5,
}
"""Kind of fault → its share."""

TASKS: Final = {
    "quick": 30,
    "steady": 14,
    "resumes": 20,
    "thread": 8,
    "thread_resumes": 10,
    "flaky": 8,
    "late": 3,
    "family": 4,
    "child": 3,
}
"""Task of works.py → its share."""

SHORT: Final = {"quick"}
OWNERS: Final = 5
KEYED: Final = 0.15  # of the jobs share one of a few keys
CANCELLED: Final = 0.05
WATCHED: Final = 0.3
HOUR_S: Final = 3600.0


@dataclass(frozen=True)
class Order:
    """A worker is asked to start a job."""

    at: float
    slot: int
    task: str
    steps: int
    step_s: float
    seed: int
    owner: str
    key: str | None
    watch: bool
    cancel_after: float | None


@dataclass(frozen=True)
class Strike:
    """A fault is injected; *seconds* is how long it lasts, or how far the clock jumps."""

    at: float
    kind: str
    slot: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """One run. Two runs of one plan differ only in how the processes happen to be scheduled."""

    seed: int
    seconds: float = 130.0
    jobs: int = 640
    faults: int = 72
    workers: int = 4
    lease_s: float = 2.0
    drain_s: float = 0.5
    fsync: str = "always"
    slack_s: float = 0.6
    """What may be late on a machine with more to do than it has cores."""

    @property
    def options(self) -> str:
        """What `python -m tests.chaos` is given to do the same again."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self)}
        return " ".join(f"--{name} {value}" for name, value in chosen.items())

    def orders(self) -> list[Order]:
        """The jobs, in the order of their start."""
        dice = random.Random(f"orders {self.seed}")
        times = sorted(dice.uniform(0, self.seconds) for _ in range(self.jobs))
        return [self._order(dice, at) for at in times]

    def _order(self, dice: random.Random, at: float) -> Order:
        task = dice.choices([*TASKS], [*TASKS.values()])[0]
        keyed = dice.random() < KEYED
        return Order(
            at=at,
            slot=dice.randrange(self.workers),
            task=task,
            steps=dice.randint(1, 6) if task in SHORT else dice.randint(15, 90),
            step_s=dice.uniform(0.01, 0.05),
            seed=dice.randrange(1_000_000),
            owner=f"owner{dice.randrange(OWNERS)}",
            key=f"key{dice.randrange(3)}" if keyed else None,
            watch=dice.random() < WATCHED,
            cancel_after=dice.uniform(0, 1.5) if dice.random() < CANCELLED else None,
        )

    def strikes(self) -> list[Strike]:
        """The faults; each kind comes at least once."""
        dice = random.Random(f"strikes {self.seed}")
        whole = sum(FAULTS.values())
        deck = [
            kind
            for kind, share in FAULTS.items()
            for _ in range(max(1, round(share * self.faults / whole)))
        ]
        dice.shuffle(deck)
        times = sorted(dice.uniform(0.02, 0.95) * self.seconds for _ in deck)
        return [self._strike(dice, at, kind) for at, kind in zip(times, deck, strict=True)]

    def _strike(self, dice: random.Random, at: float, kind: str) -> Strike:
        lease = self.lease_s
        seconds = {
            "freeze": dice.uniform(0.1, 0.6) * lease,
            "freeze_past_lease": dice.uniform(1.2, 2.5) * lease,
            "store_kill": dice.uniform(0.0, 1.5) * lease,
            "store_freeze": dice.uniform(0.1, 2.0) * lease,
            "store_pause": dice.uniform(0.1, 1.5) * lease,
            "clock": dice.choice([-HOUR_S, HOUR_S]),
        }.get(kind, 0.0)
        return Strike(at, kind, dice.randrange(self.workers), seconds)
