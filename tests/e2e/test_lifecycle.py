"""up, stop, down and what may happen between them: a crash, a reboot, a taken port, a damaged file, another cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, Cluster, Kubectl, Traces, command_lines, deployment, eventually, server

from sampan.cluster import processes, supervision
from sampan.cluster.config import load
from sampan.cluster.paths import Paths
from sampan.node.native import cgroups
from sampan.node.network import fabric


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster nobody has brought up yet, of which nothing is left afterwards."""
    cluster = Cluster(f"life-{os.getpid()}", tmp_path)
    traces = Traces(cluster)
    assert traces.found() == {}
    yield cluster
    cluster.run("down")
    assert traces.found() == {}, "left behind by `sampan down`"


def supervisor(cluster: Cluster) -> int:
    pid = supervision.holder(Paths.of(cluster.name, cluster.data))
    assert pid
    return pid


def pods_run(kubectl: Kubectl, restarts: int = 0) -> bool:
    pods = kubectl.items("pods -l app=web")
    return len(pods) == 2 and all(
        status["ready"] and status["restartCount"] >= restarts
        for pod in pods
        for status in pod["status"].get("containerStatuses") or [{"ready": False}]
    )


def with_pods(cluster: Cluster) -> Kubectl:
    cluster.up()
    kubectl = cluster.kubectl()
    kubectl.apply(deployment("web"))
    eventually(lambda: pods_run(kubectl), "two pods run")
    return kubectl


def test_up_again_changes_nothing(fresh: Cluster) -> None:
    fresh.up("--nodes=2")
    before = sorted(pid for pid, line in command_lines() if str(fresh.data) in line)
    assert "is up: 2 node(s)" in fresh.up()
    assert sorted(pid for pid, line in command_lines() if str(fresh.data) in line) == before
    fresh.up("--nodes=3")
    assert set(before) < {pid for pid, line in command_lines() if str(fresh.data) in line}
    assert len(fresh.kubectl().items("nodes")) == 3


def test_a_stopped_cluster_comes_back_with_its_objects_and_pods(fresh: Cluster) -> None:
    kubectl = with_pods(fresh)
    kubectl("create configmap note --from-literal=a=b")
    assert "stopped" in fresh.sampan("stop")
    assert fresh.processes("sampan.cluster") == []
    status = fresh.run("status")
    assert status.returncode == 3 and "stopped" in status.stdout
    assert "was not running" in fresh.sampan("stop")
    fresh.up()
    assert kubectl.get("configmap/note")["data"] == {"a": "b"}
    eventually(lambda: pods_run(kubectl, restarts=1), "the same pods run again")


def answers(pod: dict[str, Any]) -> bool:
    """Whether the host reaches the server in a pod at the pod's address."""
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/", timeout=3) as answer:
        return answer.read().decode().strip() == pod["metadata"]["name"]


def reboot(cluster: Cluster) -> None:
    """What a reboot does: nothing runs, nothing of memory is left, the data are."""
    os.kill(supervisor(cluster), signal.SIGKILL)
    eventually(lambda: not cluster.processes("sampan."), "all processes died with their supervisor")
    run = Path("/run/sampan") / cluster.name
    cgroups.sweep(processes.cgroup(cluster.name))
    fabric.destroy(str(run / "fabric"), cluster.name)
    shutil.rmtree(run)


def test_a_reboot_brings_objects_and_pods_back(fresh: Cluster) -> None:
    kubectl = with_pods(fresh)
    reboot(fresh)
    assert "stopped" in fresh.run("status").stdout
    fresh.up()
    eventually(lambda: pods_run(kubectl, restarts=1), "the same pods run again")
    assert answers(kubectl.items("pods -l app=web")[0])


def test_a_killed_supervisor_is_told_and_swept(fresh: Cluster) -> None:
    with_pods(fresh)
    os.kill(supervisor(fresh), signal.SIGKILL)
    eventually(lambda: not fresh.processes("sampan."), "all processes died with their supervisor")
    status = fresh.run("status")
    assert status.returncode == 3 and "its supervisor was killed" in status.stdout
    assert "is gone" in fresh.sampan("down")


def test_up_after_a_killed_supervisor(fresh: Cluster) -> None:
    kubectl = with_pods(fresh)
    os.kill(supervisor(fresh), signal.SIGKILL)
    fresh.up()
    eventually(lambda: pods_run(kubectl, restarts=1), "the same pods run again")


def test_a_port_that_somebody_else_took_is_named(fresh: Cluster) -> None:
    fresh.up("--nodes=0")
    fresh.sampan("stop")
    port = load(fresh.data / "cluster.json").port
    with socket.create_server(("127.0.0.1", port)):
        failed = fresh.run("up")
        assert failed.returncode == 1
        assert (
            f"port {port} of 127.0.0.1 is taken by" in failed.stderr
            and f"(pid {os.getpid()})" in failed.stderr
        )
    fresh.up()


