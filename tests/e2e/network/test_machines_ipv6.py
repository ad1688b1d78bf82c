"""Machines that have nothing but IPv6, for a cluster that has nothing but IPv6; and two of them join at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Cluster, Traces
from test_machines import on
from traffic import Net, client_pod, server_pod

from sampan.node.network import namespace, rtnetlink

NAMES = ("first", "second", "third")
ADDRESSES = {name: f"2001:db8:{number}::1" for number, name in enumerate(NAMES, 1)}


@pytest.fixture
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Namespaces of the machines, with a router between them."""
    directory = tmp_path_factory.mktemp("lan6")
    paths = {name: str(directory / name) for name in ("router", *NAMES)}
    for path in paths.values():
        namespace.create(path)
        with rtnetlink.connect(path) as nl:
            nl.run(rtnetlink.set_link(1))
    namespace.set_sysctls(paths["router"], {"ipv6/conf/all/forwarding": "1"})
    for name, address in ADDRESSES.items():
        with namespace.opened(paths[name]) as descriptor, rtnetlink.connect(paths["router"]) as nl:
            nl.run(rtnetlink.add_veth(name, "lan", peer_netns=descriptor))
        gateway = f"{address[:-1]}fe"
        on(paths["router"], f"ip address add {gateway}/64 dev {name} nodad")
        on(paths["router"], f"ip link set {name} up")
        on(paths[name], f"ip address add {address}/64 dev lan nodad")
        on(paths[name], "ip link set lan up")
        on(paths[name], f"ip route add default via {gateway}")
    yield paths
    for path in paths.values():
        namespace.remove(path)


def test_three_machines(lan: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    clusters = {
        name: Cluster(f"six-{name}-{os.getpid()}", tmp_path_factory.mktemp(name), netns=lan[name])
        for name in NAMES
    }
    first = clusters["first"]
    try:
        first.up(f"--advertise={ADDRESSES['first']}", "--ip-family=ipv6")
        command = first.sampan("token create").strip().removeprefix("sampan ")
        with ThreadPoolExecutor() as pool:
            told = list(
                pool.map(lambda name: clusters[name].sampan(f"{command} --node-name={name}"), NAMES[1:])
            )
        assert all("packets between the machines get through" in text for text in told), told
        net = Net(first.kubectl())
        for name, node in (("one", "node-1"), ("two", "second"), ("three", "third")):
            net.kubectl.apply(server_pod(f"web-{name}", node), client_pod(f"client-{name}", node))
        net.kubectl.wait("pods --all", seconds=60)
        net.learn()
        for here, there in (("one", "two"), ("two", "three"), ("three", "one")):
            assert ":" in net.ip(f"web-{there}")
            net.prober(f"client-{here}").settles(net.ip(f"web-{there}"), 8080, f"web-{there}")
        net.close()
        assert [cluster.complaints() for cluster in clusters.values()] == [""] * 3
    finally:
        for name in reversed(NAMES):
            clusters[name].run("down")
    assert [Traces(cluster).found() for cluster in clusters.values()] == [{}] * 3
