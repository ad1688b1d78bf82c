"""What a pod's RuntimeClass adds: overhead, and the nodes that can run it."""

from __future__ import annotations

from sampan.api.copying import copied
from sampan.server.admission.attrs import CREATE, Attrs, Context, Plugin, only

_CLASSES = "runtimeclasses.node.k8s.io"


def admit(attrs: Attrs, ctx: Context) -> None:
    """The class's overhead, selectors and tolerations become a part of the pod. Raises 403 where the pod says otherwise.

    Source: "Runtime Class", section "Scheduling"; "Pod Overhead".
    """
    spec = (attrs.obj or {}).setdefault("spec", {})
    name = spec.get("runtimeClassName")
    if not name:
        if spec.get("overhead"):
            raise attrs.forbidden(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            )
        return
    found = ctx.lookup.get(_CLASSES, name)
    if found is None:
        raise attrs.forbidden(f'pod rejected: RuntimeClass "{name}" not found')
    overhead = (found.get("overhead") or {}).get("podFixed")
    if spec.get("overhead") and spec["overhead"] != overhead:
        why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        raise attrs.forbidden(why)
    if overhead:
        spec["overhead"] = dict(overhead)
    scheduling = found.get("scheduling") or {}
    selector = scheduling.get("nodeSelector") or {}
    own = spec.get("nodeSelector") or {}
    for key, value in selector.items():
        if own.get(key, value) != value:
            why = f"conflict: label '{key}': {own[key]} in Pod's nodeSelector and {value} in RuntimeClass's"
            raise attrs.forbidden(why)
    if selector:
        spec["nodeSelector"] = {**own, **selector}
    for toleration in scheduling.get("tolerations") or ():
        if toleration not in (spec.get("tolerations") or ()):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), copied(toleration)]


PLUGIN = Plugin("RuntimeClass", only("pods"), only(CREATE), admit=admit, reads=(_CLASSES,))
