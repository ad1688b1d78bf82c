"""Which fields each kind can be selected by, and how a list or watch is narrowed without decoding objects.

The values stand beside the stored bytes (`Item.fields`). Source: API reference, "Field Selectors"; each kind's
GetAttrs. Kinds differ in the text of their refusal, as in the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.registry import Resource
from sampan.api.status import bad_request
from sampan.base.objects import Object
from sampan.server.options import ListOptions
from sampan.store.protocol import KEY, Item, Route

Match = Callable[[Item], bool]


def _path(*steps: str) -> Callable[[Object], str]:
    first, rest = steps[0], steps[1:]

    def value(obj: Object) -> str:
        found: Any = obj.get(first)
        for step in rest:
            if type(found) is not dict:
                return ""
            found = found.get(step)
        if type(found) is str:
            return found
        if found is None:
            return ""
        if type(found) is bool:
            return "true" if found else "false"
        return str(found)

    return value


def _flag(*steps: str) -> Callable[[Object], str]:
    read = _path(*steps)
    return lambda obj: read(obj) or "false"


def _count(*steps: str) -> Callable[[Object], str]:
    read = _path(*steps)
    return lambda obj: read(obj) or "0"


def _event_source(obj: Object) -> str:
    return (obj.get("source") or {}).get("component", "") or obj.get("reportingComponent", "")


_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

# store bucket -> field -> its value in an object
_FIELDS: dict[str, dict[str, Callable[[Object], str]]] = {
    "pods": {
        "spec.nodeName": _path("spec", "nodeName"),
        "spec.restartPolicy": _path("spec", "restartPolicy"),
        "spec.schedulerName": _path("spec", "schedulerName"),
        "spec.serviceAccountName": _path("spec", "serviceAccountName"),
        "spec.hostNetwork": _flag("spec", "hostNetwork"),
        "status.phase": _path("status", "phase"),
        "status.podIP": _path("status", "podIP"),
        "status.nominatedNodeName": _path("status", "nominatedNodeName"),
    },
    "nodes": {"spec.unschedulable": _flag("spec", "unschedulable")},
    "events": {
        **{f"involvedObject.{name}": _path("involvedObject", name) for name in _INVOLVED},
        "reason": _path("reason"),
        "type": _path("type"),
        "source": _event_source,
        "reportingComponent": _path("reportingComponent"),
    },
    "secrets": {"type": _path("type")},
    "namespaces": {"status.phase": _path("status", "phase")},
    "replicationcontrollers": {"status.replicas": _count("status", "replicas")},
    "replicasets.apps": {"status.replicas": _count("status", "replicas")},
    "services": {"spec.clusterIP": _path("spec", "clusterIP"), "spec.type": _path("spec", "type")},
    "jobs.batch": {"status.successful": _count("status", "succeeded")},
    "certificatesigningrequests.certificates.k8s.io": {"spec.signerName": _path("spec", "signerName")},
    "podcertificaterequests.certificates.k8s.io": {
        "spec.signerName": _path("spec", "signerName"),
        "spec.nodeName": _path("spec", "nodeName"),
        "spec.podName": _path("spec", "podName"),
    },
    "clustertrustbundles.certificates.k8s.io": {"spec.signerName": _path("spec", "signerName")},
    "resourceslices.resource.k8s.io": {
        "spec.nodeName": _path("spec", "nodeName"),
        "spec.driver": _path("spec", "driver"),
    },
    "ipaddresses.networking.k8s.io": {"parentRef.resource": _path("spec", "parentRef", "resource")},
}
# fields under the name another version of the same bucket has for them
_RENAMED = {
    "events.k8s.io": {
        **{f"regarding.{name}": f"involvedObject.{name}" for name in _INVOLVED},
        "reportingController": "reportingComponent",
    }
}
# Kinds with their own conversion of field labels say so in these words; the others name what they know.
_OWN_WORDS = {
    "pods",
    "nodes",
    "events",
    "namespaces",
    "secrets",
    "replicationcontrollers",
    "services",
    "certificatesigningrequests.certificates.k8s.io",
    "podcertificaterequests.certificates.k8s.io",
}
_NONE: Mapping[str, str] = {}


def values(row: Resource, obj: Object) -> Mapping[str, str]:
    """What `Item.fields` holds for an object in its stored version."""
    table = _FIELDS.get(row.store_key) or (_custom(row) if row.custom else None)
    if not table:
        return _NONE
    return {name: read(obj) for name, read in table.items()}


def _custom(row: Resource) -> dict[str, Callable[[Object], str]]:
    """`selectableFields` of a custom resource's version (KEP-4358)."""
    for version in ((row.definition or {}).get("spec") or {}).get("versions") or []:
        if version.get("name") == row.version:
            fields = [f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or []]
            return {field: _path(*field.split(".")) for field in fields}
    return {}


def _known(row: Resource, field: str) -> str:
    """The name `field` has in the store. Raises 400 when the kind cannot be selected by it."""
    if field in ("metadata.name", "metadata.namespace"):
        return field
    renamed = _RENAMED.get(row.group, {}).get(field, field)
    table = _FIELDS.get(row.store_key) or (_custom(row) if row.custom else {})
    if renamed in table:
        return renamed
    if row.custom or row.store_key in _OWN_WORDS:
        raise bad_request(f"field label not supported: {field}")
    if row.store_key == "jobs.batch":
        raise bad_request(f'field label "{field}" not supported for Job')
    raise bad_request(f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"')


def compile_match(row: Resource, options: ListOptions) -> Match | None:
    """A test of items, None when everything is selected. Raises 400 for an unsupported field."""
    tests: list[Match] = []
    if options.labels is not None and str(options.labels):
        selects = options.labels.matches
        tests.append(lambda item: selects(item.labels))
    for field, op, value in options.fields or ():
        tests.append(_field_test(_known(row, field), op, value))
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda item: all(test(item) for test in tests)


def _field_test(field: str, op: str, value: str) -> Match:
    equal = op != "!="
    if field == "metadata.name":
        return lambda item: (item.key.rpartition("/")[2] == value) is equal
    if field == "metadata.namespace":
        return lambda item: (item.key.rpartition("/")[0] == value) is equal
    return lambda item: (item.fields.get(field, "") == value) is equal


def route(row: Resource, options: ListOptions, prefix: str) -> Route | None:
    """The field by which a watch's changes can be told from all others beforehand. `prefix` is "namespace/" or ""."""
    name = only_name(options)
    if name and (prefix or not row.namespaced):
        return KEY, prefix + name
    for field, op, value in options.fields or ():
        if op != "!=" and not field.startswith("metadata."):
            return _known(row, field), value
    return None


def only_name(options: ListOptions) -> str:
    """The one name a selection is narrowed to by `metadata.name=`, so that nothing has to be searched."""
    for field, op, value in options.fields or ():
        if field == "metadata.name" and op != "!=":
            return value
    return ""
