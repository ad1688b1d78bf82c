"""DaemonSets: which nodes get a pod, how all of them are renewed, and what is done about those that failed."""

import pytest
from world import World, node, template

from sampan.api import meta
from sampan.controllers import daemonset

RULES = daemonset.rules()
APP = {"app": "d"}


def world(*nodes, **spec):
    w = World(*RULES)
    for n in nodes or (node("a"), node("b"), node("c")):
        w.put("nodes", n)
    w.put("daemonsets.apps", {"metadata": {"name": "d"}, "spec": body(**spec)})
    run(w, 2)
    return w


def body(image="img:1", pod=None, **spec):
    t = template(APP, image)
    t["spec"] |= pod or {}
    return {"selector": {"matchLabels": APP}, "template": t} | spec


def run(w, rounds=1):
    """Nodes do their part."""
    for _ in range(rounds):
        w.settle()
        for p in w.list("pods"):
            if meta.deleted(p):
                del w.objects["pods"]["default", meta.name(p)]
            elif not p["spec"].get("nodeName"):
                w.change("pods", meta.name(p), {"spec": {"nodeName": daemonset.node_of(p)}})
        w.all_ready()
    w.settle()


def where(w):
    return sorted(daemonset.node_of(p) for p in w.list("pods") if not meta.deleted(p))


def images(w):
    return {
        daemonset.node_of(p): p["spec"]["containers"][0]["image"][-1]
        for p in w.list("pods")
        if not meta.deleted(p)
    }


def status(w):
    return w.get("daemonsets.apps", "d", "default")["status"]


def taint(key, effect="NoSchedule"):
    return {"key": key, "effect": effect}


@pytest.mark.parametrize(
    "node_spec, labels, pod, runs",
    [
        ({}, {}, {}, True),
        ({}, {}, {"nodeSelector": {"disk": "ssd"}}, False),
        ({}, {"disk": "ssd"}, {"nodeSelector": {"disk": "ssd"}}, True),
        ({}, {}, {"nodeName": "other"}, False),
        ({"taints": [taint("gpu")]}, {}, {}, False),
        ({"taints": [taint("gpu", "PreferNoSchedule")]}, {}, {}, True),
        ({"taints": [taint("gpu")]}, {}, {"tolerations": [{"operator": "Exists"}]}, True),
        ({"taints": [taint("node.kubernetes.io/unschedulable")], "unschedulable": True}, {}, {}, True),
        ({"taints": [taint("node.kubernetes.io/not-ready", "NoExecute")]}, {}, {}, True),
        ({"taints": [taint("node.kubernetes.io/network-unavailable")]}, {}, {}, False),
        ({"taints": [taint("node.kubernetes.io/network-unavailable")]}, {}, {"hostNetwork": True}, True),
    ],
)
def test_which_nodes_get_a_pod(node_spec, labels, pod, runs):
    w = world({"metadata": {"name": "a", "labels": labels}, "spec": node_spec}, pod=pod)
    assert where(w) == (["a"] if runs else [])
    assert status(w)["desiredNumberScheduled"] == runs


@pytest.mark.parametrize("effect, stays", [("NoSchedule", True), ("NoExecute", False)])
def test_a_taint_that_comes_later(effect, stays):
    w = world(node("a"))
    w.change("nodes", "a", {"spec": {"taints": [taint("gpu", effect)]}}, "")
    run(w)
    assert where(w) == (["a"] if stays else [])
    assert status(w)["numberMisscheduled"] == stays


def test_nodes_come_and_go():
    w = world(node("a"))
    w.put("nodes", node("b"))
    w.settle()
    assert where(w) == ["a", "b"] and (status(w)["numberAvailable"], status(w)["numberUnavailable"]) == (1, 1)
    run(w)
    assert status(w)["numberAvailable"] == 2


@pytest.mark.parametrize("unavailable, old", [(1, 2), (2, 1), ("100%", 0)])
def test_no_more_are_away_than_may_be(unavailable, old):
    w = world(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}})
    w.change("daemonsets.apps", "d", {"spec": body("img:2")})
    w.settle()
    assert list(images(w).values()).count("1") == old
    run(w, 8)
    assert set(images(w).values()) == {"2"} and status(w)["updatedNumberScheduled"] == 3


def test_with_surge_the_new_pod_is_there_before_the_old_one_goes():
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    w = world(updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    w.change("daemonsets.apps", "d", {"spec": body("img:2")})
    w.settle()
    assert where(w) == ["a", "a", "b", "c"]
    run(w, 10)
    assert images(w) == {"a": "2", "b": "2", "c": "2"}


def test_going_back_leaves_alone_what_was_not_yet_renewed():
    w = world()
    before = {meta.uid(p) for p in w.list("pods")}
    w.change("daemonsets.apps", "d", {"spec": body("img:2")})
    w.settle()
    for p in w.list("pods"):
        if meta.deleted(p):
            del w.objects["pods"]["default", meta.name(p)]
    w.settle()
    w.change("daemonsets.apps", "d", {"spec": body("img:1")})
    run(w, 3)
    assert set(images(w).values()) == {"1"}
    assert len(before & {meta.uid(p) for p in w.list("pods")}) == 2
    assert sorted(r["revision"] for r in w.list("controllerrevisions.apps")) == [2, 3]


def test_a_revision_that_somebody_copied_renews_no_pod():
    w = world()
    before = {meta.uid(p) for p in w.list("pods")}
    (first,) = w.list("controllerrevisions.apps")
    data = {"name": "d-copy", "labels": APP | {"controller-revision-hash": "copy"}, "uid": "copy"}
    data["ownerReferences"] = first["metadata"]["ownerReferences"]
    w.put("controllerrevisions.apps", {"metadata": data, "data": first["data"], "revision": 2})
    run(w)
    assert {meta.labels(p)["controller-revision-hash"] for p in w.list("pods")} == {"copy"}
    del w.objects["controllerrevisions.apps"]["default", meta.name(first)]
    run(w, 2)
    assert {meta.uid(p) for p in w.list("pods")} == before and w.names("controllerrevisions.apps") == [
        "d-copy"
    ]


def test_a_failed_pod_is_replaced_but_not_in_a_hot_loop():
    w = world(node("a"))
    (pod,) = w.list("pods")
    w.now += 60
    w.change("pods", meta.name(pod), {"status": {"phase": "Failed"}})
    w.settle()
    assert [e.message for e in w.events if e.reason == "FailedDaemonPod"] == [
        f"Found failed daemon pod default/{meta.name(pod)} on node a, will try to kill it"
    ]
    del w.objects["pods"]["default", meta.name(pod)]
    w.settle()
    (young,) = w.list("pods")
    w.change("pods", meta.name(young), {"status": {"phase": "Failed"}})
    w.settle()
    assert not meta.deleted(w.list("pods")[0]) and w.timers[0][2] == pytest.approx(2)


def test_conditions_that_others_set_stay():
    w = world()
    theirs = [{"type": "Checked", "status": "True"}]
    w.change("daemonsets.apps", "d", {"status": {"conditions": theirs}})
    w.put("nodes", node("x"))
    run(w, 2)
    assert status(w)["conditions"] == theirs and status(w)["numberReady"] == 4
