import pytest

from sampan.api.qos import qos_class

BOTH = {"cpu": "1", "memory": "1Gi"}


def of(*containers, **spec):
    return {"containers": [{"resources": resources} for resources in containers], **spec}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (of({}), "BestEffort"),
        (of({"requests": {"cpu": "0"}, "limits": {"example.org/gpu": "1"}}), "BestEffort"),
        (of({"requests": {"cpu": "1"}}), "Burstable"),
        (of({"requests": BOTH, "limits": BOTH}), "Guaranteed"),
        (of({"limits": BOTH}), "Guaranteed"),  # a static pod, which nobody has completed
        (of({"requests": BOTH, "limits": BOTH}, {}), "Burstable"),
        (of({"requests": BOTH | {"cpu": "500m"}, "limits": BOTH}), "Burstable"),
        (of({"limits": BOTH}, initContainers=[{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
        (of({}, resources={"requests": BOTH, "limits": BOTH}), "Guaranteed"),  # of the whole pod
        (of({"requests": {"cpu": "1"}}, resources={"requests": BOTH, "limits": BOTH}), "Guaranteed"),
        (of({"requests": BOTH, "limits": BOTH}, resources={"limits": {"cpu": "2"}}), "Burstable"),
    ],
)
def test_requests_and_limits_decide_the_qos_class(spec, expected):
    assert qos_class(spec) == expected
