"""Image volumes (KEP-4639) as the container's processes see them."""

import os
from pathlib import Path

import pytest

from sampan.node.images.store import is_locked
from sampan.node.runtime import Mount

pytestmark = pytest.mark.root


@pytest.fixture
def layers(tmp_path):
    """Two layers, top first: the upper one replaces a file of the lower and has a program."""
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for layer in (upper, lower):
        (layer / "etc").mkdir(parents=True)
        layer.chmod(0o755)
        (layer / "etc/name").write_text(layer.name)
    (lower / "etc/base").write_text("base")
    (upper / "run").write_text("#!/bin/sh\necho ran\n")
    (upper / "run").chmod(0o755)
    (upper / "current").symlink_to("/etc")
    return [str(upper), str(lower)]


def mount(layers, source="", target="/image", trees=()):
    return Mount(source, target, True, True, image="sha256:1", layers=layers, trees=trees)


async def test_the_layers_lie_over_each_other_read_only_and_without_programs(pods, layers):
    await pods.sandbox()
    script = """
    cat /image/etc/name; echo; cat /image/etc/base; echo
    /image/run 2>&1 | grep -o 'Permission denied'
    touch /image/new 2>&1 | grep -o 'Read-only file system'
    mount -o remount,rw /image 2>/dev/null || echo kept
    """
    _, output = await pods.run(script, mounts=[mount(layers)])
    assert output.splitlines() == ["upper", "base", "Permission denied", "Read-only file system", "kept"]
    assert not os.path.exists(f"{layers[0]}/new")


@pytest.mark.parametrize(
    ("part", "look", "seen"),
    [
        ("etc", "ls /image", "base name"),
        ("etc/name", "cat /image", "upper"),
        ("current/base", "cat /image", "base"),  # a link of the image leads to its own files
    ],
)
async def test_a_part_of_an_image(pods, layers, part, look, seen):
    await pods.sandbox()
    _, output = await pods.run(look, mounts=[mount(layers, part)])
    assert " ".join(output.split()) == seen


async def test_a_part_that_is_not_there_creates_no_container(pods, layers):
    await pods.sandbox()
    failure = await pods.failure("true", id="c", mounts=[mount(layers, "absent")])
    assert failure.reason == "CreateContainerError"
    assert 'subPath "absent": no such file or directory' in failure.message
    assert await pods.runtime.status("c") is None


async def test_layers_are_held_while_a_container_mounts_them(pods, layers):
    await pods.sandbox()
    status = await pods.start("sleep", "100", mounts=[mount(layers), mount(layers, target="/again")])
    assert all(map(is_locked, layers))
    await pods.runtime.stop_container(status.config.id, 0)
    assert not any(map(is_locked, layers))


async def test_the_machines_own_image_as_a_volume(pods, host_image):
    await pods.sandbox()
    volume = mount(list(host_image.layers), trees=list(host_image.trees))
    _, output = await pods.run("ls -d /image/usr/bin/env; touch /image/usr/x 2>&1; true", mounts=[volume])
    assert output.startswith("/image/usr/bin/env") and "Read-only file system" in output
    assert not Path("/usr/x").exists()
