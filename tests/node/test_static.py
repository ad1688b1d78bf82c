"""Static pods: files that run, mirrors that show them. The real agent over simulated containers."""

from __future__ import annotations

import json

import pytest

from sampan.node.pods.mirror import MIRROR, static_pod


def manifest(name: str = "web", image: str = "nginx:1", **spec) -> dict:
    container = {"name": "c", "image": image}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }


@pytest.fixture
async def files(world):
    """`files(name, manifest)` writes a file (None removes it), as the directory's watcher would tell."""
    manager, kept = world.node.agent.manager, {}

    async def write(name: str, content: dict | None):
        kept.pop(name, None)
        if content is not None:
            kept[name] = static_pod(content, name, "n1", world.clock.now())
        manager.static({p["metadata"]["uid"]: p for p in kept.values()})
        await world.clock.advance(1)

    return write


async def test_a_file_runs_and_its_mirror_shows_it(world, files):
    await files("web.yaml", manifest())
    mirror = world.api.get("pods", "web-n1")
    annotations = mirror["metadata"]["annotations"]
    assert annotations[MIRROR] == annotations["kubernetes.io/config.hash"]
    assert annotations["kubernetes.io/config.source"] == "file"
    assert mirror["metadata"]["ownerReferences"][0]["kind"] == "Node"
    assert mirror["spec"]["tolerations"] == [{"operator": "Exists", "effect": "NoExecute"}]
    assert world.status("web-n1")["phase"] == "Running"
    assert len(world.node.agent.manager.drivers) == 1, "the mirror itself is not run"


async def test_a_deleted_mirror_comes_back_and_the_pod_runs_on(world, files):
    await files("web.yaml", manifest())
    first = world.status("web-n1")["containerStatuses"][0]["containerID"]
    uid = world.api.get("pods", "web-n1")["metadata"]["uid"]
    world.api.delete("pods", "web-n1", grace=0)
    await world.clock.advance(2)
    again = world.api.get("pods", "web-n1")
    assert again["metadata"]["uid"] != uid
    assert again["status"]["phase"] == "Running"
    assert again["status"]["containerStatuses"][0]["containerID"] == first


async def test_a_changed_file_is_another_pod(world, files):
    await files("web.yaml", manifest())
    await files("web.yaml", manifest(image="nginx:2", terminationGracePeriodSeconds=1))
    await world.clock.advance(5)
    mirror = world.api.get("pods", "web-n1")
    assert mirror["spec"]["containers"][0]["image"] == "nginx:2"
    assert mirror["status"]["containerStatuses"][0]["image"] == "nginx:2"
    assert len(await world.node.runtime.containers()) == 1


async def test_without_its_file_a_pod_ends(world, files):
    await files("web.yaml", manifest(terminationGracePeriodSeconds=1))
    await files("web.yaml", None)
    await world.clock.advance(5)
    assert world.api.get("pods", "web-n1") is None
    assert not world.node.agent.manager.drivers and not await world.node.runtime.containers()


async def test_a_mirror_of_a_file_that_is_gone_is_removed(world):
    meta = {"name": "old-n1", "namespace": "default", "annotations": {MIRROR: "x"}}
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    world.api.create("pods", {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Running"}})
    await world.clock.advance(1)
    assert world.api.get("pods", "old-n1") is None and not world.node.agent.manager.drivers


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"kind": "Deployment", "apiVersion": "apps/v1"}, "not a v1 Pod"),
        (manifest() | {"metadata": {}}, "needs a name"),
        (manifest(serviceAccountName="x"), "service accounts"),
        (json.loads('"text"'), "not a v1 Pod"),
    ],
)
def test_files_that_are_no_pod_are_refused(content, words):
    with pytest.raises(ValueError, match=words):
        static_pod(content, "f", "n1", 0)


async def test_a_pod_the_node_does_not_take_fails_with_the_reason(world):
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "64"}}}
    world.pod("large", containers=[container])
    await world.clock.advance(1)
    status = world.status("large")
    assert (status["phase"], status["reason"]) == ("Failed", "OutOfcpu")
    assert status["message"].startswith(
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 64000"
    )
    assert not await world.node.runtime.sandboxes()
    world.api.delete("pods", "large")
    await world.clock.advance(1)
    assert world.api.get("pods", "large") is None
