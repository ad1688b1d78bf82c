"""A pod is not resized to more than its node has: the server says so at once (PodResizeValidator, since 1.35).

What fits the node but not beside the pods it has now is the node's affair: the resize is deferred (KEP-1287).
"""

from __future__ import annotations

from sampan.api import quantity
from sampan.api.quantity import Quantity
from sampan.api.quota import pod_total
from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.server.admission.attrs import UPDATE, Attrs, Context, Plugin, only

_COUNTED = {"cpu": Quantity.milli, "memory": Quantity.value}  # as the message does


def validate(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 when the node is not Linux, or has not as much as the pod wants even if it were alone."""
    pod, old = attrs.obj or {}, attrs.old or {}
    name = (pod.get("spec") or {}).get("nodeName")
    if not name or pod["metadata"].get("generation") == old["metadata"].get("generation"):
        return
    node = ctx.lookup.get("nodes", name)
    if node is None:
        raise attrs.forbidden(f'node "{name}" not found')
    system = (node["metadata"].get("labels") or {}).get("kubernetes.io/os", "linux")
    if system != "linux":
        text = f'pod resize is only supported on linux nodes, node "{name}" is "{system}"'
        raise _refused(attrs, text, "UnsupportedPlatform")
    short = _short(pod, (node.get("status") or {}).get("allocatable") or {})
    if short:
        text = f"node didn't have enough allocatable resources: {'; '.join(short)}"
        raise _refused(attrs, text, "NodeCapacity")


def _short(pod: Object, allocatable: Object) -> list[str]:
    requests, found = pod_total(pod["spec"], "requests"), []
    for name, count in _COUNTED.items():
        asked, has = requests.get(name), quantity.parse(allocatable.get(name, "0"))
        if asked is not None and asked > has:
            found.append(f"{name}, requested: {count(asked)}, allocatable: {count(has)}")
    return found


def _refused(attrs: Attrs, why: str, cause: str) -> ApiError:
    error = attrs.forbidden(why)
    error.details = {**(error.details or {}), "causes": [{"reason": cause}]}
    return error


PLUGIN = Plugin(
    "PodResizeValidator", only("pods"), only(UPDATE), validate=validate, subresources=only("resize")
)
