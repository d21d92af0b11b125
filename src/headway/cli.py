"""The `headway` command: parse, call, print.

One of the two rooms that read the environment (the doors are the other). Flags win over it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from headway import __version__
from headway.app import Headway
from headway.errors import HeadwayError
from headway.job import EVERYONE, Job

__all__ = ["main"]

T = TypeVar("T")
PORT: Final = 5000

_where = [
    click.option(
        "--url",
        envvar="HEADWAY_URL",
        help="Store, such as redis://localhost:6379. Default: the embedded one of --state-dir.",
    ),
    click.option("--prefix", envvar="HEADWAY_PREFIX", default="headway", show_default=True),
    click.option(
        "--state-dir",
        envvar="HEADWAY_STATE_DIR",
        type=click.Path(path_type=Path),
        help="Folder of the embedded store. Default: .headway in the working directory.",
    ),
]


def _store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_where):
        command = option(command)
    return command


def _with(options: dict[str, Any], use: Callable[[Headway], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with Headway(**options) as headway:
            return await use(headway)

    try:
        return asyncio.run(opened())
    except HeadwayError as error:
        raise click.ClickException(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="headway")
def main() -> None:
    """Long work behind an async web app, and its progress live."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65_535))
@_store_options
def demo(host: str, port: int, **options: Any) -> None:
    """Serve a page where several kinds of real work can be started and watched."""
    from headway.demo import make_app

    given = {name: value for name, value in options.items() if value is not None}
    try:
        app = make_app(**given)
    except HeadwayError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"The demo is at http://{host}:{port}/  (Ctrl-C ends it)")
    app.run(host=host, port=port, use_reloader=False)


@main.command("list")
@click.option("--owner", default=EVERYONE, help="Whose jobs; default: those that everyone may see.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@_store_options
def list_(owner: str, limit: int, **options: Any) -> None:
    """List the newest jobs of an owner."""
    for job in _with(options, lambda headway: headway.list(owner=owner, limit=limit)):
        click.echo(_line(job))


@main.command()
@click.argument("job_id", metavar="ID")
@_store_options
def cancel(job_id: str, **options: Any) -> None:
    """Ask a job to stop, wherever it runs."""
    click.echo(_line(_with(options, lambda headway: headway.cancel(job_id))))


@main.command()
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@_store_options
def watch(ids: tuple[str, ...], **options: Any) -> None:
    """Watch jobs until they have ended. Exits with 1 if one did not succeed."""
    if not _with(options, lambda headway: _watch(headway, ids)):
        sys.exit(1)


async def _watch(headway: Headway, ids: tuple[str, ...]) -> bool:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    )
    last: dict[str, Job] = {}
    with Progress(*columns) as bars:
        rows = {i: bars.add_task(i, total=1, said="") for i in ids}
        async for job in headway.watch(*ids):
            last[job.id] = job
            ratio = job.progress.ratio
            bars.update(
                rows[job.id],
                description=job.title,
                completed=ratio or 0,
                total=1 if ratio is not None or job.state.terminal else None,
                said=_said(job),
            )
    return all(job.state == "succeeded" for job in last.values())


def _line(job: Job) -> str:
    return f"{job.id}  {job.state:<9}  {job.title}  {_said(job)}".rstrip()


def _said(job: Job) -> str:
    ratio = job.progress.ratio
    parts = [f"{ratio * 100:.0f} %"] if ratio is not None else []
    if job.error is not None and job.state == "failed":
        parts.append(job.error.title)
    elif job.cancel_requested and not job.state.terminal:
        parts.append("cancelling")
    elif job.note:
        parts.append(job.note)
    return "  ".join([str(job.state), *parts]) if job.state.terminal else "  ".join(parts)
