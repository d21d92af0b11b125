"""What everybody may ask for, for it tells nothing of jobs: health, the description, the files."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec

from headway import pages
from headway.document import Health
from headway.errors import StoreError
from headway.guard import Jobs
from headway.http import JSON, NO_STORE, Reply, Request, unchanged
from headway.limits import Limits
from headway.openapi import openapi
from headway.problems import problem
from headway.settings import Settings
from headway.stream import Streams

__all__ = ["Front"]

REVALIDATED: Final = ("Cache-Control", "public, max-age=0, must-revalidate")
LASTING: Final = ("Cache-Control", "public, max-age=31536000, immutable")
HEALTH_S: Final = 2.0  # balancers give up after a few seconds, and must not have to


class Front:
    """Answers what concerns no job."""

    def __init__(self, jobs: Jobs, streams: Streams, settings: Settings) -> None:
        self._jobs = jobs
        self._streams = streams
        self._limits = settings.limits
        self._origins = settings.origins

    async def health(self, request: Request) -> Reply:
        """For load balancers: may be asked by everybody, tells nothing of jobs."""
        hub, store_s = self._jobs.hub, await self._store_s()
        found: Health = {
            "status": "ok",
            "store_s": _rounded(store_s),
            "lag_s": _rounded(hub.lag_s),
            "live": hub.live,
            "streams": len(self._streams),
        }
        if self._streams.draining:
            found["status"] = "draining"
        elif store_s is None:
            found["status"] = "store"
        elif not hub.live:
            found["status"] = "deaf"
        well, headers = found["status"] == "ok", [JSON, NO_STORE]
        if not well:
            headers.append(("Retry-After", "1"))
        return Reply(200 if well else 503, headers, msgspec.json.encode(found))

    async def _store_s(self) -> float | None:
        """How long the store took to answer; None if it is away, or takes too long."""
        try:
            async with asyncio.timeout(HEALTH_S):
                return await self._jobs.ping()
        except (StoreError, TimeoutError):
            return None

    async def openapi(self, request: Request) -> Reply:
        """The OpenAPI document."""
        body, tag = _described(request.base, self._limits)
        headers = [REVALIDATED, ("ETag", tag)]
        if unchanged(request, tag):
            return Reply(304, headers)
        return Reply(200, [*headers, JSON], body)

    async def static(self, request: Request, name: str) -> Reply:
        """A file that we ship."""
        file = pages.static(name)
        version = request.query.get("v", [""])[0]
        if file is None or version not in {"", pages.VERSION}:  # a mixture might do anything
            return problem("no_file")
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        tag = f'"{file.digest}{"-gz" if zipped else ""}"'
        headers = [
            ("Content-Type", file.kind),
            LASTING if version else REVALIDATED,
            ("ETag", tag),
            ("Vary", "Accept-Encoding"),
            ("Cross-Origin-Resource-Policy", "cross-origin" if self._origins else "same-origin"),
        ]
        if unchanged(request, tag):
            return Reply(304, headers)
        if zipped:
            return Reply(200, [*headers, ("Content-Encoding", "gzip")], file.zipped)
        return Reply(200, headers, file.data)


@lru_cache(maxsize=8)
def _described(base: str, limits: Limits) -> tuple[bytes, str]:
    """The OpenAPI document, and its tag."""
    body = msgspec.json.encode(openapi(base, limits))
    return body, f'"{blake2b(body, digest_size=9).hexdigest()}"'


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
