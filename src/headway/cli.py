"""The `headway` command: parse, call, print.

One of the two rooms that read the environment (the doors are the other). Flags win over it. What
only one command needs is imported when it is called, so that `--help` is quick.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from headway import __version__
from headway.errors import BadInput, HeadwayError, JobNotFound
from headway.job import State
from headway.place import SERVER, headers_of, named, opened

if TYPE_CHECKING:
    from headway.following import Entry, Wanted
    from headway.terminal import Screen

__all__ = ["main"]

T = TypeVar("T")
PORT: Final = 5000
STATES: Final = [state.value for state in State]
TICK_S: Final = 0.25
LOST: Final = 3  # a job is not there, or not to be seen
AWAY: Final = 4  # a store or a server is not there
STOPPED: Final = 130  # by Ctrl-C, as shells have it

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
_source = [
    click.option(
        "--url",
        envvar="HEADWAY_URL",
        help="Where the jobs are: a store, such as redis://localhost:6379, or a server, such as "
        "https://example.org/jobs. Default: the embedded store of --state-dir.",
    ),
    *_where[1:],
]
_asking = [
    click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="'NAME: VALUE'",
        help="For a server: sent with each request, such as 'Authorization: Bearer …'.",
    ),
    click.option("--cookie", metavar="'NAME=VALUE; …'", help="For a server: who asks."),
]
_raw = click.option("--json", "raw", is_flag=True, help="One JSON document a line, for scripts.")


def _with(options: list[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return give


def _trouble(error: HeadwayError) -> click.ClickException:
    trouble = click.ClickException(str(error))
    setattr(trouble, "exit_code", _code_of(error))  # noqa: B010 - click's type says: of the class
    return trouble


def _code_of(error: HeadwayError) -> int:
    from headway.client import Denied

    if isinstance(error, BadInput):
        return 2
    return LOST if isinstance(error, (JobNotFound, Denied)) else AWAY


def _run(awaitable: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        return await awaitable()

    try:
        return asyncio.run(run())
    except HeadwayError as error:
        raise _trouble(error) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="headway")
def main() -> None:
    """Long work behind an async web app, and its progress live."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65_535))
@_with(_where)
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


@main.command()
@click.argument("target", metavar="MODULE:HEADWAY")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="Jobs that each process runs at a time. Default: what the Headway says.",
)
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1))
@click.option(
    "--drain-s",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that running jobs get after Ctrl-C or SIGTERM. A second signal cuts them short.",
)
def worker(target: str, concurrency: int | None, processes: int, drain_s: float) -> None:
    """Run the jobs of an app whose engine has workers, such as a TaskiqEngine.

    MODULE:HEADWAY is the app's Headway, such as app:headway, found from the working directory.
    """
    import logging

    from headway.worker import Supervisor, find, work

    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        headway = find(target)
        headway.check_workers()
    except HeadwayError as error:
        raise _trouble(error) from error
    if processes == 1:
        _run(lambda: work(headway, concurrency=concurrency, drain_s=drain_s))
        return
    each = [] if concurrency is None else ["--concurrency", str(concurrency)]
    command = [sys.executable, "-m", "headway", "worker", target, "--drain-s", str(drain_s), *each]
    Supervisor(command, processes).run()


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────


@main.command("list")
@click.option("--owner", help="Only this owner's jobs.")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--task", help="Only jobs of this task.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All of them, and not the newest only. Of a server: everybody's, which operators may see.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@_raw
@_with([*_source, *_asking])
def list_(
    *,
    owner: str | None,
    state: str | None,
    task: str | None,
    everything: bool,
    limit: int,
    raw: bool,
    **options: Any,
) -> None:
    """List jobs: what lives, the newest first, then what has ended, the latest first."""
    from headway.following import Wanted

    wanted = Wanted(owner, state, task, everything)
    entries = _run(lambda: _entries(wanted, None if everything else limit, options))
    if raw:
        for entry in entries:
            click.echo(json.dumps({"owner": entry.owner, **entry.job}, ensure_ascii=False))
        return
    from rich.console import Console

    from headway.terminal import line, table

    console = Console()
    if console.is_terminal:
        console.print(table(entries, console, time.time()) if entries else "No jobs.")
        return
    for entry in entries:
        click.echo(line(entry.job, time.time()))


