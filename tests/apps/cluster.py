"""Clusters and Sentinels on this machine, of real servers: to fail over, to freeze and to kill."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from headway.server import _carried_binary
from tests.apps.process import free_port, wait_until

SLOTS: Final = 16_384
TIMEOUT_MS: Final = 1_000  # a node that is silent for so long is taken for dead
PATIENT_MS: Final = 5_000  # the same where none is to die: a busy machine may let one wait
READY_S: Final = 30.0
STORE: Final = ("--save", "", "--repl-diskless-sync-delay", "0")


class Certificate:
    """One for this machine, and who vouches for it, as servers and clients want them.

    Args:
        files: a folder with ca.pem, cert.pem and key.pem.
    """

    def __init__(self, files: Path) -> None:
        self.ca, self.cert, self.key = (files / f"{name}.pem" for name in ("ca", "cert", "key"))
        self.words = (
            *("--tls-ca-cert-file", str(self.ca), "--tls-cert-file", str(self.cert)),
            *("--tls-key-file", str(self.key), "--tls-auth-clients", "no"),
            *("--tls-replication", "yes"),
        )


class Node:
    """One server with a port of its own on the loopback."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        binary: str | Path | None = None,
        tls: Certificate | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self._command = [str(binary or _carried_binary()), *words]
        self._command += ["--bind", "127.0.0.1", "--dir", str(folder)]
        if tls is None:
            self._command += ["--port", str(self.port)]
            self._options: dict[str, Any] = {}
        else:
            self._command += ["--port", "0", "--tls-port", str(self.port), *tls.words]
            self._options = {"ssl": True, "ssl_ca_certs": str(tls.ca)}
        self._frozen = False
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(f"{self.name} answers", self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.say("PING"))
        except redis.ConnectionError:
            return False

    def say(self, *command: str | int) -> Any:
        options = {"decode_responses": True, "retry": Retry(NoBackoff(), 0), **self._options}
        with redis.Redis(host="127.0.0.1", port=self.port, **options) as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        return dict(self.say("INFO", section))

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            self.process.send_signal(signal.SIGCONT)
            self._frozen = False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Cluster:
    """Three primaries, and a replica for each of them."""

    def __init__(
        self,
        folder: Path,
        binary: str | Path | None = None,
        tls: Certificate | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        options = [*STORE, "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms)]
        options += ["--cluster-replica-validity-factor", "0"]
        options += ["--tls-cluster", "yes"] if tls is not None else []
        self.buses = [free_port() for _ in range(6)]
        self.nodes = [
            Node(folder / str(bus), *options, "--cluster-port", str(bus), binary=binary, tls=tls)
            for bus in self.buses
        ]
        self.primaries, self.replicas = self.nodes[:3], self.nodes[3:]
        self._form()
        scheme = "redis" if tls is None else "rediss"
        self.url = f"{scheme}+cluster://{','.join(node.name for node in self.nodes)}"

    def _form(self) -> None:
        first, *others = self.nodes
        _, *buses = self.buses
        for n, node in enumerate(self.primaries):
            start, end = SLOTS * n // 3, SLOTS * (n + 1) // 3 - 1
            node.say("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            node.say("CLUSTER", "ADDSLOTSRANGE", start, end)
        for node, bus in zip(others, buses, strict=True):
            first.say("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        self._await(lambda node: len(node.say("CLUSTER NODES")) == 6, "all know each other")
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            replica.say("CLUSTER", "REPLICATE", primary.say("CLUSTER", "MYID"))
        self._await(self._well, "the cluster is well")
        wait_until("all are in step", lambda: all(map(_in_step, self.replicas)), within_s=READY_S)

    def _await(self, holds: Callable[[Node], bool], what: str) -> None:
        wait_until(what, lambda: all(map(holds, self.nodes)), within_s=READY_S)

    def _well(self, node: Node) -> bool:
        return bool(node.say("CLUSTER INFO")["cluster_state"] == "ok")

    def primary_of(self, slot: int) -> Node:
        """The node that serves *slot*, as those see it that live."""
        for node in self.nodes:
            if node.process.poll() is None and not node._frozen:
                break
        for start, end, primary, *_ in node.say("CLUSTER", "SLOTS"):
            if start <= slot <= end:
                return next(one for one in self.nodes if one.port == primary[1])
        raise LookupError(slot)

    def replica_of(self, primary: Node) -> Node:
        """The replica of *primary*, from the beginning."""
        return self.replicas[self.primaries.index(primary)]

    def begin_move(self, slot: int, source: Node, target: Node) -> None:
        """From here on keys of *slot* may be here or there."""
        target.say("CLUSTER", "SETSLOT", slot, "IMPORTING", source.say("CLUSTER", "MYID"))
        source.say("CLUSTER", "SETSLOT", slot, "MIGRATING", target.say("CLUSTER", "MYID"))

    def carry(self, source: Node, target: Node, *keys: str) -> None:
        """Move keys of a slot that moves."""
        source.say("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)

    def move(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot and its keys, as redis-cli does."""
        self.begin_move(slot, source, target)
        while keys := source.say("CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.carry(source, target, *keys)
        for node in (target, source, *self.primaries):
            node.say("CLUSTER", "SETSLOT", slot, "NODE", target.say("CLUSTER", "MYID"))

    def await_failover(self, primary: Node) -> None:
        """Until the replica of *primary* has taken its place."""
        replica = self.replica_of(primary)
        wait_until(
            f"{replica.name} takes over",
            lambda: _leads(replica),
            within_s=READY_S,
        )

    def close(self) -> None:
        for node in self.nodes:
            node.thaw()
            node.kill()


def _leads(node: Node) -> bool:
    try:
        return bool(node.info("replication")["role"] == "master")
    except redis.ConnectionError:  # who becomes a primary lets go of its clients
        return False


def _in_step(replica: Node) -> bool:
    return replica.info("replication").get("master_link_status") == "up"


class Watched:
    """A primary and its replica, and three Sentinels that watch over them."""

    def __init__(
        self,
        folder: Path,
        binary: str | Path | None = None,
        tls: Certificate | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self._binary, self._tls, self._timeout_ms = binary, tls, timeout_ms
        self.primary = Node(folder / "primary", *STORE, binary=binary, tls=tls)
        follow = ("--replicaof", f"127.0.0.1 {self.primary.port}")
        self.replica = Node(folder / "replica", *STORE, *follow, binary=binary, tls=tls)
        wait_until("the replica is in step", lambda: _in_step(self.replica), within_s=READY_S)
        self.sentinels = [self._sentinel(folder / f"sentinel{n}") for n in range(3)]
        wait_until("they know each other", self._well, within_s=READY_S)
        hosts = ",".join(node.name for node in self.sentinels)
        scheme = "redis" if tls is None else "rediss"
        self.url = f"{scheme}+sentinel://{hosts}/work"

    def _sentinel(self, folder: Path) -> Node:
        folder.mkdir(parents=True)
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor work 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds work {self._timeout_ms}\n"
            "sentinel failover-timeout work 10000\n"
        )
        return Node(folder / "data", str(config), "--sentinel", binary=self._binary, tls=self._tls)

    def _well(self) -> bool:
        said = [_table(node.say("SENTINEL", "MASTER", "work")) for node in self.sentinels]
        return all((one["num-other-sentinels"], one["num-slaves"]) == ("2", "1") for one in said)

    def await_failover(self) -> None:
        """Until the replica has taken the primary's place."""
        wait_until(
            "the replica takes over",
            lambda: _leads(self.replica),
            within_s=READY_S,
        )

    def close(self) -> None:
        for node in (*self.sentinels, self.primary, self.replica):
            node.thaw()
            node.kill()


def _table(said: Any) -> dict[str, str]:
    """What Sentinel says of a server; the client may have read it already."""
    if isinstance(said, dict):
        return {str(name): str(value) for name, value in said.items()}
    return dict(zip(said[::2], said[1::2], strict=True))
