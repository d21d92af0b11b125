"""The OpenAPI document: it is valid, it is served, and it says all that there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from headway.document import document
from headway.job import Failure, Job, Reading, StageReading, State
from headway.limits import Limits
from headway.openapi import openapi
from headway.problems import PROBLEMS
from headway.surface import EVENTS, OPERATIONS, START
from headway.tokens import Viewer
from tests.conftest import MakeHeadway
from tests.contract import CONTRACT, Broken
from tests.generated import described
from tests.test_api import DOORS, OTHER_ID, open_site

ROOT = Path(__file__).parent.parent


def job(**changes: Any) -> Job:
    stage = StageReading("Parse", done=1, total=2, ratio=0.5)
    given: dict[str, Any] = {
        "id": OTHER_ID, "task": "export", "title": "Export", "state": State.RUNNING, "attempt": 1,
        "max_attempts": 3, "rev": 7, "progress": Reading(done=1.5, total=2, stages=(stage,)),
        "owner": "ann", "created_at": 1.0, "updated_at": 2.25,
    }  # fmt: skip
    return Job(**{**given, **changes})


def as_sent(found: Any) -> Any:
    import msgspec

    return json.loads(msgspec.json.encode(found))


@pytest.mark.parametrize("base", ["/jobs", "/app/jobs", ""])
def test_document_is_valid(base: str) -> None:
    """The document keeps to the OpenAPI specification, wherever the surface is mounted."""
    told = openapi(base)

    validate(told)
    assert set(told["paths"]) == {f"{base}{one.path}" or "/" for one in OPERATIONS}


def test_file_in_the_docs_is_current() -> None:
    """What the docs carry is what the code makes; `python -m tests.generated` writes it anew."""
    assert (ROOT / "docs" / "openapi.json").read_text() == described()


def test_limits_are_those_of_the_app() -> None:
    """The document says how many ids this app takes."""
    told = openapi("/jobs", Limits(ids_per_stream=3))

    assert told["components"]["parameters"]["ids"]["schema"]["maxItems"] == 3


def test_each_problem_belongs_somewhere() -> None:
    """Every code can come of some operation, or of an address or a method that is none."""
    those = {code for one in (*OPERATIONS, START) for code in one.problems}

    assert those | {"no_route", "method_not_allowed"} == set(PROBLEMS)


def test_events_are_those_that_are_sent() -> None:
    """The document knows the events that the code of streams can say."""
    code = (ROOT / "src" / "headway" / "stream.py").read_text()

    assert all(f'_sse.frame("{name}"' in code for name in EVENTS)
    assert code.count("_sse.frame(") == len(EVENTS)


@pytest.mark.parametrize("state", list(State))
def test_documents_of_all_states_are_as_it_says(state: State) -> None:
    """What the code makes of a job fits the schema, without one field more."""
    ended = {"finished_at": 3.0, "expires_at": 4.0} if state.terminal else {}
    failed = {"error": Failure("lost", "Lost", "It was killed.")} if state is State.FAILED else {}

    found = as_sent(document(job(state=state, **ended, **failed), "/jobs", Viewer("ann")))

    CONTRACT.validate({"$ref": "#/components/schemas/Document"}, found)


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"state": "lost"},
        {"rev": -1},
        {"created_at": "yesterday"},
        {"created_at": None},
        {"id": "1"},
        {"links": {}},
        {"progress": {"done": "x"}},
    ],
)
def test_other_documents_are_not(changes: dict[str, Any]) -> None:
    """A field more, a field less, or a value out of its range would be noticed."""
    found = as_sent(document(job(), "/jobs", Viewer("ann")))

    with pytest.raises(ValueError, match=r"On instance|required|is not"):
        CONTRACT.validate({"$ref": "#/components/schemas/Document"}, {**found, **changes})


# ── served ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("door", DOORS)
async def test_document_is_served(door: str, make_headway: MakeHeadway) -> None:
    """Everybody may read it, and need not read it twice."""
    async with open_site(door, make_headway) as site:
        reply = await site.get("/openapi.json", x_user="")
        again = await site.get("/openapi.json", if_none_match=reply.headers["etag"])

    assert reply.json() == openapi("/jobs")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("door", DOORS)
async def test_head_is_get_without_the_body(door: str, make_headway: MakeHeadway) -> None:
    """Whatever can be read can be asked for its headers: the same ones, and no stream is opened."""
    async with open_site(door, make_headway) as site:
        job = await site.count.using(owner="ann").start(2)
        await site.ended(job.id)
        reading = [one.path for one in OPERATIONS if one.method == "GET"]
        paths = [p.replace("{id}", job.id).replace("{name}", "headway.js") for p in reading]
        paths = [f"{p}?id={job.id}" if p == "/events" else p for p in paths]
        paths = [f"{p}?seconds=0.05" if p == "/probe" else p for p in paths]
        for path in (*paths, f"/{OTHER_ID}", "/nowhere/at/all", "/events"):
            whole = await site.get(path)
            head = await site.http.head(f"/jobs{path}")

            assert head.content == b""
            assert head.status_code == whole.status_code
            for headers in (whole.headers, head.headers):
                headers.pop("content-length", None)
            assert dict(head.headers) == dict(whole.headers)


@pytest.mark.parametrize("door", DOORS)
async def test_health_tells_load_balancers(door: str, make_headway: MakeHeadway) -> None:
    """A process that reaches its store and hears of changes is well; anybody may ask."""
    async with open_site(door, make_headway) as site:
        reply = await site.get("/health", x_user="")

    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    found = reply.json()
    assert (found["status"], found["live"], found["streams"]) == ("ok", True, 0)


# ── the contract itself ───────────────────────────────────────────────────────────────────────


class Lying:
    """An answer of a job's address, with what a test changes in it."""

    def __init__(self, reply: Any, **changes: Any) -> None:
        self.request, self.status_code = reply.request, changes.get("status", reply.status_code)
        self.headers = reply.headers.copy()
        self.headers.update(changes.get("headers", {}))
        for name in changes.get("without", ()):
            del self.headers[name]
        self.content = changes.get("content", reply.content)
        self.text = ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": 418}, "only .* are known"),
        ({"headers": {"x-new": "1"}}, "headers that the document does not know"),
        ({"without": ["etag"]}, "header ETag|header etag"),
        ({"headers": {"etag": "7"}}, "does not match"),
        ({"headers": {"content-type": "text/plain"}}, "content type"),
        ({"content": b"{}"}, "required"),
        ({"content": b"{"}, "Expecting"),
        ({"status": 304}, "a body that the document does not know"),
    ],
)
async def test_contract_notices(
    make_headway: MakeHeadway, changes: dict[str, Any], words: str
) -> None:
    """An answer that is not as the document says fails the test that got it."""
    async with open_site("asgi", make_headway) as site:
        job = await site.count.using(owner="ann").start(1)
        await site.ended(job.id)
        reply = await site.get(f"/{job.id}")

    known = CONTRACT.described("GET", f"/jobs/{job.id}")
    CONTRACT.compare(reply, known)
    with pytest.raises(Broken, match=words):
        CONTRACT.compare(Lying(reply, **changes), known)  # type: ignore[arg-type]
