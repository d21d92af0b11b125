"""Charts: whatever the numbers and the words, a well-formed picture that stays in its frame."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from headway.charts import HEIGHT, LEAST, Column, columns, meter

SVG = "{http://www.w3.org/2000/svg}"
WORDS = st.text(st.characters(exclude_categories=["C"]), max_size=20)
PARTS = st.tuples(st.floats(0, 1e12), st.floats(0, 1e12))


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


@given(st.lists(st.builds(Column, PARTS, WORDS), max_size=40), WORDS, WORDS)
def test_columns_stand_on_the_ground_and_below_the_top(
    shown: list[Column], title: str, text: str
) -> None:
    """Parts are stacked without a gap, and what is not nothing can be seen."""
    drawing = parsed(columns("one", shown, ("a", "b"), title=title, text=text))

    assert drawing.findtext(f"{SVG}title") == title
    assert drawing.findtext(f"{SVG}desc") == text
    for column, group in zip(shown, drawing.findall(f"{SVG}g"), strict=True):
        assert group.findtext(f"{SVG}title") == column.words
        rects = [r for r in group.findall(f"{SVG}rect") if r.get("class") != "air"]
        assert len(rects) == sum(part > 0 for part in column.parts)
        ground = HEIGHT
        for rect in rects:
            y, height = float(rect.get("y", "")), float(rect.get("height", ""))
            assert y >= 0
            assert abs(y + height - ground) < 0.02
            ground = y


def test_highest_column_fills_the_chart_and_one_failure_is_seen() -> None:
    """Heights are shares of the highest column; one among thousands keeps a height."""
    drawing = parsed(
        columns("one", [Column((5_000, 1), ""), Column((2_500, 0), "")], "ab", title="", text="")
    )

    first, second = drawing.findall(f"{SVG}g")
    assert float(first.findall(f"{SVG}rect")[2].get("height", "")) >= 0
    assert float(second.findall(f"{SVG}rect")[1].get("height", "")) == round(
        2_500 / 5_001 * HEIGHT, 2
    )
    assert LEAST > 5_000 / HEIGHT / 5_000


@given(st.floats(-1, 2))
def test_meter_shows_a_share(ratio: float) -> None:
    """From nothing to all, and never beyond."""
    track, fill = parsed(meter(ratio, "running")).findall(f"{SVG}rect")

    assert 0 <= float(fill.get("width", "")) <= float(track.get("width", ""))


def test_nothing_in_a_chart_needs_a_style() -> None:
    """A strict policy drops styles that stand in the page, and says so in the console."""
    drawn = columns("one", [Column((1.0,), "x")], ("a",), title="t", text="d") + meter(0.5, "a")

    assert "style" not in drawn
    assert "currentColor" in drawn
