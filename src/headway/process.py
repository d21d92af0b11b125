"""The work of a child process: CPU work beside the server, which can really be killed.

Parent and child talk through one pipe, in JSON. The child counts with an ordinary `Progress` and
sends its news; the parent hands them to the beat thread, and sends one word at most: stop. A child
whose parent is gone ends itself. Children are spawned, never forked: the parent has threads.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec

from headway._captures import captured
from headway.acts import NO_LINES, Lines
from headway.context import About, Context, about
from headway.errors import BadInput, HeadwayError, JobCancelled, JobError, TooLarge
from headway.job import Job, Reading
from headway.limits import LIMITS, LOG_LINES, Limits
from headway.progress import News, Progress, _current
from headway.task import Start, Task, make_task, place_of
from headway.telemetry import joined
from headway.work import INTERRUPT_S, carried, interrupt_thread, result_json

__all__ = ["ProcessDied", "ProcessWork", "TaskFailed"]

REPORT_S: Final = 0.1
KILL_S: Final = 5.0  # what a child gets to clean up after it was asked to stop
JOIN_S: Final = 2.0

logger = logging.getLogger("headway.process")


class ProcessDied(HeadwayError):
    """The child ended without a word: killed, out of memory, or crashed."""

    def __init__(self, exitcode: int | None) -> None:
        self.how = _how(exitcode)
        super().__init__(f"the process of the task {self.how}")


class TaskFailed(HeadwayError):
    """The code in the child raised; its traceback is the message, *kind* the name of its class."""

    def __init__(self, trace: str, kind: str = "") -> None:
        super().__init__(trace)
        self.kind = kind


class _Said(msgspec.Struct, omit_defaults=True):
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


_decode_said = msgspec.json.Decoder(_Said).decode
_encode = msgspec.json.Encoder().encode


class _Relay:
    """The news of a child, as the parent's beat thread takes them."""

    def __init__(self, checkpoint: str | None, log_lines: int = LOG_LINES) -> None:
        self._lock = threading.Lock()
        self._log_lines = log_lines
        self._progress = ""
        self._checkpoint = checkpoint or ""
        self._lines: list[str] = []
        self._number = 0
        self._dirty = False
        self._marked = False

    def heard(self, said: _Said) -> None:
        with self._lock:
            if said.progress:
                self._progress, self._dirty = said.progress, True
            if said.checkpoint:
                self._checkpoint, self._marked = said.checkpoint, True
            self._lines.extend(said.lines)
            self._drop(len(self._lines) - self._log_lines)

    def take(self) -> News:
        with self._lock:
            new = self._dirty or self._marked or self._lines
            news = News(
                self._progress or _encode(Reading()).decode() if new else "",
                self._checkpoint if self._marked else "",
                Lines(self._number, tuple(self._lines)),
            )
            self._dirty = self._marked = False
            return news

    def wrote(self, news: News) -> None:
        with self._lock:
            self._drop(news.lines.number + len(news.lines.texts) - self._number)

    def _drop(self, over: int) -> None:
        # Some may have been dropped meanwhile because there were too many: never below 0.
        over = max(over, 0)
        del self._lines[:over]
        self._number += over

    def give_back(self) -> None:
        with self._lock:
            self._dirty, self._marked = bool(self._progress), bool(self._checkpoint)

    def final(self, *, succeeded: bool) -> str:
        with self._lock:
            last = msgspec.json.decode(self._progress or b"{}", type=Reading)
        ratio = 1.0 if succeeded else last.ratio
        last = msgspec.structs.replace(last, ratio=ratio, eta_s=None, stalled=False)
        return _encode(last).decode()

    def last_checkpoint(self) -> str:
        with self._lock:
            return self._checkpoint

    def last_lines(self) -> Lines:
        with self._lock:
            return Lines(self._number, tuple(self._lines)) if self._lines else NO_LINES


