"""From `kubectl apply` on the client to the same on the server, and back."""

import json

import pytest

from sampan.api import lastapplied, managed, schema
from sampan.api.apply import apply
from sampan.api.status import ApiError

NODE = schema.root("", "v1", "ConfigMap")
NOW = "2026-01-01T00:00:00Z"


def configmap(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def by_client(said, **data):
    """An object that was applied by a client, which said `said`, and that holds `data`."""
    obj = configmap(**data)
    text = said if isinstance(said, str) else json.dumps(said)
    obj["metadata"]["annotations"] = {lastapplied.ANNOTATION: text}
    managed.update(
        None,
        obj,
        NODE,
        manager="kubectl-client-side-apply",
        subresource="",
        now=NOW,
        api_version="v1",
    )
    return obj


def put(live, wish, manager="kubectl"):
    return apply(live, wish, NODE, manager=manager, force=False, subresource="", now=NOW, api_version="v1")


def test_what_a_client_applied_is_no_conflict_for_kubectl_on_the_server():
    live = by_client(configmap(a="1"), a="1", b="1")
    assert put(live, configmap(a="2"))["data"] == {"a": "2", "b": "1"}


@pytest.mark.parametrize(
    ("said", "manager", "conflict"),
    [
        (configmap(a="0"), "kubectl", ".data.a"),  # somebody changed it since
        (configmap(b="1"), "kubectl", ".data.a"),
        (configmap(a="1"), "argocd", ".data.a"),
        (configmap(a="1") | {"apiVersion": "v0"}, "kubectl", ".data.a"),
        ("no JSON", "kubectl", ".data.a"),
    ],
)
def test_everything_else_is(said, manager, conflict):
    with pytest.raises(ApiError) as refused:
        put(by_client(said, a="1"), configmap(a="2"), manager)
    assert [c["field"] for c in refused.value.details["causes"]] == [conflict]


def test_the_annotation_says_what_was_applied_last():
    now = put(by_client(configmap(a="1"), a="1"), configmap(a="1", b="2"))
    assert json.loads(now["metadata"]["annotations"][lastapplied.ANNOTATION]) == configmap(a="1", b="2")
    assert put(now, configmap(a="1", b="2")) == now


@pytest.mark.parametrize(("manager", "kept"), [("argocd", True), ("kubectl", False)])
def test_it_goes_when_it_would_be_too_large_and_is_kubectls_alone(manager, kept):
    live = by_client(configmap(a="1"), a="1")
    now = put(live, configmap(a="1", b="x" * 300_000), manager)
    annotations = now["metadata"]["annotations"]
    assert (annotations == live["metadata"]["annotations"]) == kept
    assert (lastapplied.ANNOTATION in annotations) == kept


def test_an_object_without_it_gets_none():
    assert "annotations" not in put(put(None, configmap(a="1")), configmap(a="2"))["metadata"]
