"""A KubeletConfiguration file (kubelet.config.k8s.io/v1beta1) as settings of an agent: `up --kubelet-config FILE`.

A field that means nothing here is refused by name rather than passed over: who sets a limit shall have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api import duration, quantity
from sampan.base.objects import Object
from sampan.node import pressure
from sampan.node.config import AgentConfig

API_VERSION, KIND = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _several(value: Any) -> int:
    if _number(value) < 2:
        raise ValueError("must be greater than 1")
    return int(value)


def _percent(value: Any) -> int:
    if not 0 <= _number(value) <= 100:
        raise ValueError("must be between 0 and 100, inclusive")
    return int(value)


def _amount(value: Any) -> str:
    return str(quantity.parse(str(value)))


def _amounts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be a map of quantities")
    return {name: _amount(amount) for name, amount in value.items()}


def _thresholds(value: Any) -> str:
    if not isinstance(value, dict):
        raise ValueError("must be a map of signals")
    text = ",".join(f"{signal}<{amount}" for signal, amount in value.items())
    pressure.parse(text)
    return text


def _graces(value: Any) -> str:
    if not isinstance(value, dict):
        raise ValueError("must be a map of durations")
    return ",".join(f"{signal}={_duration(time):g}s" for signal, time in value.items())


def _duration(value: Any) -> float:
    found = duration.seconds(str(value))
    if found < 0:
        raise ValueError("must not be negative")
    return found


def _words(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError("must be a list of strings")
    return value


def _taints(value: Any) -> list[Object]:
    if not isinstance(value, list) or not all(isinstance(one, dict) and one.get("key") for one in value):
        raise ValueError("must be a list of taints")
    return value


# field of the file -> (setting of AgentConfig, how it is read)
FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "allowedUnsafeSysctls": ("unsafe_sysctls", _words),
    "containerLogMaxFiles": ("log_max_files", _several),
    "containerLogMaxSize": ("log_max_size", _amount),
    "evictionHard": ("eviction_hard", _thresholds),
    "evictionMaxPodGracePeriod": ("eviction_max_pod_grace", _number),
    "evictionPressureTransitionPeriod": ("pressure_transition", _duration),
    "evictionSoft": ("eviction_soft", _thresholds),
    "evictionSoftGracePeriod": ("eviction_soft_grace", _graces),
    "imageGCHighThresholdPercent": ("image_gc_high", _percent),
    "imageGCLowThresholdPercent": ("image_gc_low", _percent),
    "imageMinimumGCAge": ("image_gc_age", _duration),
    "kubeReserved": ("kube_reserved", _amounts),
    "maxPods": ("max_pods", _number),
    "nodeStatusReportFrequency": ("status_period", _duration),
    "podPidsLimit": ("pod_pids_limit", _number),
    "registerWithTaints": ("taints", _taints),
    "systemReserved": ("reserved", _amounts),
}


def read(document: Any) -> Object:
    """Settings of AgentConfig. Raises ValueError naming the field that is wrong."""
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (
        API_VERSION,
        KIND,
    ):
        raise ValueError(f"not a {KIND} of {API_VERSION}")
    found: Object = {}
    for name, value in document.items():
        if name in ("apiVersion", "kind"):
            continue
        if name not in FIELDS:
            raise ValueError(f"{name}: nodes have no such setting; they have {', '.join(FIELDS)}")
        setting, convert = FIELDS[name]
        try:
            found[setting] = convert(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    _check_together(found)
    return found


def _check_together(found: Object) -> None:
    """What is wrong only beside another field. Raises ValueError."""
    defaults = AgentConfig()
    high = found.get("image_gc_high", defaults.image_gc_high)
    if found.get("image_gc_low", defaults.image_gc_low) >= high:
        raise ValueError("imageGCLowThresholdPercent: must be less than imageGCHighThresholdPercent")
    soft = pressure.parse(found.get("eviction_soft", ""))
    for threshold in soft:
        if f"{threshold.signal}=" not in found.get("eviction_soft_grace", ""):
            raise ValueError(
                f"evictionSoftGracePeriod: grace period must be specified for {threshold.signal}"
            )
