"""What a node refuses, with kubelet's reasons and texts."""

from __future__ import annotations

import pytest

from sampan.api import pod_resources
from sampan.node.pods import admission

NODE = {
    "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
    "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}},
    "spec": {},
}


def pod(*requests: dict, **spec) -> dict:
    containers = [{"name": f"c{i}", "resources": {"requests": r}} for i, r in enumerate(requests)]
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": containers, **spec},
    }


def judged(new: dict, *others: dict, **more):
    return admission.judge(new, NODE, [(o, pod_resources.requests(o["spec"])) for o in others], **more)


def test_a_pod_that_fits_is_taken():
    assert judged(pod({"cpu": "1"}), pod({"cpu": "1"})) is None
    assert judged(pod({"cpu": "1"}, nodeSelector={"disk": "ssd"})) is None


@pytest.mark.parametrize(
    ("new", "others", "reason", "text"),
    [
        (
            pod({"cpu": "4"}),
            [],
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 4000, used: 0, capacity: 2000",
        ),
        (
            pod({"memory": "512Mi"}, {"memory": "256Mi"}),
            [pod({"memory": "512Mi"})],
            "OutOfmemory",
            "Node didn't have enough resource: memory, requested: 805306368, used: 536870912, capacity: 1073741824",
        ),
        (
            pod({"example.com/gpu": "1"}),
            [],
            "OutOfexample.com/gpu",
            "Node didn't have enough resource: example.com/gpu, requested: 1, used: 0, capacity: 0",
        ),
        (
            pod({}),
            [pod({})] * 3,
            "OutOfpods",
            "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
        ),
        (
            pod({}, nodeSelector={"disk": "hdd"}),
            [],
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            pod({}, securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            [],
            "SysctlForbidden",
            'forbidden sysctl: "kernel.msgmax" not allowlisted',
        ),
        (
            pod({}, os={"name": "windows"}),
            [],
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
    ],
)
def test_a_node_refuses_what_it_cannot_run(new, others, reason, text):
    assert judged(new, *others) == (reason, text)


def test_host_ports_are_taken_once():
    def on(port: int, ip: str = "") -> dict:
        return {
            "metadata": {},
            "spec": {"containers": [{"name": "c", "ports": [{"hostPort": port, "hostIP": ip}]}]},
        }

    assert judged(on(80), on(80))[0] == "NodePorts"
    assert judged(on(80, "10.0.0.1"), on(80))[0] == "NodePorts"
    assert judged(on(80, "10.0.0.1"), on(80, "10.0.0.2")) is None
    assert judged(on(80), on(81)) is None


def test_sysctls_that_are_safe_or_allowed():
    def wants(name: str) -> dict:
        return pod({}, securityContext={"sysctls": [{"name": name, "value": "1"}]})

    assert judged(wants("net.ipv4.tcp_syncookies")) is None
    assert judged(wants("net/ipv4/tcp_syncookies")) is None
    assert judged(wants("net.core.somaxconn"), unsafe_sysctls=["net.core.*"]) is None


def test_pressure_refuses():
    assert judged(pod({}), pressures=["DiskPressure"]) == (
        "Evicted",
        "The node had condition: [DiskPressure]. ",
    )


def test_init_containers_count_by_the_largest_and_sidecars_always():
    one = pod({"cpu": "1"})
    sidecar = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}}
    large = {"name": "i", "resources": {"requests": {"cpu": "3"}}}
    one["spec"]["initContainers"] = [sidecar, large]
    assert pod_resources.requests(one["spec"]) == {"cpu": 3500}
    one["spec"]["overhead"] = {"cpu": "100m"}
    assert pod_resources.requests(one["spec"]) == {"cpu": 3600}
