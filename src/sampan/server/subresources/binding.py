"""Binding: a pod gets its node, once. Source: API reference, "Binding"; KEP-3521 for scheduling gates."""

from __future__ import annotations

from typing import Any

from sampan.api import meta
from sampan.api.registry import Resource
from sampan.api.status import ApiError, bad_request, conflict, invalid, required
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import admit, decode, respond, write
from sampan.server.call import Call
from sampan.server.options import write_options

BINDING = Resource("", "v1", "Binding", "bindings", True)


async def bind(call: Call) -> Response:
    """POST to `pods/NAME/binding` or to the `bindings` collection."""
    options = write_options(call.info.query, "CreateOptions")
    binding = decode.body(call, BINDING, options.validation)
    info, own = call.info, binding["metadata"]
    if info.subresource and own.get("name") and own["name"] != info.name:
        raise bad_request("name in URL does not match name in Binding object")
    name = info.name or own.get("name", "")
    if own.get("namespace") and own["namespace"] != info.namespace:
        raise bad_request(
            f"the namespace of the object ({own['namespace']}) does not match the namespace on the request "
            f"({info.namespace})"
        )
    target = binding.get("target") or {}
    _check_target(target, name)
    await admit.admit(call, "CREATE", binding, None, options, name=name, shape=BINDING)
    pods = call.server.registry.get("pods")
    assert pods is not None
    call.row = pods
    info.name, info.subresource, info.verb = name, "binding", "update"

    def transform(pod: Object, _: Any) -> Object:
        return _bound(pod, binding, target["name"], call.server.clock.now())

    await write.update_object(call, transform, options)
    return respond.obj(
        call, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
    )


def _check_target(target: Object, name: str) -> None:
    kind = target.get("kind", "")
    if kind not in ("", "Node"):
        text = f'target.kind: Unsupported value: "{kind}": supported values: "Node", "<empty>"'
        raise ApiError(500, "", text)
    if not target.get("name"):
        raise invalid("", "Binding", name, [required("target.name")])


def _bound(pod: Object, binding: Object, node: str, now: float) -> Object:
    """The pod on its node, its condition PodScheduled set and the binding's annotations and labels taken over.

    A new map wherever something differs; the rest is shared with `pod`, which stays as it is.
    """
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    own = binding["metadata"]
    if own.get("uid") and own["uid"] != pod["metadata"]["uid"]:
        raise conflict(
            "",
            "pods/binding",
            name,
            f"Precondition failed: UID in precondition: {own['uid']}, UID in object meta: {pod['metadata']['uid']}",
        )
    if meta.deleted(pod):
        raise conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise conflict(
            "", "pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        )
    if spec.get("schedulingGates"):
        raise conflict("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    metadata = dict(pod["metadata"])
    for field in ("annotations", "labels"):
        if own.get(field):
            metadata[field] = {**(metadata.get(field) or {}), **own[field]}
    condition = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": rfc3339(now),
    }
    status = dict(pod.get("status") or {})
    others = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
    status["conditions"] = [*others, condition]
    status.pop("nominatedNodeName", None)
    return {**pod, "metadata": metadata, "spec": {**spec, "nodeName": node}, "status": status}
