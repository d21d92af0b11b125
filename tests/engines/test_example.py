"""The example with workers of its own: served, and worked for as its page says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.process import Apps
from tests.conftest import OwnServer

ROOT = Path(__file__).parents[2]
FORM = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """The processes of this test."""
    with Apps(tmp_path) as apps:
        yield apps


def worker_command() -> list[str]:
    """As docs/engines.md has it."""
    page = ROOT / "docs" / "engines.md"
    lines = [line for line in page.read_text().splitlines() if line.startswith("$ headway worker")]
    return shlex.split(lines[0].removeprefix("$ "))


def test_example_is_served_and_worked_for(apps: Apps, own_server: OwnServer) -> None:
    """The button starts a job, the worker runs it, and its visitor sees it to its end."""
    folder, settings = ROOT / "examples", {"BROKER_URL": own_server.url}
    served = apps.serve(app="taskiq_app:app", cwd=folder, **settings)
    apps.work(*worker_command(), ready="working, with the tasks bake", cwd=folder, **settings)

    served.http.get("/")
    sent = served.http.post("/", headers=FORM)
    ended = served.ends(sent.headers["location"].rpartition("/")[2])

    assert sent.status_code == 303
    assert (ended["state"], ended["result"]) == ("succeeded", {"loaves": 20})
    assert len((folder / "taskiq_app.py").read_text().splitlines()) <= 40
