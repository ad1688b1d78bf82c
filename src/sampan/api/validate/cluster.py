"""Nodes, namespaces, events, leases, service accounts. Source: API reference of each."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.validate import meta
from sampan.api.validate.affinity import EFFECTS
from sampan.api.validate.base import (
    NONE,
    Errors,
    amount,
    dns_subdomain,
    duplicate,
    forbidden_field,
    invalid_value,
    key_problems,
    network,
    one_of,
    qualified,
    required,
    required_one_of,
    texts,
    value_problems,
)
from sampan.base.objects import Object

# Namespace


def namespace(errors: Errors, obj: Object) -> None:
    for finalizer in (obj.get("spec") or NONE).get("finalizers") or ():
        namespace_finalizer(errors, finalizer, "spec.finalizers")


def namespace_finalizer(errors: Errors, finalizer: str, path: str) -> None:
    """`kubernetes`, or a qualified name. Source: API reference, NamespaceSpec v1."""
    texts(errors, path, finalizer, key_problems)
    if not meta.qualified(finalizer):
        detail = "name is neither a standard finalizer name nor is it fully qualified"
        errors.append(invalid_value(path, finalizer, detail))


def namespace_finalize(errors: Errors, new: Object, old: Object) -> None:
    """PUT to `namespaces/NAME/finalize` sets spec.finalizers alone; nothing else is judged."""
    for index, finalizer in enumerate((new.get("spec") or NONE).get("finalizers") or ()):
        namespace_finalizer(errors, finalizer, f"spec.finalizers[{index}]")


# Node


def node(errors: Errors, obj: Object) -> None:
    """Source: API reference, NodeSpec v1. At most one range of pod addresses for each IP family."""
    spec = obj.get("spec") or NONE
    taints(errors, spec.get("taints") or (), "metadata.taints")  # the original's path
    _capacity(errors, obj)
    given = spec.get("podCIDRs") or ()
    for index, text in enumerate(given):
        if network(text) is None:
            detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            errors.append(invalid_value(f"spec.podCIDRs[{index}]", text, detail))
    if len(given) > 2:
        detail = "may specify no more than one CIDR for each IP family"
        errors.append(invalid_value("spec.podCIDRs", list(given), detail))


def taints(errors: Errors, given: Sequence[Object], path: str) -> None:
    """One for each key and effect."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(given):
        at = f"{path}[{index}]"
        key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
        qualified(errors, f"{at}.key", key)
        texts(errors, f"{at}.value", value, value_problems)
        required_one_of(errors, f"{at}.effect", effect, EFFECTS)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            errors.append(duplicate(at, shown))
        seen.add((key, effect))


def _capacity(errors: Errors, obj: Object) -> None:
    for field in ("capacity", "allocatable"):
        for name, text in ((obj.get("status") or NONE).get(field) or {}).items():
            size = amount(text)
            if size is not None and size.nano < 0:
                detail = "must be greater than or equal to 0"
                errors.append(invalid_value(f"status.{field}[{name}]", text, detail))


_NODE_OPEN = ("taints", "unschedulable", "configSource", "podCIDR", "podCIDRs", "providerID", "externalID")


def node_update(errors: Errors, new: Object, old: Object) -> None:
    """What may change: taints, unschedulable; pod ranges and providerID once, from nothing to something."""
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    taints(errors, after.get("taints") or (), "metadata.taints")
    _capacity(errors, new)
    if before.get("podCIDRs") and after.get("podCIDRs") != before["podCIDRs"]:
        detail = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden_field("spec.podCIDRs", detail))
    if before.get("providerID") and after.get("providerID") != before["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden_field("spec.providerID", detail))
    rest = (after.keys() | before.keys()).difference(_NODE_OPEN)
    if any(after.get(f) != before.get(f) for f in rest):
        detail = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)"
        errors.append(forbidden_field("", detail))


def node_status(errors: Errors, new: Object, old: Object) -> None:
    """Capacity is not negative, and an address is told once for each type."""
    _capacity(errors, new)
    seen: set[str] = set()
    for index, entry in enumerate((new.get("status") or NONE).get("addresses") or ()):
        shown = {"Type": entry.get("type", ""), "Address": entry.get("address", "")}
        if str(shown) in seen:
            errors.append(duplicate(f"status.addresses[{index}]", shown))
        seen.add(str(shown))


