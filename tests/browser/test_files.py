"""What is sent for the element, and that its docs and types tell of all of it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from headway import pages
from tests.browser.serving import Site

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src" / "headway" / "static"
SCRIPTS = sorted(path.name for path in STATIC.glob("*.js"))
DOCS = (ROOT / "docs" / "element.md").read_text()
TYPES = (STATIC / "headway.d.ts").read_text()


def source(name: str) -> str:
    return (STATIC / name).read_text()


def sent(name: str) -> pages.File:
    file = pages.static(name)
    assert file is not None
    return file


def test_page_with_one_bar_loads_nine_kilobytes() -> None:
    """The bar and its connection are one small file; what only some pages need is apart."""
    assert len(sent("headway.js").zipped) < 9 * 1024


def test_sizes_in_the_docs_are_true() -> None:
    """The table is that of `python -m tests.browser.cost`, give or take a little."""
    told = re.findall(r"^\| `([\w.]+)` \| ([\d,]+) \| ([\d,]+) \|", DOCS, re.MULTILINE)
    assert [name for name, _, _ in told] == list(pages.FILES)
    for name, size, zipped in told:
        assert int(size.replace(",", "")) == len(sent(name).data)
        assert abs(int(zipped.replace(",", "")) - len(sent(name).zipped)) < 100


def test_every_script_is_sent_once() -> None:
    """Each is a file of its own or a part of the first one, and imports nothing at once."""
    parts = pages._PARTS["headway.js"]
    assert sorted({*parts, *(n for n in pages.FILES if n.endswith(".js"))}) == SCRIPTS
    for name in (name for name in pages.FILES if name.endswith(".js")):
        text = sent(name).data.decode()
        assert not re.search(r"^import|^export .* from", text, re.MULTILINE)
        assert "/**" not in text
    later = re.findall(r'import\("\./(\w+\.js)\?v=(\w+)"\)', sent("headway.js").data.decode())
    of_operators = {"overview.js"}  # their page names it
    assert {name for name, _ in later} == set(SCRIPTS) - set(parts) - of_operators
    assert {version for _, version in later} == {pages.VERSION}


def test_names_of_the_parts_do_not_clash() -> None:
    """What travels as one file shares one scope."""
    declared = r"^(?:export )?(?:async )?(?:const|let|class|function\*?) (\w+)"
    names = [
        name
        for part in pages._PARTS["headway.js"]
        for name in re.findall(declared, source(part), re.MULTILINE)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", [name for name in pages.FILES if name.endswith(".js")])
def test_versions_do_not_mix(site: Site, name: str) -> None:
    """The present version is kept for good, another one is not there, none is revalidated."""
    with httpx.Client(base_url=f"{site.url}/jobs/static/") as client:
        plain, right, wrong = (
            client.get(name, params=params) for params in ({}, {"v": pages.VERSION}, {"v": "1"})
        )
    assert "must-revalidate" in plain.headers["cache-control"]
    assert "immutable" in right.headers["cache-control"]
    assert plain.content == right.content == sent(name).data
    assert wrong.status_code == 404


# ── docs and types ────────────────────────────────────────────────────────────────────────────


def documented(name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", DOCS) is not None


def test_attributes_are_documented_and_typed() -> None:
    """All that the elements read."""
    text = "".join(map(source, SCRIPTS))
    found = set(re.findall(r'(?:hasAttribute|getAttribute|has)\("([\w-]+)"\)', text))
    assert {"src", "label", "variant", "log", "nocancel", "immediate", "outside"} <= found
    assert {name for name in found if not documented(name)} == set()
    assert {name for name in found if f"\t{name}?" not in TYPES} == set()


def test_events_are_documented_and_typed() -> None:
    """All that are fired or heard."""
    found = {f"headway-{name}" for name in re.findall(r'#tell\("([\w-]+)"', source("bar.js"))}
    found |= {"headway-succeeded", "headway-failed", "headway-cancelled", "headway-started"}
    assert "headway-before-cancel" in found
    assert {name for name in found if not documented(name)} == set()
    assert {name for name in found if f'"{name}"' not in TYPES} == set()


def test_parts_and_properties_are_documented() -> None:
    """All that can be styled; and a list passes the parts of its bars on."""
    tree = source("bar.js").split("const TREE = `")[1].split("`")[0]
    found = {row.split(" ")[1] for row in tree.split("\n") if row}
    found |= set(re.findall(r'part: "([\w-]*\w)"', source("details.js")))
    assert {"fill", "stages", "log"} <= found
    assert {name for name in found if not documented(name)} == set()
    exported = source("jobs.js").split("const PARTS =")[1].split(";")[0]
    passed = set(re.findall(r"[\w-]+", exported.replace("base:bar-base", "base")))
    assert found - passed <= {"actions", "status", "alert"}
    properties = set(re.findall(r"--headway-\w+", "".join(map(source, SCRIPTS))))
    assert {p for p in properties - {"--headway-ratio"} if not documented(p)} == set()


def test_texts_are_documented() -> None:
    """All keys of texts."""
    found: set[str] = set()
    for name in ("words.js", "details.js", "outside.js", "jobs.js"):
        text = source(name).split("const texts = {")[1].split("};")[0]
        found |= set(re.findall(r"\b(\w+): ", re.sub(r'"[^"]*"', '""', text)))
    assert {"stages", "forget", "notify", "running"} <= found
    assert {key for key in found - {"one", "other", "n"} if not documented(key)} == set()


def test_states_are_documented_and_typed() -> None:
    """All that `data-state` can be."""
    shapes = source("bar.js").split("const SHAPES = {")[1].split("};")[0]
    found = set(re.findall(r"^\t(\w+):", shapes, re.MULTILINE))
    assert len(found) == 15
    assert {state for state in found if not documented(state)} == set()
    assert {state for state in found if f'"{state}"' not in TYPES} == set()
