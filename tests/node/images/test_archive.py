import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from sampan.node.images import archive, manifests
from sampan.node.images.archive import ArchiveError
from sampan.node.images.store import Store


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


LAYERS = [tar_of({"etc/release": b"one", "gone": b"1"}), tar_of({"etc/release": b"two"})]
CONFIG = json.dumps(
    {
        "architecture": manifests.architecture(),
        "os": "linux",
        "config": {"Cmd": ["/bin/app"], "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in LAYERS]},
    }
).encode()


def docker_archive(tags=("example.com/app:v1",)):
    entry = {"Config": "config.json", "RepoTags": list(tags), "Layers": ["0/layer.tar", "1/layer.tar"]}
    return tar_of(
        {
            "manifest.json": json.dumps([entry]).encode(),
            "config.json": CONFIG,
            "0/layer.tar": LAYERS[0],
            "1/layer.tar": LAYERS[1],
        }
    )


def oci_files(name="example.com/app:v1", spoil=""):
    blobs = [gzip.compress(one) for one in LAYERS]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest(CONFIG), "size": len(CONFIG)},
            "layers": [{"digest": digest(one), "size": len(one)} for one in blobs],
        }
    ).encode()
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "riscv64"}},
                {
                    "digest": digest(manifest),
                    "platform": {"os": "linux", "architecture": manifests.architecture()},
                },
            ],
        }
    ).encode()
    top = {
        "manifests": [{"digest": digest(index), "annotations": {"org.opencontainers.image.ref.name": name}}]
    }
    files = {"oci-layout": b"{}", "index.json": json.dumps(top).encode()}
    for data in (*blobs, CONFIG, manifest, index):
        files[f"blobs/sha256/{digest(data)[7:]}"] = data
    if spoil == "config":
        files[f"blobs/sha256/{digest(CONFIG)[7:]}"] = CONFIG + b" "
    if spoil == "layer":
        files[f"blobs/sha256/{digest(blobs[0])[7:]}"] = gzip.compress(LAYERS[1])
    return files


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "images"))


def check(store, ref="example.com/app:v1"):
    image = store.find(ref)
    assert image is not None and image.id == digest(CONFIG)
    assert image.config["Cmd"] == ["/bin/app"]
    assert [Path(one, "etc/release").read_text() for one in image.layers] == ["two", "one"]
    return image


def zstd(data):
    return subprocess.run(["zstd", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_docker_save_from_a_stream(store, compress):
    if compress is zstd and not shutil.which("zstd"):
        pytest.skip("no zstd command to make the test's data")
    assert archive.load(store, io.BytesIO(compress(docker_archive()))) == ["example.com/app:v1"]
    check(store)


def test_a_truncated_archive_is_refused(store):
    with pytest.raises(ArchiveError, match="truncated gzip data"):
        archive.load(store, io.BytesIO(gzip.compress(docker_archive())[:-20]))


def test_a_layout_that_lists_platforms_itself(store, tmp_path):
    """As some builders write it, without an index between."""
    files = oci_files()
    top = json.loads(files["index.json"])
    (nested,) = top["manifests"]
    index = json.loads(files[f"blobs/sha256/{nested['digest'][7:]}"])
    listed = [{**one, "annotations": nested["annotations"]} for one in index["manifests"]]
    files["index.json"] = json.dumps({"manifests": listed}).encode()
    (tmp_path / "app.tar").write_bytes(tar_of(files))
    assert archive.load(store, str(tmp_path / "app.tar")) == ["example.com/app:v1"]
    check(store)


def test_oci_archive_picks_this_machines_platform(store, tmp_path):
    (tmp_path / "app.tar").write_bytes(tar_of(oci_files()))
    assert archive.load(store, str(tmp_path / "app.tar")) == ["example.com/app:v1"]
    check(store)


def test_oci_layout_directory_with_a_bare_tag(store, tmp_path):
    for name, data in oci_files("v2").items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert archive.load(store, str(tmp_path / "layout"), "example.com/app") == ["example.com/app:v2"]
    check(store, "example.com/app:v2")


@pytest.mark.parametrize("spoil", ["config", "layer"])
def test_content_that_does_not_match_its_digest_is_refused(store, spoil):
    with pytest.raises(ValueError, match="sha256"):
        archive.load(store, io.BytesIO(tar_of(oci_files(spoil=spoil))))
    assert store.list() == []


def test_something_else_is_refused(store):
    with pytest.raises(ArchiveError, match="manifest.json"):
        archive.load(store, io.BytesIO(tar_of({"x": b"1"})))
    with pytest.raises(ArchiveError, match="not an image archive"):
        archive.load(store, io.BytesIO(b"rubbish" * 100))


def test_import_of_a_directory(store, tmp_path):
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "root/bin/app").write_text("x")
    assert archive.import_root(store, str(tmp_path / "root"), "mine:1", {"Cmd": ["/bin/app"]}) == (
        "docker.io/library/mine:1"
    )
    image = store.find("docker.io/library/mine:1")
    assert Path(image.layers[0], "bin/app").read_text() == "x"
    assert image.config["Cmd"] == ["/bin/app"]


def test_layers_go_when_the_last_name_goes_and_nobody_uses_them(store):
    archive.load(store, io.BytesIO(docker_archive(["example.com/app:v1", "example.com/app:v2"])))
    image = check(store)
    assert store.remove("example.com/app:v1")
    check(store, "example.com/app:v2")
    user = os.open(image.layers[0], os.O_RDONLY)
    fcntl.flock(user, fcntl.LOCK_SH)
    assert store.remove("example.com/app:v2") and not store.remove("example.com/app:v2")
    assert [os.path.isdir(one) for one in image.layers] == [True, False]
    os.close(user)
    assert store.collect() == 1
    assert os.listdir(f"{store.directory}/layers") == []


def test_an_image_that_is_being_added_keeps_its_layers_though_another_goes(store):
    archive.load(store, io.BytesIO(docker_archive(["example.com/app:v1"])))
    layers = check(store).layers
    with store.adding():  # of an image that shares them, and has no name yet
        assert store.remove("example.com/app:v1")
        assert all(map(os.path.isdir, layers))
    assert store.collect() == 2 and not any(map(os.path.isdir, layers))


def test_what_a_killed_process_was_unpacking_or_fetching_goes(store):
    os.makedirs(f"{store.directory}/layers/.new-1-2/etc")
    for name, age in (("old", 25), ("recent", 1)):
        path = Path(store.directory, "ingest", name)
        path.touch()
        os.utime(path, (time.time() - age * 3600,) * 2)
    store.collect()
    assert os.listdir(f"{store.directory}/layers") == []
    assert os.listdir(f"{store.directory}/ingest") == ["recent"]
