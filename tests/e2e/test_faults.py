"""kill -9 at any process: acknowledged objects are there afterwards, running containers go on and are taken over."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import FAST_FAILURE, Cluster, Kubectl, Traces, deployment, eventually


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own, so that others do not suffer."""
    cluster = Cluster(f"faults-{os.getpid()}", tmp_path_factory.mktemp("faults"))
    try:
        cluster.up("--nodes=1", *FAST_FAILURE)
        yield cluster
    finally:
        cluster.sampan("down")
    assert Traces(cluster).found() == {}


@pytest.fixture
def kubectl(victim: Cluster) -> Kubectl:
    """Up, with a pod that counts the seconds since its process began."""
    victim.up()
    kubectl = victim.kubectl()
    if kubectl.run("get pod counter").returncode:
        kubectl.run_pod("counter", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.2; done")
    return kubectl


def kill(victim: Cluster, what: str) -> int:
    """SIGKILL to the one process; its pid."""
    (pid,) = victim.processes(what)
    os.kill(pid, signal.SIGKILL)
    return pid


def proc(pid: int | str, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text()


def started(kubectl: Kubectl) -> tuple[str, int]:
    """(start of the container, restarts): the same afterwards means nobody touched it."""
    (status,) = kubectl.get("pod/counter")["status"]["containerStatuses"]
    return status["state"]["running"]["startedAt"], status["restartCount"]


def last_count(kubectl: Kubectl) -> int:
    return int(kubectl("logs counter --tail=1") or 0)


def test_the_control_plane_is_killed(victim: Cluster, kubectl: Kubectl) -> None:
    before = started(kubectl)
    for i in range(20):
        kubectl(f"create configmap kept-{i} --from-literal=i={i}")
    dead = kill(victim, "sampan.cluster.control_plane")
    eventually(lambda: victim.processes("sampan.cluster.control_plane") not in ([], [dead]), "a new one")
    eventually(lambda: kubectl.run("get --raw /readyz").stdout == "ok", "it serves")
    assert len([c for c in kubectl.items("configmaps") if c["metadata"]["name"].startswith("kept-")]) == 20
    assert started(kubectl) == before
    count = last_count(kubectl)
    eventually(lambda: last_count(kubectl) > count, "the container went on")
    kubectl("create configmap after")
    kubectl("delete configmap after " + " ".join(f"kept-{i}" for i in range(20)))


def test_the_agent_is_killed(victim: Cluster, kubectl: Kubectl) -> None:
    before = started(kubectl)
    dead = kill(victim, "sampan.cluster.agent")
    eventually(lambda: victim.processes("sampan.cluster.agent") not in ([], [dead]), "a new one")
    eventually(lambda: "hello" in kubectl.run("exec counter -- echo hello").stdout, "it execs again")
    assert started(kubectl) == before
    kubectl.apply(deployment("after-agent", replicas=1))
    kubectl("rollout status deployment/after-agent --timeout=60s")
    kubectl("delete deployment after-agent")


def test_the_zygote_is_killed(victim: Cluster, kubectl: Kubectl) -> None:
    before = started(kubectl)
    (agent,) = victim.processes("sampan.cluster.agent")
    init = proc(agent, "stat").rpartition(")")[2].split()[1]
    siblings = proc(init, f"task/{init}/children").split()
    zygotes = [int(pid) for pid in siblings if proc(pid, "comm").strip() == "sampan-zygote"]
    assert len(zygotes) == 1
    os.kill(zygotes[0], signal.SIGKILL)
    kubectl.apply(deployment("after-zygote", replicas=1))
    kubectl("rollout status deployment/after-zygote --timeout=60s")
    assert started(kubectl) == before
    kubectl("delete deployment after-zygote")


def test_stop_and_up_bring_the_same_cluster_back(victim: Cluster, kubectl: Kubectl) -> None:
    uid = kubectl.get("pod/counter")["metadata"]["uid"]
    kubectl("create configmap lasting")
    victim.sampan("stop")
    assert victim.processes("sampan.cluster") == []
    assert victim.run("status").returncode == 3
    victim.up()
    assert kubectl("get configmap lasting -o name")
    assert kubectl.get("pod/counter")["metadata"]["uid"] == uid
    kubectl.wait("pod/counter")
    eventually(lambda: started(kubectl)[1] >= 1, "its container was started again")
    kubectl("delete configmap lasting")


def test_everything_is_killed_as_by_a_power_cut(victim: Cluster, kubectl: Kubectl) -> None:
    kubectl("create configmap lasting")
    for pid in victim.processes("sampan.cluster"):
        with contextlib.suppress(ProcessLookupError):  # children die with their parent
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not victim.processes("sampan.cluster"), "all are dead")
    victim.up()
    assert kubectl("get configmap lasting -o name")
    kubectl.wait("pod/counter")
    kubectl("delete configmap lasting")


def test_up_again_is_harmless(victim: Cluster, kubectl: Kubectl) -> None:
    before, pids = started(kubectl), victim.processes("sampan.cluster")
    victim.up()
    assert victim.processes("sampan.cluster") == pids
    assert started(kubectl) == before
