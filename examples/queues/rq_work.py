"""A task of RQ, shown as a job. Run it: rq worker --url $HEADWAY_URL imports"""

import os
import time
from contextlib import suppress

from redis import Redis
from rq import Queue

from headway import Headway, JobCancelled

URL = os.environ["HEADWAY_URL"]
queue = Queue("imports", connection=Redis.from_url(URL))
headway = Headway(URL)


def import_rows(owner: str, rows: int) -> None:
    # What was cancelled would be a failure to RQ.
    with suppress(JobCancelled), headway.report("Import", owner=owner) as progress:
        for _ in progress.track(range(rows), unit="row"):
            time.sleep(0.01)
