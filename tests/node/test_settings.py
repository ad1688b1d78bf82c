"""KubeletConfiguration files: what they set, and what is refused by name."""

from __future__ import annotations

import pytest

from sampan.node import settings
from sampan.node.config import AgentConfig
from sampan.node.registration import node_object

HEAD = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}


@pytest.mark.parametrize(
    "field, value, setting, expected",
    [
        ("maxPods", 30, "max_pods", 30),
        ("podPidsLimit", 100, "pod_pids_limit", 100),
        ("evictionHard", {"memory.available": "200Mi"}, "eviction_hard", "memory.available<200Mi"),
        ("evictionPressureTransitionPeriod", "1m30s", "pressure_transition", 90.0),
        ("evictionMaxPodGracePeriod", 60, "eviction_max_pod_grace", 60),
        ("systemReserved", {"cpu": "500m"}, "reserved", {"cpu": "500m"}),
        ("kubeReserved", {"memory": "1Gi"}, "kube_reserved", {"memory": "1Gi"}),
        ("containerLogMaxSize", "1Mi", "log_max_size", "1Mi"),
        ("containerLogMaxFiles", 2, "log_max_files", 2),
        ("imageMinimumGCAge", "10m", "image_gc_age", 600.0),
        ("imageGCHighThresholdPercent", 90, "image_gc_high", 90),
        (
            "registerWithTaints",
            [{"key": "a", "effect": "NoSchedule"}],
            "taints",
            [{"key": "a", "effect": "NoSchedule"}],
        ),
    ],
)
def test_a_field_of_the_file_is_a_setting(field, value, setting, expected):
    assert settings.read({**HEAD, field: value}) == {setting: expected}


def test_soft_thresholds_have_a_grace_period():
    soft = {"evictionSoft": {"memory.available": "1Gi"}}
    found = settings.read({**HEAD, **soft, "evictionSoftGracePeriod": {"memory.available": "1m"}})
    assert found == {"eviction_soft": "memory.available<1Gi", "eviction_soft_grace": "memory.available=60s"}
    with pytest.raises(ValueError, match="grace period must be specified for memory.available"):
        settings.read({**HEAD, **soft})


@pytest.mark.parametrize(
    "document, said",
    [
        ({"kind": "Pod"}, "not a KubeletConfiguration"),
        ("text", "not a KubeletConfiguration"),
        ({**HEAD, "maxPodz": 3}, "maxPodz: nodes have no such setting"),
        ({**HEAD, "maxPods": "many"}, "maxPods: must be a number"),
        ({**HEAD, "evictionHard": {"memory.free": "1Gi"}}, "evictionHard: .*not an eviction threshold"),
        (
            {**HEAD, "evictionPressureTransitionPeriod": "soon"},
            "evictionPressureTransitionPeriod: time: invalid duration",
        ),
        ({**HEAD, "containerLogMaxFiles": 1}, "containerLogMaxFiles: must be greater than 1"),
        ({**HEAD, "containerLogMaxSize": "big"}, "containerLogMaxSize: "),
        (
            {**HEAD, "imageGCHighThresholdPercent": 101},
            "imageGCHighThresholdPercent: must be between 0 and 100",
        ),
        ({**HEAD, "imageGCHighThresholdPercent": 70}, "imageGCLowThresholdPercent: must be less than"),
        ({**HEAD, "systemReserved": {"cpu": "lots"}}, "systemReserved: "),
    ],
)
def test_what_is_wrong_is_named(document, said):
    with pytest.raises(ValueError, match=said):
        settings.read(document)


def test_pods_do_not_get_what_is_reserved_or_kept_free():
    config = AgentConfig(
        root="/somewhere",
        reserved={"cpu": "500m"},
        kube_reserved={"cpu": "250m", "memory": "1Gi"},
        eviction_hard="memory.available<100Mi,nodefs.available<10%",
    )
    capacity = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "1000Ki"}
    status = node_object("n", config, capacity, {}, "sampan", 0.0)["status"]
    assert status["capacity"] == capacity
    assert status["allocatable"] == {"cpu": "3250m", "memory": "7068Mi", "ephemeral-storage": "900Ki"}
