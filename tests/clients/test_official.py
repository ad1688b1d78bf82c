"""The official Python client: typed and dynamic objects, patches, watches, custom resources, evictions, logs."""

from __future__ import annotations

import pytest
from kubernetes import client, config, dynamic, utils, watch


@pytest.fixture
def api(kubeconfig_file):
    return config.new_client_from_config(kubeconfig_file)


@pytest.fixture
def namespace(api):
    core = client.CoreV1Api(api)
    made = core.create_namespace({"metadata": {"generateName": "official-"}})
    yield made.metadata.name
    core.delete_namespace(made.metadata.name)


def test_a_deployment_from_creation_to_deletion(api, namespace, make_deployment):
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    apps.create_namespaced_deployment(namespace, make_deployment("web"))
    for event in watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=20):
        if event["object"].status.ready_replicas == 2:
            break
    pods = core.list_namespaced_pod(namespace, label_selector="app=web").items
    assert {p.status.phase for p in pods} == {"Running"}
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 1}})
    assert apps.read_namespaced_deployment_scale("web", namespace).spec.replicas == 1
    apps.patch_namespaced_deployment("web", namespace, {"metadata": {"labels": {"a": "b"}}})
    seen = apps.read_namespaced_deployment("web", namespace)
    assert (seen.metadata.labels, seen.spec.replicas) == ({"a": "b"}, 1)
    apps.patch_namespaced_deployment("web", namespace, {"spec": {"paused": True}})
    seen.spec.paused = False
    with pytest.raises(client.ApiException) as caught:
        apps.replace_namespaced_deployment("web", namespace, seen)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    apps.delete_namespaced_deployment("web", namespace, propagation_policy="Foreground")


def test_yaml_documents(api, namespace, tmp_path):
    file = tmp_path / "all.yaml"
    file.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n---\n"
        "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {k: v}\n"
    )
    utils.create_from_yaml(api, str(file), namespace=namespace)
    core = client.CoreV1Api(api)
    assert core.read_namespaced_config_map("a", namespace).data == {"k": "v"}
    assert core.read_namespaced_secret("b", namespace).data == {"k": "dg=="}


def test_the_dynamic_client_applies_and_discovers(api, namespace):
    dyn = dynamic.DynamicClient(api)
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}
    maps.server_side_apply(body, namespace=namespace, field_manager="one")
    body["data"] = {"a": "2"}
    with pytest.raises(dynamic.exceptions.ConflictError):
        maps.server_side_apply(body, namespace=namespace, field_manager="two")
    applied = maps.server_side_apply(body, namespace=namespace, field_manager="two", force_conflicts=True)
    assert applied.data.a == "2"
    assert [i.metadata.name for i in maps.get(namespace=namespace).items if i.metadata.name == "m"]


def test_lists_in_pages(api, namespace):
    core = client.CoreV1Api(api)
    for number in range(5):
        core.create_namespaced_config_map(
            namespace, {"metadata": {"name": f"m{number}", "labels": {"x": "y"}}}
        )
    first = core.list_namespaced_config_map(namespace, limit=2, label_selector="x=y")
    rest = core.list_namespaced_config_map(
        namespace, limit=9, label_selector="x=y", _continue=first.metadata._continue
    )
    assert [len(first.items), len(rest.items)] == [2, 3]


def test_reviews_versions_and_refusals(api, namespace):
    body = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": namespace}}}
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(body)
    assert review.status.allowed
    assert client.VersionApi(api).get_code().minor == "37"
    with pytest.raises(client.ApiException) as caught:
        client.CoreV1Api(api).create_namespaced_pod(
            namespace, {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "Not A Name"}]}}
        )
    assert caught.value.status == 422
