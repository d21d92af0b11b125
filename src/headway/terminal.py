"""What is seen in a terminal: bars that live, or lines for logs and scripts; and lists of jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from headway.following import Entry, Following
from headway.job import State
from headway.words import (
    SAID,
    Doc,
    clock,
    counts,
    details,
    elapsed_s,
    percent,
    reason,
    state_of,
    title,
)

__all__ = ["Bars", "Lines", "Raw", "Screen", "line", "screen", "table"]

FRAMES_PER_S: Final = 8
LINE_EVERY_S: Final = 2.0  # of one job, unless its state has changed
BAR_WIDTH: Final = (12, 40)

_LOOKS: Final = {
    "connecting": ("…", ".", "dim"),
    "queued": ("○", "o", "dim"),
    "running": ("▶", ">", "cyan"),
    "finishing": ("▶", ">", "cyan"),
    "stalled": ("‖", "!", "yellow"),
    "retrying": ("↻", "r", "yellow"),
    "reconnecting": ("⇄", "?", "yellow"),
    "cancelling": ("◌", "c", "magenta"),
    "cancelled": ("⊘", "-", "magenta"),
    "succeeded": ("✔", "+", "green"),
    "failed": ("✘", "x", "red"),
    "gone": ("∅", "0", "dim"),
    "forbidden": ("∅", "0", "dim"),
}
"""State → its shape, the shape in ASCII, its colour. No two that go on have the same shape."""


class Screen(Protocol):
    """Where what a `Following` knows is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def show(self, job_id: str | None) -> None:
        """There is news of a job, or of all of them."""

    def tick(self) -> None:
        """Time has passed; called a few times a second."""


class _Plain:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def tick(self) -> None: ...


# ── bars ──────────────────────────────────────────────────────────────────────────────────────


