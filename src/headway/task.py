"""`Task`: a registered function, and what its arguments look like on their way through the store.

Knows nothing of stores and runs: `start()` hands a `Start` to whoever registered the task.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

import msgspec

from headway._captures import captures_of
from headway.errors import BadInput, TaskError
from headway.job import ARGS_BYTES, NAME_CHARS, Job, plain, to_json
from headway.progress import Progress

__all__ = [
    "OnLost",
    "Options",
    "Run",
    "Start",
    "Task",
    "Tasks",
    "Using",
    "make_task",
    "place_of",
    "title_of",
]

P = ParamSpec("P")
R = TypeVar("R")
OnLost = Literal["fail", "retry"]
Run = Literal["process"]
IfRunning = Literal["return", "refuse"]
LOST_ATTEMPTS: Final = 3  # a job that kills its worker must not do so for ever
KEY_CHARS: Final = 200
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}\Z")


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a task is run. Travels with the job, so that every process treats it alike."""

    timeout_s: float | None = None
    retries: int = 0
    stall_s: float | None = None
    run: Run | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One wish to start a task: everything that `Headway` needs to accept it."""

    task: str
    args: str
    title: str
    options: Options
    on_lost: OnLost
    max_attempts: int
    key: str | None = None
    owner: str | None = None
    owned: bool = False
    job_id: str | None = None
    parent: tuple[str, int] | None = None  # the job that starts it, and in which of its attempts
    if_running: IfRunning = "return"


class Task(Generic[P, R]):
    """A function that Headway can run as a job. Still callable directly, as in a test.

    Made by `@headway.task`; do not construct it yourself.
    """

    def __init__(
        self,
        function: Callable[..., R],
        begin: Callable[[Start], Awaitable[Job]],
        *,
        name: str,
        title: str,
        options: Options,
        on_lost: OnLost,
        max_attempts: int,
        args_bytes: int,
        captures: frozenset[str],
    ) -> None:
        self.function = function
        self.name = name
        self.title = title
        self.options = options
        self.on_lost: OnLost = on_lost
        self.max_attempts = max_attempts
        self.captures = captures
        self.asynchronous = inspect.iscoroutinefunction(function)
        self._begin = begin
        self._arguments = _Arguments(function, args_bytes)
        self.__doc__ = function.__doc__
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the function itself, here and now. Pass a `Progress()` if it takes one."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Accept one run of this task; it is safe in the store when this returns.

        The arguments are those of the function, without its `Progress`. They travel as JSON:
        whatever `msgspec` can encode may be given, and arrives as the parameter's annotation says.

        Raises:
            TypeError: the arguments do not fit the function.
            BadInput: an argument is not JSON.
            TooLarge: all of them together are over `Limits.args_bytes`.
            StartRefused: the request that starts it may not, see the classes below it.
            StoreUnavailable: whether the job was accepted is unknown; with `using(key=…)` it
                is safe to start again.

        Cost: one round trip. Cancel: the job may have been accepted.
        """
        return await self.using().start(*args, **kwargs)

    def using(
        self,
        *,
        key: str | None = None,
        owner: str | None = None,
        title: str | None = None,
        timeout_s: float | None = None,
        if_running: IfRunning = "return",
    ) -> Using[P, R]:
        """Say how the next start differs: `await export.using(key="export").start(rows=3)`.

        Args:
            key: single flight. While a job of this task, owner and key is queued or running,
                starting returns that one, with `reused` set, instead of a second one.
            owner: who may watch and cancel it; by default the visitor of the current request.
                `EVERYONE` lets every visitor watch.
            title: what the owner sees, cut to 200 characters.
            timeout_s: seconds that one attempt may take; None leaves it to the task.
            if_running: "refuse": while a job has the key, starting raises `AlreadyRunning`, which
                the doors answer with 409 and the way to that job.

        Raises:
            BadInput: an option is out of its range.
        """
        if key is not None and not 0 < len(key) <= KEY_CHARS:
            raise BadInput(f"key {key[:20]!r}…: give 1 to {KEY_CHARS} characters")
        if owner is not None and not 0 < len(owner) <= NAME_CHARS:
            raise BadInput(f"owner {owner[:20]!r}…: give 1 to {NAME_CHARS} characters")
        options = self.options
        if timeout_s is not None:
            _check_options(timeout_s=timeout_s)
            options = msgspec.structs.replace(options, timeout_s=timeout_s)
        if if_running not in {"return", "refuse"}:
            raise BadInput(f"if_running {if_running!r}: give 'return' or 'refuse'")
        return Using(
            self, key=key, owner=owner, title=title, options=options, if_running=if_running
        )

    def decode(self, args: str) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a job, as the function's annotations want them."""
        return self._arguments.decode(args)

    @property
    def takes_progress(self) -> bool:
        """True if the function's first parameter is the `Progress`."""
        return self._arguments.takes_progress

    def start_of(self, *args: P.args, **kwargs: P.kwargs) -> Start:
        """What `start()` would begin."""
        return self.using().start_of(*args, **kwargs)

    def _start_of(self, using: Using[P, R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Start:
        return Start(
            task=self.name,
            args=self._arguments.encode(self.name, args, kwargs),
            title=plain(using.title, NAME_CHARS) if using.title else self.title,
            options=using.options,
            on_lost=self.on_lost,
            max_attempts=self.max_attempts,
            key=using.key,
            owner=using.owner,
            owned=using.owner is not None,
            if_running=using.if_running,
        )


class Using(Generic[P, R]):
    """A task together with how it is to be started this time."""

    def __init__(
        self,
        task: Task[P, R],
        *,
        key: str | None,
        owner: str | None,
        title: str | None,
        options: Options,
        if_running: IfRunning,
    ) -> None:
        self._task = task
        self.key = key
        self.owner = owner
        self.title = title
        self.options = options
        self.if_running: IfRunning = if_running

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """As `Task.start()`."""
        return await self._task._begin(self.start_of(*args, **kwargs))

    def start_of(self, *args: P.args, **kwargs: P.kwargs) -> Start:
        """What `start()` would begin."""
        return self._task._start_of(self, args, kwargs)


class Tasks:
    """The tasks that this process knows, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        if task.name in self._by_name:
            raise TaskError(
                f"task {task.name!r} is registered already. Give one of the two another name: "
                f"@headway.task(name={task.name + '_2'!r})"
            )
        self._by_name[task.name] = task

    def get(self, name: str) -> Task[..., Any]:
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise TaskError(
                f"task {name!r} is not registered in this process (known: {known}). Import the "
                "module that defines it before Headway opens."
            ) from None

    @property
    def names(self) -> list[str]:
        return list(self._by_name)


class _Arguments:
    def __init__(self, function: Callable[..., Any], limit: int) -> None:
        self._limit = limit
        self.signature = inspect.signature(function)
        hints = _hints(function)
        parameters = list(self.signature.parameters.values())
        self.takes_progress = bool(parameters) and _is_progress(parameters[0], hints)
        if self.takes_progress:
            del parameters[0]
            self.signature = self.signature.replace(parameters=parameters)
        self._types = {p.name: t for p in parameters if (t := _readable(p, hints)) is not None}

    def encode(self, task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        self.signature.bind(*args, **kwargs)
        cure = "Store the data elsewhere (a file, a table) and pass where it is."
        what = f"arguments of {task}"
        text = to_json([args, kwargs], what=what, limit=self._limit, cure=cure)
        try:
            self.decode(text)
        except msgspec.ValidationError as error:
            raise BadInput(f"{what} would not arrive as annotated: {error}. {cure}") from error
        return text

    def decode(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = msgspec.json.decode(text)
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name in self._types:
                bound.arguments[name] = msgspec.convert(value, self._types[name])
        return list(bound.args), dict(bound.kwargs)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # names that exist only for type checkers: then nothing is converted
        return {}


def _is_progress(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    hint = hints.get(parameter.name, parameter.annotation)
    if hint is Progress or (isinstance(hint, str) and hint.split(".")[-1] == "Progress"):
        return True
    return parameter.name == "progress" and hint is inspect.Parameter.empty


def _readable(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """The parameter's type, if JSON values can be converted to it; else None."""
    several = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    hint = hints.get(parameter.name)
    if several or hint is None or hint is Any:
        return None
    try:
        msgspec.json.Decoder(hint)
    except (TypeError, ValueError):
        return None
    return hint


def make_task(
    function: Callable[..., R],
    begin: Callable[[Start], Awaitable[Job]],
    *,
    name: str | None = None,
    title: str | None = None,
    timeout_s: float | None = None,
    retries: int = 0,
    on_lost: OnLost = "fail",
    max_attempts: int | None = None,
    stall_s: float | None = None,
    run: Run | None = None,
    capture: Iterable[str] = (),
    args_bytes: int = ARGS_BYTES,
) -> Task[..., R]:
    """Make a task of a function, after checking every option.

    Args:
        args_bytes: how large its arguments may be, as JSON.

    Raises:
        BadInput: an option is out of its range, or *function* is a generator function.
    """
    if not inspect.isroutine(function):
        raise BadInput(f"task {function!r}: give a function, made with def or async def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BadInput(f"task {function.__name__!r} yields: a task returns its result instead")
    name = name if name is not None else function.__name__
    if not _NAME.match(name):
        raise BadInput(
            f"task name {name!r}: use 1 to 100 letters, digits and _ . : - "
            "(pass name= to @headway.task)"
        )
    _check_options(timeout_s=timeout_s, retries=retries, stall_s=stall_s, on_lost=on_lost)
    if run not in {None, "process"}:
        raise BadInput(f"run {run!r}: give 'process', or leave it out")
    if run == "process":
        place_of(function, name)
    least = retries + 1
    if max_attempts is None:
        max_attempts = max(least, LOST_ATTEMPTS) if on_lost == "retry" else least
    if max_attempts < least:
        raise BadInput(f"max_attempts {max_attempts!r}: {retries} retries need at least {least}")
    return Task(
        function,
        begin,
        name=name,
        title=plain(title or title_of(name), NAME_CHARS),
        options=Options(timeout_s=timeout_s, retries=retries, stall_s=stall_s, run=run),
        on_lost=on_lost,
        max_attempts=max_attempts,
        args_bytes=args_bytes,
        captures=captures_of(capture),
    )


def place_of(function: Callable[..., Any], task: str) -> tuple[str, str]:
    """Where a child process finds the function: module and name.

    Raises:
        BadInput: it is not at the top of a module.
    """
    module, name = function.__module__, function.__qualname__
    if "<locals>" in name:
        raise BadInput(
            f"task {task!r} cannot run in a process: a child can only import what stands at the "
            f"top of a module, and {name} does not. Move it there."
        )
    return module, name


def title_of(name: str) -> str:
    """What the owner sees of a task that was given no title: the last part of its name."""
    words = name.rsplit(".", 1)[-1].replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:] or name


def _check_options(
    *,
    timeout_s: float | None = None,
    retries: int = 0,
    stall_s: float | None = None,
    on_lost: str = "fail",
) -> None:
    for option, value in (("timeout_s", timeout_s), ("stall_s", stall_s)):
        if value is not None and not 0 < value < float("inf"):
            raise BadInput(f"{option} {value!r}: give seconds above 0, or None for no limit")
    if not 0 <= retries <= 100:
        raise BadInput(f"retries {retries!r}: give 0 to 100")
    if on_lost not in {"fail", "retry"}:
        raise BadInput(f"on_lost {on_lost!r}: give 'fail' or 'retry'")
