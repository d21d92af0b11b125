"""The work of a child process: CPU work beside the server, which can really be killed.

The parent hands the news of its child to the beat thread, and sends one word at most: stop.
Children are spawned, never forked: the parent has threads.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec

from headway.acts import NO_LINES, Lines
from headway.child import Said, encode, run_child
from headway.context import Context
from headway.errors import BadInput, HeadwayError, JobCancelled, JobError, TooLarge
from headway.job import Reading
from headway.limits import LIMITS, LOG_LINES, Limits
from headway.progress import News
from headway.task import Task, place_of

__all__ = ["ProcessDied", "ProcessWork", "TaskFailed"]

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


_decode_said = msgspec.json.Decoder(Said).decode


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

    def heard(self, said: Said) -> None:
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
                self._progress or encode(Reading()).decode() if new else "",
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
        return encode(last).decode()

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
        self._done: asyncio.Future[Said | None] = self._loop.create_future()
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
            target=run_child,
            args=(there, encode(order).decode()),
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
        last: Said | None = None
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

    def _tell(self, said: Said | None) -> None:
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


def _error_of(said: Said) -> BaseException:
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
