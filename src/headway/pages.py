"""The pages and files that a browser gets. Everything shown passes through `escape`.

The pages work without JavaScript: a plain progress element, a form to cancel, a link to the
result, and a reload every few seconds while the job runs.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from html import escape
from importlib.resources import files
from typing import Any, Final

import msgspec

__all__ = [
    "FILES", "FRAGMENT", "HEADERS", "VERSION", "Html", "bar", "job_page", "jobs_page", "script",
    "static",
]  # fmt: skip

FILES: Final = {
    "headway.js": "text/javascript; charset=utf-8",
    "details.js": "text/javascript; charset=utf-8",
    "jobs.js": "text/javascript; charset=utf-8",
    "outside.js": "text/javascript; charset=utf-8",
    "variants.js": "text/javascript; charset=utf-8",
    "headway.css": "text/css; charset=utf-8",
}
_PARTS: Final = {"headway.js": ("words.js", "watcher.js", "bar.js", "headway.js")}
"""What every page needs travels as one file: a single request, and never a mixture of versions."""
_JOINT: Final = re.compile(rb'^(?:import|export) \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
_REMARK: Final = re.compile(
    rb"^\t*/\*\*.*?\*/\n|/\*\* .*?\*/ ?|[ \t]+// [^\n]*$|^// [^\n]*\n|^\t+|^\n",
    re.DOTALL | re.MULTILINE,
)
_LATER: Final = re.compile(rb'import\("\./(\w+\.js)"\)')
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
FRAGMENT: Final = (("Content-Type", "text/html; charset=utf-8"),)
_STATES: Final = {
    "queued": "Waiting to start",
    "running": "Running",
    "succeeded": "Done!",
    "failed": "Failed",
    "cancelled": "Cancelled",
}


class Html(str):
    """Text that is HTML already: Jinja, Django and others put it on a page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


@dataclass(frozen=True, slots=True)
class File:
    """A file of ours, as it is and as it travels."""

    data: bytes
    zipped: bytes
    kind: str
    digest: str


@cache
def static(name: str) -> File | None:
    """A file by its name; None for every name that we do not ship."""
    if name not in FILES:
        return None
    data = _source(name)
    if name.endswith(".js"):
        data = _REMARK.sub(b"", _JOINT.sub(b"", data))
        data = _LATER.sub(rb'import("./\1?v=%b")' % VERSION.encode(), data)
    digest = blake2b(data, digest_size=9).hexdigest()
    return File(data, gzip.compress(data, 9, mtime=0), FILES[name], digest)


def _source(name: str) -> bytes:
    folder = files("headway").joinpath("static")
    return b"".join(folder.joinpath(part).read_bytes() for part in _PARTS.get(name, (name,)))


VERSION: Final = blake2b(b"".join(map(_source, FILES)), digest_size=4).hexdigest()
"""Changes whenever a page would look different for the same job."""


def script(base: str) -> str:
    """The tag that brings the element. As a module it runs once, however often it stands there."""
    return f'<script type="module" src="{escape(base)}/static/headway.js"></script>'


def bar(document: Mapping[str, Any], attributes: dict[str, str | bool]) -> str:
    """The element for one job, filled with what is known now, and usable without JavaScript."""
    given = "".join(
        f" {escape(name.replace('_', '-'))}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not False
    )
    links = document["links"]
    return (
        f'<headway-bar src="{escape(links["self"])}"{given}>'
        f'<script type="application/json">{_json(document)}</script>'
        f"{_fallback(document)}</headway-bar>"
    )


def _json(document: Mapping[str, Any]) -> str:
    text = msgspec.json.encode(document).decode()
    for sign in "<>&\u2028\u2029":  # so that nothing in it can end the script element
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _fallback(document: Mapping[str, Any]) -> str:
    links, error = document["links"], document["error"]
    parts = [f"<strong>{escape(document['title'])}</strong> ", _meter(document)]
    if document["note"]:
        parts.append(f" <span>{escape(document['note'])}</span>")
    if document["state"] == "failed" and error is not None:
        parts.append(f" <span>{escape(error.title)}</span>")
    if links["result"]:
        parts.append(f' <a href="{escape(links["result"])}">Result</a>')
    for act, word in (("cancel", "Cancel"), ("retry", "Try again")):
        if links[act]:
            parts.append(
                f' <form method="post" action="{escape(links[act])}"><button>{word}</button></form>'
            )
    return "".join(parts)


def _meter(document: Mapping[str, Any]) -> str:
    state, ratio = document["state"], document["progress"]["ratio"]
    word = _STATES[state]
    if state == "running" and document["cancel_requested"]:
        word = "Cancelling"
    if state in {"failed", "cancelled", "queued"}:
        return f"<span>{word}</span>"
    name = escape(document["title"])
    if ratio is None and state == "running":
        return f'<progress aria-label="{name}"></progress> <span>{word}</span>'
    ratio = 1.0 if state == "succeeded" else ratio
    percent = f"{ratio * 100:.0f} %"
    return (
        f'<progress aria-label="{name}" value="{ratio:.4f}" max="1">{percent}</progress>'
        f" <span>{word}, {percent}</span>"
    )


_OWN: Final[dict[str, str | bool]] = {"log": True, "outside": "title icon notify"}


def job_page(document: Mapping[str, Any], base: str) -> bytes:
    """The page of one job."""
    going = document["finished_at"] is None
    refresh = '<noscript><meta http-equiv="refresh" content="5"></noscript>' if going else ""
    here = escape(document["links"]["self"])
    body = (
        f"<h1>{escape(document['title'])}</h1>{bar(document, _OWN)}"
        f'<noscript><p><a href="{here}">Refresh</a></p></noscript>'
        f'<p class="more"><a href="{escape(base)}">My jobs</a></p>'
    )
    return _page(document["title"], body, base, head=refresh)


def jobs_page(documents: Sequence[Mapping[str, Any]], base: str) -> bytes:
    """The visitor's own jobs, newest first."""
    rows = "".join(
        f"<li>{bar(one, {})}"
        f'<noscript><p><a href="{escape(one["links"]["self"])}">Open</a></p></noscript></li>'
        for one in documents
    )
    shown = f'<ul class="jobs">{rows}</ul>' if rows else "<p>You have started nothing yet.</p>"
    body = f'<h1>My jobs</h1><headway-jobs src="{escape(base)}" log>{shown}</headway-jobs>'
    return _page("My jobs", body, base)


def _page(title: str, body: str, base: str, *, head: str = "") -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f'<link rel="stylesheet" href="{escape(base)}/static/headway.css">{script(base)}{head}'
        f"</head><body><main>{body}</main></body></html>"
    ).encode()
