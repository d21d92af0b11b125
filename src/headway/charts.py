"""Small charts, as SVG that is drawn here: numbers in, text out. Pure.

Colours are classes, for a strict policy lets no style stand in a page; without the stylesheet
everything is drawn in the colour of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

__all__ = ["HEIGHT", "Column", "columns", "meter"]

HEIGHT: Final = 48.0
WIDTH: Final = 300.0
GAP: Final = 0.2  # of a column's place
LEAST: Final = 2.0  # so high is what is not nothing: one failure among thousands is seen


class Column(NamedTuple):
    """One column: its parts, from the ground up, and what it says when it is pointed at."""

    parts: tuple[float, ...]
    words: str


def columns(
    name: str, shown: Sequence[Column], kinds: Sequence[str], *, title: str, text: str
) -> str:
    """Columns of stacked parts, as high as the chart where they are highest.

    Args:
        name: of the chart in its page: unique there, and a word.
        kinds: the class of each part.
        title: what is shown.
        text: the same in words, for those who do not see it.
    """
    top = max((sum(one.parts) for one in shown), default=0) or 1.0
    place = WIDTH / max(len(shown), 1)
    drawn = "".join(
        f"<g><title>{escape(one.words)}</title>"
        f'<rect class="air" x="{_n(n * place)}" y="0" width="{_n(place)}" height="{_n(HEIGHT)}" '
        f'fill="none" pointer-events="all"/>{_stack(one, kinds, n * place, place, top)}</g>'
        for n, one in enumerate(shown)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_n(WIDTH)} {_n(HEIGHT)}" preserveAspectRatio="none" '
        f'role="img" aria-labelledby="{name}-title {name}-text" fill="currentColor">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(text)}</desc>{drawn}'
        f'<rect class="ground" y="{_n(HEIGHT - 1)}" width="{_n(WIDTH)}" height="1"/></svg>'
    )


def _stack(column: Column, kinds: Sequence[str], left: float, place: float, top: float) -> str:
    drawn, ground = [], HEIGHT
    for kind, part in zip(kinds, column.parts, strict=True):
        if part <= 0:
            continue
        height = min(max(part / top * HEIGHT, LEAST), ground)
        ground -= height
        drawn.append(
            f'<rect class="{kind}" x="{_n(left + place * GAP / 2)}" y="{_n(ground)}" '
            f'width="{_n(place * (1 - GAP))}" height="{_n(height)}"/>'
        )
    return "".join(drawn)


def meter(ratio: float, kind: str) -> str:
    """How far something is, as a small bar. What it says stands beside it, as text.

    Args:
        ratio: 0 to 1.
        kind: its class.
    """
    return (
        '<svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" '
        'fill="currentColor"><rect class="track" width="100" height="8" fill-opacity="0.15"/>'
        f'<rect class="{kind}" width="{_n(100 * min(max(ratio, 0.0), 1.0))}" height="8"/></svg>'
    )


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
