"""HorizontalPodAutoscaler: the size at which the pods' average use meets the target, within bounds and not too fast.

Source: API reference HorizontalPodAutoscaler v2, "Horizontal Pod Autoscaling" (algorithm details, scaling behavior).
What was recommended and done lately is remembered here, as in the original; a restart forgets it.
"""

from __future__ import annotations

from collections import defaultdict

from sampan.api import meta, selectors
from sampan.api.registry import Registry
from sampan.base.objects import Object
from sampan.client.plan import Event, Key, Plan, Update, View

from . import hpa_metrics
from .base import Rule, stamp, status_patch
from .rolling import of_total

_RESOURCE = "horizontalpodautoscalers.autoscaling"
_PERIOD = 15.0
_LONGEST = 1800.0  # seconds: the most that a policy's periodSeconds may be
_NO_SCALE = "the server could not find the requested resource"
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
    return [
        Rule("horizontal-pod-autoscaler", _RESOURCE, scaler.reconcile, reads=("pods",), removed=scaler.forget)
    ]


class Autoscaler:
    """`registry` tells which resource a target's kind is. Whatever it is, it is seen and sized through its `/scale`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._advice: dict[str, list[tuple[float, int]]] = defaultdict(
            list
        )  # namespace/name -> (moment, size)
        self._scaled: dict[str, list[tuple[float, int]]] = defaultdict(
            list
        )  # namespace/name -> (moment, change)

    def forget(self, key: Key, view: View, now: float) -> Plan:
        """Its object is gone, and so is what was recommended and done for it."""
        for remembered in (self._advice, self._scaled):
            remembered.pop(f"{key.namespace}/{key.name}", None)
        return Plan()

    def reconcile(self, hpa: Object, view: View, now: float) -> Plan:
        """Every 15 seconds: the target's scale and, where metrics are asked for, the use of its pods, then a size.

        Both are asked for in `plan.reads`. Source: "Horizontal Pod Autoscaling", algorithm details.
        """
        plan = Plan().requeue(_PERIOD)
        target = hpa["spec"]["scaleTargetRef"]
        resource = self._scalable(target)
        read = (f"{resource}/scale", meta.namespace(hpa), target["name"])
        if resource and read not in view.fetched:
            plan.reads.append(read)
            return plan
        scale = view.fetched[read] if resource else None
        if scale is None:
            text = f'{resource} "{target["name"]}" not found' if resource else _NO_SCALE
            plan.events.append(Event(hpa, "Warning", "FailedGetScale", text))
            text = f"the HPA controller was unable to get the target's current scale: {text}"
            bad = ("AbleToScale", "False", "FailedGetScale", text)
            return self._done(plan, hpa, now, [bad], None, None, None)
        uses_metrics = any(
            m["type"] in ("Resource", "ContainerResource") for m in hpa["spec"].get("metrics") or ()
        )
        if uses_metrics and self._registry.get(hpa_metrics.RESOURCE) is not None:
            read = (hpa_metrics.RESOURCE, meta.namespace(hpa), "")
            if read not in view.fetched:
                plan.reads.append(read)
                return plan
        return self._size(plan, hpa, scale, view, now)

    def _scalable(self, target: Object) -> str:
        """The resource of the target's kind; empty for one that nobody can scale."""
        group, _, version = target.get("apiVersion", "v1").rpartition("/")
        row = self._registry.by_kind(group, version, target["kind"])
        return row.name if row and "scale" in row.subresources else ""

    def _size(self, plan: Plan, hpa: Object, scale: Object, view: View, now: float) -> Plan:
        spec, current = hpa["spec"], _replicas(scale)
        # Who has seen nothing yet takes the size it finds for advice: a new autoscaler does not shrink at once.
        if not self._advice[meta.key(hpa)]:
            self._advice[meta.key(hpa)].append((view.moment, current))
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
            return self._resize(plan, hpa, scale, view, now, wanted, reason, [able], None)
        selector = scale["status"].get("selector")
        if not selector:
            plan.events.append(Event(hpa, "Warning", "SelectorRequired", "selector is required"))
            text = "the HPA target's scale is missing a selector"
            bad = ("ScalingActive", "False", "InvalidSelector", text)
            return self._done(plan, hpa, now, [able, bad], current, current, None)
        chosen = view.selected("pods", meta.namespace(hpa), selectors.parse_labels(selector))
        sizes, metrics, problem = hpa_metrics.sizes(hpa, chosen, current, view)
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
        wanted = self._stable(hpa, current, advised, view.moment)
        conditions[0] = ("AbleToScale", "True", *_stabilized(current, advised, wanted))
        wanted, limited = self._bounded(hpa, current, wanted, low, high, view.moment)
        conditions.append(limited)
        reason = f"{name} {'above' if wanted > current else 'below'} target"
        if wanted < current:
            reason = "All metrics below target"
        return self._resize(plan, hpa, scale, view, now, wanted, reason, conditions, metrics)

    def _resize(
        self,
        plan: Plan,
        hpa: Object,
        scale: Object,
        view: View,
        now: float,
        wanted: int,
        reason: str,
        conditions: list[tuple[str, str, str, str]],
        metrics: list[Object] | None,
    ) -> Plan:
        current = _replicas(scale)
        if wanted != current:
            target = hpa["spec"]["scaleTargetRef"]
            plan.then(Update(self._scalable(target), scale | {"spec": {"replicas": wanted}}, "scale"))
            text = f"New size: {wanted}; reason: {reason}"
            plan.why = text
            plan.events.append(Event(hpa, "Normal", "SuccessfulRescale", text))
            plan.events.append(Event(hpa, "Warning", "FailedRescale", f"{text}; error: {{error}}"))
            kept = self._scaled[meta.key(hpa)]
            kept[:] = [k for k in kept if k[0] > view.moment - _LONGEST]
            kept.append((view.moment, wanted - current))
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

    def _stable(self, hpa: Object, current: int, advised: int, moment: float) -> int:
        """Of the advice within the stabilisation windows the one that changes least."""
        up, down = _behavior(hpa)
        kept = self._advice[meta.key(hpa)]
        lowest = min([advised, *(n for t, n in kept if t > moment - up["stabilizationWindowSeconds"])])
        highest = max([advised, *(n for t, n in kept if t > moment - down["stabilizationWindowSeconds"])])
        longest = max(up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])
        kept[:] = [k for k in kept if k[0] > moment - longest]
        kept.append((moment, advised))
        return lowest if current < lowest else highest if current > highest else current

    def _bounded(
        self, hpa: Object, current: int, wanted: int, low: int, high: int, moment: float
    ) -> tuple[int, tuple[str, str, str, str]]:
        up, down = _behavior(hpa)
        result = wanted
        if wanted > current:
            result = min(wanted, self._limit(hpa, up, current, moment, 1))
        elif wanted < current:
            result = max(wanted, self._limit(hpa, down, current, moment, -1))
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

    def _limit(self, hpa: Object, rule: Object, current: int, moment: float, sign: int) -> int:
        """How far the policies let it go now; sign 1 is up, -1 down."""
        if rule.get("selectPolicy") == "Disabled":
            return current
        limits = []
        for policy in rule["policies"]:
            since = moment - policy["periodSeconds"]
            recent = sum(n for t, n in self._scaled[meta.key(hpa)] if t > since and n * sign > 0)
            start = current - recent
            if policy["type"] == "Pods":
                limits.append(start + sign * policy["value"])
            else:
                limits.append(start + sign * of_total(f"{policy['value']}%", start, up=sign > 0))
        widest = (rule.get("selectPolicy") or "Max") == "Max"
        return max(limits) if (sign > 0) == widest else min(limits)


def _stabilized(current: int, advised: int, wanted: int) -> tuple[str, str]:
    """Reason and message of AbleToScale: whether earlier advice holds it back."""
    if wanted == advised:
        return "ReadyForNewScale", "recommended size matches current size"
    if advised > current:
        return (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        )
    return (
        "ScaleDownStabilized",
        "recent recommendations were higher than current one, applying the highest recent recommendation",
    )


def _replicas(scale: Object) -> int:
    """A Scale says nothing of a size that is 0."""
    return int(scale["spec"].get("replicas", 0))


def _behavior(hpa: Object) -> tuple[Object, Object]:
    given = hpa["spec"].get("behavior") or {}
    up, down = (
        default | {k: v for k, v in (given.get(name) or {}).items() if v is not None}
        for name, default in (("scaleUp", _UP), ("scaleDown", _DOWN))
    )
    return up, down
