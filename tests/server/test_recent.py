"""What is kept of recent writes is what was stored, and no later write changes it."""

import orjson

from sampan.api.resources import BUILTIN

POD = {
    "metadata": {"name": "p", "labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
PODS = "/api/v1/namespaces/default/pods"
MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
# Every way to write a pod that is there: method, what follows its path, body, headers.
WRITES = (
    ("POST", "/binding", {"target": {"name": "n"}, "metadata": {"annotations": {"by": "b"}}}, {}),
    ("PATCH", "/status", {"status": {"phase": "Running", "conditions": [{"type": "Ready"}]}}, STRATEGIC),
    ("PATCH", "", {"metadata": {"labels": {"app": None, "tier": "t"}}}, MERGE),
    ("PATCH", "", [{"op": "add", "path": "/metadata/annotations/x", "value": "y"}], {"content-type": "application/json-patch+json"}),
    ("PATCH", "?fieldManager=m", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"z": "1"}}}, APPLY),
    ("PATCH", "/ephemeralcontainers", {"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}, STRATEGIC),
    ("PUT", "/status", None, {}),
    ("PUT", "", None, {}),
)  # fmt: skip


async def test_what_is_kept_is_what_was_stored(api):
    store, recent, row = api.server.store, api.server.recent, BUILTIN.get("pods")
    seen = []

    async def write(method, path, body, headers):
        await api.ok(method, path, body, headers=headers)
        item = store.get("pods", "default/p")
        kept = recent.load(item, row)
        assert kept is recent.load(item, row) and kept == orjson.loads(item.value)
        seen.append((item, kept))

    await write("POST", PODS, POD, {})
    twin = await api.ok("POST", PODS, {**POD, "metadata": {"name": "twin"}})
    for method, path, body, headers in WRITES:
        if body is None:  # a PUT of what is there, with one difference
            body = await api.ok("GET", f"{PODS}/p")
            body["metadata"]["annotations"]["put"] = path
            body["status"]["message"] = f"by PUT {path}"
        await write(method, f"{PODS}/p{path}", body, headers)
    assert len({item.revision for item, _ in seen}) == len(WRITES) + 1
    for item, kept in seen:
        assert kept == orjson.loads(item.value)
    item = store.get("pods", "default/twin")  # whose spec is that of the pod that was changed
    assert recent.load(item, row) == orjson.loads(item.value) == twin


async def test_another_version_is_read_from_what_is_stored(api):
    about = {"namespace": "default", "kind": "Pod", "name": "p"}
    event = {"metadata": {"name": "e", "namespace": "default"}, "involvedObject": about}
    await api.ok("POST", "/api/v1/namespaces/default/events", event)
    item = api.server.store.get("events", "default/e")
    row = BUILTIN.find("events.k8s.io", "v1", "events")
    assert api.server.recent.load(item, row)["apiVersion"] == "events.k8s.io/v1"
