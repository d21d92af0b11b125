"""The surface, told in OpenAPI. Pure: made of the tables and types that the code itself uses."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from headway import _sse, pages
from headway.access import SHARE, SHARES_COOKIE
from headway.document import Attempts, Batch, Health, Log, Page
from headway.http import WAIT_MAX_S
from headway.job import ID, State
from headway.limits import Limits
from headway.problems import MEDIA_TYPE, MORE, PROBLEMS, problem
from headway.surface import EVENTS, HTML, JSON, OPERATIONS, PROBE, START, STREAM, Operation
from headway.tokens import COOKIE

__all__ = ["VERSION", "openapi"]

VERSION: Final = "1.0"
"""Of the surface: the first number rises with what breaks, the second with what is added."""

_SHAPES: Final = (*EVENTS.values(), Batch, Page, Log, Attempts, Health)

_WORD: Final = {"type": "string"}
_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Allow": ("The methods of this address.", _WORD),
    "Cache-Control": ("What may be kept: nothing, or only after asking.", _WORD),
    "Content-Encoding": ("How the file is packed.", {"const": "gzip"}),
    "Content-Location": ("Where this result is.", {"type": "string", "format": "uri-reference"}),
    "ETag": ("Names this state; for If-None-Match.", {"type": "string", "pattern": '^"[^"]*"$'}),
    "Idempotency-Replayed": ("The job was started before, by this request.", {"const": "true"}),
    "Location": ("Where to go on.", {"type": "string", "format": "uri-reference"}),
    "Preference-Applied": ("Which wish was heard.", {"type": "string", "pattern": "^wait=[0-9]+$"}),
    "Retry-After": (
        "Seconds after which to come back.", {"type": "string", "pattern": "^[1-9][0-9]*$"},
    ),
    "Set-Cookie": ("Who a new visitor is, or what was shared.", _WORD),
    "Vary": ("What the answer depends on.", _WORD),
    "X-Accel-Buffering": ("Proxies are to pass the stream on at once.", {"const": "no"}),
}  # fmt: skip

_ALWAYS: Final = ".always"  # ends the name of a header that is not left out
_EVERYWHERE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    name: (f"May be on every answer: {text}", _WORD)
    for name, text in {
        "Access-Control-Allow-Credentials": "for pages of other origins.",
        "Access-Control-Allow-Origin": "for pages of other origins.",
        "Access-Control-Expose-Headers": "for pages of other origins.",
        "Content-Security-Policy": "what the page may load.",
        "Cross-Origin-Resource-Policy": "whose pages may show it.",
        "Referrer-Policy": "where the address is passed on to.",
        "Vary": "what the answer depends on.",
        "X-Content-Type-Options": "the type is what it says.",
        "X-Frame-Options": "the page is not shown inside of others.",
    }.items()
}

_ID: Final = {"type": "string", "pattern": f"^{ID}$"}


def _parameters(limits: Limits) -> dict[str, dict[str, Any]]:
    # What is no id is no error: it is among the gone.
    ids = {"type": "array", "items": _WORD, "minItems": 1, "maxItems": limits.ids_per_stream}
    return {
        "job": _takes("path", "id", "The job.", _ID, required=True),
        "name": _takes("path", "name", "The file.", {"enum": list(pages.FILES)}, required=True),
        "v": _takes("query", "v", "Its version; without it, the present one.", _WORD),
        "id": _takes("query", "id", "Which jobs; without it, those of who asks.", ids),
        "ids": _takes("query", "id", "Which jobs.", ids, required=True),
        "state": _takes("query", "state", "Only jobs in it.", {"enum": list(State)}),
        "task": _takes("query", "task", "Only jobs of it.", _WORD),
        "owner": _takes("query", "owner", "Only jobs of this owner.", _WORD),
        "after": _takes("query", "after", "What the page before says; else the first.", _WORD),
        "as": _takes(
            "query", "as",
            "How states are told: as events `job`, or as messages of HTML for htmx.",
            {"enum": ["json", "html"], "default": "json"},
        ),
        "seconds": _takes("query", "seconds", "How long it takes.", _number("seconds")),
        "every": _takes("query", "every", "Seconds between two heartbeats.", _number("every")),
        "share": _takes("query", SHARE, "What a link carries that was shared.", _WORD),
        "If-None-Match": _takes("header", "If-None-Match", "The ETag of what is known.", _WORD),
        "Last-Event-ID": _takes("header", "Last-Event-ID", "The last event that was seen.", _WORD),
        "Prefer": _takes(
            "header", "Prefer",
            f"`wait=N`: how many seconds the answer may take, up to {WAIT_MAX_S:.0f}.", _WORD,
        ),
        "Idempotency-Key": _takes(
            "header", "Idempotency-Key",
            "Names this start, in quotes: sent again with it, it starts nothing new.", _WORD,
        ),
    }  # fmt: skip


def _number(name: str) -> dict[str, Any]:
    of = PROBE[name]
    return {"type": "number", "minimum": of.least, "maximum": of.most, "default": of.default}


def openapi(base: str, limits: Limits | None = None) -> dict[str, Any]:
    """The surface as an OpenAPI 3.2 document.

    HEAD and OPTIONS are not listed: HEAD is GET without the body, OPTIONS answers any path with
    204, and says what pages of other origins may do.

    Args:
        base: where the surface is mounted, such as "/jobs".

    Source: OpenAPI 3.2; there `itemSchema` tells the events of a stream.
    """
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(f"{base}{one.path}" or "/", {})[one.method.lower()] = _operation(one)
    everywhere = {
        name: {
            "description": f"{PROBLEMS[name].title}.",
            "headers": _headers(sends, ()),
            **_problem_body((name,)),
        }
        for name, sends in (("no_route", ()), ("method_not_allowed", ("Allow",)))
    }
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "Headway",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{}, *({name: []} for name in _SECURITY)],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": everywhere,
            "parameters": _parameters(limits or Limits()),
            "headers": {
                name: {"description": text, "schema": schema}
                for name, (text, schema) in {**_HEADERS, **_EVERYWHERE}.items()
            }
            | {
                f"{name}{_ALWAYS}": {"description": text, "schema": schema, "required": True}
                for name, (text, schema) in _HEADERS.items()
            },
            "examples": {code: {"value": _example(code)} for code in PROBLEMS},
            "securitySchemes": _SECURITY,
            "pathItems": {"Start": {"post": _operation(START)}},
        },
    }


_ABOUT: Final = (
    "Long work and how far it is. Jobs are started by routes of the app, see the path item Start; "
    "here they are watched, cancelled, tried again and forgotten. Someone else's job does not "
    "exist: it gets the same 404 as an id that nobody has. Fields and events may be added: ignore "
    "what you do not know."
)
_SECURITY: Final = {
    "visitor": {
        "type": "apiKey", "in": "cookie", "name": COOKIE,
        "description": "Given with the first job. An app with users tells by its own means.",
    },
    "shares": {
        "type": "apiKey", "in": "cookie", "name": SHARES_COOKIE,
        "description": "Given to a browser that opens a link that was shared.",
    },
    "share": {
        "type": "http", "scheme": "bearer",
        "description": "What stands behind `share=` in a link, for other clients.",
    },
}  # fmt: skip


def _operation(one: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for answer in one.answers:
        found = responses.setdefault(str(answer.status), {"description": answer.text})
        if answer.body:
            found["content"] = {kind: _media(kind, shape) for kind, shape in answer.body.items()}
        found["headers"] = _headers(answer.sends, answer.may_send)
    for status in sorted({PROBLEMS[code].status for code in one.problems}):
        codes = tuple(code for code in PROBLEMS if code in one.problems)
        told = _problems(status, tuple(c for c in codes if PROBLEMS[c].status == status), one)
        found = responses.setdefault(str(status), told)
        if found is not told:
            found["description"] += f" Or: {told['description']}"
            found.setdefault("content", {}).update(told["content"])
    operation: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.text,
        "responses": dict(sorted(responses.items())),
    }
    if one.takes:
        operation["parameters"] = [_ref("parameters", name) for name in one.takes]
    return operation


def _problems(status: int, codes: tuple[str, ...], one: Operation) -> dict[str, Any]:
    later = status in {429, 503}
    sends = ("Retry-After",) if later else ()
    may_send = (() if later else ("Retry-After",)) + one.may_send
    if "already_running" in codes:
        may_send += ("Location",)
    return {
        "description": "; ".join(PROBLEMS[code].title for code in codes),
        "headers": _headers(sends, may_send),
        **_problem_body(codes),
    }


def _problem_body(codes: tuple[str, ...]) -> dict[str, Any]:
    which = {"properties": {"code": {"enum": list(codes)}}}
    examples = {code: _ref("examples", code) for code in codes}
    schema = {"allOf": [_ref("schemas", "Problem"), which]}
    problem = {"schema": schema, "examples": examples}
    return {"content": {MEDIA_TYPE: problem, HTML: {"schema": _WORD}}}  # a page for browsers


def _example(code: str) -> dict[str, Any]:
    body = problem(code).body
    assert isinstance(body, bytes)
    return msgspec.json.decode(body, type=dict[str, Any])


def _media(kind: str, shape: Any) -> dict[str, Any]:
    if kind == STREAM:
        events = [_event(name, of) for name, of in shape.items()]
        messages = [_MESSAGE] if "job" in shape else []
        return {"itemSchema": {"oneOf": [*events, *messages]}}
    if shape is None:
        return {"schema": _WORD}
    return {"schema": _ref("schemas", shape.__name__) if shape in _SHAPES else _schema(shape)}


_MESSAGE: Final = {
    "type": "object",
    "description": "Without a name, with as=html: a job as it is now.",
    "required": ["data"],
    "properties": {
        "event": {"const": "message"},
        "data": {"type": "string", "contentMediaType": HTML},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
    },
}


def _event(name: str, shape: type) -> dict[str, Any]:
    # Only a stream of one job numbers its events.
    ids = {"end": {"const": _sse.END}, "job": {"type": "string", "pattern": "^[0-9]+$"}}
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"const": name},
            "data": {
                "type": "string",
                "contentMediaType": JSON,
                "contentSchema": _ref("schemas", shape.__name__),
            },
            **({"id": ids[name]} if name in ids else {}),
        },
    }


def _schemas() -> dict[str, Any]:
    _, named = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    for schema in named.values():
        if "description" in schema:
            schema["description"] = re.sub(r"\s+", " ", schema["description"])
    refusal = {
        "title": "Problem",
        "description": "Why not, as RFC 9457 has it. `code` never changes; the words may.",
        "type": "object",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri", "pattern": "^urn:headway:"},
            "title": _WORD,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"enum": sorted(PROBLEMS)},
            "detail": _WORD,
            **{
                name: {
                    "type": "integer" if name == "limit" else "string",
                    "description": text,
                }
                for name, text in MORE.items()
            },
        },
    }
    return {**dict(sorted(named.items())), "Problem": refusal}


def _schema(shape: Any) -> dict[str, Any]:
    return msgspec.json.schema(shape)


def _headers(sends: tuple[str, ...], may_send: tuple[str, ...]) -> dict[str, Any]:
    always = {name: _ref("headers", f"{name}{_ALWAYS}") for name in (*sends, "Cache-Control")}
    return {**always, **{name: _ref("headers", name) for name in may_send}}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _takes(
    where: str, name: str, text: str, schema: dict[str, Any], *, required: bool = False
) -> dict[str, Any]:
    told = {"name": name, "in": where, "description": text, "schema": schema}
    return {**told, "required": True} if required else told
