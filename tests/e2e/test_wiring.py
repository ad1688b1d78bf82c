"""What a whole cluster adds to its parts: default volumes, signed certificates, DNS from the host, proxies, stories, cuts."""

from __future__ import annotations

import base64
import socket
import struct

import pytest
from harness import Cluster, Kubectl, eventually, pod, server, shell

from sampan.base import pki

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
VOLUMES = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
MOUNTS = [{"name": "v", "mountPath": "/data"}]


def user_of_claim(command: str, **spec: object) -> dict[str, object]:
    return {"containers": [{**shell(command), "volumeMounts": MOUNTS}], "volumes": VOLUMES, **spec}


def test_a_claim_without_a_class_is_served(kubectl: Kubectl, cluster: Cluster) -> None:
    """What one pod writes, as an ordinary user, the next one reads; with the claim it goes."""
    kubectl.apply(CLAIM)
    assert "WaitForFirstConsumer" in eventually(lambda: kubectl.events_of("data"), "why it waits")
    writer = user_of_claim(
        "echo kept > /data/file", restartPolicy="Never", securityContext={"runAsUser": 1000}
    )
    kubectl.apply(pod("writer", writer))
    kubectl.phase("writer", "Succeeded")
    kubectl.apply(pod("reader", user_of_claim("cat /data/file; sleep infinity")))
    kubectl.wait("pod/reader")
    eventually(lambda: kubectl("logs reader") == "kept\n")
    volume = kubectl.get("pvc/data")["spec"]["volumeName"]
    assert (cluster.data / "volumes" / volume / "file").read_text() == "kept\n"
    assert "Bound" in kubectl("get pv") and "local-path (default)" in kubectl("get storageclass")
    kubectl("delete pod writer reader --grace-period=1")
    kubectl("delete pvc data")
    eventually(lambda: not (cluster.data / "volumes" / volume).exists(), "the directory is gone")
    assert volume not in kubectl("get pv")


def test_a_users_certificate(kubectl: Kubectl) -> None:
    """`kubectl certificate approve`, and the new user is known by it."""
    request, _ = pki.certificate_request("jane", ["dev"])
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "jane"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
            "expirationSeconds": 3600,
            "request": base64.b64encode(request).decode(),
        },
    }
    kubectl.apply(body)
    kubectl("certificate approve jane")
    signed = eventually(lambda: kubectl.get("csr/jane")["status"].get("certificate"), "a certificate")
    certificate = base64.b64decode(signed)
    assert "Approved,Issued" in kubectl("get csr jane")
    assert 3000 < pki.expires(certificate) - kubectl_now(kubectl) <= 3700
    kubectl("delete csr jane")


def kubectl_now(kubectl: Kubectl) -> float:
    from sampan.base.clock import rfc3339_parse

    return rfc3339_parse(kubectl.get("csr/jane")["metadata"]["creationTimestamp"])


def resolve(server: str, name: str) -> str:
    """The first address that a DNS server has for a name."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(3)
        asking.sendto(question, (server, 53))
        return socket.inet_ntoa(asking.recv(512)[-4:])


def test_the_host_asks_the_clusters_dns(kubectl: Kubectl) -> None:
    service = kubectl.get("service/kube-dns -n kube-system")["spec"]["clusterIP"]
    nodes = [n["status"]["addresses"][0]["address"] for n in kubectl.items("nodes")]
    api = kubectl.get("service/kubernetes -n default")["spec"]["clusterIP"]
    for address in (service, *nodes):
        eventually(lambda a=address: resolve(a, "kubernetes.default.svc.cluster.local") == api, address)
    names = "get endpoints kube-dns -n kube-system -o jsonpath={.subsets[*].addresses[*].nodeName}"
    eventually(lambda: kubectl(names).split() == ["node-1", "node-2"], "both answer")


@pytest.fixture
def web(kubectl: Kubectl) -> Kubectl:
    kubectl.run_pod("web", {"containers": [server(answer="at $1")]}, labels={"app": "web"})
    kubectl("expose pod web --port=80 --target-port=8080")
    return kubectl


def test_pods_services_and_nodes_through_the_api(web: Kubectl) -> None:
    base = f"/api/v1/namespaces/{web.namespace}"
    eventually(lambda: web.get("endpoints/web").get("subsets"), "the Service has its pod")
    for path in (
        f"{base}/pods/web:8080/proxy/",
        f"{base}/services/web/proxy/",
        f"{base}/services/http:web:80/proxy/x",
    ):
        eventually(lambda p=path: web(f"get --raw {p}") == "at \n", path)
    assert web("get --raw /api/v1/nodes/node-1/proxy/healthz") == "ok"
    assert "not found" in web.refused(f"get --raw {base}/services/none/proxy/")


def test_a_story(kubectl: Kubectl, cluster: Cluster) -> None:
    kubectl("create deployment web --image=localhost/missing")
    kubectl("wait deployment/web --for=create")
    told = eventually(lambda: cluster.run(f"story deployment/web -n {kubectl.namespace}").stdout, "a story")
    assert "deployment-controller: creates web-" in told and "-> create replicasets.apps" in told
    name = eventually(lambda: kubectl.items("pods"), "a pod")[0]["metadata"]["name"]
    told = cluster.sampan(f"story pod/{name} -n {kubectl.namespace}")
    assert "default-scheduler" in told and "-> bind pods" in told
    assert "is not KIND/NAME" in cluster.run("story web").stderr
    assert "resource type" in cluster.run("story boat/web").stderr
    assert "nothing is known of" in cluster.run("story deployment/none").stderr


def test_metrics_name_controllers_and_the_loop(kubectl: Kubectl) -> None:
    text = kubectl("get --raw /metrics")
    for name in ("workqueue_adds_total", "sampan_loop_lag_seconds_sum", "apiserver_request_total"):
        assert name in text


def test_a_node_that_is_cut_off_and_comes_back(kubectl: Kubectl, cluster: Cluster) -> None:
    """Its container goes on meanwhile; the node is lost after the grace period and Ready as soon as it is heard."""
    spec = {"nodeSelector": {"kubernetes.io/hostname": "node-2"}, "containers": [shell("sleep infinity")]}
    spec["tolerations"] = [{"operator": "Exists"}]
    kubectl.run_pod("stays", spec)
    started = kubectl.get("pod/stays")["status"]["containerStatuses"][0]["containerID"]
    cluster.sampan("node partition node-2 control-plane")
    try:
        kubectl.wait("node/node-2", "condition=Ready=Unknown")
    finally:
        cluster.sampan("node heal node-2 control-plane")
    kubectl.wait("node/node-2", "condition=Ready")
    eventually(lambda: "taints" not in kubectl.get("node/node-2")["spec"], "the taints are gone")
    assert kubectl.get("pod/stays")["status"]["containerStatuses"][0]["containerID"] == started
    assert kubectl("exec stays -- echo still here") == "still here\n"
