"""Where pods go and what they are told otherwise; wording as kube-scheduler's."""

import pytest

from sampan.api import meta
from sampan.scheduler.budget import Budget
from sampan.scheduler.schedule import schedule
from sampan.scheduler.snapshot import Snapshot


def node(name, cpu="4", memory="8Gi", pods="110", labels=None, taints=None, unschedulable=False, **more):
    return {
        "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name} | (labels or {})},
        "spec": {"taints": taints or [], "unschedulable": unschedulable},
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods, **more}},
    }


def pod(
    name="p", cpu=None, memory=None, labels=None, ns="default", ports=None, priority=0, more=None, **spec
):
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v} | (more or {})
    container = {"name": "c", "image": "img", "resources": {"requests": requests}}
    if ports:
        container["ports"] = ports
    metadata = {"name": name, "namespace": ns, "uid": name, "labels": labels or {}}
    return {
        "metadata": metadata,
        "spec": {"containers": [container], "priority": priority, **spec},
        "status": {},
    }


def cluster(*nodes, placed=()):
    s = Snapshot()
    for n in nodes:
        s.set_node(n)
    for where, p in placed:
        s.set_pod(p, where)
    return s


def test_no_nodes():
    assert schedule(pod(), Snapshot()).message == "no nodes available to schedule pods"


def test_reasons_are_counted_sorted_and_told_with_what_preemption_could_do():
    s = cluster(
        node("a", cpu="1"),
        node("b", taints=[{"key": "x", "effect": "NoSchedule"}]),
        node("c", taints=[{"key": "x", "effect": "NoSchedule"}]),
        placed=[("a", pod("q", cpu="900m"))],
    )
    d = schedule(pod(cpu="500m"), s)
    assert d.message == (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {x: }. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )
    assert d.refused() == {
        "a": ("Insufficient cpu",),
        "b": ("node(s) had untolerated taint {x: }",),
        "c": ("node(s) had untolerated taint {x: }",),
    }


TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    "n, p, reason",
    [
        (node("n", cpu="1"), pod(cpu="2"), "1 Insufficient cpu"),
        (node("n", memory="1Gi"), pod(cpu="8", memory="2Gi"), "1 Insufficient cpu, 1 Insufficient memory"),
        (node("n", pods="0"), pod(), "1 Too many pods"),
        (node("n"), pod(more={"example.com/gpu": "1"}), "1 Insufficient example.com/gpu"),
        (node("n", unschedulable=True), pod(), "1 node(s) were unschedulable"),
        (node("n", taints=[TAINT]), pod(), "1 node(s) had untolerated taint {k: v}"),
        (node("n"), pod(nodeSelector={"a": "b"}), "1 node(s) didn't match Pod's node affinity/selector"),
    ],
)
def test_each_reason(n, p, reason):
    assert (
        schedule(p, cluster(n)).message.split(".")[0] + "."
        == f"0/1 nodes are available: {reason}.".split(".")[0] + "."
    )


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "k", "operator": "Exists"},
        {"key": "k", "value": "v", "effect": "NoSchedule"},
        {"operator": "Exists"},
    ],
)
def test_a_toleration_opens_a_tainted_node(toleration):
    assert schedule(pod(tolerations=[toleration]), cluster(node("n", taints=[TAINT]))).node == "n"


def required(*expressions):
    term = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}


@pytest.mark.parametrize(
    "expression, where",
    [
        ({"key": "disk", "operator": "In", "values": ["ssd"]}, "b"),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, "a"),
        ({"key": "disk", "operator": "Exists"}, "b"),
        ({"key": "disk", "operator": "DoesNotExist"}, "a"),
        ({"key": "rank", "operator": "Gt", "values": ["5"]}, "b"),
        ({"key": "rank", "operator": "Lt", "values": ["5"]}, "a"),
    ],
)
def test_node_affinity(expression, where):
    s = cluster(node("a", labels={"rank": "1"}), node("b", labels={"rank": "9", "disk": "ssd"}))
    assert schedule(pod(affinity=required(expression)), s).node == where