# Event


def event(errors: Errors, obj: Object) -> None:
    """Of the core group: an event lies where its object does; one of a cluster-wide object in `default`."""
    _event_place(errors, obj, "involvedObject")


def _event_place(errors: Errors, obj: Object, field: str) -> None:
    about = (obj.get(field) or NONE).get("namespace", "")
    lies = obj["metadata"].get("namespace", "")
    if about != lies and not (not about and lies in ("default", "kube-system")):
        errors.append(invalid_value("involvedObject.namespace", about, "does not match event.namespace"))


def event_new(errors: Errors, obj: Object) -> None:
    """Of events.k8s.io. Source: API reference, Event v1 events.k8s.io."""
    _event_place(errors, obj, "regarding")
    if not obj.get("eventTime"):
        errors.append(required("eventTime"))
    controller = obj.get("reportingController", "")
    if not controller:
        errors.append(required("reportingController"))
    else:
        qualified(errors, "reportingController", controller)
    for field in ("reportingInstance", "action", "reason"):
        value = obj.get(field, "")
        if not value:
            errors.append(required(field))
        elif len(value) > 128:
            errors.append(invalid_value(field, "", "can have at most 128 characters"))
    if len(obj.get("note", "")) > 1024:
        errors.append(invalid_value("message", "", "can have at most 1024 characters"))
    one_of(errors, "type", obj.get("type", ""), ("Normal", "Warning"))
    for field in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        if obj.get(field):
            name = field.removeprefix("deprecated")
            errors.append(invalid_value(name[0].lower() + name[1:], obj[field], "needs to be unset"))
    if obj.get("deprecatedCount"):
        errors.append(invalid_value("count", obj["deprecatedCount"], "needs to be unset"))


def event_update(errors: Errors, new: Object, old: Object) -> None:
    """Of the core group: as when it was made."""
    event(errors, new)


# Lease


def lease(errors: Errors, obj: Object) -> None:
    """Source: API reference, LeaseSpec v1."""
    spec = obj.get("spec") or NONE
    seconds, count = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        errors.append(invalid_value("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    if count is not None and count < 0:
        errors.append(invalid_value("spec.leaseTransitions", count, "must be greater than or equal to 0"))


def lease_update(errors: Errors, new: Object, old: Object) -> None:
    lease(errors, new)


# APIService (its name and priorities)


def api_service(errors: Errors, obj: Object) -> None:
    """Its name says what it serves. A local one has no Service behind it, so there is no certificate to be checked.

    Source: API reference, APIServiceSpec v1 (groupPriorityMinimum up to 20,000, versionPriority up to 1,000).
    """
    spec = obj.get("spec") or NONE
    group, version, name = spec.get("group", ""), spec.get("version", ""), obj["metadata"].get("name", "")
    expected = f"{version}.{group}"
    if name != expected:
        detail = f'must be `spec.version+"."+spec.group`: "{expected}"'
        errors.append(invalid_value("metadata.name", name, detail))
    if group:
        dns_subdomain(errors, "spec.group", group)
    first, second = spec.get("groupPriorityMinimum", 0), spec.get("versionPriority", 0)
    if not 0 < first <= 20000:
        detail = "must be positive and less than 20000"
        errors.append(invalid_value("spec.groupPriorityMinimum", first, detail))
    if not 0 < second <= 1000:
        detail = "must be positive and less than 1000"
        errors.append(invalid_value("spec.versionPriority", second, detail))
    service = spec.get("service")
    if service is None:
        if spec.get("caBundle"):
            errors.append(
                invalid_value(
                    "spec.caBundle",
                    f"{len(spec['caBundle'])} bytes",
                    "local APIServices may not have a caBundle",
                )
            )
        if spec.get("insecureSkipTLSVerify"):
            errors.append(
                invalid_value(
                    "spec.insecureSkipTLSVerify", True, "local APIServices may not have insecureSkipTLSVerify"
                )
            )
        return
    for field in ("namespace", "name"):
        if not service.get(field):
            errors.append(required(f"spec.service.{field}"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        detail = "may not be true if caBundle is present"
        errors.append(invalid_value("spec.insecureSkipTLSVerify", True, detail))


def api_service_update(errors: Errors, new: Object, old: Object) -> None:
    api_service(errors, new)
