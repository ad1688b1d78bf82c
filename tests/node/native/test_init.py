"""A node as a whole: what is in it lives and dies with its process 1; as root and as an ordinary user."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import sampan
from sampan.node.native import init

pytestmark = pytest.mark.root
SOURCE = str(Path(sampan.__file__).parents[1])
PATIENCE = 60 * float(os.environ.get("SAMPAN_SLOW", "1"))  # seconds; an emulated machine says how slow it is


def eventually(check):
    until = time.monotonic() + PATIENCE
    while not (result := check()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)
    return result


def inside(pid):
    """The processes of a node: those in its PID namespace."""
    try:
        wanted = os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return {}
    found = {}
    for one in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{one}/ns/pid") == wanted:
                found[int(one)] = Path(f"/proc/{one}/comm").read_text().strip()
        except OSError:
            continue
    return found


@pytest.fixture
def spawn(tmp_path):
    nodes = []

    def make(script="exec sleep 1000", **options):
        run = tmp_path / f"run{len(nodes)}"
        run.mkdir()
        pid = init.spawn_node(
            name="node-1",
            directory=str(run / "state"),
            run=str(run),
            agent=["/bin/sh", "-c", script],
            log=str(run / "log"),
            **options,
        )
        nodes.append(init.NodeProcess(pid))
        nodes[-1].run = run
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()
        node.wait(PATIENCE)
        node.close()


@pytest.mark.parametrize("fresh", [True, False])
def test_a_node_has_namespaces_of_its_own(spawn, fresh):
    seen = []
    node = spawn(
        "echo $$ $(hostname) $(ls /sys/class/net /proc/1/comm); cat /proc/sys/kernel/pid_max /proc/1/comm; exec sleep 1000",
        connect=seen.append,
        fresh=fresh,
    )
    assert seen == [node.pid]
    output = eventually(lambda: (text := (node.run / "log").read_text()).endswith("sampan-node\n") and text)
    assert output.startswith("3 node-1 ")
    assert output.splitlines()[-2] == Path("/proc/sys/kernel/pid_max").read_text().strip()
    for kind in ("pid", "mnt", "net", "uts", "ipc"):
        assert os.readlink(f"/proc/{node.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert init.NodeProcess.find(str(node.run / "init.pid")).pid == node.pid
    assert str(node.run) not in Path("/proc/self/mountinfo").read_text()


def test_agent_and_zygote_are_restarted(spawn):
    node = spawn()
    for name in ("sleep", "sampan-zygote"):
        victim = eventually(
            lambda name=name: next((pid for pid, one in inside(node.pid).items() if one == name), 0)
        )
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda name=name, victim=victim: any(
                p != victim and n == name for p, n in inside(node.pid).items()
            )
        )
    assert "starting it again" in (node.run / "log").read_text()


@pytest.mark.parametrize("way", ["kill", "terminate"])
def test_nothing_survives_it(spawn, way):
    node = spawn("sleep 1001 & setsid sleep 1002 & exec sleep 1000", grace=0.2)
    eventually(lambda: list(inside(node.pid).values()).count("sleep") == 3)
    members = list(inside(node.pid))
    getattr(node, way)()
    node.wait(PATIENCE)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in members if pid != node.pid))
    if way == "terminate":
        assert sorted(os.listdir(node.run)) == ["log", "state"]
    assert init.NodeProcess.find(str(node.run / "init.pid")) is None


def test_the_agent_may_finish_its_work_first(spawn):
    node = spawn("trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.01; done")
    eventually(lambda: "up" in (node.run / "log").read_text())
    node.terminate()
    node.wait(PATIENCE)
    assert (node.run / "log").read_text().endswith("bye\n")


def test_it_dies_with_its_parent(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {SOURCE!r})
from sampan.node.native import init
pid = init.spawn_node(name="n", directory={str(tmp_path)!r}, run={str(tmp_path)!r}, agent=["sleep", "1000"],
                      log={str(tmp_path / "log")!r}, die_with_parent=True)
print(pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    assert len(eventually(lambda: len(inside(pid)) >= 3 and inside(pid))) >= 3
    node = init.NodeProcess(pid)
    parent.kill()
    parent.wait()
    node.wait(PATIENCE)
    parent.stdin.close()
    parent.stdout.close()


def test_a_failure_to_start_is_told(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        init.spawn_node(
            name="n", directory=str(tmp_path), run=str(tmp_path), agent=["x"], log="/no/such/dir/log"
        )
    with pytest.raises(RuntimeError, match="no cable"):

        def connect(pid):
            raise RuntimeError("no cable")

        init.spawn_node(
            name="n",
            directory=str(tmp_path),
            run=str(tmp_path),
            agent=["x"],
            log=str(tmp_path / "l"),
            connect=connect,
        )
    assert os.listdir(tmp_path) == []


@pytest.fixture
def open_directory():
    """One that others reach: pytest's own lie below a directory that each of its sessions makes 0700."""
    with tempfile.TemporaryDirectory(prefix="sampan-user-") as path:
        yield path


def test_an_ordinary_user_runs_pods(open_directory):
    """The same node inside a user namespace with a single id: no group, no other user, all else as for root."""
    python = "/usr/bin/python3"
    nobody = pwd.getpwnam("nobody")
    os.chown(open_directory, nobody.pw_uid, nobody.pw_gid)
    probe = [
        python,
        "-c",
        f"import sys; assert sys.version_info >= (3, 11); open({SOURCE!r} + '/sampan/__init__.py')",
    ]
    unshare = ["unshare", "-Urnm", "true"]
    for command in (probe, unshare):
        try:
            subprocess.run(command, user=nobody.pw_uid, group=nobody.pw_gid, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip(
                "the source, a Python >= 3.11 or user namespaces are out of reach of an ordinary user here"
            )
    script = Path(__file__).with_name("rootless_pod.py").read_text()
    result = subprocess.run(
        ["unshare", "-Urnm", python, "-", SOURCE, open_directory, str(PATIENCE)],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        input=script,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env={"PATH": os.environ["PATH"]},
    )
    assert result.returncode == 0, result.stderr + result.stdout
    lines = result.stdout.splitlines()
    assert lines[:5] == ["0", "pod", "Seccomp:\t2", "cow", "42"]
    assert lines[5:] == ["exec 3", "whiteout b", "volume b kept", "StartError", "left 0"]
