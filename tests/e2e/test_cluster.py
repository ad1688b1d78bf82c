"""What a person asks a cluster first: who are you, what nodes have you, what can I do here?"""

from __future__ import annotations

import json
import re
import time

import pytest
from harness import Cluster, Kubectl, eventually


def test_version_names_the_server(kubectl: Kubectl) -> None:
    versions = json.loads(kubectl("version -o json"))
    assert versions["serverVersion"]["major"] == "1"
    assert "sampan" in versions["serverVersion"]["gitVersion"]


def test_cluster_info(kubectl: Kubectl) -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", kubectl("cluster-info"))
    assert "Kubernetes control plane is running at https://127.0.0.1:" in plain
    assert kubectl("get --raw /readyz") == "ok"
    assert "[+]ping ok" in kubectl("get --raw /livez?verbose")


def test_sampan_status(cluster: Cluster) -> None:
    status = cluster.sampan("status")
    for process in ("control-plane", "node-1", "node-2"):
        assert f"{process}" in status
    assert "stopped" not in status


def test_api_resources(kubectl: Kubectl) -> None:
    table = kubectl("api-resources")
    for row in (
        ["pods", "po", "v1", "true", "Pod"],
        ["deployments", "deploy", "apps/v1", "true", "Deployment"],
        ["nodes", "no", "v1", "false", "Node"],
        ["endpointslices", "discovery.k8s.io/v1", "true", "EndpointSlice"],
    ):
        assert row in [line.split() for line in table.splitlines()]
    assert "deployments.apps" in kubectl("api-resources --api-group=apps --verbs=list,watch -o name")
    assert "nodes" not in kubectl("api-resources --namespaced=true -o name").split()


def test_api_versions(kubectl: Kubectl) -> None:
    assert {"v1", "apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1"} <= set(
        kubectl("api-versions").split()
    )


def test_every_node_is_ready_with_a_range_of_its_own(kubectl: Kubectl) -> None:
    header, *rows = kubectl("get nodes -o wide").splitlines()
    assert header.split()[:5] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert "INTERNAL-IP" in header and "CONTAINER-RUNTIME" in header
    assert [row.split()[:2] for row in rows] == [["node-1", "Ready"], ["node-2", "Ready"]]
    ranges = kubectl("get nodes -o jsonpath={.items[*].spec.podCIDR}").split()
    assert len(set(ranges)) == 2


def test_describe_node(kubectl: Kubectl) -> None:
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "guest"},
            "spec": {
                "nodeName": "node-1",
                "containers": [
                    {
                        "name": "main",
                        "image": "localhost/host",
                        "command": ["sleep", "infinity"],
                        "resources": {"requests": {"cpu": "123m", "memory": "11Mi"}},
                    }
                ],
            },
        }
    )
    kubectl.wait("pod/guest")
    text = kubectl("describe node node-1")
    for part in (
        "Capacity:",
        "Allocatable:",
        "Conditions:",
        "Addresses:",
        "Allocated resources:",
        "PodCIDR:",
    ):
        assert part in text
    for condition in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready", "KubeletReady"):
        assert condition in text
    row = next(line.split() for line in text.splitlines() if "guest" in line)
    assert row[:3] == [kubectl.namespace, "guest", "123m"]
    assert "kubernetes.io/hostname=node-1" in text


@pytest.mark.parametrize(
    "field, says",
    [
        ("pods", "Pod is a collection of containers"),
        ("deployment.spec.strategy", "KIND:       Deployment"),
        ("pod.spec.containers.resources.limits", "FIELD: limits"),
    ],
)
def test_explain_knows_every_field(kubectl: Kubectl, field: str, says: str) -> None:
    assert says in kubectl(f"explain {field}")
    assert "FIELDS" in kubectl("explain pod.spec --recursive")


def test_who_am_i_and_what_may_i(kubectl: Kubectl) -> None:
    whoami = kubectl("auth whoami")
    assert "kubernetes-admin" in whoami or "system:masters" in whoami
    assert kubectl("auth can-i create deployments").strip() == "yes"
    assert kubectl("auth can-i '*' '*' --all-namespaces").strip() == "yes"
    nobody = f"--as=system:serviceaccount:{kubectl.namespace}:default"
    assert kubectl.refused(f"auth can-i list secrets {nobody}").strip() == "no"
    assert "selfsubjectreviews" in kubectl(f"auth can-i --list {nobody}")


def test_token_of_a_service_account(kubectl: Kubectl) -> None:
    kubectl("create serviceaccount robot")
    token = kubectl("create token robot --duration=1h").strip()
    assert token.count(".") == 2
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = json.loads(kubectl("create -o json -f -", input=json.dumps(review)))
    assert answer["status"]["authenticated"] is True
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{kubectl.namespace}:robot"


def test_the_events_of_a_pod_tell_its_life(kubectl: Kubectl) -> None:
    kubectl("run seen --image=localhost/host --restart=Never -- true")
    kubectl.phase("seen", "Succeeded")
    reasons = ("Scheduled", "Pulled", "Created", "Started")
    eventually(
        lambda: all(reason in kubectl("events --for pod/seen") for reason in reasons), "the pod's events"
    )
    assert "Normal" in kubectl("events --types=Normal")
    assert "No events" in kubectl.run("events --types=Warning").stderr
    assert f"Successfully assigned {kubectl.namespace}/seen to node-" in kubectl.events_of("seen")


def test_a_namespace_goes_with_all_in_it_and_can_be_made_again(kubectl: Kubectl, cluster: Cluster) -> None:
    names = kubectl("get namespaces -o name").split()
    assert {"namespace/default", "namespace/kube-system", "namespace/kube-public"} <= set(names)
    kubectl("create configmap note --from-literal=a=1")
    kubectl(f"delete namespace {kubectl.namespace}")
    assert "not found" in kubectl.refused(f"get namespace {kubectl.namespace}")
    cluster.kubectl()(f"create namespace {kubectl.namespace}")
    kubectl.wait("serviceaccount/default configmap/kube-root-ca.crt", "create")
    assert kubectl("get configmaps note --ignore-not-found") == ""


def test_the_server_keeps_time(kubectl: Kubectl) -> None:
    """Ages are counted from when an object was made."""
    kubectl("create configmap young")
    made = kubectl("get configmap young -o jsonpath={.metadata.creationTimestamp}")
    assert abs(time.mktime(time.strptime(made, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone - time.time()) < 30


@pytest.mark.parametrize(
    "command, says",
    [
        ("get unicorns", 'the server doesn\'t have a resource type "unicorns"'),
        ("get pod nothing", 'pods "nothing" not found'),
        ("create configmap Not_A_Name", "a lowercase RFC 1123 subdomain must consist of"),
        ("create namespace default", "already exists"),
        ("scale deployment none --replicas=1", "not found"),
    ],
)
def test_wrong_input_gets_an_answer(kubectl: Kubectl, command: str, says: str) -> None:
    assert says in kubectl.refused(command)
