"""Rows: a CSV file of orders is written, then read, checked and imported into SQLite.

Ordinary blocking code with a loop over its rows; Headway runs it in a thread.
"""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from random import Random
from typing import Final

from headway import JobError, Progress
from headway.demo.shelf import Facts, Folder, Outcome

__all__ = ["import_broken", "import_orders"]

FIELDS: Final = ("order_id", "ordered_on", "customer", "product", "amount")
BATCH_ROWS: Final = 200  # each batch is a transaction, safe on disk before the next begins
BROKEN_AT: Final = 0.6
FIRST_DAY: Final = date(2021, 1, 1)
DAYS: Final = 1_460
_NAMES: Final = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Radia", "Ken", "Frances")
_GOODS: Final = ("Kettle", "Lamp", "Notebook", "Bicycle bell", "Rope, 10 m", "Desk", "Compass")
_TABLE: Final = """
CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY, ordered_on TEXT, customer TEXT, product TEXT, cents INTEGER
)
"""

Order = tuple[int, str, str, str, int]


def import_orders(progress: Progress, folder: Folder, rows: int) -> Outcome:
    """Write *rows* orders as CSV and import them into a database to download."""
    source, target = folder / "orders.csv", folder / "orders.sqlite"
    progress.note("Writing the CSV file")
    _write_csv(source, rows)
    with closing(sqlite3.connect(target)) as db:
        _load(progress, source, db, rows)
        progress.note("Building the index")
        db.execute("CREATE INDEX by_customer ON orders (customer, ordered_on)")
        count, cents = db.execute("SELECT count(*), sum(cents) FROM orders").fetchone()
    source.unlink()
    link = folder.link(target.name)
    facts: Facts = {"rows": count, "turnover": f"{Decimal(cents) / 100:,.2f}"}
    return Outcome(facts=facts, url=link["url"], files=[link])


def import_broken(progress: Progress, folder: Folder, rows: int) -> Outcome:
    """As `import_orders`, from a file in which one row lost a field."""
    source = folder / "orders.csv"
    _write_csv(source, rows, broken_row=int(rows * BROKEN_AT) + 12)
    with closing(sqlite3.connect(folder / "orders.sqlite")) as db:
        _load(progress, source, db, rows)
    return Outcome(facts={"rows": rows})


def _write_csv(path: Path, rows: int, *, broken_row: int | None = None) -> None:
    random = Random(rows)  # noqa: S311  # the same file every time
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for number in range(1, rows + 1):
            row = _order(number, random)
            writer.writerow(row[:-1] if number == broken_row else row)


def _order(number: int, random: Random) -> tuple[str, ...]:
    day = FIRST_DAY + timedelta(days=int(random.random() * DAYS))
    customer = f"{random.choice(_NAMES)} {random.choice('ABCDEFGHKLMNPRSTVW')}."
    amount = f"{random.uniform(2, 900):.2f}"
    return str(number), day.isoformat(), customer, random.choice(_GOODS), amount


def _load(progress: Progress, source: Path, db: sqlite3.Connection, rows: int) -> None:
    db.execute("PRAGMA synchronous = FULL")
    db.execute(_TABLE)
    batch: list[Order] = []
    with source.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        next(lines)
        for number, row in enumerate(progress.track(lines, total=rows, unit="row"), start=1):
            batch.append(_checked(number, row))
            if len(batch) == BATCH_ROWS or number == rows:
                progress.note(f"Order of {row[2]}")
                _store(db, batch)


def _store(db: sqlite3.Connection, batch: list[Order]) -> None:
    with db:
        db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", batch)
    batch.clear()


def _checked(number: int, row: list[str]) -> Order:
    if len(row) != len(FIELDS):
        raise JobError(
            f"Row {number:,} has {len(row)} fields instead of {len(FIELDS)}", code="bad_row"
        )
    order_id, ordered_on, customer, product, amount = row
    try:
        date.fromisoformat(ordered_on)
        cents = int(Decimal(amount) * 100)
        return int(order_id), ordered_on, customer, product, cents
    except (ValueError, InvalidOperation) as error:
        raise JobError(f"Row {number:,} cannot be read: {error}", code="bad_row") from error
