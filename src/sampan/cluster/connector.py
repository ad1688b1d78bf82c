"""How the server reaches nodes and pods: HTTPS to an agent with the server's own certificate, tunnels after an upgrade."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampan.api.status import ApiError, not_found
from sampan.base import hostport
from sampan.base.clock import Clock
from sampan.client.https import HttpsTransport
from sampan.client.messages import RawStream, Request, Response
from sampan.server.aggregation.aggregator import Backend

_CHUNK = 64 * 1024
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}


class HttpsConnector:
    """`egress.nodes.NodeConnector` over the network. `node(name)` gives a Node object, or None."""

    def __init__(self, pki: Path, clock: Clock, node: Callable[[str], dict[str, Any] | None]) -> None:
        self._pki, self._clock, self._node = pki, clock, node
        self._agents: dict[str, HttpsTransport] = {}
        self._plain: dict[str, HttpsTransport] = {}

    async def request(self, node_name: str, request: Request) -> Response:
        """Raises OSError when the agent cannot be reached, ApiError when there is no such node."""
        transport = self._agent(node_name)
        if "upgrade" in request.headers:
            return await _tunnel(transport, request)
        return _end_to_end(await transport(request))

    async def forward(self, scheme: str, host: str, port: int, request: Request) -> Response:
        """To a port of a pod; its certificate, if it has one, is not checked (as in the original)."""
        url = f"{scheme}://{hostport.join(host, port)}"
        transport = self._plain.get(url) or HttpsTransport(url, clock=self._clock, verify=False)
        self._plain[url] = transport
        while len(self._plain) > 64:
            oldest = next(iter(self._plain))
            await self._plain.pop(oldest).close()
        if "upgrade" in request.headers:
            return await _tunnel(transport, request)
        return _end_to_end(await transport(request))

    def _agent(self, name: str) -> HttpsTransport:
        node = self._node(name)
        if node is None:
            raise not_found("", "nodes", name)
        status = node.get("status", {})
        address = next((a["address"] for a in status.get("addresses") or [] if a["type"] == "InternalIP"), "")
        if not address:
            raise ApiError(500, "InternalError", f"node {name} has no address")
        port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port") or 10250
        url = f"https://{hostport.join(address, port)}"
        if url not in self._agents:
            self._agents[url] = HttpsTransport(
                url,
                ca=str(self._pki / "ca.crt"),
                cert=str(self._pki / "apiserver-kubelet-client.crt"),
                key=str(self._pki / "apiserver-kubelet-client.key"),
                clock=self._clock,
            )
        return self._agents[url]


class FrontProxyConnector:
    """`aggregation.aggregator.Connect`: to aggregated servers, known to them by the front proxy's certificate."""

    def __init__(self, pki: Path, clock: Clock) -> None:
        self._pki, self._clock = pki, clock
        self._transports: dict[Backend, HttpsTransport] = {}

    async def __call__(self, backend: Backend, request: Request) -> Response:
        """Raises OSError when the server cannot be reached or shows a wrong certificate, TimeoutError."""
        transport = self._transports.pop(backend, None) or self._open(backend)
        self._transports[backend] = transport
        while len(self._transports) > 64:
            await self._transports.pop(next(iter(self._transports))).close()
        if "upgrade" in request.headers:
            return await _tunnel(transport, request)
        return _end_to_end(await transport(request))

    def _open(self, backend: Backend) -> HttpsTransport:
        return HttpsTransport(
            f"https://{backend.host}:{backend.port}",
            ca=backend.authorities or None,
            cert=str(self._pki / "front-proxy-client.crt"),
            key=str(self._pki / "front-proxy-client.key"),
            clock=self._clock,
            verify=not backend.lax,
            server_name=backend.name,
        )


def _end_to_end(response: Response) -> Response:
    """The answer without what concerned only the connection it came on (RFC 9110, 7.6.1)."""
    response.headers = {k: v for k, v in response.headers.items() if k.lower() not in _HOP}
    return response


async def _tunnel(transport: HttpsTransport, request: Request) -> Response:
    """Ask for the upgrade; if it is granted, pass bytes both ways without looking at them."""
    status, headers, reader, writer = await transport.upgrade(request)
    if writer is None:
        return Response(status, dict(headers), await reader.read())

    async def carry(raw: RawStream) -> None:
        async def outwards() -> None:
            while data := await raw.read():
                writer.write(data)
                await writer.drain()

        async def inwards() -> None:
            while data := await reader.read(_CHUNK):
                await raw.write(data)

        tasks = [asyncio.ensure_future(outwards()), asyncio.ensure_future(inwards())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
            raw.close()

    return Response(status, dict(headers), upgrade=carry)
