"""Looks at this machine: is all here that Headway needs, and is the store set up for it?"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from headway import __version__
from headway._address import url_of
from headway.app import Headway
from headway.condition import OLDEST, Condition, condition
from headway.diagnosis import Finding
from headway.errors import HeadwayError
from headway.secret import weak
from headway.server import Server
from headway.settings import STATE_DIR

__all__ = ["checkup"]

FRAMEWORKS: Final = ("quart", "starlette", "fastapi")
HOW_TO_SIGN: Final = (
    "Set HEADWAY_SECRET, the same in all processes, to: "
    "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
)


async def checkup(url: str | None, prefix: str, state_dir: Path | None) -> AsyncIterator[Finding]:
    """What is found, as it is found."""
    yield _here()
    for finding in _secret(own_store=url is not None):
        yield finding
    try:
        if url is not None:
            for finding in await _store(url_of(url), prefix, embedded=False):
                yield finding
            return
        folder = state_dir or Path.cwd() / STATE_DIR
        yield _folder(folder)
        # Where there is no folder yet, none is made: the server shows elsewhere that it runs.
        with tempfile.TemporaryDirectory() as elsewhere:
            server = Server(folder if folder.is_dir() else Path(elsewhere))
            address = await asyncio.to_thread(server.open)
            try:
                for finding in await _store(address, prefix, embedded=True):
                    yield finding
            finally:
                await asyncio.to_thread(server.close)
    except HeadwayError as error:
        yield Finding("wrong", "store", str(error))


def _here() -> Finding:
    found = []
    for name in FRAMEWORKS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    said = f"Headway {__version__}, Python {platform.python_version()}"
    return Finding("ok", "here", ", ".join([said, *found]) + ".")


def _secret(*, own_store: bool) -> Iterator[Finding]:
    given = os.environ.get("HEADWAY_SECRET")
    if given is not None:
        if weak([given]) is None:
            yield Finding("ok", "secret", "HEADWAY_SECRET is set.")
        else:
            said = "HEADWAY_SECRET is a default, or short: who guesses it can sign in as anybody."
            yield Finding("wrong", "secret", said, HOW_TO_SIGN)
    elif own_store:
        said = "HEADWAY_SECRET is not set: an app with a store of its own needs one, or secret=."
        yield Finding("note", "secret", said, HOW_TO_SIGN)
    else:
        yield Finding("ok", "secret", "Not set: with the embedded store one is made and kept.")


def _folder(folder: Path) -> Finding:
    if folder.is_dir():
        if os.access(folder, os.W_OK | os.X_OK):
            return Finding("ok", "folder", f"{folder} can be written.")
        cure = "Give it to the user of the app, or name another one: HEADWAY_STATE_DIR."
        return Finding("wrong", "folder", f"{folder} cannot be written.", cure)
    above = next(one for one in folder.absolute().parents if one.is_dir())
    if os.access(above, os.W_OK | os.X_OK):
        return Finding("ok", "folder", f"{folder} is not there yet; the first start makes it.")
    cure = "Name a folder that the app's user can write: HEADWAY_STATE_DIR."
    return Finding("wrong", "folder", f"{folder} cannot be made: {above} is not ours.", cure)


async def _store(url: str, prefix: str, *, embedded: bool) -> list[Finding]:
    found = await condition(url)
    async with Headway(url, prefix=prefix) as headway:
        took_ms = await headway.ping() * 1000
        hears = headway.hub.live
    name = "Valkey" if found.kind == "valkey" else "Redis"
    which = f"{'Embedded ' if embedded else ''}{name} {found.version or '(of a version not told)'}"
    findings = [Finding("ok", "store", f"{which} answers in {took_ms:.1f} ms.")]
    if not hears:
        cure = "May its user subscribe? docs/security.md has the rights that are needed."
        findings.append(Finding("wrong", "store", "Its announcements do not come.", cure))
    return [*findings, *_setup(found)]


def _setup(found: Condition) -> Iterator[Finding]:
    if found.too_old:
        least = ".".join(map(str, OLDEST[found.kind]))
        yield Finding("wrong", "store", f"It is too old: {least} or newer is needed.")
    if found.replica:
        cure = "Point HEADWAY_URL at the primary."
        yield Finding("wrong", "store", "It is a replica, which cannot be written.", cure)
    if found.policy is None:
        said = "What it does when its memory is full is not told (INFO is not allowed)."
        yield Finding("note", "memory", said)
    elif found.policy == "noeviction":
        yield Finding("ok", "memory", "Full, it refuses to write, and forgets no job (noeviction).")
    else:
        said = f"Full, it forgets jobs (maxmemory-policy {found.policy})."
        cure = "Set maxmemory-policy to noeviction, or give Headway a store of its own."
        yield Finding("wrong", "memory", said, cure)
    if found.appends:
        yield Finding("ok", "disk", "It keeps an append-only file: a crash costs a second at most.")
    elif found.appends is False:
        said = "It keeps no append-only file: if it crashes, jobs since the last snapshot are lost."
        yield Finding("note", "disk", said, "Set appendonly yes.")
