"""What it costs to have it: the time of an import, and what lands in the environment."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final, Self

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.measure import Finding, Row

ROUNDS: Final = 9
IMPORTS: Final = {
    "Headway": (("headway",), "from headway import Headway"),
    "Headway, the door to Quart": (("headway[quart]",), "from headway.quart import Headway"),
    "Quart alone": (("quart",), "from quart import Quart"),
    "redis.asyncio alone": (("redis",), "import redis.asyncio"),
    "docket": (("pydocket",), "from docket import Docket"),
    "taskiq + taskiq-redis": (("taskiq-redis",), "from taskiq_redis import RedisStreamBroker"),
    "Celery": (("celery[redis]",), "from celery import Celery"),
    "Celery, with what it loads later": (
        ("celery[redis]",),
        "from celery import Celery; import kombu.transport.redis, celery.backends.redis",
    ),
}
INSTALLS: Final = {
    "Headway": ("headway",),
    "Headway, with embedded Valkey and Quart": ("headway[embedded,quart]",),
    "docket": ("pydocket",),
    "taskiq + taskiq-redis": ("taskiq", "taskiq-redis"),
    "Celery with Redis": ("celery[redis]",),
}
ROOT: Final = Path(__file__).parents[1]
MIB: Final = 1024 * 1024


def measure() -> list[Finding]:
    """Imports in turns, then the sizes; nothing is asked of the network."""
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as folder:
        wheel = _wheel(Path(folder, "wheels"))
        ours = Path(folder, "ours")
        _pip("install", "--no-deps", "--no-index", "--target", str(ours), str(wheel))
        return [_imports(ours, Path(folder)), *_sizes(ours, wheel)]


def _wheel(folder: Path) -> Path:
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("headway-*.whl")
    return wheel


def _pip(*words: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    subprocess.run([sys.executable, "-m", "pip", *words, *quiet], check=True)


@dataclass(frozen=True)
class _Tree:
    """What is installed for something: itself, what it depends on, and what those depend on."""

    found: Mapping[str, Distribution]

    @classmethod
    def of(cls, wanted: Iterable[str], ours: Path) -> Self:
        """Of the extras those that are asked for, and no others. Headway is taken from *ours*."""
        found: dict[str, Distribution] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        left = [Requirement(one) for one in wanted]
        while left:
            asked = left.pop()
            name, extras = canonicalize_name(asked.name), frozenset(asked.extras)
            if (name, extras) in seen:
                continue
            seen.add((name, extras))
            found[name] = next(iter(distributions(name=name, path=[str(ours), *sys.path])))
            left += [
                one
                for one in map(Requirement, found[name].requires or ())
                if one.marker is None
                or any(one.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
            ]
        return cls(found)

    def sizes(self) -> dict[str, int]:
        """The bytes of each, bytecode included."""
        return {name: sum(map(_size, _files(one))) for name, one in self.found.items()}

    def alone(self, folder: Path) -> Path:
        """A folder in which nothing else can be imported."""
        folder.mkdir()
        for one in self.found.values():
            base = Path(str(one.locate_file("")))
            for name in {file.relative_to(base).parts[0] for file in _files(one)}:
                link = folder / name
                if not link.exists():  # several packages can share a namespace
                    link.symlink_to(base / name)
        return folder


def _files(found: Distribution) -> list[Path]:
    paths = [Path(str(found.locate_file(file))) for file in found.files or ()]
    return [path for path in paths if ".." not in path.parts]  # commands lie elsewhere


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


# ── imports ───────────────────────────────────────────────────────────────────────────────────


def _imports(ours: Path, folder: Path) -> Finding:
    commands = {"": ("pass", str(folder / "nothing"))}
    for name, (wanted, code) in IMPORTS.items():
        alone = _Tree.of(wanted, ours).alone(folder / str(len(commands)))
        commands[name] = (code, str(alone))
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(1 + ROUNDS):  # the first one leaves the bytecode behind
        for name, (code, path) in commands.items():
            taken[name].append(_seconds(code, path, folder / "bytecode") * 1000)
    bare = taken.pop("")[1:]
    return Finding(
        "import",
        "Import time",
        unit="ms",
        rows=[
            Row(
                name,
                statistics.median(times[1:]) - statistics.median(bare),
                f"at best {min(times[1:]) - min(bare):.0f}",
            )
            for name, times in taken.items()
        ],
        words=(
            f"New processes in turns, {ROUNDS} of each: the middle one, without what an "
            f"interpreter takes that imports nothing ({statistics.median(bare):.0f} ms). Each "
            "finds only what it depends on, and its bytecode. Headway, docket and taskiq-redis "
            "load the asyncio client of Redis with it; Celery loads its own later."
        ),
    )


def _seconds(code: str, path: str, bytecode: Path) -> float:
    env = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(bytecode)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code], env=env, check=True, cwd=bytecode.parent)
    return time.perf_counter() - began


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────


def _sizes(ours: Path, wheel: Path) -> list[Finding]:
    sizes = {name: _Tree.of(wanted, ours).sizes() for name, wanted in INSTALLS.items()}
    with zipfile.ZipFile(wheel) as opened:
        inside = f"{len(opened.namelist())} files"
    return [
        Finding(
            "installed",
            "Installed size",
            unit="MiB",
            rows=[Row(name, sum(one.values()) / MIB, _largest(one)) for name, one in sizes.items()],
            words=(
                "All that an empty environment gets, dependencies and bytecode included, in the "
                "versions of this run. All but the second row need a Redis or Valkey besides."
            ),
        ),
        Finding(
            "packages",
            "Installed packages",
            unit="packages",
            rows=[Row(name, len(one)) for name, one in sizes.items()],
            words="It and all that it depends on.",
        ),
        Finding(
            "wheel",
            "Headway without what it depends on",
            unit="KiB",
            better=None,
            rows=[
                Row("the wheel", wheel.stat().st_size / 1024, inside),
                Row("installed, with bytecode", sizes["Headway"]["headway"] / 1024),
            ],
        ),
    ]


def _largest(sizes: Mapping[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return "of it " + ", ".join(f"{name} {sizes[name] / MIB:.1f}" for name in largest)
