"""Owners, namespaces, nodes: what goes when something else does."""

import pytest
from world import START, World, node

from sampan.api import meta
from sampan.api.resources import BUILTIN
from sampan.base.clock import rfc3339
from sampan.client.plan import Delete
from sampan.controllers import aggregation, eviction, gc, identity, namespace, node_lifecycle, podgc, ttl
from sampan.controllers.node_lifecycle import Timing

GC = gc.rules(BUILTIN)


def owned(name, owner, resource="configmaps", block=True, **more):
    ref = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta.name(owner),
        "uid": meta.uid(owner),
    }
    return {"metadata": {"name": name, "ownerReferences": [ref | {"blockOwnerDeletion": block}], **more}}


def test_dependents_of_an_absent_owner_go():
    w = World(*GC)
    a = w.put("configmaps", {"metadata": {"name": "a"}})
    w.put("configmaps", owned("b", a))
    c = w.put("secrets", owned("c", a))
    w.put("configmaps", owned("d", c))
    w.settle()
    assert len(w.list("configmaps")) == 3
    w.delete(Delete("configmaps", "a", "default"))
    w.settle()
    assert w.list("configmaps") == [] and w.list("secrets") == []


def test_an_owner_the_view_does_not_know_is_read_first():
    w = World(*GC)
    ghost = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "g", "uid": "u", "namespace": "default"},
    }
    w.put("configmaps", owned("b", ghost))
    w.live_only["configmaps", "default", "g"] = ghost
    w.settle()
    assert w.names("configmaps") == ["b"]
    del w.live_only["configmaps", "default", "g"]
    w.settle()
    assert w.list("configmaps") == []


def test_one_living_owner_is_enough():
    w = World(*GC)
    a, b = (w.put("configmaps", {"metadata": {"name": n}}) for n in "ab")
    c = owned("c", a)
    c["metadata"]["ownerReferences"] += owned("c", b)["metadata"]["ownerReferences"]
    w.put("configmaps", c)
    w.delete(Delete("configmaps", "a", "default"))
    w.settle()
    assert [r["name"] for r in meta.owners(w.get("configmaps", "c", "default"))] == ["b"]


def dying(w, name, finalizer):
    change = {"finalizers": [finalizer], "deletionTimestamp": rfc3339(START)}
    return w.change("configmaps", name, {"metadata": change})


def test_orphans_lose_their_owner_and_stay():
    w = World(*GC)
    a = w.put("configmaps", {"metadata": {"name": "a"}})
    w.put("configmaps", owned("b", a))
    dying(w, "a", "orphan")
    w.settle()
    assert w.names("configmaps") == ["b"]
    assert meta.owners(w.get("configmaps", "b", "default")) == []


def test_foreground_waits_for_blocking_dependents_only():
    w = World(*GC)
    a = w.put("configmaps", {"metadata": {"name": "a"}})
    w.put("configmaps", owned("b", a, finalizers=["test/hold"]))
    w.put("secrets", owned("c", a, block=False, finalizers=["test/hold"]))
    dying(w, "a", "foregroundDeletion")
    w.settle()
    assert w.get("configmaps", "a", "default") and meta.deleted(w.get("configmaps", "b", "default"))
    w.objects["configmaps"].pop(("default", "b"))
    w.settle()
    assert w.get("configmaps", "a", "default") is None
    assert meta.deleted(w.get("secrets", "c", "default"))


def test_namespace_goes_when_it_is_empty_and_says_what_remains():
    w = World(*namespace.rules())
    w.put("namespaces", {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}})
    w.put("configmaps", {"metadata": {"name": "a", "namespace": "x"}})
    w.put("secrets", {"metadata": {"name": "b", "namespace": "x", "finalizers": ["test/hold"]}})
    w.settle()
    assert len(w.list("configmaps")) == 1
    w.change("namespaces", "x", {"metadata": {"deletionTimestamp": rfc3339(START)}}, "")
    w.settle()
    assert w.list("configmaps") == []
    found = w.get("namespaces", "x")
    assert meta.condition(found, "NamespaceContentRemaining")["message"] == (
        "Some resources are remaining: secrets. has 1 resource instances"
    )
    assert meta.condition(found, "NamespaceFinalizersRemaining")["message"] == (
        "Some content in the namespace has finalizers remaining: test/hold in 1 resource instances"
    )
    w.objects["secrets"].clear()
    w.settle()
    assert w.list("namespaces") == []


