"""What runs in a child process: the code of one task, and what is said of it to the parent.

They talk through one pipe, in JSON. The child counts with an ordinary `Progress` and sends its
news; it hears one word at most: stop. If its parent is gone, it ends itself.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec

from headway._captures import captured
from headway.context import About, Context, about
from headway.errors import BadInput, HeadwayError, JobCancelled, JobError, TooLarge
from headway.job import Job
from headway.limits import Limits
from headway.progress import News, Progress, _current
from headway.task import Start, Task, make_task
from headway.telemetry import joined
from headway.work import INTERRUPT_S, carried, interrupt_thread, result_json

__all__ = ["Said", "encode", "run_child"]

REPORT_S: Final = 0.1

encode = msgspec.json.Encoder().encode


class Said(msgspec.Struct, omit_defaults=True):
    """One message of the child."""

    progress: str = ""
    checkpoint: str = ""
    number: int = 0
    lines: tuple[str, ...] = ()
    over: bool = False
    result: str = ""
    kind: str = ""
    text: str = ""
    code: str = ""


class _Child:
    """The child's side of the pipe."""

    def __init__(self, pipe: Connection, progress: Progress) -> None:
        self._pipe = pipe
        self._progress = progress
        self._main = threading.get_ident()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def open(self) -> None:
        for serve in (self._report, self._obey):
            threading.Thread(target=serve, daemon=True).start()

    def end(self, said: Said) -> None:
        """Say the last word, with all that was not said yet."""
        self._over.set()
        with self._lock:
            news = self._progress.take()
            said.progress = self._progress.final(succeeded=False)
            said.checkpoint = news.checkpoint
            said.number, said.lines = news.lines.number, tuple(news.lines.texts)
            said.over = True
            self._send(said)

    def _report(self) -> None:
        while not self._over.wait(REPORT_S):
            with self._lock:
                if self._over.is_set():
                    return
                news = self._progress.take()
                if news.progress:
                    self._send(_said(news))
                    self._progress.wrote(news)

    def _send(self, said: Said) -> None:
        try:
            self._pipe.send_bytes(encode(said))
        except OSError:
            os._exit(1)  # nobody is there to hear it

    def _obey(self) -> None:
        try:
            why = self._pipe.recv_bytes().decode()
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone: this attempt is no longer anybody's
        self._progress.stop(why, raises=True)
        if not self._over.wait(INTERRUPT_S) and not self._progress.told(self._main):
            interrupt_thread(self._main)
        self._obey()


def _said(news: News) -> Said:
    number, lines = news.lines
    return Said(news.progress, news.checkpoint, number, tuple(lines))


def run_child(pipe: Connection, order: str) -> None:
    """All that a child does: *order* is what `ProcessWork` tells of its task, in JSON."""
    # Ctrl-C in a terminal reaches the whole group; it is the parent who decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    said = msgspec.json.decode(order)
    progress = Progress(
        job_id=said["job_id"],
        owner=said["owner"],
        attempt=said["attempt"],
        checkpoint=said["checkpoint"],
        stall_s=said["stall_s"],
        limits=msgspec.convert(said["limits"], Limits),
        captures=frozenset(said["captures"]),
    )
    side = _Child(pipe, progress)
    side.open()
    context = Context.decoded(said["context"])
    told = About(said["job_id"], said["task"], said["attempt"], context.request_id)
    try:
        with about(told), joined(context):
            last = Said(result=_run(said["place"], said["args"], progress))
    except BaseException as error:
        last = _last_word(error)
    try:
        side.end(last)
    except JobCancelled:  # an interruption that came when the work was just over
        side.end(last)


def _run(place: tuple[str, str], args: str, progress: Progress) -> str:
    module, name = place
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    task: Task[..., Any] = found if isinstance(found, Task) else make_task(found, _never)
    given, named = task.decode(args)
    _current.set(progress)
    first = [progress] if task.takes_progress else []
    with captured(progress.captures):
        value = task.function(*first, *given, **named)
        if asyncio.iscoroutine(value):
            value = asyncio.run(value)
    return result_json(task.name, value, progress.limits.result_bytes)


async def _never(start: Start) -> Job:
    raise HeadwayError(f"task {start.task} was started in a child process: start it in the app")


def _last_word(error: BaseException) -> Said:
    if isinstance(error, asyncio.CancelledError):
        return Said(kind="cancelled", text=str(error))
    if isinstance(error, JobError):
        return Said(kind="job_error", text=str(error), code=error.code)
    if isinstance(error, TooLarge):
        return Said(kind="too_large", text=str(error))
    text = "".join(traceback.format_exception(carried(error)))
    if isinstance(error, BadInput):
        return Said(kind="bad_input", text=text)
    return Said(kind="failed", text=text, code=type(error).__qualname__)
