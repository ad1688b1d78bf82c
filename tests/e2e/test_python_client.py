"""The `kubernetes` client from PyPI works unchanged: lists, watches, patches, streams, its dynamic client."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from harness import Cluster, Kubectl, eventually, pod
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream


@pytest.fixture
def api(cluster: Cluster) -> Iterator[client.ApiClient]:
    api = config.new_client_from_config(str(cluster.kubeconfig))
    yield api
    api.close()


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


@pytest.fixture
def space(kubectl: Kubectl) -> str:
    return kubectl.namespace


def test_nodes_and_version(core: client.CoreV1Api, api: client.ApiClient) -> None:
    assert [node.metadata.name for node in core.list_node().items] == ["node-1", "node-2"]
    assert client.VersionApi(api).get_code().major == "1"


def test_create_read_update_delete(core: client.CoreV1Api, space: str) -> None:
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="note"), data={"a": "1"})
    made = core.create_namespaced_config_map(space, body)
    assert made.metadata.uid and made.metadata.creation_timestamp
    core.patch_namespaced_config_map("note", space, {"data": {"b": "2"}})
    read = core.read_namespaced_config_map("note", space)
    assert read.data == {"a": "1", "b": "2"}
    read.data = {"c": "3"}
    assert core.replace_namespaced_config_map("note", space, read).data == {"c": "3"}
    with pytest.raises(ApiException) as conflict:
        core.replace_namespaced_config_map("note", space, read)
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    core.delete_namespaced_config_map("note", space)
    with pytest.raises(ApiException) as missing:
        core.read_namespaced_config_map("note", space)
    assert missing.value.status == 404


def test_list_in_pages(core: client.CoreV1Api, space: str) -> None:
    for number in range(5):
        core.create_namespaced_config_map(
            space, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"n{number}", labels={"page": "yes"}))
        )
    first = core.list_namespaced_config_map(space, label_selector="page=yes", limit=2)
    second = core.list_namespaced_config_map(
        space, label_selector="page=yes", limit=10, _continue=first.metadata._continue
    )
    assert [one.metadata.name for one in first.items + second.items] == [f"n{n}" for n in range(5)]


def test_a_watch_gives_events_in_order(core: client.CoreV1Api, space: str) -> None:
    """Events in order, from a list's version on."""
    since = core.list_namespaced_config_map(space).metadata.resource_version
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        watcher = watch.Watch()
        for event in watcher.stream(
            core.list_namespaced_config_map, space, resource_version=since, timeout_seconds=30
        ):
            if event["object"].metadata.name == "note":
                seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watcher.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map(space, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="note")))
    core.patch_namespaced_config_map("note", space, {"data": {"a": "1"}})
    core.delete_namespaced_config_map("note", space)
    thread.join(40)
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]


