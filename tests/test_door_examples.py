"""The examples of the doors, served as their first lines say and visited as by a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.apps.process import App, Apps

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = ["starlette_app", "fastapi_app", "litestar_app", "django_app"]
FORM = {"accept": "text/html,application/xhtml+xml"}
START = {"django_app": "/start"}


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """The processes of this test."""
    with Apps(tmp_path) as apps:
        yield apps


@pytest.fixture(params=EXAMPLES)
def served(request: pytest.FixtureRequest, apps: Apps) -> App:
    """Each example, on uvicorn."""
    return apps.serve(app=f"{request.param}:app", cwd=FOLDER)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    """Each fits on a screen."""
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 60


def test_a_button_starts_a_job_that_only_its_visitor_sees(
    served: App, request: pytest.FixtureRequest
) -> None:
    """The form leads back to a page with a bar, which moves to its end; others get 404."""
    name = request.node.callspec.params["served"]
    page = served.http.get("/").text
    sent = served.http.post(START.get(name, "/"), headers=FORM)
    job = served.http.get("/jobs").json()["jobs"][0]
    shown = served.http.get(sent.headers["location"]).text
    told = served.http.get(job["links"]["events"]).text

    assert "<form" in page
    assert (sent.status_code, sent.headers["location"]) == (303, "/")
    assert f'<headway-bar src="/jobs/{job["id"]}">' in shown
    assert "event: end" in told
    assert json.loads(served.http.get(job["links"]["self"] + "/result").text) == {"loaves": 20}
    assert httpx.get(f"{served.http.base_url}{job['links']['self']}").status_code == 404
