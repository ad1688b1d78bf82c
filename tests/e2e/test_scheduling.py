"""Where pods go: by resources, labels, affinity and taints; and why one waits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from harness import Kubectl, deployment, eventually, pod, shell

WAIT = "exec sleep infinity"


def node_of(kubectl: Kubectl, name: str) -> str:
    kubectl.wait(f"pod/{name}", "condition=PodScheduled")
    return kubectl(f"get pod {name} -o jsonpath={{.spec.nodeName}}")


def why_pending(kubectl: Kubectl, name: str) -> str:
    """The message of the pod's condition, once it says Unschedulable."""
    kubectl.wait(f"pod/{name}", "condition=PodScheduled=False")
    (condition,) = [
        c for c in kubectl.get(f"pod {name}")["status"]["conditions"] if c["type"] == "PodScheduled"
    ]
    assert condition["reason"] == "Unschedulable"
    eventually(lambda: "FailedScheduling" in kubectl.events_of(name), "an event")
    assert kubectl(f"get pod {name} --no-headers").split()[2] == "Pending"
    return condition["message"]


@pytest.fixture
def labelled(kubectl: Kubectl) -> Iterator[Kubectl]:
    """node-1 has disk=fast, node-2 disk=slow."""
    kubectl("label node node-1 disk=fast")
    kubectl("label node node-2 disk=slow")
    yield kubectl
    kubectl("label nodes --all disk-")


def test_requests_against_allocatable(kubectl: Kubectl) -> None:
    """Pods fill nodes up to what they have; the next one waits, says why, and runs once there is room."""
    cores = int(kubectl("get node node-1 -o jsonpath={.status.allocatable.cpu}"))
    most = {"requests": {"cpu": f"{cores * 1000 - 400}m"}}
    kubectl.apply(*(pod(f"big-{n}", {"containers": [shell(WAIT, resources=most)]}) for n in (1, 2)))
    assert {node_of(kubectl, "big-1"), node_of(kubectl, "big-2")} == {"node-1", "node-2"}
    kubectl.apply(pod("big-3", {"containers": [shell(WAIT, resources=most)]}))
    assert why_pending(kubectl, "big-3").startswith("0/2 nodes are available: 2 Insufficient cpu.")
    kubectl("delete pod big-1 --grace-period=1")
    kubectl.wait("pod/big-3")


def test_too_big_for_every_node(kubectl: Kubectl) -> None:
    kubectl.apply(
        pod("huge", {"containers": [shell(WAIT, resources={"requests": {"memory": "4Ti", "cpu": "5k"}})]})
    )
    message = why_pending(kubectl, "huge")
    assert "2 Insufficient cpu" in message and "2 Insufficient memory" in message


def test_node_selector(labelled: Kubectl) -> None:
    labelled.apply(pod("quick", {"nodeSelector": {"disk": "fast"}, "containers": [shell(WAIT)]}))
    assert node_of(labelled, "quick") == "node-1"
    labelled.apply(pod("picky", {"nodeSelector": {"disk": "golden"}, "containers": [shell(WAIT)]}))
    assert "2 node(s) didn't match Pod's node affinity/selector" in why_pending(labelled, "picky")
    labelled("label node node-2 disk=golden --overwrite")
    assert node_of(labelled, "picky") == "node-2"


@pytest.mark.parametrize(
    "operator, values, node",
    [
        ("In", ["slow"], "node-2"),
        ("NotIn", ["slow"], "node-1"),
        ("Exists", None, None),
        ("DoesNotExist", None, ""),
    ],
)
def test_node_affinity(labelled: Kubectl, operator: str, values: list[str] | None, node: str | None) -> None:
    expression = {"key": "disk", "operator": operator} | ({"values": values} if values else {})
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}]
            }
        }
    }
    labelled.apply(pod("placed", {"affinity": affinity, "containers": [shell(WAIT)]}))
    if node == "":
        assert "didn't match Pod's node affinity" in why_pending(labelled, "placed")
    else:
        assert node_of(labelled, "placed") == (node or node_of(labelled, "placed"))


def test_preferred_affinity(labelled: Kubectl) -> None:
    preference = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["slow"]}]}
    affinity = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": preference}]
        }
    }
    labelled.apply(*(pod(f"p{n}", {"affinity": affinity, "containers": [shell(WAIT)]}) for n in range(3)))
    assert {node_of(labelled, f"p{n}") for n in range(3)} == {"node-2"}


def test_pod_affinity(kubectl: Kubectl) -> None:
    """Beside another pod, or away from it."""
    kubectl.run_pod("anchor", labels={"app": "anchor"})
    term = {"labelSelector": {"matchLabels": {"app": "anchor"}}, "topologyKey": "kubernetes.io/hostname"}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    kubectl.apply(
        pod("near", {"affinity": {"podAffinity": required}, "containers": [shell(WAIT)]}),
        pod("away", {"affinity": {"podAntiAffinity": required}, "containers": [shell(WAIT)]}),
    )
    anchor = node_of(kubectl, "anchor")
    assert node_of(kubectl, "near") == anchor
    assert node_of(kubectl, "away") != anchor


