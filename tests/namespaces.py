"""Hosts on this machine that can be cut off from each other: network namespaces and a router.

Every host has one cable, to a router that is a namespace as well; no cable leads anywhere else. A
cut is a rule of the router. It drops what two hosts send each other and tells neither of them: no
connection is reset, no error comes back, and all cables stay up.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import product
from typing import Final

__all__ = ["Network", "why_not"]

FOLDERS: Final = (os.environ["PATH"], "/usr/sbin", "/sbin")
IP: Final = shutil.which("ip", path=os.pathsep.join(FOLDERS))
"""The program; scripts/namespaces gets one."""
ROUTER: Final = "router"
FORWARD: Final = "echo 1 > /proc/sys/net/ipv4/ip_forward"


class Network:
    """Named hosts, each with an address at which only the others find it.

    Raises:
        CalledProcessError: this machine does not let us; nothing is left of it.
    """

    def __init__(self, *hosts: str) -> None:
        self._mark = f"hw{secrets.token_hex(4)}"  # so that many can be there at a time
        self._numbers = {host: number for number, host in enumerate(hosts, 1)}
        with ExitStack() as undo:
            undo.callback(self.close)
            self._build()
            undo.pop_all()

    def _build(self) -> None:
        spaces = [self._space(host) for host in (ROUTER, *self._numbers)]
        _ip(*(f"netns add {space}" for space in spaces))
        for host, n in self._numbers.items():
            _ip(
                f"link add to{n} type veth peer name eth0 netns {self._space(host)}",
                f"address add 10.77.{n}.1/24 dev to{n}",
                f"link set to{n} up",
                inside=self._space(ROUTER),
            )
            _ip(
                "link set lo up",
                f"address add {self.address(host)}/24 dev eth0",
                "link set eth0 up",
                f"route add default via 10.77.{n}.1",
                inside=self._space(host),
            )
        _run(*self.on(ROUTER, "sh", "-c", FORWARD))

    def _space(self, host: str) -> str:
        return f"{self._mark}-{host}"

    def address(self, host: str) -> str:
        """Where the other hosts find it."""
        return f"10.77.{self._numbers[host]}.2"

    def on(self, host: str, *words: str) -> list[str]:
        """The command that runs *words* on the host, as the process that it starts."""
        return [str(IP), "netns", "exec", self._space(host), *words]

    @contextmanager
    def cut(self, one: str, *others: str) -> Iterator[None]:
        """While it lasts, nothing passes between *one* host and each of the *others*."""
        pairs = [*product([one], others), *product(others, [one])]
        rules = [f"from {self.address(a)} to {self.address(b)} blackhole" for a, b in pairs]
        _ip(*(f"rule add {rule}" for rule in rules), inside=self._space(ROUTER))
        try:
            yield
        finally:
            _ip(*(f"rule delete {rule}" for rule in rules), inside=self._space(ROUTER))

    def given_up(self, host: str) -> str:
        """Connections that the host has closed, and whose last words its kernel still tries to
        bring to the other side; empty if there are none."""
        return _run(
            *self.on(host, "ss", "--no-header", "--tcp", "--numeric", "state", "fin-wait-1")
        )

    def close(self) -> None:
        """Remove the hosts, their cables and the router."""
        spaces = _run(str(IP), "netns").splitlines()
        ours = [line.split()[0] for line in spaces if line.startswith(self._mark)]
        _ip(*(f"netns delete {space}" for space in ours))


@cache
def why_not() -> str | None:
    """Why there can be no such network on this machine; None if there can."""
    if IP is None:
        return "there is no ip (iproute2) on this machine; scripts/namespaces gets one"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        network = Network("one", "two")
        try:
            with network.cut("one", "two"):
                pass
        finally:
            network.close()
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).partition("\n")[0]
        return f"this machine does not let us make network namespaces: {said}"
    return None


def _ip(*lines: str, inside: str | None = None) -> None:
    """Give *lines* to ip, which works in a namespace if one is named."""
    where = [] if inside is None else ["-netns", inside]
    _run(str(IP), *where, "-batch", "-", given="".join(f"{line}\n" for line in lines))


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, text=True, check=True, capture_output=True)
    return done.stdout
