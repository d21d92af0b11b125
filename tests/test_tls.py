"""Stores over TLS: one server, a cluster, Sentinels; and certificates that are not trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from headway import Headway, Progress
from headway.errors import StoreUnavailable
from tests.apps.cluster import STORE, Certificate, Cluster, Node, Watched
from tests.conftest import REDIS, end_of

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(REDIS is None, reason="the Valkey of the package speaks no TLS"),
]
SECRET: Final = "the secret of a test, long enough"


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """Of this test's own authority."""
    authority = trustme.CA()
    shown = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    shown.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    shown.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return Certificate(tmp_path)


SLOW: Final = pytest.mark.slow


@pytest.fixture(
    params=[
        "server",
        pytest.param("cluster", marks=SLOW),
        pytest.param("sentinel", marks=SLOW),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate) -> Iterator[str]:
    """A store of this test that is spoken to over TLS."""
    kinds: dict[str, Any] = {"cluster": Cluster, "sentinel": Watched}
    if request.param == "server":
        node = Node(tmp_path / "store", *STORE, binary=REDIS, tls=certificate)
        yield f"rediss://{node.name}"
        node.kill()
        return
    with closing(kinds[request.param](tmp_path / "store", REDIS, certificate)) as store:
        yield store.url


async def test_jobs_live_over_tls(url: str, certificate: Certificate) -> None:
    """Who trusts the authority works as without TLS: in the loop, in the thread, and listening."""
    headway = Headway(f"{url}?ssl_ca_certs={certificate.ca}", secret=SECRET)

    @headway.task
    async def work(progress: Progress, steps: int) -> int:
        async for _ in progress.track(range(steps)):
            await asyncio.sleep(0.05)
        return steps

    async with headway:
        assert headway.hub.live
        jobs = [await work.using(owner="ann").start(20) for _ in range(8)]
        ended = [await end_of(headway, job) for job in jobs]
        listed = await headway.list(owner="ann")

    assert {(job.state, job.result, job.progress.done) for job in ended} == {("succeeded", 20, 20)}
    assert len(listed) == 8


async def test_certificate_that_is_not_trusted_is_refused(url: str) -> None:
    """Without the authority nothing is said to the server, and opening fails.

    Sentinels that are not trusted tell the client no more than that there is no server.
    """
    with pytest.raises(StoreUnavailable, match=r"certificate verify failed|No master found"):
        await Headway(url, secret=SECRET).__aenter__()
