"""ReplicationControllers and ReplicaSets keep the count, and own what their selector finds."""

from __future__ import annotations

import pytest
from harness import Kubectl, eventually, pod


def keeper(kind: str, replicas: int) -> dict:
    """A ReplicaSet or ReplicationController of sleeping pods, labelled app=many."""
    labels = {"app": "many"}
    template = pod("x", labels=labels)
    template["metadata"].pop("name")
    return {
        "apiVersion": "v1" if kind == "ReplicationController" else "apps/v1",
        "kind": kind,
        "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": labels if kind == "ReplicationController" else {"matchLabels": labels},
            "template": {key: template[key] for key in ("metadata", "spec")},
        },
    }


BOTH = pytest.mark.parametrize("kind", ["ReplicationController", "ReplicaSet"])


def names(kubectl: Kubectl, selector: str = "app=many") -> set[str]:
    pods = kubectl.items(f"pods -l {selector}")
    return {one["metadata"]["name"] for one in pods if "deletionTimestamp" not in one["metadata"]}


def ready(kubectl: Kubectl, kind: str, count: int) -> None:
    kubectl.wait(f"{kind}/many", f"jsonpath={{.status.readyReplicas}}={count}")


@BOTH
def test_the_count_is_kept(kubectl: Kubectl, kind: str) -> None:
    kubectl.apply(keeper(kind, 3))
    ready(kubectl, kind, 3)
    first = names(kubectl)
    assert len(first) == 3
    victim = sorted(first)[0]
    kubectl(f"delete pod {victim} --grace-period=1")
    eventually(lambda: len(names(kubectl)) == 3 and victim not in names(kubectl), "another in its place")
    ready(kubectl, kind, 3)
    assert "SuccessfulCreate" in kubectl.events_of("many")
    assert "3 current / 3 desired" in kubectl(f"describe {kind} many")


@BOTH
def test_scale_makes_and_ends_pods(kubectl: Kubectl, kind: str) -> None:
    kubectl.apply(keeper(kind, 1))
    ready(kubectl, kind, 1)
    (old,) = names(kubectl)
    kubectl(f"scale {kind} many --replicas=4")
    ready(kubectl, kind, 4)
    kubectl(f"scale {kind} many --replicas=0")
    eventually(lambda: names(kubectl) == set())
    assert old not in names(kubectl)


@BOTH
def test_release_and_adoption(kubectl: Kubectl, kind: str) -> None:
    """A pod whose labels no longer match is let go and replaced; one that comes to match is adopted."""
    kubectl.apply(keeper(kind, 2))
    ready(kubectl, kind, 2)
    free = sorted(names(kubectl))[0]
    kubectl(f"label pod {free} app=free --overwrite")
    eventually(lambda: len(names(kubectl)) == 2, "a replacement")
    eventually(lambda: "ownerReferences" not in kubectl.get(f"pod {free}")["metadata"], "no owner")
    kubectl(f"label pod {free} app=many --overwrite")
    eventually(lambda: len(names(kubectl)) == 2, "one too many is taken away")
    owners = [p["metadata"]["ownerReferences"][0] for p in kubectl.items("pods -l app=many")]
    assert all(
        (owner["kind"], owner["name"], owner["controller"]) == (kind, "many", True) for owner in owners
    )


def test_a_pod_that_was_there_is_adopted(kubectl: Kubectl) -> None:
    kubectl.run_pod("early", labels={"app": "many"})
    kubectl.apply(keeper("ReplicaSet", 2))
    ready(kubectl, "replicaset", 2)
    assert "early" in names(kubectl) and len(names(kubectl)) == 2


def test_unready_pods_go_first(kubectl: Kubectl) -> None:
    """When there are too many: those that are not ready, then the youngest."""
    rs = keeper("ReplicaSet", 2)
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/ill"]}, "periodSeconds": 1, "failureThreshold": 1}
    probe["timeoutSeconds"] = 30  # slow is not unready
    rs["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
    kubectl.apply(rs)
    ready(kubectl, "replicaset", 2)
    ill, well = sorted(names(kubectl))
    kubectl(f"exec {ill} -- touch /tmp/ill")
    ready(kubectl, "replicaset", 1)
    kubectl("scale replicaset many --replicas=1")
    eventually(lambda: names(kubectl) == {well})


def test_deletion_cost(kubectl: Kubectl) -> None:
    kubectl.apply(keeper("ReplicaSet", 3))
    ready(kubectl, "replicaset", 3)
    cheap = sorted(names(kubectl))[1]
    kubectl(f"annotate pod {cheap} controller.kubernetes.io/pod-deletion-cost=-5")
    kubectl("scale replicaset many --replicas=2")
    eventually(lambda: len(names(kubectl)) == 2)
    assert cheap not in names(kubectl)


def test_a_pod_that_ends_is_replaced(kubectl: Kubectl) -> None:
    """Also one that was evicted or failed."""
    kubectl.apply(keeper("ReplicaSet", 1))
    ready(kubectl, "replicaset", 1)
    (old,) = names(kubectl)
    kubectl(f"delete pod {old} --grace-period=0 --force")
    eventually(lambda: names(kubectl) and old not in names(kubectl))
    ready(kubectl, "replicaset", 1)
