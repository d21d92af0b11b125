"""Every block of code in the docs is run, in one of the ways that docs/contributing.md tells."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema_rs
import pytest

from tests.apps.process import App, Apps, free_port, wait_until
from tests.browser.test_page_samples import CHECKS
from tests.samples import PAGES, ROOT, SAMPLES, Sample
from tests.test_nginx import BINARY

pytestmark = pytest.mark.once
FRAMES: Final = ROOT / "tests" / "frames"
EXAMPLES: Final = ROOT / "examples"
PLACE: Final = re.compile(r"^( *)# the sample$", re.MULTILINE)
HTML: Final = {"accept": "text/html"}
LOOSE: Final = {"required", "pattern"}
QUICKSTART: Final = "quickstart:app"
NGINX: Final = """
daemon off;
pid pid;
error_log errors warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxied;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  {servers}
}}
"""

Way = Callable[[Sample, Path, str], None]


# ── the ways ──────────────────────────────────────────────────────────────────────────────────


def program(sample: Sample, folder: Path, url: str) -> None:
    """It is a module by itself: it can be imported, without a warning."""
    run_program(sample.code, folder, url)


def in_frame(sample: Sample, folder: Path, url: str) -> None:
    """It stands in a frame, which is run."""
    frame = (FRAMES / sample.arguments[0]).read_text()
    place = PLACE.search(frame)
    assert place is not None
    lines = [f"{place[1]}{line}" if line else line for line in sample.code.splitlines()]
    run_program(frame.replace(place[0], "\n".join(lines)), folder, url)


def run_program(code: str, folder: Path, url: str) -> None:
    (folder / "sample.py").write_text(code)
    more = {"HEADWAY_URL": url, "HEADWAY_PREFIX": f"t{secrets.token_hex(6)}"}
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import sample"],
        cwd=folder, env=os.environ | more, capture_output=True, text=True, check=False, timeout=40,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")


def file(sample: Sample, folder: Path, url: str) -> None:
    """It is the code of a file that other tests run."""
    assert (ROOT / sample.arguments[0]).read_text().endswith(f'"""\n\n{sample.code}')


def by(sample: Sample, folder: Path, url: str) -> None:
    """Another test reads it from this very page, or its helper does."""
    test = ROOT / sample.arguments[0]
    helpers = [test, *test.parent.glob("learner.py")]
    assert any(f'"{sample.page.name}"' in one.read_text() for one in helpers)


def schema(sample: Sample, folder: Path, url: str) -> None:
    """It is a document of this schema."""
    spec = json.loads((ROOT / "docs" / "openapi.json").read_text())
    wanted = {"$ref": f"#/components/schemas/{sample.arguments[0]}"}
    validator = jsonschema_rs.Draft202012Validator({**spec, **wanted})
    validator.validate(json.loads(sample.code))


def abridged(sample: Sample, folder: Path, url: str) -> None:
    """It is a document of this schema, with some fields left out, and texts that are cut short."""
    spec = json.loads((ROOT / "docs" / "openapi.json").read_text())
    schemas = {"components": {"schemas": loosened(spec["components"]["schemas"])}}
    wanted = {"$ref": f"#/components/schemas/{sample.arguments[0]}"}
    jsonschema_rs.Draft202012Validator({**schemas, **wanted}).validate(json.loads(sample.code))


def loosened(part: Any) -> Any:
    """A schema by which nothing is needed, but everything that is there has its name and type."""
    if isinstance(part, list):
        return [loosened(one) for one in part]
    if not isinstance(part, dict):
        return part
    kept = {name: loosened(one) for name, one in part.items() if name not in LOOSE}
    return {**kept, "additionalProperties": False} if "properties" in part else kept


def install(sample: Sample, folder: Path, url: str) -> None:
    """Each line installs extras that exist."""
    for command in sample.commands:
        check_install(command)


def check_install(command: str) -> None:
    assert command.startswith("pip install ")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for found in re.findall(r"headway\[(.*?)\]", command):
        assert set(found.split(",")) <= known["optional-dependencies"].keys()


