"""The way to other nodes' pods: what Node objects mean, and what the kernel then has, in namespaces of real links."""

from __future__ import annotations

import subprocess

import pytest

from sampan.node.network import fabric, namespace, routes
from sampan.node.network.routes import AUTO, HOST_GW, VXLAN, NodeRoutes, Way


def node(name, cidrs, *addresses):
    found = [{"type": "InternalIP", "address": address} for address in addresses]
    return {"metadata": {"name": name}, "spec": {"podCIDRs": cidrs}, "status": {"addresses": found}}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("a", ["10.1.0.0/24"], "192.0.2.1")], {}),
        (
            [node("b", ["10.2.0.0/24"], "192.0.2.2")],
            {"10.2.0.0/24": Way("192.0.2.2", "192.0.2.2")},
        ),
        (
            [node("b", ["10.2.0.0/24", "fd00:2::/64"], "192.0.2.2", "fd00::2")],
            {"10.2.0.0/24": Way("192.0.2.2", "192.0.2.2"), "fd00:2::/64": Way("fd00::2", "192.0.2.2")},
        ),
        (  # no address of that IP version
            [node("b", ["10.2.0.0/24", "fd00:2::/64"], "fd00::2")],
            {"fd00:2::/64": Way("fd00::2", "fd00::2")},
        ),
        (  # the first by name has it
            [node("c", ["10.2.0.0/24"], "192.0.2.3"), node("b", ["10.2.0.0/24"], "192.0.2.2")],
            {"10.2.0.0/24": Way("192.0.2.2", "192.0.2.2")},
        ),
        ([node("b", ["10.2.0.0/24"]), node("c", [], "192.0.2.3")], {}),
    ],
)
def test_routes_follow_from_the_nodes(nodes, expected):
    assert routes.wanted(nodes, "a") == expected


@pytest.mark.parametrize(
    ("mode", "source", "mtu"),
    [
        (HOST_GW, "192.0.2.1", 1500),
        (AUTO, "192.0.2.1", 1500),
        (VXLAN, "192.0.2.1", 1450),
        (VXLAN, "fd00::1", 1430),
    ],
)
def test_what_pods_may_send_at_once(mode, source, mtu):
    assert NodeRoutes(sources=[source], mode=mode).pod_mtu == mtu


SOURCES = ["10.89.7.2", "fd00:89::2"]
GOAL = {
    "10.2.0.0/24": Way("10.89.7.3", "10.89.7.3"),
    "fd00:2::/64": Way("fd00:89::3", "10.89.7.3"),
    "10.3.0.0/24": Way("192.0.2.3", "192.0.2.3"),  # behind a router
}


class Node:
    def __init__(self, directory):
        self.fabric, self.path = f"{directory}/run/fabric", f"{directory}/node"
        fabric.create(self.fabric)
        namespace.create(self.path)
        cidrs = ["10.89.7.2/24", "fd00:89::2/64"]
        fabric.join(self.fabric, self.path, 1, cidrs, gateways=["10.89.7.1"])

    def ip(self, command):
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command.split()], capture_output=True, text=True, check=True
        )
        return done.stdout

    def way(self, destination):
        """The devices of the routes to it."""
        version = "-6" if ":" in destination else "-4"
        lines = self.ip(f"ip {version} route show {destination}").splitlines()
        return [line.split(" dev ")[1].split()[0] for line in lines]

    def close(self):
        fabric.destroy(self.fabric, "test", host=self.path)
        namespace.remove(self.path)


@pytest.fixture
def machine(tmp_path):
    made = Node(tmp_path)
    yield made
    made.close()


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "near", "far"),
    [(HOST_GW, ["eth0"], ["eth0"]), (VXLAN, ["vxlan"], ["vxlan"]), (AUTO, ["eth0"], ["vxlan"])],
)
def test_packets_take_the_way_of_the_mode(machine, mode, near, far):
    ways = NodeRoutes("eth0", machine.path, sources=SOURCES, mode=mode)
    assert sorted(ways.sync(GOAL)) == sorted(GOAL)
    assert (machine.way("10.2.0.0/24"), machine.way("fd00:2::/64"), machine.way("10.3.0.0/24")) == (
        near,
        near,
        far,
    )
    assert ways.sync(GOAL) == []
    assert ways.sync({}) != []
    assert machine.way("10.2.0.0/24") == machine.way("fd00:2::/64") == machine.way("10.3.0.0/24") == []


@pytest.mark.root
def test_a_tunnels_tables_follow_the_nodes(machine):
    ways = NodeRoutes("eth0", machine.path, sources=SOURCES, mode=VXLAN)
    ways.sync(GOAL)
    assert "dst 10.89.7.3" in machine.ip("bridge fdb show dev vxlan")
    assert "10.89.7.3 lladdr" in machine.ip("ip -4 neigh show dev vxlan")
    assert "fe80::a59:703 lladdr" in machine.ip("ip -6 neigh show dev vxlan nud permanent")
    ways.sync({"10.3.0.0/24": GOAL["10.3.0.0/24"]})
    assert "10.89.7.3" not in machine.ip("bridge fdb show dev vxlan")
    assert "10.89.7.3" not in machine.ip("ip -4 neigh show dev vxlan")
    assert "dst 192.0.2.3" in machine.ip("bridge fdb show dev vxlan")


@pytest.mark.root
def test_an_agent_that_starts_anew_takes_the_tunnel_over(machine):
    NodeRoutes("eth0", machine.path, sources=SOURCES, mode=VXLAN).sync(GOAL)
    before = machine.ip("ip -o link show vxlan")
    assert NodeRoutes("eth0", machine.path, sources=SOURCES, mode=VXLAN).sync(GOAL) == []
    assert machine.ip("ip -o link show vxlan") == before


@pytest.mark.root
@pytest.mark.parametrize("damage", ["ip link del vxlan", "ip route flush dev vxlan"])
def test_what_was_deleted_is_written_anew(machine, damage):
    ways = NodeRoutes("eth0", machine.path, sources=SOURCES, mode=VXLAN)
    ways.sync(GOAL)
    machine.ip(damage)
    assert ways.sync(GOAL) != []
    assert machine.way("10.2.0.0/24") == ["vxlan"]
    assert "dst 10.89.7.3" in machine.ip("bridge fdb show dev vxlan")


@pytest.mark.root
def test_a_node_that_has_moved(machine):
    ways = NodeRoutes("eth0", machine.path, sources=SOURCES)
    ways.sync(GOAL)
    ways.sync(GOAL | {"10.2.0.0/24": Way("10.89.7.9", "10.89.7.9")})
    assert "via 10.89.7.9" in machine.ip("ip route show 10.2.0.0/24")
    assert machine.way("10.2.0.0/24") == ["eth0"]
