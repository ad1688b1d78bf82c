import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sampan.cli import main
from sampan.cluster import paths


@pytest.fixture
def sampan(tmp_path, monkeypatch, capsys):
    """A command line whose data are in tmp_path: (exit code, output, errors)."""
    monkeypatch.setattr(paths, "default_data_root", lambda: tmp_path / "sampan")
    monkeypatch.setattr(paths, "run_root", lambda: tmp_path / "run")

    def run(*words):
        code = main.main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "hello").write_text("#!/bin/sh\necho hello\n")
    return root


def docker_archive(path, tags):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"hi"))
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    files = {
        "layer.tar": layer.getvalue(),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(
            [{"Config": "config.json", "Layers": ["layer.tar"], "RepoTags": tags}]
        ).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_a_directory_becomes_an_image_that_is_listed_and_removed(sampan, tree):
    assert sampan("image", "import", str(tree), "localhost/hello:1", "--cmd", "/bin/hello", "-x")[:2] == (
        0,
        "imported localhost/hello:1\n",
    )
    lines = sampan("image", "ls")[1].splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "RUNS"]
    assert "localhost/host:*" in lines[1]
    assert lines[2].startswith("localhost/hello:1 ") and lines[2].endswith("/bin/hello -x")
    assert sampan("image", "rm", "localhost/hello:1")[:2] == (0, "removed localhost/hello:1\n")
    assert len(sampan("image", "ls")[1].splitlines()) == 2


def test_an_image_is_removed_by_its_short_id(sampan, tree):
    sampan("image", "import", str(tree), "localhost/hello:1")
    short = sampan("image", "ls")[1].splitlines()[2].split()[1]
    assert sampan("image", "rm", short)[0] == 0
    assert len(sampan("image", "ls")[1].splitlines()) == 2


def test_an_archive_is_loaded_under_its_own_name(sampan, tmp_path):
    path = docker_archive(tmp_path / "web.tar", ["web:1"])
    assert sampan("image", "load", str(path))[:2] == (0, "loaded docker.io/library/web:1\n")


def test_an_archive_without_a_name_gets_the_one_given(sampan, tmp_path, monkeypatch):
    path = docker_archive(tmp_path / "web.tar", None)
    code, out, _ = sampan("image", "load", str(path))
    assert code == 0 and "no name" in out
    with open(path, "rb") as file:
        monkeypatch.setattr("sys.stdin", type("Pipe", (), {"buffer": file, "isatty": lambda self: False})())
        assert sampan("image", "load", "-", "--ref", "localhost/web")[1] == "loaded localhost/web:latest\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["image", "load", "/no/such/file"], "there is no /no/such/file"),
        (["image", "load", "{file}"], "not an image archive"),
        (["image", "load", "{file}", "--ref", "localhost/UPPER"], "repository name must be lowercase"),
        (["image", "import", "/no/such/dir", "localhost/x"], "there is no /no/such/dir"),
        (["image", "import", "{tree}", "bad name"], "invalid reference format"),
        (["image", "import", "{tree}", "localhost/host:v7"], "is the built-in image"),
        (["image", "rm", "localhost/none"], "there is no image localhost/none"),
        (["image", "rm", "localhost/host"], "built in"),
    ],
)
def test_mistakes_are_named(sampan, tree, tmp_path, words, said):
    file = tmp_path / "text"
    file.write_text("no archive")
    code, out, err = sampan(*(w.format(file=file, tree=tree) for w in words))
    assert code == 1
    assert said in err and "Traceback" not in err


def docker_registry():
    sys.path.insert(0, str(Path(__file__).parents[1] / "node" / "images"))
    import docker_registry

    return docker_registry


@pytest.mark.root
def test_a_full_disk_is_named_and_removing_images_makes_room(sampan, tree, tmp_path):
    data = tmp_path / "sampan"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", data], check=True)
    try:
        assert sampan("image", "import", str(tree), "localhost/a:1")[0] == 0
        (tree / "large").write_bytes(bytes(2 << 20))
        code, _, err = sampan("image", "import", str(tree), "localhost/b:1")
        assert code == 1 and f"cannot store it in {data}/images: No space left" in err and "image rm" in err
        registry = tmp_path / "registry"
        registry.mkdir()
        with docker_registry().DockerRegistry(registry) as docker:
            docker.push("team/large", "v1", [os.urandom(2 << 20)])
            code, _, err = sampan("image", "pull", f"{docker.host}/team/large:v1")
        assert code == 1 and f"write {data}/images: no space left" in err and "image rm" in err
        with pytest.raises(OSError), (data / "rest").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert sampan("image", "rm", "localhost/a:1")[1] == "removed localhost/a:1\n"
        assert "localhost/a" not in sampan("image", "ls")[1]
    finally:
        subprocess.run(["umount", "-l", data], check=True)


def test_what_cannot_be_written_is_named(sampan, tmp_path):
    (tmp_path / "sampan").write_text("a file")
    code, _, err = sampan("image", "ls")
    assert code == 1 and "Errno" not in err and str(tmp_path / "sampan") in err


def test_pull_fetches_layers_and_says_so(sampan, tmp_path):
    registry = docker_registry()
    directory = tmp_path / "registry"
    directory.mkdir()
    with registry.DockerRegistry(directory, password=True) as docker:
        docker.push("team/app", "v1", [registry.tar({"a": b"1"}), registry.tar({"b": b"2"})])
        name = f"{docker.host}/team/app:v1"
        code, _, err = sampan("image", "pull", name)
        assert code == 1 and "no basic auth credentials" in err
        logins = tmp_path / "config.json"
        pair = base64.b64encode(f"{docker.login['username']}:{docker.login['password']}".encode()).decode()
        logins.write_text(json.dumps({"auths": {docker.host: {"auth": pair}}}))
        code, out, err = sampan("image", "pull", "--credentials", str(logins), name)
        assert (code, err) == (0, "")
        assert out.count("  layer ") == 2 and out.endswith(f"pulled {name}\n")
        assert name in sampan("image", "ls")[1]
        code, _, err = sampan("image", "pull", "localhost/web:1")
        assert code == 1 and "local to this machine" in err
