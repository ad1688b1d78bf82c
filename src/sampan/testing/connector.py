"""Streams of simulated nodes (logs, exec) without sockets: a request goes straight to the node's agent."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.api.status import ApiError
from sampan.client.messages import Request, Response
from sampan.node.simulated_node import SimulatedNode


class SimulatedConnector:
    """`egress.nodes.NodeConnector` over the nodes of a test."""

    def __init__(self, nodes: Mapping[str, SimulatedNode]) -> None:
        self._nodes = nodes

    async def request(self, node_name: str, request: Request) -> Response:
        node = self._nodes.get(node_name)
        if node is None or node.api is None:
            raise ApiError(500, "InternalError", f"node {node_name} does not answer")
        return await node.api.handle(request)

    async def forward(self, scheme: str, host: str, port: int, request: Request) -> Response:
        raise ApiError(503, "ServiceUnavailable", "simulated pods have no network")
