"""HorizontalPodAutoscaler: the size at which the pods' average use meets the target, within bounds and not too fast.

Source: API reference HorizontalPodAutoscaler v2, "Horizontal Pod Autoscaling" (algorithm details, scaling behavior).
What was recommended and done lately is remembered here, as in the original; a restart forgets it.
"""

from __future__ import annotations

import math
from collections import defaultdict

from sampan.api import meta, quantity
from sampan.api.registry import Registry, Resource
from sampan.client.plan import Event, Object, Patch, Plan, View

from . import pods
from .base import Rule, selector_of, stamp, status_patch
from .rolling import of_total

_RESOURCE = "horizontalpodautoscalers.autoscaling"
_METRICS = "pods.metrics.k8s.io"
_PERIOD = 15.0
_TOLERANCE = 0.1
_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


def rules(registry: Registry) -> list[Rule]:
    scaler = Autoscaler(registry)
    return [Rule("horizontal-pod-autoscaler", _RESOURCE, scaler.reconcile, reads=("pods",))]


class Autoscaler:
    """`registry` tells which resource a target's kind is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._advice: dict[str, list[tuple[float, int]]] = defaultdict(list)  # uid -> (time, size)
        self._scaled: dict[str, list[tuple[float, int]]] = defaultdict(list)  # uid -> (time, change)

    def reconcile(self, hpa: Object, view: View, now: float) -> Plan:
        plan = Plan().requeue(_PERIOD)
        target = hpa["spec"]["scaleTargetRef"]
        group, _, version = target.get("apiVersion", "v1").rpartition("/")
        row = self._registry.by_kind(group, version, target["kind"])
        found = view.get(row.name, target["name"], meta.namespace(hpa)) if row else None
        if row is not None and found is None:
            read = (row.name, meta.namespace(hpa), target["name"])
            if read not in view.fetched:
                plan.reads.append(read)
                return plan
            found = view.fetched[read]
        if row is None or found is None:
            text = f'the HPA controller was unable to get the target\'s current scale: "{target["name"]}" not found'
            return self._done(
                plan, hpa, now, [("AbleToScale", "False", "FailedGetScale", text)], None, None, None
            )
        uses_metrics = any(
            m["type"] in ("Resource", "ContainerResource") for m in hpa["spec"].get("metrics") or ()
        )
        if uses_metrics and self._registry.get(_METRICS) is not None:
            read = (_METRICS, meta.namespace(hpa), "")
            if read not in view.fetched:
                plan.reads.append(read)
                return plan
        return self._scale(plan, hpa, row, found, view, now)

    def _scale(self, plan: Plan, hpa: Object, row: Resource, target: Object, view: View, now: float) -> Plan:
        spec, current = hpa["spec"], target["spec"].get("replicas", 1)
        low, high = spec.get("minReplicas") or 1, spec["maxReplicas"]
        able = (
            "AbleToScale",
            "True",
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )
        if current == 0:
            text = "scaling is disabled since the replica count of the target is zero"
            off = ("ScalingActive", "False", "ScalingDisabled", text)
            return self._done(plan, hpa, now, [able, off], current, current, None)
        if current > high or current < low:
            wanted = high if current > high else low
            reason = f"Current number of replicas {'above Spec.MaxReplicas' if current > high else 'below Spec.MinReplicas'}"
            return self._resize(plan, hpa, row, target, now, wanted, reason, [able], None)
        chosen = view.selected("pods", meta.namespace(hpa), selector_of(target))
        sizes, metrics, problem = self._sizes(hpa, chosen, current, view)
        if not sizes:
            text = f"the HPA was unable to compute the replica count: {problem}"
            bad = ("ScalingActive", "False", "FailedGetResourceMetric", text)
            count = len(hpa["spec"].get("metrics") or ())
            text = f"invalid metrics ({count} invalid out of {count}), first error is: {problem}"
            plan.events.append(Event(hpa, "Warning", "FailedGetResourceMetric", problem))
            plan.events.append(Event(hpa, "Warning", "FailedComputeMetricsReplicas", text))
            return self._done(plan, hpa, now, [able, bad], current, current, metrics)
        advised, name = max(sizes)
        text = f"the HPA was able to successfully calculate a replica count from {name}"
        conditions = [able, ("ScalingActive", "True", "ValidMetricFound", text)]
        wanted, limited = self._bounded(
            hpa, current, self._stable(hpa, current, advised, now), low, high, now
        )
        conditions.append(limited)
        reason = f"{name} {'above' if wanted > current else 'below'} target"
        if wanted < current:
            reason = "All metrics below target"
        return self._resize(plan, hpa, row, target, now, wanted, reason, conditions, metrics)

    def _resize(
        self,
        plan: Plan,
        hpa: Object,
        row: Resource,
        target: Object,
        now: float,
        wanted: int,
        reason: str,
        conditions: list[tuple[str, str, str, str]],
        metrics: list[Object] | None,
    ) -> Plan:
        current = target["spec"].get("replicas", 1)
        if wanted != current:
            patch = {"spec": {"replicas": wanted}}
            plan.then(Patch(row.name, meta.name(target), patch, meta.namespace(target), subresource="scale"))
            text = f"New size: {wanted}; reason: {reason}"
            plan.why = text
            plan.events.append(Event(hpa, "Normal", "SuccessfulRescale", text))
            plan.events.append(Event(hpa, "Warning", "FailedRescale", f"{text}; error: {{error}}"))
            self._scaled[meta.uid(hpa)].append((now, wanted - current))
            conditions[0] = (
                "AbleToScale",
                "True",
                "SucceededRescale",
                f"the HPA controller was able to update the target scale to {wanted}",
            )
        return self._done(plan, hpa, now, conditions, current, wanted, metrics)

    def _done(
        self,
        plan: Plan,
        hpa: Object,
        now: float,
        conditions: list[tuple[str, str, str, str]],
        current: int | None,
        wanted: int | None,
        metrics: list[Object] | None,
    ) -> Plan:
        old = hpa.get("status", {})
        listed = list(old.get("conditions") or ())
        for kind, state, reason, message in conditions:
            new = {"type": kind, "status": state, "reason": reason, "message": message}
            listed = meta.set_condition(listed, new, now)
        status = old | {"conditions": listed, "observedGeneration": meta.generation(hpa)}
        if current is not None:
            status |= {"currentReplicas": current, "desiredReplicas": wanted}
            status["currentMetrics"] = metrics
            if wanted != current:
                status["lastScaleTime"] = stamp(now)
        return plan.then(*status_patch(_RESOURCE, hpa, status))

    def _sizes(
        self, hpa: Object, chosen: list[Object], current: int, view: View
    ) -> tuple[list[tuple[int, str]], list[Object] | None, str]:
        """(size by each metric with its name, status.currentMetrics, why there is none)."""
        listed = view.fetched.get((_METRICS, meta.namespace(hpa), "")) or []
        measured = {meta.name(m): m for m in listed}  # type: ignore[arg-type]
        sizes: list[tuple[int, str]] = []
        shown: list[Object] = []
        problem = "no metrics returned from resource metrics API"
        for metric in hpa["spec"].get("metrics") or ():
            kind = metric["type"]
            if kind not in ("Resource", "ContainerResource"):
                problem = f"metrics of type {kind} are not served here"
                continue
            source = metric["resource" if kind == "Resource" else "containerResource"]
            result = _by_resource(source, chosen, measured, current)
            if result is None:
                problem = f"failed to get {source['name']} utilization: unable to get metrics for resource {source['name']}: {problem}"
                continue
            size, now_used = result
            title = f"{source['name']} resource" + (
                " utilization (percentage of request)" if "averageUtilization" in now_used else ""
            )
            sizes.append((size, title))
            field = "resource" if kind == "Resource" else "containerResource"
            entry = {"name": source["name"], "current": now_used}
            shown.append(
                {
                    "type": kind,
                    field: entry | ({"container": source["container"]} if "container" in source else {}),
                }
            )
        return sizes, shown or None, problem

    def _stable(self, hpa: Object, current: int, advised: int, now: float) -> int:
        """Of the advice within the stabilisation windows the one that changes least."""
        up, down = _behavior(hpa)
        kept = self._advice[meta.uid(hpa)]
        kept.append((now, advised))
        longest = max(up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])
        kept[:] = [k for k in kept if k[0] >= now - longest]
        lowest = min(n for t, n in kept if t >= now - up["stabilizationWindowSeconds"])
        highest = max(n for t, n in kept if t >= now - down["stabilizationWindowSeconds"])
        return lowest if current < lowest else highest if current > highest else current

    def _bounded(
        self, hpa: Object, current: int, wanted: int, low: int, high: int, now: float
    ) -> tuple[int, tuple[str, str, str, str]]:
        up, down = _behavior(hpa)
        result = wanted
        if wanted > current:
            result = min(wanted, self._limit(hpa, up, current, now, 1))
        elif wanted < current:
            result = max(wanted, self._limit(hpa, down, current, now, -1))
        if result != wanted:
            reason = ("ScaleUpLimit", "increasing") if wanted > current else ("ScaleDownLimit", "decreasing")
            text = f"the desired replica count is {reason[1]} faster than the maximum scale rate"
            wanted, limited = result, ("ScalingLimited", "True", reason[0], text)
        else:
            limited = (
                "ScalingLimited",
                "False",
                "DesiredWithinRange",
                "the desired count is within the acceptable range",
            )
        if wanted > high:
            text = "the desired replica count is more than the maximum replica count"
            return high, ("ScalingLimited", "True", "TooManyReplicas", text)
        if wanted < low:
            text = "the desired replica count is less than the minimum replica count"
            return low, ("ScalingLimited", "True", "TooFewReplicas", text)
        return wanted, limited

    def _limit(self, hpa: Object, rule: Object, current: int, now: float, sign: int) -> int:
        """How far the policies let it go now; sign 1 is up, -1 down."""
        if rule.get("selectPolicy") == "Disabled":
            return current
        limits = []
        for policy in rule["policies"]:
            since = now - policy["periodSeconds"]
            recent = sum(n for t, n in self._scaled[meta.uid(hpa)] if t > since and n * sign > 0)
            start = current - recent
            if policy["type"] == "Pods":
                limits.append(start + sign * policy["value"])
            else:
                limits.append(start + sign * of_total(f"{policy['value']}%", start, up=sign > 0))
        widest = (rule.get("selectPolicy") or "Max") == "Max"
        return max(limits) if (sign > 0) == widest else min(limits)


def _behavior(hpa: Object) -> tuple[Object, Object]:
    given = hpa["spec"].get("behavior") or {}
    up, down = (
        default | {k: v for k, v in (given.get(name) or {}).items() if v is not None}
        for name, default in (("scaleUp", _UP), ("scaleDown", _DOWN))
    )
    return up, down


def _by_resource(
    source: Object, chosen: list[Object], measured: dict[str, Object], current: int
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
    if abs(ratio - 1) <= _TOLERANCE:
        return current, shown
    if not missing:
        return math.ceil(ratio * len(ready)), shown
    # Unmeasured pods must not make the answer more extreme.
    damped = (ratio * len(ready) + (missing if ratio < 1 else 0)) / (len(ready) + missing)
    if abs(damped - 1) <= _TOLERANCE or (damped < 1) != (ratio < 1):
        return current, shown
    return math.ceil(damped * (len(ready) + missing)), shown
