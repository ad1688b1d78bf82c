"""The control groups of pods as the machine's own files show them, on version 1 and 2 alike."""

from __future__ import annotations

from pathlib import Path

from harness import Cluster, Kubectl, eventually, shell

ROOT = Path("/sys/fs/cgroup")
UNIFIED = (ROOT / "cgroup.controllers").exists()
# what is asked for -> its file in version 2 and in version 1 (with the controller)
FILES = {
    "cpu": ("cpu.max", "cpu/cpu.cfs_quota_us"),
    "weight": ("cpu.weight", "cpu/cpu.shares"),
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
}


def group(cluster: Cluster, kubectl: Kubectl, name: str, controller: str = "memory") -> Path:
    """The pod's group; AssertionError while there is none."""
    uid = kubectl.get(f"pod/{name}")["metadata"]["uid"]
    found = list((ROOT if UNIFIED else ROOT / controller).glob(f"sampan/{cluster.name}/*/**/pod{uid}"))
    assert len(found) == 1, found
    return found[0]


def setting(cluster: Cluster, kubectl: Kubectl, name: str, what: str) -> str:
    """What a file of the pod's group says."""
    new, old = FILES[what]
    controller, _, file = old.partition("/")
    return (group(cluster, kubectl, name, controller) / (new if UNIFIED else file)).read_text().strip()


def test_a_pods_class_decides_where_its_group_lies_and_its_limits_what_is_in_it(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    exact = {"cpu": "100m", "memory": "64Mi"}
    specs = {
        "best": {},
        "burst": {"requests": {"cpu": "250m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
        "sure": {"requests": exact, "limits": exact},
    }
    for name, resources in specs.items():
        kubectl.run_pod(name, {"containers": [shell("sleep infinity", resources=resources)]})
    places = {name: group(cluster, kubectl, name).parent.name for name in specs}
    assert (places["best"], places["burst"]) == ("besteffort", "burstable")
    assert places["sure"].startswith("node-"), "beside the two classes"

    assert setting(cluster, kubectl, "sure", "cpu") == ("10000 100000" if UNIFIED else "10000")
    assert setting(cluster, kubectl, "sure", "memory") == str(64 << 20)
    assert setting(cluster, kubectl, "burst", "memory") == str(32 << 20)
    assert setting(cluster, kubectl, "burst", "weight") == ("10" if UNIFIED else "256")
    assert setting(cluster, kubectl, "best", "weight") == ("1" if UNIFIED else "2")
    if UNIFIED:
        assert setting(cluster, kubectl, "best", "memory") == "max"

    def weight_of_class(name: str) -> int:
        new, old = FILES["weight"]
        controller, _, file = old.partition("/")
        of = group(cluster, kubectl, name, controller).parent
        return int((of / (new if UNIFIED else file)).read_text())

    assert weight_of_class("best") == (1 if UNIFIED else 2), "all of them together"
    assert weight_of_class("burst") >= (10 if UNIFIED else 256), "the sum of what they asked for"


def test_no_group_outlives_its_pod(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl.run_pod("brief", {"containers": [shell("sleep infinity", resources={"limits": {"cpu": "1"}})]})
    place = group(cluster, kubectl, "brief")
    assert place.is_dir()
    kubectl("delete pod brief --wait")
    eventually(lambda: not place.exists(), "the group goes with the pod")
