"""The samples of the docs: every fenced block of the README and of the pages, and how it is run.

A comment before a block says how: `<!-- sample: WAY ARGUMENTS -->`; see `tests/test_samples.py` for
the ways. Without one, a block of Python is a program by itself, and any other is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sybil import Document
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_BLOCKS: Final = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))
_COMMENTS: Final = DirectiveInHTMLCommentLexer("sample")


class Sample(NamedTuple):
    """One block."""

    page: Path
    line: int
    info: str
    code: str
    said: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def way(self) -> str:
        """How it is run; "" if nothing says so."""
        if self.said:
            return self.said.split()[0]
        return "program" if self.language == "python" else ""

    @property
    def arguments(self) -> list[str]:
        return self.said.split()[1:]

    @property
    def commands(self) -> list[str]:
        """Of a console: what stands behind the prompts, comments included."""
        return [line.removeprefix("$ ") for line in self.code.splitlines() if line[:2] == "$ "]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def samples_of(page: Path) -> Iterator[Sample]:
    """All blocks of a page, in their order."""
    document = Document.parse(str(page), _BLOCKS, _COMMENTS)
    said, until = "", 0
    for example in document.examples():
        found = example.region.lexemes or {}
        if "info" not in found:
            said, until = found["arguments"].strip(), example.region.end
            continue
        beside = not document.text[until : example.region.start].strip(" \n->")
        yield Sample(
            page, example.line, found["info"], str(found["source"]), said if beside else ""
        )
        said = ""


SAMPLES: Final = [sample for page in PAGES for sample in samples_of(page)]