class Bars:
    """Bars that live. What does not fit on the screen is left out, what has ended first.

    Args:
        now: seconds of the epoch.
    """

    def __init__(
        self, following: Following, console: Console, now: Callable[[], float] = time.time
    ) -> None:
        self._following = following
        self._console = console
        self._now = now
        self._live = Live(
            get_renderable=self.render, console=console, refresh_per_second=FRAMES_PER_S
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, job_id: str | None) -> None:
        """Nothing to do: the next frame has it."""

    def tick(self) -> None:
        """Nor here."""

    def render(self) -> RenderableType:
        """All jobs as they are now."""
        room = max(self._console.height - 1, 1)
        ids = self._following.ids
        whole = [self._job(i, small=False) for i in ids]
        if sum(map(len, whole)) <= room:
            return Group(*(line for lines in whole for line in lines))
        going = set(self._following.going)
        order = sorted(ids, key=lambda i: i not in going)  # stable: else as they were given
        shown = order if len(order) <= room else order[: room - 1]
        lines = [self._job(i, small=True)[0] for i in ids if i in shown]
        if more := len(order) - len(shown):
            lines.append(Text(f"  and {more} more", style="dim"))
        return Group(*lines)

    def _job(self, job_id: str, *, small: bool) -> list[RenderableType]:
        """The lines of one job; only the first if it is to be *small*."""
        following = self._following
        now = self._now() - following.ahead_s
        state = following.state(job_id, self._now())
        job = following.jobs.get(job_id)
        first = self._row(job_id, job, state, now)
        if small or job is None:
            return [first]
        said = [reason(job)] if state == "failed" else []
        if job_id in following.going:
            away = [SAID[state]] if state == "reconnecting" else []
            said = [*away, *details(job, now)]
        text = Text("  " + " · ".join(filter(None, said)), no_wrap=True, overflow="ellipsis")
        text.stylize("red" if state == "failed" else "dim")
        stages = [] if state == "succeeded" else job["progress"]["stages"]
        return [first, *([text] if any(said) else []), *map(self._stage, stages)]

    def _row(self, job_id: str, job: Doc | None, state: str, now: float) -> RenderableType:
        shape, plain_shape, colour = _LOOKS[state]
        mark = Text(plain_shape if self._console.options.ascii_only else shape, style=colour)
        if job is None:
            return self._grid(mark, Text(job_id), Text(SAID[state], style="dim"), "", "")
        ratio = job["progress"]["ratio"]
        unknown = ratio is None and state in {"running", "finishing"}
        ended = job["state"] == State.SUCCEEDED
        shown = ProgressBar(
            total=1.0,
            completed=1.0 if ended else ratio or 0.0,
            pulse=unknown,
            animation_time=now,
            complete_style=colour,
            finished_style=colour,
            pulse_style=colour,
        )
        name = Text(title(job), style="" if state != "cancelled" else "dim")
        return self._grid(
            mark, name, shown, percent(1.0 if ended else ratio), clock(elapsed_s(job, now))
        )

    def _stage(self, stage: Doc) -> RenderableType:
        name = Text("  " * (1 + stage.get("depth", 0)) + title({"title": stage["name"]}))
        ratio = stage.get("ratio")
        bar = ProgressBar(total=1.0, completed=ratio or 0.0, style="dim", complete_style="blue")
        name.stylize("dim")
        done = percent(ratio) or counts(stage)
        return self._grid(Text(" "), name, bar, done, "", narrow=True)

    def _grid(
        self,
        mark: Text,
        name: Text,
        bar: RenderableType,
        done: str,
        spent: str,
        *,
        narrow: bool = False,
    ) -> RenderableType:
        width = self._console.width
        least, most = BAR_WIDTH
        bar_width = max(least, min(most, width // 3))
        grid = Table.grid(
            Column(width=1),
            Column(width=max(8, min(36, width - bar_width - 19)), no_wrap=True),
            Column(width=bar_width // 2 if narrow else bar_width, no_wrap=True),
            Column(min_width=5, justify="left" if narrow else "right", no_wrap=True),
            Column(min_width=7, justify="right", style="dim", no_wrap=True),
            padding=(0, 1, 0, 0),
        )
        grid.add_row(mark, name, bar, done, spent)
        return grid


# ── lines ─────────────────────────────────────────────────────────────────────────────────────


class Lines(_Plain):
    """A plain line for each change: of a state at once, else at most one in `LINE_EVERY_S`.

    Args:
        now: seconds of the epoch.
    """

    def __init__(
        self,
        following: Following,
        write: Callable[[str], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._following = following
        self._write = write
        self._now = now
        self._due: dict[str, float] = {}
        self._free_at: dict[str, float] = {}
        self._said: dict[str, tuple[str, str]] = {}

    def show(self, job_id: str | None) -> None:
        """Say it, or wait with it until its time."""
        for one in self._following.ids if job_id is None else [job_id]:
            if one in self._following.jobs or one in self._following.lost:
                self._due.setdefault(one, max(self._now(), self._free_at.get(one, 0.0)))
        self.tick()

    def tick(self) -> None:
        """Say what is due."""
        for job_id, due_at in list(self._due.items()):
            state = self._following.state(job_id, self._now())
            before = self._said.get(job_id)
            if before is not None and before[0] == state and due_at > self._now():
                continue
            del self._due[job_id]
            self._say(job_id, state, before)

    def _say(self, job_id: str, state: str, before: tuple[str, str] | None) -> None:
        job, now = self._following.jobs.get(job_id), self._now() - self._following.ahead_s
        text = f"{job_id}  {state}" if job is None else line(job, now, state=state)
        if before is None or before != (state, text):
            self._said[job_id] = (state, text)
            self._free_at[job_id] = self._now() + LINE_EVERY_S
            self._write(text)


class Raw(_Plain):
    """Documents, as JSON, one a line; and `{"id": …, "state": "gone"}` for what is lost."""

    def __init__(self, following: Following, write: Callable[[str], object]) -> None:
        self._following = following
        self._write = write

    def show(self, job_id: str | None) -> None:
        """Write the newest one."""
        if job_id is None:
            return
        lost = self._following.lost.get(job_id)
        found = {"id": job_id, "state": lost} if lost else self._following.jobs[job_id]
        self._write(json.dumps(found, ensure_ascii=False))


def screen(following: Following, console: Console, *, raw: bool) -> Screen:
    """What fits to where the output goes."""
    write = _writer(console)
    if raw:
        return Raw(following, write)
    return Bars(following, console) if console.is_terminal else Lines(following, write)


def _writer(console: Console) -> Callable[[str], object]:
    # Past rich, which would wrap long lines.
    def write(text: str) -> None:
        console.file.write(f"{text}\n")
        console.file.flush()

    return write


def line(job: Doc, now: float, *, state: str | None = None) -> str:
    """A job in one line."""
    state = state or state_of(job, now)
    ended = State(job["state"]).terminal
    said = [reason(job)] if ended else [text for text in details(job, now) if text != SAID[state]]
    stages = [] if ended else job["progress"]["stages"][-1:]
    said += [" ".join((title({"title": one["name"]}), counts(one))) for one in stages]
    rest = " · ".join(filter(None, said))
    share = percent(1.0 if job["state"] == State.SUCCEEDED else job["progress"]["ratio"])
    return f"{job['id']}  {state:<12}  {share:>4}  {title(job)}  {rest}".rstrip()


# ── lists ─────────────────────────────────────────────────────────────────────────────────────


def table(entries: Iterable[Entry], console: Console, now: float) -> Table:
    """Jobs as a table; whose they are only if that is known of one."""
    rows = list(entries)
    owned = any(entry.owner is not None for entry in rows)
    found = Table(
        Column("", no_wrap=True),
        Column("id", no_wrap=True, min_width=28),
        Column("state", no_wrap=True),
        Column("title", no_wrap=True, overflow="ellipsis", ratio=1),
        Column("", justify="right", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
        box=None,
        pad_edge=False,
        expand=True,
        header_style="dim",
    )
    if owned:
        found.add_column("owner", no_wrap=True, overflow="ellipsis", max_width=20)
    for owner, job in rows:
        state = state_of(job, now)
        shape, plain_shape, colour = _LOOKS[state]
        found.add_row(
            Text(plain_shape if console.options.ascii_only else shape, style=colour),
            job["id"],
            Text(state, style=colour),
            Text(" · ".join(filter(None, (title(job), reason(job))))),
            percent(1.0 if job["state"] == State.SUCCEEDED else job["progress"]["ratio"]),
            clock(elapsed_s(job, now)),
            *([Text(title({"title": owner or ""}))] if owned else []),
        )
    return found
