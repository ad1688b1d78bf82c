"""The kubelet's HTTPS API: which path does what. Only the API server's certificate is let in.

Paths as kubelet serves them: /containerLogs, /exec, /attach, /portForward, /pods, /stats/summary, /metrics, /healthz.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any

import orjson

from sampan.base.clock import Clock
from sampan.node.agent import Agent
from sampan.node.api import logs, portforward, remote, stats
from sampan.node.api.http import HttpRequest, HttpResponse, HttpServer
from sampan.node.pods.driver import PodDriver
from sampan.node.pods.podspec import find_container, mains
from sampan.node.runtime import ContainerStatus

Object = dict[str, Any]
log = logging.getLogger(__name__)
CLIENT_NAMES = ("kube-apiserver-kubelet-client",)
CLIENT_GROUPS = ("system:masters",)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeletServer:
    """`await start(context, ...)`; a context of None (tests) lets everybody in."""

    def __init__(self, agent: Agent, clock: Clock) -> None:
        self._agent = agent
        self._clock = clock
        self._server = HttpServer(self.handle)
        self._open = False

    async def start(
        self, context: ssl.SSLContext | None, host: str = "0.0.0.0", port: int = 10250, sock: Any = None
    ) -> int:
        """Listen; `context` must require client certificates. Returns the port."""
        self._open = context is None
        return await self._server.start(context, host, port, sock)

    async def close(self) -> None:
        await self._server.close()

    async def handle(self, request: HttpRequest) -> HttpResponse:
        parts = request.path.strip("/").split("/")
        if parts[0] == "healthz":
            return HttpResponse(200, b"ok")
        if not self._allowed(request):
            return HttpResponse(403, b"Forbidden\n")
        try:
            return await self._route(parts, request)
        except Refused as refusal:
            return HttpResponse(refusal.status, str(refusal).encode() + b"\n")
        except ValueError as error:
            return HttpResponse(400, f"{error}\n".encode())

    def _allowed(self, request: HttpRequest) -> bool:
        if self._open:
            return True
        peer = request.peer or {}
        return peer.get("cn") in CLIENT_NAMES or any(g in CLIENT_GROUPS for g in peer.get("o", ()))

    async def _route(self, parts: list[str], request: HttpRequest) -> HttpResponse:
        match parts:
            case ["containerLogs", namespace, pod, container]:
                return await self._logs(request, self._driver(namespace, pod), container)
            case ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container]:
                return self._exec(request, self._driver(namespace, pod), container)
            case ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container]:
                return self._attach(request, self._driver(namespace, pod), container)
            case ["portForward", namespace, pod] | ["portForward", namespace, pod, _]:
                return self._port_forward(request, self._driver(namespace, pod))
            case ["pods"] | ["runningpods"]:
                return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods()})
            case ["stats", "summary"]:
                return _json(await stats.summary(self._agent, self._clock.now()))
            case ["metrics", "resource"]:
                text = await stats.resource_metrics(self._agent, self._clock.now())
                return HttpResponse(200, text, "text/plain; version=0.0.4; charset=utf-8")
            case ["metrics"]:
                return HttpResponse(
                    200, stats.metrics(self._agent), "text/plain; version=0.0.4; charset=utf-8"
                )
            case ["configz"]:
                return _json(
                    {
                        "kubeletconfig": {
                            "kind": "KubeletConfiguration",
                            "apiVersion": "kubelet.config.k8s.io/v1beta1",
                        }
                    }
                )
        raise Refused(404, "404 page not found")

    # Finding

    def _pods(self) -> list[Object]:
        return [{"kind": "Pod", "apiVersion": "v1", **d.pod} for d in self._agent.manager.drivers.values()]

    def _driver(self, namespace: str, pod: str) -> PodDriver:
        for driver in self._agent.manager.drivers.values():
            meta = driver.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, pod):
                return driver
        raise Refused(404, f'pod "{pod}" not found')

    def _running(self, driver: PodDriver, name: str) -> ContainerStatus:
        pod = driver.pod["metadata"]
        name = name or mains(driver.pod)[0]["name"]
        latest = driver.world.latest(name)
        if latest is None or latest.state != "running":
            raise Refused(404, f'container not found ("{name}") in pod "{pod["name"]}_{pod["namespace"]}"')
        return latest

    # Doing

    def _exec(self, request: HttpRequest, driver: PodDriver, name: str) -> HttpResponse:
        status = self._running(driver, name)
        command = list(request.query.get("command", []))
        if not command:
            raise Refused(400, "you must specify at least 1 command")
        tty, stdin = request.flag("tty"), request.flag("input", "stdin")
        runtime = self._agent.runtime
        return remote.serve(
            request, lambda: runtime.exec(status.config.id, command, tty=tty, stdin=stdin), command
        )

    def _attach(self, request: HttpRequest, driver: PodDriver, name: str) -> HttpResponse:
        status = self._running(driver, name)
        return remote.serve(request, lambda: self._agent.runtime.attach(status.config.id), [])

    def _port_forward(self, request: HttpRequest, driver: PodDriver) -> HttpResponse:
        sandbox = driver.world.sandbox
        if sandbox is None or not sandbox.ready:
            raise Refused(404, f'pod "{driver.pod["metadata"]["name"]}" is not running')

        async def dial(port: int) -> Any:
            return await self._agent.runtime.connect(sandbox.config.id, port)

        return portforward.serve(request, dial, driver.uid)

    async def _logs(self, request: HttpRequest, driver: PodDriver, name: str) -> HttpResponse:
        pod = driver.pod["metadata"]["name"]
        if find_container(driver.pod, name) is None:
            raise Refused(404, f'container "{name}" in pod "{pod}" is not available')
        options = logs.parse(request, self._clock.now())
        attempts = driver.world.attempts(name)
        if options.previous:
            if len(attempts) < 2 and not _waits_again(driver, name):
                raise Refused(400, f'previous terminated container "{name}" in pod "{pod}" not found')
            status = attempts[-1] if _waits_again(driver, name) else attempts[-2]
        elif attempts:
            status = attempts[-1]
        else:
            reason = _waiting_reason(driver, name)
            raise Refused(400, f'container "{name}" in pod "{pod}" is waiting to start: {reason}')
        path = status.config.log_path or self._agent.kit.volumes.log_path(
            driver.pod, name, status.config.attempt
        )
        return HttpResponse(200, self._read(path, options, driver, status.config.id), "text/plain")

    async def _read(
        self, path: str, options: logs.LogOptions, driver: PodDriver, container_id: str
    ) -> AsyncIterator[bytes]:
        if not self._agent.config.root:  # a simulated node has no files
            formatter = logs.Formatter(options)
            lines = [line.rstrip(b"\n") async for line in self._agent.runtime.logs(path)]
            yield formatter.feed(lines[len(lines) - options.tail :] if options.tail is not None else lines)
            return
        try:
            async for chunk in logs.read(path, options, lambda: driver.ended(container_id)):
                yield chunk
        except FileNotFoundError:
            yield b""


def _waits_again(driver: PodDriver, name: str) -> bool:
    """The latest attempt has ended and another is to come: it counts as the previous one."""
    latest = driver.world.latest(name)
    for part in ("initContainerStatuses", "containerStatuses"):
        for status in driver.pod.get("status", {}).get(part) or ():
            if status["name"] == name:
                return bool(latest and latest.state == "exited" and "waiting" in status.get("state", {}))
    return False


def _waiting_reason(driver: PodDriver, name: str) -> str:
    status = driver.pod.get("status", {})
    for part in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(part) or ():
            if entry["name"] == name:
                return (entry.get("state", {}).get("waiting") or {}).get("reason", "ContainerCreating")
    return "ContainerCreating"


def _json(obj: Any) -> HttpResponse:
    return HttpResponse(200, orjson.dumps(obj), "application/json")
