"""Images from a private registry: Debian's docker-registry with TLS of an own CA and a password, on this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import Cluster, Kubectl, eventually, pod

sys.path.insert(0, str(Path(__file__).parents[2] / "node" / "images"))

from docker_registry import PASSWORD, USER, DockerRegistry, tar


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster of one node that knows the CA of a registry with a password; `image` is in it."""
    directory = tmp_path_factory.mktemp("private")
    registries = directory / "registries.yaml"
    cluster = Cluster(f"e2er-{os.getpid()}", directory, {"SAMPAN_REGISTRIES": str(registries)})
    try:
        cluster.up("--nodes=1")
        kubectl = cluster.kubectl()
        slices = kubectl.get("endpointslice/kubernetes")
        address = slices["endpoints"][0]["addresses"][0]  # of the host, as nodes see it
        (directory / "registry").mkdir()
        with DockerRegistry(directory / "registry", address, tls=True, password=True) as docker:
            registries.write_text(json.dumps({"authorities": {docker.host: str(docker.ca)}}))
            busybox = Path(shutil.which("busybox") or "").read_bytes()
            layer = tar({"bin/busybox": busybox, "bin/sh": busybox, "etc/passwd": b"root:x:0:0::/:/bin/sh\n"})
            docker.push("team/box", "v1", [layer], Cmd=["/bin/busybox", "sleep", "1000"])
            yield SimpleNamespace(
                kubectl=kubectl, docker=docker, image=f"{docker.host}/team/box:v1", registries=registries
            )
            for line in cluster.sampan("image ls").splitlines():
                if line.startswith(docker.host) and "@" not in line:  # the digest goes with the tag
                    cluster.sampan(f"image rm {line.split()[0]}")
        assert cluster.complaints() == ""
    finally:
        cluster.sampan("down")


def named(image: str, **spec: object) -> dict:
    return {"containers": [{"name": "main", "image": image}], **spec}


def waiting(kubectl: Kubectl, name: str) -> dict:
    (status,) = kubectl.get(f"pod/{name}")["status"].get("containerStatuses") or [{}]
    return status.get("state", {}).get("waiting", {})


def test_a_private_image_needs_its_secret_and_then_comes(private: SimpleNamespace) -> None:
    kubectl = private.kubectl
    kubectl.apply(pod("early", named(private.image, imagePullSecrets=[{"name": "login"}])))
    eventually(
        lambda: waiting(kubectl, "early").get("reason") == "ImagePullBackOff", "refused without the secret"
    )
    assert "no basic auth credentials" in waiting(kubectl, "early")["message"]
    assert "Unable to retrieve some image pull secrets (login)" in kubectl.events_of("early")
    kubectl(
        f"create secret docker-registry login --docker-server={private.docker.host} "
        f"--docker-username={USER} --docker-password={PASSWORD}"
    )
    kubectl.run_pod("late", named(private.image, imagePullSecrets=[{"name": "login"}]))
    status = kubectl.get("pod/late")["status"]["containerStatuses"][0]
    assert status["imageID"].startswith(f"{private.docker.host}/team/box@sha256:")
    assert "Successfully pulled image" in kubectl.events_of("late")
    kubectl.wait(
        "pod/early", seconds=200
    )  # the secret is there, and its back-off ends: it doubles up to minutes
    kubectl.apply(pod("other", named(private.image)))  # what is here is not for those without the secret
    eventually(lambda: waiting(kubectl, "other").get("reason") == "ImagePullBackOff")
    names = [n for image in kubectl.get("nodes")["items"][0]["status"]["images"] for n in image["names"]]
    assert private.image in names


def test_what_a_registry_does_not_have_is_told(private: SimpleNamespace) -> None:
    kubectl = private.kubectl
    kubectl.apply(
        pod("absent", named(f"{private.docker.host}/team/box:v9", imagePullSecrets=[{"name": "login"}]))
    )
    eventually(lambda: waiting(kubectl, "absent").get("reason") == "ImagePullBackOff")
    assert "team/box:v9: not found" in waiting(kubectl, "absent")["message"]
