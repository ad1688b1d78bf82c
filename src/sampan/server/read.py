"""GET and LIST: the bytes of the store go out as they are; objects are decoded only for another form.

Source: API concepts, "Resource versions", "Retrieving large results sets in chunks".
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import orjson

from sampan.api import jsontext, wire
from sampan.api.status import ApiError, bad_request, gone, not_found
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import conversion, objects, respond
from sampan.server.call import Call
from sampan.server.negotiate import JSON
from sampan.server.options import ListOptions, list_options, too_large_version, version_number
from sampan.server.selectable import Match, compile_match, only_name
from sampan.store.protocol import Compacted, Item, Page

_CHUNK = 256 * 1024  # bytes of a list sent at once
_ROWS = 100  # of a Table made at once: 3 ms
_SLICE = 250  # items looked into before the loop may do something else
_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


def get(call: Call) -> Response:
    """One object. Raises 404."""
    row, info = call.row, call.info
    found = call.held or call.server.store.get(row.store_key, objects.key_of(row, info.namespace, info.name))
    if found is None:
        raise not_found(row.group, row.plural, info.name)
    if info.query and (version := version_number(info.first("resourceVersion"))):
        _check_reached(call, version)
    return respond.item(call, found)


def _check_reached(call: Call, version: int) -> None:
    if version > call.server.store.revision:
        raise too_large_version(version, call.server.store.revision)


async def list_(call: Call) -> Response:
    """A List, PartialObjectMetadataList or Table of what is selected."""
    options = list_options(call.info.query)
    match = compile_match(call.row, options)
    if call.form.shape == "table":
        respond.include_of(call)
    items, revision, token, remaining = select(call, options, match)
    if conversion.by_webhook(call.row):
        items = await call.server.conversions.items(call.row, items)
    meta: Object = {"resourceVersion": str(revision)}
    if token:
        meta["continue"] = token
    if remaining:
        meta["remainingItemCount"] = remaining
    response = await _listed(call, items, meta)
    if respond.takes_gzip(call.request.headers):
        return await respond.squeeze(response)
    return response


def select(call: Call, options: ListOptions, match: Match | None) -> tuple[Sequence[Item], int, str, int]:
    """(items, revision of the picture, continue token, remaining count) of a list."""
    row, info, store = call.row, call.info, call.server.store
    prefix = f"{info.namespace}/" if row.namespaced and info.namespace else ""
    after, at = _start(call, options, prefix)
    name = only_name(options)
    if name and at is None and not after and (prefix or not row.namespaced):
        found = store.get(row.store_key, prefix + name)
        items = [found] if found is not None and (match is None or match(found)) else []
        return items, store.revision, "", 0
    limit = options.limit
    if options.resource_version == "0" and not options.match:
        limit = 0  # served from the watch cache there, which knows no pages
    if match is None:
        page = _page(call, prefix, after, limit, at)
        token = _token(page, prefix) if page.remaining else ""
        return page.items, page.revision, token, page.remaining
    if not limit:
        page = _page(call, prefix, after, 0, at)
        return [i for i in page.items if match(i)], page.revision, "", 0
    return _selected_page(call, match, prefix, after, limit, at)


def _selected_page(
    call: Call, match: Match, prefix: str, after: str, limit: int, at: int | None
) -> tuple[Sequence[Item], int, str, int]:
    """A page under a selector: read on until `limit` objects match. No count is given of what remains."""
    chosen: list[Item] = []
    while True:
        page = _page(call, prefix, after, max(limit, _SLICE), at)
        at = page.revision
        for position, item in enumerate(page.items):
            if match(item):
                chosen.append(item)
                if len(chosen) == limit:
                    more = position + 1 < len(page.items) or page.remaining
                    token = _token_of(item.key, at, prefix) if more else ""
                    return chosen, at, token, 0
        if not page.remaining:
            return chosen, at, "", 0
        after = page.items[-1].key


def _start(call: Call, options: ListOptions, prefix: str) -> tuple[str, int | None]:
    """(key to begin after, revision of the picture or None for now)."""
    if options.token:
        start, at = _read_token(options.token)
        return prefix + start, at
    version = version_number(options.resource_version)
    if not version:
        return "", None
    _check_reached(call, version)
    exact = options.match == "Exact" or (not options.match and options.limit > 0)
    return "", version if exact else None


def _page(call: Call, prefix: str, after: str, limit: int, at: int | None) -> Page:
    try:
        return call.server.store.list(call.row.store_key, prefix, after=after, limit=limit, revision=at)
    except Compacted:
        if "continue" not in call.info.query:
            raise gone("The resourceVersion for the provided list is too old.") from None
        error = gone(_EXPIRED)
        fresh = _encode_token(-1, after.removeprefix(prefix))
        raise _WithContinue(error, fresh) from None


class _WithContinue(ApiError):
    """410 whose Status carries a token that goes on inconsistently."""

    def __init__(self, error: ApiError, token: str) -> None:
        super().__init__(error.code, error.reason, error.message)
        self._token = token

    def status(self) -> Object:
        return super().status() | {"metadata": {"continue": self._token}}


def _token(page: Page, prefix: str) -> str:
    return _token_of(page.items[-1].key, page.revision, prefix) if page.items else ""


def _token_of(key: str, revision: int, prefix: str) -> str:
    return _encode_token(revision, key.removeprefix(prefix))


def _encode_token(revision: int, start: str) -> str:
    body = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start + "\0"})
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, int | None]:
    """(start, revision or None). Raises 400 with the causes the original names."""
    try:
        body = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise bad_request("invalid continue token: continue key is not valid: illegal base64 data") from None
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request(
            f"invalid continue token: continue key is not valid: {jsontext.explain(body)}"
        ) from None
    if not isinstance(read, dict) or read.get("v") != "meta.k8s.io/v1":
        version = read.get("v", "") if isinstance(read, dict) else ""
        raise bad_request(
            "invalid continue token: continue key is not valid: server does not recognize this encoded version "
            f'"{version}"'
        )
    revision, start = read.get("rv", 0), read.get("start", "")
    for field, value, kind, go in (("rv", revision, int, "int64"), ("start", start, str, "string")):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise bad_request(
                f"invalid continue token: continue key is not valid: json: cannot unmarshal {wire.go_type(value)} "
                f"into Go struct field continueToken.{field} of type {go}"
            )
    if not revision:
        raise bad_request(
            "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion "
            "(version meta.k8s.io/v1)"
        )
    if not start:
        raise bad_request(
            "invalid continue token: continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"
        )
    return start.rstrip("\0"), revision if revision > 0 else None


async def _listed(call: Call, items: Sequence[Item], meta: Object) -> Response:
    """The answer in the call's form, in chunks when it is large."""
    form = call.form
    if form.shape == "table":
        return await _table(call, items, meta)
    if form.media != JSON or form.pretty:
        values = [_shaped(call, i) for i in items]
        return respond.document(_head(call) | {"metadata": meta, "items": values}, form=form)
    head = orjson.dumps(_head(call) | {"metadata": meta})[:-1] + b',"items":['
    if sum(len(i.value) for i in items[:_SLICE]) < _CHUNK and len(items) <= _SLICE:
        members = [_member(call, i) for i in items]
        body = b"".join((head, b"{" if members else b"", b",{".join(members), b"]}"))
        return Response(200, respond.JSON_HEADERS, body)
    return Response(200, respond.JSON_HEADERS, _chunks(call, head, items))


