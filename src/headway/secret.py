"""The secret that signs: generated and kept, or given and checked."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["kept_secret", "weak"]

FILE: Final = "secret"
LEAST_CHARS: Final = 16
_DEFAULTS: Final = ("changeme", "secretkey", "yoursecret", "supersecret", "insecure", "development")


def kept_secret(folder: Path) -> str:
    """The secret of this state folder, made on first use; only its user can read it."""
    path = folder / FILE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # It gets its name when it is whole: another process may look for it at this moment.
        draft = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text()


def weak(given: Sequence[str]) -> str | None:
    """The first of the secrets that anybody could guess; None if there is none."""
    for one in given:
        word = "".join(c for c in one.lower() if c.isalnum())
        if len(one) < LEAST_CHARS or word.startswith(_DEFAULTS):
            return one
    return None
