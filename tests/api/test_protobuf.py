"""Protobuf bodies: whatever a Go client can say arrives as the JSON it would have sent.

The encoder here is the other side, made from the same table; as gogo does, it writes zeros of plain fields.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from sampan.api import protobuf, schema
from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base.clock import rfc3339_parse
from sampan.base.objects import Object

TABLE = protobuf._table()


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _chunk(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _time(text: str) -> bytes:
    seconds = rfc3339_parse(text)
    return _int(1, int(seconds)) + _int(2, round((seconds - int(seconds)) * 1e6) * 1000)


def _int_or_string(value: Any) -> bytes:
    if isinstance(value, str):
        return _int(1, 1) + _int(2, 0) + _chunk(3, value.encode())
    return _int(1, 0) + _int(2, value) + _chunk(3, b"")


def _strings(values: list[str]) -> bytes:
    return b"".join(_chunk(1, v.encode()) for v in values)


def _or(plain: Callable[[Any], bytes], number: int) -> Callable[[Any], bytes]:
    return lambda v: (
        _chunk(number, message("apiextensions.v1.JSONSchemaProps", v)) if isinstance(v, dict) else plain(v)
    )


def _json(value: Any) -> bytes:
    return _chunk(1, orjson.dumps(value))


SPECIAL: dict[str, Callable[[Any], bytes]] = {
    "runtime.RawExtension": _json,
    "meta.v1.FieldsV1": _json,
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _time,
    "meta.v1.Verbs": _strings,
    "api.resource.Quantity": lambda v: _chunk(1, v.encode()),
    "util.intstr.IntOrString": _int_or_string,
    "authentication.v1.ExtraValue": _strings,
    "authorization.v1.ExtraValue": _strings,
    "certificates.v1.ExtraValue": _strings,
    "apiextensions.v1.JSON": _json,
    "apiextensions.v1.JSONSchemaPropsOrBool": _or(lambda v: _int(1, v), 2),
    "apiextensions.v1.JSONSchemaPropsOrArray": _or(
        lambda vs: b"".join(_chunk(2, message("apiextensions.v1.JSONSchemaProps", v)) for v in vs), 1
    ),
    "apiextensions.v1.JSONSchemaPropsOrStringArray": _or(
        lambda vs: b"".join(_chunk(2, v.encode()) for v in vs), 1
    ),
}
ZERO = {"s": "", "b": False, "i": 0, "u": 0, "d": 0.0}


def message(name: str, value: Any) -> bytes:
    if name in SPECIAL:
        return SPECIAL[name](value)
    out = b""
    for row in TABLE[name]:
        number, field, kind, *rest = row.split(" ")
        if kind == "~":
            out += _chunk(int(number), message(rest[0], value))
            continue
        plain = kind.removeprefix("?")
        given = value.get(field, ZERO.get(kind))
        if given is None:
            continue
        items = given if plain[0] == "*" else given.items() if plain[0] == "{" else [given]
        for item in items:
            out += _field(int(number), plain, rest[0] if rest else "", item)
    return out


def _field(number: int, kind: str, name: str, value: Any) -> bytes:
    if kind.startswith("{"):
        key, item = value
        return _chunk(number, _chunk(1, key.encode()) + _field(2, kind[1:], name, item))
    match kind.lstrip("*"):
        case "s":
            return _chunk(number, value.encode())
        case "y":
            return _chunk(number, base64.b64decode(value))
        case "d":
            return _varint(number << 3 | 1) + struct.pack("<d", value)
        case "m":
            return _chunk(number, message(name, value))
        case _:
            return _int(number, int(value))


def envelope(obj: Object) -> bytes:
    api_version, kind = obj["apiVersion"], obj["kind"]
    types = _chunk(1, api_version.encode()) + _chunk(2, kind.encode())
    raw = message(protobuf._name(api_version, kind), obj)
    return protobuf.MAGIC + _chunk(1, types) + _chunk(2, raw) + _chunk(3, b"") + _chunk(4, b"")


def _sample(name: str, depth: int = 0) -> Any:
    """A value with every field of a message set to something that is not zero."""
    fixed = {
        "runtime.RawExtension": {"kind": "X"},
        "meta.v1.FieldsV1": {"f:a": {}},
        "meta.v1.Time": "2026-01-02T03:04:05Z",
        "meta.v1.MicroTime": "2026-01-02T03:04:05.123456Z",
        "api.resource.Quantity": "100m",
        "util.intstr.IntOrString": "25%",
        "apiextensions.v1.JSON": [1, None],
        "apiextensions.v1.JSONSchemaPropsOrBool": True,
        "apiextensions.v1.JSONSchemaPropsOrArray": [{"type": "string"}],
        "apiextensions.v1.JSONSchemaPropsOrStringArray": ["a"],
    }
    if name in fixed:
        return fixed[name]
    if name in SPECIAL:
        return ["x"]
    value: Object = {}
    if depth > 5:
        return value
    for row in TABLE[name]:
        _, field, kind, *rest = row.split(" ")
        kind = kind.removeprefix("?")
        if kind == "~":
            value |= _sample(rest[0], depth + 1)
            continue
        base = kind.lstrip("*{")
        item = {"s": "a", "b": True, "i": -7, "u": 7, "d": 0.5, "y": "AQI="}.get(base)
        item = _sample(rest[0], depth + 1) if base == "m" else item
        value[field] = [item, item] if kind[0] == "*" else {"k": item} if kind[0] == "{" else item
    return value


# A kind has metadata; reviews and scales among them.
KINDS = sorted(
    name
    for name, rows in TABLE.items()
    if any(row.split(" ")[1:4] == ["metadata", "m", "meta.v1.ObjectMeta"] for row in rows)
    and not name.startswith(("meta.", "runtime."))
    and not name.endswith("Spec")
)
GROUPS = {
    "core": "", "apps": "apps", "batch": "batch", "autoscaling": "autoscaling", "policy": "policy",
    "rbac": "rbac.authorization.k8s.io", "flowcontrol": "flowcontrol.apiserver.k8s.io",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_field_of_every_kind_arrives(name: str) -> None:
    package, version, kind = name.split(".")
    group = GROUPS.get(package, f"{package}.k8s.io")
    obj = {"apiVersion": f"{group}/{version}".lstrip("/"), "kind": kind, **_sample(name)}
    assert protobuf.decode(envelope(obj)) == obj


@pytest.mark.parametrize("name", KINDS)
def test_fields_have_the_names_of_the_schema(name: str) -> None:
    package, version, kind = name.split(".")
    node = schema.root({**GROUPS, "admission": ""}.get(package, f"{package}.k8s.io"), version, kind)
    if node is not None:
        _named(_sample(name), node, name)


def _named(value: Any, node: schema.Node, path: str) -> None:
    if isinstance(value, dict) and node.properties:
        for key, item in value.items():
            assert key in node.properties, f"{path}.{key}"
            _named(item, node.properties[key], f"{path}.{key}")
    elif isinstance(value, list) and node.items is not None:
        _named(value[0], node.items, path)


CASES: dict[str, Object] = {
    "zeros that are meant stay, others go": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "selector": {},
            "template": {
                "metadata": {},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "enableServiceLinks": False,
                    "containers": [{"name": "c", "env": [{"name": "E"}], "securityContext": {"runAsUser": 0}}],
                    "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0}}],
                },
            },
        },
    },
    "embedded structs": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "i"},
        "spec": {"rules": [{"host": "h", "http": {"paths": [{"path": "/", "backend": {"resource": {"kind": "K", "name": "n", "apiGroup": "g"}}}]}}]},
    },
    "numbers and names as ports": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 0}]},
    },
    "a lease": {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "", "leaseTransitions": 0, "renewTime": "2026-01-02T03:04:05.000001Z"},
    },
    "times counted from Go's zero, and from the epoch": {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "l",
            "creationTimestamp": "0001-01-01T00:00:02Z",
            "deletionTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {"acquireTime": "0001-01-01T00:00:05.000000Z", "renewTime": "1970-01-01T00:00:00.000000Z"},
    },
    "a definition": {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "a.b"},
        "spec": {
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": False,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "n": {"type": "integer", "minimum": 0.0, "default": 0, "enum": [0, 1]},
                                "m": {"additionalProperties": False},
                                "l": {"items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                                "any": {"x-kubernetes-preserve-unknown-fields": True},
                            },
                        }
                    },
                }
            ]
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("obj", CASES.values(), ids=CASES.keys())
def test_round_trip(obj: Object) -> None:
    assert protobuf.decode(envelope(obj)) == obj


# What kubectl 1.32 really sent.
NAMESPACE = "azhzAAoPCgJ2MRIJTmFtZXNwYWNlEhoKEgoCbjESABoAIgAqADIAOABCABIAGgIKABoAIgA="
DEPLOYMENT = (
    "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EroBCh8KA3dlYhIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEogBCAASDAoKCgNh"
    "cHASA3dlYhpuChwKABIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEk4SMAoFbmdpbngSB25naW54OjEqADIKCgAQABhQIgAqAEIA"
    "agByAIABAIgBAJABAKIBABoAMgBCAEoAUgBYAGAAaACCAQCKAQCaAQDCAQAiAgoAKAA4ABoMCAAQABgAIAAoADgAGgAiAA=="
)


def test_bodies_of_kubectl() -> None:
    found = protobuf.decode(base64.b64decode(NAMESPACE))
    assert found == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "n1"},
        "spec": {},
        "status": {},
    }
    deployment = protobuf.decode(base64.b64decode(DEPLOYMENT))
    assert deployment["spec"]["replicas"] == 0
    assert deployment["spec"]["template"]["spec"]["containers"] == [
        {"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80}], "resources": {}}
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        protobuf.MAGIC,
        protobuf.MAGIC + b"\x0a\x50",
        protobuf.MAGIC + b"\xff" * 20,
        protobuf.MAGIC + _chunk(1, _chunk(1, b"v1") + _chunk(2, b"Nothing")),
        protobuf.MAGIC + _chunk(1, _chunk(1, b"v1") + _chunk(2, b"Pod")) + _chunk(2, b"\x0b\x0c"),
        protobuf.MAGIC
        + _chunk(1, _chunk(1, b"v1") + _chunk(2, b"Pod"))
        + _chunk(2, _chunk(1, _chunk(1, b"\xff"))),
        protobuf.MAGIC
        + _chunk(1, _chunk(1, b"v1") + _chunk(2, b"Pod"))
        + _chunk(2, _chunk(1, _chunk(8, _int(1, 1 << 62)))),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        protobuf.decode(body)
    assert refused.value.code == 400


def test_a_bomb_of_nested_schemas_is_refused() -> None:
    schema_text: Object = {}
    for _ in range(200):
        schema_text = {"not": schema_text}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema_text}}
    obj = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {}}
    with pytest.raises(ApiError):
        protobuf.decode(envelope(obj | {"spec": {"versions": [version]}}))


def test_every_built_in_kind_has_numbers() -> None:
    """kubectl and operators do not fall back on JSON; metrics.k8s.io alone is never written."""
    rows = [row for row in BUILTIN if row.group != "metrics.k8s.io"]
    assert [r for r in rows if protobuf._name(r.api_version, r.kind).endswith(r.kind) is False] == []


# Bodies that are no resources of their own, and the lists of every kind, are decoded too.
BODIES = [
    ("policy", "v1", "Eviction"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
    ("autoscaling", "v1", "Scale"),
]
SCHEMAS = sorted(
    {
        (r.group, r.version, kind)
        for r in BUILTIN
        if r.group != "metrics.k8s.io"
        for kind in (r.kind, f"{r.kind}List")
    }
    | set(BODIES)
)
# Fields of 1.37 whose number no published source we know tells: they are ignored in a protobuf body.
NUMBERLESS = {
    "authentication.v1.TokenRequestSpec.attestations",
    "core.v1.EvictionResponder.priority",
    "core.v1.NodeSystemInfo.runningInUserNamespace",
    "meta.v1.ListMeta.shardInfo",
}


def test_every_field_of_the_schema_has_a_number() -> None:
    missing: set[str] = set()
    seen: set[str] = set()
    for group, version, kind in SCHEMAS:
        node = schema.root(group, version, kind)
        if node is not None:
            _numberless(protobuf._name(f"{group}/{version}".lstrip("/"), kind), node, missing, seen)
    assert missing == NUMBERLESS


def _numberless(name: str, node: schema.Node, missing: set[str], seen: set[str]) -> None:
    """Walks a message and its schema side by side."""
    if name in seen or name in SPECIAL:
        return
    seen.add(name)
    fields = _message_types(name)
    # What a kind is stands in the envelope, not in the message.
    enveloped = {"apiVersion", "kind"} if "x-kubernetes-group-version-kind" in node.raw else set()
    for key, child in node.properties.items():
        if key in fields:
            if fields[key]:
                _numberless(fields[key], child.items or child.additional or child, missing, seen)
        elif key not in enveloped:
            missing.add(f"{name}.{key}")


def _message_types(name: str) -> dict[str, str]:
    """The fields of a message, those of structs embedded in it too, and the message each is, if it is one."""
    types: dict[str, str] = {}
    for row in TABLE[name]:
        _, field, kind, *rest = row.split(" ")
        types |= _message_types(rest[0]) if kind == "~" else {field: rest[0] if rest else ""}
    return types


def test_no_number_is_given_twice() -> None:
    for name, rows in TABLE.items():
        numbers = [row.split(" ")[0] for row in rows]
        assert len(set(numbers)) == len(numbers), name