async def _entries(wanted: Wanted, limit: int | None, options: dict[str, Any]) -> list[Entry]:
    found: list[Entry] = []
    async with opened(**options) as source, aclosing(source.entries(wanted)) as entries:
        async for entry in entries:
            found.append(entry)
            if len(found) == limit:
                break
    return found


@main.command()
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@_raw
@_with([*_source, *_asking])
def cancel(ids: tuple[str, ...], *, raw: bool, **options: Any) -> None:
    """Ask jobs to stop, wherever they run. An ID may be the address of a job, too."""
    from headway.terminal import line

    async def ask() -> None:
        names, shares, where = named(ids, options)
        async with opened(shares, **where) as source:
            for name in names:
                job = await source.cancel(name)
                said = json.dumps(job, ensure_ascii=False) if raw else line(job, time.time())
                click.echo(said)

    _run(ask)


@main.command()
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@_raw
@_with([*_source, *_asking])
def watch(ids: tuple[str, ...], *, raw: bool, **options: Any) -> None:
    """Watch jobs until they have ended. An ID may be the address of a job, or a shared link.

    Exits with 0 if all have succeeded, 1 if one has failed or was cancelled, 3 if one is not there
    or may not be seen, 4 if the store or the server is not there. Ctrl-C ends the watching (130),
    never the job.
    """
    try:
        code = _run(lambda: _watch(ids, options, raw=raw))
    except KeyboardInterrupt:
        click.echo(_goes_on(ids, options), err=True)
        code = STOPPED
    sys.exit(code)


async def _watch(ids: tuple[str, ...], options: dict[str, Any], *, raw: bool) -> int:
    from rich.console import Console

    from headway.following import Following
    from headway.terminal import screen

    names, shares, where = named(ids, options)
    following = Following(names)
    shown: Screen = screen(following, Console(), raw=raw)
    following.told = shown.show
    async with opened(shares, **where) as source:
        with shown:
            ticking = asyncio.create_task(_tick(shown))
            try:
                await source.follow(following)
            finally:
                ticking.cancel()
                await asyncio.wait({ticking})
    return following.code


async def _tick(shown: Screen) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        shown.tick()


def _goes_on(ids: tuple[str, ...], options: dict[str, Any]) -> str:
    url = options["url"] or ""
    server = ["--url", url] if url.startswith(SERVER) else []
    again = shlex.join(["headway", "watch", *ids, *server])
    return (
        "No longer watched; the work goes on.\n"
        f"To watch it again:  {again}\n"
        f"To stop it:         {again.replace('watch', 'cancel', 1)}"
    )


# ── what is wrong ─────────────────────────────────────────────────────────────────────────────


@main.command()
@click.argument("address", metavar="[ADDRESS]", required=False)
@click.option(
    "--seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.05, 300),
    help="How long to listen. 90 or more finds what cuts streams that are quiet, or old.",
)
@click.option(
    "--every",
    type=click.FloatRange(0.05, 60),
    help="Seconds between two heartbeats. Default: 0.5; from 30 seconds on as real streams, 15.",
)
@click.option("--json", "raw", is_flag=True, help="One finding a line, as JSON.")
@_with([*_where, *_asking])
def doctor(
    address: str | None, *, seconds: float, every: float | None, raw: bool, **options: Any
) -> None:
    """Say what is wrong: between browsers and an app, or with this machine's setup.

    With the public ADDRESS of a mount, such as https://example.org/jobs, a stream is opened
    through it, and it is told where it is held back, delayed or cut, and what helps. Without
    one, the store and all else that Headway needs here is looked at. Exits with 1 if something
    is wrong.
    """
    from headway.diagnosis import Finding, printed

    async def look() -> list[Finding]:
        found = []
        async for finding in _findings(address, seconds, every, options):
            found.append(finding)
            click.echo(json.dumps(finding._asdict(), ensure_ascii=False) if raw else "", nl=raw)
            if not raw:
                printed(finding)
        return found

    sys.exit(any(finding.level == "wrong" for finding in _run(look)))


def _findings(
    address: str | None, seconds: float, every: float | None, options: dict[str, Any]
) -> AsyncIterator[Any]:
    if address is None:
        from headway.checkup import checkup

        return checkup(options["url"], options["prefix"], options["state_dir"])
    if not address.startswith(SERVER):
        raise BadInput(f"{address}: give the address of a mount, like https://example.org/jobs")
    from headway.doctor import Doctor

    return Doctor(address, seconds=seconds, every_s=every, headers=headers_of(**options)).findings()
