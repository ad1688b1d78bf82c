"""Deployments: made from a command, YAML or JSON; changed by apply, edit, patch, replace; taken away in three ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Kubectl, deployment, eventually, shell

YAML = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  replicas: 2
  selector:
    matchLabels: {app: shop}
  template:
    metadata:
      labels: {app: shop}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: localhost/host
          command: [sleep, infinity]
"""


def sleeper(name: str, **spec) -> dict:
    """A Deployment whose pods only wait."""
    spec = {"pod": {"terminationGracePeriodSeconds": 1}} | spec
    return deployment(name, shell("exec sleep infinity", name="main", image="localhost/host"), **spec)


def ready(kubectl: Kubectl, name: str) -> int:
    return kubectl.get(f"deployment/{name}")["status"].get("readyReplicas", 0)


def test_create_imperatively(kubectl: Kubectl) -> None:
    """Image, replicas and command on the command line; kubectl sends protobuf."""
    kubectl(
        "create deployment web --image=localhost/host --replicas=3 --port=8080 -- python3 -m http.server 8080"
    )
    kubectl.wait("deployment/web", "condition=Available")
    kubectl("rollout status deployment/web --timeout=60s")
    name, count, up_to_date, available, _ = kubectl("get deployment web --no-headers").split()
    assert (name, count, up_to_date, available) == ("web", "3/3", "3", "3")
    container = kubectl.get("deployment web")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python3", "-m", "http.server", "8080"]
    assert container["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
    assert container["terminationMessagePath"] == "/dev/termination-log"  # defaults are filled in
    described = kubectl("describe deployment web")
    assert "3 desired | 3 updated | 3 total | 3 available | 0 unavailable" in described
    assert "ScalingReplicaSet" in described


@pytest.mark.parametrize("flags", ["", "--server-side"])
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_apply_changes_only_what_the_file_changes(
    kubectl: Kubectl, tmp_path: Path, form: str, flags: str
) -> None:
    """apply makes it, changes only what the file changes, and says when there is nothing to do."""
    file = tmp_path / f"shop.{form}"
    file.write_text(YAML if form == "yaml" else json.dumps(sleeper("shop")))
    assert kubectl(f"apply -f {file} {flags}").split()[1:] in (["created"], ["serverside-applied"])
    kubectl("rollout status deployment/shop --timeout=60s")
    kubectl("label deployment/shop owner=somebody")
    file.write_text(
        file.read_text().replace("replicas: 2", "replicas: 3").replace('"replicas": 2', '"replicas": 3')
    )
    kubectl(f"apply -f {file} {flags}")
    kubectl("rollout status deployment/shop --timeout=60s")
    shop = kubectl.get("deployment/shop")
    assert shop["spec"]["replicas"] == 3 and shop["metadata"]["labels"]["owner"] == "somebody"
    again = kubectl(f"apply -f {file} {flags}")
    assert "unchanged" in again or "serverside-applied" in again
    assert (
        kubectl.get("deployment/shop")["metadata"]["resourceVersion"] == shop["metadata"]["resourceVersion"]
    )


def test_apply_removes_what_the_file_no_longer_says(kubectl: Kubectl) -> None:
    first = sleeper("shop")
    first["metadata"]["annotations"] = {"note": "here", "other": "stays"}
    kubectl.apply(first)
    first["metadata"]["annotations"] = {"other": "stays"}
    kubectl.apply(first)
    annotations = kubectl.get("deployment/shop")["metadata"]["annotations"]
    assert "note" not in annotations and annotations["other"] == "stays"


def test_server_side_apply_has_owners(kubectl: Kubectl) -> None:
    """A field another manager owns is a conflict, unless forced."""
    kubectl.apply(sleeper("shop", replicas=1), flags="--server-side --field-manager=team-a")
    said = kubectl.refused(
        "apply -f - --server-side --field-manager=team-b", input=json.dumps(sleeper("shop", replicas=2))
    )
    assert 'conflict with "team-a"' in said and ".spec.replicas" in said
    kubectl.apply(sleeper("shop", replicas=2), flags="--server-side --field-manager=team-b --force-conflicts")
    assert kubectl.get("deployment/shop")["spec"]["replicas"] == 2


def test_edit_stores_what_the_editor_leaves(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(sleeper("shop"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: 2/replicas: 4/" "$1"\n')
    editor.chmod(0o755)
    assert "deployment.apps/shop edited" in kubectl("edit deployment/shop", env={"KUBE_EDITOR": str(editor)})
    eventually(lambda: ready(kubectl, "shop") == 4)


@pytest.mark.parametrize(
    "kind, patch",
    [
        ("merge", {"spec": {"replicas": 1, "template": {"metadata": {"annotations": {"a": "b"}}}}}),
        (
            "json",
            [
                {"op": "replace", "path": "/spec/replicas", "value": 1},
                {"op": "add", "path": "/spec/template/metadata/annotations", "value": {"a": "b"}},
            ],
        ),
        (
            "strategic",
            {
                "spec": {
                    "replicas": 1,
                    "template": {
                        "metadata": {"annotations": {"a": "b"}},
                        "spec": {
                            "containers": [
                                {"name": "side", "image": "localhost/host", "command": ["sleep", "9"]}
                            ]
                        },
                    },
                }
            },
        ),
    ],
)
def test_each_kind_of_patch_changes_what_it_names(kubectl: Kubectl, kind: str, patch: object) -> None:
    kubectl.apply(sleeper("shop", replicas=0))
    kubectl(f"patch deployment/shop --type={kind} -p '{json.dumps(patch)}'")
    spec = kubectl.get("deployment/shop")["spec"]
    assert spec["replicas"] == 1 and spec["template"]["metadata"]["annotations"] == {"a": "b"}
    names = [container["name"] for container in spec["template"]["spec"]["containers"]]
    assert sorted(names) == (["main", "side"] if kind == "strategic" else ["main"])


def test_replace_refuses_an_object_that_has_changed(kubectl: Kubectl) -> None:
    kubectl.apply(sleeper("shop", replicas=0))
    shop = kubectl.get("deployment/shop")
    shop["spec"]["replicas"] = 1
    kubectl("replace -f -", input=json.dumps(shop))
    assert ready(kubectl, "shop") in (0, 1)
    assert "the object has been modified" in kubectl.refused("replace -f -", input=json.dumps(shop))
    uid = shop["metadata"]["uid"]
    kubectl("replace --force -f -", input=json.dumps(sleeper("shop", replicas=0)))
    assert kubectl.get("deployment/shop")["metadata"]["uid"] != uid


def test_set_and_annotate(kubectl: Kubectl) -> None:
    kubectl.apply(sleeper("shop", replicas=0))
    kubectl("set env deployment/shop COLOUR=red")
    kubectl("set resources deployment/shop --requests=cpu=10m,memory=16Mi --limits=memory=64Mi")
    kubectl("set image deployment/shop main=localhost/host:v2")
    kubectl("annotate deployment/shop kubernetes.io/change-cause='a new colour'")
    container = kubectl.get("deployment/shop")["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "COLOUR", "value": "red"}]
    assert container["resources"] == {
        "limits": {"memory": "64Mi"},
        "requests": {"cpu": "10m", "memory": "16Mi"},
    }
    assert container["image"] == "localhost/host:v2"
    assert "COLOUR=red" in kubectl("set env deployment/shop --list")


def test_scale_makes_and_ends_pods(kubectl: Kubectl) -> None:
    kubectl.apply(sleeper("shop", replicas=1))
    kubectl("scale deployment/shop --replicas=3")
    eventually(lambda: ready(kubectl, "shop") == 3)
    assert "Expected replicas to be 5, was 3" in kubectl.refused(
        "scale deployment/shop --replicas=1 --current-replicas=5"
    )
    scale = json.loads(
        kubectl(f"get --raw /apis/apps/v1/namespaces/{kubectl.namespace}/deployments/shop/scale")
    )
    assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 3}
    kubectl('patch deployment/shop --subresource=scale --type=merge -p \'{"spec":{"replicas":0}}\'')
    kubectl.wait("pod -l app=shop", "delete")
    assert kubectl.items("pods -l app=shop") == []


def test_delete_background(kubectl: Kubectl) -> None:
    """The default: the Deployment goes at once, its ReplicaSet and pods after it."""
    kubectl.apply(sleeper("shop"))
    kubectl("rollout status deployment/shop --timeout=60s")
    kubectl("delete deployment/shop")
    kubectl.wait("replicaset,pod -l app=shop", "delete")
    assert kubectl("get all --no-headers") == ""


def test_delete_foreground(kubectl: Kubectl) -> None:
    """The Deployment stays until all that depends on it is gone."""
    kubectl.apply(sleeper("shop"))
    kubectl("rollout status deployment/shop --timeout=60s")
    kubectl("delete deployment/shop --cascade=foreground --timeout=60s")
    assert kubectl.items("replicasets,pods") == []


def test_delete_orphan(kubectl: Kubectl) -> None:
    """What depended on it stays, without owner."""
    kubectl.apply(sleeper("shop"))
    kubectl("rollout status deployment/shop --timeout=60s")
    kubectl("delete deployment/shop --cascade=orphan")
    (replicaset,) = kubectl.items("replicasets")
    assert "ownerReferences" not in replicaset["metadata"]
    assert len(kubectl.items("pods")) == 2
    kubectl.apply(sleeper("shop"))
    eventually(lambda: kubectl.items("replicasets")[0]["metadata"].get("ownerReferences"), "adopted again")
    assert len(kubectl.items("replicasets")) == 1


def test_delete_grace_period(kubectl: Kubectl) -> None:
    """A pod that ignores SIGTERM has its grace period, unless told otherwise."""
    stubborn = shell("trap '' TERM; while true; do sleep 1; done", name="main", image="localhost/host")
    kubectl.apply(deployment("stubborn", stubborn, pod={"terminationGracePeriodSeconds": 600}, replicas=1))
    kubectl("rollout status deployment/stubborn --timeout=60s")
    (pod,) = kubectl.items("pods")
    name = pod["metadata"]["name"]
    kubectl("delete deployment/stubborn")
    eventually(lambda: kubectl.get(f"pod/{name}")["metadata"].get("deletionGracePeriodSeconds") == 600)
    assert kubectl.run(f"get pod {name}").stdout.split()[7] == "Terminating"
    kubectl(f"delete pod {name} --grace-period=1 --timeout=30s")
    assert "not found" in kubectl.refused(f"get pod {name}")


def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    """Exit 0 without a difference, 1 with one, which it shows."""
    kubectl.apply(sleeper("shop", replicas=0))
    same = kubectl.run("diff -f -", input=json.dumps(sleeper("shop", replicas=0)))
    assert (same.returncode, same.stdout) == (0, ""), same.stdout + same.stderr
    other = kubectl.run("diff -f -", input=json.dumps(sleeper("shop", replicas=7)))
    assert other.returncode == 1, other.stderr
    assert "-  replicas: 0" in other.stdout and "+  replicas: 7" in other.stdout
    assert kubectl.get("deployment/shop")["spec"]["replicas"] == 0


def test_dry_run(kubectl: Kubectl) -> None:
    """The server answers as if it had, and has not."""
    made = kubectl("create deployment web --image=localhost/host --dry-run=server -o json")
    assert json.loads(made)["metadata"]["uid"]
    assert "not found" in kubectl.refused("get deployment web")
    kubectl("create deployment web --image=localhost/host --replicas=0")
    kubectl("scale deployment web --replicas=5 --dry-run=server")
    kubectl("delete deployment web --dry-run=server")
    assert kubectl.get("deployment web")["spec"]["replicas"] == 0
    assert "replicas: 1" in kubectl("create deployment other --image=x --dry-run=client -o yaml")


def test_wait_returns_when_it_has_come_true(kubectl: Kubectl) -> None:
    kubectl.apply(sleeper("shop"))
    kubectl("wait --for=condition=Available deployment/shop --timeout=60s")
    kubectl("wait --for=jsonpath={.status.readyReplicas}=2 deployment/shop --timeout=60s")
    kubectl("wait --for=condition=Ready pods --all --timeout=60s")
    assert "timed out" in kubectl.refused("wait --for=condition=Failed deployment/shop --timeout=1s")
    kubectl("delete deployment shop")
    kubectl.wait("pods -l app=shop", "delete")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"spec": {"replicas": -1}}, "must be greater than or equal to 0"),
        ({"spec": {"selector": {"matchLabels": {"app": "other"}}}}, "field is immutable"),
        (
            {"spec": {"template": {"metadata": {"labels": {"app": "x"}}}}},
            "`selector` does not match template `labels`",
        ),
        ({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}, 'supported values: "Always"'),
    ],
)
def test_refused_changes(kubectl: Kubectl, change: dict, says: str) -> None:
    """A wrong change names the field, and nothing is stored."""
    kubectl.apply(sleeper("shop", replicas=0))
    before = kubectl("get deployment/shop -o jsonpath={.metadata.generation}")
    assert says in kubectl.refused(f"patch deployment/shop --type=merge -p '{json.dumps(change)}'")
    assert kubectl("get deployment/shop -o jsonpath={.metadata.generation}") == before


def test_unknown_fields(kubectl: Kubectl) -> None:
    """strict refuses, warn stores without and says so, ignore is silent."""
    odd = sleeper("odd", replicas=0)
    odd["spec"]["replicsa"] = 3
    text = json.dumps(odd)
    assert 'unknown field "spec.replicsa"' in kubectl.refused("create -f - --validate=strict", input=text)
    warned = kubectl.run("create -f - --validate=warn", input=text)
    assert warned.returncode == 0 and 'Warning: unknown field "spec.replicsa"' in warned.stderr
    kubectl("delete deployment odd")
    silent = kubectl.run("create -f - --validate=ignore", input=text)
    assert silent.returncode == 0 and silent.stderr == ""
