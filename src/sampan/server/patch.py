"""PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

Source: API concepts, "Patch and apply"; RFC 6902, RFC 7386, KEP-555.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from sampan.api import jsontext, wire
from sampan.api.copying import copied
from sampan.api.registry import Resource
from sampan.api.status import ApiError, FieldError, bad_request, conflict, invalid, unsupported_media_type
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import decode, objects, write
from sampan.server.call import Call
from sampan.server.options import WriteOptions, write_options
from sampan.server.strategies.base import changeable
from sampan.server.write import check_names

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_TYPES = (JSON_PATCH, MERGE, STRATEGIC, APPLY)
_CUSTOM_TYPES = (JSON_PATCH, MERGE, APPLY)


async def patch(call: Call) -> Response:
    """PATCH of an object or of its status. Raises 400, 403, 404, 409, 415, 422."""
    media = check_media(call)
    options = write_options(call.info.query, "PatchOptions", applying=media == APPLY)
    if media == APPLY:
        return await _apply(call, options)
    written = await write.update_object(
        call, lambda old, copy: _patched(call, media, copy, old, options), options
    )
    return write.answer(call, written, 200)


def check_media(call: Call) -> str:
    """The patch type. Raises 415 in the two forms there are."""
    media = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in _TYPES:
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    if media == STRATEGIC and call.row.custom:
        raise unsupported_media_type(_CUSTOM_TYPES)
    return media


def _patched(
    call: Call, media: str, copy: Callable[[], Object], old: Object, options: WriteOptions
) -> Object:
    """`old` with the request's patch, normalised, defaulted, still of the same name. `copy` gives a copy of `old`."""
    apart = _leaves_spec(call, media)
    scratch = _without_spec(old) if apart else copy()
    patched = change(call, media, scratch, decode.node_of(call.row))
    if not isinstance(patched, dict):
        raise _rejected()
    twice = [] if options.validation == "Ignore" else decode.duplicate_fields(media, call.request.body)
    new = _finish(call, patched, old, options, twice)
    if apart and "spec" in old:
        new["spec"] = old["spec"]
    check_names(call, new)
    return new


_APART = ("pods", "nodes")  # the defaults of their status do not look at their spec


def _leaves_spec(call: Call, media: str) -> bool:
    """Whether this is a patch of a status that has nothing to do with the spec: nodes write little else.

    The spec will be the old one whatever the patch says of it (`prepare_status`), so it need not be looked at.
    """
    if call.info.subresource != "status" or call.row.store_key not in _APART or media == JSON_PATCH:
        return False
    body = call.request.body
    return b"\\" not in body and b'"spec"' not in body and b'"managedFields"' not in body


def _without_spec(obj: Object) -> Object:
    """A copy without the spec, which shares the managedFields."""
    rest = {key: copied(value) for key, value in obj.items() if key not in ("spec", "metadata")}
    meta = obj["metadata"]
    rest["metadata"] = copied({key: value for key, value in meta.items() if key != "managedFields"})
    if "managedFields" in meta:
        rest["metadata"]["managedFields"] = meta["managedFields"]
    return rest


def change(call: Call, media: str, old: Object, node: Any) -> Any:
    """The document after the patch of the request; `old` is used up. Raises 400 for a patch that is none, 422 for one that fails."""
    body = call.request.body
    if media == JSON_PATCH:
        from sampan.api.jsonpatch import json_patch

        operations = _loads(body)
        if not isinstance(operations, list):
            raise bad_request(
                f"json: cannot unmarshal {wire.go_type(operations)} into Go value of type jsonpatch.Patch"
            )
        return _applied(lambda: json_patch(old, operations))
    fields = _loads(body, strategic=media == STRATEGIC)
    if fields is None:
        fields = {}
    if not isinstance(fields, dict):
        raise bad_request(
            f"json: cannot unmarshal {wire.go_type(fields)} into Go value of type map[string]interface {{}}"
        )
    if media == MERGE:
        from sampan.api.mergepatch import merge_patch

        return _applied(lambda: merge_patch(old, fields))
    from sampan.api.strategic import strategic_merge

    return _applied(lambda: strategic_merge(old, fields, node))


def _applied(run: Any) -> Any:
    try:
        return run()
    except ApiError:
        raise
    except ValueError:
        raise _rejected() from None