def alive(w, name, at=START):
    w.put(
        "leases.coordination.k8s.io",
        {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"renewTime": rfc3339(at)}},
    )


def cluster(*names):
    w = World(*node_lifecycle.rules(Timing(monitor_grace=40)), *eviction.rules(), *podgc.rules())
    for n in names:
        made = node(n)
        made["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": rfc3339(START)}
        ]
        w.put("nodes", made)
        alive(w, n)
    return w


def taints(w, name):
    return [(t["key"].split("/")[1], t["effect"]) for t in w.get("nodes", name)["spec"].get("taints") or ()]


def test_a_silent_node_is_tainted_and_its_pods_leave_in_time():
    w = cluster("a", "b")
    toleration = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 30,
    }
    w.put(
        "pods",
        {"metadata": {"name": "p"}, "spec": {"nodeName": "a", "tolerations": [toleration]}, "status": {}},
    )
    w.put(
        "pods",
        {"metadata": {"name": "daemon"}, "spec": {"nodeName": "a", "tolerations": [{"operator": "Exists"}]}},
    )
    w.ready(w.get("pods", "p", "default"))
    w.settle()
    assert ("node-controller", ("", "a"), 40) in w.timers and taints(w, "a") == []
    w.now += 40
    alive(w, "b", w.now)
    w.settle()
    ready = meta.condition(w.get("nodes", "a"), "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == (
        "Unknown",
        "NodeStatusUnknown",
        "Kubelet stopped posting node status.",
    )
    assert taints(w, "a") == [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]
    p = w.get("pods", "p", "default")
    assert not meta.is_true(p, "Ready") and not meta.deleted(p)
    w.now += 30
    alive(w, "b", w.now)
    w.settle()
    p = w.get("pods", "p", "default")
    assert meta.deleted(p) and meta.condition(p, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
    assert not meta.deleted(w.get("pods", "daemon", "default"))
    # The node comes back.
    status = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": rfc3339(w.now)}]}
    w.change("nodes", "a", {"status": status}, "")
    alive(w, "a", w.now)
    w.settle()
    assert taints(w, "a") == []


def test_when_all_nodes_are_lost_nobody_is_evicted():
    w = cluster("a", "b")
    w.now += 41
    w.settle()
    assert taints(w, "a") == [("unreachable", "NoSchedule")] == taints(w, "b")


def test_evictions_are_rate_limited():
    w = cluster("a", "b", "c", "d")
    w.now += 41
    alive(w, "c", w.now)
    alive(w, "d", w.now)
    w.settle()
    marked = [n for n in "ab" if ("unreachable", "NoExecute") in taints(w, n)]
    assert len(marked) == 1
    w.now += 10
    w.settle()
    assert all(("unreachable", "NoExecute") in taints(w, n) for n in "ab")


@pytest.mark.parametrize(
    "condition, taint",
    [
        ({"type": "MemoryPressure", "status": "True"}, "memory-pressure"),
        ({"type": "DiskPressure", "status": "True"}, "disk-pressure"),
        ({"type": "NetworkUnavailable", "status": "True"}, "network-unavailable"),
        ({"type": "Ready", "status": "False"}, "not-ready"),
    ],
)
def test_taints_follow_conditions(condition, taint):
    w = cluster("a")
    own = {"key": "own/x", "effect": "NoSchedule"}
    w.change("nodes", "a", {"spec": {"taints": [own]}, "status": {"conditions": [condition]}}, "")
    w.settle()
    assert taints(w, "a") == [("x", "NoSchedule"), (taint, "NoSchedule")]
    w.change("nodes", "a", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "")
    w.settle()
    assert taints(w, "a") == [("x", "NoSchedule")]
    assert meta.annotations(w.get("nodes", "a")) == {"node.alpha.kubernetes.io/ttl": "0"}


def test_a_new_node_keeps_its_taint_until_it_is_ready_and_cordon_taints():
    w = cluster()
    w.put("nodes", node("a", taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]))
    w.settle()
    assert taints(w, "a") == [("not-ready", "NoSchedule")]
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    w.change("nodes", "a", {"status": ready, "spec": {"unschedulable": True}}, "")
    w.settle()
    assert taints(w, "a") == [("unschedulable", "NoSchedule")]


