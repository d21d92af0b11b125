"""What the doctor finds, and what helps. `judge()` is pure: it is told when what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, NamedTuple

__all__ = ["BUFFERING", "Beat", "Finding", "Heard", "Level", "judge", "printed"]

Level = Literal["ok", "note", "wrong"]

LATE_S: Final = 1.0  # later than the answer to a plain request: somebody waits
JITTER_S: Final = 0.25  # of networks and busy machines
TOGETHER: Final = 0.25  # of the time in which they were sent

BUFFERING: Final = (
    "Let the proxy pass text/event-stream on at once. nginx: 'proxy_buffering off;' for this path, "
    "and no 'proxy_ignore_headers X-Accel-Buffering'. Apache: 'flushpackets=on'. A CDN, a firewall "
    "or a virus scanner: an exception for this path. Until then bars poll."
)
QUIET: Final = (
    "Let it wait for more than 15 seconds, the time between two heartbeats, better 60. nginx: "
    "'proxy_read_timeout 60s;'. Load balancers: the idle timeout."
)
OLD: Final = (
    "Bars come back by themselves, with a new request each time. To spare that: raise the longest "
    "time that a request may take, to 20 minutes; then Headway ends it first."
)
COMPRESSED: Final = (
    "Leave text/event-stream out of what is compressed (nginx: gzip_types): some compressors hold "
    "events back until a block is full."
)


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Level
    what: str
    said: str
    cure: str = ""


class Beat(NamedTuple):
    """A heartbeat: when it was sent, by the server's clock, and when it came, by ours. Seconds."""

    sent_at: float
    came_at: float


@dataclass
class Heard:
    """What came of a probe.

    Args:
        asked_at: when it was asked for, by our clock.
        end: what it came to: "end"; "bye"; "cut", before its end; "silence": given up by us.
        ended_at: when, by our clock.
    """

    asked_at: float
    beats: list[Beat] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    end: Literal["end", "bye", "cut", "silence"] = "silence"
    ended_at: float = 0.0


def judge(heard: Heard, *, seconds: float, every_s: float, answer_s: float) -> list[Finding]:
    """What a probe tells of the way it came.

    Args:
        seconds, every_s: how long it was to be, and the time between two heartbeats.
        answer_s: how long the same server took for a plain answer.
    """
    found = [*_transit(heard, every_s=every_s, answer_s=answer_s)]
    if heard.end == "cut":
        found.append(_cut(heard, seconds=seconds, every_s=every_s))
    if heard.end == "bye":
        found.append(Finding("note", "stream", "The server ended it early: it is about to stop."))
    return [*found, *_headers(heard)]


def _transit(heard: Heard, *, every_s: float, answer_s: float) -> list[Finding]:
    beats = heard.beats
    if not beats:
        waited = heard.ended_at - heard.asked_at
        if heard.end == "cut":
            return []
        said = f"Buffered: nothing of it came in {waited:.1f} s."
        return [Finding("wrong", "stream", said, BUFFERING)]
    sent_s = beats[-1].sent_at - beats[0].sent_at
    came_s = beats[-1].came_at - beats[0].came_at
    if len(beats) > 2 and sent_s > JITTER_S and came_s < TOGETHER * sent_s:
        said = f"Buffered: {len(beats)} heartbeats, sent over {sent_s:.1f} s, came all at once."
        return [Finding("wrong", "stream", said, BUFFERING)]
    late_s = _late_s(beats)
    if late_s > max(JITTER_S, every_s / 2):
        said = f"Held back: heartbeats came in bursts, up to {late_s:.1f} s late."
        return [Finding("wrong", "stream", said, BUFFERING)]
    first_s = beats[0].came_at - heard.asked_at
    if first_s - answer_s > LATE_S:
        said = (
            f"Delayed: the first heartbeat came after {first_s:.1f} s, a plain answer "
            f"after {answer_s:.1f} s."
        )
        return [Finding("wrong", "stream", said, BUFFERING)]
    said = (
        f"{len(beats)} heartbeats came one by one: the first after {first_s * 1000:.0f} ms, "
        f"none more than {late_s * 1000:.0f} ms late."
    )
    return [Finding("ok", "stream", said)]


def _late_s(beats: Sequence[Beat]) -> float:
    """How much later than the quickest one the slowest came: whatever the clocks say."""
    ways = [beat.came_at - beat.sent_at for beat in beats]
    return max(ways) - min(ways)


def _cut(heard: Heard, *, seconds: float, every_s: float) -> Finding:
    after_s = heard.ended_at - heard.asked_at
    # Who lived through one silence lives through all of them: then it is its age.
    gaps = [after.came_at - before.came_at for before, after in pairwise(heard.beats)]
    quiet_s = heard.ended_at - (heard.beats[-1].came_at if heard.beats else heard.asked_at)
    if any(gap >= quiet_s for gap in gaps):
        said = f"Cut after {after_s:.1f} s of {seconds:g}, although it was not silent."
        return Finding("wrong", "stream", said, OLD)
    said = f"Cut after {after_s:.1f} s, of which the last {quiet_s:.1f} s were silent"
    return Finding("wrong", "stream", f"{said} ({every_s:g} s between heartbeats).", QUIET)


def _headers(heard: Heard) -> list[Finding]:
    found = []
    if packed := heard.headers.get("content-encoding"):
        said = f"Compressed on the way ({packed}), although we ask for no change."
        found.append(Finding("note", "headers", said, COMPRESSED))
    said_of = heard.headers.get("cache-control", "")
    if heard.headers and "no-store" not in said_of:
        said = f"Cache-Control was changed on the way, to {said_of!r}: a stream may be kept."
        found.append(Finding("wrong", "headers", said, "Let Cache-Control pass as it is."))
    return found


def printed(finding: Finding) -> None:
    """Print it, in colours if it is a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        cure = f"\n{'':17}→ {finding.cure}" if finding.cure else ""
        console.file.write(f"{finding.level:<5}  {finding.what:<8}  {finding.said}{cure}\n")
        return
    colour = {"ok": "green", "note": "yellow", "wrong": "bold red"}[finding.level]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=5)
    grid.add_column(width=9)
    grid.add_column(ratio=1)
    grid.add_row(Text(finding.level, style=colour), Text(finding.what), Text(finding.said))
    if finding.cure:
        grid.add_row(
            "", "", Text(f"→ {finding.cure}", style="" if finding.level == "wrong" else "dim")
        )
    console.print(grid)
