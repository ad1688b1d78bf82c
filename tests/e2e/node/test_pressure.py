"""Nodes with a KubeletConfiguration of their own: reservations, a limit of processes, thresholds that are met or soon will be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import SLOW, Cluster, Kubectl, eventually, pod, shell

from sampan.node import disk

GRACE = 12 * SLOW  # seconds until the soft threshold counts
CONFIGURATION = f"""
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
podPidsLimit: 40
maxPods: 20
systemReserved: {{cpu: 100m}}
kubeReserved: {{memory: 200Mi}}
evictionHard: {{memory.available: 50Mi}}
evictionSoft: {{memory.available: "99%"}}
evictionSoftGracePeriod: {{memory.available: {GRACE:g}s}}
"""
TOLERATED = [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]


@contextmanager
def configured(directory: Path, configuration: str) -> Iterator[Kubectl]:
    """A cluster with its data in a directory, whose node has this KubeletConfiguration."""
    (directory / "kubelet.yaml").write_text(configuration)
    cluster = Cluster(f"{directory.name}-{os.getpid()}", directory)
    try:
        cluster.up(f"--kubelet-config={directory}/kubelet.yaml")
        kubectl = cluster.kubectl()
        yield kubectl
    finally:
        cluster.sampan("down")


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with configured(tmp_path_factory.mktemp("tight"), CONFIGURATION) as kubectl:
        yield kubectl


def condition(kubectl: Kubectl, kind: str) -> tuple[str, str]:
    (found,) = [c for c in kubectl.get("node/node-1")["status"]["conditions"] if c["type"] == kind]
    return found["status"], found["reason"]


def test_under_pressure_pods_go_in_order_and_others_are_not_taken(tight: Kubectl) -> None:
    eats = "exec python3 -c 'import time; b = bytearray(60_000_000); time.sleep(1000)'"
    small = {"requests": {"memory": "64Mi", "cpu": "10m"}, "limits": {"memory": "64Mi", "cpu": "100m"}}
    tight.apply(
        pod(
            "sure", {"containers": [shell("exec sleep infinity", resources=small)], "tolerations": TOLERATED}
        ),
        pod("eater", {"containers": [shell(eats)], "tolerations": TOLERATED}),
    )
    tight.wait("pod/sure")
    eventually(lambda: condition(tight, "MemoryPressure") == ("True", "KubeletHasInsufficientMemory"))
    taints = eventually(lambda: tight.get("node/node-1")["spec"].get("taints"))
    assert [(t["key"], t["effect"]) for t in taints] == [("node.kubernetes.io/memory-pressure", "NoSchedule")]
    told = tight.events_of("node-1")
    assert "Node node-1 status is now: NodeHasInsufficientMemory" in told

    tight.apply(pod("waits", "sleep infinity"))
    eventually(lambda: "had untolerated taint" in tight.events_of("waits"))
    tight.apply(pod("forced", {"nodeName": "node-1", "containers": [shell("sleep infinity")]}))
    status = tight.phase("forced", "Failed")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"] == "Pod was rejected: The node had condition: [MemoryPressure]. "

    status = tight.phase("eater", "Failed")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"].startswith("The node was low on resource: memory. Threshold quantity: ")
    assert "Container main was using " in status["message"]
    assert ", request is 0, has larger consumption of memory. " in status["message"]
    later = tight.phase("sure", "Failed")["status"]

    def ended(of: dict) -> str:
        return of["containerStatuses"][0]["state"]["terminated"]["finishedAt"]

    assert ended(status) <= ended(later), "who uses more than it asked for goes first"
    assert "EvictionThresholdMet" in tight.events_of("node-1")


def test_what_is_reserved_is_not_offered(tight: Kubectl) -> None:
    status = tight.get("node/node-1")["status"]
    has, gives = status["capacity"], status["allocatable"]
    assert (gives["pods"], gives["cpu"]) == ("20", f"{int(has['cpu']) * 1000 - 100}m")
    assert int(has["memory"][:-2]) - int(gives["memory"][:-2]) == 250 << 10, "reserved, and kept free"
    configz = tight("get --raw /api/v1/nodes/node-1/proxy/configz")
    assert '"podPidsLimit":40' in configz and '"evictionSoft":{"memory.available":"99%"}' in configz


def test_a_pod_has_no_more_processes_than_its_node_allows(tight: Kubectl) -> None:
    bomb = "for i in $(seq 100); do sleep 1000 & done; wait"
    small = {"requests": {"memory": "64Mi", "cpu": "10m"}}
    container = shell(bomb, resources=small)
    tight.apply(pod("bomb", {"containers": [container], "tolerations": TOLERATED, "restartPolicy": "Never"}))
    said = eventually(lambda: tight.run("logs bomb").stdout)
    assert "Resource temporarily unavailable" in said or "Cannot fork" in said or "can't fork" in said


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A node on a small file system, that has 2,000 processes to go until it runs short of them."""
    directory: Path = tmp_path_factory.mktemp("small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", directory], check=True)
    configuration = f"""
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {{nodefs.available: 96Mi, pid.available: "{disk.processes().available - 2000}"}}
evictionPressureTransitionPeriod: 1s
"""
    try:
        with configured(directory, configuration) as kubectl:
            yield kubectl
    finally:
        subprocess.run(["umount", directory], check=True)


FILLS = "dd if=/dev/zero of={}/file bs=1M count=120 2>/dev/null"
DISK = "ephemeral-storage. Threshold quantity: 96Mi, available: "
FORKS = """python3 -c '
import threading
threading.stack_size(65536)
for _ in range(3000):
    threading.Thread(target=threading.Event().wait).start()
'"""


@pytest.mark.parametrize(
    ("name", "greedy", "kind", "free", "message"),
    [
        ("layer", FILLS.format("/tmp"), "DiskPressure", "KubeletHasNoDiskPressure", DISK),
        ("volume", FILLS.format("/data"), "DiskPressure", "KubeletHasNoDiskPressure", DISK),
        ("forks", FORKS, "PIDPressure", "KubeletHasSufficientPID", "pids. Threshold quantity: "),
    ],
    ids=["layer", "volume", "forks"],
)
def test_who_takes_most_goes_and_the_pressure_with_it(
    small: Kubectl, name: str, greedy: str, kind: str, free: str, message: str
) -> None:
    eventually(lambda: condition(small, kind) == ("False", free))
    small.run_pod(f"{name}-modest")
    container = shell(f"{greedy}; exec sleep infinity", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    small.apply(pod(name, {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]}))
    status = small.phase(name, "Failed")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"].startswith(f"The node was low on resource: {message}")
    eventually(lambda: condition(small, kind) == ("False", free), "what it had is there again")
    assert small.get(f"pod/{name}-modest")["status"]["phase"] == "Running", "one was enough"
