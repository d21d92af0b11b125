"""The kinds of work that the demo offers: each a task, and the card that starts it.

The work itself is ordinary code in files of its own, which could run without any of this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from headway import Job, Progress
from headway.app import Headway
from headway.demo import archive, picture, primes, rows, transfer
from headway.demo.shelf import Outcome, Shelf

__all__ = ["FULL", "Kind", "Sizes", "register"]

KEY: Final = "one at a time"  # for each visitor and kind: a double click starts one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much work each kind does."""

    rows: int = 100_000
    files: int = 300
    width: int = 720
    height: int = 450
    pairs: int = 1_000
    broken_rows: int = 60_000
    megabytes: int = 80


FULL: Final = Sizes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A card of the page.

    Args:
        start: starts it for the current visitor.
    """

    name: str
    title: str
    text: str
    tags: tuple[str, ...]
    start: Callable[[], Awaitable[Job]]


def register(headway: Headway, shelf: Shelf, sizes: Sizes) -> dict[str, Kind]:
    """Make tasks of the work; returns the kinds by name, in the page's order."""
    makers = (_rows, _archive, _picture, _primes, _transfer, _broken)
    kinds = [make(headway, shelf, sizes) for make in makers]
    return {kind.name: kind for kind in kinds}


def _rows(headway: Headway, shelf: Shelf, sizes: Sizes) -> Kind:
    @headway.task(on_lost="retry")
    def import_orders(progress: Progress, count: int) -> Outcome:
        with shelf.folder(progress.job_id) as folder:
            return rows.import_orders(progress, folder, count)

    title = f"Import {sizes.rows:,} rows"
    return Kind(
        name="rows",
        title=title,
        text="Writes a CSV file of orders, checks every row and imports it into SQLite.",
        tags=("thread", "rows"),
        start=lambda: import_orders.using(key=KEY, title=title).start(sizes.rows),
    )


def _archive(headway: Headway, shelf: Shelf, sizes: Sizes) -> Kind:
    @headway.task(on_lost="retry")
    def pack_folder(progress: Progress, count: int) -> Outcome:
        with shelf.folder(progress.job_id) as folder:
            return archive.pack_folder(progress, folder, count)

    title = "Compress a folder"
    return Kind(
        name="archive",
        title=title,
        text=f"Generates {sizes.files:,} files, hashes each one and packs them all.",
        tags=("thread", "three stages"),
        start=lambda: pack_folder.using(key=KEY, title=title).start(sizes.files),
    )


def _picture(headway: Headway, shelf: Shelf, sizes: Sizes) -> Kind:
    @headway.task(on_lost="retry")
    def render_picture(progress: Progress, width: int, height: int) -> Outcome:
        with shelf.folder(progress.job_id) as folder:
            return picture.render(progress, folder, width, height)

    title = "Render a picture"
    return Kind(
        name="picture",
        title=title,
        text="Computes a corner of the Mandelbrot set, point by point. Slow enough to cancel.",
        tags=("thread", "all arithmetic"),
        start=lambda: render_picture.using(key=KEY, title=title).start(sizes.width, sizes.height),
    )


def _primes(headway: Headway, shelf: Shelf, sizes: Sizes) -> Kind:
    @headway.task(on_lost="retry")
    def find_twins(progress: Progress, pairs: int) -> Outcome:
        return primes.find_twins(progress, pairs)

    title = "Look for primes"
    return Kind(
        name="primes",
        title=title,
        text="Searches 25-digit numbers for twin primes. Nobody knows where the next pair is.",
        tags=("thread", "no total"),
        start=lambda: find_twins.using(key=KEY, title=title).start(sizes.pairs),
    )


def _transfer(headway: Headway, shelf: Shelf, sizes: Sizes) -> Kind:
    @headway.task(on_lost="retry")
    async def send_file(progress: Progress, megabytes: int) -> Outcome:
        with shelf.folder(progress.job_id) as folder:
            return await transfer.send_file(progress, folder, megabytes)

    title = f"Send {sizes.megabytes} megabytes"
    return Kind(
        name="transfer",
        title=title,
        text="Streams a file over a TCP connection to a server that packs and checks it.",
        tags=("async def", "megabytes"),
        start=lambda: send_file.using(key=KEY, title=title).start(sizes.megabytes),
    )


def _broken(headway: Headway, shelf: Shelf, sizes: Sizes) -> Kind:
    @headway.task(on_lost="retry")
    def import_broken(progress: Progress, count: int) -> Outcome:
        with shelf.folder(progress.job_id) as folder:
            return rows.import_broken(progress, folder, count)

    title = "Import a broken file"
    return Kind(
        name="broken",
        title=title,
        text="One row of this file has lost a field. See how a failure is told.",
        tags=("thread", "fails"),
        start=lambda: import_broken.using(key=KEY, title=title).start(sizes.broken_rows),
    )
