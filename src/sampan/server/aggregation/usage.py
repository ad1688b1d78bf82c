"""metrics.k8s.io: what pods and nodes use at the moment, asked of the nodes' agents when somebody wants to know.

Elsewhere an add-on (metrics-server) serves this group; here it is built in. Nothing is stored and nobody polls: an
answer is put together from the agents' /stats/summary, which is kept for a moment so that many autoscalers cost one
request a node. Source: "Resource metrics pipeline"; the metrics.k8s.io/v1beta1 API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from sampan.api.status import ApiError, not_found
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.client import read_body
from sampan.client.messages import Request, Response
from sampan.server import respond
from sampan.server.call import Call, Kit
from sampan.server.options import list_options
from sampan.server.selectable import compile_match, only_name
from sampan.store.protocol import Item

GROUP = "metrics.k8s.io"
_KEPT = 2.0  # seconds a node's answer is used again
_PATIENCE = 5.0  # seconds a node may take; one that does not answer is left out
_AT_ONCE = 32


class Usage:
    """The answers of the group, and the latest summaries of nodes that they are made of."""

    def __init__(self, server: Kit) -> None:
        self._server = server
        self._asked: dict[str, tuple[float, asyncio.Task[Object | None]]] = {}
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def serve(self, call: Call) -> Response:
        """GET or LIST of `nodes` or `pods` of the group. Raises 404 for what is not there or not measured."""
        of_pods = call.row.plural == "pods"
        if call.info.verb == "get":
            key = f"{call.info.namespace}/{call.info.name}" if of_pods else call.info.name
            item = call.server.store.get(call.row.plural, key)
            found = await (_pods if of_pods else _nodes)(self, call, [item] if item else [])
            if not found:
                raise not_found(GROUP, call.row.plural, call.info.name)
            return respond.obj(call, found[0])
        items = _selected(call)
        return respond.computed(call, await (_pods if of_pods else _nodes)(self, call, items))

    async def of(self, nodes: Iterable[str]) -> dict[str, Object]:
        """Summaries (stats/v1alpha1) by node, without those of nodes that do not answer."""
        names = list(dict.fromkeys(nodes))
        found = await asyncio.gather(*(asyncio.shield(self._ask(name)) for name in names))
        return {name: summary for name, summary in zip(names, found, strict=True) if summary is not None}

    def _ask(self, node: str) -> asyncio.Task[Object | None]:
        now = self._server.clock.monotonic()
        known = self._asked.get(node)
        if known is not None and now - known[0] < _KEPT:
            return known[1]
        self._asked = {name: entry for name, entry in self._asked.items() if now - entry[0] < _KEPT}
        task = asyncio.get_running_loop().create_task(self._fetch(node))
        self._asked[node] = (now, task)
        return task

    async def _fetch(self, node: str) -> Object | None:
        nodes = self._server.nodes
        if nodes is None:
            return None
        request = Request(
            "GET", "/stats/summary", "only_cpu_and_memory=true", {"accept": "application/json"}, b""
        )
        try:
            async with self._limit, self._server.clock.timeout(_PATIENCE):
                response = await nodes.request(node, request)
                body = await read_body(response)
            return orjson.loads(body) if response.status == 200 else None
        except (ApiError, OSError, EOFError, TimeoutError, orjson.JSONDecodeError):
            return None


def _selected(call: Call) -> Sequence[Item]:
    """The Pods or Nodes that the request's selectors choose."""
    options = list_options(call.info.query)
    row = call.server.registry.get(call.row.plural)
    assert row is not None
    match = compile_match(row, options)
    prefix = f"{call.info.namespace}/" if row.namespaced and call.info.namespace else ""
    name = only_name(options)
    if name and (prefix or not row.namespaced):
        found = call.server.store.get(row.store_key, prefix + name)
        items: Sequence[Item] = [found] if found is not None else []
    else:
        items = call.server.store.list(row.store_key, prefix).items
    return [item for item in items if match is None or match(item)]


async def _nodes(usage: Usage, call: Call, items: Sequence[Item]) -> list[Object]:
    summaries = await usage.of(item.key for item in items)
    result = []
    for item in items:
        node = summaries.get(item.key, {}).get("node")
        if node is not None:
            result.append(_head(call, item, node) | {"usage": _used(node)})
    return result


async def _pods(usage: Usage, call: Call, items: Sequence[Item]) -> list[Object]:
    placed = [(item, node) for item in items if (node := item.fields.get("spec.nodeName"))]
    placed = [(item, node) for item, node in placed if item.fields.get("status.phase") == "Running"]
    summaries = await usage.of(node for _, node in placed)
    by_key = {
        (node, f"{pod['podRef']['namespace']}/{pod['podRef']['name']}"): pod
        for node, summary in summaries.items()
        for pod in summary["pods"]
    }
    result = []
    for item, node in placed:
        pod = by_key.get((node, item.key))
        if pod is not None and pod["containers"]:
            containers = [{"name": one["name"], "usage": _used(one)} for one in pod["containers"]]
            result.append(_head(call, item, pod) | {"containers": containers})
    return result


def _head(call: Call, item: Item, measured: Mapping[str, Any]) -> Object:
    """The metadata is made for the moment: creationTimestamp is now, as metrics-server has it."""
    namespace, _, name = item.key.rpartition("/")
    metadata: Object = {"name": name, "creationTimestamp": rfc3339(call.server.clock.now())}
    if namespace:
        metadata["namespace"] = namespace
    if item.labels:
        metadata["labels"] = dict(item.labels)
    return {
        "kind": call.row.kind,
        "apiVersion": call.row.api_version,
        "metadata": metadata,
        "timestamp": measured["cpu"]["time"],
        "window": f"{measured['cpu'].get('windowSeconds', 10):g}s",
    }


def _used(measured: Mapping[str, Any]) -> Object:
    return {
        "cpu": f"{measured['cpu'].get('usageNanoCores', 0)}n",
        "memory": f"{measured['memory']['workingSetBytes'] // 1024}Ki",
    }
