"""The fabric comes and goes without a trace, also when two clusters share a host."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import pytest
from looking import look

from sampan.node.network import fabric, namespace

pytestmark = pytest.mark.root


def everything(netns):
    return look(netns, "ip -o link") + look(netns, "ip route") + look(netns, "nft list tables")


def test_destroy_leaves_nothing_and_may_be_repeated(host, tmp_path):
    namespace.set_sysctls(host, {"ipv4/ip_forward": "0"})
    before = everything(host)
    for _ in range(2):
        fabric.create(str(tmp_path / "a/fabric"))
        fabric.join_host(str(tmp_path / "a/fabric"), "a", "10.89.1.1/24", host=host)
        assert "10.96.0.0/16" in look(host, "ip route")
    for _ in range(2):
        fabric.destroy(str(tmp_path / "a/fabric"), "a", host=host)
        assert everything(host) == before
    assert namespace.set_sysctls(host, {"ipv4/ip_forward": "0"}) == {}
    assert not (tmp_path / "a/fabric").exists()


def test_two_clusters_do_not_take_each_others_routes_or_settings(host, tmp_path):
    namespace.set_sysctls(host, {"ipv4/ip_forward": "0"})
    for name, address in (("a", "10.89.1.1/24"), ("b", "10.89.2.1/24")):
        fabric.create(str(tmp_path / name / "fabric"))
        fabric.join_host(str(tmp_path / name / "fabric"), name, address, host=host)
    for first, second in (("b", "a"),):
        fabric.destroy(str(tmp_path / first / "fabric"), first, host=host)
        assert f"10.96.0.0/16 dev {fabric.host_link(second)}" in look(host, "ip route")
        assert namespace.set_sysctls(host, {"ipv4/ip_forward": "1"}) == {}
        fabric.destroy(str(tmp_path / second / "fabric"), second, host=host)
    assert namespace.set_sysctls(host, {"ipv4/ip_forward": "0"}) == {}


def test_clusters_that_come_and_go_at_the_same_time_find_the_settings_they_need(host, tmp_path):
    namespace.set_sysctls(host, {"ipv4/ip_forward": "0"})
    with ProcessPoolExecutor(3) as pool:
        for one in [pool.submit(comes_and_goes, host, tmp_path, number) for number in (1, 2, 3)]:
            one.result()
    assert namespace.set_sysctls(host, {"ipv4/ip_forward": "0"}) == {}
    assert not (tmp_path / "host-settings.json").exists()


def comes_and_goes(host, directory, number):
    name, path = f"c{number}", str(directory / f"c{number}" / "fabric")
    for _ in range(10):
        fabric.create(path)
        fabric.join_host(path, name, f"10.89.{number}.1/24", host=host)
        assert namespace.set_sysctls(host, {"ipv4/ip_forward": "1"}) == {}
        fabric.destroy(path, name, host=host)


def test_a_node_that_is_plugged_in_again_replaces_its_former_self(host, tmp_path):
    path = str(tmp_path / "a/fabric")
    fabric.create(path)
    fabric.join_host(path, "a", "10.89.1.1/24", host=host)
    for attempt in range(2):
        node = str(tmp_path / f"node-{attempt}")
        namespace.create(node)
        fabric.join(path, node, 1, "10.89.1.2/24", gateways=["10.89.1.1"])
        assert "default via 10.89.1.1" in look(node, "ip route")
    assert "eth0" not in look(str(tmp_path / "node-0"), "ip -o link")
    fabric.leave(path, 1)
    fabric.leave(path, 1)
    assert "eth0" not in look(str(tmp_path / "node-1"), "ip -o link")
    for attempt in range(2):
        namespace.remove(str(tmp_path / f"node-{attempt}"))
    fabric.destroy(path, "a", host=host)
