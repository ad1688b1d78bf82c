"""Machines in different networks, with a router between them, so that nothing works by being neighbours: namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness import within

from sampan.node.network import namespace, rtnetlink


def on(netns: str, command: str) -> str:
    done = subprocess.run([*within(netns), *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def lan(directory: Path, machines: Mapping[str, tuple[str, str]], prefix: int) -> Iterator[dict[str, str]]:
    """The paths of the namespaces of the router and of the machines: name -> (address, the router's address there)."""
    paths = {name: str(directory / name) for name in ("router", *machines)}
    for path in paths.values():
        namespace.create(path)
        with rtnetlink.connect(path) as nl:
            nl.run(rtnetlink.set_link(1))
    forwarding = "ipv6/conf/all/forwarding" if prefix > 32 else "ipv4/ip_forward"
    namespace.set_sysctls(paths["router"], {forwarding: "1"})
    nodad = " nodad" if prefix > 32 else ""
    for name, (address, gateway) in machines.items():
        with namespace.opened(paths[name]) as descriptor, rtnetlink.connect(paths["router"]) as nl:
            nl.run(rtnetlink.add_veth(name, "lan", peer_netns=descriptor))
        on(paths["router"], f"ip address add {gateway}/{prefix} dev {name}{nodad}")
        on(paths["router"], f"ip link set {name} up")
        on(paths[name], f"ip address add {address}/{prefix} dev lan{nodad}")
        on(paths[name], "ip link set lan up")
        on(paths[name], f"ip route add default via {gateway}")
    yield paths
    for path in paths.values():
        namespace.remove(path)
