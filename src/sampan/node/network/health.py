"""What a load balancer in front of the nodes asks each of them: have you endpoints of this Service? (healthCheckNodePort)

Services with externalTrafficPolicy Local only. 200 while a ready endpoint is on this node, 503 otherwise; the answer's
form is that of kube-proxy: {"service": {...}, "localEndpoints": N, "serviceProxyHealthy": true}.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Iterable, Mapping

from sampan.base.clock import Clock
from sampan.base.objects import ReadOnlyObject

_PATIENCE = 5.0  # seconds a caller may take for its request


def port_of(service: ReadOnlyObject) -> int:
    """The port on which the health of a Service is told, 0 when it has none."""
    spec = service.get("spec") or {}
    if spec.get("type") != "LoadBalancer" or spec.get("externalTrafficPolicy") != "Local":
        return 0
    return spec.get("healthCheckNodePort") or 0


def local_endpoints(slices: Iterable[ReadOnlyObject], node: str) -> int:
    """How many ready endpoints a node has: addresses, whatever number of ports and slices they are in."""
    found = set()
    for item in slices:
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False and not conditions.get("terminating")
            if ready and endpoint.get("nodeName") == node:
                found.update(endpoint["addresses"])
    return len(found)


class HealthChecks:
    """The listeners of one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ports: dict[str, int] = {}  # service -> its port
        self._counts: dict[str, int] = {}
        self._servers: dict[int, tuple[str, asyncio.Server]] = {}

    async def update(self, wanted: Mapping[str, tuple[int, int]]) -> dict[str, str]:
        """Service key -> (port, local endpoints); port 0: it has no health check (any more).

        Gives, for each Service whose port could not be opened, why; "" for those that have it.
        """
        problems = {}
        for service, (port, count) in wanted.items():
            self._counts[service] = count
            before = self._ports.get(service, 0)
            if before != port:
                self._close(service, before)
                problems[service] = await self._open(service, port) if port else ""
            if not port:
                self._counts.pop(service, None)
        return problems

    async def close(self) -> None:
        for service, port in list(self._ports.items()):
            self._close(service, port)

    def _close(self, service: str, port: int) -> None:
        self._ports.pop(service, None)
        owner, server = self._servers.get(port, ("", None))
        if server is not None and owner == service:
            del self._servers[port]
            server.close()

    async def _open(self, service: str, port: int) -> str:
        self._ports[service] = port

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._answer(service, reader, writer)

        try:
            self._servers[port] = service, await asyncio.start_server(answer, sock=_listener(port))
        except OSError as error:
            return f"healthCheckNodePort {port} cannot be opened: {error.strerror or error}"
        return ""

    async def _answer(self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._clock.timeout(_PATIENCE):
                await reader.readuntil(b"\r\n\r\n")
            writer.write(self._response(service))
            await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _response(self, service: str) -> bytes:
        space, name = service.split("/", 1)
        count = self._counts.get(service, 0)
        body = {
            "service": {"namespace": space, "name": name},
            "localEndpoints": count,
            "serviceProxyHealthy": True,
        }
        text = json.dumps(body).encode()
        status = "200 OK" if count else "503 Service Unavailable"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
        head += f"X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        return head.encode() + text


def _listener(port: int) -> socket.socket:
    """On every address of both IP versions, or of IPv4 where the kernel has no other."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
    return socket.create_server(("0.0.0.0", port))
