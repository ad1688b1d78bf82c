"""The AdmissionRequest: what webhooks and expressions are shown of a request, in the version that they ask for.

Source: API reference, admission.k8s.io/v1 AdmissionRequest.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from sampan.api import fields
from sampan.api.registry import Resource
from sampan.base.objects import Object
from sampan.server import conversion, convert, decode
from sampan.server.admission.attrs import CONNECT, Attrs, Context
from sampan.server.auth.reviews import user_info


def request_of(uid: str, attrs: Attrs, row: Resource) -> Object:
    """The AdmissionRequest for a webhook of `row`'s version, but for its objects."""
    kind, asked = attrs.shape or row, attrs.shape or attrs.row
    request: Object = {
        "uid": uid,
        "kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "resource": {"group": row.group, "version": row.version, "resource": row.plural},
        "requestKind": {"group": asked.group, "version": asked.version, "kind": asked.kind},
        "requestResource": {
            "group": attrs.row.group,
            "version": attrs.row.version,
            "resource": attrs.row.plural,
        },
        "name": attrs.name,
        "operation": attrs.op,
        "userInfo": user_info(attrs.user),
        "dryRun": attrs.dry_run,
        "options": _options(attrs),
    }
    if attrs.namespace:
        request["namespace"] = attrs.namespace
    if attrs.subresource:
        request["subResource"] = request["requestSubResource"] = attrs.subresource
    return request


def in_version(obj: Object | None, have: Resource, want: Resource) -> Object | None:
    """What is shown where `want` is asked for. What is no object of the resource (`Attrs.shape`) is as it is."""
    if obj is None or have.api_version == want.api_version or not _is(obj, have):
        return obj
    return convert.convert(orjson.loads(orjson.dumps(obj)), have, want)


def _is(obj: Object, row: Resource) -> bool:
    return bool(obj.get("apiVersion", row.api_version) == row.api_version)


async def shown(obj: Object | None, have: Resource, want: Resource, ctx: Context) -> Object | None:
    """`in_version`, also where the versions of a custom resource are converted by a webhook."""
    if obj is None or not conversion.by_webhook(want) or not _is(obj, have):
        return in_version(obj, have, want)
    if have.api_version == want.api_version:
        return obj
    [converted] = await conversion.convert(ctx.call, want, [obj], ctx.ids.uid())
    return converted


def _options(attrs: Attrs) -> Object | None:
    if attrs.op == CONNECT:
        return None
    options: Object = {"kind": f"{attrs.op.capitalize()}Options", "apiVersion": "meta.k8s.io/v1"}
    if isinstance(attrs.options, Mapping):
        return {**options, **attrs.options}
    if manager := getattr(attrs.options, "manager", ""):
        options["fieldManager"] = manager
    if attrs.dry_run:
        options["dryRun"] = ["All"]
    return options


def replace(attrs: Attrs, obj: Object) -> None:
    """In place: the request's object becomes this one, without unknown fields, with defaults for what it does not say."""
    assert attrs.obj is not None
    row = attrs.shape or attrs.row
    node = decode.node_of(row)
    if node is not None:
        obj, _ = fields.normalize(obj, node, strict=False)
    decode.default(row, obj, node)
    attrs.obj.clear()
    attrs.obj.update(obj)
