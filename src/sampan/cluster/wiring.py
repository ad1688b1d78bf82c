"""How the supervisor wires a cluster's machine: the fabric, the host's place in it and that of every node.

Works on the plain configuration (see `cluster.config`), since the supervisor imports nothing that is heavy. A link that
somebody deletes by hand is plugged in again: the kernel tells when one goes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sampan.node.network import fabric


class Wiring:
    """`config` is that of the cluster as JSON; `run` its directory of sockets. Calls block for milliseconds."""

    def __init__(self, config: Mapping[str, Any], run: Path) -> None:
        self._config = config
        self._path = str(run / "fabric")
        self._watch: socket.socket | None = None

    def update(self, config: Mapping[str, Any]) -> None:
        """The configuration has changed (nodes came or went)."""
        self._config = config

    # Addresses

    def addresses(self, index: int) -> list[str]:
        """Of a node, or of a host (that of the first machine has index 0): IPv4, then IPv6 if the cluster has it."""
        return [entry.split("/")[0] for entry in self._cidrs(index)]

    @property
    def _leaf(self) -> int:
        return int(self._config.get("leaf", 0))

    @property
    def _mtu(self) -> int:
        return int(self._config.get("mtu", fabric.MTU))

    def _cidrs(self, index: int) -> list[str]:
        four, six = self._config["fabric"], self._config.get("fabric6", "")
        found = [four.split("/")[0].rsplit(".", 1)[0] + f".{index + 1}/24"]
        if six:
            found.append(six.split("/")[0] + f"{index + 1:x}/64")
        return found

    def _index(self, name: str) -> int:
        return next(node["index"] for node in self._config["nodes"] if node["name"] == name)

    # Coming and going

    def build(self) -> list[str]:
        """A fresh fabric with the host in it. Gives the addresses at which the host is to listen."""
        fabric.destroy(self._path, self._config["name"])
        fabric.create(self._path)
        self._join_host()
        self._join_machines()
        self._watch = fabric.watch(self._path)
        self._watch.setblocking(False)
        return self.addresses(self._leaf)

    def _join_machines(self) -> None:
        if self._config.get("machine"):
            fabric.join_machines(
                self._path, self._config["network_id"], self._config["machine"], mtu=self._mtu
            )

    def _join_host(self) -> None:
        names = ("service_cidr", "load_balancer_cidr", "service_cidr6", "load_balancer_cidr6")
        services = [self._config[name] for name in names if self._config.get(name)]
        rootless = self._config["rootless"]
        fabric.join_host(
            self._path,
            self._config["name"],
            self._cidrs(self._leaf),
            rootless=rootless,
            services=services,
            mtu=self._mtu,
        )

    def connect(self, name: str, pid: int) -> None:
        """Plugs in a node whose namespace a process is in."""
        index = self._index(name)
        gateways = self.addresses(self._leaf)
        cidrs = self._cidrs(index)
        fabric.join(self._path, pid, index, cidrs, gateways=gateways, mtu=self._mtu)

    def leave(self, name: str) -> None:
        """Unplugs a node, if the configuration still knows it."""
        for node in self._config["nodes"]:
            if node["name"] == name:
                fabric.leave(self._path, node["index"])

    def destroy(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None
        fabric.destroy(self._path, self._config["name"])

    # Damage

    def fileno(self) -> int:
        """Readable when links of the fabric have changed: then call `repair`. -1 before `build`."""
        return self._watch.fileno() if self._watch else -1

    def repair(self, nodes: Mapping[str, int]) -> list[str]:
        """Plugs in again what should be there and is not: the host, and the nodes (name -> a process). Gives who it was."""
        self._drain()
        try:
            present, repaired = fabric.ports(self._path), []
            if fabric.HOST_PORT not in present:
                self._join_host()
                repaired.append("the host")
            if self._config.get("machine") and fabric.MACHINES not in present:
                self._join_machines()
                repaired.append("the other machines")
            for name, pid in nodes.items():
                if fabric.port_name(self._index(name)) not in present:
                    self.connect(name, pid)
                    repaired.append(name)
        except (OSError, StopIteration):  # a node is just ending, or being removed
            return []
        return repaired

    def _drain(self) -> None:
        try:
            while self._watch and self._watch.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        except OSError:
            pass  # more happened than could be kept: we look at what is there anyway

    # Partitions

    def cut(self, nodes: Mapping[str, int], a: str, b: str, act: Callable[..., None]) -> None:
        """`act` is `fabric.partition` or `heal`, between nodes `a` and `b`, or `a` and the host (`b` ""). Raises OSError."""
        ours = self.addresses(self._index(a))
        theirs = self.addresses(self._index(b) if b else self._leaf)
        first = f"/proc/{nodes[a]}/ns/net"
        for here, there in zip(ours, theirs, strict=True):
            if b:
                act(first, f"/proc/{nodes[b]}/ns/net", here, there)
            else:
                act(first, None, here, there, b_link=fabric.host_link(self._config["name"]))
