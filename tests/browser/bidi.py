"""A Firefox, spoken to by WebDriver BiDi over its own socket: no driver stands between.

Source: W3C, WebDriver BiDi; the methods and their parameters are named as there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.apps.process import wait_until

__all__ = ["Firefox", "Tab", "open_firefox"]


class Firefox:
    """What is sent to one Firefox, and what it complains of: errors and warnings of its pages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command; returns its result, or raises what Firefox says against it."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters}
        await self._socket.send(json.dumps(command))
        said = await asyncio.wait_for(answer, 30)
        if said["type"] == "error":
            raise RuntimeError(f"{method}: {said['error']}: {said['message']}")
        return dict(said["result"])

    async def hear(self) -> None:
        """Take what comes, until the connection ends."""
        async for text in self._socket:
            said = json.loads(text)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            elif said["params"].get("level") in {"error", "warn"}:
                self.complaints.append(said["params"]["text"])

    async def open(self, visitor: str | None = None) -> Tab:
        """Open a tab in sight: of a new visitor, or of one who has another."""
        visitor = visitor or (await self.send("browser.createUserContext"))["userContext"]
        made = await self.send("browsingContext.create", type="tab", userContext=visitor)
        return Tab(self, made["context"], visitor)


@dataclass
class Tab:
    """One tab. What it is told to run is not subject to the policy of its page."""

    firefox: Firefox
    id: str
    visitor: str

    async def goto(self, url: str) -> None:
        where = {"context": self.id, "url": url}
        await self.firefox.send("browsingContext.navigate", **where, wait="complete")

    async def run(self, code: str) -> Any:
        """The value of an expression, awaited; it has to be JSON."""
        code = f"(async () => JSON.stringify((await ({code})) ?? null))()"
        target = {"context": self.id}
        said = await self.firefox.send(
            "script.evaluate", expression=code, target=target, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(f"{code}: {said['exceptionDetails']['text']}")
        return json.loads(said["result"]["value"])

    async def click(self, element: str) -> None:
        """Press the middle of what this expression gives, as a hand would."""
        box = await self.run(f"{element}.getBoundingClientRect()")
        place = {"x": int(box["x"] + box["width"] / 2), "y": int(box["y"] + box["height"] / 2)}
        press = [{"type": way, "button": 0} for way in ("pointerDown", "pointerUp")]
        steps = [{"type": "pointerMove", **place}, *press]
        mouse = {"type": "pointer", "id": "mouse", "actions": steps}
        await self.firefox.send("input.performActions", context=self.id, actions=[mouse])

    async def picture(self) -> bytes:
        """What is seen of the page, as PNG."""
        said = await self.firefox.send("browsingContext.captureScreenshot", context=self.id)
        return base64.b64decode(said["data"])

    async def show(self) -> None:
        """Bring it before the others, which are hidden then."""
        await self.firefox.send("browsingContext.activate", context=self.id)

    async def close(self) -> None:
        await self.firefox.send("browsingContext.close", context=self.id)


@contextlib.asynccontextmanager
async def open_firefox(
    path: str, profile: Path, preferences: Mapping[str, object]
) -> AsyncIterator[Firefox]:
    """Start one without a window, on a new *profile*; afterwards it is gone."""
    lines = (f"user_pref({json.dumps(n)}, {json.dumps(v)});\n" for n, v in preferences.items())
    (profile / "user.js").write_text("".join(lines))
    command = [path, "--headless", "--remote-debugging-port=0", "--profile", str(profile)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        told = profile / "WebDriverBiDiServer.json"
        text = wait_until("Firefox listens", lambda: told.exists() and told.read_text())
        address = f"ws://127.0.0.1:{json.loads(str(text))['ws_port']}/session"
        async with connect(address, max_size=None) as socket:
            firefox = Firefox(socket)
            hearing = asyncio.create_task(firefox.hear())
            await firefox.send("session.new", capabilities={})
            await firefox.send("session.subscribe", events=["log.entryAdded"])
            yield firefox
        await hearing
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
