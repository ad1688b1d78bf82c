"""An operator written with kopf: handlers, finalizers, status, children, events, timers, over a definition of its own."""

from __future__ import annotations

import asyncio
import threading

import kopf
from kubernetes import client, config

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ponds.kopf.example.com"},
    "spec": {
        "group": "kopf.example.com",
        "scope": "Namespaced",
        "names": {"plural": "ponds", "singular": "pond", "kind": "Pond"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"ducks": {"type": "integer"}}},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def handlers(api):
    registry = kopf.OperatorRegistry()
    core = client.CoreV1Api(api)
    told: list[str] = []

    @kopf.on.startup(registry=registry)
    def configure(settings, **_):
        settings.posting.level = 0
        settings.persistence.finalizer = "kopf.example.com/finalizer"

    @kopf.on.login(registry=registry)
    def login(**kwargs):
        return kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.create("kopf.example.com", "v1", "ponds", registry=registry, id="created")
    def created(spec, name, namespace, body, **_):
        child = {"metadata": {"name": f"{name}-ducks"}, "data": {"count": str(spec.get("ducks", 0))}}
        kopf.adopt(child, owner=body)
        core.create_namespaced_config_map(namespace, child)
        kopf.info(body, reason="Filled", message="there are ducks")
        return {"ready": True}

    @kopf.on.update("kopf.example.com", "v1", "ponds", field="spec.ducks", registry=registry)
    def changed(old, new, name, namespace, **_):
        told.append(f"{old}->{new}")
        core.patch_namespaced_config_map(f"{name}-ducks", namespace, {"data": {"count": str(new)}})

    @kopf.on.delete("kopf.example.com", "v1", "ponds", registry=registry)
    def deleted(name, **_):
        told.append(f"{name} is gone")

    return registry, told


class Operator:
    """kopf in a thread of its own."""

    def __init__(self, registry, namespace):
        self._flag, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(registry, namespace), daemon=True)

    def _run(self, registry, namespace):
        asyncio.run(
            kopf.operator(
                registry=registry,
                namespaces=[namespace],
                standalone=True,
                stop_flag=self._flag,
                ready_flag=self._ready,
            )
        )

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_):
        self._flag.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


async def until(check, seconds=60):
    for _ in range(int(seconds / 0.05)):
        if (found := await asyncio.to_thread(check)) is not None:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to pass")


async def test_an_operator_with_a_definition_of_its_own(kubeconfig_file):
    api = config.new_client_from_config(kubeconfig_file)
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    client.ApiextensionsV1Api(api).create_custom_resource_definition(CRD)
    namespace = core.create_namespace({"metadata": {"generateName": "kopf-"}}).metadata.name
    where = ("kopf.example.com", "v1", namespace, "ponds")
    registry, told = handlers(api)
    body = {
        "apiVersion": "kopf.example.com/v1",
        "kind": "Pond",
        "metadata": {"name": "p"},
        "spec": {"ducks": 3},
    }

    def ready():
        pond = custom.get_namespaced_custom_object(*where, "p")
        return pond if (pond.get("status") or {}).get("created") == {"ready": True} else None

    def count(wanted):
        data = core.read_namespaced_config_map("p-ducks", namespace).data
        return data if data["count"] == wanted else None

    def gone():
        try:
            custom.get_namespaced_custom_object(*where, "p")
        except client.ApiException as error:
            return error.status

    with Operator(registry, namespace):
        custom.create_namespaced_custom_object(*where, body)
        pond = await until(ready)
        assert pond["metadata"]["finalizers"] == ["kopf.example.com/finalizer"]
        await until(lambda: count("3"))
        custom.patch_namespaced_custom_object(*where, "p", {"spec": {"ducks": 5}})
        await until(lambda: count("5"))
        custom.delete_namespaced_custom_object(*where, "p")
        assert await until(gone) == 404
    assert told == ["3->5", "p is gone"]
    events = core.list_namespaced_event(namespace).items
    assert "Filled" in {e.reason for e in events}
