"""Thousands of requests made up from the OpenAPI document: no answer but those that it knows.

FUZZ_EXAMPLES says how many for each door; `make test` takes the default, and two of the doors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from headway import EVERYONE
from headway.openapi import openapi
from tests.conftest import DEADLINE_S, MakeHeadway
from tests.test_api import DOORS, OTHER_ID, Site, open_site

pytestmark = pytest.mark.once

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "300"))
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
USERS: Final = ["ann", "ann", "bob", ""]
# What is likely to be understood, beside what schemathesis makes up.
HEADERS: Final = {
    "accept": ["text/html", "application/json", "*/*", "", "text/html;q=0, application/json"],
    "if-none-match": ["*", '"1"', "W/", ",,,", '"2.3"', '"x", "3.3"'],
    "prefer": ["wait=0", "respond-async", "wait=-1", "wait", "wait=x", 'wait="0"', "WAIT=0;x"],
    "last-event-id": ["end", "0", "17", "end ", "\x00"],
    "idempotency-key": ['"k"', "k", '""', '"l"'],
    "hx-request": ["true"],
    "sec-fetch-site": ["same-origin", "cross-site"],
    "origin": ["http://site.test", "http://evil.test", "null"],
    "authorization": ["Bearer x", "Bearer ", "Basic eDp5", "bearer a.b.c"],
    "cookie": ["headway_visitor=x.y", "headway_shares=a~b~", "a", "=;=", 'x="'],
    "accept-encoding": ["gzip", "gzip;q=0", "br"],
}


class Played:
    """A site behind one door with jobs of all kinds, driven from outside of its loop."""

    def __init__(self, door: str, make_headway: MakeHeadway) -> None:
        self.door = door
        self._runner = asyncio.Runner()
        self._context = open_site(door, make_headway)
        self.site: Site = self.do(self._context.__aenter__())
        # Streams have to come to an end, as the client here reads them whole.
        assert self.site.headway.streams._age_s > 1
        self.site.headway.streams._age_s = 0.01
        self.answered: dict[int, int] = {}

    def do(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    async def jobs(self) -> list[str]:
        """Ids of jobs in many states, of ann, of bob, of everyone and of nobody."""
        site = self.site
        made = [
            await site.wait.using(owner="ann").start(),
            await site.count.using(owner="ann").start(2),
            await site.fail.using(owner="ann").start(),
            await site.fail.using(owner="ann").start(),
            await site.link.using(owner="ann").start({"url": "/files/1"}),
            await site.link.using(owner=EVERYONE).start("x"),
            await site.count.using(owner="bob").start(1),
        ]
        for job in made[1:]:
            await site.ended(job.id)
        return [*(job.id for job in made), OTHER_ID]

    def send(self, case: Any, headers: dict[str, str]) -> httpx.Response:
        given = case.as_transport_kwargs(base_url="http://site.test")
        given["headers"] = {**(given.get("headers") or {}), **headers}
        prepared = requests.Request(**_of_a_request(given)).prepare()
        request = httpx.Request(
            str(prepared.method),
            str(prepared.url),
            headers=[
                (name.encode("latin-1"), value.encode("latin-1", "replace"))
                for name, value in ((n, str(v)) for n, v in prepared.headers.items())
            ],
        )
        reply: httpx.Response = self.do(self._soon(request))
        self.answered[reply.status_code] = self.answered.get(reply.status_code, 0) + 1
        return reply

    async def _soon(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self.site.http.send(request)
        except TimeoutError:
            raise AssertionError(f"no answer to {request!r} {request.headers!r}") from None

    def close(self) -> None:
        self.site.go.set()
        self.do(self._context.__aexit__(None, None, None))
        self._runner.close()


def _of_a_request(given: dict[str, Any]) -> dict[str, Any]:
    known = {"method", "url", "headers", "params", "cookies", "data", "json", "files"}
    return {name: value for name, value in given.items() if name in known and value is not None}


@pytest.fixture(
    params=[
        door if door in {"asgi", "quart"} else pytest.param(door, marks=pytest.mark.slow)
        for door in DOORS
    ]
)
def played(request: pytest.FixtureRequest, make_headway: MakeHeadway) -> Iterator[Played]:
    """A site behind each door in turn."""
    played = Played(request.param, make_headway)
    yield played
    played.close()


def cases(ids: list[str]) -> st.SearchStrategy[Any]:
    """Requests for every operation: right ones and wrong ones, for jobs that are there and not."""
    schema = schemathesis.openapi.from_dict(openapi("/jobs"))
    found: list[list[st.SearchStrategy[Any]]] = []
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        known = [{"id": one} for one in ids] if "{id}" in operation.path else []
        found.append(
            [
                operation.as_strategy(generation_mode=mode, path_parameters=path)
                for mode in GenerationMode
                for path in (None, *known)
            ]
        )
    # Each operation as often as any other.
    return st.sampled_from(found).flatmap(st.sampled_from).flatmap(lambda strategy: strategy)


def headers() -> st.SearchStrategy[dict[str, str]]:
    """Some headers of those that mean something here."""
    one = st.sampled_from(sorted(HEADERS)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name]))
    )
    some = st.lists(one, max_size=3).map(dict)
    who = st.sampled_from(USERS)
    return st.tuples(some, who).map(lambda both: {**both[0], "x-user": both[1]})


@pytest.mark.timeout(120 + EXAMPLES // 5)
def test_no_request_gets_what_the_document_does_not_know(played: Played) -> None:
    """Whatever is sent, the answer is one of those that are told, and never our own failure."""
    ids = played.do(played.jobs())

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(ids), headers())
    def every_time(case: Any, more: dict[str, str]) -> None:
        # The routing of these two knows no line breaks in paths: they answer with their own 404.
        assume(played.door not in {"fastapi", "quart"} or "\n" not in unquote(case.formatted_path))
        reply = played.send(case, more)  # the client holds it against the contract

        # An id with a slash in it makes another address, of which this operation knows nothing.
        # A value that leaves no trace in the address, such as an empty list, is not wrong there.
        sent = {*(case.query or {})} <= {*reply.request.url.params}
        if sent and reply.request.url.path.count("/") == case.path.count("/"):
            case.validate_response(reply, checks=CHECKS)

    every_time()

    assert sum(played.answered.values()) >= EXAMPLES
    assert {200, 400, 403, 404} <= played.answered.keys(), "there is more to reach"
