"""Who may do what: nobody without a name, an account what its roles say, a node only what is its own."""

from __future__ import annotations

import base64
import json
import ssl
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from harness import Cluster, Kubectl, eventually, pod, shell


def api(kubectl: Kubectl) -> tuple[str, ssl.SSLContext]:
    """(URL, TLS settings that trust the cluster's CA and no other) from the kubeconfig."""
    config = yaml.safe_load(Path(kubectl.environment["KUBECONFIG"]).read_text())
    entry = config["clusters"][0]["cluster"]
    ca = base64.b64decode(entry["certificate-authority-data"]).decode()
    return entry["server"], ssl.create_default_context(cadata=ca)


def ask(kubectl: Kubectl, path: str, token: str = "", certificate: Path | None = None) -> tuple[int, dict]:
    """(status code, decoded body) of a GET with a token, with a certificate, or with no name at all."""
    server, context = api(kubectl)
    if certificate:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    request = urllib.request.Request(
        server + path, headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_anonymous_may_ask_for_health_and_version_only(kubectl: Kubectl) -> None:
    """403 with a Status that says who may not do what; health and version are for everybody."""
    code, status = ask(kubectl, "/api/v1/namespaces/default/secrets")
    assert (code, status["kind"], status["reason"]) == (403, "Status", "Forbidden")
    assert status["message"] == (
        'secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API group "" in the namespace "default"'
    )
    assert ask(kubectl, "/version")[0] == 200


def test_a_wrong_token(kubectl: Kubectl) -> None:
    code, status = ask(kubectl, "/api/v1/pods", "not-a-token")
    assert (code, status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized")


def test_plain_http_is_refused(kubectl: Kubectl) -> None:
    server, _ = api(kubectl)
    with pytest.raises((urllib.error.HTTPError, OSError)):
        urllib.request.urlopen(server.replace("https", "http") + "/api", timeout=5)


def test_another_ca_is_not_trusted(kubectl: Kubectl) -> None:
    server, _ = api(kubectl)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(server + "/version", timeout=5)


def test_an_account_may_what_its_role_gives_it(kubectl: Kubectl) -> None:
    """An account may what a role gives it, where it gives it, from the moment it is bound."""
    robot = f"system:serviceaccount:{kubectl.namespace}:robot"
    kubectl("create serviceaccount robot")
    said = kubectl.refused(f"get pods --as={robot}")
    assert f'pods is forbidden: User "{robot}" cannot list resource "pods" in API group ""' in said
    kubectl("create role reader --verb=get,list --resource=pods")
    kubectl(f"create rolebinding robot-reads --role=reader --serviceaccount={kubectl.namespace}:robot")
    eventually(lambda: kubectl.run(f"get pods --as={robot}").returncode == 0)
    assert kubectl.refused(f"auth can-i delete pods --as={robot}").strip() == "no"
    assert kubectl.refused(f"auth can-i list pods -n default --as={robot}").strip() == "no"
    assert "forbidden" in kubectl.refused(f"run x --image=localhost/host --as={robot}")
    kubectl("delete rolebinding robot-reads")
    eventually(lambda: kubectl.run(f"get pods --as={robot}").returncode != 0)
    kubectl(f"create rolebinding robot-views --clusterrole=view --serviceaccount={kubectl.namespace}:robot")
    eventually(lambda: kubectl.run(f"get pods,services --as={robot}").returncode == 0)
    assert "forbidden" in kubectl.refused(f"get secrets --as={robot}")


def test_nobody_gives_more_than_he_has(kubectl: Kubectl) -> None:
    kubectl("create rolebinding edits --clusterrole=admin --user=alice")
    said = eventually(
        lambda: (
            (r := kubectl.run("create role all --verb=* --resource=nodes --as=alice")).returncode and r.stderr
        )
    )
    assert "is attempting to grant RBAC permissions not currently held" in said


def test_a_pod_speaks_to_the_api(kubectl: Kubectl) -> None:
    """With the token, the CA and the address it finds in itself; its account decides what it may."""
    kubectl("create serviceaccount robot")
    kubectl("create role reader --verb=get,list --resource=configmaps")
    kubectl(f"create rolebinding reads --role=reader --serviceaccount={kubectl.namespace}:robot")
    kubectl.run_pod("inside", {"serviceAccountName": "robot", "containers": [shell("exec sleep infinity")]})
    here = "/var/run/secrets/kubernetes.io/serviceaccount"
    curl = (
        f'curl -sS --cacert {here}/ca.crt -H "Authorization: Bearer $(cat {here}/token)" '
        "https://kubernetes.default.svc/api/v1/namespaces/$(cat " + here + "/namespace)"
    )
    allowed = json.loads(kubectl(f"exec inside -- sh -c '{curl}/configmaps'"))
    assert allowed["kind"] == "ConfigMapList" and "kube-root-ca.crt" in json.dumps(allowed)
    refused = json.loads(kubectl(f"exec inside -- sh -c '{curl}/secrets'"))
    assert (refused["code"], refused["reason"]) == (403, "Forbidden")


def test_a_pod_without_token(kubectl: Kubectl) -> None:
    kubectl.run_pod(
        "mute", {"automountServiceAccountToken": False, "containers": [shell("exec sleep infinity")]}
    )
    assert kubectl.run("exec mute -- ls /var/run/secrets/kubernetes.io").returncode != 0


def test_a_token_ends_with_its_pod(kubectl: Kubectl) -> None:
    """Tokens that are bound to a pod are worth nothing once that pod is gone."""
    kubectl.run_pod("short")
    bound = "create token default --bound-object-kind=Pod --bound-object-name=short"
    before, after = (
        kubectl(bound).strip(),
        kubectl(bound).strip(),
    )  # who was seen is remembered for some seconds
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods"
    assert ask(kubectl, path, before)[0] == 403
    kubectl("delete pod short --grace-period=1")
    assert ask(kubectl, path, after)[0] == 401


def test_a_node_reads_only_its_own(kubectl: Kubectl, cluster: Cluster) -> None:
    """A node's certificate opens the Secrets of its pods, no others."""
    kubectl("create secret generic mine --from-literal=a=1")
    kubectl("create secret generic other --from-literal=a=1")
    volume = {"name": "v", "secret": {"secretName": "mine"}}
    reader = {"nodeName": "node-1", "volumes": [volume], "containers": [shell("exec sleep infinity")]}
    kubectl.run_pod("reader", reader)
    one, two = (cluster.data / "pki" / "nodes" / f"node-{n}.crt" for n in (1, 2))
    secrets = f"/api/v1/namespaces/{kubectl.namespace}/secrets"
    assert ask(kubectl, f"{secrets}/mine", certificate=one)[0] == 200
    code, status = ask(kubectl, f"{secrets}/other", certificate=one)
    assert code == 403 and "no relationship found between node 'node-1' and this object" in status["message"]
    assert ask(kubectl, f"{secrets}/mine", certificate=two)[0] == 403
    assert ask(kubectl, secrets, certificate=one)[0] == 403


def test_a_node_answers_only_the_server(kubectl: Kubectl, cluster: Cluster) -> None:
    """The kubelet's own API wants the API server's certificate."""
    address = kubectl("get node node-1 -o jsonpath={.status.addresses[0].address}")
    url = f"https://{address}:10250/pods"
    _, context = api(kubectl)
    with pytest.raises((urllib.error.HTTPError, OSError)):
        urllib.request.urlopen(url, context=context, timeout=10)
    pair = cluster.data / "pki" / "apiserver-kubelet-client"
    context.load_cert_chain(pair.with_suffix(".crt"), pair.with_suffix(".key"))
    assert urllib.request.urlopen(url, context=context, timeout=10).status == 200


def test_secrets_on_disk(kubectl: Kubectl, cluster: Cluster) -> None:
    """Keys, the store and the kubeconfig are for their owner only; so is the directory of all."""
    kubectl("create secret generic treasure --from-literal=where=under-the-palm")
    mount = shell("exec sleep infinity", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    volume = {"name": "v", "secret": {"secretName": "treasure"}}
    kubectl.run_pod("holder", {"volumes": [volume], "containers": [mount]})
    assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
    keys = [*cluster.data.glob("pki/**/*.key"), *cluster.data.glob("store/*.log"), cluster.kubeconfig]
    assert len(keys) >= 8
    assert [str(path) for path in keys if stat.S_IMODE(path.stat().st_mode) != 0o600] == []


def test_a_forbidden_pod(kubectl: Kubectl) -> None:
    """A namespace may refuse pods that ask for too much (Pod Security Standards)."""
    kubectl(f"label namespace {kubectl.namespace} pod-security.kubernetes.io/enforce=restricted")
    said = kubectl.refused(
        "apply -f -", input=json.dumps(pod("bold", {"hostNetwork": True, "containers": [shell("true")]}))
    )
    assert 'violates PodSecurity "restricted:latest"' in said and "host namespaces" in said


def test_a_quota_refuses_what_goes_beyond_it(kubectl: Kubectl) -> None:
    kubectl("create quota small --hard=configmaps=2,pods=1")
    eventually(lambda: kubectl.get("resourcequota small").get("status", {}).get("used"))
    kubectl("create configmap one")
    assert "exceeded quota: small" in kubectl.refused("create configmap two")


def test_the_default_capabilities_may_be_used(kubectl: Kubectl) -> None:
    """RuntimeDefault lets through what a container's capabilities are for."""
    kubectl.run_pod("box")
    kubectl("exec box -- chroot / true")
