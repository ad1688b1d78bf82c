import ipaddress
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.base.errors import SampanError
from sampan.cluster import config as configs
from sampan.cluster import up
from sampan.cluster.paths import Paths
from sampan.cluster.up import Wishes


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "clusters" / "a").mkdir(parents=True)
    return Paths("a", tmp_path / "clusters" / "a", tmp_path / "run" / "a", tmp_path / "images")


def decided(paths, **wishes):
    config = up.decide(paths, Wishes(**wishes))
    configs.save(config, paths.config)
    return config


def test_a_new_cluster_has_one_node_and_repeating_changes_nothing(paths):
    first = decided(paths)
    assert [node.name for node in first.nodes] == ["node-1"]
    assert decided(paths) == first
    assert [node.name for node in decided(paths, nodes=3).nodes] == ["node-1", "node-2", "node-3"]
    assert len(decided(paths, nodes=1).nodes) == 3, "nodes go by `sampan node delete` only"


def test_more_nodes_take_names_that_are_free(paths):
    config = decided(paths, nodes=3)
    config.nodes = [node for node in config.nodes if node.name != "node-2"]
    configs.save(config, paths.config)
    assert [node.name for node in decided(paths, nodes=4).nodes] == ["node-1", "node-3", "node-2", "node-4"]


@pytest.mark.parametrize("name", ["Boat", "a_b", "-a", "a..b", "../../etc", "", "x" * 64, "control-plane"])
def test_what_cannot_name_a_node_is_refused(paths, name):
    """It would be kept, and every later `up` wait for a node that never comes."""
    config = decided(paths)
    with pytest.raises(SampanError, match="cannot be the name of a node"):
        up.add_node(config, name)
    assert up.add_node(config, "deck.boat-2").name == "deck.boat-2"


def test_no_node_at_all_stays_so(paths):
    assert decided(paths, nodes=0).nodes == []
    assert decided(paths).nodes == []


def test_periods_are_kept_until_changed(paths):
    assert decided(paths, node_monitor_grace_period=4).node_monitor_grace_period == 4
    assert decided(paths).node_monitor_grace_period == 4


def test_clusters_of_one_machine_do_not_share_addresses(paths, tmp_path):
    first = decided(paths)
    (tmp_path / "clusters" / "b").mkdir()
    second = decided(Paths("b", tmp_path / "clusters" / "b", tmp_path / "run" / "b", tmp_path / "images"))
    for name in ("fabric", "pod_cidr", "service_cidr", "dns_ip", "load_balancer_cidr"):
        assert getattr(first, name) != getattr(second, name)


@pytest.mark.parametrize(
    ("family", "versions"), [(None, [4]), ("ipv4", [4]), ("dual", [4, 6]), ("ipv6", [6])]
)
def test_ip_versions_of_a_cluster(paths, family, versions):
    config = decided(paths, ip_family=family)
    found = [config.pod_cidrs, config.service_cidrs, config.load_balancer_cidrs, config.pod_ranges(3)]
    for ranges in found:
        assert [ipaddress.ip_network(text).version for text in ranges] == versions
    for addresses in (config.node_addresses(3), config.dns_ips):
        assert [ipaddress.ip_address(text).version for text in addresses] == versions
    for outer, inner in zip(config.pod_cidrs, config.pod_ranges(252), strict=True):
        assert ipaddress.ip_network(inner).subnet_of(ipaddress.ip_network(outer))
    for address, service_cidr in zip(config.dns_ips, config.service_cidrs, strict=True):
        assert ipaddress.ip_address(address) in ipaddress.ip_network(service_cidr)
    assert config.fabric_addresses(0)[0] == config.server_address, "nodes have IPv4 in any case"
    assert config.advertised == config.node_addresses(0)[0]
    first = ipaddress.ip_network(config.service_cidrs[0])
    assert config.dns_ip == config.dns_ips[0] and ipaddress.ip_address(config.api_service_ip) in first


@pytest.mark.parametrize(
    ("wish", "said"), [({"ip_family": "dual"}, "ipv4"), ({"pod_network": "vxlan"}, "auto")]
)
def test_the_kind_of_network_stays(paths, wish, said):
    decided(paths)
    with pytest.raises(SampanError, match=f"was made with --.*={said} and stays so"):
        decided(paths, **wish)


def test_clusters_with_data_elsewhere_and_at_the_same_time_do_not_share_addresses(tmp_path):
    def made(number):
        data = tmp_path / f"elsewhere-{number}" / "data"
        data.mkdir(parents=True)
        name = f"c{number}"
        return up.decide(Paths(name, data, tmp_path / "run" / name, tmp_path / "images"), Wishes())

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(made, range(8)))
    for name in ("port", "fabric", "pod_cidr", "service_cidr", "load_balancer_cidr"):
        assert len({getattr(config, name) for config in found}) == 8, name


