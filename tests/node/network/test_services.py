"""What a Service means for the kernel, without a kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_objects import endpoint, service, slice_of

from sampan.node.network import ruleset
from sampan.node.network.programming import Programmed, diff
from sampan.node.network.ruleset import Balance, Config
from sampan.node.network.services import Element, arrange, desired, entries, pack_address, pack_key, pack_port

NODE = Config(node="node-0", zone="z1")
HOST = Config()
KEY = pack_key(pack_address("10.96.1.1"), "TCP", 80)


def balances(found, name=ruleset.VIPS):
    return {e.key: v for e, v in found.items() if e.set == name}


def endpoints_of(found, key=KEY, offset=0):
    """Addresses in the order of their indexes."""
    result = []
    while value := found.get(Element(4, ruleset.ENDPOINTS, key + struct.pack("=I", offset + len(result)))):
        result.append(".".join(map(str, value[:4])))
    return result


def test_a_cluster_ip():
    found = entries(service("web"), [slice_of("web", endpoint("10.1.0.1"), endpoint("10.1.0.2"))], NODE, {})
    assert balances(found) == {KEY: Balance(2)}
    assert endpoints_of(found) == ["10.1.0.1", "10.1.0.2"]


@pytest.mark.parametrize(
    "spec",
    [{"ip": "None"}, {"ip": ""}, {"type": "ExternalName", "ip": ""}, {"ports": []} | {"ip": "None"}],
)
def test_services_without_a_virtual_address_need_nothing(spec):
    assert entries(service("web", **spec), [slice_of("web", endpoint("10.1.0.1"))], NODE, {}) == {}


CONDITIONS = [
    ([endpoint("10.1.0.1"), endpoint("10.1.0.2", ready=False, serving=False)], ["10.1.0.1"]),
    ([endpoint("10.1.0.1"), endpoint("10.1.0.2", ready=False, serving=True, terminating=True)], ["10.1.0.1"]),
    ([endpoint("10.1.0.2", ready=False, serving=True, terminating=True)], ["10.1.0.2"]),
    ([endpoint("10.1.0.2", ready=False, serving=False, terminating=True)], []),
    ([{"addresses": ["10.1.0.3"]}], ["10.1.0.3"]),
]


@pytest.mark.parametrize("listed, serving", CONDITIONS)
def test_which_endpoints_serve(listed, serving):
    found = entries(service("web"), [slice_of("web", *listed)], NODE, {})
    assert endpoints_of(found) == serving
    assert (Element(4, ruleset.REJECTED, KEY) in found) == (not serving)


def test_named_ports_take_the_slice_port_of_that_name():
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": "UDP"}]
    item = slice_of("web", endpoint("10.1.0.1"))
    item["ports"] = [{"name": "a", "port": 8080}, {"name": "b", "port": 5353, "protocol": "UDP"}]
    found = entries(service("web", ports=ports), [item], NODE, {})
    udp = pack_key(pack_address("10.96.1.1"), "UDP", 81)
    assert found[Element(4, ruleset.ENDPOINTS, udp + bytes(4))] == pack_address("10.1.0.1") + pack_port(5353)
    assert balances(found) == {KEY: Balance(1), udp: Balance(1)}


POLICIES = [
    # spec, config, VIPS of the cluster address, of the node port, SHORTCUT of the node port
    ({}, NODE, Balance(2), Balance(2, node_port=True, masquerade=True), None),
    (
        {"externalTrafficPolicy": "Local"},
        NODE,
        Balance(2),
        Balance(1, local=True, node_port=True),
        Balance(2, node_port=True, masquerade=True),
    ),
    ({"externalTrafficPolicy": "Local"}, HOST, Balance(2), Balance(2, node_port=True), None),
    (
        {"internalTrafficPolicy": "Local"},
        NODE,
        Balance(1, local=True),
        Balance(2, node_port=True, masquerade=True),
        None,
    ),
    (
        {"sessionAffinity": "ClientIP"},
        NODE,
        Balance(2, affinity=10800),
        Balance(2, node_port=True, masquerade=True, affinity=10800),
        None,
    ),
]


@pytest.mark.parametrize("spec, config, internal, external, shortcut", POLICIES)
def test_traffic_policies(spec, config, internal, external, shortcut):
    item = slice_of("web", endpoint("10.1.0.1", "node-0"), endpoint("10.1.0.2", "node-1"))
    found = entries(service("web", node_port=30080, **spec), [item], config, {})
    port = pack_key(bytes(4), "TCP", 30080)
    assert balances(found)[KEY] == internal
    assert balances(found)[port] == external
    assert balances(found, ruleset.SHORTCUT).get(port) == shortcut


def test_a_local_policy_without_local_endpoints_drops():
    item = slice_of("web", endpoint("10.1.0.2", "node-1"))
    found = entries(service("web", internalTrafficPolicy="Local"), [item], NODE, {})
    assert Element(4, ruleset.DROPPED, KEY) in found


@pytest.mark.parametrize("label", ["service-proxy-name", "headless"])
def test_services_of_others_are_left_alone(label):
    theirs = service("web")
    theirs["metadata"]["labels"] = {f"service.kubernetes.io/{label}": "x"}
    assert entries(theirs, [slice_of("web", endpoint("10.1.0.1"))], NODE, {}) == {}


def test_zone_hints_apply_only_when_every_endpoint_has_one():
    here = endpoint("10.1.0.1") | {"hints": {"forZones": [{"name": "z1"}]}}
    there = endpoint("10.1.0.2") | {"hints": {"forZones": [{"name": "z2"}]}}
    bare = endpoint("10.1.0.3")
    assert endpoints_of(entries(service("web"), [slice_of("web", here, there)], NODE, {})) == ["10.1.0.1"]
    assert len(endpoints_of(entries(service("web"), [slice_of("web", here, there, bare)], NODE, {}))) == 3
    assert len(endpoints_of(entries(service("web"), [slice_of("web", here, there)], HOST, {}))) == 2


def test_an_address_served_here_is_left_alone():
    config = Config(node="node-0", served_here=frozenset({"10.96.1.1"}))
    assert not balances(entries(service("web"), [slice_of("web", endpoint("10.1.0.1"))], config, {}))


values = st.lists(st.binary(min_size=1, max_size=1), unique=True, max_size=8)


@given(values, values)
def test_arrange_keeps_places(old, new):
    result = arrange(old, new)
    assert sorted(result) == sorted(new)
    for index, value in enumerate(old[: len(result)]):
        if value in new:
            assert result[index] == value


def test_one_endpoint_less_changes_few_elements():
    many = [endpoint(f"10.1.0.{i}") for i in range(1, 101)]
    old = entries(service("web"), [slice_of("web", *many)], NODE, {})
    new = entries(service("web"), [slice_of("web", *many[:50], *many[51:])], NODE, old)
    delta = diff(old, new)
    assert len(delta.removed) + len(delta.added) <= 6


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.dictionaries(st.integers(0, 5), st.integers(0, 2), max_size=4),
        )
    )
)
def test_programmed_is_what_the_first_claimant_wants(changes):
    """Against a model: all deltas together give the elements, of each the value of the first service by name."""
    state, kernel, model = Programmed(), {}, {}
    for name, wanted in changes:
        new = {Element(4, "s", bytes([key])): bytes([value]) for key, value in wanted.items()}
        delta = state.change({name: new})
        for element, value in delta.removed.items():
            assert kernel.pop(element) == value
        for element, value in delta.added.items():
            assert element not in kernel
            kernel[element] = value
        model[name] = new
        expected = {}
        for service_name in sorted(model, reverse=True):
            expected |= model[service_name]
        assert kernel == expected == state.effective()


def test_desired_groups_slices_by_service():
    found = desired(
        [service("web"), service("db", "10.96.1.9")],
        [slice_of("web", endpoint("10.1.0.1")), slice_of("db", endpoint("10.1.0.2"))],
        NODE,
    )
    assert {key: len(balances(value)) for key, value in found.items()} == {"default/web": 1, "default/db": 1}
