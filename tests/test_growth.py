"""A store that lives long does not grow; `make growth` shows it with many more jobs."""

from __future__ import annotations

import pytest
import redis

from headway import Headway
from tests.conftest import OwnServer
from tests.growth import grow

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.timeout(300)]

JOBS = 2_000
KEEP_S = 1.0


async def test_everything_goes_at_its_time(own_server: OwnServer) -> None:
    """After many short jobs keys and memory are back at the floor, indexes included."""
    headway = Headway(own_server.url, secret="a secret of a test", keep_s=KEEP_S, drain_s=0)

    with redis.Redis.from_url(own_server.url) as client:
        growth = await grow(
            headway, client, JOBS, lambda: headway._open_runtime("test").store.sweep(500)
        )

    assert growth.high.keys >= JOBS
    assert growth.after.keys == 0
    assert growth.shrank, growth
