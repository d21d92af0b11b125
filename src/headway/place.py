"""Where the jobs are: what the options of a command name, opened. A store, or a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from headway.app import Headway
from headway.errors import BadInput
from headway.following import Source

__all__ = ["SERVER", "headers_of", "named", "opened"]

SERVER: Final = ("http://", "https://")
"""How the addresses of servers begin; all others are stores."""


@asynccontextmanager
async def opened(shares: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Source]:
    """The server or the store that the options name."""
    headers, url = headers_of(**options), options["url"] or ""
    if url.startswith(SERVER):
        from headway.client import Client

        async with Client(url, headers=headers, shares=shares) as client:
            yield client
        return
    if headers:
        raise BadInput("--header and --cookie are for a server: give its --url, http(s)://…")
    from headway.direct import Direct

    folder = options["state_dir"] or Path(".headway")
    if not url and not folder.exists():
        raise BadInput(
            f"there is no store in {folder}: say where the jobs are, with --url or --state-dir"
        )
    names = ("url", "prefix", "state_dir")
    async with Headway(**{name: options[name] for name in names if options[name]}) as headway:
        yield Direct(headway)


def headers_of(
    *, headers: tuple[str, ...] = (), cookie: str | None = None, **_: Any
) -> dict[str, str]:
    """What the options say that each request has to carry.

    Raises:
        BadInput: one of them is no header.
    """
    found: dict[str, str] = {}
    for one in headers:
        name, colon, value = one.partition(":")
        if not colon or not name.strip():
            raise BadInput("--header: give it as 'NAME: VALUE'")  # its value may be secret
        found[name.strip().title()] = value.strip()
    return found | ({"Cookie": cookie} if cookie else {})


def named(
    ids: tuple[str, ...], options: dict[str, Any]
) -> tuple[list[str], tuple[str, ...], dict[str, Any]]:
    """The ids, the shares, and the options: an address says all of these."""
    if not any("://" in one for one in ids):
        return list(ids), (), options
    from headway.client import address

    parts = [address(one) if "://" in one else (None, one, None) for one in ids]
    bases = {base for base, _, _ in parts if base is not None}
    if len(bases) > 1:
        raise BadInput(f"these are jobs of several servers: {', '.join(sorted(bases))}")
    shares = tuple(share for _, _, share in parts if share)
    return [name for _, name, _ in parts], shares, {**options, "url": bases.pop()}
