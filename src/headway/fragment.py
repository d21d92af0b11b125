"""A job in plain HTML, for where the element is not: inside of it until its script has come, and in
the streams of pages that do without. Pure; everything shown passes through `escape`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import floor
from typing import Any, Final

from headway.words import SAID, state_of

__all__ = ["fragment", "gone", "news"]

_LEAVES: Final = ' hx-boost="false"'
# htmx 4 morphs; for htmx 2, which knows no such style, it is what htmx does by default: innerHTML.
_SWAP: Final = "innerMorph"
_ACTS: Final = (("cancel", "Cancel"), ("retry", "Try again"))


def fragment(document: Mapping[str, Any]) -> str:
    """The job as it is, with forms for what the viewer may do."""
    return f"{_told(document)}{_forms(document, {})}"


def news(document: Mapping[str, Any], *, alone: bool) -> str:
    """The same for a page that htmx swaps it into, again and again.

    To cancel is sent by htmx, and leaves the page as it is: what comes of it is told by the stream.
    To try again leads to the new job's page. Both forms have ids, so that a swap by morphing keeps
    the very button: a press that lasts longer than from one message to the next counts.

    Args:
        alone: the stream is of this job; else it goes to where its id stands.
    """
    here = f' id="headway-{document["id"]}-{{}}"'
    sent = f' hx-post="{escape(document["links"]["cancel"] or "")}" hx-swap="none"'
    more = {"cancel": here.format("cancel") + sent, "retry": here.format("retry") + _LEAVES}
    return _placed(_told(document) + _forms(document, more), document["id"], alone=alone)


def gone(job_id: str, *, alone: bool) -> str:
    """What stands there when the job is unknown, expired, forgotten or someone else's."""
    return _placed("<span>No longer available</span>", job_id, alone=alone)


def _placed(inner: str, job_id: str, *, alone: bool) -> str:
    if alone:
        return inner
    return f'<div id="headway-{escape(job_id)}" hx-swap-oob="{_SWAP}">{inner}</div>'


def _told(document: Mapping[str, Any]) -> str:
    links, error = document["links"], document["error"]
    parts = [f"<strong>{escape(document['title'])}</strong> ", _meter(document)]
    if document["note"]:
        parts.append(f" <span>{escape(document['note'])}</span>")
    if document["state"] == "failed" and error is not None:
        parts.append(f" <span>{escape(error.title)}</span>")
    if links["result"]:
        parts.append(f' <a href="{escape(links["result"])}">Result</a>')
    return "".join(parts)


def _forms(document: Mapping[str, Any], more: Mapping[str, str]) -> str:
    links = document["links"]
    return "".join(
        f' <form method="post" action="{escape(links[act])}"{more.get(act, "")}>'
        f"<button>{word}</button></form>"
        for act, word in _ACTS
        if links[act] and not (act == "cancel" and document["cancel_requested"])
    )


def _meter(document: Mapping[str, Any]) -> str:
    state, ratio = document["state"], document["progress"]["ratio"]
    word = SAID[state_of(document, 0.0)].removesuffix("…")  # nothing moves here
    if state in {"failed", "cancelled", "queued"}:
        return f"<span>{word}</span>"
    name = escape(document["title"])
    if ratio is None and state == "running":
        return f'<progress aria-label="{name}"></progress> <span>{word}</span>'
    ratio = 1.0 if state == "succeeded" else ratio
    percent = f"{floor(ratio * 100 + 1e-9)} %"  # 100 % is for the end
    return (
        f'<progress aria-label="{name}" value="{ratio:.4f}" max="1">{percent}</progress>'
        f" <span>{word}, {percent}</span>"
    )
