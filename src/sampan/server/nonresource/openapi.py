"""/openapi/v2 and /openapi/v3: documents of `sampan.api.openapi`, built in a thread and kept until the registry changes.

Addresses of v3 documents carry a hash, so clients keep them for good; everything has an ETag.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from sampan.api import openapi, openapi_proto
from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError, method_not_allowed
from sampan.client.messages import Request, Response

_JSON = "application/json"
_V2_PROTOBUF = (
    "com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
_A_YEAR = 31536000  # seconds


class _Document(NamedTuple):
    media: str
    etag: str
    plain: bytes
    packed: bytes  # gzip


class _Kept:
    """The documents of one registry, by path and form."""

    def __init__(self) -> None:
        self.generation = -1
        self.tasks: dict[str, asyncio.Task[_Document]] = {}
        self.groups: dict[str, list[Resource]] = {}
        self.hashes: dict[str, str] = {}
        self.index = b""
        self.swagger = ""  # the tag of version 2


_kept: weakref.WeakKeyDictionary[Registry, _Kept] = weakref.WeakKeyDictionary()


async def answer(
    registry: Registry,
    request: Request,
    rest: list[str],
    version: str,
    others: Mapping[str, Any] | None = None,
    older: Sequence[Any] = (),
) -> Response | None:
    """The answer below /openapi; `rest` are the path's parts after it. None where there is no document.

    `others` are entries of the index of version 3 that other servers answer for, `older` their parts of version 2.
    """
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    kept = _current(registry, version)
    if rest == ["v3"]:
        index = _with_others(kept.index, others) if others else kept.index
        return _send(request, _Document(_JSON, _tag(index), index, b""))
    if rest == ["v2"]:
        return _send(request, await _swagger(kept, request, version, older))
    if rest[:1] != ["v3"]:
        return None
    path = "/".join(rest[1:])
    rows = kept.groups.get(path)
    if rows is None:
        return None
    _require_json(request)
    digest = kept.hashes[path]
    asked = _hash(request.query)
    if asked and asked != digest:
        return Response(301, {"location": f"/openapi/v3/{path}?hash={digest}"})
    found = await _build(kept, path, _JSON, digest, lambda: orjson.dumps(openapi.document(rows, version)))
    response = _send(request, found)
    if asked:
        response.headers["cache-control"] = f"public, immutable, max-age={_A_YEAR}"
    return response


def _with_others(index: bytes, others: Mapping[str, Any]) -> bytes:
    found = orjson.loads(index)
    found["paths"] |= others
    return orjson.dumps(found)


def _current(registry: Registry, version: str) -> _Kept:
    kept = _kept.setdefault(registry, _Kept())
    if kept.generation != registry.generation:
        kept.generation = registry.generation
        kept.groups = openapi.group_versions(registry)
        hashes = {path: openapi.digest(rows, version) for path, rows in kept.groups.items()}
        kept.tasks = {p: t for p, t in kept.tasks.items() if p in hashes and hashes[p] == kept.hashes.get(p)}
        kept.hashes = hashes
        kept.index = orjson.dumps(openapi.index(kept.groups, kept.hashes))
    return kept


async def _swagger(kept: _Kept, request: Request, version: str, others: Sequence[Any]) -> _Document:
    rows = [row for group in kept.groups.values() for row in group]
    tag = _tag("".join(kept.hashes.values()).encode() + (orjson.dumps(others) if others else b""))
    if tag != kept.swagger:
        kept.swagger = tag
        kept.tasks.pop("v2", None)
        kept.tasks.pop("v2 protobuf", None)
    accept = request.headers.get("accept", "")
    if any(name in accept for name in _V2_PROTOBUF):

        def protobuf() -> bytes:
            return openapi_proto.encode(openapi.swagger(rows, version, others))

        return await _build(kept, "v2 protobuf", openapi_proto.MEDIA_TYPE, f"{tag}P", protobuf)
    _require_json(request)
    return await _build(kept, "v2", _JSON, tag, lambda: orjson.dumps(openapi.swagger(rows, version, others)))


async def _build(kept: _Kept, name: str, media: str, etag: str, make: Callable[[], bytes]) -> _Document:
    """The document of that name; however many ask, it is built once."""
    task = kept.tasks.get(name)
    if task is None:
        task = kept.tasks[name] = asyncio.ensure_future(asyncio.to_thread(_make, media, etag, make))
    try:
        return await asyncio.shield(task)
    except Exception:
        kept.tasks.pop(name, None)
        raise


def _make(media: str, etag: str, make: Callable[[], bytes]) -> _Document:
    plain = make()
    packer = zlib.compressobj(4, wbits=31)
    return _Document(media, etag, plain, packer.compress(plain) + packer.flush())


def _send(request: Request, found: _Document) -> Response:
    headers = {
        "etag": f'"{found.etag}"',
        "vary": "Accept, Accept-Encoding",
        "cache-control": "no-cache, private",
    }
    if request.headers.get("if-none-match", "").removeprefix("W/").strip('"') == found.etag:
        return Response(304, headers)
    headers["content-type"] = found.media
    if found.packed and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(200, headers | {"content-encoding": "gzip"}, found.packed)
    return Response(200, headers, found.plain)


def _require_json(request: Request) -> None:
    accept: Any = request.headers.get("accept", "")
    media = {clause.partition(";")[0].strip() for clause in accept.split(",")}
    if not media & {"", "*/*", "application/*", _JSON}:
        raise ApiError(406, "NotAcceptable", "406: Not Acceptable", {})


def _tag(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest().upper()


def _hash(query: str) -> str:
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "hash":
            return value
    return ""
