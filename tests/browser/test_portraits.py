"""The element looks as in its portraits: in light and dark, right to left, in forced colours."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.browser.conftest import Browse
from tests.browser.portrait import HAS_FONT, MODES, VIEWPORT, Portrait, differences, sit
from tests.browser.states import Gallery

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("gallery"),
]

WRONG: Final = {
    "a state of another colour": ("light", ".stalled { --_color: #2f62d9 }", "stalled: bar"),
    "a state without its hatch": (
        "dark",
        ".stalled #fill { background-image: none !important }",
        "stalled: bar",
    ),
    "an icon that is missing": ("light", "#shape { d: none }", "queued: icon"),
    "a fill from the wrong side": ("rtl", ":host(:dir(rtl)) { --_dir: 1 }", "running: fill"),
    "a ring from the wrong side": ("light", ".ring #bar { scale: -1 1 }", "ring running: bar"),
    "no border in forced colours": ("forced", "#bar { border: 0 !important }", "running: bar"),
    "a border that is not seen": ("forced", "#bar { border-color: Canvas }", "running: bar"),
    "a faint text": ("dark", "#note { color: #555 }", "ring failed: base"),
}
"""What is wrong → in which mode, by which style, what has to be said of it."""


async def portrait(browse: Browse, gallery: Gallery, mode: str, style: str = "") -> Portrait:
    options, attributes = MODES[mode]
    page = await browse(viewport=VIEWPORT, **options)
    if not await page.evaluate(HAS_FONT):
        pytest.skip("the portraits are written in DejaVu Sans, which is not on this machine")
    return await sit(page, gallery, attributes, style)


@pytest.mark.parametrize("mode", MODES)
async def test_element_looks_as_in_its_portrait(
    gallery: Gallery, browse: Browse, tmp_path: Path, mode: str
) -> None:
    """Each state and variant has its colours and its place."""
    seen = await portrait(browse, gallery, mode)
    found = differences(seen, Portrait.load(mode))

    assert not found, "\n".join(
        [
            *found,
            f"It looks like {seen.save(tmp_path, mode)}",
            "If that is meant: python -m tests.browser.portrait",
        ]
    )


@pytest.mark.parametrize("wrong", WRONG)
async def test_portrait_shows_what_is_wrong(gallery: Gallery, browse: Browse, wrong: str) -> None:
    """An element that looks otherwise is not taken for the one in the portrait."""
    mode, style, said = WRONG[wrong]

    seen = await portrait(browse, gallery, mode, style)

    assert any(one.startswith(said) for one in differences(seen, Portrait.load(mode)))
