"""The docs as a site: built as by `make docs`, and looked through."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import headway
from headway import errors
from headway.cli import main
from headway.surface import OPERATIONS
from tests.browser.pictures import DOCS as PICTURES
from tests.browser.scenes import SCENES
from tests.samples import PAGES, ROOT

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("site")]

LOADED: Final = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
DRAWN: Final = {"bar.svg"}  # by hand: the icon of the site


class Site(NamedTuple):
    """What was built, and what the builder had to say."""

    folder: Path
    said: str

    def page(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site, built from the docs as they are."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    told = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, timeout=50,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return Site(folder, told.stderr)


def test_it_builds_without_warnings(site: Site) -> None:
    """Strictly, and each page of docs/ has its place in the order."""
    assert "WARNING" not in site.said
    assert "not included in the" not in site.said


class _Loads(HTMLParser):
    """What a page loads, other than by a click."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") not in {"prev", "next", "canonical"}:
            self.found.append(given.get(LOADED.get(tag, "")) or "")


def test_it_loads_nothing_from_elsewhere(site: Site) -> None:
    """No page, and no style, has a font, a script or a picture from another host."""
    loads = _Loads()
    for page in site.folder.rglob("*.html"):
        loads.feed(page.read_text())
    styles = "".join(style.read_text() for style in site.folder.rglob("*.css"))

    assert any(one.endswith(".js") for one in loads.found)
    assert [one for one in loads.found if re.match(r"(https?:)?//", one)] == []
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", styles) == []


@pytest.mark.parametrize("name", headway.__all__)
def test_public_names_are_in_the_reference(site: Site, name: str) -> None:
    """Whatever can be imported from the package has its heading, made of its docstring."""
    pages = site.page("reference/python.html") + site.page("reference/errors.html")

    assert re.search(rf'id="headway(\.errors)?\.{name}"', pages)


def test_errors_are_in_the_reference(site: Site) -> None:
    """Every class of the tree has its heading."""
    page = site.page("reference/errors.html")

    assert {name for name in errors.__all__ if f'id="headway.errors.{name}"' not in page} == set()


def test_commands_are_in_the_reference(site: Site) -> None:
    """Every subcommand has its heading."""
    page = site.page("reference/cli.html")

    assert {name for name in main.commands if f'id="headway-{name}"' not in page} == set()


def test_routes_are_in_the_reference(site: Site) -> None:
    """Every route has its heading."""
    page = site.page("reference/http.html")
    routes = {f"{one.method} /jobs{one.path}" for one in OPERATIONS if one.method != "HEAD"}

    assert {route for route in routes if f"<code>{route}</code>" not in page} == set()


def test_pictures_are_made_by_a_script() -> None:
    """Every picture of a page is made by `make pictures` or `make bench`; none is left over."""
    shown = {
        target.rpartition("images/")[2]
        for page in PAGES
        for target in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text())
    }
    names = ["overview", *SCENES, *(picture.name for picture in PICTURES)]
    found = json.loads((ROOT / "docs" / "benchmarks.json").read_text())["findings"]
    made = {f"{name}.png" for name in names}
    made |= {f"benchmarks/{one['slug']}.svg" for one in found if one["plot"]}
    folder = ROOT / "docs" / "images"

    assert shown == made
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert there == made | DRAWN


def _texts_of_the_code() -> str:
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.js")]
    text = "\n".join(path.read_text() for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_messages_of_the_troubleshooting_are_those_of_the_code() -> None:
    """What stands there word for word is said by the code, but for what changes in it."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^> (.+)$", page, re.MULTILINE)
    headings = re.findall(r'^### [^"\n]*"(.+?)[.…]*"', page, re.MULTILINE)
    pieces = {piece.strip() for line in [*quoted, *headings] for piece in line.split("…")}
    code = _texts_of_the_code()

    assert len(quoted) > 8
    assert {piece for piece in pieces if piece not in code} == set()
