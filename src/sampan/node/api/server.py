"""The kubelet's HTTPS API: which path does what; who may ask for it is `access`.

Paths as kubelet serves them: /containerLogs, /exec, /attach, /run, /portForward, /pods, /stats/summary, /metrics,
/metrics/resource, /metrics/cadvisor, /metrics/probes, /logs, /healthz.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.messages import Request, Response
from sampan.node.agent import Agent
from sampan.node.api import access, configz, logs, metrics, nodelogs, portforward, remote, stats, websocket
from sampan.node.api.http import HttpServer
from sampan.node.api.query import Query, text
from sampan.node.pods.driver import PodDriver
from sampan.node.pods.podspec import find_container, mains
from sampan.node.runtime import ContainerStatus, RuntimeFailure

log = logging.getLogger(__name__)
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Refused(Exception):
    """An answer other than 200: its status and the words that follow."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotStreamed(Refused):
    """A refusal in plain words, as kubelet's: clients put "unable to upgrade connection: " before those, and only those."""


class KubeletApi:
    """`await serve(...)` listens; `answer` asks who is calling, `handle` does not (simulated nodes, whose caller is known)."""

    def __init__(self, agent: Agent, *, clock: Clock) -> None:
        self._agent = agent
        self._clock = clock
        self._server = HttpServer(self.answer)
        self._access = access.Access(agent.client, agent.name, clock)
        self._context: ssl.SSLContext | None = None

    async def serve(
        self, host: str | Sequence[str], port: int = 10250, *, cert: Path, key: Path, client_ca: Path
    ) -> int:
        """Listen with TLS; a caller's certificate must be of `client_ca`. Returns the port."""
        self._context = pki.server_context(cert, key, client_ca.read_bytes())
        return await self._server.start(self._context, host, port)

    def renewed(self, cert: Path, key: Path) -> None:
        """New connections get another certificate."""
        if self._context is not None:
            self._context.load_cert_chain(cert, key)

    async def close(self) -> None:
        await self._server.close()

    async def answer(self, request: Request) -> Response:
        """The answer to whoever it is: 401 or 403 for those who may not ask."""
        try:
            await self._access.check(request)
        except access.Denied as denied:
            return text(denied.status, str(denied))
        except (ApiError, OSError, EOFError) as error:
            return text(500, f"Authorization error: {error}\n")
        return await self.handle(request)

    async def handle(self, request: Request) -> Response:
        """The answer to a caller who may ask."""
        try:
            return await self._route(request.path.strip("/").split("/"), Query(request))
        except NotStreamed as refusal:
            return text(refusal.status, str(refusal))
        except Refused as refusal:
            return _refusal(refusal.status, str(refusal))
        except ValueError as error:
            return _refusal(400, str(error))

    async def _route(self, parts: list[str], query: Query) -> Response:
        match parts:
            case ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]:
                return text(200, "ok")
            case ["logs", *rest]:
                return await asyncio.to_thread(nodelogs.serve, "/".join(rest), query, self._log_files())
            case ["run", namespace, pod, container] | ["run", namespace, pod, _, container]:
                return await self._run(query, self._streaming(namespace, pod), container)
            case ["containerLogs", namespace, pod, container]:
                return await self._logs(query, self._driver(namespace, pod), container)
            case ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container]:
                return self._exec(query, self._streaming(namespace, pod), container)
            case ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container]:
                return self._attach(query, self._streaming(namespace, pod), container)
            case ["portForward", namespace, pod] | ["portForward", namespace, pod, _]:
                return self._port_forward(query, self._streaming(namespace, pod))
            case ["pods"] | ["runningpods"]:
                return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods()})
            case ["stats", "summary"]:
                part = query.flag("only_cpu_and_memory")
                return _json(await stats.summary(self._agent, self._clock.now(), part))
            case ["metrics", "resource"]:
                return text(200, await metrics.resources(self._agent, self._clock.now()), _METRICS)
            case ["metrics", "cadvisor"]:
                return text(200, await metrics.containers(self._agent), _METRICS)
            case ["metrics", "probes"]:
                return text(200, metrics.probes(self._agent), _METRICS)
            case ["metrics"]:
                return text(200, await metrics.own(self._agent, self._clock.now()), _METRICS)
            case ["shutdown"]:
                return await self._shutdown(query)
            case ["configz"]:
                return _json({"kubeletconfig": configz.kubelet_configuration(self._agent.config)})
        raise Refused(404, "404 page not found")

    async def _shutdown(self, query: Query) -> Response:
        """Ours: end all pods gracefully, for `sampan node stop --grace`. Answers when they have ended."""
        if query.request.method != "POST":
            raise Refused(405, "method not allowed")
        grace, critical = float(query.first("grace", "30")), float(query.first("critical", "10"))
        await self._agent.shutdown(grace, min(critical, grace))
        return text(200, "ok")

    # Finding

    def _pods(self) -> list[Object]:
        return [{"kind": "Pod", "apiVersion": "v1", **d.pod} for d in self._agent.manager.drivers.values()]

    def _find(self, namespace: str, pod: str) -> PodDriver | None:
        for driver in self._agent.manager.drivers.values():
            meta = driver.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, pod):
                return driver
        return None

    def _driver(self, namespace: str, pod: str) -> PodDriver:
        driver = self._find(namespace, pod)
        if driver is None:
            raise Refused(404, f'pod "{pod}" not found')
        return driver

    def _streaming(self, namespace: str, pod: str) -> PodDriver:
        driver = self._find(namespace, pod)
        if driver is None:
            raise NotStreamed(404, "pod does not exist")
        return driver

    def _running(
        self, driver: PodDriver, name: str, message: str = 'container not found ("{}")'
    ) -> ContainerStatus:
        name = name or mains(driver.pod)[0]["name"]
        latest = driver.world.latest(name)
        if latest is None or latest.state != "running":
            raise NotStreamed(500, message.format(name))
        return latest

    # Doing

    def _exec(self, query: Query, driver: PodDriver, name: str) -> Response:
        status = self._running(driver, name)
        command = list(query.values.get("command", []))
        if not command:
            raise Refused(400, "you must specify at least 1 command")
        tty, stdin = query.flag("tty"), query.flag("input", "stdin")
        runtime = self._agent.runtime
        begin = partial(runtime.exec, status.config.id, command, tty=tty, stdin=stdin)
        return remote.serve(query, begin, command, self._clock)

    async def _run(self, query: Query, driver: PodDriver, name: str) -> Response:
        """A command without streams: its output when it has ended, both kinds together."""
        if query.request.method != "POST":
            raise Refused(405, "method not allowed")
        status = self._running(driver, name)
        command = query.values.get("cmd") or query.values.get("command") or []
        words = command[0].split(" ") if len(command) == 1 else list(command)
        try:
            process = await self._agent.runtime.exec(status.config.id, words)
        except RuntimeFailure as error:
            return text(500, str(error))
        out, errors, code = await asyncio.gather(
            _drain(process.read_stdout), _drain(process.read_stderr), process.wait()
        )
        if code:
            return text(500, f"command '{' '.join(words)}' exited with {code}: ".encode() + out + errors)
        return text(200, out + errors)

    def _log_files(self) -> dict[str, str]:
        config = self._agent.config
        files = {os.path.basename(config.log): config.log} if config.log else {}
        return files | ({"pods": f"{config.root}/logs"} if config.root else {})

    def _attach(self, query: Query, driver: PodDriver, name: str) -> Response:
        status = self._running(driver, name, f"container {{}} not found in pod {_full_name(driver)}")
        lets_go = not status.config.stdin_once and not status.config.tty
        begin = partial(self._agent.runtime.attach, status.config.id)
        return remote.serve(query, begin, [], self._clock, lets_go)

    def _port_forward(self, query: Query, driver: PodDriver) -> Response:
        sandbox = driver.world.sandbox
        if sandbox is None or not sandbox.ready:
            raise NotStreamed(500, f'pod not found ("{_full_name(driver)}")')

        async def dial(port: int) -> socket.socket:
            return await self._agent.runtime.connect(sandbox.config.id, port)

        return portforward.serve(query, dial, driver.uid, self._clock)

    async def _logs(self, query: Query, driver: PodDriver, name: str) -> Response:
        pod = driver.pod["metadata"]["name"]
        if find_container(driver.pod, name) is None:
            raise Refused(404, f'container "{name}" in pod "{pod}" is not available')
        options = logs.parse(query, self._clock.now())
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
        body = self._read(path, options, driver, status.config.id)
        if websocket.is_websocket(query.headers):
            answer = websocket.one_way(query.headers, body, self._clock)
            return answer or text(400, "no subprotocol of the client is supported\n")
        return Response(200, {"content-type": "text/plain"}, body)

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


