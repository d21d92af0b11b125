"""Plots as pictures for the docs: the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "headway", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402 - it asks for what is set above

from bench.measure import Plot, exponent  # noqa: E402

__all__ = ["draw"]

WIDTH_IN = 8.0
HEIGHT_IN = 3.2


def draw(plot: Plot, path: Path) -> None:
    """Draw it into the SVG file *path*."""
    figure, axes = plt.subplots(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    for name, points in plot.lines.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o", label=f"{name}: power {exponent(points):.2f}")
    axes.set(xscale="log", yscale="log", xlabel=plot.x, ylabel=plot.y, title=plot.title)
    axes.set_ylim(bottom=min(y for line in plot.lines.values() for _, y in line) / 3)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": "Headway"})
    plt.close(figure)
