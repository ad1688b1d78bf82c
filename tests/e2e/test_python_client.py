"""The official Python client does what its users do with it."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes
import pytest
from harness import Cluster, Kubectl, deployment, eventually, pod
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream


@pytest.fixture
def api(cluster: Cluster) -> Iterator[kubernetes.client.ApiClient]:
    with kubernetes.config.new_client_from_config(str(cluster.kubeconfig)) as client:
        yield client


def test_objects_come_and_go(api: kubernetes.client.ApiClient, kubectl: Kubectl) -> None:
    core, namespace = kubernetes.client.CoreV1Api(api), kubectl.namespace
    body = kubernetes.client.V1ConfigMap(metadata={"name": "note"}, data={"a": "1"})
    core.create_namespaced_config_map(namespace, body)
    core.patch_namespaced_config_map("note", namespace, {"data": {"b": "2"}})
    note = core.read_namespaced_config_map("note", namespace)
    assert note.data == {"a": "1", "b": "2"}
    note.data = {"c": "3"}
    core.replace_namespaced_config_map("note", namespace, note)
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("note", namespace, note)
    assert stale.value.status == 409 and "the object has been modified" in stale.value.body
    core.delete_namespaced_config_map("note", namespace)
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("note", namespace)
    assert gone.value.status == 404


def test_a_watch_sees_a_pod_become_ready(api: kubernetes.client.ApiClient, kubectl: Kubectl) -> None:
    core, namespace = kubernetes.client.CoreV1Api(api), kubectl.namespace
    listed = core.list_namespaced_pod(namespace)
    core.create_namespaced_pod(namespace, pod("seen"))
    phases = []
    watch = kubernetes.watch.Watch()
    since = listed.metadata.resource_version
    for event in watch.stream(
        core.list_namespaced_pod, namespace, resource_version=since, timeout_seconds=60
    ):
        phases.append((event["type"], event["object"].status.phase))
        if event["object"].status.phase == "Running":
            watch.stop()
    assert phases[0] == ("ADDED", "Pending") and phases[-1] == ("MODIFIED", "Running")


def test_exec_and_logs(api: kubernetes.client.ApiClient, kubectl: Kubectl) -> None:
    core, namespace = kubernetes.client.CoreV1Api(api), kubectl.namespace
    kubectl.run_pod("talker", "echo first; echo second; exec sleep infinity")
    eventually(lambda: "second" in core.read_namespaced_pod_log("talker", namespace), "its log")
    assert core.read_namespaced_pod_log("talker", namespace, tail_lines=1) == "second\n"
    answer = stream(
        core.connect_get_namespaced_pod_exec,
        "talker",
        namespace,
        command=["sh", "-c", "echo out; echo err >&2"],
        stdout=True,
        stderr=True,
    )
    assert sorted(answer.split()) == ["err", "out"]
    talk = stream(
        core.connect_get_namespaced_pod_exec,
        "talker",
        namespace,
        command=["sh", "-c", "read line; echo got $line; exit 3"],
        stdin=True,
        stdout=True,
        _preload_content=False,
    )
    talk.write_stdin("word\n")
    talk.run_forever(timeout=20)
    assert talk.read_stdout() == "got word\n"
    assert talk.returncode == 3


def test_a_deployment_is_scaled(api: kubernetes.client.ApiClient, kubectl: Kubectl) -> None:
    apps, namespace = kubernetes.client.AppsV1Api(api), kubectl.namespace
    apps.create_namespaced_deployment(namespace, deployment("web", replicas=1))
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 3}})
    kubectl("rollout status deployment/web --timeout=60s")
    status = apps.read_namespaced_deployment_status("web", namespace).status
    assert (status.replicas, status.ready_replicas) == (3, 3)


def test_a_custom_resource(api: kubernetes.client.ApiClient, kubectl: Kubectl) -> None:
    name = f"boats.{kubectl.namespace}.example.com"
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"planks": {"type": "integer"}}}},
    }
    group = f"{kubectl.namespace}.example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
    extensions = kubernetes.client.ApiextensionsV1Api(api)
    extensions.create_custom_resource_definition(definition)
    try:
        custom = kubernetes.client.CustomObjectsApi(api)
        boat = {
            "apiVersion": f"{group}/v1",
            "kind": "Boat",
            "metadata": {"name": "one"},
            "spec": {"planks": 3},
        }
        place = (group, "v1", kubectl.namespace, "boats")
        eventually(lambda: kubectl.run(f"get {name}").returncode == 0, "it is served")
        custom.create_namespaced_custom_object(*place, boat)
        with pytest.raises(ApiException) as wrong:
            custom.patch_namespaced_custom_object(*place, "one", {"spec": {"planks": "three"}})
        assert wrong.value.status == 422 and "must be of type integer" in wrong.value.body
        assert len(custom.list_namespaced_custom_object(*place)["items"]) == 1
    finally:
        extensions.delete_custom_resource_definition(name)
