"""Pulls from a registry that others wrote: Debian's docker-registry, bare, with TLS and with a password."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from docker_registry import DockerRegistry, tar

from sampan.node.images import reference, registry
from sampan.node.images.registry import Settings
from sampan.node.images.service import ImageService
from sampan.node.images.store import Store
from sampan.node.runtime import ImageError

OCI = "application/vnd.oci.image.manifest.v1+json"
LAYERS = [tar({"bin/tool": b"#!/bin/sh\n", "big": b"0" * 3_000_000}), tar({"etc/name": b"app\n"})]


@pytest.fixture(params=["bare", "tls", "password", "tls password"])
def docker(request, tmp_path):
    directory = tmp_path / "registry"
    directory.mkdir()
    with DockerRegistry(
        directory, tls="tls" in request.param, password="password" in request.param
    ) as running:
        yield running


async def test_an_image_is_pulled_by_tag_and_by_digest(docker, tmp_path):
    digest = docker.push("team/app", "v1", LAYERS, Cmd=["/bin/tool"])
    service = ImageService(
        str(tmp_path / "images"), Settings(authorities={docker.host: str(docker.ca)} if docker.tls else {})
    )
    image = await service.pull(f"{docker.host}/team/app:v1", [docker.login])
    assert image.digest == f"{docker.host}/team/app@{digest}" and image.config["Cmd"] == ["/bin/tool"]
    top, bottom = image.layers
    assert Path(top, "etc/name").read_text() == "app\n" and Path(bottom, "big").stat().st_size == 3_000_000
    again = await service.pull(f"{docker.host}/team/app@{digest}", [docker.login])
    assert again.id == image.id
    with pytest.raises(ImageError, match="not found"):
        await service.pull(f"{docker.host}/team/app:v2", [docker.login])


async def test_a_password_is_needed_and_no_other_registry_gets_it(tmp_path):
    directory = tmp_path / "registry"
    directory.mkdir()
    with DockerRegistry(directory, password=True) as docker:
        docker.push("team/app", "v1", LAYERS)
        name = f"{docker.host}/team/app:v1"
        service = ImageService(str(tmp_path / "images"))
        for logins in (
            [],
            [{**docker.login, "password": "wrong"}],
            [{**docker.login, "registry": "other.example"}],
        ):
            with pytest.raises(ImageError, match="pull access denied|no basic auth"):
                await service.pull(name, logins)
        kept = {docker.host: {"username": docker.login["username"], "password": docker.login["password"]}}
        trusting = ImageService(str(tmp_path / "images"), Settings(credentials=kept))
        assert (await trusting.pull(name)).layers


async def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path, monkeypatch):
    directory = tmp_path / "registry"
    directory.mkdir()
    address = "127.0.0.1"
    with DockerRegistry(directory, address, tls=True) as docker:
        docker.push("team/app", "v1", LAYERS)
        other = tmp_path / "other"
        other.mkdir()
        from docker_registry import certificate

        certificate(other, address)
        file = tmp_path / "registries.yaml"
        monkeypatch.setenv("SAMPAN_REGISTRIES", str(file))
        file.write_text(f'authorities: {{"{docker.host}": {other / "ca.pem"}}}\n')
        service = ImageService(str(tmp_path / "images"))
        with pytest.raises(ImageError, match="certificate"):
            await service.pull(f"{docker.host}/team/app:v1")
        file.write_text(f'authorities: {{"{docker.host}": {docker.ca}}}\n')  # holds at the next pull
        assert (await service.pull(f"{docker.host}/team/app:v1")).layers


async def test_a_pulled_image_is_for_those_who_could_pull_it(docker, tmp_path):
    docker.push("team/app", "v1", LAYERS)
    name, directory = f"{docker.host}/team/app:v1", str(tmp_path / "images")
    authorities = {docker.host: str(docker.ca)} if docker.tls else {}
    service = ImageService(directory, Settings(authorities=authorities))
    image = await service.pull(name, [docker.login])
    assert await service.allows(image, name, [docker.login])
    assert await service.allows(image, name) is not docker.password
    other = [{**docker.login, "username": "stowaway"}]
    assert await service.allows(image, name, other) is not docker.password
    own = Settings(authorities=authorities, credentials={docker.host: docker.login})
    await ImageService(directory, own).pull(name)
    assert await service.allows(image, name)  # the machine's own login serves every pod


@pytest.mark.parametrize("first", [True, False])
async def test_an_image_the_operator_brings_is_for_all(tmp_path, first):
    directory = tmp_path / "registry"
    directory.mkdir()
    with DockerRegistry(directory, password=True) as docker:
        docker.push("team/app", "v1", LAYERS)
        name = f"{docker.host}/team/app:v1"
        service = ImageService(str(tmp_path / "images"))
        if first:
            image = await service.pull(name, [docker.login])
            assert not await service.allows(image, name)
        registry.pull(service.store, reference.parse(name), [docker.login])
        image = await service.pull(name, [docker.login])
        assert await service.allows(image, name)


def test_a_download_goes_on_where_a_killed_one_stopped(tmp_path):
    directory, content = tmp_path / "registry", os.urandom(3_000_000)
    directory.mkdir()
    with DockerRegistry(directory) as docker:
        docker.push("team/app", "v1", [tar({"big": content})])
        manifest = json.loads(docker.call("GET", "/v2/team/app/manifests/v1", accept=OCI).read())
        digest, size = manifest["layers"][0]["digest"], manifest["layers"][0]["size"]
        blob = docker.call("GET", f"/v2/team/app/blobs/{digest}").read()
        store, seen = Store(str(tmp_path / "images")), []
        Path(store.directory, "ingest", digest.removeprefix("sha256:")).write_bytes(blob[: size // 2])
        name = reference.parse(f"{docker.host}/team/app:v1")
        registry.pull(store, name, progress=lambda _, have, total: seen.append((have, total)))
        assert seen[0][0] > size // 2 and seen[-1] == (size, size)
        (layer,) = store.find(str(name)).layers
        assert Path(layer, "big").read_bytes() == content
