"""How the server reaches what runs on nodes: injected, so that a simulated node needs no socket.

A connector is given by the composition root; it speaks to a node's agent over its HTTPS port (real) or calls it
directly (memory fidelity).
"""

from __future__ import annotations

from typing import Protocol

from sampan.client.messages import Request, Response


class NodeConnector(Protocol):
    """`request` to a node's agent: paths as the kubelet has them (/containerLogs/…, /exec/…, /portForward/…).

    The response streams; one with `upgrade` is a tunnel: it is handed the caller's raw connection after 101.
    `forward` (optional) reaches a pod's address from the cluster's network, for the proxy subresources.
    Raises ApiError, or OSError when the node cannot be reached.
    """

    async def request(self, node_name: str, request: Request) -> Response: ...

    async def forward(self, scheme: str, host: str, port: int, request: Request) -> Response: ...