def test_preferred_node_affinity_wins_over_emptiness():
    s = cluster(node("a"), node("b", labels={"disk": "ssd"}))
    prefer = [{"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]
    p = pod(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": prefer}})
    assert schedule(p, s).node == "b"


def test_the_emptier_node_wins_and_ties_are_drawn():
    s = cluster(node("a"), node("b"), placed=[("a", pod("q", cpu="2"))])
    assert schedule(pod(cpu="100m"), s).node == "b"
    s = cluster(node("a"), node("b"))
    assert {schedule(pod(), s, lambda n, i=i: i).node for i in (0, 1)} == {"a", "b"}


@pytest.mark.parametrize(
    "mine, theirs, clash",
    [
        ({"hostPort": 80}, {"hostPort": 80}, True),
        ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, False),
        ({"hostPort": 80, "hostIP": "1.1.1.1"}, {"hostPort": 80}, True),
        ({"hostPort": 80, "hostIP": "1.1.1.1"}, {"hostPort": 80, "hostIP": "2.2.2.2"}, False),
    ],
)
def test_host_ports(mine, theirs, clash):
    s = cluster(node("a"), placed=[("a", pod("q", ports=[theirs]))])
    assert (schedule(pod(ports=[mine]), s).node == "") == clash


def near(labels, topology="kubernetes.io/hostname", how="podAffinity"):
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": topology}
    return {how: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


ZONES = [node(n, labels={"zone": z}) for n, z in (("a1", "a"), ("a2", "a"), ("b1", "b"))]


def test_affinity_to_pods_by_zone():
    s = cluster(*ZONES, placed=[("b1", pod("q", labels={"app": "db"}))])
    assert schedule(pod(affinity=near({"app": "db"}, "zone")), s).node == "b1"
    d = schedule(pod(affinity=near({"app": "x"}, "zone")), s)
    assert "3 node(s) didn't match pod affinity rules" in d.message


def test_the_first_of_a_group_may_go_anywhere():
    assert schedule(pod(labels={"app": "x"}, affinity=near({"app": "x"}, "zone")), cluster(*ZONES)).node


def test_anti_affinity_both_ways_and_in_namespaces():
    far = near({"app": "x"}, "zone", "podAntiAffinity")
    s = cluster(*ZONES, placed=[("a1", pod("q", labels={"app": "x"}))])
    assert schedule(pod(affinity=far), s).node == "b1"
    assert schedule(pod(affinity=far, ns="other"), s).node  # speaks of its own namespace
    s = cluster(*ZONES, placed=[("a1", pod("q", affinity=far)), ("b1", pod("r", affinity=far))])
    assert (
        "3 node(s) didn't satisfy existing pods anti-affinity rules"
        in schedule(pod(labels={"app": "x"}), s).message
    )
    s.remove_pod("default/r")
    assert schedule(pod(labels={"app": "x"}), s).node == "b1"


def spread(skew, how="DoNotSchedule", key="zone", **more):
    selector = {"matchLabels": {"app": "x"}}
    return [
        {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": how, "labelSelector": selector, **more}
    ]


def test_topology_spread():
    p = pod(labels={"app": "x"}, topologySpreadConstraints=spread(1))
    s = cluster(*ZONES, placed=[("a1", pod("q", labels={"app": "x"}))])
    assert schedule(p, s).node == "b1"
    s.set_node(node("b1", cpu="0", labels={"zone": "b"}))
    assert (
        "2 node(s) didn't match pod topology spread constraints"
        in schedule(p | {"spec": p["spec"] | {"containers": pod(cpu="1")["spec"]["containers"]}}, s).message
    )
    soft = pod(labels={"app": "x"}, topologySpreadConstraints=spread(1, "ScheduleAnyway"))
    assert schedule(soft, cluster(*ZONES, placed=[("a1", pod("q", labels={"app": "x"}))])).node == "b1"


def test_a_node_without_the_topology_label():
    s = cluster(node("n"))
    d = schedule(pod(labels={"app": "x"}, topologySpreadConstraints=spread(1)), s)
    assert "1 node(s) didn't match pod topology spread constraints (missing required label)" in d.message


def test_replicas_of_one_owner_prefer_to_be_apart():
    def replica(name):
        p = pod(name, cpu="10m")
        p["metadata"]["ownerReferences"] = [
            {"uid": "rs", "kind": "ReplicaSet", "name": "r", "controller": True}
        ]
        return p

    s = cluster(node("a"), node("b", cpu="2"), node("c", cpu="2"))
    for i in range(3):
        p = replica(f"p{i}")
        s.set_pod(p, schedule(p, s).node)
    assert sorted(len(x) for x in s.on_node) == [1, 1, 1]


def test_preemption_takes_the_fewest_and_least_important():
    low, mid = pod("low", cpu="2", priority=1), pod("mid", cpu="2", priority=5)
    s = cluster(node("a"), node("b"), placed=[("a", low), ("a", mid), ("b", pod("x", cpu="4", priority=5))])
    before = s.requested.copy()
    d = schedule(pod("big", cpu="2", priority=10), s)
    assert (d.victims.node, [v.name for v in d.victims.pods]) == ("a", ["low"])
    assert (s.requested == before).all()
    assert schedule(pod("equal", cpu="3", priority=1), s).victims is None
    never = schedule(pod("n", cpu="2", priority=10, preemptionPolicy="Never"), s)
    assert never.message.endswith("preemption: not eligible due to preemptionPolicy=Never.")


@pytest.mark.parametrize("younger", ["a", "b"])
def test_of_equal_victims_those_go_that_started_last(younger):
    s = cluster(node("a", cpu="2"), node("b", cpu="2"))
    for where in ("a", "b"):
        victim = pod(f"on-{where}", cpu="2", priority=1)
        victim["status"] = {"startTime": f"2026-01-01T00:00:{'20' if where == younger else '10'}Z"}
        s.set_pod(victim, where)
    assert schedule(pod("high", cpu="2", priority=10), s).victims.node == younger


@pytest.mark.parametrize(
    "allowed, gone, where, victim",
    [
        (0, {}, "b", "other"),  # the budget is kept, though the other pod is more important
        (1, {}, "a", "guarded"),
        (0, {"guarded": "2026-01-01T00:00:00Z"}, "a", "guarded"),  # was let go before
    ],
)
def test_preemption_breaks_a_budget_only_as_a_last_resort(allowed, gone, where, victim):
    guarded = pod("guarded", cpu="4", labels={"app": "x"}, priority=1)
    s = cluster(node("a"), node("b"), placed=[("a", guarded), ("b", pod("other", cpu="4", priority=5))])
    status = {"disruptionsAllowed": allowed, "disruptedPods": gone}
    spec = {"selector": {"matchLabels": {"app": "x"}}}
    budget = {"metadata": {"name": "b", "namespace": "default"}, "spec": spec, "status": status}
    s.budgets["default", "b"] = Budget(budget)
    d = schedule(pod("big", cpu="4", priority=10), s)
    assert (d.victims.node, [v.name for v in d.victims.pods]) == (where, [victim])
    s.remove_pod("default/other")
    s.set_pod(pod("own", cpu="4", priority=10), "b")
    assert [v.name for v in schedule(pod("big", cpu="4", priority=10), s).victims.pods] == ["guarded"]


def test_room_kept_for_a_nominated_pod():
    s = cluster(node("a"))
    big = pod("big", cpu="4", priority=10)
    s.nominated["default/big"] = (s.info(big), "a")
    assert schedule(pod("small", cpu="1"), s).node == ""
    assert schedule(pod("more", cpu="1", priority=11), s).node == "a"
    assert schedule(big, s).node == "a"


def test_init_containers_and_sidecars_and_overhead():
    p = pod(cpu="1", overhead={"cpu": "250m"})
    p["spec"]["initContainers"] = [
        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"name": "i", "resources": {"requests": {"cpu": "2"}}},
    ]
    info = Snapshot().info(p)
    assert info.requests == {"cpu": 2750, "pods": 1}


def test_a_pod_that_asks_for_a_device_waits():
    claims = [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]
    s = cluster(node("a"), node("b"))
    assert schedule(pod(), s).node == "a"
    assert schedule(pod(resourceClaims=claims), s).message == (
        "0/2 nodes are available: 2 cannot allocate all claims. "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


def test_a_pod_waits_for_its_claims_and_goes_where_their_volumes_are():
    s = cluster(node("a"), node("b"))
    p = pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])
    assert schedule(p, s).message == (
        '0/2 nodes are available: persistentvolumeclaim "c" not found. '
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    claim = {
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}},
        "status": {},
    }
    s.claims["default", "c"] = claim
    assert "pod has unbound immediate PersistentVolumeClaims" in schedule(p, s).message
    s.classes["local"] = {"provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer"}
    assert schedule(p, s).claims == [(claim, None)]
    claim["metadata"]["annotations"] = {"pv.kubernetes.io/bind-completed": "yes"}
    claim["spec"]["volumeName"] = "v"
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}
    s.volumes["v"] = {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}
    d = schedule(p, s)
    assert d.node == "b" and d.refused() == {"a": ("node(s) had volume node affinity conflict",)}


