"""A server small enough to see through: create, read, replace, merge, delete and watch over the memory store."""

from __future__ import annotations

from urllib.parse import parse_qs

import orjson
import pytest

from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError, already_exists, conflict, gone, not_found
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.messages import Request, Response
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Compacted, Conflict, Draft

ROWS = [
    Resource("", "v1", "Pod", "pods", True, subresources=("status",)),
    Resource("", "v1", "Event", "events", True),
    Resource("", "v1", "Node", "nodes", False),
    Resource("apps", "v1", "ReplicaSet", "replicasets", True, subresources=("status",)),
    Resource("coordination.k8s.io", "v1", "Lease", "leases", True),
]


class FakeServer:
    """`refuse` may raise for a request before it is served; `log` holds (method, path) of all."""

    def __init__(self, clock, ids):
        self.store = MemoryStore(clock, history=50)
        self.registry = Registry(ROWS)
        self.log = []
        self.refuse = lambda request: None
        self.watches = []
        self.ids = ids

    async def __call__(self, request: Request) -> Response:
        self.log.append((request.method, request.path))
        try:
            self.refuse(request)
            return await self.serve(request)
        except ApiError as error:
            return Response(error.code, {}, orjson.dumps(error.status()))

    async def serve(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        group, version, parts = (
            ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        )
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        row = self.registry.find(group, version, parts[0])
        name = parts[1] if len(parts) > 1 else ""
        key = f"{namespace}/{name}" if row.namespaced else name
        query = {k: v[0] for k, v in parse_qs(request.query).items()}
        body = orjson.loads(request.body) if request.body else None
        if request.method == "POST":
            meta = body["metadata"]
            if "generateName" in meta and "name" not in meta:
                meta["name"] = meta["generateName"] + self.ids.suffix()
            meta["uid"] = self.ids.uid()
            if row.namespaced:
                meta["namespace"] = namespace
            return await self.write(
                row, f"{namespace}/{meta['name']}" if row.namespaced else meta["name"], body, 0
            )
        if request.method == "GET" and not name:
            prefix = f"{namespace}/" if namespace else ""
            if "watch" in query:
                return Response(200, {}, self.watch(row, prefix, query))
            page = self.store.list(row.name, prefix)
            items = [orjson.loads(i.value) for i in page.items]
            return Response(
                200, {}, orjson.dumps({"metadata": {"resourceVersion": str(page.revision)}, "items": items})
            )
        item = self.store.get(row.name, key)
        if item is None:
            raise not_found(row.group, row.plural, name)
        live = orjson.loads(item.value)
        if request.method == "GET":
            return Response(200, {}, item.value)
        if request.method == "DELETE":
            wanted = (body or {}).get("preconditions", {})
            if wanted.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
                raise conflict(row.group, row.plural, name, "the UID in the precondition does not match")
            await self.store.delete(row.name, key, None)
            return Response(200, {}, b'{"kind":"Status","status":"Success"}')
        if request.method == "PATCH":
            body = merge(live, body)
        expected = body["metadata"].get("resourceVersion")
        if expected not in (None, "", live["metadata"]["resourceVersion"]):
            raise conflict(row.group, row.plural, name)
        return await self.write(row, key, body, None)

    async def write(self, row, key, body, expected):
        body = {"apiVersion": row.api_version, "kind": row.kind, **body}
        meta = {
            "resourceVersion": "",
            **{k: v for k, v in body["metadata"].items() if k != "resourceVersion"},
        }
        value = orjson.dumps({**body, "metadata": meta})
        slot = value.index(b'"resourceVersion":"') + len(b'"resourceVersion":"')
        try:
            item = await self.store.put(
                row.name, key, Draft(value, slot, meta.get("labels", {}), {}), expected
            )
        except Conflict:
            raise already_exists(row.group, row.plural, meta["name"]) from None
        return Response(201, {}, item.value)

    async def watch(self, row, prefix, query):
        self.log.append(("WATCH", row.name + "@" + query.get("resourceVersion", "")))
        since = int(query.get("resourceVersion") or 0)
        if "sendInitialEvents" in query:
            page = self.store.list(row.name, prefix)
            for item in page.items:
                yield b'{"type":"ADDED","object":%b}\n' % item.value
            since = page.revision
            yield (
                b'{"type":"BOOKMARK","object":{"kind":"%b","metadata":{"resourceVersion":"%d",'
                b'"annotations":{"k8s.io/initial-events-end":"true"}}}}\n' % (row.kind.encode(), since)
            )
        try:
            watch = self.store.watch(row.name, prefix, since=since)
        except Compacted:
            error = orjson.dumps(gone("too old resource version").status())
            yield b'{"type":"ERROR","object":%b}\n' % error
            return
        self.watches.append(watch)
        async for batch in watch:
            for change in batch:
                if change.item is None:
                    yield b'{"type":"DELETED","object":%b}\n' % change.final
                else:
                    kind = b"MODIFIED" if change.previous else b"ADDED"
                    yield b'{"type":"%b","object":%b}\n' % (kind, change.item.value)

    def disconnect(self):
        """End every watch, as a restarting server does."""
        for watch in self.watches:
            watch.close()
        self.watches.clear()


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def ids():
    return Ids(7)


@pytest.fixture
def server(clock, ids):
    return FakeServer(clock, ids)


@pytest.fixture
def client(server):
    return Client(server, server.registry)