def test_a_taken_port_is_told_when_it_was_asked_for(paths):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SampanError, match=f"port {port} of 127.0.0.1 is taken"):
            up.decide(paths, Wishes(port=port))
    assert decided(paths, port=port).port == port
    with pytest.raises(SampanError, match="stays so"):
        decided(paths, port=port + 1)


def test_a_port_nobody_asked_for_is_another_when_the_usual_one_is_taken(paths, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(up, "DEFAULT_PORT", other.getsockname()[1])
        assert decided(paths).port not in (0, other.getsockname()[1])


def test_another_users_cluster_is_refused(paths):
    config = decided(paths)
    config.rootless = not config.rootless
    configs.save(config, paths.config)
    with pytest.raises(SampanError, match="was made by"):
        decided(paths)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"name": "a"}', "is damaged"),
        ('{"name": "a", "port": "x", "format": 1}', "is damaged"),
        ('{"name": "a", "format": 99}', "newer sampan"),
        ('{"name": "a", "format": 1, "nodes": [{"nom": 1}]}', "is damaged"),
    ],
)
def test_a_damaged_configuration_is_named(paths, text, said):
    paths.config.write_text(text)
    with pytest.raises(SampanError, match=said):
        decided(paths)


def test_an_unknown_field_of_a_configuration_is_passed_over(paths):
    config = decided(paths)
    raw = json.loads(paths.config.read_text()) | {"later": 1}
    paths.config.write_text(json.dumps(raw))
    assert configs.load(paths.config) == config


def test_a_kubeconfig_that_is_none_is_told_before_anything_starts(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(up.supervision, "start", lambda paths: pytest.fail("it started"))
    for text in ("a: [", "just text"):
        (tmp_path / "kubeconfig").write_text(text)
        wishes = Wishes(nodes=0, kubeconfig=str(tmp_path / "kubeconfig"))
        with pytest.raises(SampanError, match="kubeconfig|valid YAML"):
            up.bring_up(
                Paths("b", tmp_path / "b", tmp_path / "run" / "b", tmp_path / "images"), wishes, print
            )
        assert not (tmp_path / "b").exists(), "nothing is left of a cluster that never was"


def test_only_one_command_at_a_time(paths):
    with up.exclusive(paths), pytest.raises(SampanError, match="another sampan command"), up.exclusive(paths):
        pass


POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n"


def test_audit_files_are_looked_at_before_anything_starts(paths, tmp_path):
    policy = tmp_path / "policy.yaml"
    with pytest.raises(SampanError, match="there is no"):
        decided(paths, audit_policy_file=str(policy))
    policy.write_text("kind: Policy\nrules: [{level: All}]")
    with pytest.raises(SampanError, match='unknown audit level "All"'):
        decided(paths, audit_policy_file=str(policy))
    with pytest.raises(SampanError, match="needs an --audit-policy-file"):
        decided(paths, audit_log_path="x")
    policy.write_text(POLICY)
    assert decided(paths, audit_policy_file=str(policy)).audit_log_path == str(paths.logs / "audit.log")


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    configs.write_atomic(path, "old")

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        configs.write_atomic(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_other_machines_are_let_in_and_no_longer(paths, monkeypatch):
    monkeypatch.setattr(up, "is_root", lambda: True)
    assert decided(paths).machine == ""
    try:
        here = up.underlay.own_address("auto")
    except SampanError as error:
        pytest.skip(error.message)
    open_ = decided(paths, advertise=here)
    assert (open_.machine, open_.first_machine) == (here, here) and open_.network_id and open_.mtu < 1500
    assert decided(paths) == open_
    closed = decided(paths, advertise="off")
    assert (closed.machine, closed.first_machine, closed.network_id, closed.mtu) == ("", "", 0, 1500)


@pytest.mark.parametrize(
    ("machine", "wish", "said"),
    [
        ("203.0.113.7", None, "203.0.113.7, which it no longer has"),
        ("203.0.113.7", "auto", "203.0.113.7, which it no longer has"),
        ("127.0.0.1", "off", "127.0.0.1 and keeps it"),
    ],
)
def test_a_machine_that_has_joined_keeps_its_address(paths, monkeypatch, machine, wish, said):
    monkeypatch.setattr(up, "is_root", lambda: True)
    joined = configs.ClusterConfig("a", server="https://192.0.2.1:6443", machine=machine)
    configs.save(joined, paths.config)
    with pytest.raises(SampanError, match=said) as raised:
        decided(paths, advertise=wish)
    assert "sampan down" in raised.value.hint
