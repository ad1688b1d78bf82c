"""A machine whose firewall drops what it forwards, as Docker and ufw leave it: pods reach the world, and are reached from it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Cluster, Traces, eventually, pod, server, within

from sampan.node.network import namespace, rtnetlink

MACHINE, WORLD = "192.0.2.1", "192.0.2.2"
FIREWALLS = {
    "iptables": """
        table ip filter {
            chain FORWARD { type filter hook forward priority 0; policy drop; }
        }""",
    "docker": """
        table ip filter {
            chain DOCKER-USER { counter return; }
            chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; }
        }""",
}
FIREWALLS["ufw"] = """
        table ip filter {
            chain FORWARD { type filter hook forward priority 0; policy drop; }
            chain INPUT {
                type filter hook input priority 0; policy drop;
                iifname "lo" accept
                ct state established,related accept
                tcp dport 30000-32767 accept
            }
        }"""
OWN = "table inet own { chain f { type filter hook forward priority 0; policy drop; }; }"
OWN_INPUT = "table inet door { chain i { type filter hook input priority 0; policy drop; iif lo accept; ct state established accept; }; }"
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, bind='{0}', port=8080)"
FETCH = "import urllib.request as r; print(r.urlopen('http://{0}', timeout=5).read().decode())"


def on(netns: str, *command: str, **options: object) -> str:
    done = subprocess.run([*within(netns), *command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return str(done.stdout)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[str]:
    """A namespace outside of the machine, with a web server."""
    path = str(tmp_path / "world")
    namespace.create(path)
    with rtnetlink.connect(path) as nl:
        nl.run(rtnetlink.set_link(1))
    yield path
    namespace.remove(path)


@pytest.fixture
def machine(tmp_path: Path, world: str) -> Iterator[str]:
    """A namespace that plays the machine, with a cable to the world."""
    path = str(tmp_path / "machine")
    namespace.create(path)
    with namespace.opened(world) as descriptor, rtnetlink.connect(path) as nl:
        nl.run(rtnetlink.set_link(1))
        nl.run(
            rtnetlink.add_veth("wan", "wan", peer_netns=descriptor, peer_mac="02:00:00:00:00:02", mtu=1500)
        )
    for netns, address in ((path, MACHINE), (world, WORLD)):
        on(netns, "ip", "address", "add", f"{address}/24", "dev", "wan")
        on(netns, "ip", "link", "set", "wan", "up")
    on(path, "ip", "route", "add", "default", "via", WORLD)
    yield path
    namespace.remove(path)


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_the_world_is_reached_and_the_firewall_left_as_it_was(
    firewall: str, machine: str, world: str, tmp_path: Path
) -> None:
    on(machine, "nft", "-f", "-", input=FIREWALLS[firewall])
    before = on(machine, "nft", "-s", "list", "ruleset")
    cluster = Cluster(f"fire-{os.getpid()}", tmp_path, netns=machine)
    web = subprocess.Popen([*within(world), "python3", "-c", SERVE.format(WORLD)], cwd=tmp_path)
    try:
        assert "warning" not in cluster.up()
        kubectl = cluster.kubectl()
        kubectl.apply(pod("web", {"containers": [server(answer="inside")]}, labels={"app": "web"}))
        kubectl.wait("pod/web")
        assert "machine" in kubectl(f'exec web -- python3 -c "{FETCH.format(f"{WORLD}:8080")}"')
        kubectl("expose pod web --type=NodePort --port=80 --target-port=8080")
        port = kubectl.get("service/web")["spec"]["ports"][0]["nodePort"]
        visit = ["python3", "-c", FETCH.format(f"{MACHINE}:{port}")]
        eventually(lambda: on(world, *visit) == "inside\n\n", "the world reaches the node port")
        on(machine, "nft", "-f", "-", input=OWN)
        assert "warning: inet own f drops what nodes send out" in cluster.up()
        on(machine, "nft", "-f", "-", input=OWN_INPUT)
        assert "warning: inet door i drops what nodes ask of the API" in cluster.up()
        on(machine, "nft", "delete", "table", "inet", "door")
        assert "nft 'insert rule inet own f " in cluster.run("doctor").stdout
        on(machine, "nft", "delete", "table", "inet", "own")
    finally:
        web.kill()
        web.wait()
        cluster.run("down")
    assert on(machine, "nft", "-s", "list", "ruleset") == before
    assert Traces(cluster).found() == {}
