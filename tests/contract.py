"""What the surface says of itself in its OpenAPI document, held against each of its answers.

Stricter than the document: what it leaves open for later, such as more fields, must not come today.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx
import jsonschema_rs

from headway.openapi import openapi
from tests.test_sse import Stream

# Of the connection, not of the surface.
OF_THE_SERVER: Final = {"connection", "content-length", "content-type", "date", "server"}


class Broken(AssertionError):
    """An answer that the document does not know."""


class Contract:
    """The document of a surface that is mounted at *base*."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.document = openapi(base)
        self._validators: dict[str, Any] = {}
        self._components: dict[str, Any] = _strict(self.document["components"])
        self._paths = [(_pattern(path), item) for path, item in self.document["paths"].items()]
        self._everywhere = {
            name.lower()
            for name, header in self._components["headers"].items()
            if header["description"].startswith("May be on every answer")
        }

    async def check(self, response: httpx.Response) -> None:
        """For a client's hooks: look at an answer, if it is one of the surface."""
        path = response.request.url.path
        if path == self.base or path.startswith(f"{self.base}/"):
            await response.aread()
            self.compare(response, self.described(response.request.method, path))

    def described(self, method: str, path: str) -> dict[str, Any]:
        """The answers that the document knows for a request, by their status."""
        if method == "OPTIONS":
            return {"204": {"description": "Which pages may do what.", "headers": _PREFLIGHT}}
        found = [item for pattern, item in self._paths if pattern.fullmatch(path.rstrip("/"))]
        if not found:
            return {"404": self._components["responses"]["no_route"]}
        operation = found[0].get("get" if method == "HEAD" else method.lower())
        if operation is None:
            return {"405": self._components["responses"]["method_not_allowed"]}
        answers: dict[str, Any] = operation["responses"]
        return answers

    @property
    def start(self) -> dict[str, Any]:
        """What an app's own route answers that starts a job."""
        answers: dict[str, Any] = self._components["pathItems"]["Start"]["post"]["responses"]
        return answers

    def compare(self, response: httpx.Response, known: Mapping[str, Any]) -> None:
        """Raise if *response* is none of the *known* answers."""
        here = f"{response.request.method} {response.request.url} → {response.status_code}"
        if (answer := known.get(str(response.status_code))) is None:
            raise Broken(f"{here}: only {sorted(known)} are known.\n{response.text[:500]}")
        try:
            self._headers(response.headers, answer.get("headers", {}))
            if response.request.method != "HEAD":
                self._body(response, answer.get("content", {}))
            elif response.content:
                raise Broken("HEAD with a body")
        except (Broken, jsonschema_rs.ValidationError, ValueError) as error:
            raise Broken(f"{here}: {error}\n{response.headers}\n{response.text[:2000]}") from error

    def _headers(self, headers: httpx.Headers, known: Mapping[str, Any]) -> None:
        names = {name.lower(): header for name, header in known.items()}
        if more := set(headers) - set(names) - self._everywhere - OF_THE_SERVER:
            raise Broken(f"headers that the document does not know: {sorted(more)}")
        for name, found in names.items():
            header = self._resolved(found)
            if name in headers:
                self.validate(header["schema"], headers[name])
            elif header.get("required"):
                raise Broken(f"header {name} is missing")

    def _body(self, response: httpx.Response, known: Mapping[str, Any]) -> None:
        if not known:
            if response.content:
                raise Broken("a body that the document does not know")
            return
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind not in known:
            raise Broken(f"content type {kind!r}: only {sorted(known)} are known")
        if kind.endswith("json"):
            self.validate(known[kind]["schema"], json.loads(response.content))
        elif kind == "text/event-stream":
            for event in Stream(response.content).events:
                self._event(event.type, event.data, known[kind]["itemSchema"])

    def _event(self, name: str, data: str, known: Mapping[str, Any]) -> None:
        self.validate(known, {"event": name, "data": data})
        for one in known["oneOf"]:
            of = one["properties"]
            if of["event"]["const"] == name and "contentSchema" in of["data"]:
                self.validate(of["data"]["contentSchema"], json.loads(data))

    def validate(self, schema: Mapping[str, Any], value: Any) -> None:
        """Raise if *value* is not as *schema* says."""
        key = json.dumps(schema)
        if key not in self._validators:
            whole = {**schema, "components": {"schemas": self._components["schemas"]}}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        self._validators[key].validate(value)

    def _resolved(self, thing: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in thing:
            return thing
        found: Any = {"components": self._components}
        for part in thing["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        resolved: Mapping[str, Any] = found
        return resolved


_PREFLIGHT: Final = {
    name: {"schema": {"type": "string"}}
    for name in (
        "Allow", "Cache-Control", "Vary", "Access-Control-Allow-Methods",
        "Access-Control-Allow-Headers", "Access-Control-Max-Age",
    )
}  # fmt: skip


def _strict(thing: Any) -> Any:
    """The same schemas, without room for fields that they do not name."""
    if isinstance(thing, list):
        return [_strict(one) for one in thing]
    if not isinstance(thing, dict):
        return thing
    strict = {name: _strict(one) for name, one in thing.items()}
    if thing.get("type") == "object" and isinstance(thing.get("properties"), dict):
        strict["additionalProperties"] = False
    return strict


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))


CONTRACT: Final = Contract("/jobs")
HOOKS: Final = {"response": [CONTRACT.check]}
"""For `httpx.AsyncClient(event_hooks=HOOKS)`."""
