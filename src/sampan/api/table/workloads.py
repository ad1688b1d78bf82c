"""Columns of pods and of what makes pods."""

from __future__ import annotations

from typing import Any

from sampan.api.table.cells import NONE, UNKNOWN, age, containers, created, duration, labels, name, selector
from sampan.base.clock import rfc3339_parse
from sampan.base.objects import Object


def _pod(pod: Object, now: float) -> list[Any]:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    summary = _Summary(pod)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({age(summary.last_restart, now)} ago)"
    ips = status.get("podIPs") or []
    gates = spec.get("readinessGates") or []
    true = {c["type"] for c in status.get("conditions") or [] if c.get("status") == "True"}
    return [
        name(pod),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        created(pod, now),
        (ips[0].get("ip") if ips else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{sum(g['conditionType'] in true for g in gates)}/{len(gates)}" if gates else NONE,
    ]


class _Summary:
    """A pod in one word, and its containers in two numbers."""

    def __init__(self, pod: Object) -> None:
        self.spec, self.status = pod.get("spec", {}), pod.get("status", {})
        self.sidecars = {
            c["name"] for c in self.spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"
        }
        self.total = len(self.spec.get("containers") or []) + len(self.sidecars)
        self.ready = self.restarts = 0
        self.last_restart = ""
        self.reason = self.status.get("reason") or self.status.get("phase") or ""
        if self._condition("PodScheduled").get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        initializing = self._initial()
        if not initializing or self._condition("Initialized").get("status") == "True":
            self._main()
        if pod["metadata"].get("deletionTimestamp"):
            if self.status.get("reason") == "NodeLost":
                self.reason = "Unknown"
            elif self.status.get("phase") not in ("Succeeded", "Failed"):
                self.reason = "Terminating"

    def _condition(self, kind: str) -> Object:
        return next((c for c in self.status.get("conditions") or [] if c.get("type") == kind), {})

    def _count(self, container: Object) -> None:
        self.restarts += container.get("restartCount") or 0
        finished = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last_restart = max(self.last_restart, finished)

    def _initial(self) -> bool:
        """Look at the init containers; True when one of them is still to finish."""
        sidecar_restarts, sidecar_last = 0, ""
        waiting = False
        total = len(self.spec.get("initContainers") or [])
        for i, container in enumerate(self.status.get("initContainerStatuses") or []):
            self._count(container)
            sidecar = container.get("name") in self.sidecars
            if sidecar:
                sidecar_restarts += container.get("restartCount") or 0
                last = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
                sidecar_last = max(sidecar_last, last)
            state = container.get("state") or {}
            ended, pending = state.get("terminated"), state.get("waiting")
            if ended is not None and not ended.get("exitCode"):
                continue
            if sidecar and container.get("started"):
                self.ready += bool(container.get("ready"))
                continue
            if ended is not None:
                self.reason = "Init:" + _ended(ended)
            elif pending and pending.get("reason") not in (None, "", "PodInitializing"):
                self.reason = "Init:" + pending["reason"]
            else:
                self.reason = f"Init:{i}/{total}"
            waiting = True
            break
        if not waiting or self._condition("Initialized").get("status") == "True":
            self.restarts, self.last_restart = sidecar_restarts, sidecar_last
        return waiting

    def _main(self) -> None:
        running = False
        for container in reversed(self.status.get("containerStatuses") or []):
            self._count(container)
            state = container.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                self.reason = state["waiting"]["reason"]
            elif state.get("terminated") is not None:
                self.reason = _ended(state["terminated"])
            elif container.get("ready") and state.get("running") is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if self._condition("Ready").get("status") == "True" else "NotReady"


def _ended(terminated: Object) -> str:
    if terminated.get("reason"):
        return terminated["reason"]
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _wide(obj: Object) -> list[Any]:
    """The wide columns of everything with a pod template."""
    names, images = containers(obj["spec"].get("template", {}).get("spec", {}))
    return [names, images]


def _deployment(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [name(obj), ready, *counts, created(obj, now), *_wide(obj), selector(spec.get("selector"))]


def _replicaset(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name(obj), *counts, created(obj, now), *_wide(obj), selector(spec.get("selector"))]


def _scale(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj["spec"].get("replicas", 0), obj["status"]["replicas"], created(obj, now)]


def _replicationcontroller(obj: Object, now: float) -> list[Any]:
    return [*_replicaset(obj, now)[:-1], labels(obj["spec"].get("selector"))]


def _daemonset(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    counts = [
        status.get(key, 0)
        for key in (
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        )
    ]
    node_selector = labels(spec.get("template", {}).get("spec", {}).get("nodeSelector"))
    return [name(obj), *counts, node_selector, created(obj, now), *_wide(obj), selector(spec.get("selector"))]


def _statefulset(obj: Object, now: float) -> list[Any]:
    ready = f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}"
    return [name(obj), ready, created(obj, now), *_wide(obj)]


def _job(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    succeeded, wanted, parallel = (
        status.get("succeeded", 0),
        spec.get("completions"),
        spec.get("parallelism") or 0,
    )
    if wanted is not None:
        completions = f"{succeeded}/{wanted}"
    else:
        completions = f"{succeeded}/1 of {parallel}" if parallel > 1 else f"{succeeded}/1"
    took = ""
    if status.get("startTime"):
        end = status.get("completionTime")
        took = duration((rfc3339_parse(end) if end else now) - rfc3339_parse(status["startTime"]))
    return [
        name(obj),
        _job_state(obj),
        completions,
        took,
        created(obj, now),
        *_wide(obj),
        selector(spec.get("selector")),
    ]


def _job_state(obj: Object) -> str:
    true = {c["type"] for c in obj.get("status", {}).get("conditions") or [] if c.get("status") == "True"}
    for kind, text in (("Complete", "Complete"), ("Failed", "Failed")):
        if kind in true:
            return text
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if kind in true:
            return kind
    return "Running"


def _cronjob(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    last = age(status["lastScheduleTime"], now) if status.get("lastScheduleTime") else NONE
    template = spec.get("jobTemplate", {}).get("spec", {})
    names, images = containers(template.get("template", {}).get("spec", {}))
    return [
        name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or []),
        last,
        created(obj, now),
        names,
        images,
        selector(template.get("selector")),
    ]


def _podtemplate(obj: Object, now: float) -> list[Any]:
    template = obj.get("template", {})
    return [
        name(obj),
        *containers(template.get("spec", {})),
        labels(template.get("metadata", {}).get("labels")),
    ]


def _controllerrevision(obj: Object, now: float) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or [] if o.get("controller")), None)
    text = NONE
    if owner:
        group = owner["apiVersion"].partition("/")[0] if "/" in owner["apiVersion"] else ""
        text = f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}"
    return [name(obj), text, obj.get("revision", 0), created(obj, now)]


