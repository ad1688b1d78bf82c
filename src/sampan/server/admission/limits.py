"""The bounds and defaults a LimitRange sets for the containers, pods and claims of its namespace.

Source: Kubernetes documentation, "Limit Ranges"; API reference, LimitRangeItem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sampan.api import quantity
from sampan.api.quantity import Quantity
from sampan.api.quota import Amounts, pod_total
from sampan.base.objects import Object
from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only
from sampan.server.auth.rbac import aggregate

_NOTE = "kubernetes.io/limit-ranger"
_CONTAINERS = (("containers", "container"), ("initContainers", "init container"))


def _ranges(attrs: Attrs, ctx: Context) -> list[Object]:
    return ctx.lookup.list("limitranges", f"{attrs.namespace}/")


def admit(attrs: Attrs, ctx: Context) -> None:
    """Containers that do not say what they want get the defaults."""
    if attrs.row.plural != "pods" or attrs.op != CREATE:
        return
    pod = attrs.obj or {}
    for limit_range in _ranges(attrs, ctx):
        requests, limits = _defaults(limit_range)
        notes: list[str] = []
        for field, title in _CONTAINERS:
            for container in (pod.get("spec") or {}).get(field) or ():
                notes += _fill_container(container, title, requests, limits)
        if notes:
            meta = pod["metadata"]
            text = "LimitRanger plugin set: " + "; ".join(notes)
            meta["annotations"] = {**(meta.get("annotations") or {}), _NOTE: text}


def _defaults(limit_range: Object) -> tuple[dict[str, str], dict[str, str]]:
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            requests.update(item.get("defaultRequest") or {})
            limits.update(item.get("default") or {})
    return requests, limits


def _fill_container(
    container: Object, title: str, requests: Mapping[str, str], limits: Mapping[str, str]
) -> Iterator[str]:
    """Fill in what is missing; yields a note of what was set."""
    resources = container.setdefault("resources", {})
    for field, word, defaults in (("requests", "request", requests), ("limits", "limit", limits)):
        own = resources.get(field) or {}
        added = {k: v for k, v in defaults.items() if k not in own}
        if added:
            resources[field] = {**own, **added}
            yield f"{', '.join(sorted(added))} {word} for {title} {container.get('name', '')}"


def validate(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 with all that is outside of the bounds. Pods are judged when they are made or resized."""
    obj = attrs.obj or {}
    if attrs.row.plural == "pods" and attrs.op != CREATE and attrs.subresource != "resize":
        return
    for limit_range in _ranges(attrs, ctx):
        check = _check_pod if attrs.row.plural == "pods" else _check_claim
        errors = [e for item in (limit_range.get("spec") or {}).get("limits") or () for e in check(item, obj)]
        if errors:
            raise attrs.forbidden(aggregate(errors))


def _check_pod(item: Object, pod: Object) -> Iterator[str]:
    spec = pod.get("spec") or {}
    if item.get("type") == "Container":
        for field, _ in _CONTAINERS:
            for container in spec.get(field) or ():
                resources = container.get("resources") or {}
                yield from _bounds(item, _amounts(resources, "requests"), _amounts(resources, "limits"))
    elif item.get("type") == "Pod":
        yield from _bounds(item, pod_total(spec, "requests"), pod_total(spec, "limits"))


def _check_claim(item: Object, claim: Object) -> Iterator[str]:
    if item.get("type") != "PersistentVolumeClaim":
        return
    requests = _amounts((claim.get("spec") or {}).get("resources") or {}, "requests")
    for name, least in sorted(_amounts(item, "min").items()):
        yield from _least(item, name, least, requests, {})
    for name, most in sorted(_amounts(item, "max").items()):
        yield from _most(item, name, most, requests, requests, "request")


def _bounds(item: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, least in sorted(_amounts(item, "min").items()):
        yield from _least(item, name, least, requests, limits)
    for name, most in sorted(_amounts(item, "max").items()):
        yield from _most(item, name, most, requests, limits, "limit")
    for name, ratio in sorted(_amounts(item, "maxLimitRequestRatio").items()):
        yield from _ratio(item, name, ratio, requests, limits)


def _amounts(holder: Mapping[str, Any], field: str) -> Amounts:
    return {k: quantity.parse(v) for k, v in (holder.get(field) or {}).items()}


def _least(item: Object, name: str, least: Quantity, requests: Amounts, limits: Amounts) -> Iterator[str]:
    head = f"minimum {name} usage per {item['type']} is {least}"
    if name not in requests:
        yield f"{head}.  No request is specified"
    elif requests[name] < least:
        yield f"{head}, but request is {requests[name]}"
    elif name in limits and limits[name] < least:
        yield f"{head}, but limit is {limits[name]}"


def _most(
    item: Object, name: str, most: Quantity, requests: Amounts, bounded: Amounts, what: str
) -> Iterator[str]:
    head = f"maximum {name} usage per {item['type']} is {most}"
    if name not in bounded:
        yield f"{head}.  No {what} is specified"
    elif bounded[name] > most:
        yield f"{head}, but {what} is {bounded[name]}"
    elif what == "limit" and name in requests and requests[name] > most:
        yield f"{head}, but request is {requests[name]}"


def _ratio(item: Object, name: str, most: Quantity, requests: Amounts, limits: Amounts) -> Iterator[str]:
    head = f"{name} max limit to request ratio per {item['type']} is {most}"
    for what, given in (("request", requests), ("limit", limits)):
        if not given.get(name):
            yield f"{head}, but no {what} is specified or {what} is 0"
            return
    if limits[name].nano * quantity.NANO > most.nano * requests[name].nano:
        yield f"{head}, but provided ratio is {limits[name].nano / requests[name].nano:.6f}"


PLUGIN = Plugin(
    "LimitRanger",
    only("pods", "persistentvolumeclaims"),
    only(CREATE, UPDATE),
    admit=admit,
    validate=validate,
    subresources=only("", "resize"),
    reads=("limitranges",),
)
