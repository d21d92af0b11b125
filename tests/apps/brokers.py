"""The engines of the test app, by name. BROKER says where the broker is."""

from __future__ import annotations

import os
from typing import Any

from headway.engine import Engine


def engine_of(name: str) -> Engine:
    make = {"redis": _redis, "nats": _nats, "celery": _celery}[name]
    return make(os.environ["BROKER"], resend_s=float(os.environ.get("RESEND_S", "300")))


# What the brokers have of timeouts is set far below the length of a job.


def _redis(url: str, **options: Any) -> Engine:
    from taskiq_redis import RedisStreamBroker

    from headway.engines.taskiq import TaskiqEngine

    broker = RedisStreamBroker(url, xread_block=500, idle_timeout=1000)
    return TaskiqEngine(broker, **options)


def _nats(url: str, **options: Any) -> Engine:
    from nats.js.api import ConsumerConfig
    from taskiq_nats import PullBasedJetStreamBroker

    from headway.engines.taskiq import TaskiqEngine

    broker = PullBasedJetStreamBroker(
        url,
        consumer_config=ConsumerConfig(durable_name="taskiq_durable", ack_wait=1),
        pull_consume_timeout=1,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
    )
    return TaskiqEngine(broker, **options)


def _celery(url: str, **options: Any) -> Engine:
    from celery import Celery

    from headway.engines.celery import CeleryEngine

    app = Celery("works", broker=url)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": 1},
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
    )
    global celery_app  # noqa: PLW0603 - where `celery --app works` finds it
    celery_app = app
    return CeleryEngine(app, **options)


celery_app: Any = None
