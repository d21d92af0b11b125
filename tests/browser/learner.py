"""Somebody who follows the tutorial: types its commands, saves its programs, and serves them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from tests.apps.dice import loaded
from tests.apps.process import DEADLINE_S, App, alive, free_port, wait_until
from tests.samples import ROOT, Sample, samples_of

PAGE: Final = ROOT / "docs" / "tutorial.md"
SAMPLES: Final = list(samples_of(PAGE))
PROGRAMS: Final = [sample for sample in SAMPLES if sample.language == "python"]
PORT: Final = "5000"


def block(name: str) -> Sample:
    """The block that the page marks with `<!-- sample: by … NAME -->`."""
    return next(sample for sample in SAMPLES if sample.arguments[1:] == [name])


def patched(program: str, diff: str) -> str:
    """The program after the change that a block of the page shows."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    assert program.count(old) == 1
    return program.replace(old, new)


def environment(**more: str) -> dict[str, str]:
    """That of a new terminal: nothing of Headway, and nothing to import but what is installed."""
    foreign = ("HEADWAY_", "PYTHON", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"} | more


def install(folder: Path) -> Path:
    """Type what the page says at its beginning; returns the new folder, with `.venv` in it."""
    name, own = "'headway[", f"'{ROOT}["
    typed = "\n".join(block("install").commands)
    assert typed.count(name) == 1
    typed = f"{typed.replace(name, own)}\npwd > '{folder}/here'"
    # As a URL: in paths, pip would take a space for the end.
    env = environment(PIP_CONSTRAINT=(ROOT / "constraints.txt").as_uri())
    subprocess.run(["bash", "-ec", typed], cwd=folder, env=env, check=True)
    return Path((folder / "here").read_text().strip())


class Learner:
    """One of them, in a folder that has the environment of *installed*.

    Args:
        dice: how many seconds each step of the work takes, in place of random ones.
    """

    def __init__(self, folder: Path, installed: Path, *, dice: float) -> None:
        self.folder = folder
        (folder / ".venv").symlink_to(installed / ".venv")
        self._runtime = tempfile.mkdtemp(prefix="hw")
        self._env = environment(**loaded(folder / "loaded", dice), XDG_RUNTIME_DIR=self._runtime)
        self._apps: list[App] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for app in self._apps:
            app.kill()
            print(f"── log of a server (pid {app.pid})\n{app.log}")
        if (pid := self._store_pid()) and alive(pid):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _store_pid(self) -> int:
        try:
            return int((self.folder / ".headway" / "valkey" / "valkey.pid").read_text())
        except (OSError, ValueError):
            return 0

    def save(self, program: str) -> None:
        """Save it as the page says."""
        (self.folder / "progress_bar.py").write_text(program)

    def serve(self, name: str = "serve", **replaced: str) -> App:
        """Type the commands of a block that ends with a server, on a port of our own."""
        port = free_port()
        *before, last = [". .venv/bin/activate", *block(name).commands]
        last = last.replace(PORT, str(port)) if PORT in last else f"{last} --port {port}"
        typed = "\n".join([*before, last])
        for old, new in replaced.items():
            assert old in typed
            typed = typed.replace(old, new)
        log = self.folder / f"server{len(self._apps)}.log"
        app = App(["bash", "-ec", typed], port, log, self.folder, **self._env)
        self._apps.append(app)
        wait_until(f"port {port} answers", lambda: self._answers(app))
        return app

    def _answers(self, app: App) -> bool:
        assert app.process.poll() is None, f"the server ended at once:\n{app.log}"
        try:
            return app.http.get("/").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, app: App) -> str:
        """Type the command that asks for the status; returns what it prints."""
        (command,) = block("status").commands
        return subprocess.run(
            ["bash", "-ec", command.replace(PORT, str(app.port))],
            env=self._env, capture_output=True, text=True, check=True, timeout=DEADLINE_S,
        ).stdout  # fmt: skip

    def crash(self, app: App) -> None:
        """Press Ctrl-\\ in the terminal of the server."""
        os.killpg(app.pid, signal.SIGQUIT)
        app.process.wait(DEADLINE_S)
