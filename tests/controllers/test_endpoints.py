"""Which addresses stand behind a Service, as slices and as Endpoints."""

import pytest
from world import World

from sampan.api import meta
from sampan.controllers import endpoints, endpointslice, loadbalancer
from sampan.testing import Cluster

SLICES = "endpointslices.discovery.k8s.io"
APP = {"app": "a"}
WEB = {
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
RULES = (*endpointslice.rules(), *endpoints.rules())


def service(w, **spec):
    body = {
        "selector": APP,
        "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
        "clusterIP": "10.96.0.9",
    }
    return w.put("services", {"metadata": {"name": "s", "labels": {"own": "1"}}, "spec": body | spec})


def pod(w, name, ip="10.0.0.1", ready=True, **spec):
    container = {"name": "c", "ports": [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]}
    body = {"nodeName": "n1", "containers": [container], **spec}
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2024-01-01T00:00:00Z"}]
    status = {"phase": "Running", "podIP": ip, "conditions": conditions}
    return w.put("pods", {"metadata": {"name": name, "labels": APP}, "spec": body, "status": status})


def world(**spec):
    w = World(*RULES)
    w.put("nodes", {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}, "spec": {}})
    service(w, **spec)
    return w


def ends(w):
    return {e["addresses"][0]: e for s in w.list(SLICES) for e in s["endpoints"]}


def subsets(w):
    return w.get("endpoints", "s", "default").get("subsets")


