"""Many jobs that have ended, written at once: copies of a real record, over the last hours."""

from __future__ import annotations

import random
import time
from typing import Final

import redis

from headway.job import State, new_id
from headway.keys import Keys

__all__ = ["TASKS", "copy_ended"]

KEEP_MS: Final = 86_400_000
TASKS: Final = ("export_orders", "resize_pictures", "nightly_import", "send_letters")
STATES: Final = (*[State.SUCCEEDED] * 17, State.FAILED, State.FAILED, State.CANCELLED)
ERROR: Final = '{"code":"no_name","title":"Row 7 has no name"}'
WRITTEN: Final = 2_000  # at a time


def copy_ended(
    client: redis.Redis, keys: Keys, original: str, count: int, *, over_s: float = 7_200.0
) -> list[str]:
    """Write *count* copies of the ended job *original*; returns their ids, the latest first.

    Args:
        over_s: seconds over which their ends are spread, back from now.
    """
    record = {str(k): str(v) for k, v in client.hgetall(keys.record(original)).items()}
    chance, now_ms = random.Random(count), time.time() * 1000
    ids: list[str] = []
    for begin in range(0, count, WRITTEN):
        with client.pipeline(transaction=False) as pipeline:
            for n in range(begin, min(begin + WRITTEN, count)):
                ids.append(new_id(keys.partitions))
                ended = now_ms - over_s * 1000 * n / count - 1
                _write(pipeline, keys, ids[-1], {**record, **_made(chance, ended)})
            pipeline.execute()
    return ids


def _made(chance: random.Random, finished_ms: float) -> dict[str, str]:
    """What is of its own in one of them."""
    run_ms, wait_ms = chance.lognormvariate(9, 0.8), chance.lognormvariate(6, 1)
    state, task = chance.choice(STATES), chance.choice(TASKS)
    return {
        "state": state,
        "task": task,
        "title": f"{task.replace('_', ' ').capitalize()} {chance.randrange(1000)}",
        "owner": f"user{chance.randrange(200)}",
        "created": f"{finished_ms - run_ms - wait_ms:.0f}",
        "started": f"{finished_ms - run_ms:.0f}",
        "updated": f"{finished_ms:.0f}",
        "finished": f"{finished_ms:.0f}",
        "expires": f"{finished_ms + KEEP_MS:.0f}",
        "error": ERROR if state is State.FAILED else "",
    }


def _write(
    pipeline: redis.client.Pipeline, keys: Keys, job_id: str, record: dict[str, str]
) -> None:
    name, expires = keys.record(job_id), int(record["expires"])
    fields = [part for pair in {**record, "id": job_id}.items() for part in pair]
    pipeline.hset(name, items=fields)
    pipeline.pexpireat(name, expires + 3_600_000)
    pipeline.zadd(keys.ends(job_id[:2]), {job_id: expires})
