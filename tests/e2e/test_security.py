"""Security without being asked for: TLS with an own CA, nobody without rights, least rights for nodes, secrets 0600."""

from __future__ import annotations

import json
import ssl
import stat
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from harness import Cluster, Kubectl, shell


def server_of(cluster: Cluster) -> str:
    return cluster.kubectl()("config view --minify -o jsonpath={.clusters[0].cluster.server}").strip()


def ask(cluster: Cluster, path: str, token: str = "", pair: str = "") -> tuple[int, Any]:
    """(status, body) of a GET that trusts the cluster's CA alone, with a token or a certificate of the data directory."""
    context = ssl.create_default_context(cafile=str(cluster.data / "pki" / "ca.crt"))
    if pair:
        context.load_cert_chain(cluster.data / "pki" / f"{pair}.crt", cluster.data / "pki" / f"{pair}.key")
    request = urllib.request.Request(server_of(cluster) + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_stranger_is_refused_with_a_status(cluster: Cluster) -> None:
    code, status = ask(cluster, "/api/v1/namespaces/default/secrets")
    assert (code, status["reason"]) == (403, "Forbidden")
    assert 'User "system:anonymous" cannot list resource "secrets"' in status["message"]
    code, status = ask(cluster, "/api/v1/pods", token="nonsense")
    assert (code, status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized")


def test_a_stranger_may_ask_for_health_and_version(cluster: Cluster) -> None:
    assert ask(cluster, "/version")[0] == 200


def test_only_the_own_authority_is_trusted(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(server_of(cluster) + "/version", timeout=10)


def test_a_pod_has_a_token_that_reaches_the_api(kubectl: Kubectl) -> None:
    mount = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"""
import json, ssl, sys, urllib.error, urllib.request
def ask(path):
    context = ssl.create_default_context(cafile="{mount}/ca.crt")
    request = urllib.request.Request("https://kubernetes.default.svc" + path)
    request.add_header("Authorization", "Bearer " + open("{mount}/token").read())
    try:
        return urllib.request.urlopen(request, context=context, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
print(ask("/api/v1/namespaces/{kubectl.namespace}/pods"))
"""
    kubectl.run_pod("inside")
    assert kubectl("exec inside -- python3 -c " + json.dumps(script).replace("\\n", "\n")).strip() == "403"
    kubectl("create role reader --verb=list --resource=pods")
    kubectl(f"create rolebinding reader --role=reader --serviceaccount={kubectl.namespace}:default")
    assert kubectl("exec inside -- python3 -c " + json.dumps(script).replace("\\n", "\n")).strip() == "200"


def test_a_pod_can_do_without_a_token(kubectl: Kubectl) -> None:
    kubectl.run_pod("bare", {"automountServiceAccountToken": False, "containers": [shell("sleep infinity")]})
    assert "No such file" in kubectl.refused("exec bare -- ls /var/run/secrets/kubernetes.io")


def test_a_node_sees_its_own_things_only(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl("create secret generic used --from-literal=a=1")
    kubectl("create secret generic other --from-literal=a=1")
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "used", "key": "a"}}}]
    kubectl.run_pod("user", {"nodeName": "node-1", "containers": [shell("sleep infinity", env=env)]})
    secrets = f"/api/v1/namespaces/{kubectl.namespace}/secrets"
    assert ask(cluster, f"{secrets}/used", pair="nodes/node-1")[0] == 200
    assert ask(cluster, f"{secrets}/other", pair="nodes/node-1")[0] == 403
    assert ask(cluster, f"{secrets}/used", pair="nodes/node-2")[0] == 403
    assert ask(cluster, "/api/v1/nodes/node-1", pair="nodes/node-1")[0] == 200


def test_rights_of_the_default_roles(kubectl: Kubectl) -> None:
    kubectl("create serviceaccount viewer")
    kubectl(f"create rolebinding viewer --clusterrole=view --serviceaccount={kubectl.namespace}:viewer")
    viewer = f"--as=system:serviceaccount:{kubectl.namespace}:viewer"
    assert kubectl(f"get pods {viewer}") == ""
    assert "cannot list resource" in kubectl.refused(f"get secrets {viewer}")
    assert "cannot create resource" in kubectl.refused(f"create configmap x {viewer}")


def test_nobody_gives_away_more_than_he_has(kubectl: Kubectl) -> None:
    kubectl("create serviceaccount deputy")
    kubectl("create role manager --verb=create,get --resource=roles,rolebindings")
    kubectl(f"create rolebinding manager --role=manager --serviceaccount={kubectl.namespace}:deputy")
    deputy = f"--as=system:serviceaccount:{kubectl.namespace}:deputy"
    said = kubectl.refused(f"create role mighty --verb=* --resource=secrets {deputy}")
    assert "attempting to grant RBAC permissions not currently held" in said


def test_the_kubelet_wants_the_servers_certificate(cluster: Cluster) -> None:
    addresses = cluster.kubectl().get("node/node-1")["status"]["addresses"]
    address = next(a["address"] for a in addresses if a["type"] == "InternalIP")
    context = ssl.create_default_context(cafile=str(cluster.data / "pki" / "ca.crt"))
    with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
        urllib.request.urlopen(f"https://{address}:10250/pods", context=context, timeout=10)


def test_keys_on_disk_are_their_owners_alone(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl("create secret generic hidden --from-literal=word=xyzzy-plugh")
    keys = list((cluster.data / "pki").rglob("*.key"))
    assert len(keys) >= 6
    for path in [*keys, cluster.data / "cluster.json", Path(cluster.kubeconfig)]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
    for path in cluster.data.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o004 and path.stat().st_size < 1 << 22:
            assert b"xyzzy-plugh" not in path.read_bytes(), path
