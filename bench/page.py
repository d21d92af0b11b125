"""The page: what was found, as tables of ratios, budgets first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path

import msgspec

from bench.measure import TIE, Finding, Row, exponent

__all__ = ["Run", "changes", "page"]


OPENING = (
    "`make bench` has written this page: Headway, and what you might pick instead, in one run on "
    "one machine and one store. Trust the ratios, not the absolute figures: those are of a shared "
    "machine. Contenders take turns, and of several turns the middle one counts."
)


class Run(msgspec.Struct):
    """One whole run: where, of what versions, and what was found."""

    machine: str
    versions: dict[str, str]
    seconds: float
    findings: list[Finding]


def page(run: Run, pictures: Path, changed: Sequence[str] | None) -> str:
    """The page in Markdown.

    Args:
        pictures: the folder of the plots, relative to the page.
        changed: what `changes()` says of the run before; None if there was none.
    """
    return "\n".join(
        [
            "# Benchmarks",
            "",
            OPENING,
            "",
            f"Machine: {run.machine}. The run took {run.seconds:.0f} s.",
            "",
            ", ".join(f"{name} {version}" for name, version in run.versions.items()) + ".",
            "",
            _repeated(changed),
            "",
            "## Budgets",
            "",
            *_budgets(run.findings),
            *(line for finding in run.findings for line in _section(finding, pictures)),
        ]
    )


def _repeated(changed: Sequence[str] | None) -> str:
    if changed is None:
        return "No run before it is known here."
    if not changed:
        return "The run before it gave the same ranking everywhere."
    return "Beside the run before it, these have changed their rank: " + "; ".join(changed) + "."


def _budgets(findings: Iterable[Finding]) -> Iterable[str]:
    yield "| promised | measured | |"
    yield "|---|---|---|"
    for finding in findings:
        for budget in finding.budgets:
            verdict = "holds" if budget.holds else f"**does not hold.** {budget.why}".strip()
            yield f"| {budget.promised} | [{budget.measured}](#{finding.slug}) | {verdict} |"
    yield ""


def _section(finding: Finding, pictures: Path) -> Iterable[str]:
    yield f"## {finding.title} {{#{finding.slug}}}"
    yield ""
    if finding.words:
        yield finding.words
        yield ""
    if finding.rows:
        yield from _table(finding)
    if finding.plot is not None:
        powers = "; ".join(f"{n}: {exponent(p):.2f}" for n, p in finding.plot.lines.items())
        yield f"![{finding.plot.title}]({pictures / finding.slug}.svg)"
        yield ""
        yield f"It grows with the size to the power of: {powers}. {finding.plot.words}".strip()
        yield ""


def _table(finding: Finding) -> Iterable[str]:
    base = next((row.value for row in finding.rows if row.name == finding.base), 0.0)
    yield f"| | {finding.unit} | × {finding.base} | |"
    yield "|---|---:|---:|---|"
    for row in _ordered(finding):
        ratio = f"{row.value / base:.3g}" if base else ""
        yield f"| {row.name} | {_number(row.value)} | {ratio} | {row.note} |"
    yield ""


def _ordered(finding: Finding) -> list[Row]:
    if finding.better is None:
        return finding.rows
    return sorted(finding.rows, key=lambda row: row.value, reverse=finding.better == "more")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def changes(before: Run, after: Run) -> list[str]:
    """Which contenders have swapped ranks; what was close in either run does not count."""
    old = {finding.slug: finding for finding in before.findings}
    return [
        f"{finding.title}: {one} and {other}"
        for finding in after.findings
        if finding.slug in old
        for one, other in _swapped(old[finding.slug], finding)
    ]


def _swapped(old: Finding, new: Finding) -> Iterable[tuple[str, str]]:
    if new.better is None:
        return
    was, now = ({row.name: row.value for row in finding.rows} for finding in (old, new))
    for one, other in permutations(sorted(was.keys() & now.keys()), 2):
        if was[one] > TIE * was[other] and now[other] > TIE * now[one]:
            yield one, other
