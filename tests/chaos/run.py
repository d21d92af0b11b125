"""One chaos run: its report, and what is broken, if anything is."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.chaos.driver import Driver
from tests.chaos.evidence import Evidence
from tests.chaos.figures import figures
from tests.chaos.invariants import Broken, check
from tests.chaos.plan import Plan

STORIES_TOLD: Final = 5


def run(plan: Plan) -> tuple[Evidence, list[Broken]]:
    """Run a plan, print what came of it, and say what is broken."""
    folder = Path(tempfile.mkdtemp(prefix="headway-chaos-"))
    began_at = time.monotonic()
    print(f"chaos: {plan}", flush=True)
    evidence = asyncio.run(Driver(plan, folder).run())
    broken = check(evidence)
    print(*figures(evidence), sep="\n")
    print(f"{time.monotonic() - began_at:.0f} s, broken: {len(broken)}")
    told: set[str] = set()
    for one in broken:
        print(f"\nBROKEN: {one.rule}: {one.why}")
        if one.story and one.story.id not in told and len(told) < STORIES_TOLD:
            told.add(one.story.id)
            print(evidence.tell(one.story))
    if broken:
        print(f"\nseed {plan.seed}; everything of this run is in {folder}")
    else:
        shutil.rmtree(folder)
    return evidence, broken
