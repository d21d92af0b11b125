"""The npm package: the files of the wheel, and what npm and editors want to know of them.

`python -m tests.generated` writes it into `npm/`. What the manifest says is what docs/element.md
says; the types in it come from `headway.d.ts`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from hashlib import sha384
from pathlib import Path
from typing import Any, Final

import headway
from headway import pages

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "npm"
STATIC: Final = ROOT / "src" / "headway" / "static"
ENTRY: Final = "headway.js"
TYPES: Final = "headway.d.ts"
_IMPORT: Final = re.compile(r'(?:from |import\()"\./(\w+\.js)"')
_ELEMENTS: Final = {"headway-bar": "HeadwayBar", "headway-jobs": "HeadwayJobs"}
_SLOTS: Final = {
    "headway-bar": {"label": "Instead of the job's title.", "actions": "Beside the buttons."},
    "headway-jobs": {"empty": "For who has no jobs."},
}


def packaged() -> dict[str, bytes]:
    """All files of the package, by their names."""
    made = {"package.json": _json(package()), "custom-elements.json": _json(manifest())}
    return {
        **{name: (STATIC / name).read_bytes() for name in [*scripts(), TYPES]},
        **{name: text.encode() for name, text in made.items()},
        "README.md": (FOLDER / "README.md").read_bytes(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
    }


def write() -> None:
    """Write the folder anew."""
    for name, data in packaged().items():
        (FOLDER / name).write_bytes(data)


def _json(thing: Any) -> str:
    return json.dumps(thing, indent="\t", ensure_ascii=False) + "\n"


def scripts() -> list[str]:
    """The entry, and all that it imports now or later."""
    found = [ENTRY]
    for name in found:
        found += [n for n in _IMPORT.findall((STATIC / name).read_text()) if n not in found]
    return sorted(set(found))


def integrity() -> str:
    """The hash by which a browser knows the file that the server sends. Source: W3C SRI."""
    file = pages.static(ENTRY)
    assert file is not None
    return f"sha384-{base64.b64encode(sha384(file.data).digest()).decode()}"


def package() -> dict[str, Any]:
    """What npm is told."""
    return {
        "name": "headway-progress",
        "version": headway.__version__,
        "description": "Elements that show how far the jobs of a Headway server are",
        "license": "MIT",
        "keywords": ["progress", "custom element", "web component", "sse", "headway"],
        "type": "module",
        "exports": {
            ".": {"types": f"./{TYPES}", "default": f"./{ENTRY}"},
            "./custom-elements.json": "./custom-elements.json",
            "./package.json": "./package.json",
        },
        "types": f"./{TYPES}",
        "customElements": "custom-elements.json",
        "sideEffects": [f"./{name}" for name in scripts()],
        "files": [*scripts(), TYPES, "custom-elements.json"],
    }


# ── the manifest ──────────────────────────────────────────────────────────────────────────────


def manifest() -> dict[str, Any]:
    """The elements for editors and tools. Source: custom elements manifest, schema 1.0.0."""
    declared = [_element(tag, name) for tag, name in _ELEMENTS.items()]
    names = re.findall(r"^export class (\w+)", (STATIC / TYPES).read_text(), re.MULTILINE)
    exports = [{"kind": "js", "name": name, "declaration": {"name": name}} for name in names]
    defined = [
        {"kind": "custom-element-definition", "name": tag, "declaration": {"name": name}}
        for tag, name in _ELEMENTS.items()
    ]
    watcher = {"kind": "class", "name": "JobWatcher", "superclass": {"name": "EventTarget"}}
    module = {
        "kind": "javascript-module",
        "path": ENTRY,
        "declarations": [*declared, watcher],
        "exports": [*exports, *defined],
    }
    for one in module["exports"]:
        one["declaration"]["module"] = ENTRY  # type: ignore[index]
    return {"schemaVersion": "1.0.0", "readme": "README.md", "modules": [module]}


def _element(tag: str, name: str) -> dict[str, Any]:
    page = (ROOT / "docs" / "element.md").read_text()
    text = page.partition(f"## `<{tag}>`")[2].partition("\n## ")[0]
    bar = tag == "headway-bar"
    found = {
        "kind": "class",
        "customElement": True,
        "name": name,
        "tagName": tag,
        "superclass": {"name": "HTMLElement"},
        "attributes": _attributes(text, name),
        "members": list(_members(text, name)),
        "slots": [{"name": slot, "description": said} for slot, said in _SLOTS[tag].items()],
        "cssParts": [{"name": part} for part in _parts(page, bar=bar)],
    }
    if bar:
        found["events"] = list(_events(text))
        found["cssProperties"] = list(_properties(page))
    return found


def _rows(text: str, head: str) -> Iterator[tuple[list[str], list[str]]]:
    """Of the table whose first column has this head: the names of each row, and its other cells."""
    table = re.search(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, head
    for row in table[1].splitlines():
        first, *rest = [cell.strip() for cell in row.strip("| ").split(" | ")]
        yield re.findall(r"`([^`]+)`", first), [_plain(cell) for cell in rest]


def _plain(text: str) -> str:
    """Without the marks of Markdown."""
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text).replace("`", "")


def _block(head: str) -> str:
    """What stands in the types between the braces after *head*."""
    text = (STATIC / TYPES).read_text()
    return text.partition(f"{head} ")[2].partition("{\n")[2].partition("\n}")[0]


def _attributes(text: str, name: str) -> list[dict[str, Any]]:
    typed = "\n".join(map(_block, (f"interface {name}Attributes", "interface CommonAttributes")))
    return [
        {
            "name": attribute,
            "type": {"text": _type(typed, rf"{attribute}\??")},
            "description": " ".join(said),
            **({"fieldName": "src"} if f"\t{attribute}: " in _block(f"class {name}") else {}),
        }
        for names, said in _rows(text, "attribute")
        for attribute in names
    ]


def _type(text: str, name: str) -> str:
    found = re.search(rf"^\t(?:readonly )?{name}: (.+);$", text, re.MULTILINE)
    assert found is not None, name
    return found[1]


def _members(text: str, name: str) -> Iterator[dict[str, Any]]:
    typed = _block(f"class {name}")
    for names, said in _rows(text, "property or method"):
        for member in names:
            if member.endswith("()"):
                told = _type(typed, re.escape(member))
                kind = {"kind": "method", "return": {"type": {"text": told}}}
            elif "." in member:  # of the class
                continue
            else:
                kind = {"kind": "field", "type": {"text": _type(typed, member)}}
            yield {"name": member.removesuffix("()"), **kind, "description": " ".join(said)}


def _events(text: str) -> Iterator[dict[str, Any]]:
    typed = _block("interface HeadwayEventMap")
    for names, said in _rows(text, "event"):
        for event in names:
            yield {
                "name": event,
                "type": {"text": _type(typed, f'"{event}"')},
                "description": said[-1],
            }


def _parts(page: str, *, bar: bool) -> list[str]:
    text = page.partition("\nParts, for ")[2].partition("\n\n")[0]
    lists = [words.split() for words in re.findall(r"`([a-z\s-]+)`", text.partition(":")[2])]
    of_bars = [part for words in lists[:3] for part in words]
    *_, without, own = lists
    renamed = ["bar-base" if part == "base" else part for part in of_bars]
    return of_bars if bar else [*own, *(part for part in renamed if part not in without)]


def _properties(page: str) -> Iterator[dict[str, Any]]:
    for names, said in _rows(page, "custom property"):
        for name in names:
            yield {"name": name, "default": said[0]}
