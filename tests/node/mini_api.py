"""A few requests' worth of API server in a dict, for tests of the agent that should not wait for a whole server.

Knows create, get, merge and strategic patch, delete with grace, watch with `sendInitialEvents`. Floor laws forbid the
node's tests to import the server; the real one is exercised through `sampan.testing`.
"""

from __future__ import annotations

import asyncio
import copy
from urllib.parse import parse_qs

import orjson

from sampan.api import schema
from sampan.api.mergepatch import merge_patch
from sampan.api.resources import BUILTIN
from sampan.api.strategic import strategic_merge
from sampan.base.clock import VirtualClock, rfc3339
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.messages import Request, Response


class MiniApi:
    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.ids = Ids(1)
        self.objects: dict[tuple[str, str, str], dict] = {}
        self.revision = 0
        self.watchers: list[tuple[str, str, str, asyncio.Queue]] = []
        self.requests: list[Request] = []

    def client(self) -> Client:
        return Client(self, BUILTIN)

    def get(self, plural: str, name: str, namespace: str = "default") -> dict | None:
        return self.objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[dict]:
        return [o for (p, _, _), o in self.objects.items() if p == plural]

    def events(self, name: str = "") -> list[tuple[str, str]]:
        found = [e for e in self.all("events") if name in ("", e["involvedObject"]["name"])]
        return [(e["reason"], e["message"]) for e in found]

    def create(self, plural: str, obj: dict, namespace: str = "") -> dict:
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        if namespace:
            meta["namespace"] = namespace
        meta.setdefault("uid", self.ids.uid())
        meta.setdefault("creationTimestamp", rfc3339(self.clock.now()))
        meta.setdefault("generation", 1)
        return self._store(plural, obj, "ADDED")

    def change(self, plural: str, name: str, patch: dict, namespace: str = "default") -> dict:
        old = self.objects[plural, namespace, name]
        return self._store(plural, merge_patch(copy.deepcopy(old), patch), "MODIFIED")

    def delete(self, plural: str, name: str, namespace: str = "default", grace: int | None = None) -> dict:
        obj = copy.deepcopy(self.objects[plural, namespace, name])
        if grace is None:
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
        if plural == "pods" and grace > 0 and obj["spec"].get("nodeName"):
            stamp = rfc3339(self.clock.now() + grace)
            obj["metadata"] |= {"deletionTimestamp": stamp, "deletionGracePeriodSeconds": grace}
            return self._store(plural, obj, "MODIFIED")
        return self._store(plural, obj, "DELETED")

    def _store(self, plural: str, obj: dict, kind: str) -> dict:
        meta = obj["metadata"]
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        key = (plural, meta.get("namespace", ""), meta["name"])
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = obj
        line = orjson.dumps({"type": kind, "object": obj}) + b"\n"
        for wanted, namespace, fields, queue in self.watchers:
            if wanted == plural and namespace in ("", key[1]) and _selected(obj, fields):
                queue.put_nowait(line)
        return obj

    async def __call__(self, request: Request) -> Response:
        await asyncio.sleep(0)
        self.requests.append(request)
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name, sub = (*parts, "", "")[:3]
        query = {k: v[0] for k, v in parse_qs(request.query).items()}
        body = orjson.loads(request.body or b"null")
        key = (plural, namespace, name)
        if request.method == "GET" and query.get("watch"):
            return Response(200, {}, self._watch(plural, namespace, query))
        if request.method == "POST":
            if sub == "token":
                return _json(201, {"status": {"token": "t", "expirationTimestamp": "2099-01-01T00:00:00Z"}})
            meta = body["metadata"]
            if (plural, namespace, meta["name"]) in self.objects:
                return _status(409, "AlreadyExists")
            return _json(201, self.create(plural, body, namespace))
        if key not in self.objects:
            return _status(404, "NotFound")
        if request.method == "GET":
            return _json(200, self.objects[key])
        if request.method == "DELETE":
            if (body.get("preconditions") or {}).get("uid", "") not in (
                "",
                self.objects[key]["metadata"]["uid"],
            ):
                return _status(409, "Conflict")
            return _json(200, self.delete(plural, name, namespace, body.get("gracePeriodSeconds")))
        if request.method == "PATCH":
            old = copy.deepcopy(self.objects[key])
            if body.get("metadata", {}).get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                return _status(409, "Conflict")
            if "strategic" in request.headers["content-type"]:
                node = schema.root("", "v1", old.get("kind", "Pod"))
                new = strategic_merge(old, body, node)
            else:
                new = merge_patch(old, body)
            return _json(200, self._store(plural, new, "MODIFIED"))
        return _status(405, "MethodNotAllowed")

    async def _watch(self, plural: str, namespace: str, query: dict):
        queue: asyncio.Queue = asyncio.Queue()
        fields = query.get("fieldSelector", "")
        self.watchers.append((plural, namespace, fields, queue))
        if query.get("sendInitialEvents"):
            for (p, n, _), obj in list(self.objects.items()):
                if p == plural and namespace in ("", n) and _selected(obj, fields):
                    yield orjson.dumps({"type": "ADDED", "object": obj}) + b"\n"
            end = {
                "annotations": {"k8s.io/initial-events-end": "true"},
                "resourceVersion": str(self.revision),
            }
            yield orjson.dumps({"type": "BOOKMARK", "object": {"metadata": end}}) + b"\n"
        while True:
            yield await queue.get()


def _selected(obj: dict, fields: str) -> bool:
    for part in filter(None, fields.split(",")):
        path, _, value = part.partition("=")
        at = obj
        for step in path.split("."):
            at = at.get(step, {})
        if at != value:
            return False
    return True


def _json(code: int, obj: dict) -> Response:
    return Response(code, {}, orjson.dumps(obj))


def _status(code: int, reason: str) -> Response:
    return _json(code, {"kind": "Status", "code": code, "reason": reason, "message": reason})
