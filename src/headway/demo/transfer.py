"""A transfer: a file goes over a real TCP connection to a small server, which packs it.

All of it is `async def`. Files and digests go through `asyncio.to_thread`, so that the loop, and
with it every other visitor, is never kept waiting.
"""

from __future__ import annotations

import asyncio
import zlib
from asyncio import StreamReader, StreamWriter
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import BinaryIO, Final

from headway import JobError, Progress
from headway.demo.shelf import Facts, Folder, Outcome

__all__ = ["send_file"]

MB: Final = 1_000_000
LEVEL: Final = 7
GZIP: Final = 31  # zlib's number for a gzip stream with the largest window
_WORDS: Final = ("lantern", "meadow", "copper", "signal", "orchard", "compass", "beacon", "tide")


async def send_file(progress: Progress, folder: Folder, megabytes: int) -> Outcome:
    """Write a file of *megabytes* MB, send it to a local server, and compare the digests."""
    source, target = folder / "backup.bin", folder / "backup.bin.gz"
    progress.note("Writing the file")
    for number in range(megabytes):
        await asyncio.to_thread(_write_block, source, number)
    progress.set(total=megabytes, unit="megabyte")
    sent, received = await _through_a_socket(progress, source, target)
    if sent != received:
        raise JobError("The copy differs from the original", code="digest")
    source.unlink()
    link = folder.link(target.name)
    facts: Facts = {"megabytes sent": megabytes, "sha256": sent}
    return Outcome(facts=facts, url=link["url"], files=[link])


def _write_block(path: Path, number: int) -> None:
    random = Random(number)  # noqa: S311  # the same file every time
    entries = [f"{random.getrandbits(96):024x} {random.choice(_WORDS)}" for _ in range(4_000)]
    lines = "\n".join(random.choices(entries, k=MB // 28)).encode()
    with path.open("ab") as file:
        file.write(lines.ljust(MB, b"\n")[:MB])


async def _through_a_socket(progress: Progress, source: Path, target: Path) -> tuple[str, str]:
    receiver = _Receiver(target)
    server = await asyncio.start_server(receiver.take, "127.0.0.1", 0, limit=MB)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        try:
            sent = await _send(progress, source, writer)
            received = (await reader.read()).decode()
        finally:
            writer.close()
            await receiver.ended.wait()
    return sent, received


async def _send(progress: Progress, source: Path, writer: StreamWriter) -> str:
    digest, sent = sha256(), 0
    with await asyncio.to_thread(source.open, "rb") as file:
        while block := await asyncio.to_thread(file.read, MB):
            await asyncio.to_thread(digest.update, block)
            writer.write(block)
            await writer.drain()
            sent += len(block)
            progress.advance(len(block) / MB)
            progress.note(f"{sent:,} bytes sent")
    writer.write_eof()
    return digest.hexdigest()


class _Receiver:
    """The other end: packs what comes, and answers with the digest of it."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.ended = asyncio.Event()

    async def take(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            with await asyncio.to_thread(self._target.open, "wb") as file:
                writer.write((await self._pack(reader, file)).encode())
                await writer.drain()
        except ConnectionError:
            pass  # the sender was cancelled
        finally:
            writer.close()
            self.ended.set()

    async def _pack(self, reader: StreamReader, file: BinaryIO) -> str:
        digest, packer = sha256(), zlib.compressobj(LEVEL, wbits=GZIP)
        while block := await reader.read(MB):
            await asyncio.to_thread(digest.update, block)
            file.write(await asyncio.to_thread(packer.compress, block))
        file.write(await asyncio.to_thread(packer.flush))
        return digest.hexdigest()
