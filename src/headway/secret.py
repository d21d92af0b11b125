"""The secret that signs: generated and kept, or given and checked."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from headway.errors import BadInput

__all__ = ["kept_secret", "weak"]

FILE: Final = "secret"
LEAST_CHARS: Final = 16
LEAST_DIFFERENT: Final = 6  # hexadecimal digits, the poorest of random texts, have more
_DEFAULTS: Final = (
    "changeme", "changethis", "replaceme", "default", "secretkey", "mysecret", "yoursecret",
    "yoursupersecret", "supersecret", "notsosecret", "insecure", "djangoinsecure", "password",
    "development", "flasksecret", "quartsecret", "headwaysecret", "0123456789", "1234567890",
    "abcdefgh", "qwertyuiop",
)  # fmt: skip


def kept_secret(folder: Path) -> str:
    """The secret of this state folder, made on first use; only its user can read it.

    Raises:
        BadInput: what stands there is no secret.
    """
    path = folder / FILE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    found = path.read_text()
    if weak([found]) is not None:
        raise BadInput(
            f"what stands in {path} is no secret of ours: too short, or easy to guess. Remove the "
            "file, and a new one is made; visitors will get new names."
        )
    return found


def _make(path: Path) -> None:
    # It gets its name when it is whole: another process may look for it at this moment.
    draft = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def weak(given: Sequence[str]) -> int | None:
    """Which of the secrets anybody could guess, counted from 0; None if there is none."""
    for number, one in enumerate(given):
        word = "".join(c for c in one.lower() if c.isalnum())
        short = len(one) < LEAST_CHARS or len(set(one)) < LEAST_DIFFERENT
        if short or word.startswith(_DEFAULTS):
            return number
    return None
