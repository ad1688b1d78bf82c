"""Pods with users of their own (hostUsers: false): root inside, nobody outside, and files that show neither."""

import os
from pathlib import Path

import pytest

from sampan.node.native import users
from sampan.node.runtime import Mount

pytestmark = [pytest.mark.root]
BASE = users.base("uid-u")


def without_maps(directories):
    """The first directory whose file system cannot map ids (tmpfs before Linux 6.3, virtiofs before 6.12), "" for none."""
    pid, hold = users.make(BASE)
    namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    try:
        for directory in map(str, directories):
            try:
                os.close(users.idmapped(directory, namespace))
            except OSError:
                return directory
    finally:
        os.close(namespace)
        users.release(pid, hold)
    return ""


@pytest.fixture
async def own(pods):
    needed = [pods.directory, *pods.image.layers, *(tree for tree, _ in pods.image.trees)]
    if unfit := without_maps(needed):
        pytest.skip(f"the file system of {unfit} cannot map user ids")
    await pods.sandbox("u", user_base=BASE)
    return pods


def owner_of(status):
    return os.stat(f"/proc/{status.pid}").st_uid


async def test_root_inside_is_somebody_else_outside(own):
    status = await own.start("sleep", "100", sandbox="u")
    assert Path(f"/proc/{status.pid}/status").read_text().partition("Uid:\t")[2].split()[0] == str(BASE)
    code, out, _ = await own.execute(
        status.config.id, "sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u /usr /proc/1 /dev/shm"
    )
    lines = out.split("\n")
    assert code == 0 and lines[0] == "0" and lines[1].split() == ["0", str(BASE), "65536"]
    assert lines[2:5] == ["0", "0", "0"]


async def test_another_user_of_the_pod(own):
    status, out = await own.run(
        "id -u; id -g; touch /tmp/mine; stat -c %u /tmp/mine", sandbox="u", uid=1000, gid=100
    )
    assert (status.exit_code, out.split()) == (0, ["1000", "100", "1000"])


@pytest.mark.parametrize("uid", [0, 1000])
async def test_its_users_open_their_output_by_name(own, uid):
    status, out = await own.run("echo out > /dev/stdout", sandbox="u", uid=uid)
    assert (status.exit_code, out.strip()) == (0, "out")
    status = await own.start("sleep", "100", sandbox="u", uid=uid)
    assert (await own.execute(status.config.id, "sh", "-c", "echo out > /dev/stdout"))[:2] == (0, "out\n")


async def test_files_of_volumes_are_rooted_on_the_disk(own, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "before").write_text("x")
    mount = Mount(str(volume), "/data")
    status, out = await own.run(
        "stat -c %u /data/before; echo y > /data/after; stat -c %u /data/after", sandbox="u", mounts=[mount]
    )
    assert (status.exit_code, out.split()) == (0, ["0", "0"])
    assert (volume / "after").stat().st_uid == 0


async def test_files_of_image_volumes_are_rooted_too(own, tmp_path):
    layers = [tmp_path / "upper", tmp_path / "lower"]
    for layer in layers:
        layer.mkdir(mode=0o755)
        (layer / "name").write_text(layer.name)
    mount = Mount("", "/image", True, True, image="sha256:1", layers=list(map(str, layers)))
    script = "stat -c %u /image/name; cat /image/name; touch /image/x 2>/dev/null || echo :no"
    _, out = await own.run(script, sandbox="u", mounts=[mount])
    assert out.split() == ["0", "upper:no"]


async def test_the_root_may_be_written_by_its_root(own):
    status, out = await own.run(
        "touch /new /usr/new && stat -c %u /new /usr/new; mkdir /d; chown 5:5 /d; stat -c %u /d", sandbox="u"
    )
    assert (status.exit_code, out.split()) == (0, ["0", "0", "5"])


async def test_power_ends_at_the_namespace(own):
    script = "hostname changed && hostname; mount -t tmpfs none /mnt && echo mounted; echo 1 > /proc/sys/kernel/hostname; cat /proc/kmsg | head -1; true"
    status, out = await own.run(script, sandbox="u", capabilities=["SYS_ADMIN"], seccomp="Unconfined")
    assert out.split("\n")[:2] == ["changed", "mounted"]
    assert os.uname().nodename != "changed"
    status = await own.start("sleep", "100", sandbox="u", privileged=True)
    code, _, error = await own.execute(
        status.config.id, "sh", "-c", "echo 0 > /proc/sys/vm/drop_caches; mknod /tmp/d b 8 0"
    )
    assert code != 0 and (
        "denied" in error.lower() or "permitted" in error.lower() or "read-only" in error.lower()
    )


async def test_a_terminal_and_shared_processes(own):
    pods = own
    await pods.sandbox("t", user_base=users.base("uid-t"), share_processes=True)
    status = await pods.start("sleep", "100", sandbox="t")
    code, out, _ = await pods.execute(status.config.id, "sh", "-c", "tty; cat /proc/1/comm", tty=True)
    assert code == 0 and "/dev/pts/" in out and "pause" in out


def test_ranges_are_far_from_those_of_people():
    bases = {users.base(f"pod-{i}") for i in range(100)}
    assert len(bases) > 90 and all(2**30 <= b < 2**31 and b % 65536 == 0 for b in bases)
