"""The downward API: what a pod may learn of itself, in environment variables and in files.

Rules: "Downward API" of the Kubernetes documentation; labels and annotations as `key="escaped value"` lines.
"""

from __future__ import annotations

import re

from sampan.api import quantity
from sampan.base.objects import Object
from sampan.node.pods.podspec import find_container
from sampan.node.pods.problems import ConfigProblem

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


def field(pod: Object, path: str, ips: list[str] | None = None, host_ips: list[str] | None = None) -> str:
    """The value of a fieldRef. Raises ConfigProblem for a path that is none."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return (meta.get(subscript[1]) or {}).get(subscript[2], "")
    if ips is None:
        ips = [i["ip"] for i in status.get("podIPs") or ()]
    if host_ips is None:
        host_ips = [i["ip"] for i in status.get("hostIPs") or ()]
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return meta[path.partition(".")[2]]
        case "metadata.labels" | "metadata.annotations":
            return format_map(meta.get(path.partition(".")[2]) or {})
        case "spec.nodeName":
            return spec.get("nodeName", "")
        case "spec.serviceAccountName":
            return spec.get("serviceAccountName", "")
        case "status.podIP":
            return ips[0] if ips else ""
        case "status.podIPs":
            return ",".join(ips)
        case "status.hostIP":
            return host_ips[0] if host_ips else ""
        case "status.hostIPs":
            return ",".join(host_ips)
    raise ConfigProblem(f"unsupported fieldPath: {path}")


def format_map(values: dict[str, str]) -> str:
    """Labels or annotations as lines of a file, sorted by key."""
    return "\n".join(f"{key}={_quote(values[key])}" for key in sorted(values))


def _quote(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def resource_field(pod: Object, container: Object, ref: Object, allocatable: Object) -> str:
    """The value of a resourceFieldRef in units of its divisor, rounded up; an absent limit is the node's."""
    if ref.get("containerName"):
        found = find_container(pod, ref["containerName"])
        if found is None:
            raise ConfigProblem(f"container {ref['containerName']} not found")
        container = found
    which, _, name = ref["resource"].partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(which) or {}).get(name)
    if value is None and which == "requests":
        value = (resources.get("limits") or {}).get(name, "0")
    if value is None:
        value = allocatable.get(name, "0")
    divisor = ref.get("divisor") or "1"
    if str(divisor) == "0":
        divisor = "1"
    return str(-(-quantity.milli(value) // max(quantity.milli(divisor), 1)))
