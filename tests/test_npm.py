"""The npm package: its files are those of the wheel, and npm, TypeScript and editors take it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

import jsonschema_rs
import pytest

import headway
from headway import pages
from tests import packaged
from tests.packaged import FOLDER, ROOT

EXAMPLE: Final = ROOT / "examples" / "frameworks"
MODULES: Final = EXAMPLE / "node_modules"
PATH: Final = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
NPM: Final = shutil.which("npm", path=PATH)
fetched = pytest.mark.skipif(
    NPM is None or not (MODULES / "headway-setup").exists(),
    reason="the libraries are not here; scripts/npm gets them",
)
pytestmark = pytest.mark.once


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=os.environ | {"PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def compiled(code: str, folder: Path, *, react: bool = True) -> str:
    """What TypeScript has to say of a file beside the package, strictly."""
    shutil.copytree(FOLDER, folder / "node_modules" / "headway-progress")
    if react:
        for name in ("react", "@types"):
            (folder / "node_modules" / name).symlink_to(MODULES / name)
    (folder / "sample.tsx").write_text(code)
    told = json.loads((EXAMPLE / "tsconfig.json").read_text())
    (folder / "tsconfig.json").write_text(json.dumps({**told, "files": ["sample.tsx"]}))
    return run(MODULES / ".bin" / "tsc", cwd=folder).stdout


# ── what is in it ─────────────────────────────────────────────────────────────────────────────


def test_folder_is_what_the_code_makes() -> None:
    """`python -m tests.generated` writes it; nothing else is there."""
    found = {path.name: path.read_bytes() for path in FOLDER.iterdir()}

    assert sorted(packaged.packaged()) == sorted(found)
    assert [name for name, data in packaged.packaged().items() if found[name] != data] == []


def test_scripts_are_those_of_the_wheel() -> None:
    """Byte by byte, and all that the element needs."""
    static = files("headway").joinpath("static")
    names = [path.name for path in FOLDER.glob("*.js")]

    assert {*pages._PARTS["headway.js"], "details.js", "jobs.js", "outside.js", "variants.js"} == {
        *names
    }
    for name in [*names, "headway.d.ts"]:
        assert (FOLDER / name).read_bytes() == static.joinpath(name).read_bytes()


def test_version_is_that_of_the_server() -> None:
    """One number for both."""
    assert json.loads((FOLDER / "package.json").read_text())["version"] == headway.__version__


def test_every_way_into_the_package_leads_to_a_file() -> None:
    """What package.json names is there."""
    told = json.loads((FOLDER / "package.json").read_text())
    entry = told["exports"]["."]
    named = [*entry.values(), told["types"], told["customElements"], *told["sideEffects"]]

    assert all((FOLDER / name).is_file() for name in [*named, *told["files"]])


@fetched
def test_npm_packs_just_these(tmp_path: Path) -> None:
    """All files of the folder, and no others."""
    shutil.copytree(FOLDER, tmp_path / "package")

    told = run(str(NPM), "pack", "--dry-run", "--json", cwd=tmp_path / "package")
    answer = json.loads(told.stdout)
    packed = answer[0] if isinstance(answer, list) else next(iter(answer.values()))

    assert sorted(one["path"] for one in packed["files"]) == sorted(packaged.packaged())


# ── the manifest ──────────────────────────────────────────────────────────────────────────────


@fetched
def test_manifest_is_valid() -> None:
    """It keeps to the schema of custom elements manifests."""
    schema = json.loads((MODULES / "custom-elements-manifest" / "schema.json").read_text())

    jsonschema_rs.validator_for(schema).validate(packaged.manifest())


# ── types ─────────────────────────────────────────────────────────────────────────────────────


@fetched
def test_example_is_well_typed() -> None:
    """React's page uses the types of the package, strictly."""
    assert run(MODULES / ".bin" / "tsc", cwd=EXAMPLE).stdout == ""


@fetched
def test_types_need_no_react(tmp_path: Path) -> None:
    """A page without React finds the element, its events and its job."""
    code = """
        import { JobWatcher, type Job } from "headway-progress";
        const bar = document.querySelector("headway-bar")!;
        const job: Job | undefined = bar.job;
        bar.addEventListener("headway-done", ({ detail }) => detail.links.self.length);
        new JobWatcher("/jobs/1").addEventListener("connection", ({ detail }) => detail.state);
        document.querySelector("headway-jobs")!.refresh().then(() => job);
    """
    assert compiled(code, tmp_path, react=False) == ""


@fetched
@pytest.mark.parametrize(
    "code",
    [
        "<headway-bar />",
        '<headway-bar src="/jobs/1" job={1} />',
        '<headway-bar src="/jobs/1" variant="square" />',
        '<headway-bar src="/jobs/1" onheadway-done={(event: CustomEvent<number>) => event} />',
        "<headway-baz />",
    ],
)
def test_types_refuse_what_is_wrong(tmp_path: Path, code: str) -> None:
    """An attribute that is missing or of another type, an event of another shape, another name."""
    told = compiled(f'import "headway-progress";\nexport const found = {code};\n', tmp_path)

    assert told.count("error TS") == 1
    assert "sample.tsx(2," in told
