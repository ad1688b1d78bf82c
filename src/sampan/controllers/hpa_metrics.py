"""What an autoscaler's metrics ask for: the size at which the chosen pods' average use would meet each target.

Source: API reference HorizontalPodAutoscaler v2 (MetricSpec), "Horizontal Pod Autoscaling" (algorithm details).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from sampan.api import meta, quantity
from sampan.base.objects import Object
from sampan.client.plan import View

from . import pods
from .base import seconds

RESOURCE = "pods.metrics.k8s.io"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)")
_TOLERANCE = "0.1"  # of the ratio of use and target, either way


def sizes(
    hpa: Object, chosen: list[Object], current: int, view: View
) -> tuple[list[tuple[int, str]], list[Object] | None, str]:
    """(size by each metric with its name, status.currentMetrics, why there is none)."""
    listed = cast("list[Object] | None", view.fetched.get((RESOURCE, meta.namespace(hpa), "")))
    measured = {meta.name(m): m for m in listed or ()}
    near = functools.partial(_near, hpa["spec"].get("behavior") or {})
    found: list[tuple[int, str]] = []
    shown: list[Object] = []
    problem = ""
    for metric in hpa["spec"].get("metrics") or ():
        kind = metric["type"]
        if kind not in ("Resource", "ContainerResource"):
            problem = f"metrics of type {kind} are not served here"
            continue
        field = "resource" if kind == "Resource" else "containerResource"
        source = metric[field]
        result = _by_resource(source, chosen, measured, current, near)
        if isinstance(result, str):
            problem = f"failed to get {source['name']} utilization: {result}"
            continue
        size, now_used = result
        title = f"{source['name']} resource" + (
            " utilization (percentage of request)" if "averageUtilization" in now_used else ""
        )
        found.append((size, title))
        entry: Object = {"name": source["name"], "current": now_used}
        if "container" in source:
            entry["container"] = source["container"]
        shown.append({"type": kind, field: entry})
    return found, shown or None, problem


def _near(behavior: Object, ratio: float) -> bool:
    """Whether use is so near to its target that nothing is done (`tolerance` of each direction, KEP-4951)."""

    def tolerance(direction: str) -> float:
        return quantity.milli((behavior.get(direction) or {}).get("tolerance", _TOLERANCE)) / 1000

    return 1 - tolerance("scaleDown") <= ratio <= 1 + tolerance("scaleUp")


class _Use(NamedTuple):
    """What the pods that count use and ask for together (thousandths), and how many are left out for which reason."""

    ready: int
    used: int
    asked: int
    missing: int  # without a measurement
    unready: int  # not ready, or measured while they started


def _by_resource(
    source: Object,
    chosen: list[Object],
    measured: dict[str, Object],
    current: int,
    near: Callable[[float], bool],
) -> tuple[int, Object] | str:
    """(size, current value) of a Resource metric; a text why there is none.

    Pods without a measurement count as using their target when that would shrink, as using nothing when it would grow.
    Pods that are not ready, or whose measurement is of their start, count only when it would grow, as using nothing.
    """
    use = _use(source, chosen, measured)
    if not use.ready:
        if use.unready:
            return "did not receive metrics for targeted pods (pods might be unready)"
        return (
            f"unable to get metrics for resource {source['name']}: "
            "no metrics returned from resource metrics API"
        )
    if source["target"]["type"] == "Utilization" and not use.asked:
        return "the pods request none of it"
    ratio, shown = _ratio(source["target"], use)
    if near(ratio):
        return current, shown
    missing = use.missing + (use.unready if ratio > 1 else 0)
    if not missing:
        return math.ceil(ratio * use.ready), shown
    # Unmeasured pods must not make the answer more extreme.
    damped = (ratio * use.ready + (missing if ratio < 1 else 0)) / (use.ready + missing)
    if near(damped) or (damped < 1) != (ratio < 1):
        return current, shown
    return math.ceil(damped * (use.ready + missing)), shown


def _use(source: Object, chosen: list[Object], measured: dict[str, Object]) -> _Use:
    resource, only = source["name"], source.get("container")
    ready = used = asked = missing = unready = 0
    for pod in filter(pods.active, chosen):
        found = measured.get(meta.name(pod))
        if found is None:
            missing += 1
        elif not pods.ready(pod) or (resource == "cpu" and _of_its_start(pod, found)):
            unready += 1
        else:
            ready += 1
            used += sum(
                quantity.milli(c["usage"].get(resource, "0"))
                for c in found["containers"]
                if only in (None, c["name"])
            )
            asked += sum(
                quantity.milli(((c.get("resources") or {}).get("requests") or {}).get(resource, "0"))
                for c in pod["spec"]["containers"]
                if only in (None, c["name"])
            )
    return _Use(ready, used, asked, missing, unready)


def _ratio(target: Object, use: _Use) -> tuple[float, Object]:
    """(use in relation to the target, how status.currentMetrics shows the use)."""
    average = quantity.from_milli(use.used // use.ready)
    if target["type"] == "Utilization":
        percent = use.used * 100 // use.asked
        shown = {"averageUtilization": percent, "averageValue": average}
        return percent / target["averageUtilization"], shown
    return use.used / use.ready / quantity.milli(target["averageValue"]), {"averageValue": average}


def _of_its_start(pod: Object, measured: Object) -> bool:
    """Whether a measurement reaches back to before the pod was ready: starting takes more than running does."""
    since, taken = pods.ready_since(pod), measured.get("timestamp")
    return bool(taken and since is not None and seconds(taken) < since + _span(measured.get("window", "0s")))


def _span(text: str) -> float:
    """Seconds of a meta/v1 Duration as servers of metrics write it: 15.03s, 1m0s."""
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
