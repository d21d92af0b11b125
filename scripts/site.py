"""The pages of the site that are made of other files; MkDocs calls the `on_…` functions.

The pages of docs/ are read in the repository, too, so their links lead to files there. Here those
that leave docs/ are turned to the page which is made of that file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parent.parent
LINK: Final = re.compile(r"\]\(((?:\.\./)?(?:docs/|examples/)[^)]*|(?:\.\./)?[A-Z]+\.md)\)")
WHOLE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
}
HTTP: Final = (
    "Made of [the OpenAPI document](../openapi.json), against which tests hold each answer.",
    "[The HTTP surface](../http.md) tells how the routes belong together.",
)
METHODS: Final = ("get", "post", "delete")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made of files outside of docs/, and of the OpenAPI document."""
    for source, page in WHOLE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "examples.md", content=examples()))
    spec = json.loads((ROOT / "docs" / "openapi.json").read_text())
    files.append(File.generated(config, "reference/http.md", content=routes(spec)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ to the pages made of what they lead to."""
    return LINK.sub(lambda link: f"]({turned(link[1])})", markdown)


def turned(target: str) -> str:
    """Where a link of the repository leads on the site."""
    target = target.removeprefix("../")
    if target.startswith("examples/"):
        name = Path(target).name
        return f"examples.md#{anchor(name)}" if name.endswith(".py") else "examples.md"
    return WHOLE.get(target, target.removeprefix("docs/"))


# ── examples ──────────────────────────────────────────────────────────────────────────────────


def examples() -> str:
    """A page of all examples."""
    folder = ROOT / "examples"
    parts = ["# Examples", "Whole apps, each in one file. Tests serve and visit every one of them."]
    for path in sorted(folder.rglob("*.py")):
        if "node_modules" in path.parts:
            continue
        code = path.read_text()
        parts += [
            f"## {path.relative_to(folder)} {{ #{anchor(path.name)} }}",
            f"```python\n{code}```",
        ]
    return "\n\n".join(parts)


def anchor(name: str) -> str:
    return name.replace(".", "-")


# ── the routes ────────────────────────────────────────────────────────────────────────────────


def routes(spec: dict[str, Any]) -> str:
    """A page of all routes and documents, made of the OpenAPI document."""
    parts = [
        "# HTTP: every route",
        "\n".join(HTTP),
        "## Routes",
    ]
    for path, item in spec["paths"].items():
        for method in METHODS:
            if method in item:
                parts += route(spec, f"{method.upper()} {path}", item, item[method])
    parts.append("## Documents")
    for name, schema in spec["components"]["schemas"].items():
        parts += shape(name, schema)
    return "\n\n".join(parts)


def route(
    spec: dict[str, Any], name: str, item: dict[str, Any], operation: dict[str, Any]
) -> Iterator[str]:
    """One route: what it takes, and what it answers."""
    yield f"### `{name}`"
    yield operation["summary"]
    taken = [*item.get("parameters", []), *operation.get("parameters", [])]
    if parameters := [found(spec, one) for one in taken]:
        rows = (
            (f"`{one['name']}`", one["in"], kind(one["schema"]), one.get("description", ""))
            for one in parameters
        )
        yield table(("takes", "in", "type", ""), rows)
    answers = ((status, found(spec, one)) for status, one in operation["responses"].items())
    rows = (
        (status, one.get("description", ""), content(one), headers(status, one))
        for status, one in answers
    )
    yield table(("answers", "when", "with", "headers"), rows)


def headers(status: str, answer: dict[str, Any]) -> str:
    """Those of an answer; the ones of problems are always the same."""
    return names(answer.get("headers", {})) if status < "400" else ""


def shape(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """One document: its fields."""
    yield f"### {name} {{ #{name.lower()} }}"
    if text := schema.get("description"):
        yield text
    if "enum" in schema:
        yield names(schema["enum"])
    if "properties" in schema:
        needed = schema.get("required", [])
        rows = (
            (named(field, needed), kind(one), one.get("description", ""))
            for field, one in schema["properties"].items()
        )
        yield table(("field", "type", ""), rows)


def named(field: str, needed: list[str]) -> str:
    return f"`{field}`" if field in needed else f"`{field}` (may be missing)"


def found(spec: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    while "$ref" in part:
        reached: Any = spec
        for step in part["$ref"].removeprefix("#/").split("/"):
            reached = reached[step]
        part = reached
    return part


def content(answer: dict[str, Any]) -> str:
    """The media types of an answer, each with its document, or with the codes of its problems."""
    said = []
    for media, one in answer.get("content", {}).items():
        described = one.get("schema") or one.get("itemSchema") or {}
        if codes := one.get("examples"):
            said.append(f"[Problem](#problem) {names(codes)}")
        elif "allOf" in described or "$ref" in described:
            said.append(f"`{media}`: {kind(described)}")
        else:
            said.append(f"`{media}`")
    return ", ".join(said)


def kind(schema: dict[str, Any]) -> str:
    """A type in a few words; documents are links."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    several = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if several:
        return " or ".join(dict.fromkeys(filter(None, map(kind, several))))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    named = schema.get("type", "")
    if named == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if isinstance(named, list):
        return " or ".join(named)
    return f"{named} ({schema['format']})" if "format" in schema else str(named)


def names(given: Any) -> str:
    return ", ".join(f"`{name}`" for name in given)


def table(head: tuple[str, ...], rows: Any) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    cells = ((cell.replace("|", "\\|") for cell in line) for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
