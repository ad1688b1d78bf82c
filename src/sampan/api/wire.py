"""Objects as bytes: JSON out with a slot for the revision, JSON and YAML in, refusals worded like the original's.

YAML is read as the original's parser reads it (1.1 booleans, no sexagesimal numbers, no dates), keys turned into text.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
import yaml

from sampan.api import jsontext
from sampan.api.status import bad_request

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

_SLOT = b'"resourceVersion":"'


def encode(obj: dict[str, Any]) -> tuple[bytes, int]:
    """(bytes, slot): apiVersion, kind and metadata lead, and the revision goes in at `slot` (see store.protocol.Draft)."""
    meta = obj.get("metadata") or {}
    if "resourceVersion" in meta:
        meta = {k: v for k, v in meta.items() if k != "resourceVersion"}
    head = {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "metadata": {"resourceVersion": "", **meta},
    }
    for key, value in obj.items():
        if key not in head:
            head[key] = value
    # orjson over-allocates and never shrinks; bytes that are kept must be copied to their size.
    data = bytes(memoryview(orjson.dumps(head)))
    return data, data.index(_SLOT) + len(_SLOT)


def decode(data: bytes | str) -> dict[str, Any]:
    """The object in stored or received JSON. Raises ValueError."""
    return orjson.loads(data)


def parse_body(content_type: str, body: bytes, *, kind: str = "") -> dict[str, Any]:
    """The object a request carries; a body of `null` counts as `{}`.

    `kind` is what the path expects; it is named in the refusal. Raises ApiError 400. The caller has checked that
    the media type is one of JSON, YAML and protobuf.
    """
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == PROTOBUF:
            from sampan.api import protobuf

            return protobuf.decode(body)
        found = load_yaml(body) if media.endswith("yaml") else _load_json(body)
    except ValueError as error:
        raise _unrecognized(kind, str(error), body) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        target = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        text = f"json: cannot unmarshal {go_type(found)} into Go value of type {target}"
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {text}", body)
    return found


def _load_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        text = jsontext.explain(body)
        raise ValueError(f"couldn't get version/kind; json parse error: {text}") from None


def _unrecognized(kind: str, why: str, body: bytes) -> Exception:
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): {why} ({_summary(body)})"
    )


def _summary(body: bytes, limit: int = 30) -> str:
    """The start of a body as the original quotes it: text if it looks like JSON, else hexadecimal."""
    if not body:
        return "<empty>"
    start = body[:limit]
    text = start.decode("utf-8", "replace") if body[:1] == b"{" else start.hex()
    return text + " ..." if len(body) > limit else text


def go_type(value: Any) -> str:
    """What Go's JSON decoder calls a value's type."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"


# YAML


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader with the scalars of the original's parser."""


_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)")


def _resolver(loader: type[Any]) -> None:
    kept = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in kept]
        for first, resolvers in loader.yaml_implicit_resolvers.items()
    }
    whole = re.compile(rf"(?:{_INT.pattern})\Z")
    real = re.compile(rf"(?:{_FLOAT.pattern})\Z")
    loader.add_implicit_resolver("tag:yaml.org,2002:int", whole, list("-+0123456789"))
    loader.add_implicit_resolver("tag:yaml.org,2002:float", real, list("-+0123456789."))


_resolver(_Loader)


def _integer(loader: Any, node: Any) -> int | str:
    text = node.value.replace("_", "")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    if text[:2] in ("0x", "0b", "0o"):
        base = 0
    else:
        base = 8 if text != "0" and text.startswith("0") else 10
    try:
        return sign * int(text, base)
    except ValueError:  # no digits, or too many
        return str(node.value)


def _real(loader: Any, node: Any) -> float:
    text = node.value.lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)