def test_pod_exec_and_logs(core: client.CoreV1Api, kubectl: Kubectl, space: str) -> None:
    core.create_namespaced_pod(space, pod("shell", "echo hello from the pod; exec sleep infinity"))
    kubectl.wait("pod/shell")
    assert eventually(lambda: core.read_namespaced_pod_log("shell", space)) == "hello from the pod\n"
    command = ["sh", "-c", "echo out; echo err >&2"]
    assert "out" in stream(
        core.connect_get_namespaced_pod_exec, "shell", space, command=command, stdout=True, stderr=True
    )
    session = stream(
        core.connect_get_namespaced_pod_exec,
        "shell",
        space,
        command=["sh"],
        stdin=True,
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    session.write_stdin("echo two; exit 3\n")
    session.run_forever(timeout=30)
    assert session.read_stdout() == "two\n" and session.returncode == 3


def test_a_command_goes_on_when_its_client_has_hung_up(
    core: client.CoreV1Api, kubectl: Kubectl, space: str
) -> None:
    """Tools that copy files into a container send all, and go."""
    kubectl.run_pod("busy")
    kubectl.wait("pod/busy")
    process = stream(
        core.connect_get_namespaced_pod_exec,
        "busy",
        space,
        command=["sh", "-c", "cat > /tmp/sent; echo end >> /tmp/sent"],
        stdin=True,
        _preload_content=False,
    )
    process.write_stdin("all\n" * 100_000)
    process.close()
    eventually(lambda: kubectl.run("exec busy -- tail -n1 /tmp/sent").stdout == "end\n", "all was written")
    assert kubectl("exec busy -- wc -l /tmp/sent").split()[0] == "100001"


def test_logs_follow(core: client.CoreV1Api, kubectl: Kubectl, space: str) -> None:
    core.create_namespaced_pod(
        space, pod("count", {"restartPolicy": "Never", "containers": [{"command": ["seq", "3"]}]})
    )
    kubectl.phase("count", "Succeeded")
    assert list(watch.Watch().stream(core.read_namespaced_pod_log, "count", space)) == ["1", "2", "3"]


def test_a_deployment_becomes_ready_and_scales(api: client.ApiClient, kubectl: Kubectl, space: str) -> None:
    apps = client.AppsV1Api(api)
    container = client.V1Container(name="main", image="localhost/host", command=["sleep", "infinity"])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
    )
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template
    )
    apps.create_namespaced_deployment(
        space, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    )
    apps.patch_namespaced_deployment_scale("web", space, {"spec": {"replicas": 2}})
    eventually(lambda: apps.read_namespaced_deployment_status("web", space).status.ready_replicas == 2)
    apps.delete_namespaced_deployment("web", space, propagation_policy="Foreground")
    kubectl.wait("deployment/web", "delete")


def test_dynamic_client(api: client.ApiClient, space: str) -> None:
    """Discovery, and server-side apply."""
    maps = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"a": "1"}}
    maps.server_side_apply(body=body, namespace=space, field_manager="test")
    assert maps.get(name="dyn", namespace=space).data.a == "1"
    managers = [entry.manager for entry in maps.get(name="dyn", namespace=space).metadata.managedFields]
    assert managers == ["test"]


def test_custom_resources(api: client.ApiClient, kubectl: Kubectl, space: str) -> None:
    """A kind of one's own: defined, served, validated, listed by kubectl too."""
    group = f"{space}.example.com"
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"planks": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "boats", "singular": "boat", "kind": "Boat"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"boats.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    extensions = client.ApiextensionsV1Api(api)
    extensions.create_custom_resource_definition(definition)
    try:
        kubectl.wait(f"crd/boats.{group}", "condition=Established")
        custom, place = client.CustomObjectsApi(api), (group, "v1", space, "boats")
        boat = {
            "apiVersion": f"{group}/v1",
            "kind": "Boat",
            "metadata": {"name": "one"},
            "spec": {"planks": 3},
        }
        custom.create_namespaced_custom_object(*place, boat)
        with pytest.raises(ApiException) as wrong:
            custom.patch_namespaced_custom_object(*place, "one", {"spec": {"planks": "three"}})
        assert wrong.value.status == 422 and "must be of type integer" in wrong.value.body
        assert kubectl(f"get boats.{group} -o name") == f"boat.{group}/one\n"
    finally:
        extensions.delete_custom_resource_definition(f"boats.{group}")


def test_errors_are_statuses(core: client.CoreV1Api, space: str) -> None:
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_pod(space, {"metadata": {"name": "x"}, "spec": {"containers": []}})
    assert refused.value.status == 422
    assert '"field":"spec.containers"' in refused.value.body.replace(" ", "")


def test_port_forward_over_websocket_channels(core: client.CoreV1Api, kubectl: Kubectl, space: str) -> None:
    serve = (
        "import socket; s = socket.create_server(('', 7000)); print('up', flush=True); "
        "c, _ = s.accept(); c.sendall(c.recv(99)[::-1])"
    )
    core.create_namespaced_pod(space, pod("echo", {"containers": [{"command": ["python3", "-c", serve]}]}))
    eventually(lambda: kubectl("logs echo") == "up\n", "it listens")
    forward = portforward(core.connect_get_namespaced_pod_portforward, "echo", space, ports="7000")
    tunnel = forward.socket(7000)
    tunnel.setblocking(True)
    tunnel.sendall(b"drawer")
    assert tunnel.recv(99) == b"reward"
    tunnel.close()
    assert forward.error(7000) is None
