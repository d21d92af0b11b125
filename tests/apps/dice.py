"""Dice that always fall alike, for programs whose steps take a random time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CODE: Final = "import os, random\nrandom.random = lambda: float(os.environ['DICE'])\n"


def loaded(folder: Path, seconds: float) -> dict[str, str]:
    """The environment of a Python for which each `random.random()` is *seconds*.

    Args:
        folder: what it needs is put there.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CODE)
    return {"DICE": str(seconds), "PYTHONPATH": str(folder)}
