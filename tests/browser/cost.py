"""What the element costs: `python -m tests.browser.cost` writes the figures of docs/element.md.

A hundred bars on one page, two for each of fifty jobs, whose states come ten times a second over
the page's one stream. Chromium traces its main thread; the processor time of its tasks is added up.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page, async_playwright

from headway import pages
from tests.browser.conftest import ARGS, NAMES
from tests.browser.serving import Site

SECONDS: Final = 5
DOCS: Final = Path(__file__).parents[2] / "docs" / "element.md"
BARS: Final = """async ({ jobs, bars, perSecond, variant }) => {
  const { JobWatcher } = await import("/jobs/static/headway.js");
  JobWatcher.fetch = (url, init) => fetch(`${url}&per_s=${perSecond}`, init);
  for (let n = 0; n < bars; n++) {
    const bar = document.createElement("headway-bar");
    bar.setAttribute("src", `/busy/${n % jobs}`);
    if (variant) bar.setAttribute("variant", variant);
    document.querySelector("main").append(bar);
  }
}"""


async def measure(page: Page, url: str, **options: Any) -> float:
    """Processor milliseconds of the main thread in one second."""
    await page.goto(f"{url}/bare?markup=")
    await page.evaluate(BARS, {"jobs": 50, "bars": 100, "perSecond": 10, "variant": "", **options})
    await page.wait_for_timeout(2_000)  # the beginning is not measured
    browser = page.context.browser
    assert browser is not None
    await browser.start_tracing(page=page, categories=["toplevel"])
    await page.wait_for_timeout(SECONDS * 1_000)
    return traced(json.loads(await browser.stop_tracing())["traceEvents"])


def traced(events: list[dict[str, Any]]) -> float:
    """What the tasks of the busiest renderer's main thread took, in a second."""
    mains = {
        (e["pid"], e["tid"])
        for e in events
        if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    busy: Counter[tuple[int, int]] = Counter()
    for event in events:
        key = (event["pid"], event["tid"])
        if key in mains and event["name"].endswith("RunTask"):
            busy[key] += event.get("tdur", 0)
    return max(busy.values()) / 1e3 / SECONDS


SIZES: Final = {
    "headway.js": "every page: the bar and its connection",
    "details.js": "stages and log",
    "jobs.js": "`<headway-jobs>`",
    "outside.js": "title, icon, notification",
    "variants.js": "in a line, as a ring",
    "overview.js": "the operators' page",
    "headway.css": "Headway's own pages",
    "overview.css": "what operators see",
}
SCENES: Final[dict[str, dict[str, Any]]] = {
    "100 bars, each 10 updates a second": {},
    "100 rings, each 10 updates a second": {"variant": "ring"},
    "100 bars, without news": {"perSecond": 0.001},
    "1 bar, 10 updates a second": {"jobs": 1, "bars": 1},
}


def sizes() -> str:
    """What each file weighs."""
    rows = []
    for name, what in SIZES.items():
        file = pages.static(name)
        assert file is not None
        rows.append(f"| `{name}` | {len(file.data):,} | {len(file.zipped):,} | {what} |")
    return "\n".join(["| file | bytes | as gzip | for |", "|---|---|---|---|", *rows])


async def costs() -> str:
    """What each scene takes."""
    path = next(filter(None, map(shutil.which, NAMES)))
    rows = []
    with Site(Path(tempfile.mkdtemp())) as site:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=path, args=ARGS)
            for scene, options in SCENES.items():
                page = await browser.new_page()
                rows.append(f"| {scene} | {await measure(page, site.url, **options):.0f} |")
                await page.close()
            await browser.close()
    return "\n".join(["| on the page | ms in a second |", "|---|---|", *rows])


def write(name: str, table: str) -> None:
    """Put it between its marks in the docs."""
    print(table)
    before, rest = DOCS.read_text().split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- /{name} -->")
    DOCS.write_text(f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}")


async def main() -> None:
    """Measure all; or with `sizes`, the sizes only."""
    write("sizes", sizes())
    if sys.argv[1:] != ["sizes"]:
        write("costs", await costs())


if __name__ == "__main__":
    asyncio.run(main())