def volume(name, at="b", **spec):
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [at]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    spec = {"storageClassName": "local", "capacity": {"storage": "1Gi"}, "nodeAffinity": affinity} | spec
    return {"metadata": {"name": name}, "spec": spec, "status": {}}


MINE = {"namespace": "default", "name": "c"}


@pytest.mark.parametrize(
    "provisioner, volumes, chosen, selected, where, takes",
    [
        ("x", [], {}, "", "a", None),  # made where the pod goes
        ("x", [], {}, "b", "b", None),  # or where it was to be made before
        ("x", [], {}, "gone", "a", None),
        ("x", [], {("default", "c"): ("b", "")}, "", "b", None),  # for another pod of the same claim
        ("x", [volume("v", "a")], {}, "", "a", "v"),  # what is there comes before what has to be made
        ("x", [volume("v", claimRef=MINE, storageClassName="other")], {}, "", "b", "v"),
        ("x", [volume("v", claimRef=MINE | {"uid": "former"})], {}, "", "a", None),
        ("", [volume("v"), volume("w", "a", capacity={"storage": "2Gi"})], {}, "", "a", "w"),
        ("", [volume("v"), volume("w")], {("default", "other"): ("b", "v")}, "", "b", "w"),
        ("", [volume("v")], {("default", "other"): ("b", "v")}, "", "", None),
        ("", [volume("v"), volume("w", "a")], {("default", "c"): ("b", "v")}, "", "b", "v"),
    ],
)
def test_claims_that_wait_for_a_node(provisioner, volumes, chosen, selected, where, takes):
    s = cluster(node("a"), node("b"))
    s.classes["local"] = {
        "provisioner": provisioner or "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    spec = {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}
    marks = {"volume.kubernetes.io/selected-node": selected} if selected else {}
    metadata = {"name": "c", "namespace": "default", "uid": "u", "annotations": marks}
    claim = {"metadata": metadata, "spec": spec, "status": {}}
    s.claims["default", "c"] = claim
    s.volumes.update({v["metadata"]["name"]: v for v in volumes})
    s.chosen.update(chosen)
    d = schedule(pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]), s)
    assert d.node == where
    assert d.claims == ([(claim, s.volumes.get(takes))] if where else [])


