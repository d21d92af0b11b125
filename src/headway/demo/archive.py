"""An archive: a folder of files of all sizes is written, hashed and packed, in three stages."""

from __future__ import annotations

import shutil
import tarfile
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final

from headway import Progress
from headway.demo.shelf import Facts, Folder, Outcome

__all__ = ["pack_folder"]

SMALLEST_BYTES: Final = 2_000
BIGGEST_BYTES: Final = 420_000
LEVEL: Final = 9
_KINDS: Final = (("notes", "txt"), ("scans", "raw"), ("logs", "log"))
_WORDS: Final = (
    *("harbour", "lantern", "ledger", "meadow", "copper", "signal", "winter", "orchard"),
    *("granite", "ribbon", "compass", "thunder", "velvet", "beacon", "cinder", "island"),
)


def pack_folder(progress: Progress, folder: Folder, files: int) -> Outcome:
    """Write *files* files, hash each, and pack them into an archive to download."""
    source = folder / "folder"
    progress.set(total=10)  # the sum of the weights: without it nobody knows how many will come
    with progress.stage("Generate", weight=2):
        _generate(progress, source, files)
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    with progress.stage("Hash", weight=1):
        sums = _hash(progress, source, paths)
    with progress.stage("Pack", weight=7):
        _pack(progress, source, paths, folder / "folder.tar.gz")
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    packed, checked = folder.link("folder.tar.gz"), folder.link("SHA256SUMS")
    size = sum(path.stat().st_size for path in paths)
    shutil.rmtree(source)
    facts: Facts = {"files": len(paths), "packed to": f"{packed['bytes'] / size:.0%}"}
    return Outcome(facts=facts, url=packed["url"], files=[packed, checked])


def _generate(progress: Progress, source: Path, files: int) -> None:
    random = Random(files)  # noqa: S311  # the same folder every time
    for number in progress.track(range(files), unit="file"):
        kind, ending = _KINDS[number % len(_KINDS)]
        path = source / kind / f"{random.choice(_WORDS)}-{number:03}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = int(SMALLEST_BYTES + (BIGGEST_BYTES - SMALLEST_BYTES) * random.random() ** 2)
        progress.note(f"Writing {kind}/{path.name}")
        path.write_bytes(random.randbytes(size) if kind == "scans" else _text(size, random))


def _text(size: int, random: Random) -> bytes:
    words = " ".join(random.choices(_WORDS, k=size // 8 + 1))
    return f"{words}\n".encode()


def _hash(progress: Progress, source: Path, paths: list[Path]) -> str:
    lines = []
    for path in progress.track(paths, unit="file"):
        name = path.relative_to(source).as_posix()
        progress.note(f"Hashing {name}")
        lines.append(f"{sha256(path.read_bytes()).hexdigest()}  {name}\n")
    return "".join(lines)


def _pack(progress: Progress, source: Path, paths: list[Path], target: Path) -> None:
    with tarfile.open(target, "w:gz", compresslevel=LEVEL) as archive:
        for path in progress.track(paths, unit="file"):
            name = path.relative_to(source).as_posix()
            progress.note(f"Packing {name}")
            archive.add(path, arcname=name)
