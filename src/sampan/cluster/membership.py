"""What `sampan status` tells of the other machines of a cluster."""

from __future__ import annotations

from sampan.api import meta
from sampan.api.status import ApiError
from sampan.base.clock import RealClock
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.cluster.config import ClusterConfig
from sampan.cluster.paths import Paths
from sampan.cluster.up import admin_client, node_client
from sampan.node.network.tunnel_table import ADDRESS

_PATIENCE = 3.0
_FAILURES = (ApiError, OSError, EOFError, TimeoutError)


async def others(config: ClusterConfig, paths: Paths) -> list[list[str]]:
    """(machine's address, node, state) of those that have joined; none while the API does not answer."""
    try:
        nodes = await _nodes(admin_client(config, paths))
    except _FAILURES:
        return []
    return [
        [machine, meta.name(n), _ready(n)] for n in nodes if (machine := meta.annotations(n).get(ADDRESS))
    ]


async def heard(config: ClusterConfig, paths: Paths) -> str:
    """How the first machine sees this one, in two or three words."""
    name = config.nodes[0].name
    try:
        nodes = await _nodes(node_client(config, paths))
    except _FAILURES:
        return "does not answer"
    node = next((n for n in nodes if meta.name(n) == name), None)
    return (
        f"{name} {_ready(node)}"
        if node
        else f"it has no node {name}: sampan stop and up bring it back, sampan down leaves"
    )


async def _nodes(client: Client) -> list[Object]:
    async with RealClock().timeout(_PATIENCE):
        return (await client.list("nodes")).get("items") or []


def _ready(node: Object) -> str:
    state = (meta.condition(node, "Ready") or {}).get("status")
    return "Ready" if state == "True" else "NotReady"