def _full_name(driver: PodDriver) -> str:
    meta = driver.pod["metadata"]
    return f"{meta['name']}_{meta['namespace']}"


async def _drain(read: Callable[[], Awaitable[bytes]]) -> bytes:
    parts = []
    while data := await read():
        parts.append(data)
    return b"".join(parts)


def _refusal(code: int, message: str) -> Response:
    """A Status, so that what is wrong reaches the user through the API server as it is."""
    reason = {400: "BadRequest", 404: "NotFound"}.get(code, "")
    return text(code, orjson.dumps(ApiError(code, reason, message).status()), "application/json")


def _waits_again(driver: PodDriver, name: str) -> bool:
    """The latest attempt has ended and another is to come: it counts as the previous one."""
    latest = driver.world.latest(name)
    for part in ("initContainerStatuses", "containerStatuses"):
        for status in driver.pod.get("status", {}).get(part) or ():
            if status["name"] == name:
                return bool(latest and latest.state == "exited" and "waiting" in status.get("state", {}))
    return False


_PULLING = {  # kubelet's words
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def _waiting_reason(driver: PodDriver, name: str) -> str:
    status = driver.pod.get("status", {})
    for part in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(part) or ():
            if entry["name"] == name:
                reason = (entry.get("state", {}).get("waiting") or {}).get("reason", "ContainerCreating")
                return _PULLING.get(reason, reason)
    return "ContainerCreating"


def _json(obj: Any) -> Response:
    return text(200, orjson.dumps(obj), "application/json")
