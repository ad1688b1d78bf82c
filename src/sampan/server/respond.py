"""Answers: an object or Status as bytes in the form that was asked for."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import orjson

from sampan.api.registry import Resource
from sampan.api.status import ApiError, bad_request
from sampan.base.objects import Object
from sampan.client.messages import Request, Response
from sampan.server import objects
from sampan.server.call import Call, warning_headers
from sampan.server.negotiate import JSON, YAML, Form
from sampan.store.protocol import Item


class Headers(dict[str, str]):
    """Headers that many answers share: what is sent of them is made once. Not to be changed."""

    __slots__ = ("lines",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.lines = header_lines(headers)


def header_lines(headers: Mapping[str, str]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("utf-8", "replace")


JSON_HEADERS = Headers({"content-type": JSON, "cache-control": "no-cache, private"})
_GZIP_FROM = 128 * 1024  # bytes; smaller answers cost more to squeeze than to send


def refusal(error: ApiError, media: str = JSON) -> Response:
    """The Status of a refusal."""
    headers = {"content-type": media}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.headers is not None:
        headers |= error.headers
    if error.code == 401:
        headers["www-authenticate"] = 'Bearer realm="kubernetes"'
    return Response(error.code, headers, dump(error.status(), Form(media=media)))


def dump(obj: Any, form: Form) -> bytes:
    """Plain data in a form's media type."""
    if form.media == YAML:
        import yaml

        return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True).encode()
    return orjson.dumps(obj, option=orjson.OPT_INDENT_2 if form.pretty else None)


def document(obj: Any, *, status: int = 200, form: Form | None = None) -> Response:
    """Any JSON value, such as a discovery document."""
    form = form or Form()
    return Response(status, {"content-type": form.media}, dump(obj, form))


def text(body: str, status: int = 200) -> Response:
    return Response(status, {"content-type": "text/plain; charset=utf-8"}, body.encode())


def item(call: Call, found: Item, status: int = 200) -> Response:
    """A stored object: its bytes as they are whenever that is the form."""
    if call.form.stored:
        headers: dict[str, str] = JSON_HEADERS
        if call.warnings:
            headers = JSON_HEADERS | warning_headers(call.warnings)
        return Response(status, headers, objects.raw(found, call.row))
    return obj(call, objects.load(found, call.row), status)


def obj(call: Call, value: Object, status: int = 200, row: Resource | None = None) -> Response:
    """An object that is not (or not yet) in the store."""
    form = call.form
    if value.get("kind") == "Status" and value.get("apiVersion") == "v1":
        shaped = value
    else:
        shaped = shape(call, row or call.row, value)
    headers = {"content-type": form.media} | warning_headers(call.warnings)
    return Response(status, headers, dump(shaped, form))


def computed(call: Call, values: list[Object]) -> Response:
    """A list of objects that are made for this answer and stored nowhere."""
    if call.form.shape == "table":
        table = tabulate(call, call.row, values, headers=True)
        return document(table | {"metadata": {}}, form=call.form)
    if call.form.shape == "partial":
        head = {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{call.form.version}"}
        values = [partial(value, call.form.version) for value in values]
    else:
        head = {"kind": f"{call.row.kind}List", "apiVersion": call.row.api_version}
    return document(head | {"metadata": {}, "items": values}, form=call.form)


def for_eyes(request: Request) -> bool:
    """Somebody reads the JSON: `?pretty=true` asks for it, and so do curl, wget and browsers by their names."""
    if "pretty=" in request.query:
        wanted = parse_qs(request.query).get("pretty", [""])[0]
        return wanted.lower() in ("1", "t", "true")
    return request.headers.get("user-agent", "").startswith(("curl", "Wget", "Mozilla/5.0"))


def indented(response: Response) -> Response:
    """The same JSON on many lines; other answers, and those that are sent in pieces, as they are."""
    body, headers = response.body, response.headers
    if not isinstance(body, bytes) or headers.get("content-type") != JSON or "content-encoding" in headers:
        return response
    pretty = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return replace(response, body=pretty)


def shape(call: Call, row: Resource, value: Object) -> Object:
    """One object as itself, its metadata only, or a Table of one row."""
    form = call.form
    if form.shape == "partial":
        return partial(value, form.version)
    if form.shape == "table":
        table = tabulate(call, row, [value], headers=True)
        table["metadata"] = {"resourceVersion": value.get("metadata", {}).get("resourceVersion", "")}
        return table
    return value


def partial(value: Object, version: str = "v1") -> Object:
    """Metadata alone. Source: API concepts, "Metadata-only fetches"."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": value.get("metadata", {}),
    }


def include_of(call: Call) -> str:
    """The `includeObject` of a Table request. Raises 400."""
    include = call.info.first("includeObject") or "Metadata"
    if include not in ("Metadata", "Object", "None"):
        raise bad_request(
            f'Unable to convert to Table as requested: includeObject: Invalid value: "{include}": '
            "must be 'Metadata', 'Object', 'None', or empty"
        )
    return include


def tabulate(call: Call, row: Resource, values: list[Object], *, headers: bool) -> Object:
    """A meta.k8s.io Table without list metadata."""
    from sampan.api.table import render

    table = render(row, values, call.server.clock.now(), include=include_of(call), headers=headers)
    table["apiVersion"] = f"meta.k8s.io/{call.form.version}"
    return table


def takes_gzip(headers: Mapping[str, str]) -> bool:
    return "gzip" in headers.get("accept-encoding", "")


async def squeeze(response: Response) -> Response:
    """gzip of a large answer, off the loop."""
    if isinstance(response.body, bytes):
        if len(response.body) < _GZIP_FROM:
            return response
        body = await asyncio.to_thread(_gzip, response.body)
        return Response(response.status, response.headers | {"content-encoding": "gzip"}, body)
    return Response(
        response.status, response.headers | {"content-encoding": "gzip"}, _squeezed(response.body)
    )


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(body) + packer.flush()


async def _squeezed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    async for chunk in chunks:
        packed = await asyncio.to_thread(packer.compress, chunk)
        if packed:
            yield packed
    yield packer.flush()
