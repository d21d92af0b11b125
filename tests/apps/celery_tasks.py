"""Tasks of Celery's own that report. BROKER and STORE say where those are."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from headway import Headway, JobError, current_progress
from headway.engines.celery import CeleryEngine

STEP_S = 0.01

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    result_expires=60,
)
engine = CeleryEngine(app, owner=lambda request: request.headers["owner"])
headway = Headway(os.environ["STORE"], engine=engine, lease_s=float(os.environ["LEASE_S"]))


@app.task
def import_rows(rows: int) -> int:
    """Knows nothing of Headway; what it calls does."""
    load(rows)
    return os.getpid()


def load(rows: int) -> None:
    current_progress().note(str(os.getpid()))
    for _ in current_progress().track(range(rows), unit="row"):
        time.sleep(STEP_S)


@app.task(autoretry_for=(Exception,), max_retries=3, acks_late=True)
def stubborn() -> None:
    """Goes on whatever happens, or else is tried again."""
    progress = current_progress()
    for _ in range(6000):
        try:
            time.sleep(STEP_S)
            progress.advance()
        except Exception:  # that is not what a cancel is
            continue
    raise ValueError("tries again")


@app.task(bind=True, max_retries=1)
def fail(self: Any, how: str) -> None:
    """Fail as told; tried again, succeed."""
    progress = current_progress()
    progress.set(done=1, total=2)
    if how == "retry" and self.request.retries == 0:
        raise self.retry(exc=ValueError("inside"), countdown=0)
    if how == "told":
        raise JobError("Row 7 has no name", code="no_name")
    if how == "error":
        raise ValueError("inside")


@app.task
def quiet(number: int) -> int:
    """Never asks."""
    return number + 1