def load_yaml(body: bytes | str) -> Any:
    """One YAML (or JSON) document as JSON values. Raises ValueError worded like the original's parser."""
    _check_depth(body)
    try:
        return _plain(yaml.load(body, _Loader), [max(len(body), _MOST_VALUES)])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        if "nesting depth" in problem:  # newer versions of the parser have a limit of their own
            raise ValueError(_TOO_DEEP) from None
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(f"yaml: {where}{problem}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


_TOO_DEEP = "yaml: exceeded max depth"
_MOST_DEPTH = 10_000  # of brackets; the parser's time grows with its square
_BRACKETS = re.compile(r"[\[{]+|[\]}]+")


def _check_depth(body: bytes | str) -> None:
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if text.count("[") + text.count("{") < _MOST_DEPTH:
        return
    depth = 0
    for found in _BRACKETS.finditer(text):
        run = found[0]
        depth = max(0, depth + (len(run) if run[0] in "[{" else -len(run)))
        if depth >= _MOST_DEPTH:
            raise ValueError(_TOO_DEEP)


_MOST_VALUES = (
    100_000  # aliases can make a short text expand without end; without them none has more than characters
)


def _plain(value: Any, budget: list[int]) -> Any:
    """JSON's view of a YAML value: keys are text. `budget` holds how many values may still come."""
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError("yaml: document contains excessive aliasing")
    if isinstance(value, dict):
        return {_key(k): _plain(v, budget) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, budget) for v in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if key is None:
        return "null"
    return str(key)


# Duplicate keys (strict field validation)

_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')


def duplicate_keys(body: bytes, decoded: Any = None) -> list[str]:
    """Paths of keys a JSON or YAML body gives more than once, e.g. `metadata.name`, in order.

    `decoded` is what the body says, if the caller has it already. The common case costs one encode: a decoded object
    with as many keys as its text has no duplicates.
    """
    if decoded is None:
        try:
            decoded = orjson.loads(body)
        except ValueError:
            return _yaml_duplicates(body)
    compact = orjson.dumps(decoded)
    if body.count(b'":') == compact.count(b'":') and (
        len(body) - len(compact) < 2 or not _SPACED_KEY.search(body)
    ):
        return []
    return jsontext.duplicates(body.decode("utf-8", "replace"))


def _yaml_duplicates(body: bytes) -> list[str]:
    try:
        tree = yaml.compose(body, _Loader)
    except (yaml.YAMLError, RecursionError):
        return []
    found: list[str] = []
    if tree is not None:
        _collect_duplicates(tree, "", found, set())
    return found


def yaml_strict_error(body: bytes) -> str:
    """What Go's strict YAML decoder says of keys that come twice, with their lines; "" when none does."""
    if body[:1] == b"{" and not duplicate_keys(body):  # JSON, as kubectl sends it
        return ""
    try:
        tree = yaml.compose(body, _Loader)
    except (yaml.YAMLError, RecursionError):
        return ""
    lines: list[str] = []
    if tree is not None:
        _collect_lines(tree, lines, set())
    return "\n".join(["yaml: unmarshal errors:", *lines]) if lines else ""


def _collect_lines(tree: Any, lines: list[str], visited: set[int]) -> None:
    if id(tree) in visited:
        return
    visited.add(id(tree))
    if isinstance(tree, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in tree.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    lines.append(f'  line {key.start_mark.line + 1}: key "{key.value}" already set in map')
                seen.add(key.value)
            _collect_lines(value, lines, visited)
    elif isinstance(tree, yaml.SequenceNode):
        for item in tree.value:
            _collect_lines(item, lines, visited)


def _collect_duplicates(tree: Any, path: str, found: list[str], visited: set[int]) -> None:
    if id(tree) in visited:  # an alias: looked at already, and maybe without end
        return
    visited.add(id(tree))
    if isinstance(tree, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in tree.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            if key.value in seen:
                found.append(here)
            seen.add(key.value)
            _collect_duplicates(value, here, found, visited)
    elif isinstance(tree, yaml.SequenceNode):
        for index, item in enumerate(tree.value):
            _collect_duplicates(item, f"{path}[{index}]", found, visited)
