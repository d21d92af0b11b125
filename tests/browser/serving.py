"""A server process of the app in shop.py, and the orders for its tasks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import urlencode

import redis
from playwright.async_api import Page

from tests.apps.process import DEADLINE_S, App, alive, free_port

HERE: Final = Path(__file__).parent


class Goes(Protocol):
    """A page of any browser."""

    async def goto(self, url: str) -> Any: ...


class Site:
    """Serves the shop on one port, again and again if need be, over one store.

    Args:
        folder: for the state, the orders and the logs.
        settings: go into the environment of the process.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self._folder = folder
        self._orders = folder / "orders"
        self._orders.mkdir()
        self._runtime = tempfile.mkdtemp(prefix="hw")
        self._port = free_port()
        self._settings = settings
        self._apps: list[App] = []
        self._names: set[str] = set()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for app in self._apps:
            app.kill()
            print(f"── log of a server (pid {app.pid})\n{app.log}")
        if (pid := self._store_pid()) and alive(pid):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _store_pid(self) -> int:
        try:
            return int((self._folder / "state" / "valkey" / "valkey.pid").read_text())
        except (OSError, ValueError):
            return 0

    def start(self) -> None:
        """Serve, and wait until it answers."""
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")},
            "HEADWAY_SECRET": "the secret of the servers of a test",
            "HEADWAY_STATE_DIR": str(self._folder / "state"),
            "XDG_RUNTIME_DIR": self._runtime,
            "ORDERS": str(self._orders),
            "PYTHONPATH": os.pathsep.join([str(HERE), *os.environ.get("PYTHONPATH", "").split()]),
            **{name: str(value) for name, value in self._settings.items()},
        }
        bind = f"127.0.0.1:{self._port}"
        command = [sys.executable, "-m", "hypercorn", "shop:app", "-w", "0", "--bind", bind]
        log = self._folder / f"server{len(self._apps)}.log"
        self._apps.append(App(command, self._port, log, HERE, **env))
        self._apps[-1].await_answer()

    def end(self, number: signal.Signals) -> None:
        """End the server by a signal, and wait until it is gone."""
        app = self._apps[-1]
        if number is not signal.SIGKILL:
            app.send(number)
            app.process.wait(DEADLINE_S)
        app.kill()

    def store(self) -> redis.Redis:
        """Its store, while it serves."""
        path = next(Path(self._runtime).rglob("*.sock"))
        return redis.Redis.from_url(f"unix://{path}", decode_responses=True)

    def streams(self) -> int:
        """How many event streams the server has open."""
        return int(self._apps[-1].http.get("/streams").json()["open"])

    def tell(self, name: str, **orders: Any) -> None:
        """Order what the job of this name has to do: `total`, `to`, `note`, `end`, `fail`, `hold`.

        All orders at once: what is left out is taken back.
        """
        self._names.add(name)
        draft = self._orders / f".{name}"
        draft.write_text(json.dumps(orders))
        draft.replace(self._orders / name)

    def finish(self) -> None:
        """Let every job end that was begun or told something."""
        for name in list(self._names):
            self.tell(name, end=True)
        self._names.clear()

    async def begin(self, page: Page, name: str, **form: str) -> str:
        """Start a job as the visitor of *page*; returns its id."""
        self._names.add(name)
        answer = await page.context.request.post(
            f"{self.url}/start",
            form={"name": name, **form},
            headers={"Accept": "application/json"},
        )
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["id"])

    async def watch(self, page: Goes, *ids: str, **attributes: str) -> None:
        """Open the page with the bars of these jobs; `lang` and `dir` are those of the page."""
        asked = [*(("id", job_id) for job_id in ids), *attributes.items()]
        await page.goto(f"{self.url}/watch?{urlencode(asked)}")

    async def bare(self, page: Goes, markup: str) -> None:
        """Open a page with this markup in it."""
        await page.goto(f"{self.url}/bare?{urlencode({'markup': markup})}")