def test_pods_of_a_missing_node_are_ended_and_removed():
    w = cluster("a")
    w.put("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "gone"}, "status": {"startTime": "x"}})
    w.put("pods", {"metadata": {"name": "q"}, "spec": {"nodeName": "later"}})
    plan = w.plan(podgc.rules()[0], "pods", "p")
    assert plan.phases[0][0].patch["status"]["phase"] == "Failed"
    w.settle()
    assert w.names("pods") == ["q"]
    w.now += 41
    alive(w, "a", w.now)
    w.settle()
    assert w.names("pods") == []


def test_out_of_service_node_releases_terminating_pods():
    w = cluster("a", "b")
    w.put("pods", {"metadata": {"name": "p", "deletionTimestamp": rfc3339(START)}, "spec": {"nodeName": "a"}})
    w.settle()
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    w.change(
        "nodes",
        "a",
        {"spec": {"taints": [taint]}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
        "",
    )
    w.settle()
    assert w.names("pods") == []


def test_every_namespace_gets_its_account_and_certificate():
    w = World(*identity.rules("PEM"))
    w.put("namespaces", {"metadata": {"name": "x"}})
    w.settle()
    assert w.get("serviceaccounts", "default", "x")
    assert w.get("configmaps", "kube-root-ca.crt", "x")["data"] == {"ca.crt": "PEM"}


def test_aggregated_roles():
    w = World(*aggregation.rules())
    name = "clusterroles.rbac.authorization.k8s.io"
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    other = rule | {"resources": ["nodes"]}
    w.put(
        name,
        {
            "metadata": {"name": "all"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
        },
    )
    w.put(name, {"metadata": {"name": "z", "labels": {"a": "b"}}, "rules": [rule]})
    w.put(name, {"metadata": {"name": "y", "labels": {"a": "b"}}, "rules": [other, rule]})
    w.settle()
    assert w.get(name, "all")["rules"] == [other, rule]


def test_finished_jobs_go_after_their_ttl():
    w = World(*ttl.rules())
    done = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(START)}]}
    w.put("jobs.batch", {"metadata": {"name": "j"}, "spec": {"ttlSecondsAfterFinished": 60}, "status": done})
    w.settle()
    assert w.timers[0][2] == 60
    w.now += 60
    w.settle()
    assert w.list("jobs.batch") == []


def test_a_namespace_stays_while_a_kind_in_it_cannot_be_read():
    w = World(*namespace.rules())
    w.unseen = lambda: ["boats.sea.io"]
    read = ("effect:contents", "x", "boats.sea.io")
    w.live_only[read] = {"error": "the conversion webhook is gone"}
    w.put("namespaces", {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}})
    w.change("namespaces", "x", {"metadata": {"deletionTimestamp": rfc3339(START)}}, "")
    w.settle()
    failure = meta.condition(w.get("namespaces", "x"), "NamespaceDeletionContentFailure")
    assert (failure["status"], failure["reason"]) == ("True", "ContentDeletionFailed")
    assert "the conversion webhook is gone" in failure["message"]
    w.live_only[read] = {"items": []}  # those that cannot be read are in another namespace
    w.settle()
    assert w.list("namespaces") == []


def test_pods_of_a_namespace_go_before_anything_else():
    w = World(*namespace.rules())
    w.put("namespaces", {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}})
    w.put("configmaps", {"metadata": {"name": "a", "namespace": "x"}})
    w.put("pods", {"metadata": {"name": "p", "namespace": "x", "finalizers": ["test/hold"]}, "spec": {}})
    w.change("namespaces", "x", {"metadata": {"deletionTimestamp": rfc3339(START)}}, "")
    w.settle()
    assert meta.deleted(w.get("pods", "p", "x")) and not meta.deleted(w.get("configmaps", "a", "x"))
    assert meta.condition(w.get("namespaces", "x"), "NamespaceContentRemaining")["message"] == (
        "Some resources are remaining: pods. has 1 resource instances"
    )
    w.objects["pods"].pop(("x", "p"))
    w.settle()
    assert w.get("configmaps", "a", "x") is None
