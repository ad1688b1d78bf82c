"""Services, ingresses, policies, endpoints."""

import pytest
from lines import same

SERVICE = {"spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}}
INGRESSES, POLICIES = "ingresses.networking.k8s.io", "networkpolicies.networking.k8s.io"
SLICES = "endpointslices.discovery.k8s.io"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.type", "NodePort", []),
        ("spec.ports", [], ["spec.ports: Required value"]),
        ("spec.ports", [{"port": 65536}], ["spec.ports[0].port: Invalid value: 65536", "targetPort: Invalid value: 65536"]),
        ("spec.ports", [{"port": 80}, {"port": 81}], ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"]),
        ("spec.ports", [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}], ['spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP"']),
        ("spec.ports", [{"port": 80, "nodePort": 30080}], ["may not be used when `type` is 'ClusterIP'"]),
        ("spec.ports", [{"port": 80, "targetPort": "a_b"}], ["must contain only alpha-numeric characters (a-z, 0-9)"]),
        ("spec.type", "Magic", ['supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"']),
        ("spec.sessionAffinity", "Sticky", ['supported values: "ClientIP", "None"']),
        ("spec.externalIPs", ["home"], ["spec.externalIPs[0]: Invalid value: \"home\": must be a valid IP address"]),
        ("spec.externalTrafficPolicy", "Local", ["may only be set for externally-accessible services"]),
        ("spec.internalTrafficPolicy", "Far", ['supported values: "Cluster", "Local"']),
        ("spec.loadBalancerSourceRanges", ["10.0.0.0/8"], ["may only be used when `type` is 'LoadBalancer'"]),
        ("spec.clusterIPs", ["10.96.0.8"], ["first value must match `clusterIP`"]),
        ("spec.ipFamilies", ["IPv6"], ["expected an IPv6 value as indicated by `ipFamilies[0]`"]),
        ("spec.selector", {"a b": "c"}, ["spec.selector: Invalid value"]),
    ],
)  # fmt: skip
def test_a_service_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    same(judge.create("services", put(SERVICE, path, value)), expected)


def test_types_of_services(judge):
    assert judge.create("services", {"spec": {"type": "ExternalName", "externalName": "a.b."}}) == []
    same(judge.create("services", {"spec": {"type": "ExternalName"}}), ["spec.externalName: Required value"])
    headless = {"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}
    assert judge.create("services", headless) == []
    headless["spec"] |= {"type": "LoadBalancer", "ports": [{"port": 80}]}
    same(judge.create("services", headless), ["may not be set to 'None' for LoadBalancer services"])


def test_an_address_stays(judge, put):
    other = put(put(SERVICE, "spec.clusterIP", "10.96.0.8"), "spec.clusterIPs", ["10.96.0.8"])
    same(
        judge.update("services", other, SERVICE),
        ['spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set'],
    )
    name = {"spec": {"type": "ExternalName", "externalName": "a"}}
    assert judge.update("services", name, SERVICE) == []


BACKEND = {"service": {"name": "s", "port": {"number": 80}}}
INGRESS = {
    "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}]}
}
PATH = "spec.rules.0.http.paths.0."


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.rules.0.host", "*.a.b", []),
        (
            "spec.rules",
            [],
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        ("spec.rules.0.host", "A_b", ["spec.rules[0].host: Invalid value"]),
        ("spec.rules.0.host", "10.0.0.1", ["must be a DNS name, not an IP address"]),
        (PATH + "pathType", "Regex", ['supported values: "Exact", "ImplementationSpecific", "Prefix"']),
        (PATH + "pathType", ..., ["pathType: Required value: pathType must be specified"]),
        (PATH + "path", "a//b", ["must be an absolute path", "must not contain '//'"]),
        (PATH + "backend.service.port", {}, ["backend: Required value: port name or number is required"]),
        (PATH + "backend.service.port.name", "web", ["cannot set both port name & port number"]),
        (
            PATH + "backend.resource",
            {"kind": "K", "name": "n"},
            ["cannot set both resource and service backends"],
        ),
        ("spec.tls", [{"hosts": ["A_b"]}], ["spec.tls[0].hosts[0]: Invalid value"]),
    ],
)
def test_an_ingress_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    same(judge.create(INGRESSES, put(INGRESS, path, value)), expected)


@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}, []),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}, ["must be a strict subset of `cidr`"]),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}, ["cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value"]),
        ({"from": [{}]}, ["spec.ingress[0].from[0]: Required value: must specify a peer"]),
        ({"from": [{"podSelector": {}, "ipBlock": {"cidr": "::/0"}}]}, ["may not specify both ipBlock and another peer"]),
        ({"ports": [{"port": 80, "endPort": 70}]}, ["must be greater than or equal to `port`"]),
        ({"ports": [{"port": "web", "endPort": 70}]}, ["may not be specified when `port` is non-numeric"]),
        ({"ports": [{"protocol": "GRE", "port": 1}]}, ['supported values: "TCP", "UDP", "SCTP"']),
    ],
)  # fmt: skip
def test_network_policies(judge, ingress, expected):
    same(judge.create(POLICIES, {"spec": {"podSelector": {}, "ingress": [ingress]}}), expected)


def test_endpoints_need_addresses_and_ports_that_can_be_reached(judge):
    def subset(address, *ports):
        return {"subsets": [{"addresses": [{"ip": address}], "ports": list(ports)}]}

    assert judge.create("endpoints", subset("10.1.1.1", {"port": 80})) == []
    same(judge.create("endpoints", subset("127.0.0.1", {"port": 80})), ["may not be in the loopback range"])
    same(
        judge.create("endpoints", subset("10.1.1.1", {"port": 0})), ["must be between 1 and 65535, inclusive"]
    )
    same(judge.create("endpoints", {"subsets": [{}]}), ["must specify `addresses` or `notReadyAddresses`"])


def test_addresses_of_a_slice_are_of_its_type(judge, put):
    made = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"port": 80}]}
    assert judge.create(SLICES, made) == []
    same(judge.create(SLICES, put(made, "addressType", "IPv5")), ['"FQDN", "IPv4", "IPv6"'])
    same(judge.create(SLICES, put(made, "endpoints.0.addresses", ["::1"])), ["must be a valid IPv4 address"])
    same(judge.create(SLICES, put(made, "endpoints.0.addresses", [])), ["must contain at least 1 address"])
    lines = judge.update(SLICES, put(put(made, "addressType", "IPv6"), "endpoints", []), made)
    same(lines, ['addressType: Invalid value: "IPv6": field is immutable'])


def test_addresses_and_ranges(judge, put):
    address = {"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}}
    kind = "ipaddresses.networking.k8s.io"
    assert judge.create(kind, address) == []
    same(judge.create(kind, put(address, "metadata.name", "::0:1")), ['must be in canonical form ("::1")'])
    ranges = "servicecidrs.networking.k8s.io"
    assert judge.create(ranges, {"spec": {"cidrs": ["10.0.0.0/16", "fd00::/64"]}}) == []
    same(judge.create(ranges, {"spec": {"cidrs": ["10.0.0.0"]}}), ["must be a valid CIDR value"])
    same(
        judge.create(ranges, {"spec": {"cidrs": ["10.0.0.0/16", "10.1.0.0/16"]}}),
        ["no more than one IP for each"],
    )
