"""The surface's operations as FastAPI wants them: made of the surface's own OpenAPI document.

A router cannot add components to the document of its app, but FastAPI lists the models that it
finds in routes. So documents and problems are models here, and all else is told in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from fastapi import Response

from headway.limits import Limits
from headway.models import MODELS, JobProblem
from headway.openapi import openapi
from headway.problems import MEDIA_TYPE, PROBLEMS
from headway.surface import JSON, STREAM

__all__ = ["STARTED", "Told", "problems", "told"]

Responses = dict[int | str, dict[str, Any]]

_REF: Final = {"$ref": f"#/components/schemas/{JobProblem.__name__}"}


class _Problem(Response):
    media_type = MEDIA_TYPE


class Told(NamedTuple):
    """One operation. `kind` tells FastAPI the content type of its models."""

    name: str
    method: str
    path: str
    summary: str
    status: int
    kind: type[Response]
    responses: Responses
    parameters: list[Any]


def told(base: str, limits: Limits) -> Iterator[Told]:
    """The operations of the surface at *base*; their paths are below it."""
    document = openapi(base, limits)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            responses = _responses(operation, document)
            # FastAPI gives all models of a route one content type. So problems are listed by
            # routes that may answer with no content at all; the others only refer to them.
            bare = 204 in responses
            if bare:
                _list_problems(responses)
            yield Told(
                name=operation["operationId"],
                method=method.upper(),
                path=path.removeprefix(base),
                summary=operation["summary"],
                status=204 if bare else min(int(status) for status in responses),
                kind=_Problem if bare else Response,
                responses=responses,
                parameters=_inlined(operation.get("parameters", []), document),
            )


def _responses(operation: dict[str, Any], document: dict[str, Any]) -> Responses:
    found: Responses = {}
    for status, response in operation["responses"].items():
        one: dict[str, Any] = {"description": response["description"]}
        content = {kind: _media(kind, of) for kind, of in response.get("content", {}).items()}
        if MEDIA_TYPE not in content:
            one["headers"] = _inlined(response.get("headers", {}), document)
        if (model := _model(content.get(JSON, {}))) is not None:
            content[JSON] = {}  # stays the first, which some generators take
            one["model"] = model
        if content:
            one["content"] = _inlined(content, document)
        found[int(status)] = one
    return found


def _list_problems(responses: Responses) -> None:
    for one in responses.values():
        if MEDIA_TYPE in one.get("content", {}):
            one["content"][MEDIA_TYPE] = {}  # stays the first
            one["model"] = JobProblem


def _media(kind: str, media: dict[str, Any]) -> dict[str, Any]:
    if kind == MEDIA_TYPE:
        return {"schema": _REF}
    # OpenAPI 3.1, of which the app's document is, has no words for the events of a stream.
    return {"schema": {"type": "string"}} if kind == STREAM else media


def _model(media: dict[str, Any]) -> type | None:
    name = str(media.get("schema", {}).get("$ref", "")).rpartition("/")[2]
    return MODELS.get(name)


def _inlined(told: Any, document: dict[str, Any]) -> Any:
    """The same, with what it refers to in place of each reference."""
    if isinstance(told, list):
        return [_inlined(one, document) for one in told]
    if not isinstance(told, dict) or told == _REF:
        return told
    if "$ref" not in told:
        return {name: _inlined(one, document) for name, one in told.items()}
    _, _, kind, name = told["$ref"].split("/")
    return _inlined(document["components"][kind][name], document)


def problems(*codes: str) -> Responses:
    """For `responses=` of a route of the app: the problem documents of these codes.

    Such as "not_found"; docs/http.md has them all. Of an app that includes the router.
    """
    found: Responses = {}
    for status in sorted({PROBLEMS[code].status for code in codes}):
        those = [PROBLEMS[code].title for code in codes if PROBLEMS[code].status == status]
        found[status] = {
            "description": "; ".join(those),
            "content": {MEDIA_TYPE: {"schema": _REF}},
        }
    return found


def _started() -> Responses:
    document = openapi("")
    found = _responses(document["components"]["pathItems"]["Start"]["post"], document)
    del found[422]  # else FastAPI would not tell of its own 422, for what it cannot validate
    return found


STARTED: Final = _started()
"""For `responses=` of a route that starts a job and returns `await headway.reply(job)`.

Without 422, which is a problem document for an Idempotency-Key that was used for something else,
and FastAPI's own answer for what does not validate.
"""
