"""Asking for the right objects and the right parts of them: labels, fields, output forms, sorting, watching."""

from __future__ import annotations

import json

import pytest
import yaml
from harness import Kubectl, pod


@pytest.fixture
def fruit(kubectl: Kubectl) -> Kubectl:
    """Four ConfigMaps with labels."""
    labels = {
        "apple": {"colour": "red", "size": "big"},
        "berry": {"colour": "red", "size": "small"},
        "lime": {"colour": "green", "size": "small"},
        "plain": {},
    }
    made = {"apiVersion": "v1", "kind": "ConfigMap"}
    kubectl.apply(*({**made, "metadata": {"name": name, "labels": own}} for name, own in labels.items()))
    kubectl.wait("configmap/kube-root-ca.crt", "create")
    kubectl("label configmap kube-root-ca.crt colour=none")
    return kubectl


@pytest.mark.parametrize(
    "selector, names",
    [
        ("colour=red", "apple berry"),
        ("colour==red,size=big", "apple"),
        ("colour!=red", "kube-root-ca.crt lime plain"),
        ("colour in (red, green)", "apple berry lime"),
        ("colour notin (red,none)", "lime plain"),
        ("size", "apple berry lime"),
        ("!colour", "plain"),
        ("size,colour notin (green)", "apple berry"),
        ("size=huge", ""),
    ],
)
def test_label_selectors(fruit: Kubectl, selector: str, names: str) -> None:
    found = fruit(f"get configmaps -l '{selector}' -o name").replace("configmap/", "").split()
    assert found == names.split()


def test_a_bad_selector(kubectl: Kubectl) -> None:
    assert "unable to parse requirement" in kubectl.refused("get pods -l 'a in b'")


def test_labels_change_at_any_time(kubectl: Kubectl) -> None:
    kubectl.apply(pod("one", labels={"tier": "front"}))
    assert "already has a value (front)" in kubectl.refused("label pod one tier=back")
    kubectl("label pod one tier=back --overwrite")
    assert kubectl("get pods -l tier=back -o name") == "pod/one\n"
    kubectl("label pod one tier-")
    assert kubectl("get pods -l tier -o name") == ""
    kubectl("label pods --all touched=yes")
    assert kubectl("get pods -L touched --no-headers").split()[-1] == "yes"
    assert "touched=yes" in kubectl("get pods --show-labels")
    assert "a valid label must be" in kubectl.refused("label pod one 'bad=not valid!'")


def test_delete_by_selector(fruit: Kubectl) -> None:
    fruit("delete configmaps -l colour=red")
    assert fruit("get configmaps -l size -o name") == "configmap/lime\n"
    fruit("delete configmaps --all")
    assert fruit("get configmaps -l size -o name") == ""


def test_field_selectors(kubectl: Kubectl) -> None:
    kubectl.apply(pod("here", {"nodeName": "node-1", "containers": [{"command": ["sleep", "infinity"]}]}))
    kubectl("run done --image=localhost/host --restart=Never -- true")
    kubectl.wait("pod/here")
    kubectl.phase("done", "Succeeded")
    for selector, names in (
        ("metadata.name=here", "pod/here\n"),
        ("status.phase=Running", "pod/here\n"),
        ("status.phase!=Running", "pod/done\n"),
        ("spec.nodeName=node-1,status.phase=Running", "pod/here\n"),
        ("spec.restartPolicy=Never", "pod/done\n"),
    ):
        assert kubectl(f"get pods --field-selector {selector} -o name") == names
    assert "field label not supported" in kubectl.refused("get pods --field-selector spec.colour=red")
    everywhere = kubectl("get pods -A --field-selector metadata.name=here --no-headers")
    assert everywhere.split()[:2] == [kubectl.namespace, "here"]


