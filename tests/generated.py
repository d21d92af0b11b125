"""What of the docs is made from the code. `python -m tests.generated` writes it anew."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Final

from headway.limits import Limits
from headway.openapi import openapi
from headway.problems import PROBLEMS
from tests import packaged

DOCS: Final = Path(__file__).parent.parent / "docs"


def problems() -> str:
    """All problem documents, by their status."""
    rows = [
        f"| {known.status} | `{code}` | {_said(known.title, known.detail)} "
        f"| {', '.join(f'`{name}`' for name in known.more)} |"
        for code, known in sorted(PROBLEMS.items(), key=lambda one: one[1].status)
    ]
    return "\n".join(["| status | code | what it says | more |", "|---|---|---|---|", *rows])


def _said(title: str, detail: str | None) -> str:
    end = "" if title.endswith((".", "…")) else "."
    return f"{title}{end} {detail}" if detail else f"{title}{end}"


def limits() -> str:
    """All limits, with what they are if nothing is said."""
    text = inspect.cleandoc(Limits.__doc__ or "").partition("Args:\n")[2]
    meanings = dict(
        re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    rows = [
        f"| `{field.name}` | {field.default:,} | {' '.join(meanings[field.name].split())} |"
        for field in fields(Limits)
    ]
    return "\n".join(["| limit | default | of |", "|---|---|---|", *rows])


def integrity() -> str:
    """The hash of the script as it is served."""
    return f"`{packaged.integrity()}`"


def described() -> str:
    """The OpenAPI document."""
    return json.dumps(openapi("/jobs"), indent=1, ensure_ascii=False) + "\n"


TABLES: Final = {
    ("http.md", "problems"): problems,
    ("http.md", "limits"): limits,
    ("frameworks.md", "integrity"): integrity,
}


def table(page: str, name: str) -> str:
    """The table as the docs have it."""
    begin, end = _marks(name)
    return (DOCS / page).read_text().partition(begin)[2].partition(end)[0]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by python -m tests.generated -->\n", f"\n<!-- /{name} -->"


def write() -> None:
    """Write the docs anew."""
    for (page, name), make in TABLES.items():
        begin, end = _marks(name)
        before, _, rest = (DOCS / page).read_text().partition(begin)
        after = rest.partition(end)[2]
        (DOCS / page).write_text(f"{before}{begin}{make()}{end}{after}")
    (DOCS / "openapi.json").write_text(described())
    packaged.write()


if __name__ == "__main__":
    write()
