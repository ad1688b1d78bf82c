"""Image volumes (KEP-4639) on a real node: an image that was loaded from an archive, seen by kubectl's user."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Cluster, Kubectl, eventually, pod, shell

from sampan.node.images import manifests

sys.path.insert(0, str(Path(__file__).parents[2] / "node" / "images"))

from docker_registry import tar


@pytest.fixture(scope="module")
def data(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an image of two layers without a program, loaded with `sampan image load`."""
    name = f"localhost/data-{os.getpid()}:1"
    layers = [
        tar({"models/v1/weights": b"old", "models/base": b"base"}),
        tar({"models/v1/weights": b"new", "tool": b"#!/bin/sh\necho ran\n"}),
    ]
    config = {
        "architecture": manifests.architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
        },
    }
    entry = {"Config": "config.json", "RepoTags": [name], "Layers": ["0.tar", "1.tar"]}
    archive = tmp_path_factory.mktemp("data") / "data.tar"
    archive.write_bytes(
        tar(
            {
                "manifest.json": json.dumps([entry]).encode(),
                "config.json": json.dumps(config).encode(),
                "0.tar": layers[0],
                "1.tar": layers[1],
            }
        )
    )
    cluster.sampan(f"image load {archive}")
    yield name
    cluster.run(f"image rm {name}")


def volume(reference: str) -> list[dict]:
    return [{"name": "data", "image": {"reference": reference}}]


def mounted(path: str, **more: str) -> list[dict]:
    return [{"name": "data", "mountPath": path, **more}]


def test_an_image_is_shared_as_a_volume_and_survives_restarts(kubectl: Kubectl, data: str) -> None:
    first = shell("sleep infinity", name="whole", volumeMounts=mounted("/data"))
    part = {"subPathExpr": "models/$(VERSION)"}
    second = shell(
        "until [ -e /tmp/over ]; do sleep 0.1; done",
        name="part",
        env=[{"name": "VERSION", "value": "v1"}],
        volumeMounts=mounted("/model", **part),
    )
    kubectl.run_pod("reader", {"containers": [first, second], "volumes": volume(data)})
    assert kubectl("exec reader -c whole -- cat /data/models/v1/weights /data/models/base") == "newbase"
    assert kubectl("exec reader -c part -- cat /model/weights") == "new"
    assert "Read-only file system" in kubectl.refused("exec reader -c whole -- touch /data/x")
    assert "ermission denied" in kubectl.refused("exec reader -c whole -- /data/tool")
    kubectl("exec reader -c part -- touch /tmp/over")

    def again() -> bool:
        status = {s["name"]: s for s in kubectl.get("pod/reader")["status"]["containerStatuses"]}["part"]
        return status["restartCount"] == 1 and status["ready"]

    eventually(again, "the container runs again")
    assert kubectl("exec reader -c part -- cat /model/weights") == "new"
    assert f'Container image "{data}" already present on machine' in kubectl.events_of("reader")
    statuses = kubectl.get("pod/reader")["status"]["containerStatuses"]
    assert {s["volumeMounts"][0]["mountPath"] for s in statuses} == {"/data", "/model"}


@pytest.mark.parametrize(
    ("reference", "mount", "reason", "words"),
    [
        ("localhost/absent:1", {}, "ImagePullBackOff", 'Back-off pulling image "localhost/absent:1"'),
        ("", {"subPath": "absent"}, "CreateContainerError", 'subPath "absent": no such file or directory'),
    ],
)
def test_what_cannot_be_mounted_is_told(
    kubectl: Kubectl, data: str, reference: str, mount: dict, reason: str, words: str
) -> None:
    container = shell("sleep infinity", volumeMounts=mounted("/data", **mount))
    kubectl.apply(pod("p", {"containers": [container], "volumes": volume(reference or data)}))

    def waiting() -> dict:
        (status,) = kubectl.get("pod/p")["status"].get("containerStatuses") or [{}]
        return status.get("state", {}).get("waiting", {})

    eventually(lambda: waiting().get("reason") == reason, reason)
    assert words in waiting()["message"]
