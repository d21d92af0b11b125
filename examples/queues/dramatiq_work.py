"""A task of Dramatiq, shown as a job. Run it: dramatiq dramatiq_work"""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from headway import Headway, JobCancelled

URL = os.environ["HEADWAY_URL"]
headway = Headway(URL)
broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)


@dramatiq.actor(throws=JobCancelled)  # what was cancelled is not tried again
def import_rows(owner: str, rows: int) -> None:
    with headway.report("Import", owner=owner) as progress:
        for _ in progress.track(range(rows), unit="row"):
            time.sleep(0.01)
