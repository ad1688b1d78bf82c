import pytest

from sampan.api.status import ApiError
from sampan.server.strategies.allocators import Allocators, Range


@pytest.fixture
def allocators(facts):
    return Allocators(facts.lookup, facts.ids, cidrs=("10.96.0.0/16",))


def service(name="s", **spec):
    spec.setdefault("ports", [{"port": 80, "protocol": "TCP"}])
    return {"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": "x"}, "spec": spec}


def prepared(allocators, facts=None, old=None, **spec):
    made = service(**spec)
    allocators.prepare_service(made, old)
    return made["spec"]


def test_addresses_come_from_the_upper_part(allocators):
    assert (allocators.address(1), allocators.address(10)) == ("10.96.0.1", "10.96.0.10")
    spec = prepared(allocators)
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert spec["clusterIP"].startswith("10.96.") and not spec["clusterIP"].startswith("10.96.0.")
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


def test_every_address_is_given_once(facts):
    small = Allocators(facts.lookup, facts.ids, cidrs=("10.0.0.0/28",))
    given = set()
    for number in range(14):
        made = service(f"s{number}")
        small.prepare_service(made)
        facts.put(made)
        given.add(made["spec"]["clusterIP"])
    assert len(given) == 14
    with pytest.raises(ApiError, match="range is full"):
        small.prepare_service(service("more"))
    facts.remove("Service", "x/s3")
    small.prepare_service(service("more"))


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        (
            {"clusterIP": "10.96.0.7"},
            "spec.clusterIPs",
            "failed to allocate IP 10.96.0.7: provided IP is already allocated",
        ),
        (
            {"clusterIP": "172.31.0.1"},
            "spec.clusterIPs",
            "failed to allocate IP 172.31.0.1: the provided IP (172.31.0.1) is not in the valid range. "
            "The range of valid IPs is 10.96.0.0/16",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
            "spec.ports[0].nodePort",
            "provided port is already allocated",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
            "spec.ports[0].nodePort",
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            "spec.ipFamilyPolicy",
            "this cluster is not configured for dual-stack services",
        ),
    ],
)
def test_what_is_taken_is_refused(facts, allocators, spec, field, why):
    ports = [{"port": 80, "nodePort": 30080}]
    facts.put(service("taken", type="NodePort", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"], ports=ports))
    with pytest.raises(ApiError) as caught:
        prepared(allocators, **spec)
    [cause] = caught.value.details["causes"]
    assert (caught.value.code, cause["field"]) == (422, field)
    assert cause["message"].endswith(why)


def test_headless_and_external_name_get_no_address(allocators):
    spec = prepared(allocators, clusterIP="None", selector={"a": "b"})
    assert (spec["clusterIP"], spec["clusterIPs"], spec["ipFamilies"]) == ("None", ["None"], ["IPv4"])
    loose = prepared(allocators, clusterIP="None")
    assert (loose["ipFamilies"], loose["ipFamilyPolicy"]) == (["IPv4", "IPv6"], "RequireDualStack")
    assert "clusterIP" not in prepared(allocators, type="ExternalName", externalName="a.b")


def test_ranges_that_were_added_are_used_when_asked_for_and_when_the_first_is_full(facts):
    allocators = Allocators(facts.lookup, facts.ids, cidrs=("10.96.0.0/30",))
    added = {"kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["203.0.113.0/24"]}}
    with pytest.raises(ApiError):
        prepared(allocators, clusterIP="203.0.113.9")
    facts.put(added)
    assert prepared(allocators, clusterIP="203.0.113.9")["clusterIPs"] == ["203.0.113.9"]
    for name in "ab":
        obj = service(name)
        allocators.prepare_service(obj)
        assert obj["spec"]["clusterIP"].startswith("10.96.0.")
        facts.put(obj)
    assert prepared(allocators)["clusterIP"].startswith("203.0.113.")


def test_dual_stack(facts):
    both = Allocators(facts.lookup, facts.ids, cidrs=("10.96.0.0/16", "fd00::/108"))
    spec = prepared(both, ipFamilyPolicy="PreferDualStack")
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert spec["clusterIPs"][1].startswith("fd00::")
    spec = prepared(both, ipFamilies=["IPv6"])
    assert spec["clusterIP"].startswith("fd00::") and len(spec["clusterIPs"]) == 1


def test_node_ports(facts, allocators):
    dns = [
        {"port": 53, "protocol": "UDP", "name": "a"},
        {"port": 53, "protocol": "TCP", "name": "b"},
        {"port": 80},
    ]
    ports = [p["nodePort"] for p in prepared(allocators, type="NodePort", ports=dns)["ports"]]
    assert ports[0] == ports[1] != ports[2]
    assert all(30086 <= p <= 32767 for p in ports)
    spec = prepared(allocators, type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in spec["ports"][0]
    spec = prepared(allocators, type="LoadBalancer", externalTrafficPolicy="Local")
    assert spec["healthCheckNodePort"] != spec["ports"][0]["nodePort"]


def test_an_update_keeps_what_it_leaves_out(facts, allocators):
    old = service(type="NodePort")
    allocators.prepare_service(old)
    facts.put(old)
    spec = prepared(allocators, old=old, type="NodePort", ports=[{"port": 80}, {"port": 81}])
    assert spec["clusterIP"] == old["spec"]["clusterIP"]
    assert spec["ports"][0]["nodePort"] == old["spec"]["ports"][0]["nodePort"]
    assert spec["ports"][1]["nodePort"] != spec["ports"][0]["nodePort"]


def test_a_change_of_type_drops_what_belonged_to_the_old_one(facts, allocators):
    old = service(type="LoadBalancer", externalTrafficPolicy="Local", allocateLoadBalancerNodePorts=True)
    allocators.prepare_service(old)
    facts.put(old)
    changed = {k: v for k, v in old["spec"].items() if k != "type"}
    spec = prepared(
        allocators, old=old, **{**changed, "ports": [dict(p) for p in changed["ports"]]}, type="ClusterIP"
    )
    assert "nodePort" not in spec["ports"][0]
    assert not {"healthCheckNodePort", "allocateLoadBalancerNodePorts", "externalTrafficPolicy"} & spec.keys()
    spec = prepared(
        allocators, old=old, type="ExternalName", externalName="a.b", clusterIP=old["spec"]["clusterIP"]
    )
    assert "clusterIP" not in spec
    spec = prepared(
        allocators, old=old, type="ExternalName", externalName="a.b", externalTrafficPolicy="Local"
    )
    assert "externalTrafficPolicy" not in spec


def test_the_lower_part_is_used_last(facts):
    numbers = Range(1, 40, 20)
    upper = {numbers.pick(set(), facts.ids) for _ in range(200)}
    assert min(upper) >= 21
    assert numbers.pick(set(range(21, 41)), facts.ids) <= 20
    assert numbers.pick(set(range(1, 41)), facts.ids) is None
