"""Everything that can be captured, shown on a terminal: `python -m tests.apps.bars URL [names…]`.

The bars show no times, and show every step, so that two runs of it write the same.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from headway import Headway

COUNT = "{desc}|{bar}| {n_fmt}/{total_fmt} {unit}{postfix}"
BARS: dict[str, Any] = {"ncols": 60, "bar_format": COUNT, "mininterval": 0, "miniters": 1}


def with_tqdm() -> None:
    for epoch in tqdm(range(2), desc="Epoch", **BARS):
        inner = tqdm(total=3, desc="Batch", leave=False, unit="row", **BARS)
        for loss in range(3):
            inner.update()
            inner.set_postfix(loss=loss)
        inner.reset(total=2)
        inner.update(2)
        inner.close()
        tqdm.write(f"epoch {epoch} is over")
    for number in tqdm(range(9), desc="Left early", **BARS):
        if number == 4:
            break
    for _ in tqdm(range(3), desc="Off", disable=True):
        pass
    dropped = tqdm(total=2, desc="Dropped", **BARS)
    dropped.update()
    del dropped
    thread_map(str, range(3), max_workers=1, desc="Pool", **BARS)
    tqdm.pandas(desc="Rows", **BARS)
    pd.Series([1, 2, 3]).progress_apply(str)  # type: ignore[operator]


def with_rich() -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"))
    console = Console(force_terminal=True, width=60)
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        first = progress.add_task("[red]First[/]", total=3)
        second = progress.add_task("Second", total=50)
        for _ in progress.track(range(3), description="Third"):
            progress.advance(first)
            progress.update(second, advance=2, refresh=True)
        progress.reset(first, total=5)
        progress.remove_task(second)


def with_logging() -> None:
    logging.getLogger("headway").setLevel(
        logging.WARNING
    )  # it names the job, which has no fixed id
    logging.getLogger("a.library").warning("nobody has set logging up")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(message)s")
    logging.getLogger("a.library").info("now somebody has")


async def main(url: str, *names: str) -> None:
    headway = Headway(url, prefix=f"bars{len(names)}", secret="the secret of a test")

    @headway.task(capture=names)
    def shown() -> None:
        with_tqdm()
        with_rich()
        with_logging()

    async with headway:
        job = await shown.using(owner="ann").start()
        async for now in headway.watch(job.id):
            job = now
    print(job.state, len(job.progress.stages) > 0, end="", file=sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
