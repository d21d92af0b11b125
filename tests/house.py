"""A site to attack in one process, behind either kind of door, and what listens to it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any, Final, cast

import httpx
from itsdangerous import Signer
from quart import Quart

from headway import Headway, JobError, Progress
from headway.http import Reply, Request
from headway.job import Job
from headway.limits import Limits
from headway.quart import Headway as QuartHeadway
from tests.conftest import MakeHeadway
from tests.contract import HOOKS

DOORS: Final = ["asgi", "quart"]
SECRET: Final = "the secret of these tests"
SITE: Final = "http://site.test"


def user(native: Any) -> str | None:
    """Whom a test names in a header, as an app's own login would."""
    if isinstance(native, dict):
        return dict(native["headers"]).get(b"x-user", b"").decode() or None
    name: str | None = native.headers.get("x-user")
    return name


class House:
    """A site to attack: its Headway, some tasks, and clients of it."""

    def __init__(self, headway: Headway, app: Any) -> None:
        self.headway = headway
        self.app = app
        self._tasks: set[asyncio.Task[None]] = set()
        self.wait = headway.task(name="wait")(self._wait)
        self.say = headway.task(name="say")(self._say)

    async def _wait(self, progress: Progress) -> None:
        progress.set(done=1, total=2)
        await asyncio.Event().wait()

    async def _say(self, progress: Progress, text: str, ends: str) -> Any:
        """Put *text* wherever a task can put text."""
        progress.set(total=2, unit=text)
        progress.note(text)
        progress.log(text)
        with progress.stage(text, total=2):
            progress.advance()
        if ends == "failed":
            raise JobError(text, code=text)
        if ends == "running":
            await asyncio.Event().wait()
        return {"url": text, text: [text]}

    def client(self, **headers: str) -> httpx.AsyncClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(
            transport=transport, base_url=SITE, headers=named, event_hooks=HOOKS
        )

    async def running(self, owner: str | None = "ann") -> Job:
        job = await self.wait.using(owner=owner).start()
        return await self.until(job, lambda seen: seen.progress.done > 0)

    async def until(self, job: Job, holds: Callable[[Job], bool]) -> Job:
        async for seen in self.headway.watch(job.id):
            if holds(seen):
                return seen
        raise AssertionError("it has ended without")

    async def fragment(self, job: Job) -> str:
        """What htmx gets."""
        request = Request("POST", "/", "/jobs", {"hx-request": "true"})
        answer = await self.headway.reply(job, request)
        body: Any = answer.body if isinstance(answer, Reply) else await answer.get_data()
        return bytes(body).decode()

    def listen(self, path: str, **headers: str) -> Stream:
        return Stream(self.app, path, headers)


class Stream:
    """An event stream while it is open; httpx would wait for its end."""

    def __init__(self, app: Any, path: str, headers: dict[str, str]) -> None:
        self._gone = asyncio.Event()
        self._asked = False
        self.status = 0
        self.body = b""
        self.headers: dict[str, str] = {}
        where, _, query = path.partition("?")
        named = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": where, "raw_path": where.encode(), "root_path": "",
            "query_string": query.encode(), "server": ("site.test", 80), "client": ("::1", 1),
            "headers": [(b"host", b"site.test"), *named],
        }  # fmt: skip
        self._task = asyncio.create_task(app(scope, self._receive, self._send))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        await self._task

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {n.decode().lower(): v.decode() for n, v in message["headers"]}
        self.body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._gone.set()  # as servers do

    @property
    def over(self) -> bool:
        return self._task.done()

    @property
    def events(self) -> list[tuple[str, Any]]:
        return events(self.body.decode())


def events(text: str) -> list[tuple[str, Any]]:
    """(event, data) as the standard reads them: lines may end in CR, LF or both."""
    found: list[tuple[str, Any]] = []
    event, data = "message", ""
    for line in re.split(r"\r\n|\r|\n", text):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data += value
        elif not line and data:
            found.append((event, json.loads(data)))
            event, data = "message", ""
    return found


@asynccontextmanager
async def open_house(
    make_headway: MakeHeadway, door: str = "asgi", **options: Any
) -> AsyncIterator[House]:
    options = {"secret": SECRET, "limits": Limits(jobs_per_owner=None), **options}
    cached = {"cache-control": "public, max-age=600"}
    if door == "quart":
        app = Quart(__name__)
        headway = make_headway(QuartHeadway, **options)
        cast("QuartHeadway", headway).init_app(app)

        async def index() -> Any:
            await headway.visitor()
            return "hello", 200, cached

        app.add_url_rule("/", "index", index)
        async with app.test_app():
            yield House(headway, app)
        return
    headway = make_headway(**options)

    async def site(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await headway.visitor()
        headers = [(name.encode(), value.encode()) for name, value in cached.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    async with headway:
        yield House(headway, headway.wrap(site))


TAGS: Final = {
    "html", "head", "meta", "title", "link", "script", "noscript", "body", "main", "h1", "p", "a",
    "ul", "li", "headway-bar", "headway-jobs", "strong", "span", "progress", "form", "button",
    "div", "h2", "nav", "time", "details", "summary", "pre", "ol", "dl", "dt", "dd", "table",
    "tbody", "thead", "tr", "td", "th", "section", "header", "small", "input", "label", "footer",
}  # fmt: skip


class Markup(HTMLParser):
    """What a browser would make of a page, as far as scripts are concerned."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.attributes += given.items()
        if tag not in TAGS:
            self.wrong.append(tag)
        if tag == "script" and given.get("type") not in {"application/json", "module"}:
            self.wrong.append(f"script {given}")
        if tag == "script" and given.get("type") == "module" and "src" not in given:
            self.wrong.append("inline module")
        self.wrong += [f"{n}={v}" for n, v in given.items() if n.startswith("on") or n == "style"]
        leads = [given.get(name, "") for name in ("href", "src", "action", "formaction")]
        self.wrong += [v for v in leads if not v.startswith(("/", "data:,")) and v]

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"comment {data}")


def signed(text: str, salt: str, key: str = SECRET) -> str:
    """What itsdangerous makes of *text* for any purpose."""
    signer = Signer([key], salt=salt.encode(), key_derivation="hmac", digest_method=sha256)
    return signer.sign(text).decode()


HOSTILE: Final = {
    "element": "<script>alert(1)</script>",
    "handler": "<img src=x onerror=alert(1)>",
    "end": "</script></title></headway-bar><svg onload=alert(1)><!--",
    "attribute": "\" onmouseover=alert(1) autofocus onfocus='alert(1)' x=\"",
    "entity": "&lt;script&gt;&#60;script&#62;",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}",
    "url": "javascript:alert(1)",
    "event": "x\n\nevent: admin\ndata: pwned\n\n",
    "event with CR": "x\r\revent: admin\rdata: pwned\rid: 7\rretry: 1\r\r",
    "lines": "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
    "nul": "a\x00b\x1b[31mc",
    "bidi": "invoice\u202egpj.exe\u2066",
}
