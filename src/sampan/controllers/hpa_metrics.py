"""What an autoscaler's metrics ask for: the size at which the chosen pods' average use would meet each target.

Source: API reference HorizontalPodAutoscaler v2 (MetricSpec), "Horizontal Pod Autoscaling" (algorithm details).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from sampan.api import meta, quantity
from sampan.client.plan import Object, View

from . import pods

RESOURCE = "pods.metrics.k8s.io"
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
    problem = "no metrics returned from resource metrics API"
    for metric in hpa["spec"].get("metrics") or ():
        kind = metric["type"]
        if kind not in ("Resource", "ContainerResource"):
            problem = f"metrics of type {kind} are not served here"
            continue
        source = metric["resource" if kind == "Resource" else "containerResource"]
        result = _by_resource(source, chosen, measured, current, near)
        if result is None:
            problem = f"failed to get {source['name']} utilization: unable to get metrics for resource {source['name']}: {problem}"
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
) -> tuple[int, Object] | None:
    """(size, current value) of a Resource metric; None without any measurement.

    Pods without one count as using nothing when that would shrink, as using their target when it would grow.
    """
    resource, target = source["name"], source["target"]
    ready, missing = [], 0
    for pod in chosen:
        if not pods.active(pod):
            continue
        found = measured.get(meta.name(pod))
        if found is None or not pods.ready(pod):
            missing += 1
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
        return None
    used, asked = sum(u for u, _ in ready), sum(a for _, a in ready)
    average = quantity.from_milli(used // len(ready))
    if target["type"] == "Utilization":
        if not asked:
            return None
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
    if not missing:
        return math.ceil(ratio * len(ready)), shown
    # Unmeasured pods must not make the answer more extreme.
    damped = (ratio * len(ready) + (missing if ratio < 1 else 0)) / (len(ready) + missing)
    if near(damped) or (damped < 1) != (ratio < 1):
        return current, shown
    return math.ceil(damped * (len(ready) + missing)), shown
