"""The client of the Kubernetes API that controllers, scheduler, nodes and the command line use.

One class for both ways: its transport is either a TLS connection or the server's own `handle` (no sockets, no TLS,
entering at authorization as the given user). Objects are plain JSON values; refusals are `ApiError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.client.messages import Request, Response, Transport, User, WatchEvent

_PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Client:
    """Calls on resources named as GroupResource text (`pods`, `deployments.apps`) or by their row.

    A refusal is raised as the ApiError that the server's Status says; OSError and EOFError mean that it was not reached.
    """

    def __init__(
        self, transport: Transport, registry: Registry, *, user: User | None = None, agent: str = "sampan"
    ) -> None:
        self._transport = transport
        self._registry = registry
        self._user = user
        self.agent = agent

    def row(self, resource: str | Resource) -> Resource:
        """The row of a resource that is named as `deployments.apps`. Raises ApiError 404, with what may be meant."""
        if isinstance(resource, Resource):
            return resource
        row = self._registry.get(resource)
        if row is None:
            meant = (r.name for r in self.rows() if resource in (r.plural, r.singular, *r.short_names))
            hint = "".join(f"; {name!r} is meant?" for name in meant)
            raise ApiError(
                404, "NotFound", f'the server doesn\'t have a resource type "{resource}"{hint}', {}
            )
        return row

    def rows(self) -> list[Resource]:
        """What the server serves, the preferred version of each resource only."""
        return [row for row in self._registry if self._registry.get(row.name) is row]

    def knows(self, resource: str) -> bool:
        """Whether the server has such a resource."""
        return self._registry.get(resource) is not None

    async def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> Response:
        """One call as it is; a 4xx or 5xx answer is returned, not raised."""
        headers = {"accept": "application/json", "user-agent": self.agent}
        if body:
            headers["content-type"] = content_type
        return await self._transport(
            Request(method, path, urlencode(query) if query else "", headers, body, user=self._user)
        )

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        obj: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        body = orjson.dumps(obj) if obj is not None else b""
        response = await self.request(method, path, query, body, content_type)
        payload = orjson.loads(await read_body(response) or b"null")
        if response.status >= 400:
            raise ApiError.from_status(payload if isinstance(payload, dict) else {"code": response.status})
        return payload

    async def get(
        self, resource: str | Resource, name: str, namespace: str = "", subresource: str = ""
    ) -> Object:
        """The object, or what its subresource shows. Raises ApiError 404."""
        return await self._call("GET", self.row(resource).path(namespace, name, subresource))

    async def list(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
    ) -> Object:
        """The List object; its `metadata.resourceVersion` is where a watch may start. Each item says what kind it is."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit) if limit else ""}
        row = self.row(resource)
        found = await self._call("GET", row.path(namespace), {k: v for k, v in query.items() if v})
        for item in found.get("items") or ():  # the server leaves it out for built-in kinds
            item.setdefault("apiVersion", row.api_version)
            item.setdefault("kind", row.kind)
        return found

    async def create(
        self,
        resource: str | Resource,
        obj: Object,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
    ) -> Object:
        """POST to the collection, or to a subresource of `name` (binding, eviction, token)."""
        namespace = namespace or obj.get("metadata", {}).get("namespace", "")
        return await self._call("POST", self.row(resource).path(namespace, name, subresource), None, obj)

    async def update(self, resource: str | Resource, obj: Object, subresource: str = "") -> Object:
        """PUT. Raises ApiError 409 when the object has another resourceVersion by now than `obj` says."""
        meta = obj["metadata"]
        path = self.row(resource).path(meta.get("namespace", ""), meta["name"], subresource)
        return await self._call("PUT", path, None, obj)

    async def patch(
        self,
        resource: str | Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        kind: str = "merge",
        subresource: str = "",
        manager: str = "",
        force: bool = False,
    ) -> Object:
        """`kind` is json, merge, strategic or apply (which needs `manager`)."""
        query = {"fieldManager": manager, "force": "true" if force else ""}
        path = self.row(resource).path(namespace, name, subresource)
        return await self._call(
            "PATCH", path, {k: v for k, v in query.items() if v}, patch, _PATCH_TYPES[kind]
        )

    async def delete(
        self,
        resource: str | Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace: int | None = None,
        propagation: str = "",
    ) -> Object:
        """The Status or object that the server answers. `grace` in seconds; `uid` and `resource_version` are preconditions.

        Raises ApiError: 404 when it is not there, 409 when a precondition does not hold.
        """
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
        if preconditions:
            options["preconditions"] = preconditions
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        return await self._call("DELETE", self.row(resource).path(namespace, name), None, options)

    async def watch(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        since: str = "",
        labels: str = "",
        fields: str = "",
        initial: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """Lines of `{"type":..,"object":..}` as bytes, undecoded: most readers look into few of them.

        `since` is a resourceVersion; `initial=True` first sends every object as ADDED and then a bookmark with the
        annotation `k8s.io/initial-events-end` (KEP-3157). Raises ApiError (410 when `since` is too old).
        """
        response = await self._watched(resource, namespace, since, labels, fields, initial)
        batches = _lines(response)
        async with _ended(batches):
            async for lines in batches:
                for line in lines:
                    yield line

    async def events(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        since: str = "",
        labels: str = "",
        fields: str = "",
        initial: bool = False,
    ) -> AsyncGenerator[Sequence[WatchEvent], None]:
        """`watch` in batches of events. Inside one process their values are the very bytes the store holds."""
        response = await self._watched(resource, namespace, since, labels, fields, initial)
        if response.events is not None:
            batches = response.events()
            async with _ended(batches):
                async for batch in batches:
                    yield batch
            return
        received = _lines(response)
        async with _ended(received):
            async for lines in received:
                yield [_event(line) for line in lines]

    async def _watched(
        self, resource: str | Resource, namespace: str, since: str, labels: str, fields: str, initial: bool
    ) -> Response:
        query = {
            "watch": "true",
            "resourceVersion": since,
            "labelSelector": labels,
            "fieldSelector": fields,
            "allowWatchBookmarks": "true",
        }
        if initial:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        path = self.row(resource).path(namespace)
        response = await self.request("GET", path, {k: v for k, v in query.items() if v})
        if response.status >= 400:
            raise ApiError.from_status(orjson.loads(await read_body(response)))
        return response


async def _lines(response: Response) -> AsyncGenerator[list[bytes], None]:
    """The whole lines of a streamed body, as many together as came together."""
    body = response.body
    assert not isinstance(body, bytes)
    rest = b""
    async with _ended(body):
        async for chunk in body:
            lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
            rest = lines.pop()
            yield [line for line in lines if line]


def _event(line: bytes) -> WatchEvent:
    event = orjson.loads(line)
    obj = event["object"]
    revision = (obj.get("metadata") or {}).get("resourceVersion")
    return WatchEvent(event["type"], int(revision or 0), orjson.dumps(obj), obj)


@contextlib.asynccontextmanager
async def _ended(source: Any) -> AsyncGenerator[None, None]:
    """Whoever stops reading ends the watch on the other side at once."""
    try:
        yield
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


async def read_body(response: Response) -> bytes:
    """The whole body of an answer, whether it came at once or in chunks."""
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([chunk async for chunk in response.body])
