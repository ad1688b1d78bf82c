"""Volumes of a pod on disk: set up, updated live, taken away."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest
from mini_api import MiniApi

from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.node.config import AgentConfig
from sampan.node.pods.problems import VolumeError
from sampan.node.runtime import Image
from sampan.node.volumes import kinds
from sampan.node.volumes.manager import VolumeManager


@pytest.fixture
async def setup(tmp_path):
    clock = RealClock()
    api = MiniApi(clock)
    node = {"metadata": {"name": "n", "uid": "1"}}
    config = AgentConfig(root=str(tmp_path))
    manager = VolumeManager(api.client(), clock, config, dict, Ids(1), lambda: node, lambda *event: None)
    yield api, manager, tmp_path
    await manager.sweep(set())  # as root there are mounts
    await manager.close()


def make_pod(*volumes, mounts=()):
    container = {"name": "c", "volumeMounts": list(mounts)}
    spec = {"containers": [container], "volumes": list(volumes)}
    return {"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec}


async def sources(manager, pod):
    container = pod["spec"]["containers"][0]
    return {m.target: m for m in await manager.mounts(pod, container, {"V": "x"}, ["10.0.0.1"], {})}


async def test_a_config_map_follows_its_object(setup):
    api, manager, _ = setup
    api.create("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "1"}})
    pod = make_pod({"name": "v", "configMap": {"name": "cm"}}, mounts=[{"name": "v", "mountPath": "/v"}])
    await manager.mount(pod)
    file = Path((await sources(manager, pod))["/v"].source) / "a"
    assert file.read_text() == "1"
    api.change("configmaps", "cm", {"data": {"a": "2"}})
    async with asyncio.timeout(60):
        while file.read_text() != "2":
            await asyncio.sleep(0.01)


@pytest.mark.root
async def test_secrets_lie_in_memory_and_are_gone_with_their_pod(setup):
    api, manager, _ = setup
    api.create("secrets", {"metadata": {"name": "s", "namespace": "default"}, "data": {"a": "MQ=="}})
    pod = make_pod({"name": "v", "secret": {"secretName": "s"}}, mounts=[{"name": "v", "mountPath": "/v"}])
    await manager.mount(pod)
    await manager.mount(pod)
    directory = (await sources(manager, pod))["/v"].source
    kinds = [line.split()[2] for line in Path("/proc/mounts").read_text().splitlines() if directory in line]
    assert kinds == ["tmpfs"] and (Path(directory) / "a").read_text() == "1"
    assert os.stat(directory).st_mode & 0o7777 == 0o1777
    await manager.unmount("u")
    assert directory not in Path("/proc/mounts").read_text() and not os.path.exists(directory)


async def test_no_change_is_missed_while_another_one_is_written(setup):
    api, manager, _ = setup
    for name in "ab":
        api.create("configmaps", {"metadata": {"name": name, "namespace": "default"}, "data": {"n": "0"}})
    volumes = [{"name": n, "configMap": {"name": n}} for n in "ab"]
    pod = make_pod(*volumes, mounts=[{"name": n, "mountPath": f"/{n}"} for n in "ab"])
    await manager.mount(pod)
    found = await sources(manager, pod)
    files = [Path(found[f"/{n}"].source) / "n" for n in "ab"]
    for number in range(1, 60):
        for name in "ab":
            api.change("configmaps", name, {"data": {"n": str(number)}})
            for _ in range(number):  # the second change comes at another moment of the first one's writing
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            while [f.read_text() for f in files] != [str(number)] * 2:
                await asyncio.sleep(0.002)


async def test_a_missing_object_is_named_and_may_come_later(setup):
    api, manager, _ = setup
    pod = make_pod({"name": "v", "secret": {"secretName": "s"}})
    with pytest.raises(VolumeError, match='MountVolume.SetUp failed for volume "v" : secret "s" not found'):
        await manager.mount(pod)
    api.create("secrets", {"metadata": {"name": "s", "namespace": "default"}, "data": {}})
    async with asyncio.timeout(60):
        while True:
            try:
                return await manager.mount(pod)
            except VolumeError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("said", "limit", "node", "size"),
    [
        (None, None, None, None),
        (None, None, "4Gi", 4 << 30),
        (None, "64Mi", "4Gi", 64 << 20),
        ("1Mi", "64Mi", "4Gi", 1 << 20),
        ("1Gi", "64Mi", "4Gi", 64 << 20),
        ("1Gi", "8Gi", "4Gi", 1 << 30),
        ("0", None, "4Gi", 4 << 30),
    ],
)
def test_how_large_a_volume_in_memory_is(said, limit, node, size):
    source = {"medium": "Memory"} | ({"sizeLimit": said} if said else {})
    pod = make_pod({"name": "m", "emptyDir": source})
    if limit:
        pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": limit}}
    assert kinds.memory_size(source, pod, {"memory": node} if node else {}) == size


async def test_an_empty_dir_lives_as_long_as_its_pod(setup):
    _, manager, root = setup
    pod = make_pod(
        {"name": "e", "emptyDir": {}},
        mounts=[
            {"name": "e", "mountPath": "/e", "readOnly": True},
            {"name": "e", "mountPath": "/sub", "subPathExpr": "$(V)/y"},
        ],
    )
    await manager.mount(pod)
    mounts = await sources(manager, pod)
    assert mounts["/e"].readonly and os.path.isdir(mounts["/e"].source + "/x/y")
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"} <= set(mounts)
    (root / "pods/u/volumes/kubernetes.io~empty-dir/e/file").write_text("kept")
    await manager.mount(pod)
    assert (root / "pods/u/volumes/kubernetes.io~empty-dir/e/file").read_text() == "kept"
    await manager.unmount("u")
    assert not (root / "pods/u").exists()


async def test_files_of_unknown_pods_are_swept(setup):
    _, manager, root = setup
    for path in ("pods/old/volumes", "pods/u", "logs/default_a_old/c", "logs/default_p_u/c"):
        (root / path).mkdir(parents=True)
    await manager.sweep({"u"})
    assert os.listdir(root / "pods") == ["u"] and os.listdir(root / "logs") == ["default_p_u"]


@pytest.mark.parametrize(
    "kind, make, problem",
    [
        ("Directory", None, "is not a directory"),
        ("File", "dir", "is not a file"),
        ("DirectoryOrCreate", None, ""),
        ("FileOrCreate", None, ""),
        ("", "dir", ""),
    ],
)
async def test_host_path_types(setup, kind, make, problem):
    _, manager, root = setup
    path = root / "host"
    if make:
        path.mkdir()
    pod = make_pod({"name": "h", "hostPath": {"path": str(path), "type": kind}})
    if problem:
        with pytest.raises(VolumeError, match=problem):
            await manager.mount(pod)
    else:
        await manager.mount(pod)
        assert path.exists()


async def test_a_directory_of_the_node_that_is_missing_is_made_as_a_container_starts(setup):
    _, manager, root = setup
    path = root / "host/deep"
    pod = make_pod(
        {"name": "h", "hostPath": {"path": str(path), "type": ""}}, mounts=[{"name": "h", "mountPath": "/h"}]
    )
    await manager.mount(pod)
    assert not path.exists()  # nothing is checked at set-up
    for _ in range(2):  # the second time for a restart, after somebody took it away
        assert (await sources(manager, pod))["/h"].source == str(path)
        assert path.is_dir() and path.stat().st_mode & 0o777 == 0o755
        path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(VolumeError, match=f'failed to mkdir "{path}": file exists') as caught:
        await sources(manager, pod)
    assert caught.value.reason == "CreateContainerError"


async def test_a_claim_leads_to_its_volume(setup):
    api, manager, root = setup
    claim = {"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "pv"}, "status": {}}
    api.create("persistentvolumeclaims", claim)
    volume = {"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": str(root / "disk")}}}
    api.create("persistentvolumes", volume)
    pod = make_pod(
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        mounts=[{"name": "d", "mountPath": "/d"}],
    )
    with pytest.raises(VolumeError, match='"default/data" is not bound'):
        await manager.mount(pod)
    api.change("persistentvolumeclaims", "data", {"status": {"phase": "Bound"}})
    await manager.mount(pod)
    assert (await sources(manager, pod))["/d"].source == str(root / "disk")


async def test_a_local_volume_that_vanished_is_named_as_kubelet_names_it(setup):
    api, manager, root = setup
    claim = {"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "pv"}}
    api.create("persistentvolumeclaims", claim | {"status": {"phase": "Bound"}})
    volume = {"metadata": {"name": "pv"}, "spec": {"local": {"path": str(root / "gone")}}}
    api.create("persistentvolumes", volume)
    pod = make_pod({"name": "d", "persistentVolumeClaim": {"claimName": "data"}})
    said = f'MountVolume.NewMounter initialization failed for volume "pv" : path "{root}/gone" does not exist'
    with pytest.raises(VolumeError) as caught:
        await manager.mount(pod)
    assert str(caught.value) == said


async def test_a_volume_of_another_node_is_not_mounted(setup):
    api, manager, root = setup
    claim = {"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "pv"}}
    api.create("persistentvolumeclaims", claim | {"status": {"phase": "Bound"}})
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["other"]}]}
    spec = {"local": {"path": str(root)}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}
    api.create("persistentvolumes", {"metadata": {"name": "pv"}, "spec": spec})
    for name in ("n", "other"):
        api.create("nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
    pod = make_pod({"name": "d", "persistentVolumeClaim": {"claimName": "data"}})
    pod["spec"]["nodeName"] = "n"
    with pytest.raises(VolumeError) as caught:
        await manager.mount(pod)
    said = 'MountVolume.NodeAffinity check failed for volume "pv" : no matching NodeSelectorTerms'
    assert str(caught.value) == said
    pod["spec"]["nodeName"] = "other"
    await manager.mount(pod)


async def test_a_token_is_requested_for_the_pod(setup):
    _, manager, _ = setup
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    pod = make_pod(
        {"name": "t", "projected": {"sources": [source]}}, mounts=[{"name": "t", "mountPath": "/t"}]
    )
    await manager.mount(pod)
    assert (Path((await sources(manager, pod))["/t"].source) / "token").read_text() == "t"


async def test_an_image_volume_is_a_read_only_part_of_its_image(setup):
    _, manager, _ = setup
    mount = {"name": "v", "mountPath": "/v", "subPathExpr": "models/$(V)"}
    pod = make_pod({"name": "v", "image": {"reference": "data:1"}}, mounts=[mount])
    await manager.mount(pod)
    images = {"v": Image("data:1", "sha256:1", "", ("/upper", "/lower"), {})}
    found = (await manager.mounts(pod, pod["spec"]["containers"][0], {"V": "x"}, [], images))[0]
    assert (found.source, found.target, found.readonly) == ("models/x", "/v", True)
    assert (found.image, found.layers) == ("sha256:1", ("/upper", "/lower"))
    with pytest.raises(VolumeError, match='must not be absolute or contain ".."'):
        await manager.mounts(pod, pod["spec"]["containers"][0], {"V": ".."}, [], images)


async def test_a_file_of_a_volume_is_read_and_nothing_beyond_it(setup, tmp_path):
    _, manager, _ = setup
    pod = make_pod({"name": "v", "emptyDir": {}})
    await manager.mount(pod)
    root = Path(manager.disk_paths(pod)["v"])
    (root / "a.env").write_text("A='1'")
    (tmp_path / "secret").write_text("of the machine")
    (root / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe")
    assert await manager.read(pod, "v", "a.env", 5) == b"A='1'"
    assert await manager.read(pod, "v", "b.env", 5) is None
    for path, why in (("a.env", "larger than 4"), ("out", "cannot read"), ("pipe", "cannot read")):
        with pytest.raises(VolumeError, match=why):
            await manager.read(pod, "v", path, 4)
    with pytest.raises(VolumeError, match="not set up"):
        await manager.read(pod, "w", "a.env", 5)


async def test_a_trust_bundle_follows_its_object(setup):
    api, manager, _ = setup

    def bundle(text):
        body = base64.b64encode(text.encode()).decode()
        return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"

    api.create("clustertrustbundles", {"metadata": {"name": "t"}, "spec": {"trustBundle": bundle("1")}})
    source = {"clusterTrustBundle": {"name": "t", "path": "ca.pem"}}
    pod = make_pod(
        {"name": "v", "projected": {"sources": [source]}}, mounts=[{"name": "v", "mountPath": "/v"}]
    )
    await manager.mount(pod)
    file = Path((await sources(manager, pod))["/v"].source) / "ca.pem"
    assert file.read_text() == bundle("1")
    api.change("clustertrustbundles", "t", {"spec": {"trustBundle": bundle("2")}}, namespace="")
    async with asyncio.timeout(30):
        while file.read_text() != bundle("2"):
            await asyncio.sleep(0.01)
