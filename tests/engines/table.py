"""The table of docs/engines.md: what the suite has seen of each engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "engines.md"
BEGIN: Final = "<!-- made by `make engines` -->\n"
END: Final = "<!-- end of what it made -->\n"
ROWS: Final = {
    "test_killed_while_running": "a worker is killed, `kill -9`",
    "test_frozen_beyond_the_lease": "a worker is frozen for longer than the lease",
    "test_asked_to_end_while_working": "a worker gets SIGTERM",
    "test_cancelled": "a coroutine, a thread and a process are cancelled",
    "test_longer_than_every_timeout": "a job takes longer than every timeout of the engine",
    "test_message_is_lost": "a message is lost",
    "test_message_is_doubled": "a message comes four times",
    "test_backlog_is_no_flood": "10,000 jobs wait longer than `resend_s`, here 2 s",
    "test_all_connections_are_dropped": "all connections to the broker are cut, three times",
    "test_broker_is_down_at_accept": "the broker is down when a job is accepted",
    "test_accepting_process_dies_without_a_broker": "… and the process that accepted it is killed",
}
"""What each test is about, in the order of the table."""

Results = Mapping[tuple[str, str], str]
"""(test, engine) → what was seen."""


def table(results: Results, engines: list[str]) -> str:
    """As Markdown."""
    lines = [f"| | {' | '.join(engines)} |", f"|---|{'---|' * len(engines)}"]
    for test, label in ROWS.items():
        cells = (results.get((test, engine), "—") for engine in engines)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(results: Results, engines: list[str]) -> None:
    """Put it into the page; what was not run this time keeps what it had."""
    names = {label: test for test, label in ROWS.items()}
    known = {(names[label], e): cell for (label, e), cell in read().items() if label in names}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table({**known, **results}, engines)}\n{END}{after}")


def read() -> dict[tuple[str, str], str]:
    """What stands in the page: (label, engine) → cell."""
    made = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in made.splitlines()
        if line.startswith("|")
    ]
    if not rows:
        return {}
    head, _, *body = rows
    return {
        (row[0], engine): cell
        for row in body
        for engine, cell in zip(head[1:], row[1:], strict=True)
    }
