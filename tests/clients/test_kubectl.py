"""kubectl as courses and manuals use it, over a server in the test's process: what it makes, and what it says."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sampan.testing import Served

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")

Kubectl = Callable[..., str]

APP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: shop}}
data: {color: COLOR}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {app: shop}}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: web, image: shop:v1}]}
"""


@pytest.fixture
def kubectl(served: Served, tmp_path: Path) -> Kubectl:
    """`kubectl("get pods")`: both of its outputs; `code` is what it must end with."""
    space = served.ask(lambda c: c.create("namespaces", {"metadata": {"generateName": "k-"}}))
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(served.context(space["metadata"]["name"])))

    def run(command: str, code: int = 0, input: str = "", **environment: str) -> str:
        done = subprocess.run(
            ["kubectl", *shlex.split(command)],
            env=os.environ | {"KUBECONFIG": str(path)} | environment,
            input=input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
        assert done.returncode == code, f"{command}: {done.returncode}: {done.stdout}"
        return done.stdout

    return run


@pytest.mark.parametrize(
    ("command", "field", "value"),
    [
        ("configmap c --from-literal=a=b", ".data.a", "b"),
        ("secret generic s --from-literal=p=q", ".data.p", "cQ=="),
        ("secret docker-registry d --docker-username=u --docker-password=p", ".type", "kubernetes.io/dockerconfigjson"),
        ("quota q --hard=pods=3 --scopes=BestEffort", ".spec.scopes[0]", "BestEffort"),
        ("role r --verb=get --resource=rs.apps,pods/log", ".rules[*].resources[*]", "pods/log replicasets"),
        ("rolebinding b --role=r --serviceaccount=x:y --user=u", ".subjects[*].name", "u y"),
        ("ingress i --rule=a.b/c*=svc:80,tls=t", ".spec.rules[0].http.paths[0].pathType", "Prefix"),
        ("cronjob j --image=i --schedule='*/5 * * * *'", ".spec.concurrencyPolicy", "Allow"),
        ("job k --image=i -- date", ".spec.template.spec.restartPolicy", "Never"),
        ("pdb p --selector=a=b --max-unavailable=50%", ".spec.maxUnavailable", "50%"),
        ("serviceaccount a", ".kind", "ServiceAccount"),
        ("service clusterip v --tcp=80:8080", ".spec.ports[0].targetPort", "8080"),
        ("service externalname e --external-name=x.y", ".spec.type", "ExternalName"),
        ("deployment w --image=a --image=b --replicas=2", ".spec.template.spec.containers[*].name", "a b"),
    ],
)  # fmt: skip
def test_create_makes_what_its_flags_say(kubectl: Kubectl, command: str, field: str, value: str) -> None:
    said = kubectl(f"create -o jsonpath='{{{field}}}' {command}")
    assert " ".join(sorted(said.split())) == value


def test_a_manifest_is_compared_applied_and_pruned(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(APP)
    assert "+  color: COLOR" in kubectl("diff -f app.yaml", code=1)
    assert kubectl("apply -f app.yaml") == "configmap/settings created\ndeployment.apps/shop created\n"
    assert kubectl("diff -f app.yaml") == ""
    (tmp_path / "app.yaml").write_text(APP.replace("COLOR", "red"))
    assert "configmap/settings configured (server dry run)" in kubectl("apply -f app.yaml --dry-run=server")
    assert kubectl("apply -f app.yaml") == "configmap/settings configured\ndeployment.apps/shop unchanged\n"
    assert "color: red" in kubectl("apply view-last-applied configmap/settings")
    (tmp_path / "one.yaml").write_text(APP.partition("---")[0])
    kinds = "--prune-allowlist=core/v1/ConfigMap --prune-allowlist=apps/v1/Deployment"
    assert "deployment.apps/shop pruned" in kubectl(f"apply -f one.yaml --prune -l app=shop {kinds}")
    assert "not found" in kubectl("get deployment shop", code=1)


def test_an_apply_set_remembers_its_members(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(APP)
    (tmp_path / "one.yaml").write_text(APP.partition("---")[0])
    space = kubectl("config view --minify -o jsonpath={..namespace}")
    more = f"--prune --applyset=mine -n {space}"
    kubectl(f"apply -f app.yaml {more}", KUBECTL_APPLYSET="true")
    assert "deployment.apps/shop pruned" in kubectl(f"apply -f one.yaml {more}", KUBECTL_APPLYSET="true")


def test_managers_of_fields(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(APP)
    kubectl("apply --server-side -f app.yaml")
    (tmp_path / "app.yaml").write_text(APP.replace("COLOR", "blue"))
    apply = "apply --server-side --field-manager=other -f app.yaml"
    assert 'conflict with "kubectl": .data.color' in kubectl(apply, code=1)
    kubectl(f"{apply} --force-conflicts")
    managers = kubectl(
        "get configmap settings --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}"
    )
    assert managers.split() == ["kubectl", "other"]


def test_an_editor_changes_objects_and_sees_what_is_refused(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create deployment web --image=a")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: .*/replicas: $COUNT/" "$1"\n')
    editor.chmod(0o755)
    edited = kubectl("edit deployment web", EDITOR=str(editor), COUNT="2")
    assert edited == "deployment.apps/web edited\n"
    refused = kubectl("edit deployment web", code=1, EDITOR=str(editor), COUNT="-1")
    assert 'deployments.apps "web" is invalid' in refused


def test_a_rollout_goes_forward_and_back(kubectl: Kubectl) -> None:
    kubectl("create deployment web --image=a:v1 --replicas=2")
    kubectl("rollout status deployment web")
    kubectl("set image deployment/web a=a:v2")
    kubectl("set env deployment/web A=b")
    kubectl("set resources deployment/web --requests=cpu=10m")
    kubectl("rollout status deployment web")
    kubectl("rollout pause deployment web")
    assert "already paused" in kubectl("rollout pause deployment web", code=1)
    kubectl("rollout resume deployment web")
    kubectl("rollout undo deployment web --to-revision=1")
    kubectl("rollout status deployment web")
    assert kubectl("get deployment web -o jsonpath={..image}") == "a:v1"
    assert [line.split()[0] for line in kubectl("rollout history deployment web").splitlines()[2:-1]] == [
        "2", "3", "4", "5",
    ]  # fmt: skip


def test_patches_of_each_kind_and_of_subresources(kubectl: Kubectl) -> None:
    kubectl("create deployment web --image=a")
    for kind, patch in [
        ("strategic", {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}}),
        ("merge", {"spec": {"replicas": 3}}),
        ("json", [{"op": "replace", "path": "/spec/replicas", "value": 2}]),
    ]:
        kubectl(f"patch deployment web --type={kind} -p {shlex.quote(json.dumps(patch))}")
    kubectl('patch deployment web --subresource=scale --type=merge -p \'{"spec":{"replicas":4}}\'')
    assert kubectl("get deployment web -o 'jsonpath={.spec.replicas} {..image}'") == "4 b"
    assert "(no change)" in kubectl('patch deployment web -p \'{"spec":{"replicas":4}}\'')


def test_wait_returns_when_it_has_come_true(kubectl: Kubectl) -> None:
    kubectl("run p --image=a")
    assert kubectl("wait --for=condition=Ready pod/p --timeout=60s") == "pod/p condition met\n"
    assert kubectl("wait --for=jsonpath='{.status.phase}'=Running pod/p --timeout=60s")
    kubectl("delete pod p --wait=false --now")
    kubectl("wait --for=delete pod/p --timeout=60s")


def test_what_describe_tells_is_in_the_order_of_time(kubectl: Kubectl) -> None:
    kubectl("run p --image=a")
    kubectl("wait --for=condition=Ready pod/p --timeout=60s")
    told = kubectl("describe pod p").partition("Events:")[2].splitlines()[3:]
    assert [line.split()[1] for line in told][:2] == ["Scheduled", "Pulling"]


def test_rights_are_told_and_reconciled(kubectl: Kubectl) -> None:
    kubectl("create role r --verb=get,list --resource=pods")
    kubectl("create rolebinding b --role=r --user=jane")
    assert kubectl("auth can-i list pods --as=jane") == "yes\n"
    assert kubectl("auth can-i delete pods --as=jane", code=1) == "no\n"
    assert "[get list]" in kubectl("auth can-i --list --as=jane")
    assert "jane" in kubectl("auth whoami --as=jane")
    role = kubectl("get role r -o yaml").replace("- list", "- watch")
    assert "reconciliation required update" in kubectl("auth reconcile -f -", input=role)


def test_the_state_of_the_components(kubectl: Kubectl) -> None:
    rows = [line.split() for line in kubectl("get componentstatuses").splitlines()]
    assert rows[0][0] == "Warning:" and rows[2:] == [
        ["controller-manager", "Healthy", "ok"],
        ["etcd-0", "Healthy", "ok"],
        ["scheduler", "Healthy", "ok"],
    ]
