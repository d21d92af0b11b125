"""The options of `Headway`: their defaults, their units, their ranges. Pure.

One frozen value, made before anything opens, so that a wrong option is told at once and not when
the first job starts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from headway.engine import Engine
from headway.errors import BadInput
from headway.keys import Keys
from headway.limits import Limits

__all__ = ["Ask", "Settings"]

PREFIX: Final = "headway"
LEASE_S: Final = 10.0
DRAIN_S: Final = 0.5  # with what follows, Ctrl-C ends a server in well under two seconds
KEEP_S: Final = 86_400.0
CONCURRENCY: Final = 32
STATE_DIR: Final = ".headway"

Ask = Callable[[Any], Any]
"""Given the framework's request, says who asks; may be async."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an app has chosen. See `Headway` for the meaning of each."""

    url: str | None = field(default=None, repr=False)  # there may be a password in it
    prefix: str = PREFIX
    state_dir: str | os.PathLike[str] | None = None
    engine: Engine | None = None
    identify: Ask | None = None
    operator: Ask | None = None
    rate_key: Ask | None = None
    secret: str | bytes | Sequence[str | bytes] | None = field(default=None, repr=False)
    origins: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    lease_s: float = LEASE_S
    drain_s: float = DRAIN_S
    keep_s: float = KEEP_S
    concurrency: int = CONCURRENCY
    path: str = "/jobs"
    works: bool = False  # it was opened as a worker of an engine that has some

    def __post_init__(self) -> None:
        for name, least in (("lease_s", 1.0), ("keep_s", 1.0), ("drain_s", 0.0)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise BadInput(f"{name} {value!r}: give seconds, at least {least:g}")
        if self.concurrency < 1:
            raise BadInput(f"concurrency {self.concurrency!r}: give 1 or more")
        if not self.path.startswith("/") or not self.path.strip("/"):
            raise BadInput(f"path {self.path!r}: give where the surface is mounted, like '/jobs'")
        if self.secret is not None and (not self.secrets or not all(self.secrets)):
            raise BadInput("secret is empty: give random text, or leave it out")
        for origin in self.origins:
            parts = urlsplit(origin)
            whole = parts.scheme in {"http", "https"} and parts.hostname and "*" not in origin
            if not whole or f"{parts.scheme}://{parts.netloc}" != origin:
                raise BadInput(f"origin {origin!r}: give it whole, like 'https://app.example'")
        Keys(self.prefix, 1)  # refuses a prefix that keys cannot begin with

    @property
    def mount(self) -> str:
        """The path without a slash at its end."""
        return self.path.rstrip("/")

    @property
    def folder(self) -> Path:
        """Where the embedded Valkey and the generated secret live."""
        return Path(self.state_dir) if self.state_dir is not None else Path.cwd() / STATE_DIR

    @property
    def secrets(self) -> list[str]:
        """The secrets that were given, oldest first."""
        if self.secret is None:
            return []
        given = [self.secret] if isinstance(self.secret, (str, bytes)) else self.secret
        return [one.decode("latin-1") if isinstance(one, bytes) else one for one in given]
