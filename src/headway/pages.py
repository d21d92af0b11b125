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

from headway.fragment import fragment

__all__ = [
    "FILES", "FRAGMENT", "HEADERS", "POLICY", "VERSION", "Html", "bar", "job_page", "jobs_page",
    "page", "script", "static", "style",
]  # fmt: skip

FILES: Final = {
    "headway.js": "text/javascript; charset=utf-8",
    "details.js": "text/javascript; charset=utf-8",
    "jobs.js": "text/javascript; charset=utf-8",
    "outside.js": "text/javascript; charset=utf-8",
    "variants.js": "text/javascript; charset=utf-8",
    "overview.js": "text/javascript; charset=utf-8",
    "headway.css": "text/css; charset=utf-8",
    "overview.css": "text/css; charset=utf-8",
}
_PARTS: Final = {"headway.js": ("words.js", "watcher.js", "bar.js", "headway.js")}
"""What every page needs travels as one file: a single request, and never a mixture of versions."""
_JOINT: Final = re.compile(rb'^(?:import|export) \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
_REMARK: Final = re.compile(
    rb"^\t*/\*\*.*?\*/\n|/\*\* .*?\*/ ?|[ \t]+// [^\n]*$|^// [^\n]*\n|^\t+|^\n",
    re.DOTALL | re.MULTILINE,
)
_LATER: Final = re.compile(rb'import\("\./(\w+\.js)"\)')
POLICY: Final = (
    "Content-Security-Policy",
    (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
)
HEADERS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    POLICY,
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
FRAGMENT: Final = (("Content-Type", "text/html; charset=utf-8"),)


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


def script(base: str, name: str = "headway.js") -> str:
    """The tag that brings the element, or another script. As a module it runs once, however often
    it stands there."""
    return f'<script type="module" src="{escape(base)}/static/{name}"></script>'


def style(base: str, name: str = "headway.css") -> str:
    """The tag that brings how it looks."""
    return f'<link rel="stylesheet" href="{escape(base)}/static/{name}">'


def bar(
    document: Mapping[str, Any], attributes: dict[str, str | bool], fallback: str | None = None
) -> str:
    """The element for one job, filled with what is known now, and usable without JavaScript.

    Args:
        fallback: HTML that stands there until the script has come; by default all that one needs.
    """
    given = "".join(
        f" {escape(name.replace('_', '-'))}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not False
    )
    links = document["links"]
    return (
        f'<headway-bar src="{escape(links["self"])}"{given}>'
        f'<script type="application/json">{_json(document)}</script>'
        f"{fragment(document) if fallback is None else fallback}</headway-bar>"
    )


def _json(document: Mapping[str, Any]) -> str:
    text = msgspec.json.encode(document).decode()
    for sign in "<>&\u2028\u2029":  # so that nothing in it can end the script element
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


_OWN: Final[dict[str, str | bool]] = {"log": True, "outside": "title icon notify"}


def job_page(document: Mapping[str, Any], base: str, inside: str = "") -> bytes:
    """The page of one job.

    Args:
        inside: HTML that only operators get.
    """
    going = document["finished_at"] is None
    refresh = '<noscript><meta http-equiv="refresh" content="5"></noscript>' if going else ""
    here = escape(document["links"]["self"])
    body = (
        f"<h1>{escape(document['title'])}</h1>{bar(document, _OWN)}"
        f'<noscript><p><a href="{here}">Refresh</a></p></noscript>'
        f"{_ways(base, operator=bool(inside))}{inside}"
    )
    head = refresh + (style(base, "overview.css") if inside else "")
    return page(document["title"], body, base, head=head)


def jobs_page(documents: Sequence[Mapping[str, Any]], base: str, *, operator: bool) -> bytes:
    """The visitor's own jobs, newest first."""
    rows = "".join(
        f"<li>{bar(one, {})}"
        f'<noscript><p><a href="{escape(one["links"]["self"])}">Open</a></p></noscript></li>'
        for one in documents
    )
    shown = f'<ul class="jobs">{rows}</ul>' if rows else "<p>You have started nothing yet.</p>"
    body = f'<h1>My jobs</h1><headway-jobs src="{escape(base)}" log>{shown}</headway-jobs>'
    return page("My jobs", body + (_ways(base, operator=True) if operator else ""), base)


def _ways(base: str, *, operator: bool) -> str:
    every = f' · <a href="{escape(base)}/overview">All jobs</a>' if operator else ""
    return f'<p class="more"><a href="{escape(base or "/")}">My jobs</a>{every}</p>'


def page(title: str, body: str, base: str, *, head: str = "") -> bytes:
    """A whole page around *body*; all but *title* is HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"{style(base)}{script(base)}{head}"
        f"</head><body><main>{body}</main></body></html>"
    ).encode()
