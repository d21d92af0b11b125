"""The shelf: where jobs put the files that visitors may fetch. Knows no visitor.

A folder for each job, in one temporary folder that ends with the app. What failed or was
cancelled leaves nothing behind, and of what succeeded only the newest folders are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from typing import Final, NotRequired, TypedDict

__all__ = ["Facts", "Folder", "Link", "Outcome", "Shelf"]

FILES: Final = "/files"
FOLDERS: Final = 12  # the biggest holds some 60 MB


Facts = dict[str, str | int | float]
"""What is worth telling of a piece of work, by name."""


class Link(TypedDict):
    """A file that can be fetched."""

    name: str
    url: str
    bytes: int


class Outcome(TypedDict):
    """What a task of the demo returns: what is worth telling, and the files it made."""

    facts: Facts
    url: NotRequired[str]
    files: NotRequired[list[Link]]
    picture: NotRequired[str]


class Folder:
    """The files of one job."""

    def __init__(self, job_id: str, path: Path) -> None:
        self.job_id = job_id
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def link(self, name: str) -> Link:
        """The file *name*, as it is now."""
        size = (self.path / name).stat().st_size
        return Link(name=name, url=f"{FILES}/{self.job_id}/{name}", bytes=size)


class Shelf:
    """All folders of one running app. Thread-safe."""

    def __init__(self) -> None:
        self.root: Path | None = None
        """The temporary folder, while it is open."""
        self._lock = Lock()
        self._done: list[str] = []

    def open(self) -> None:
        """Make the temporary folder."""
        self.root = Path(mkdtemp(prefix="headway-demo-"))

    def close(self) -> None:
        """Remove everything."""
        root, self.root = self.root, None
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)

    @contextmanager
    def folder(self, job_id: str | None) -> Iterator[Folder]:
        """An empty folder to work in. It stays if the work succeeds."""
        job_id = job_id or "none"
        path = self._path(job_id)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        try:
            yield Folder(job_id, path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self._keep(job_id)

    def find(self, job_id: str, name: str) -> Path | None:
        """The file's path, or None if it is no longer there. Trusts that the job has linked it."""
        path = self._path(job_id) / name
        return path if path.is_file() else None

    def _keep(self, job_id: str) -> None:
        with self._lock:
            self._done = [one for one in self._done if one != job_id] + [job_id]
            old, self._done = self._done[:-FOLDERS], self._done[-FOLDERS:]
        for one in old:
            shutil.rmtree(self._path(one), ignore_errors=True)

    def _path(self, job_id: str) -> Path:
        if self.root is None:
            raise RuntimeError("the shelf is not open: it opens and closes with the app")
        return self.root / job_id
