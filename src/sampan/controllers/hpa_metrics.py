"""What an autoscaler's metrics ask for: the size at which the chosen pods' average use would meet each target.

Source: API reference HorizontalPodAutoscaler v2 (MetricSpec), "Horizontal Pod Autoscaling" (algorithm details).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable

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
    listed = view.fetched.get((RESOURCE, meta.namespace(hpa), "")) or []
    measured = {meta.name(m): m for m in listed}  # type: ignore[arg-type]
    near = functools.partial(_near, hpa["spec"].get("behavior") or {})
    found: list[tuple[int, str]] = []
    shown: list[Object] = []
    problem = ""
    for metric in hpa["spec"].get("metrics") or ():
        kind = metric["type"]
        if kind not in ("Resource", "ContainerResource"):
            problem = f"metrics of type {kind} are not served here"
            continue
        source = metric["resource" if kind == "Resource" else "containerResource"]
        result = _by_resource(source, chosen, measured, current, near)
        if isinstance(result, str):
            problem = f"failed to get {source['name']} utilization: {result}"
            continue
        size, now_used = result
        title = f"{source['name']} resource" + (
            " utilization (percentage of request)" if "averageUtilization" in now_used else ""
        )
        found.append((size, title))
        field = "resource" if kind == "Resource" else "containerResource"
        entry = {"name": source["name"], "current": now_used}
        shown.append(
            {
                "type": kind,
                field: entry | ({"container": source["container"]} if "container" in source else {}),
            }
        )
    return found, shown or None, problem


def _near(behavior: Object, ratio: float) -> bool:
    """Whether use is so near to its target that nothing is done (`tolerance` of each direction, KEP-4951)."""

    def tolerance(direction: str) -> float:
        return quantity.milli((behavior.get(direction) or {}).get("tolerance", _TOLERANCE)) / 1000

    return 1 - tolerance("scaleDown") <= ratio <= 1 + tolerance("scaleUp")


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
    resource, target = source["name"], source["target"]
    ready, missing, unready = [], 0, 0
    for pod in chosen:
        if not pods.active(pod):
            continue
        found = measured.get(meta.name(pod))
        if found is None:
            missing += 1
            continue
        if not pods.ready(pod) or (resource == "cpu" and _of_its_start(pod, found)):
            unready += 1
            continue
        containers = [c for c in found["containers"] if source.get("container") in (None, c["name"])]
        used = sum(quantity.milli(c["usage"].get(resource, "0")) for c in containers)
        asked = sum(
            quantity.milli(((c.get("resources") or {}).get("requests") or {}).get(resource, "0"))
            for c in pod["spec"]["containers"]
            if source.get("container") in (None, c["name"])
        )
        ready.append((used, asked))
    if not ready:
        if unready:
            return "did not receive metrics for targeted pods (pods might be unready)"
        return f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
    used, asked = sum(u for u, _ in ready), sum(a for _, a in ready)
    average = quantity.from_milli(used // len(ready))
    if target["type"] == "Utilization":
        if not asked:
            return "the pods request none of it"
        percent = used * 100 // asked
        ratio, shown = (
            percent / target["averageUtilization"],
            {"averageUtilization": percent, "averageValue": average},
        )
    else:
        goal = quantity.milli(target["averageValue"])
        ratio, shown = used / len(ready) / goal, {"averageValue": average}
    if near(ratio):
        return current, shown
    if ratio > 1:
        missing += unready
    if not missing:
        return math.ceil(ratio * len(ready)), shown
    # Unmeasured pods must not make the answer more extreme.
    damped = (ratio * len(ready) + (missing if ratio < 1 else 0)) / (len(ready) + missing)
    if near(damped) or (damped < 1) != (ratio < 1):
        return current, shown
    return math.ceil(damped * (len(ready) + missing)), shown


def _of_its_start(pod: Object, measured: Object) -> bool:
    """Whether a measurement reaches back to before the pod was ready: starting takes more than running does."""
    since, taken = pods.ready_since(pod), measured.get("timestamp")
    return bool(taken and since is not None and seconds(taken) < since + _span(measured.get("window", "0s")))


def _span(text: str) -> float:
    """Seconds of a meta/v1 Duration as servers of metrics write it: 15.03s, 1m0s."""
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