def test_one_pod_a_node(kubectl: Kubectl) -> None:
    """Anti-affinity to itself: as many as nodes run, the rest waits."""
    term = {"labelSelector": {"matchLabels": {"app": "single"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    sleeping = shell(WAIT, name="main", image="localhost/host")
    kubectl.apply(
        deployment(
            "single", sleeping, replicas=3, pod={"affinity": affinity, "terminationGracePeriodSeconds": 1}
        )
    )
    kubectl.wait("deployment/single", "jsonpath={.status.readyReplicas}=2")
    (waiting,) = kubectl.items("pods --field-selector spec.nodeName=")
    message = why_pending(kubectl, waiting["metadata"]["name"])
    assert "2 node(s) didn't match pod anti-affinity rules" in message


def test_taints_and_tolerations(kubectl: Kubectl) -> None:
    """NoSchedule keeps new pods away, NoExecute also ends running ones; who tolerates stays."""
    tolerant = {"tolerations": [{"key": "closed", "operator": "Exists"}], "containers": [shell(WAIT)]}
    here = {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}
    kubectl.apply(pod("old", here | {"containers": [shell(WAIT)]}), pod("tough", here | tolerant))
    kubectl.wait("pod/old pod/tough")
    kubectl("taint node node-1 closed=yes:NoSchedule")
    try:
        kubectl.apply(pod("new", here | {"containers": [shell(WAIT)]}))
        message = why_pending(kubectl, "new")
        assert "1 node(s) had untolerated taint" in message
        kubectl("taint node node-1 closed=yes:NoExecute")
        kubectl.wait("pod/old", "delete")
        assert kubectl("get pod tough -o jsonpath={.status.phase}") == "Running"
    finally:
        kubectl("taint node node-1 closed-")
    kubectl.wait("pod/new")


def test_a_cordoned_node_gets_no_pods(kubectl: Kubectl) -> None:
    kubectl("cordon node-1")
    try:
        assert "Ready,SchedulingDisabled" in kubectl("get node node-1")
        kubectl.apply(*(pod(f"p{n}", WAIT) for n in range(3)))
        assert {node_of(kubectl, f"p{n}") for n in range(3)} == {"node-2"}
        kubectl.apply(
            pod("stuck", {"nodeSelector": {"kubernetes.io/hostname": "node-1"}, "containers": [shell(WAIT)]})
        )
        assert "1 node(s) were unschedulable" in why_pending(kubectl, "stuck")
    finally:
        kubectl("uncordon node-1")
    kubectl.wait("pod/stuck")


def test_drained_pods_come_back_elsewhere(kubectl: Kubectl) -> None:
    """Pods leave through the eviction API and come back elsewhere; uncordon opens the node again."""
    kubectl.apply(
        deployment(
            "web",
            shell(WAIT, name="main", image="localhost/host"),
            replicas=4,
            pod={"terminationGracePeriodSeconds": 1},
        )
    )
    kubectl("rollout status deployment/web --timeout=60s")
    try:
        said = kubectl(
            "drain node-2 --ignore-daemonsets --delete-emptydir-data --force --timeout=60s --pod-selector=app=web"
        )
        assert "node/node-2 drained" in said
        kubectl("rollout status deployment/web --timeout=60s")
        nodes = kubectl(
            "get pods -l app=web --field-selector status.phase=Running -o jsonpath={.items[*].spec.nodeName}"
        )
        assert set(nodes.split()) == {"node-1"}
    finally:
        kubectl("uncordon node-2")
    assert "SchedulingDisabled" not in kubectl("get nodes")


def test_a_disruption_budget_holds_a_drain_up(kubectl: Kubectl) -> None:
    kubectl.apply(
        deployment(
            "web",
            shell(WAIT, name="main", image="localhost/host"),
            replicas=1,
            pod={"terminationGracePeriodSeconds": 1},
        )
    )
    kubectl("rollout status deployment/web --timeout=60s")
    kubectl("create poddisruptionbudget web --selector=app=web --min-available=1")
    kubectl.wait("poddisruptionbudget/web", "jsonpath={.status.currentHealthy}=1")
    (one,) = kubectl.items("pods -l app=web")
    name, node = one["metadata"]["name"], one["spec"]["nodeName"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/eviction"
    said = kubectl.refused(f"create --raw {path} -f -", input=json.dumps(eviction))
    assert "Cannot evict pod as it would violate the pod's disruption budget" in said
    kubectl("delete poddisruptionbudget web")
    try:
        kubectl(f"drain {node} --ignore-daemonsets --force --timeout=60s --pod-selector=app=web")
    finally:
        kubectl(f"uncordon {node}")


def test_replicas_are_spread_over_the_nodes(kubectl: Kubectl) -> None:
    """Replicas are spread over the nodes."""
    kubectl.apply(
        deployment(
            "wide",
            shell(WAIT, name="main", image="localhost/host"),
            replicas=4,
            pod={"terminationGracePeriodSeconds": 1},
        )
    )
    kubectl("rollout status deployment/wide --timeout=60s")
    nodes = kubectl("get pods -l app=wide -o jsonpath={.items[*].spec.nodeName}").split()
    assert sorted(nodes) == ["node-1", "node-1", "node-2", "node-2"]


def test_a_more_important_pod_takes_the_place_of_another(kubectl: Kubectl) -> None:
    """A more important pod takes the place of a less important one."""
    name = f"important-{kubectl.namespace}"
    kubectl(f"create priorityclass {name} --value=1000")
    try:
        cores = int(kubectl("get node node-1 -o jsonpath={.status.allocatable.cpu}"))
        most = {"requests": {"cpu": f"{cores * 1000 - 400}m"}}
        here = {
            "nodeSelector": {"kubernetes.io/hostname": "node-1"},
            "containers": [shell(WAIT, resources=most)],
        }
        kubectl.run_pod("low", here)
        kubectl.apply(pod("high", here | {"priorityClassName": name}))
        kubectl.wait("pod/high")
        kubectl.wait("pod/low", "delete")
    finally:
        kubectl(f"delete priorityclass {name}")
