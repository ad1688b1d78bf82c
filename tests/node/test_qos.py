"""QoS classes and what the kernel is told."""

from __future__ import annotations

import pytest

from sampan.node import qos


def make(*resources):
    containers = [{"name": f"c{i}", "resources": r} for i, r in enumerate(resources)]
    return {"metadata": {"uid": "u"}, "spec": {"containers": containers}}


BOTH = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    "resources, expected",
    [
        ([{}], "BestEffort"),
        ([BOTH], "Guaranteed"),
        ([{"limits": BOTH["limits"]}], "Guaranteed"),
        ([BOTH, {}], "Burstable"),
        ([{"requests": {"cpu": "1m"}}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_requests_and_limits_decide_the_qos_class(resources, expected):
    assert qos.qos_class(make(*resources)) == expected


def test_limits_become_what_the_kernel_is_told():
    pod = make({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}})
    found = qos.container_limits(pod, pod["spec"]["containers"][0], 10 << 30)
    assert (found.cpu_shares, found.cpu_quota, found.memory) == (256, 50_000, 2 << 30)
    assert found.oom_score_adj == 900
    assert qos.cgroup(pod) == "burstable/podu"


@pytest.mark.parametrize("resources, score", [({}, 1000), (BOTH, -997), ({"requests": {"cpu": "1m"}}, 999)])
def test_oom_score(resources, score):
    pod = make(resources)
    assert qos.oom_score_adj(pod, pod["spec"]["containers"][0], 10 << 30) == score


def test_what_is_said_for_the_whole_pod_holds_for_containers_that_say_nothing():
    pod = make({"requests": {"memory": "1Gi"}, "limits": {"cpu": "100m"}}, {})
    pod["spec"]["resources"] = {"requests": {"memory": "3Gi"}, "limits": {"cpu": "1", "memory": "4Gi"}}
    first, second = (qos.container_limits(pod, c, 10 << 30) for c in pod["spec"]["containers"])
    assert (first.cpu_quota, first.memory, second.cpu_quota, second.memory) == (
        10_000,
        4 << 30,
        100_000,
        4 << 30,
    )
    assert (first.oom_score_adj, second.oom_score_adj) == (800, 900), "each has half of the 2Gi that are left"
