"""APIServices: one for each group version served here, and whether the servers behind the others can be reached.

Asking such a server is an effect: the runner calls `effect:apiservice` with the name and gets {} or {"error": text}.
Source: "Kubernetes API Aggregation Layer"; API reference APIService v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Key, Plan, View

from .base import Rule, stamp, status_patch

_RESOURCE = "apiservices.apiregistration.k8s.io"
_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_SLICES = "endpointslices.discovery.k8s.io"
_OF_SERVICE = "kubernetes.io/service-name"
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_AGAIN = 30.0  # seconds between two looks at another server
_CUSTOM_GROUP, _CUSTOM_VERSION = 1000, 100  # priorities of custom resources' groups


def rules() -> list[Rule]:
    watches = {"services": _by_service, _SLICES: _by_slice}
    return [
        Rule("kube-aggregator", _RESOURCE, reconcile, watches=watches),
        Rule("kube-aggregator/definitions", _DEFINITIONS, register, removed=unregister),
    ]


def _by_service(service: Object, view: View) -> Iterable[Key]:
    return _behind(view, meta.namespace(service), meta.name(service))


def _by_slice(piece: Object, view: View) -> Iterable[Key]:
    return _behind(view, meta.namespace(piece), meta.labels(piece).get(_OF_SERVICE, ""))


def _behind(view: View, namespace: str, name: str) -> Iterator[Key]:
    for service in view.list(_RESOURCE):
        ref = service["spec"].get("service")
        if ref and (ref.get("namespace"), ref.get("name")) == (namespace, name):
            yield Key("", meta.name(service))


def reconcile(service: Object, view: View, now: float) -> Plan:
    """Keeps the condition Available true to what is."""
    ref = service["spec"].get("service")
    if not ref:
        text = "Local APIServices are always available"
        return _told(Plan(), service, "True", "Local", text, now)
    plan = Plan().requeue(_AGAIN)
    missing = _missing(ref, view)
    if missing is not None:
        return _told(plan, service, "False", *missing, now)
    read = ("effect:apiservice", "", meta.name(service))
    if read not in view.fetched:
        plan.reads = [read]
        return plan
    wrong = (view.fetched[read] or {}).get("error")
    if wrong:
        return _told(plan, service, "False", "FailedDiscoveryCheck", wrong, now)
    return _told(plan, service, "True", "Passed", "all checks passed", now)


def _missing(ref: Object, view: View) -> tuple[str, str] | None:
    """(reason, message) of what lacks before the server could be asked at all."""
    namespace, name, port = ref.get("namespace", ""), ref.get("name", ""), ref.get("port") or 443
    where = f'service/{name} in "{namespace}"'
    backing = view.get("services", name, namespace)
    if backing is None:
        return "ServiceNotFound", f"{where} is not present"
    spec = backing["spec"]
    if spec.get("type") == "ExternalName":
        return None
    wanted = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if wanted is None:
        return "ServicePortError", f"{where} is not listening on port {port}"
    pieces = [p for p in view.list(_SLICES, namespace) if meta.labels(p).get(_OF_SERVICE) == name]
    if not pieces:
        return "EndpointsNotFound", f"cannot find endpointslices for {where}"
    port_name = wanted.get("name") or ""
    if not any(_ready(piece, port_name) for piece in pieces):
        text = f'endpointslices for {where} have no addresses with port name "{port_name}"'
        return "MissingEndpoints", text
    return None


def _ready(piece: Object, port_name: str) -> bool:
    if not any((p.get("name") or "") == port_name for p in piece.get("ports") or ()):
        return False
    return any((e.get("conditions") or {}).get("ready") is not False for e in piece.get("endpoints") or ())


def _told(plan: Plan, service: Object, status: str, reason: str, message: str, now: float) -> Plan:
    """Others may add conditions of their own: theirs stay."""
    old = meta.condition(service, "Available")
    told = {"type": "Available", "status": status, "reason": reason, "message": message}
    if old is not None and {k: v for k, v in old.items() if k != "lastTransitionTime"} == told:
        return plan
    since = old.get("lastTransitionTime") if old is not None and old.get("status") == status else None
    told = {"lastTransitionTime": since or stamp(now), **told}
    others = [c for c in meta.conditions(service) if c.get("type") != "Available"]
    plan.why = f"{reason}: {message}"
    return plan.then(*status_patch(_RESOURCE, service, {"conditions": [*others, told]}, exact=True))


# One for each group version of custom resources


def register(definition: Object, view: View, now: float) -> Plan:
    """A served version of a custom resource is listed as an APIService; those of versions that are no longer served go."""
    if not meta.is_true(definition, "Established") or meta.deleted(definition):
        return Plan()
    group = definition["spec"]["group"]
    served = [v["name"] for v in definition["spec"]["versions"] if v.get("served")]
    lacking = [v for v in served if view.get(_RESOURCE, f"{v}.{group}") is None]
    made = [local(group, v, _CUSTOM_GROUP, _CUSTOM_VERSION, "true") for v in lacking]
    plan = Plan().then(*[Create(_RESOURCE, obj, exists_ok=True) for obj in made])
    return plan.then(*_orphans(view, group))


def unregister(key: Key, view: View, now: float) -> Plan:
    group = key.name.partition(".")[2]
    return Plan().then(*_orphans(view, group))


def _orphans(view: View, group: str) -> list[Delete]:
    """Removals of what was made here for versions that no definition serves any more."""
    served = {
        v["name"]
        for d in view.list(_DEFINITIONS)
        if d["spec"]["group"] == group
        for v in d["spec"]["versions"]
        if v.get("served")
    }
    return [
        Delete(_RESOURCE, meta.name(s), uid=meta.uid(s))
        for s in view.list(_RESOURCE)
        if s["spec"].get("group") == group
        and meta.labels(s).get(MANAGED) == "true"
        and s["spec"].get("version") not in served
    ]


def local(group: str, version: str, group_priority: int, version_priority: int, managed: str) -> Object:
    """The APIService of a group version that this server serves itself."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}", "labels": {MANAGED: managed}},
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": group_priority,
            "versionPriority": version_priority,
        },
    }
