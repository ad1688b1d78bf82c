"""From a request's body to an object that admission may see: parsed, of the right kind, normalised and defaulted.

Every way a body can be wrong has its answer here. Source: API concepts, "Field validation"; apimachinery's decoder.
"""

from __future__ import annotations

import orjson

from sampan.api import custom, fields, jsontext, schema, wire
from sampan.api.defaults import apply_defaults
from sampan.api.registry import Resource
from sampan.api.status import ApiError, FieldError, bad_request, invalid
from sampan.base.memo import Memo
from sampan.base.objects import Object
from sampan.server import negotiate
from sampan.server.call import Call


def body(call: Call, row: Resource, validation: str = "Warn", *, kinds: tuple[str, ...] = ()) -> Object:
    """The object a POST or PUT brings, in `row`'s version, with defaults.

    `validation` is Ignore, Warn or Strict; `kinds` further kinds that are taken (DeleteOptions under Binding, …).
    Raises 400 and 415.
    """
    request = call.request
    media = negotiate.body_type(request.headers, negotiate.TEXT if row.custom else negotiate.ACCEPTED)
    obj = parse(call, row, media)
    duplicates: list[str] = []
    if validation != "Ignore":
        decoded = obj if media == negotiate.JSON else None
        duplicates = duplicate_fields(media, request.body, decoded)
    check_kind(call, row, obj, kinds)
    like = _alike(call, row, obj, media)
    return finish(call, row, obj, validation, duplicates, like=like)


def parse(call: Call, row: Resource, media: str) -> Object:
    """Bytes to plain data. Raises 400 with what is broken."""
    data = call.request.body
    if row.custom and media == negotiate.JSON:
        try:
            found = wire.decode(data)
        except ValueError:
            raise bad_request(f"error decoding from json: {jsontext.explain(data)}") from None
        if isinstance(found, dict):
            return found
    return wire.parse_body(media, data, kind=row.kind)


def duplicate_fields(media: str, data: bytes, decoded: Object | None = None) -> list[str]:
    """Paths that a JSON or YAML body has twice; `decoded` is what a JSON body says, if that is known already."""
    return [] if media == negotiate.PROTOBUF else wire.duplicate_keys(data, decoded)


def check_kind(call: Call, row: Resource, obj: Object, kinds: tuple[str, ...] = ()) -> None:
    """kind and apiVersion may be missing for built-in kinds; a wrong one is refused."""
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if row.custom:
        _check_custom_kind(row, obj)
        return
    kind = kind or row.kind
    version = version or row.api_version
    if not isinstance(kind, str) or not isinstance(version, str):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {row.kind}): "
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{wire.go_type(kind if not isinstance(kind, str) else version)} into Go struct field .kind of type string "
            f"({call.request.body[:30].decode('utf-8', 'replace')})"
        )
    if kind in kinds or (kind == row.kind and version == row.api_version):
        obj.setdefault("kind", kind)
        obj.setdefault("apiVersion", version)
        obj["kind"], obj["apiVersion"] = kind, version
        return
    group, _, bare = version.rpartition("/")
    other = call.server.registry.by_kind(group, bare, kind)
    if other is None or other.custom:
        why = (
            f'no kind "{kind}" is registered for version "{version}" in scheme '
            '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
        )
    else:
        package = row.group.partition(".")[0] or "core"
        why = f"converting ({bare}.{kind}) to ({package}.{row.kind}): unknown conversion"
    raise bad_request(f'{kind} in version "{bare}" cannot be handled as a {row.kind}: {why}')


def _check_custom_kind(row: Resource, obj: Object) -> None:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if not kind:
        raise bad_request("Object 'Kind' is missing in '" + orjson.dumps(obj).decode() + "'")
    if not version:
        obj["apiVersion"] = version = row.api_version
    if version != row.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({row.api_version})"
        )
    if kind != row.kind:
        name = (obj.get("metadata") or {}).get("name") or ""
        error = FieldError("FieldValueInvalid", "kind", f'Invalid value: "{kind}": must be {row.kind}')
        raise invalid(row.group, kind, name, [error])


