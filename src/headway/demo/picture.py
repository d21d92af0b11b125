"""A picture: a corner of the Mandelbrot set, computed point by point and written as PNG.

Nothing but arithmetic in plain Python, so this is the one that is worth cancelling.
"""

from __future__ import annotations

import math
import struct
import zlib
from itertools import pairwise
from typing import BinaryIO, Final

from headway import Progress
from headway.demo.shelf import Facts, Folder, Outcome

__all__ = ["render"]

CENTRE: Final = complex(-0.743, 0.1295)
SPAN: Final = 0.012  # width of the picture in the plane
LIMIT: Final = 400  # steps after which a point counts as inside
ESCAPE: Final = 64.0  # squared; far beyond the 4 that would do, for smooth shades
SHADES: Final = 1_024
_STOPS: Final = (
    (0.00, (14, 20, 54)),
    (0.16, (38, 70, 160)),
    (0.38, (108, 178, 235)),
    (0.52, (250, 246, 228)),
    (0.68, (250, 178, 82)),
    (0.84, (146, 46, 88)),
    (1.00, (14, 20, 54)),
)


def render(progress: Progress, folder: Folder, width: int, height: int) -> Outcome:
    """Compute a picture of *width* by *height* points, row by row."""
    name = "mandelbrot.png"
    palette = _palette()
    with (folder / name).open("wb") as file:
        png = _Png(file, width, height)
        steps = 0
        for y in progress.track(range(height), unit="row"):
            row, taken = _row(y, width, height, palette)
            png.add(row)
            steps += taken
            progress.note(f"{steps / 1e6:.1f} million steps")
        png.close()
    link = folder.link(name)
    facts: Facts = {"points": width * height, "million steps": round(steps / 1e6, 1)}
    return Outcome(facts=facts, url=link["url"], files=[link], picture=link["url"])


def _row(y: int, width: int, height: int, palette: list[bytes]) -> tuple[bytes, int]:
    step = SPAN / width
    imaginary = CENTRE.imag + (height / 2 - y) * step
    row, taken = bytearray(), 0
    for x in range(width):
        c = complex(CENTRE.real + (x - width / 2) * step, imaginary)
        z, n = 0j, 0
        while n < LIMIT and z.real * z.real + z.imag * z.imag <= ESCAPE:
            z = z * z + c
            n += 1
        row += palette[_shade(n, abs(z))]
        taken += n
    return bytes(row), taken


def _shade(n: int, size: float) -> int:
    """Where in the palette; the last place is for the inside.

    Source: the normalised iteration count, n + 1 - log2(log |z|).
    """
    if n >= LIMIT:
        return SHADES
    smooth = n + 1 - math.log2(math.log(size))
    return int(math.log(max(smooth, 1.0)) * 0.62 * SHADES) % SHADES


def _palette() -> list[bytes]:
    shades = [_mixed(i / SHADES) for i in range(SHADES)]
    return [*shades, bytes((10, 12, 28))]


def _mixed(at: float) -> bytes:
    for (start, low), (end, high) in pairwise(_STOPS):
        if at <= end:
            part = (at - start) / (end - start)
            part = part * part * (3 - 2 * part)
            return bytes(round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return bytes(_STOPS[-1][1])


class _Png:
    """Writes an RGB picture row by row. Source: PNG specification, sections 5 and 11."""

    def __init__(self, file: BinaryIO, width: int, height: int) -> None:
        self._file = file
        self._packer = zlib.compressobj(9)
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    def add(self, row: bytes) -> None:
        self._data(self._packer.compress(b"\x00" + row))

    def close(self) -> None:
        self._data(self._packer.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        check = zlib.crc32(kind + data)
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))
