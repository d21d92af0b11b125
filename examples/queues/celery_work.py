"""A task of Celery, shown as a job. Run it: celery --app celery_work worker"""

import os
import time

from celery import Celery

from headway import Headway, current_progress
from headway.engines.celery import CeleryEngine

app = Celery("imports", broker=os.environ["BROKER_URL"])
engine = CeleryEngine(app, owner=lambda request: (request.headers or {}).get("owner"))
headway = Headway(os.environ["HEADWAY_URL"], engine=engine)


@app.task
def import_rows(rows: int) -> None:
    for _ in current_progress().track(range(rows), unit="row"):
        time.sleep(0.01)