def make(sample: Sample, folder: Path, url: str) -> None:
    """Each line makes targets that exist."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in sample.commands:
        assert set(command.partition("#")[0].split()[1:]) <= targets


def serve(sample: Sample, folder: Path, url: str) -> None:
    """Its last command serves an example, those before it install something."""
    *before, last = sample.commands
    for command in before:
        check_install(command)
    words = [w.replace("5000", "{port}") for w in shlex.split(last) if "=" not in w]
    port = () if "{port}" in " ".join(words) else ("--port", "{port}")
    with Apps(folder) as apps:
        app = apps.serve(*words, *port, app=sample.arguments[0], cwd=EXAMPLES)

        assert "<form" in app.http.get("/", headers=HTML).text


def ask(sample: Sample, folder: Path, url: str) -> None:
    """Its commands are typed beside a server that has a job."""
    with Apps(folder) as apps:
        app = apps.serve("quart", "run", "--port", "{port}", app=QUICKSTART, cwd=EXAMPLES)
        job_id = start(app)
        for command in sample.commands:
            typed = re.sub(r"\bID\b", job_id, command).replace("5000", str(app.port))
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            more = {"PATH": path, "HEADWAY_STATE_DIR": str(apps.state_dir)}
            told = subprocess.run(
                ["bash", "-ec", typed], env=os.environ | more, cwd=folder, capture_output=True,
                text=True, check=False, timeout=30,
            )  # fmt: skip
            assert told.returncode == 0, told.stdout + told.stderr


def start(app: App) -> str:
    """Start the work of the quickstart; returns the job's id."""
    started = app.http.post("/", headers={"accept": "application/json"})
    return str(started.json()["id"])


def nginx(sample: Sample, folder: Path, url: str) -> None:
    """A stream comes through it, event by event."""
    if BINARY is None:
        pytest.skip("no nginx is here; scripts/nginx gets one")
    with Apps(folder) as apps:
        app = apps.serve("quart", "run", "--port", "{port}", app=QUICKSTART, cwd=EXAMPLES)
        with proxied(sample.code, app.port, folder) as through:
            job_id = start(app)
            through.cookies.update(app.http.cookies)
            with through.stream("GET", f"/jobs/{job_id}/events") as answer:
                events = [line for line in answer.iter_lines() if line.startswith("event: ")]
            form = through.post("/", headers={**HTML, "origin": str(through.base_url)})

    assert (events[0], events[-1]) == ("event: job", "event: end")
    assert form.status_code == 303


@contextmanager
def proxied(servers: str, upstream: int, folder: Path) -> Iterator[httpx.Client]:
    """nginx with this configuration, before the server at *upstream*."""
    port = free_port()
    servers = servers.replace("listen 80;", f"listen 127.0.0.1:{port};")
    servers = servers.replace("127.0.0.1:5000", f"127.0.0.1:{upstream}")
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(servers=servers))
    command = [str(BINARY), "-p", f"{folder}/", "-c", str(config), "-e", str(folder / "errors")]
    process = subprocess.Popen(command, cwd=folder)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
    try:
        wait_until("nginx answers", lambda: answers(client))
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(10)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.TransportError:
        return False


WAYS: Final[dict[str, Way]] = {
    "program": program,
    "in": in_frame,
    "file": file,
    "by": by,
    "schema": schema,
    "abridged": abridged,
    "install": install,
    "make": make,
    "serve": serve,
    "ask": ask,
    "nginx": nginx,
}
IN_BROWSER: Final = "page"  # tests/browser/test_page_samples.py
HERE: Final = [sample for sample in SAMPLES if sample.way in WAYS]


# ── the tests ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_sample_says_how_it_is_run(sample: Sample) -> None:
    """No block is there only to be looked at."""
    known = sample.arguments[0] in CHECKS if sample.way == IN_BROWSER else sample.way in WAYS

    assert known, f'{sample}: say <!-- sample: … --> before it, not "{sample.said}"'


@pytest.mark.parametrize("sample", HERE, ids=str)
def test_a_sample_runs(sample: Sample, tmp_path: Path, valkey_url: str) -> None:
    """What the page shows works."""
    WAYS[sample.way](sample, tmp_path, valkey_url)


def test_ways_are_documented() -> None:
    """The page on the docs names every way but the plain one."""
    text = (ROOT / "docs" / "contributing.md").read_text()
    told: set[Any] = set(re.findall(r"<!-- sample: (\w+)", text))

    assert told == {*WAYS, IN_BROWSER} - {"program"}


def test_every_page_is_looked_at() -> None:
    """A block that the collector does not see would never be run: it counts the fences alike."""
    fences = sum(len(re.findall(r"^ *```\S*", page.read_text(), re.MULTILINE)) for page in PAGES)

    assert fences == 2 * len(SAMPLES)