@pytest.mark.parametrize(
    "terms, where",
    [
        ([], "a"),
        ([{}], "a"),
        ([{"matchLabelExpressions": [{"key": "zone", "values": ["z2", "z3"]}]}], "b"),
        (
            [
                {
                    "matchLabelExpressions": [
                        {"key": "zone", "values": ["z1"]},
                        {"key": "rack", "values": ["r"]},
                    ]
                }
            ],
            "",
        ),
        ([{"matchLabelExpressions": [{"key": "zone", "values": [z]}]} for z in ("z9", "z2")], "b"),
    ],
)
def test_a_volume_is_made_only_where_its_class_allows_it(terms, where):
    s = cluster(node("a", labels={"zone": "z1"}), node("b", labels={"zone": "z2"}))
    s.classes["local"] = {
        "provisioner": "x",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": terms,
    }
    spec = {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}
    s.claims["default", "c"] = {"metadata": {"name": "c", "namespace": "default"}, "spec": spec}
    d = schedule(pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]), s)
    assert d.node == where
    assert where or "2 node(s) didn't find available persistent volumes to bind" in d.message


def test_each_claim_of_a_pod_gets_a_volume_of_its_own():
    s = cluster(node("a"), node("b"))
    s.classes["local"] = {
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    for name, size in (("big", "2Gi"), ("small", "1Gi")):
        spec = {"storageClassName": "local", "resources": {"requests": {"storage": size}}}
        s.claims["default", name] = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
    s.volumes = {"u": volume("u", "a"), "v": volume("v"), "w": volume("w", capacity={"storage": "3Gi"})}
    p = pod(volumes=[{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in ("big", "small")])
    d = schedule(p, s)
    assert d.node == "b"
    assert [(meta.name(c), meta.name(v)) for c, v in d.claims] == [("small", "v"), ("big", "w")]
    del s.volumes["v"]
    assert "2 node(s) didn't find available persistent volumes to bind" in schedule(p, s).message


def test_nodes_come_and_go_with_their_pods():
    s = Snapshot()
    s.set_pod(pod("q", cpu="3"), "a")  # bound before its node is known
    s.set_node(node("a"))
    s.set_node(node("b"))
    assert schedule(pod(cpu="2"), s).node == "b"
    s.remove_node("a")
    assert s.requested.sum() == 0 and schedule(pod(cpu="2"), s).node == "b"
    s.set_node(node("a"))
    assert s.requested[0].tolist() == [0, 3000]
    assert s.set_node(node("a")) is False


def test_a_nominated_pod_waits_for_victims_that_are_leaving():
    leaving = pod("low", cpu="4", priority=1)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    s = cluster(node("a"), node("b"), placed=[("a", leaving), ("b", pod("x", cpu="4", priority=1))])
    big = pod("big", cpu="4", priority=10)
    s.nominated["default/big"] = (s.info(big), "a")
    d = schedule(big, s)
    assert d.waits and d.victims is None
    assert d.message == (
        "0/2 nodes are available: 2 Insufficient cpu. "
        "preemption: not eligible due to a terminating pod on the nominated node."
    )


def test_the_place_kept_for_a_pod_is_not_in_its_own_way():
    s = cluster(node("a"), placed=[("a", pod("low", cpu="4", priority=1))])
    big = pod("big", cpu="4", priority=10)
    s.nominated["default/big"] = (s.info(big), "a")
    assert [v.name for v in schedule(big, s).victims.pods] == ["low"]
