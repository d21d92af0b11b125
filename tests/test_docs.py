"""The docs tell what the code does."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import headway
from headway.acts import SCRIPTS
from headway.job import TRANSITIONS, State
from headway.record import MUTABLE
from headway.surface import OPERATIONS
from tests import generated

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


def transitions() -> str:
    """The table of transitions, as the docs have it."""
    order = list(State)
    rows = [
        f"| {state} | {act} | {', '.join(s for s in order if s in leads)} "
        f"| {'cancel' if any(s.terminal for s in leads) else ''} |"
        for (state, act), leads in TRANSITIONS.items()
    ]
    head = "| state | act | leads to | if it has ended, its children |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def test_transitions_are_those_of_the_code() -> None:
    """The table in the docs is generated from the one that the code is tested against."""
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    shown = text.split("-->\n", 1)[1].split("\n<!-- /transitions", 1)[0]

    assert shown == transitions()


def test_acts_have_the_same_names_everywhere() -> None:
    """An act of the table is a script of the same name."""
    assert {act for _, act in TRANSITIONS} <= SCRIPTS.keys()


def test_announcements_carry_what_can_change() -> None:
    """The list in the Lua file and the one in Python are the same."""
    lua = (ROOT / "src" / "headway" / "store.lua").read_text()
    told = re.search(r"local TOLD = \{(.*?)\}", lua, re.DOTALL)

    assert told is not None
    assert set(re.findall(r"'(\w+)'", told[1])) == MUTABLE


@pytest.mark.parametrize("name", headway.__all__)
def test_public_names_are_mentioned(name: str) -> None:
    """Whatever can be imported from the package stands in the README or in a page."""
    pages = [ROOT / "README.md", *PAGES]

    assert any(re.search(rf"\b{name}\b", page.read_text()) for page in pages)


def test_public_names_are_few() -> None:
    """The package has at most twelve public names, and all of them exist."""
    assert len(headway.__all__) <= 12
    assert all(hasattr(headway, name) for name in headway.__all__)


def test_readme_shows_the_example() -> None:
    """The app in the README is the one in the examples, which is run by a test."""
    app = (ROOT / "examples" / "quickstart.py").read_text().split('"""\n\n', 1)[1]

    assert app in (ROOT / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    """Every relative link of the docs names a file that exists."""
    for page in [*map(ROOT.joinpath, ("README.md", "CHANGELOG.md", "SECURITY.md")), *PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


@pytest.mark.parametrize(("page", "name"), generated.TABLES)
def test_tables_are_made_of_the_code(page: str, name: str) -> None:
    """What `python -m tests.generated` would write is what the docs have."""
    assert generated.table(page, name) == generated.TABLES[page, name]()


def test_codes_of_failures_are_documented() -> None:
    """Every code of an error that a job can have stands in the docs."""
    files = (ROOT / "src" / "headway").rglob("*.py")
    code = "".join(file.read_text() for file in files)
    docs = "".join(page.read_text() for page in PAGES)
    codes = set(re.findall(r'Failure\(\s*"(\w+)"', code))

    assert codes
    assert not {c for c in codes if f"`{c}`" not in docs}


def test_operations_are_documented() -> None:
    """Every route has its row, and every row of a route is one."""
    rows = re.findall(r"`([A-Z]+) (/jobs[^`?]*)", (ROOT / "docs" / "http.md").read_text())

    assert {(one.method, f"/jobs{one.path}") for one in OPERATIONS} == set(rows)


def test_states_are_documented() -> None:
    """The states in the docs are those of the code."""
    docs = (ROOT / "docs" / "http.md").read_text()

    assert " ".join(State) in docs


async def test_quickstart_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The smallest app starts its work by its button, and shows the bar."""
    monkeypatch.setenv("HEADWAY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    quickstart = importlib.import_module("quickstart")
    async with quickstart.app.test_app():
        client = quickstart.app.test_client()

        shown = await (await client.get("/")).get_data(as_text=True)
        started = await client.post("/", headers={"accept": "text/html"})
        page = await client.get(started.headers["location"], headers={"accept": "text/html"})

        assert "<button>" in shown
        assert started.status_code == 303
        assert "<headway-bar" in await page.get_data(as_text=True)