def test_two_clusters_beside_each_other(fresh: Cluster, tmp_path: Path) -> None:
    second = Cluster(f"life2-{os.getpid()}", tmp_path / "second")
    traces = Traces(second)
    try:
        fresh.up()
        second.up()
        for cluster in (fresh, second):
            kubectl = cluster.kubectl()
            kubectl.run_pod("p", {"containers": [server()]})
            assert answers(kubectl.get("pod/p"))
    finally:
        second.sampan("down")
    assert traces.found() == {}
    assert fresh.kubectl()("get --raw /readyz") == "ok"


def test_the_same_name_with_other_data_is_refused(fresh: Cluster, tmp_path: Path) -> None:
    fresh.up("--nodes=0")
    other = tmp_path / "other"
    for command in ("up", "down", "stop"):
        arguments = [str(ROOT / "sampan"), command, f"--name={fresh.name}", f"--data-dir={other}"]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 1 and "there is no cluster" in done.stderr or str(fresh.data) in done.stderr
        assert not other.exists()
    assert fresh.kubectl()("get --raw /readyz") == "ok"


def test_a_damaged_configuration_is_told_and_can_be_removed(fresh: Cluster) -> None:
    fresh.up()
    (fresh.data / "cluster.json").write_text('{"name": ')
    for command in ("up", "status", "stop"):
        failed = fresh.run(command)
        assert failed.returncode == 1 and "is damaged" in failed.stderr, command
    fresh.sampan("down")


def test_down_takes_back_what_it_wrote_into_other_kubeconfigs(fresh: Cluster, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    own = {"name": "own", "context": {"cluster": "own", "user": "own"}}
    mine.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": [own]}))
    which = [f"--name={fresh.name}", f"--data-dir={fresh.data}"]
    environment = os.environ | {"KUBECONFIG": str(mine)}
    subprocess.run(
        [str(ROOT / "sampan"), "up", "--nodes=0", *which], env=environment, check=True, capture_output=True
    )
    assert yaml.safe_load(mine.read_text())["current-context"] == f"sampan-{fresh.name}"
    fresh.sampan("down")
    assert yaml.safe_load(mine.read_text())["contexts"] == [own]


def test_a_store_that_cannot_be_read_is_told(fresh: Cluster) -> None:
    fresh.up("--nodes=0")
    fresh.sampan("stop")
    shutil.rmtree(fresh.data / "store")
    (fresh.data / "store").write_text("this is no directory")
    failed = fresh.run("up")
    assert failed.returncode == 1 and "the control plane does not start" in failed.stderr
    (fresh.data / "store").unlink()
    fresh.up()


def test_somebody_elses_cluster_is_left_alone(fresh: Cluster) -> None:
    fresh.up("--nodes=0")
    os.chown(fresh.data, 65534, 65534)
    for command in ("up", "status", "stop", "down"):
        failed = fresh.run(command)
        assert failed.returncode == 1 and "belongs to nobody" in failed.stderr
    os.chown(fresh.data, 0, 0)
    assert fresh.kubectl()("get --raw /readyz") == "ok"


def test_nodes_come_and_go(fresh: Cluster) -> None:
    fresh.up("--nodes=0")
    kubectl = fresh.kubectl()
    assert "is starting" in fresh.sampan("node add east")
    kubectl.wait("node/east", "create")
    kubectl.wait("node/east", "condition=Ready")
    assert "already has a node" in fresh.run("node add east").stderr
    kubectl.run_pod("p")
    fresh.sampan("node delete east")
    assert kubectl.items("nodes") == []
    assert not Paths.of(fresh.name, fresh.data).node("east").exists()
    assert "has no node 'west'" in fresh.run("node stop west").stderr


def test_two_commands_at_once(fresh: Cluster) -> None:
    """Several people type `up` in the same moment: one cluster stands, everybody gets an answer."""
    which = [f"--name={fresh.name}", f"--data-dir={fresh.data}", f"--kubeconfig={fresh.kubeconfig}"]
    several = [
        subprocess.Popen(
            [str(ROOT / "sampan"), "up", *which], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = [(process.communicate(timeout=60), process.returncode) for process in several]
    for (out, err), code in answers:
        assert (code == 0 and "is up" in out) or "another sampan command" in err
    assert any(code == 0 for _, code in answers)
    supervisor(fresh)
    fresh.up()


def test_audit_and_static_tokens(fresh: Cluster, tmp_path: Path) -> None:
    tokens, policy = tmp_path / "tokens.csv", tmp_path / "policy.yaml"
    tokens.write_text('s3cret,jane,1,"system:masters"\n')
    policy.write_text(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, users: [jane]}]\n"
    )
    fresh.up("--nodes=0", f"--token-auth-file={tokens}", f"--audit-policy-file={policy}")
    kubectl = fresh.kubectl()
    assert "jane" in kubectl("--token=s3cret auth whoami", env={"KUBECONFIG": str(bare(fresh, tmp_path))})
    log = fresh.data / "logs" / "audit.log"
    lines = eventually(lambda: log.exists() and log.read_text().splitlines(), "a record")
    assert json.loads(lines[-1])["user"]["username"] == "jane"
    assert "jane" in fresh.sampan("logs audit")


def bare(cluster: Cluster, directory: Path) -> Path:
    """The cluster's kubeconfig without the administrator's certificate."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {}} for user in config["users"]]
    path = directory / "bare"
    path.write_text(yaml.safe_dump(config))
    return path