def finish(
    call: Call,
    row: Resource,
    obj: Object,
    validation: str,
    duplicates: list[str] | None = None,
    *,
    old: Object | None = None,
    like: bytes = b"",
) -> Object:
    """Normalise and default an object of `row`'s kind. Unknown fields are dropped and told as `validation` says,
    together with the paths in `duplicates`.

    `old` is the stored object that `obj` was made from, if any; `like` the text of a new pod's spec.
    """
    problems: list[str] = []
    node = node_of(row)
    known = _specs.get(None, like) if like else None
    if known is not None:
        obj = {k: v for k, v in obj.items() if k != "spec"}
    if node is not None:
        obj, problems = _normalize(row, obj, node, old)
    if duplicates:
        problems = _with_duplicates(call, row, problems, duplicates)
    if problems and validation == "Strict":
        joined = ", ".join(problems)
        raise bad_request(
            f'{row.kind} in version "{row.version}" cannot be handled as a {row.kind}: '
            f"strict decoding error: {joined}"
        )
    if validation == "Warn":
        for problem in problems:
            call.warn(problem)
    obj["kind"], obj["apiVersion"] = row.kind, row.api_version
    if not isinstance(obj.get("metadata"), dict):
        obj["metadata"] = {}
    if known is not None:
        obj["spec"] = orjson.loads(known)
        return obj
    default(row, obj, node)
    if like and not problems:
        _specs.put(None, like, orjson.dumps(obj["spec"]))
    return obj


_specs: Memo[bytes] = Memo()  # of pods: what was sent -> the same, normalised and defaulted


def _alike(call: Call, row: Resource, obj: Object, media: str) -> bytes:
    """The spec of a new pod as text: pods of one template have one, so it is looked at once.

    A new pod's status, whose defaults do not come from its spec, is not kept anyway. Only for JSON: YAML has values that
    this text would not tell apart.
    """
    if row.store_key != "pods" or call.info.verb != "create" or media != negotiate.JSON:
        return b""
    return orjson.dumps(obj.get("spec"))


def _with_duplicates(call: Call, row: Resource, unknown: list[str], twice: list[str]) -> list[str]:
    """A body of a built-in kind is read by a decoder that knows its fields: it objects to things as they come.
    Otherwise the document is read first, and its fields are looked at then."""
    whole = call.request.method in ("POST", "PUT")
    if row.custom or not whole or not unknown:
        return [*(f'duplicate field "{path}"' for path in twice), *unknown]
    try:
        text = call.request.body.decode("utf-8", "replace")
        paths = [problem.split('"')[1] for problem in unknown]
        met = jsontext.in_order(text, paths, twice)
    except ValueError:  # YAML
        return [*(f'duplicate field "{path}"' for path in twice), *unknown]
    return [f'{"duplicate" if again else "unknown"} field "{path}"' for path, again in met]


def _normalize(row: Resource, obj: Object, node: schema.Node, old: Object | None) -> tuple[Object, list[str]]:
    """`fields.normalize`, its refusals in the decoder's words."""
    known = None if row.custom else old  # a definition may have changed since: its objects are looked at anew
    try:
        return fields.normalize(obj, node, strict=True, known=known)
    except ApiError:
        raise
    except ValueError as error:
        raise bad_request(
            f'{row.kind} in version "{row.version}" cannot be handled as a {row.kind}: {error}'
        ) from None


def default(row: Resource, obj: Object, node: schema.Node | None) -> None:
    """Defaults in place: those of the built-in kind, or of a custom resource's schema."""
    if row.custom:
        if node is not None:
            custom.apply_schema_defaults(obj, node)
        return
    apply_defaults(row, obj)


def node_of(row: Resource) -> schema.Node | None:
    """The schema of a row: from the definitions, or from its CustomResourceDefinition."""
    if not row.custom:
        return schema.root(row.group, row.version, row.kind)
    return custom.schema_node(row)