async def _table(call: Call, items: Sequence[Item], meta: Object) -> Response:
    """The list as a Table; a long one is sent row by row as it is made."""
    row, form = call.row, call.form

    def tabulate(start: int) -> Object:
        values = [objects.load(item, row) for item in items[start : start + _ROWS]]
        return respond.tabulate(call, row, values, headers=start == 0)

    table = tabulate(0) | {"metadata": meta}
    rest = range(_ROWS, len(items), _ROWS)
    if form.media == JSON and not form.pretty and rest:
        return Response(200, respond.JSON_HEADERS, _rows(call, table, tabulate, rest))
    for start in rest:
        await call.server.clock.sleep(0)  # a turn for others
        table["rows"] += tabulate(start)["rows"]
    return respond.document(table, form=form)


async def _rows(
    call: Call, table: Object, tabulate: Callable[[int], Object], rest: Iterable[int]
) -> AsyncIterator[bytes]:
    first = orjson.dumps(table.pop("rows"))
    yield b'%b,"rows":%b' % (orjson.dumps(table)[:-1], first[:-1])
    for start in rest:
        await call.server.clock.sleep(0)
        yield b",%b" % orjson.dumps(tabulate(start)["rows"])[1:-1]
    yield b"]}"


def _head(call: Call) -> Object:
    row = call.row
    if call.form.shape == "partial":
        return {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{call.form.version}"}
    return {"kind": row.list_kind or f"{row.kind}List", "apiVersion": row.api_version}


def _shaped(call: Call, item: Item) -> Object:
    value = objects.load(item, call.row)
    if call.form.shape == "partial":
        return respond.partial(value, call.form.version)
    return objects.untyped(value, call.row)


def _member(call: Call, item: Item) -> memoryview:
    """What the call's form shows of an object, as `objects.member` gives it."""
    if call.form.shape == "partial":
        return memoryview(orjson.dumps(_shaped(call, item)))[1:]
    return objects.member(item, call.row)


async def _chunks(call: Call, head: bytes, items: Sequence[Item]) -> AsyncIterator[bytes]:
    """The list in pieces of about `_CHUNK`; the loop gets a turn between them (the writer awaits the socket)."""
    row, whole = call.row, call.form.shape == "object"
    first, members, size = head + b"{", [], 0
    for item in items:
        member = objects.member(item, row) if whole else _member(call, item)
        members.append(member)
        size += len(member)
        if size >= _CHUNK or (len(members) >= _SLICE and not whole):
            yield first + b",{".join(members)
            first, members, size = b",{", [], 0
            await call.server.clock.sleep(0)
    yield (first + b",{".join(members) if members else b"") + b"]}"