def _rejected() -> ApiError:
    """A patch that cannot be carried out: the original's unspecific 422."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def _loads(body: bytes, *, strategic: bool = False) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        why = jsontext.explain(body)
        if strategic and why == "unexpected end of JSON input":
            why = "unexpected EOF" if body.strip() else "EOF"
        raise bad_request(why) from None


def _finish(call: Call, obj: Object, old: Object, options: WriteOptions, twice: list[str]) -> Object:
    row = call.row
    kind, version = obj.get("kind"), obj.get("apiVersion")
    try:
        if (kind and kind != row.kind) or (version and version != row.api_version):
            decode.check_kind(call, row, obj)
        return decode.finish(call, row, obj, options.validation, twice, old=old)
    except ApiError as error:
        if error.code != 400:
            raise
        raise _undecodable(call, error) from None


def _undecodable(call: Call, error: ApiError) -> ApiError:
    """A patch whose result is no object of the kind: 422 on the patch itself."""
    why = error.message.partition(": ")[2] if "cannot be handled as" in error.message else error.message
    shown = go_map(_loads(call.request.body))
    return invalid("", "", "", [FieldError("FieldValueInvalid", "patch", f'Invalid value: "{shown}": {why}')])


def go_map(value: Any) -> str:
    """A JSON value as Go's %+v prints it."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{go_map(value[k])}" for k in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_map(v) for v in value) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


async def _apply(call: Call, options: WriteOptions) -> Response:
    """Server-side apply: creates what is missing (never through a subresource)."""
    from sampan.api import apply as ssa

    row, info, server = call.row, call.info, call.server
    applied = applied_body(call, row)
    node = decode.node_of(row)

    def merged(live: Object | None) -> Object:
        return ssa.apply(
            live,
            copied(applied),
            node,
            manager=options.manager,
            force=options.force,
            subresource=info.subresource,
            now=rfc3339(server.clock.now()),
            api_version=row.api_version,
            within=partial(changeable, row, info.subresource),
        )

    def transform(old: Object, _: Any) -> Object:
        new = _finish_applied(call, merged(old), options)
        check_names(call, new)
        return new

    key = objects.key_of(row, info.namespace, info.name)
    if server.store.latest(row.store_key, key) is None and not info.subresource:
        call.authorize_also("create")
        if uid := applied["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise conflict(row.group, row.plural, info.name, why)
        new = _finish_applied(call, merged(None), options)
        check_names(call, new)
        written = await write.create_applied(call, new, options)
        return write.answer(call, written, 201)
    written = await write.update_object(call, transform, options, manage=keep_managed)
    return write.answer(call, written, 200)


def keep_managed(old: Object, new: Object) -> None:
    """An apply has done its bookkeeping already."""


def _finish_applied(call: Call, obj: Object, options: WriteOptions) -> Object:
    if options.validation != "Ignore" and (wrong := wire.yaml_strict_error(call.request.body)):
        if options.validation == "Strict":
            raise bad_request(f"error strict decoding YAML: error converting YAML to JSON: {wrong}")
        for line in wrong.splitlines()[1:]:
            call.warn(line.strip())
    managed = obj["metadata"].get("managedFields")
    new = decode.finish(call, call.row, obj, options.validation)
    if managed is not None:
        new["metadata"]["managedFields"] = managed
    return new


def applied_body(call: Call, row: Resource) -> Object:
    """The configuration that is applied: YAML or JSON with `row`'s apiVersion and kind. Raises 400."""
    try:
        applied = wire.parse_body("application/yaml", call.request.body)
    except ValueError as error:
        raise bad_request(f"error decoding YAML: {error}") from None
    if not isinstance(applied, dict):
        raise bad_request("error decoding YAML: the object is not a map")
    kind, version = applied.get("kind"), applied.get("apiVersion")
    if not kind or not version:
        missing = "Kind" if not kind else "apiVersion"
        raise bad_request(f"Object '{missing}' is missing in '{orjson.dumps(applied).decode()}'")
    if kind != row.kind or version != row.api_version:
        decode.check_kind(call, row, applied)
    meta = applied["metadata"] = applied.get("metadata") or {}
    if not isinstance(meta, dict):
        subject = f"; {version}, Kind={kind}"
        text = f"failed to create typed patch object ({subject}): .metadata: expected map, got &{{{meta}}}"
        raise ApiError(500, "", text)
    if meta.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    return applied
