"""logging: what is logged in a job becomes lines of the job's log.

No handler is added to any logger: `basicConfig()`, the handler of last resort and loggers that do
not propagate behave as ever. What the levels and filters of the app's loggers let through is heard.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headway.capture._jobs import THREADS, capturing
from headway.capture._patch import Method, Patch
from headway.progress import Progress

__all__ = ["installed"]

_OWN: Final = "headway"


def _call_handlers(original: Method) -> Method:
    @functools.wraps(original)
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802
        progress = capturing("logging")
        if progress is not None and record.levelno >= logging.INFO and not _own(record):
            _report(progress, record)
        original(self, record)

    return callHandlers


def _own(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == _OWN


def _report(progress: Progress, record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:  # of bad arguments the app's own handlers tell
        message = str(record.msg)
    level = "" if record.levelno == logging.INFO else f"{record.levelname} "
    # Not `log()`, which raises in a job that is to stop: nobody expects that of a line.
    progress.add_line(f"{level}{message}")
    progress.news_of_end()


_LOGGERS: Final = Patch((logging.Logger, "callHandlers", _call_handlers))


@contextmanager
def installed() -> Iterator[None]:
    """While the block runs, what is logged in jobs which capture "logging" is heard."""
    with THREADS, _LOGGERS:
        yield
