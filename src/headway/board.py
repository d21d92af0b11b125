"""The operators' page: all jobs as a table, with figures above it; and what they see of one job.

Pure, and usable without JavaScript: links turn pages and choose, forms change. Everything shown
passes through `escape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

from headway import charts, pages
from headway.charts import Column
from headway.document import Attempts, Document, Entry, Figures, Log, Page, Span, Spread, Tried
from headway.job import EVERYONE, State

__all__ = ["Asked", "inside", "overview_page"]

_ENDS: Final = ("succeeded", "failed", "cancelled")
_KINDS: Final = ("succeeded", "cancelled", "failed")  # from the ground up
_LEVELS: Final = ("half", "most")
_CIRCLE: Final = "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2"
_SHAPES: Final = {
    "queued": ("Queued", f"{_CIRCLE}M8 5v3l2 2"),
    "retrying": ("Retrying", "M13 8a5 5 0 1 1-2-4l2 2V2"),
    "running": ("Running", "M5 3l8 5-8 5z"),
    "stalled": ("Stalled", "M8 2l7 12H1zM8 7v3M8 12h.01"),
    "cancelling": ("Cancelling", "M3 3h10v10H3z"),
    "succeeded": ("Succeeded", "M2 9l4 4 8-9"),
    "failed": ("Failed", "M3 3l10 10M13 3L3 13"),
    "cancelled": ("Cancelled", f"{_CIRCLE}M5 8h6"),
}
"""What stands for a state: a word, and a shape for those who see no colour; as in the element."""
_COLUMNS: Final = (
    ("State", "state"), ("Job", "job"), ("Owner", "owner"), ("Progress", "done"),
    ("Attempt", "attempt"), ("Created", "created"), ("Started", "started"), ("Waited", "waited"),
    ("Took", "took"), ("Actions", "acts"),
)  # fmt: skip


class Asked(NamedTuple):
    """What the page was asked for. Empty texts let all pass."""

    state: str = ""
    task: str = ""
    owner: str = ""
    after: str = ""

    def query(self, **changes: str) -> str:
        """The query of a link, with these changes."""
        fields = {**self._asdict(), **changes}
        found = urlencode({name: value for name, value in fields.items() if value})
        return f"?{found}" if found else ""


def overview_page(
    found: Page, asked: Asked, *, tasks: Sequence[str], base: str, now: float
) -> bytes:
    """The page of all jobs.

    Args:
        tasks: names to choose from; another one can be written.
        now: seconds since the epoch.
    """
    here = f"{base}/overview"
    rows = "".join(_row(one, asked, here, now) for one in found["jobs"])
    heads = "".join(f'<th scope="col" class="{name}">{word}</th>' for word, name in _COLUMNS)
    none = "" if rows else '<p class="none">No job here is like that.</p>'
    body = (
        '<div class="board" data-board><header><h1>All jobs</h1>'
        f'<p class="more"><a href="{escape(base or "/")}">My jobs</a></p></header>'
        f"{_figures(found['figures'])}{_filter(asked, tasks, here)}"
        '<div class="news"><p role="status" data-news></p>'
        "<button type=button data-show hidden></button></div>"
        '<div class="scroll" role="region" aria-label="Jobs" tabindex="0"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{_pager(found, asked, here, none)}</div>"
    )
    head = pages.style(base, "overview.css") + pages.script(base, "overview.js")
    return pages.page("All jobs", body, base, head=head)


# ── one row ───────────────────────────────────────────────────────────────────────────────────


def _row(entry: Entry, asked: Asked, here: str, now: float) -> str:
    job = entry["job"]
    cells = {
        "owner": _owner(entry["owner"], asked, here),
        "done": _progress(job),
        "attempt": _attempt(job),
        "created": _time(job["created_at"], now),
        "started": _time(job["started_at"], now),
        "waited": _words_s(_between(job["created_at"], job["started_at"], now, job)),
        "took": _words_s(_between(job["started_at"], job["finished_at"], now, job)),
        "acts": _acts(job),
    }
    told = "".join(f'<td class="{name}">{cell}</td>' for name, cell in cells.items())
    return (
        f'<tr id="{job["id"]}"><td class="state">{_state(job)}</td>'
        f'<th scope="row" class="job">{_title(job, asked, here)}</th>{told}</tr>'
    )


def _state(job: Document) -> str:
    name: str = job["state"]
    if name == "running" and job["stalled"]:
        name = "stalled"
    if name == "queued" and job["retry_at"]:
        name = "retrying"
    if name == "running" and job["cancel_requested"]:
        name = "cancelling"
    word, shape = _SHAPES[name]
    drawn = f'<svg class="shape" viewBox="0 0 16 16" aria-hidden="true"><path d="{shape}"/></svg>'
    return f'<span class="is {name}">{drawn}{word}</span>'


def _title(job: Document, asked: Asked, here: str) -> str:
    task = f"{here}{asked.query(task=job['task'], after='')}"
    error = job["error"]
    why = ""
    if error is not None:
        words = escape(f"{error.title}: {error.detail}" if error.detail else error.title)
        why = f' <span class="why" dir="auto" title="{words}">{words}</span>'
    elif job["note"] and job["state"] == "running":
        words = escape(job["note"])
        why = f' <span class="note" dir="auto" title="{words}">{words}</span>'
    title = escape(job["title"])
    return (
        f'<a href="{escape(job["links"]["self"])}" title="{title}" dir="auto">{title}</a>'
        f'<span class="under"><a href="{escape(task)}">{escape(job["task"])}</a>{why}</span>'
    )


def _owner(owner: str | None, asked: Asked, here: str) -> str:
    if owner is None:
        return '<span class="soft">nobody</span>'
    word = "everyone" if owner == EVERYONE else owner
    link = f"{here}{asked.query(owner=owner, after='')}"
    return f'<a href="{escape(link)}" title="{escape(word)}" dir="auto">{escape(word)}</a>'


def _progress(job: Document) -> str:
    ratio, live = job["progress"]["ratio"], job["finished_at"] is None
    ratio = 1.0 if job["state"] == "succeeded" else ratio
    percent = "" if ratio is None else f"{int(ratio * 100 + 1e-9)}%"
    drawn = f"{charts.meter(ratio or 0.0, job['state'])}<span>{percent}</span>"
    if not live:
        return f'<span class="far">{drawn}</span>'
    own: dict[str, str | bool] = {"variant": "inline", "nocancel": True, "immediate": True}
    return pages.bar(job, own, f'<span class="far">{drawn}</span>')


def _attempt(job: Document) -> str:
    number = max(job["attempt"], 1)
    return f"{number} of {job['max_attempts']}" if job["max_attempts"] > 1 else f"{number}"


def _acts(job: Document) -> str:
    links, title = job["links"], job["title"]
    found = []
    if links["cancel"] and not job["cancel_requested"]:
        found.append(_form(links["cancel"], "Cancel", title))
    if links["retry"]:
        found.append(_form(links["retry"], "Try again", title))
    if job["finished_at"]:
        found.append(_form(f"{links['self']}/forget", "Forget", title))
    return "".join(found)


def _form(action: str, word: str, title: str) -> str:
    return (
        f'<form method="post" action="{escape(action)}">'
        f'<button aria-label="{word} · {escape(title)}">{word}</button></form>'
    )


# ── around the rows ───────────────────────────────────────────────────────────────────────────


def _filter(asked: Asked, tasks: Sequence[str], here: str) -> str:
    states = "".join(
        f'<option value="{state}"{" selected" if state == asked.state else ""}>'
        f"{_SHAPES[state][0]}</option>"
        for state in State
    )
    known = "".join(f'<option value="{escape(name)}"></option>' for name in tasks)
    fields = "".join(
        f'<label>{word} <input name="{name}" value="{escape(value)}" '
        f'autocomplete="off"{more}></label>'
        for word, name, value, more in (
            ("Task", "task", asked.task, ' list="tasks" aria-keyshortcuts="/"'),
            ("Owner", "owner", asked.owner, ""),
        )
    )
    every = f'<a href="{escape(here)}">Show all</a>' if any(asked) else ""
    return (
        f'<form class="filter" method="get" action="{escape(here)}" role="search">'
        f'<label>State <select name="state"><option value="">Any</option>{states}</select></label>'
        f'{fields}<datalist id="tasks">{known}</datalist><button>Filter</button>{every}</form>'
    )


def _pager(found: Page, asked: Asked, here: str, none: str) -> str:
    links = []
    if asked.after:
        links.append((asked.query(after=""), "Back to the top"))
    if found["after"] is not None:
        # A filter that few jobs pass gives less than a page, although there may be more.
        links.append((asked.query(after=found["after"]), "Next" if found["jobs"] else "Look on"))
    links.append((asked.query(), "Refresh"))
    shown = "".join(f'<a href="{escape(here + query)}">{word}</a>' for query, word in links)
    return (
        f'<div class="foot" data-part="foot">{none}<nav aria-label="Pages">{shown}</nav>'
        '<noscript><p class="more">Times are UTC.</p></noscript></div>'
    )


# ── figures ───────────────────────────────────────────────────────────────────────────────────


def _figures(figures: Figures) -> str:
    spans, step_s = figures["spans"], figures["step_s"]
    of_late = f"last {_words_s(float(step_s * len(spans)))}"
    shown = (
        _live(figures),
        _ended(spans, step_s, of_late),
        _durations("wait", "Waiting", spans, figures["wait_s"], of_late),
        _durations("run", "Duration", spans, figures["run_s"], of_late),
    )
    return (
        '<section class="figures" aria-label="Figures of all jobs" data-part="figures">'
        f"{''.join(shown)}</section>"
    )


def _figure(word: str, of: str, said: str, drawn: str) -> str:
    return (
        f"<figure><figcaption><b>{word}</b> <span>{of}</span><p>{said}</p></figcaption>"
        f"{drawn}</figure>"
    )


def _live(figures: Figures) -> str:
    running, queued = figures["running"], figures["queued"]
    said = f"{running:,} running, {queued:,} queued"
    shown = (
        Column((running, 0), f"{running:,} running"),
        Column((0, queued), f"{queued:,} queued"),
    )
    drawn = charts.columns("live", shown, ("running", "queued"), title="What lives", text=said)
    return _figure("Live", "now", said, drawn)


def _ended(spans: Sequence[Span], step_s: int, of_late: str) -> str:
    shown = [
        Column(
            (span["succeeded"], span["cancelled"], span["failed"]),
            f"{_clock(span['at'])} UTC: {_counted(span)}",
        )
        for span in spans
    ]
    total = {kind: sum(span[kind] for span in spans) for kind in _ENDS}
    most = max(sum(one.parts) for one in shown) * 60 / step_s
    said = f"{_counted(total)}; at most {most:,.4g} a minute"
    drawn = charts.columns("ended", shown, _KINDS, title=f"Ended, {of_late}", text=said)
    return _figure("Ended", of_late, said, drawn)


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in _ENDS)


def _durations(
    kind: Literal["wait", "run"], word: str, spans: Sequence[Span], all: Spread | None, of_late: str
) -> str:
    shown = []
    for span in spans:
        one = span["wait_s"] if kind == "wait" else span["run_s"]
        parts = (one["p50"], max(one["p95"] - one["p50"], 0.0)) if one else (0.0, 0.0)
        shown.append(Column(parts, f"{_clock(span['at'])} UTC: {_halves(one)}"))
    said = _halves(all)
    drawn = charts.columns(kind, shown, _LEVELS, title=f"{word}, {of_late}", text=said)
    return _figure(word, of_late, said, drawn)


def _halves(spread: Spread | None) -> str:
    if spread is None:
        return "nothing"
    return f"half up to {_words_s(spread['p50'])}, 95% up to {_words_s(spread['p95'])}"


# ── one job, as operators see it ──────────────────────────────────────────────────────────────


def inside(
    job: Document, owner: str | None, attempts: Attempts, log: Log, *, base: str, now: float
) -> str:
    """What stands on the page of a job for operators only: whose it is, its attempts, its log."""
    here = f"{base}/overview"
    facts = (
        ("Task", _link(f"{here}{Asked(task=job['task']).query()}", job["task"])),
        ("Owner", _owner(owner, Asked(), here)),
        ("Attempt", _attempt(job)),
        ("Created", _time(job["created_at"], now)),
        ("Started", _time(job["started_at"], now)),
        ("Ended", _time(job["finished_at"], now)),
        ("Kept until", _time(job["expires_at"], now)),
        ("Id", f"<code>{job['id']}</code>"),
    )
    told = "".join(f"<div><dt>{name}</dt><dd>{said or '–'}</dd></div>" for name, said in facts)
    lines = escape("\n".join(log["lines"]))
    forget = _form(f"{job['links']['self']}/forget", "Forget", job["title"])
    return (
        '<section class="inside" aria-labelledby="inside"><h2 id="inside">For operators</h2>'
        f"<dl>{told}</dl>{_attempts(attempts['attempts'], now)}"
        f"<details><summary>Log, {len(log['lines'])} lines</summary>"
        f'<pre tabindex="0">{lines}</pre></details>'
        f"{forget if job['finished_at'] else ''}"
        '<p class="soft">Times are UTC.</p></section>'
    )


def _attempts(attempts: Sequence[Tried], now: float) -> str:
    """All of them; the trace of the last one is open."""
    return "".join(_tried(one, now, is_open=one is attempts[-1]) for one in attempts)


def _tried(one: Tried, now: float, *, is_open: bool) -> str:
    error = one["error"]
    why = "" if error is None else f"<p>{escape(error.title)} <code>{escape(error.code)}</code></p>"
    if error is not None and error.detail:
        why += f"<p>{escape(error.detail)}</p>"
    trace = f'<pre tabindex="0">{escape(one["trace"])}</pre>' if one["trace"] else ""
    times = f"{_time(one['began_at'], now)} to {_time(one['ended_at'], now)}"
    return (
        f"<details{' open' if is_open else ''}>"
        f"<summary>Attempt {one['attempt']}: {escape(one['outcome'])}</summary>"
        f'<p class="soft">{times}, by <code>{escape(one["worker"])}</code></p>{why}{trace}'
        "</details>"
    )


def _link(href: str, word: str) -> str:
    return f'<a href="{escape(href)}">{escape(word)}</a>'


# ── times ─────────────────────────────────────────────────────────────────────────────────────


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _clock(at: str) -> str:
    return at[11:16]


def _time(at: str | None, now: float) -> str:
    """A moment, short: today's without its day. Scripts show it as on the viewer's clock."""
    if at is None:
        return ""
    day, today = datetime.fromisoformat(at), datetime.fromtimestamp(now, UTC)
    same = day.date() == today.date()
    text = f"{day:%H:%M:%S}" if same else f"{day.day} {day:%b %H:%M}"
    return f'<time datetime="{at}">{text}</time>'


def _between(begin: str | None, end: str | None, now: float, job: Document) -> float | None:
    """Seconds; until now, if it goes on."""
    if begin is None or (end is None and job["finished_at"] is not None):
        return None
    return max((_seconds(end) if end else now) - _seconds(begin), 0.0)


def _words_s(seconds: float | None) -> str:
    """A duration, in two units at most."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}\u00a0ms"
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    at = next(n for n, (size, _) in enumerate(units) if seconds >= size)
    parts = [f"{int(seconds // units[at][0])}\u00a0{units[at][1]}"]
    for size, unit in units[at + 1 : at + 2]:
        if rest := int(seconds % units[at][0] // size):
            parts.append(f"{rest}\u00a0{unit}")
    return "\u00a0".join(parts)