def _hpa(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    target = spec["scaleTargetRef"]
    minimum = spec.get("minReplicas")
    return [
        name(obj),
        f"{target['kind']}/{target['name']}",
        _hpa_targets(spec.get("metrics") or [], status.get("currentMetrics") or []),
        NONE if minimum is None else str(minimum),
        spec["maxReplicas"],
        status.get("currentReplicas", 0),
        created(obj, now),
    ]


def _hpa_targets(metrics: list[Object], current: list[Object]) -> str:
    if not metrics:
        return NONE
    texts = []
    for i, metric in enumerate(metrics[:2]):
        key = metric["type"][0].lower() + metric["type"][1:]
        wanted = (metric.get(key) or {}).get("target") or {}
        now = ((current[i] if i < len(current) else {}).get(key) or {}).get("current") or {}
        if wanted.get("averageUtilization") is not None:
            have = now.get("averageUtilization")
            text = f"{UNKNOWN if have is None else f'{have}%'}/{wanted['averageUtilization']}%"
        elif wanted.get("averageValue") is not None:
            text = f"{now.get('averageValue') or UNKNOWN}/{wanted['averageValue']}" + (
                "" if key == "pods" else " (avg)" if key != "resource" else ""
            )
        else:
            text = f"{now.get('value') or UNKNOWN}/{wanted.get('value')}"
        if key == "resource":
            text = f"{metric[key]['name']}: {text}"
        texts.append(text)
    more = f" + {len(metrics) - 2} more..." if len(metrics) > 2 else ""
    return ", ".join(texts) + more


COLUMNS = {
    "pods": ("Name|Ready|Status|Restarts|Age|IP*|Node*|Nominated Node*|Readiness Gates*", _pod),
    "deployments.apps": ("Name|Ready|Up-to-date|Available|Age|Containers*|Images*|Selector*", _deployment),
    "scales.autoscaling": ("Name|Desired:integer|Available:integer|Age", _scale),
    "replicasets.apps": (
        "Name|Desired:integer|Current:integer|Ready:integer|Age|Containers*|Images*|Selector*",
        _replicaset,
    ),
    "replicationcontrollers": (
        "Name|Desired:integer|Current:integer|Ready:integer|Age|Containers*|Images*|Selector*",
        _replicationcontroller,
    ),
    "daemonsets.apps": (
        "Name|Desired:integer|Current:integer|Ready:integer|Up-to-date:integer|Available:integer|Node Selector|Age"
        "|Containers*|Images*|Selector*",
        _daemonset,
    ),
    "statefulsets.apps": ("Name|Ready|Age|Containers*|Images*", _statefulset),
    "jobs.batch": ("Name|Status|Completions|Duration|Age|Containers*|Images*|Selector*", _job),
    "cronjobs.batch": (
        "Name|Schedule|Timezone|Suspend|Active:integer|Last Schedule|Age|Containers*|Images*|Selector*",
        _cronjob,
    ),
    "podtemplates": ("Name|Containers|Images|Pod Labels", _podtemplate),
    "controllerrevisions.apps": ("Name|Controller|Revision|Age", _controllerrevision),
    "horizontalpodautoscalers.autoscaling": ("Name|Reference|Targets|MinPods|MaxPods|Replicas|Age", _hpa),
}
