"""How much of a namespace's quota an object uses: shared by admission, which refuses, and the controller, which reports.

Source: Kubernetes documentation, "Resource Quotas"; API reference, ResourceQuotaSpec.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api import meta, pod_resources, quantity
from sampan.api.qos import qos_class
from sampan.api.quantity import Quantity
from sampan.base.clock import rfc3339_parse
from sampan.base.objects import ReadOnlyObject

Amounts = dict[str, Quantity]
ONE = quantity.parse("1")
# Kinds that may also be limited by their bare name, not only as count/NAME.
_BARE = frozenset(
    (
        "configmaps",
        "secrets",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "persistentvolumeclaims",
        "pods",
    )
)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
# A quota on these makes every container say what it wants.
_MUST_SPECIFY = frozenset(("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"))
_STORAGE_CLASS = ".storageclass.storage.k8s.io/"


def usage(resource: str, obj: ReadOnlyObject, now: float) -> Amounts:
    """What an object of a resource (GroupResource text) uses, by quota name. Finished pods use only count/pods."""
    used = {f"count/{resource}": ONE}
    if resource in _BARE and (resource != "pods" or _counts(obj, now)):
        used[resource] = ONE
        extra = _EXTRA.get(resource)
        if extra is not None:
            used.update(extra(obj))
    return used


def bucket_of(name: str) -> str | None:
    """The resource whose objects count towards a quota name such as `requests.cpu` or `count/jobs.batch`."""
    if name.startswith("count/"):
        return name[len("count/") :]
    if name in _BARE:
        return name
    if name.startswith("services."):
        return "services"
    if name == "requests.storage" or _STORAGE_CLASS in name:
        return "persistentvolumeclaims"
    if name.startswith(("requests.", "limits.", "hugepages-")) or name in _COMPUTE:
        return "pods"
    return None


def _counts(pod: ReadOnlyObject, now: float) -> bool:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    deleted = meta.metadata(pod).get("deletionTimestamp")
    grace = meta.metadata(pod).get("deletionGracePeriodSeconds")
    return not deleted or grace is None or rfc3339_parse(deleted) + grace >= now


# Pods


def pod_total(spec: ReadOnlyObject, side: str) -> Amounts:
    """The `requests` or `limits` of a whole pod."""
    return pod_resources.total(spec, side, _read)


def _of(holder: ReadOnlyObject, side: str) -> Amounts:
    return pod_resources.of(holder, side, _read)


def _read(name: str, text: Any) -> Quantity:
    return quantity.parse(text)


def compute_names(requests: Amounts, limits: Amounts) -> Amounts:
    """Requests and limits under the names that quotas have for them."""
    used: Amounts = {}
    for name, amount in requests.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            used[name] = used[f"requests.{name}"] = amount
        elif "/" in name:
            used[f"requests.{name}"] = amount
    for name, amount in limits.items():
        if name in _COMPUTE:
            used[f"limits.{name}"] = amount
    return used


def _pod(pod: ReadOnlyObject) -> Amounts:
    spec = pod.get("spec") or {}
    return compute_names(pod_total(spec, "requests"), pod_total(spec, "limits"))


def unspecified(pod: ReadOnlyObject, hard: Iterable[str]) -> dict[str, list[str]]:
    """Quota names that a container must say something about and does not: name -> containers, sorted."""
    required = _MUST_SPECIFY & set(hard)
    spec = pod.get("spec") or {}
    missing: dict[str, list[str]] = {}
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            said = compute_names(_of(container, "requests"), _of(container, "limits"))
            for name in required - set(said):
                missing.setdefault(name, []).append(container.get("name", ""))
    return {name: sorted(missing[name]) for name in sorted(missing)}


# Services and claims


def _service(service: ReadOnlyObject) -> Amounts:
    spec = service.get("spec") or {}
    kind, ports = spec.get("type", "ClusterIP"), spec.get("ports") or []
    used: Amounts = {}
    if kind == "NodePort":
        used["services.nodeports"] = quantity.parse(str(len(ports)))
    elif kind == "LoadBalancer":
        allocated = spec.get("allocateLoadBalancerNodePorts", True)
        count = len(ports) if allocated else sum(1 for p in ports if p.get("nodePort"))
        used["services.nodeports"] = quantity.parse(str(count))
        used["services.loadbalancers"] = ONE
    return used


def _claim(claim: ReadOnlyObject) -> Amounts:
    spec = claim.get("spec") or {}
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    storage_class = spec.get("storageClassName") or ""
    used: Amounts = {}
    if storage_class:
        used[f"{storage_class}{_STORAGE_CLASS}persistentvolumeclaims"] = ONE
    if wanted is not None:
        used["requests.storage"] = quantity.parse(wanted)
        if storage_class:
            used[f"{storage_class}{_STORAGE_CLASS}requests.storage"] = quantity.parse(wanted)
    return used


_EXTRA = {"pods": _pod, "services": _service, "persistentvolumeclaims": _claim}


# Scopes


def in_scope(quota: ReadOnlyObject, resource: str, obj: ReadOnlyObject) -> bool:
    """Whether a quota speaks of this object at all: every scope of it must match."""
    spec = quota.get("spec") or {}
    terms = [{"scopeName": s, "operator": "Exists"} for s in spec.get("scopes") or ()]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_matches(term, resource, obj) for term in terms)


def _matches(term: Mapping[str, Any], resource: str, obj: ReadOnlyObject) -> bool:
    spec, scope = obj.get("spec") or {}, term.get("scopeName", "")
    if resource == "persistentvolumeclaims" and scope == "VolumeAttributesClass":
        return _selects(term, spec.get("volumeAttributesClassName") or "")
    if resource != "pods":
        return False
    if scope == "PriorityClass":
        return _selects(term, spec.get("priorityClassName") or "")
    deadline = spec.get("activeDeadlineSeconds")
    return {
        "Terminating": deadline is not None,
        "NotTerminating": deadline is None,
        "BestEffort": qos_class(spec) == "BestEffort",
        "NotBestEffort": qos_class(spec) != "BestEffort",
        "CrossNamespacePodAffinity": _crosses(spec),
    }.get(scope, False)


def _selects(term: Mapping[str, Any], value: str) -> bool:
    operator, values = term.get("operator", "Exists"), term.get("values") or ()
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    return bool(value) == (operator == "Exists")


def _crosses(spec: ReadOnlyObject) -> bool:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            terms.append(weighted.get("podAffinityTerm") or {})
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in terms):
            return True
    return False