class ProcessWork:
    """A task in a child process of its own.

    Asked to stop, the child gets a `JobCancelled` like a thread; it is killed if it still runs
    *kill_s* seconds later, or when this process has to end.
    """

    def __init__(
        self,
        task: Task[..., Any],
        args: str,
        *,
        job_id: str,
        owner: str | None,
        attempt: int,
        checkpoint: str | None,
        stall_s: float | None,
        wake: Any,
        context: Context | None = None,
        kill_s: float | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.source = _Relay(checkpoint, limits.log_lines)
        self._wake = wake
        self._kill_s = KILL_S if kill_s is None else kill_s
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[_Said | None] = self._loop.create_future()
        self._here, there = multiprocessing.Pipe()
        order = {
            "place": place_of(task.function, task.name),
            "args": args,
            "job_id": job_id,
            "owner": owner,
            "attempt": attempt,
            "checkpoint": checkpoint,
            "stall_s": stall_s,
            "task": task.name,
            "context": (context or Context()).encoded(),
            "limits": limits,
            "captures": sorted(task.captures),
        }
        self._process = multiprocessing.get_context("spawn").Process(
            target=_child,
            args=(there, _encode(order).decode()),
            name=f"headway-{task.name}",
            daemon=False,
        )
        self._there = there
        self._begun = False

    async def result(self) -> str:
        if not self._begun:
            self._begun = True
            await asyncio.to_thread(self._start)
        said = await asyncio.shield(self._done)
        await asyncio.to_thread(self._end)
        if said is None:
            raise ProcessDied(self._process.exitcode)
        if said.kind:
            raise _error_of(said)
        return said.result

    def stop(self, why: str) -> None:
        with suppress(OSError, ValueError):
            self._here.send_bytes(why.encode())
        # What lost its lease may be running elsewhere by now: it gets no time.
        self._loop.call_later(0 if why == "lost" else self._kill_s, self.kill)

    def kill(self) -> None:
        """End the child now. Its end is told by the pipe, as any other."""
        with suppress(ValueError):  # it is over, and closed
            if self._process.is_alive():
                self._process.kill()

    def _start(self) -> None:
        with _children_allowed():
            self._process.start()
        self._there.close()  # so that the pipe ends with the child
        threading.Thread(target=self._listen, name="headway-child", daemon=True).start()

    def _listen(self) -> None:
        last: _Said | None = None
        try:
            while last is None:
                said = _decode_said(self._here.recv_bytes())
                self.source.heard(said)
                self._wake()
                if said.over:
                    last = said
        except (EOFError, OSError):
            pass  # the child is gone; what it said last is known
        with suppress(RuntimeError):  # the loop may be gone too
            self._loop.call_soon_threadsafe(self._tell, last)

    def _tell(self, said: _Said | None) -> None:
        if not self._done.done():
            self._done.set_result(said)

    def _end(self) -> None:
        self._process.join(JOIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._here.close()


_allowing = threading.Lock()


@contextmanager
def _children_allowed() -> Iterator[None]:
    # Hypercorn's workers are "daemonic": multiprocessing lets those have no children, because they
    # leave them alone when they end. Ours end by themselves then, so the rule is not for them.
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    with _allowing:
        daemon = config.pop("daemon", None)
        try:
            yield
        finally:
            if daemon is not None:
                config["daemon"] = daemon


def _how(exitcode: int | None) -> str:
    if exitcode is None:
        return "closed its pipe"
    if exitcode < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


def _error_of(said: _Said) -> BaseException:
    match said.kind:
        case "cancelled":
            return JobCancelled(said.text)
        case "job_error":
            return JobError(said.text, code=said.code)
        case "bad_input":
            return BadInput(said.text)
        case "too_large":
            return TooLarge(said.text)
    return TaskFailed(said.text, said.code)


# ── in the child ──────────────────────────────────────────────────────────────────────────────


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

    def end(self, said: _Said) -> None:
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

    def _send(self, said: _Said) -> None:
        try:
            self._pipe.send_bytes(_encode(said))
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


def _said(news: News) -> _Said:
    number, lines = news.lines
    return _Said(news.progress, news.checkpoint, number, tuple(lines))


def _child(pipe: Connection, order: str) -> None:
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
    child = _Child(pipe, progress)
    child.open()
    context = Context.decoded(said["context"])
    told = About(said["job_id"], said["task"], said["attempt"], context.request_id)
    try:
        with about(told), joined(context):
            last = _Said(result=_run(said["place"], said["args"], progress))
    except BaseException as error:
        last = _last_word(error)
    try:
        child.end(last)
    except JobCancelled:  # an interruption that came when the work was just over
        child.end(last)


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


def _last_word(error: BaseException) -> _Said:
    if isinstance(error, asyncio.CancelledError):
        return _Said(kind="cancelled", text=str(error))
    if isinstance(error, JobError):
        return _Said(kind="job_error", text=str(error), code=error.code)
    if isinstance(error, TooLarge):
        return _Said(kind="too_large", text=str(error))
    text = "".join(traceback.format_exception(carried(error)))
    if isinstance(error, BadInput):
        return _Said(kind="bad_input", text=text)
    return _Said(kind="failed", text=text, code=type(error).__qualname__)
