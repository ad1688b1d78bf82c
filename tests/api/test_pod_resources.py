"""What a whole pod asks for and may use."""

from __future__ import annotations

import pytest

from sampan.api import pod_resources, quantity, quota
from sampan.node import qos


def container(cpu="", memory="", **more):
    amounts = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    return {"name": "c", "resources": {"requests": amounts, "limits": amounts}, **more}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    "containers, inits, own, expected",
    [
        ([container("1", "1Gi"), container("500m", "1Gi")], [], {}, {"cpu": 1500, "memory": 2 << 30}),
        ([container("1", "1Gi"), container("500m")], [], {}, {"cpu": 1500}),
        ([container("1", "100Mi")], [container("1", "500Mi")], {}, {"cpu": 1000, "memory": 500 << 20}),
        ([container("1")], [container("200m", **SIDECAR), container("1")], {}, {"cpu": 1200}),
        ([container("1")], [container()], {}, {}),
        ([container()], [], {"limits": {"cpu": "2"}}, {"cpu": 2000}),
        ([container("1")], [], {"limits": {"cpu": "2"}}, {"cpu": 2000}),
    ],
)
def test_a_pod_may_use_what_its_containers_may_together(containers, inits, own, expected):
    pod = {"spec": {"containers": containers, "initContainers": inits, "resources": own}}
    assert pod_resources.limits(pod["spec"]) == expected
    found = qos.pod_limits(pod)
    assert found.memory == expected.get("memory")
    assert found.cpu_quota == (expected["cpu"] * 100 if "cpu" in expected else None)


@pytest.mark.parametrize(
    "containers, inits, own, overhead, expected",
    [
        ([container("1"), container("500m")], [], {}, {}, {"cpu": 1500}),
        ([container("1")], [container("3"), container("2")], {}, {}, {"cpu": 3000}),
        ([container("1")], [container("200m", **SIDECAR), container("1")], {}, {}, {"cpu": 1200}),
        ([container("1")], [container("1"), container("200m", **SIDECAR)], {}, {}, {"cpu": 1200}),
        ([container("1", "1Gi")], [], {"requests": {"cpu": "2"}}, {}, {"cpu": 2000, "memory": 1 << 30}),
        ([container("1")], [], {}, {"cpu": "100m", "memory": "1Mi"}, {"cpu": 1100, "memory": 1 << 20}),
        ([container()], [], {}, {}, {}),
    ],
)
def test_a_pod_asks_for_its_largest_moment(containers, inits, own, overhead, expected):
    spec = {"containers": containers, "initContainers": inits, "resources": own, "overhead": overhead}
    assert pod_resources.requests(spec) == expected
    assert quota.pod_total(spec, "requests") == {
        name: quantity.parse(f"{amount}m" if name == "cpu" else amount) for name, amount in expected.items()
    }
