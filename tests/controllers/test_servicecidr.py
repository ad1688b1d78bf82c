"""Ranges of Service addresses: when they are ready, and when they may go."""

from world import World

from sampan.api import meta
from sampan.client.plan import Delete
from sampan.controllers import servicecidr

CIDRS = "servicecidrs.networking.k8s.io"


def put(w, name, *cidrs):
    return w.put(CIDRS, {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}})


def ready(w, name):
    found = meta.condition(w.get(CIDRS, name, ""), "Ready")
    return found and (found["status"], found["reason"])


def test_a_range_is_ready_and_goes_when_its_last_service_has_gone():
    w = World(*servicecidr.rules())
    put(w, "kubernetes", "10.96.0.0/16")
    put(w, "more", "203.0.113.0/24", "fd00:1::/112")
    for name, address in (("a", "203.0.113.9"), ("b", "10.96.0.9"), ("c", "None")):
        w.put("services", {"metadata": {"name": name}, "spec": {"clusterIPs": [address]}})
    w.settle()
    assert ready(w, "kubernetes") == ready(w, "more") == ("True", "")
    w.delete(Delete(CIDRS, "more", ""))
    w.settle()
    assert ready(w, "more") == ("False", "Terminating")
    w.delete(Delete("services", "a", "default"))
    w.settle()
    assert [meta.name(c) for c in w.list(CIDRS)] == ["kubernetes"]


def test_a_range_inside_another_one_may_go_at_once():
    w = World(*servicecidr.rules())
    put(w, "kubernetes", "10.96.0.0/16")
    put(w, "part", "10.96.7.0/24")
    w.put("services", {"metadata": {"name": "a"}, "spec": {"clusterIPs": ["10.96.7.1"]}})
    w.settle()
    w.delete(Delete(CIDRS, "part", ""))
    w.settle()
    assert [meta.name(c) for c in w.list(CIDRS)] == ["kubernetes"]