def test_ready_and_unready_pods():
    w = world()
    p = pod(w, "a", "10.0.0.1")
    pod(w, "b", "10.0.0.2", ready=False)
    w.settle()
    (s,) = w.list(SLICES)
    assert meta.labels(s) == {
        "own": "1",
        "kubernetes.io/service-name": "s",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert s["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    assert ends(w)["10.0.0.1"] == {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "a", "uid": meta.uid(p)},
        "nodeName": "n1",
        "zone": "z",
    }
    assert ends(w)["10.0.0.2"]["conditions"]["ready"] is False
    (subset,) = subsets(w)
    assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.1"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.0.0.2"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_a_terminating_pod_still_serves_but_is_not_ready():
    w = world()
    pod(w, "a")
    w.change("pods", "a", {"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}})
    w.settle()
    assert ends(w)["10.0.0.1"]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    assert subsets(w) == []


def test_publish_not_ready():
    w = world(publishNotReadyAddresses=True)
    pod(w, "a", ready=False)
    w.settle()
    assert ends(w)["10.0.0.1"]["conditions"]["ready"] is True
    assert "notReadyAddresses" not in subsets(w)[0]


def test_named_ports_may_differ():
    w = world(ports=[{"port": 80, "targetPort": "http", "name": "web", "protocol": "TCP"}])
    pod(w, "a", "10.0.0.1")
    other = {"name": "c", "ports": [{"name": "http", "containerPort": 7070, "protocol": "TCP"}]}
    pod(w, "b", "10.0.0.2", containers=[other])
    w.settle()
    assert {s["ports"][0]["port"] for s in w.list(SLICES)} == {9090, 7070}
    assert len(subsets(w)) == 2


def test_headless_with_hostname():
    w = world(clusterIP="None", ports=[])
    pod(w, "a", hostname="h", subdomain="s")
    pod(w, "b", "10.0.0.2", hostname="h", subdomain="other")
    w.settle()
    assert ends(w)["10.0.0.1"]["hostname"] == "h" and "hostname" not in ends(w)["10.0.0.2"]
    assert meta.labels(w.list(SLICES)[0])["service.kubernetes.io/headless"] == ""
    assert "hostname" in subsets(w)[0]["addresses"][0]


def test_nothing_behind_it():
    w = world()
    w.settle()
    (s,) = w.list(SLICES)
    assert s["endpoints"] == [] and subsets(w) == []


def test_many_pods_fill_slices_and_a_change_touches_one():
    w = world()
    for i in range(250):
        pod(w, f"p{i:03}", f"10.0.{i // 200}.{i % 200 + 1}")
    w.settle()
    assert sorted(len(s["endpoints"]) for s in w.list(SLICES)) == [50, 100, 100]
    w.log.clear()
    w.ready(w.get("pods", "p007", "default"), state=False)
    w.settle()
    assert sum("EndpointSlice" in line for line in w.log) == 1
    for i in range(250):
        w.change("pods", f"p{i:03}", {"status": {"phase": "Succeeded"}})
    w.settle()
    assert [len(s["endpoints"]) for s in w.list(SLICES)] == [0]


def test_endpoints_go_with_their_service():
    w = world()
    w.settle()
    del w.objects["services"]["default", "s"]
    plan = w.plan(endpoints.rules()[0], "services", "s")
    assert plan.phases[0][0].name == "s"


def test_hand_made_endpoints_are_mirrored():
    w = world(selector=None)
    ports = [{"port": 5432, "protocol": "TCP", "name": "db"}]
    body = {"subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": ports}]}
    w.put("endpoints", {"metadata": {"name": "s"}, **body})
    w.settle()
    (s,) = w.list(SLICES)
    assert s["endpoints"] == [{"addresses": ["1.2.3.4"], "conditions": {"ready": True}}]
    assert (
        meta.labels(s)["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    )
    w.change("endpoints", "s", {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}})
    w.settle()
    assert w.list(SLICES) == []


def test_finished_pods_and_pods_without_address_are_left_out():
    w = world()
    pod(w, "a", ip="")
    pod(w, "b", "10.0.0.2")
    w.change("pods", "b", {"status": {"phase": "Succeeded"}})
    w.settle()
    assert ends(w) == {}


@pytest.mark.parametrize("pool", ["10.1.0.0/30", "10.1.0.1-10.1.0.2"])
def test_load_balancer_pool(pool):
    w = World(*loadbalancer.rules(pool))
    for name in "abc":
        w.put("services", {"metadata": {"name": name}, "spec": {"type": "LoadBalancer"}})
    w.settle()
    assert [loadbalancer.addresses(s) for s in w.list("services")] == [["10.1.0.1"], ["10.1.0.2"], []]
    assert w.events[-1].message == f"Error syncing load balancer: no free address in the pool {pool}"
    w.change("services", "a", {"spec": {"type": "ClusterIP"}})
    w.settle()
    assert [loadbalancer.addresses(s) for s in w.list("services")] == [[], ["10.1.0.2"], ["10.1.0.1"]]


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (["IPv4"], ["10.1.0.1"]),
        (["IPv6"], ["fd00:1::1"]),
        (["IPv6", "IPv4"], ["fd00:1::1", "10.1.0.1"]),
    ],
)
def test_load_balancers_of_two_ip_versions(families, expected):
    w = World(*loadbalancer.rules("10.1.0.0/30,fd00:1::/126"))
    spec = {"type": "LoadBalancer", "ipFamilies": families}
    w.put("services", {"metadata": {"name": "a"}, "spec": spec})
    w.settle()
    assert loadbalancer.addresses(w.list("services")[0]) == expected
    w.change("services", "a", {"spec": {"ipFamilies": families[:1]}})
    w.settle()
    assert loadbalancer.addresses(w.list("services")[0]) == expected[:1]


@pytest.mark.parametrize(
    ("wish", "hints"),
    [
        (None, None),
        ("PreferClose", {"forZones": [{"name": "z"}]}),
        ("PreferSameZone", {"forZones": [{"name": "z"}]}),
        ("PreferSameNode", {"forNodes": [{"name": "n1"}], "forZones": [{"name": "z"}]}),
    ],
)
def test_traffic_distribution(wish, hints):
    w = world(**({"trafficDistribution": wish} if wish else {}))
    pod(w, "a", "10.0.0.1")
    w.settle()
    assert ends(w)["10.0.0.1"].get("hints") == hints


async def test_hints_follow_the_zone_of_a_node():
    async with Cluster(nodes=1) as cluster:
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80}], "trafficDistribution": "PreferSameZone"}
        await cluster.client.create("services", {"metadata": {"name": "web"}, "spec": spec}, "default")
        await cluster.client.create("pods", WEB, "default")
        await cluster.advance(1)
        for zone in ("a", "b"):
            label = {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}
            await cluster.client.patch("nodes", "node-1", label)
            await cluster.settle()
            (found,) = await cluster.list("endpointslices", labels="kubernetes.io/service-name=web")
            assert found["endpoints"][0]["hints"] == {"forZones": [{"name": zone}]}
