"""The samples of docs/doors.md are whole apps, and can be imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "doors.md"


def test_the_samples_of_the_doors_run(tmp_path: Path) -> None:
    """Each block of Python on the page is a module of its own, without an error or a warning."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = [f"sample{number}" for number in range(len(blocks))]
    for name, block in zip(names, blocks, strict=True):
        (tmp_path / f"{name}.py").write_text(block)

    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {', '.join(names)}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert len(blocks) >= 6
    assert (told.returncode, told.stderr) == (0, "")