def test_output_forms(fruit: Kubectl) -> None:
    assert json.loads(fruit("get configmap apple -o json"))["kind"] == "ConfigMap"
    listed = yaml.safe_load(fruit("get configmaps -l size -o yaml"))
    assert listed["kind"] == "List" and len(listed["items"]) == 3
    assert fruit("get configmap apple -o jsonpath='{.metadata.labels.colour}'") == "red"
    ranged = "'{range .items[*]}{.metadata.name}:{.metadata.labels.size}{\"\\n\"}{end}'"
    assert fruit(f"get configmaps -l size -o jsonpath={ranged}") == "apple:big\nberry:small\nlime:small\n"
    filtered = "'{.items[?(@.metadata.labels.size==\"small\")].metadata.name}'"
    assert fruit(f"get configmaps -l size -o jsonpath={filtered}") == "berry lime"
    table = fruit(
        "get configmaps -l size -o custom-columns=WHO:.metadata.name,COLOUR:.metadata.labels.colour"
    )
    assert [line.split() for line in table.splitlines()] == [
        ["WHO", "COLOUR"],
        ["apple", "red"],
        ["berry", "red"],
        ["lime", "green"],
    ]
    template = "'{{range .items}}{{.metadata.name}} {{end}}'"
    assert fruit(f"get configmaps -l colour=red -o go-template={template}") == "apple berry "
    assert "NAME    DATA   AGE" in fruit("get configmaps -l size").splitlines()[0]


def test_sort_by(fruit: Kubectl) -> None:
    by_size = fruit("get configmaps -l size --sort-by=.metadata.labels.size -o name").split()
    assert by_size[0] == "configmap/apple"
    by_age = fruit("get configmaps -l size --sort-by={.metadata.creationTimestamp} -o name").split()
    assert sorted(by_age) == ["configmap/apple", "configmap/berry", "configmap/lime"]


def test_several_kinds_at_once(kubectl: Kubectl) -> None:
    kubectl("create configmap one")
    kubectl("create secret generic two")
    assert {"configmap/one", "secret/two"} <= set(kubectl("get configmaps,secrets -o name").split())
    assert kubectl("get configmap/one secret/two -o name").split() == ["configmap/one", "secret/two"]


def test_watch_shows_what_is_there_then_every_change(kubectl: Kubectl) -> None:
    """--watch shows what is there, then every change."""
    kubectl("create configmap before")
    with kubectl.stream("get configmaps --watch --output-watch-events") as watch:
        watch.until(r"ADDED +before")
        kubectl("create configmap after")
        watch.until(r"ADDED +after")
        kubectl("label configmap after seen=yes")
        watch.until(r"MODIFIED +after")
        kubectl("delete configmap after")
        watch.until(r"DELETED +after")


def test_watch_of_a_selection(kubectl: Kubectl) -> None:
    """An object that leaves the selection is DELETED for who watches it, one that enters is ADDED."""
    kubectl("create configmap one")
    with kubectl.stream("get configmaps -l in=yes --watch --output-watch-events") as watch:
        kubectl("label configmap one in=yes")
        watch.until(r"ADDED +one")
        kubectl("label configmap one in=no --overwrite")
        watch.until(r"DELETED +one")


def test_watch_a_pod_come_and_go(kubectl: Kubectl) -> None:
    with kubectl.stream("get pods --watch") as watch:
        kubectl.run_pod("guest")
        watch.until(r"guest +1/1 +Running")
        kubectl("delete pod guest")
        watch.until(r"guest +1/1 +Terminating")


def test_a_list_in_pages_is_whole(fruit: Kubectl) -> None:
    """--chunk-size asks in pages and shows all."""
    assert len(fruit("get configmaps --chunk-size=2 -o name").split()) == 5
    path = f"/api/v1/namespaces/{fruit.namespace}/configmaps?limit=2"
    page = json.loads(fruit(f"get --raw {path}"))
    assert page["metadata"]["remainingItemCount"] == 3
    rest = json.loads(fruit(f"get --raw '{path}0&continue={page['metadata']['continue']}'"))
    assert len(page["items"]) + len(rest["items"]) == 5
