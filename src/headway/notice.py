"""A problem as a small page in words, for a browser that navigates. Pure.

Status and headers stay as they are; other clients get the problem document. Nothing is said here
that the document does not say.
"""

from __future__ import annotations

from html import escape
from typing import Any, Final

import msgspec

from headway import pages
from headway.http import Reply, Request, came_from
from headway.problems import MEDIA_TYPE

__all__ = ["notice"]

AGAIN_S: Final = 5  # a page that looks again by itself does it no more often

_CURES: Final = {
    "not_found": "The link may be wrong. Or the job was forgotten, or is not yours: then sign in "
    "as who started it, or use the browser that did.",
    "expired": "Jobs are kept for a time after they have ended. This one's time is over.",
    "no_route": "The link is wrong.",
    "no_file": "The link is wrong, or old.",
    "not_yours": "You were given a link to watch it. Ask who gave it to you.",
    "cross_origin": "Open the page on this site, and try it from there.",
    "not_finished": "It still runs. Its page shows how far it is.",
    "no_result": "Its page says what became of it.",
    "not_failed": "There is nothing to try again: look at the job's page.",
    "method_not_allowed": "This address is not a page.",
    "too_many_starts": "Wait a moment, then try again.",
    "too_many_streams": "Close other pages of this site, then try again.",
    "key_in_flight": "It is being handled. Look at your jobs in a moment.",
    "not_open": "Try again in a moment.",
    "internal": "This was not your fault. Try again later; if it stays, tell who runs this site.",
}
"""What to do, where neither title nor detail says it; for people, not for clients."""

_OVER_SOON: Final = frozenset({"store_unavailable", "store_refuses", "not_open"})


def notice(request: Request, reply: Reply) -> Reply:
    """*reply*; as a page, if it is a problem and a browser wants to show it."""
    if not _is_problem(reply) or not request.wants_html or request.wants_fragment:
        return reply
    assert isinstance(reply.body, bytes), "a problem is no stream"
    kept = [one for one in reply.headers if one[0] not in {"Content-Type", "Cache-Control"}]
    found = msgspec.json.decode(reply.body, type=dict[str, Any])
    headers = [*pages.HEADERS, *kept, ("Cache-Control", "no-store")]
    return Reply(reply.status, headers, _page(request, found))


def _is_problem(reply: Reply) -> bool:
    return ("Content-Type", MEDIA_TYPE) in reply.headers


def _page(request: Request, problem: dict[str, Any]) -> bytes:
    code, base = problem["code"], request.base
    said = _CURES.get(code) or problem.get("detail")
    again = code in _OVER_SOON and request.method in {"GET", "HEAD"}
    body = (
        f"<h1>{escape(problem['title'].rstrip('.'))}</h1>"
        f"{f'<p>{escape(said)}</p>' if said else ''}"
        f"{'<p>This page looks again by itself.</p>' if again else ''}"
        f'<p class="more">{" · ".join(_links(request, problem))}</p>'
    )
    look = f'<meta http-equiv="refresh" content="{AGAIN_S}">' if again else ""
    return pages.page(problem["title"], f'<div class="card">{body}</div>', base, head=look)


def _links(request: Request, problem: dict[str, Any]) -> list[str]:
    """Where to go on."""
    found = []
    if "job" in problem:
        found.append((problem["job"], "Open that job"))
    elif problem["code"] in {"not_finished", "no_result", "not_failed", "still_running"}:
        job_id = request.path.strip("/").split("/")[0]
        found.append((f"{request.base}/{job_id}", "Open the job"))
    if request.method == "POST" and (back := came_from(request)) is not None:
        found.append((back, "Back"))
    found.append((request.base or "/", "My jobs"))
    return [f'<a href="{escape(href)}">{word}</a>' for href, word in found]
