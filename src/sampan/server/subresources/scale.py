"""The scale subresource: one shape for everything that has replicas. Source: autoscaling/v1 Scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import selectors
from sampan.api.registry import Resource
from sampan.api.status import FieldError, bad_request, internal, invalid, invalid_value, not_found
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import decode, objects, patch, respond, write
from sampan.server.call import Call
from sampan.server.options import WriteOptions, write_options

SCALE = Resource("autoscaling", "v1", "Scale", "scales", True)
_PATHS = (".spec.replicas", ".status.replicas", "")


async def scale(call: Call) -> Response:
    """GET, PUT or PATCH of `/scale`."""
    if call.info.verb == "get":
        return _get(call)
    if call.info.verb == "update":
        return await _put(call)
    return await _patch(call)


def scale_of(row: Resource, obj: Object) -> Object:
    """The Scale of an object. A number that is 0 is left out, as Go leaves it."""
    spec_path, status_path, selector_path = _paths(row)
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas = _dig(obj, spec_path)
    status: Object = {"replicas": _dig(obj, status_path) or 0}
    if row.custom:
        selector = _dig(obj, selector_path) if selector_path else ""
    else:
        selector = _selector(row, obj)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in kept if k in meta},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _selector(row: Resource, obj: Object) -> str:
    selector = (obj.get("spec") or {}).get("selector")
    if row.plural == "replicationcontrollers":
        return str(selectors.from_map(selector or {}))
    return str(selectors.from_object(selector))


def _paths(row: Resource) -> tuple[str, str, str]:
    """(spec replicas, status replicas, label selector) as JSON paths."""
    if not row.custom:
        return _PATHS
    for version in (row.definition or {})["spec"]["versions"]:
        if version["name"] == row.version:
            sub = (version.get("subresources") or {}).get("scale") or {}
            return (
                sub.get("specReplicasPath", _PATHS[0]),
                sub.get("statusReplicasPath", _PATHS[1]),
                sub.get("labelSelectorPath", ""),
            )
    return _PATHS


def _dig(obj: Any, path: str) -> Any:
    for step in path.split(".")[1:]:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


def _set(obj: Object, path: str, value: Any) -> None:
    *steps, last = path.split(".")[1:]
    for step in steps:
        obj = obj.setdefault(step, {})
    obj[last] = value


def _get(call: Call) -> Response:
    row, info = call.row, call.info
    item = call.held or call.server.store.get(row.store_key, objects.key_of(row, info.namespace, info.name))
    if item is None:
        plural = row.plural if row.custom else f"{row.plural}/scale"
        raise not_found(row.group, plural, info.name)
    obj = objects.load(item, row)
    if row.custom and _dig(obj, _paths(row)[0]) is None:
        raise internal(f"the spec replicas field {_paths(row)[0]!r} does not exist".replace("'", '"'))
    return respond.obj(call, scale_of(row, obj), row=None if row.custom else SCALE)


async def _put(call: Call) -> Response:
    options = write_options(call.info.query, "UpdateOptions")
    sent = decode.body(call, SCALE, options.validation)
    _check_names(call, sent)
    return await _store(call, lambda _: sent, options)


def _check_names(call: Call, sent: Object) -> None:
    """A Scale that says what it is must be that of the request's path. Raises 400."""
    meta, info = sent["metadata"], call.info
    if meta.get("name") and meta["name"] != info.name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({info.name})"
        )
    if meta.get("namespace") and meta["namespace"] != info.namespace:
        raise bad_request(
            f"the namespace of the object ({meta['namespace']}) does not match the namespace on the request "
            f"({info.namespace})"
        )


async def _patch(call: Call) -> Response:
    media = patch.check_media(call)
    options = write_options(call.info.query, "PatchOptions", applying=media == patch.APPLY)
    if media == patch.APPLY:
        return await _apply(call, options)

    def change(now: Object) -> Object:
        patched = patch.change(call, media, now, decode.node_of(SCALE))
        return decode.finish(call, SCALE, patched, options.validation)

    return await _store(call, change, options)


async def _apply(call: Call, options: WriteOptions) -> Response:
    """Server-side apply of a Scale: of the replicas of what is scaled, which belong to the manager from then on."""
    from sampan.api import apply as ssa

    row, server = call.row, call.server
    path = _paths(row)[0]
    wanted = decode.finish(call, SCALE, patch.applied_body(call, SCALE), options.validation)
    _check_names(call, wanted)
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    wish: Object = {
        "apiVersion": row.api_version,
        "kind": row.kind,
        "metadata": {"name": call.info.name},
    }
    _set(wish, path, replicas)

    def transform(old: Object, _: Any) -> Object:
        _check(wanted, call.info.name, replicas)
        new = ssa.apply(
            old,
            wish,
            decode.node_of(row),
            manager=options.manager,
            force=options.force,
            subresource="scale",
            now=rfc3339(server.clock.now()),
            api_version=row.api_version,
        )
        _insist(new, wanted)
        return new

    return await _write(call, transform, options, manage=patch.keep_managed)


async def _store(call: Call, change: Callable[[Object], Object], options: WriteOptions) -> Response:
    """Write the replicas that `change(current scale)` asks for."""
    row, name = call.row, call.info.name
    path = _paths(row)[0]

    def transform(old: Object, copy: Callable[[], Object]) -> Object:
        new = copy()
        wanted = change(scale_of(row, old))
        replicas = (wanted.get("spec") or {}).get("replicas", 0)
        _check(wanted, name, replicas)
        _insist(new, wanted)
        _set(new, path, replicas)
        return new

    return await _write(call, transform, options)


def _insist(new: Object, wanted: Object) -> None:
    """The version and uid that a Scale names are those that the object must have."""
    version, uid = wanted["metadata"].get("resourceVersion"), wanted["metadata"].get("uid")
    if version and version != "0":
        new["metadata"]["resourceVersion"] = version
    if uid:
        new["metadata"]["uid"] = uid


async def _write(call: Call, transform: write.Transform, options: WriteOptions, **more: Any) -> Response:
    """Admission is shown Scales, and what it makes of the replicas is stored."""
    row = call.row
    path = _paths(row)[0]

    def put(obj: Object, scale: Object) -> None:
        _set(obj, path, (scale.get("spec") or {}).get("replicas", 0))

    part = write.Part(SCALE, lambda obj: scale_of(row, obj), put)
    written = await write.update_object(call, transform, options, part=part, **more)
    obj = objects.load(written.item, row) if written.item is not None else written.obj
    return respond.obj(call, scale_of(row, obj), row=None if row.custom else SCALE)


def _check(wanted: Object, name: str, replicas: Any) -> None:
    errors: list[FieldError] = []
    if isinstance(replicas, int) and replicas < 0:
        errors.append(invalid_value("spec.replicas", replicas, "must be greater than or equal to 0"))
    if errors:
        raise invalid("autoscaling", "Scale", name, errors)
