"""Probes: what one look finds, and when a verdict changes."""

from __future__ import annotations

import asyncio
import struct

import pytest

from sampan.base.clock import VirtualClock
from sampan.node import checks
from sampan.node.pods.world import World
from sampan.node.probes import ProbeManager
from sampan.node.runtime import ContainerConfig, ContainerStatus, Image

POD = {"metadata": {"name": "p"}, "spec": {"containers": []}}
CONTAINER = {"name": "c", "ports": [{"name": "web", "containerPort": 80}]}


async def serve(answer):
    async def handle(reader, writer):
        await reader.read(65536)
        writer.write(answer)
        await writer.drain()
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def look(handler):
    async with asyncio.timeout(60):
        return await checks.check(None, POD, CONTAINER, "id", handler, "127.0.0.1")


@pytest.mark.parametrize(
    "answer, ok, seen",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", True, ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "HTTP probe failed with statuscode: 404"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", False, "HTTP probe failed with statuscode: 500"),
        (b"nonsense\r\n", False, "malformed HTTP response"),
    ],
)
async def test_an_http_probe_is_judged_by_the_status_code(answer, ok, seen):
    server, port = await serve(answer)
    assert await look({"httpGet": {"port": port, "path": "/x"}}) == (ok, seen)
    server.close()


@pytest.mark.parametrize(
    ("location", "ok", "seen"),
    [
        ("/other", False, "HTTP probe failed with statuscode: 503"),
        ("http://127.0.0.1:{port}/other", False, "HTTP probe failed with statuscode: 503"),
        ("http://192.0.2.1/", True, "Probe terminated redirects, Response body: moved"),
        ("/", False, 'Get "http://127.0.0.1:{port}/": stopped after 10 redirects'),
    ],
)
async def test_redirects_are_followed_on_the_same_host(location, ok, seen):
    async def handle(reader, writer):
        path = (await reader.readline()).split()[1]
        answer = (
            f"HTTP/1.1 302 Found\r\nContent-Length: 5\r\nLocation: {location.format(port=port)}\r\n\r\nmoved"
        )
        writer.write(answer.encode() if path == b"/" else b"HTTP/1.1 503 No\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await look({"httpGet": {"port": port}}) == (ok, seen.format(port=port))
    server.close()


async def test_tcp_and_refused_connections():
    server, port = await serve(b"")
    assert await look({"tcpSocket": {"port": port}}) == (True, "")
    server.close()
    await server.wait_closed()
    ok, seen = await look({"tcpSocket": {"port": port}})
    assert not ok and seen == f"dial tcp 127.0.0.1:{port}: connect: connection refused"


@pytest.mark.parametrize("status, ok", [(1, True), (2, False)])
async def test_a_grpc_probe_is_judged_by_the_serving_status(status, ok):
    def frame(kind, flags, stream, data):
        return struct.pack(">I", len(data))[1:] + struct.pack(">BBI", kind, flags, stream) + data

    message = bytes((8, status))
    answer = frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88")
    answer += frame(0, 0, 1, struct.pack(">BI", 0, 2) + message) + frame(1, 5, 1, b"\x88")
    server, port = await serve(answer)
    assert (await look({"grpc": {"port": port}}))[0] is ok
    server.close()


async def test_grpc_where_nobody_listens():
    server, port = await serve(b"")
    server.close()
    await server.wait_closed()
    seen = f'timeout: failed to connect service "127.0.0.1:{port}" within 2s: context deadline exceeded'
    assert await look({"grpc": {"port": port}, "timeoutSeconds": 2}) == (False, seen)


@pytest.mark.parametrize("port, number", [(8080, 8080), ("8080", 8080), ("web", 80)])
def test_ports_by_number_and_name(port, number):
    assert checks.port_number(POD, CONTAINER, port) == number


class Driver:
    """Records what a prober reports."""

    uid = "u"

    def __init__(self, clock, container):
        self.pod = {"metadata": {}, "spec": {"containers": [container]}}
        self.world = World(first_seen=clock.now(), ips=["10.0.0.1"])
        config = ContainerConfig("id", "s", "c", 0, Image("i", "", "", (), {}), (), {}, "/", "")
        self.world.containers["id"] = ContainerStatus(config, "running", clock.now(), clock.now())
        self.seen, self.events, self.clock = [], [], clock

    def probed(self, name, container_id, kind, ok):
        if self.world.of(name).probes.get(kind) is not ok:
            self.world.of(name).probes[kind] = ok
            self.seen.append((self.clock.monotonic(), kind, ok))

    def record(self, type, reason, message, container=""):
        self.events.append(message)


async def run(container, answers, seconds, again=()):
    """Probe a container whose looks give `answers` in turn (the last for ever)."""
    clock = VirtualClock()
    driver = Driver(clock, container)

    async def check(*_):
        return (answers.pop(0) if len(answers) > 1 else answers[0]), "seen"

    prober = ProbeManager(None, clock, check)
    prober.sync(driver, {"c": "id"}, False)
    for _ in range(seconds):
        await clock.advance(1)
        prober.sync(driver, {"c": "id"}, False)
    await prober.close()
    return driver


async def test_thresholds_and_periods():
    probe = {"periodSeconds": 2, "failureThreshold": 3, "initialDelaySeconds": 5, "exec": {}}
    driver = await run({"name": "c", "readinessProbe": probe}, [True, False, False, True, False], 30)
    assert driver.seen == [(5.0, "readiness", True), (17.0, "readiness", False)]
    assert driver.events[0] == "Readiness probe failed: seen"


async def test_other_probes_wait_for_startup():
    startup = {"periodSeconds": 3, "failureThreshold": 9, "exec": {}}
    other = {"periodSeconds": 1, "exec": {}}
    container = {"name": "c", "startupProbe": startup, "readinessProbe": other, "livenessProbe": other}
    driver = await run(container, [False, False, True], 12)
    assert [kind for _, kind, _ in driver.seen] == ["startup", "liveness", "readiness"]
    assert driver.seen[0][0] == 6.0 and driver.seen[1][0] <= 7.0


@pytest.mark.parametrize("kind", ["livenessProbe", "startupProbe"])
async def test_who_failed_is_left_alone_until_the_next_attempt(kind):
    probe = {"periodSeconds": 1, "failureThreshold": 3, "exec": {}}
    driver = await run({"name": "c", kind: probe}, [False], 20)
    assert driver.seen == [(2.0, kind.removesuffix("Probe"), False)]
    assert len(driver.events) == 3


async def test_a_probe_that_hangs_has_failed():
    clock = VirtualClock()
    probe = {"periodSeconds": 10, "failureThreshold": 1, "timeoutSeconds": 2, "tcpSocket": {"port": 80}}
    driver = Driver(clock, {"name": "c", "livenessProbe": probe})

    async def check(*_):
        await asyncio.Event().wait()

    prober = ProbeManager(None, clock, check)
    prober.sync(driver, {"c": "id"}, False)
    await clock.advance(3)
    assert driver.seen == [(2.0, "liveness", False)]
    assert driver.events == ["Liveness probe failed: dial tcp 10.0.0.1:80: i/o timeout"]
    await prober.close()


async def test_looks_are_counted_until_the_pod_is_gone():
    clock = VirtualClock()
    driver = Driver(clock, {"name": "c", "readinessProbe": {"periodSeconds": 1, "failureThreshold": 1}})
    answers = [False, False, True]

    async def check(*_):
        return (answers.pop(0) if len(answers) > 1 else answers[0]), "seen"

    prober = ProbeManager(None, clock, check)
    prober.sync(driver, {"c": "id"}, False)
    await clock.advance(3)
    (looks,) = prober.looks()
    assert looks.results == {("c", "Readiness", "failed"): 2, ("c", "Readiness", "successful"): 2}
    prober.stop(driver)
    assert prober.looks() == []
    await prober.close()


async def test_a_look_that_could_not_be_taken_counts_neither_way():
    clock = VirtualClock()
    driver = Driver(
        clock, {"name": "c", "livenessProbe": {"periodSeconds": 1, "failureThreshold": 2, "exec": {}}}
    )
    answers = [False, None, None, False]

    async def check(*_):
        answer = answers.pop(0)
        if answer is None:
            raise checks.Unknown("failed to exec in container: no")
        return answer, "seen"

    prober = ProbeManager(None, clock, check)
    prober.sync(driver, {"c": "id"}, False)
    await clock.advance(2)
    assert driver.seen == []
    assert driver.events[1] == (
        "Liveness probe errored and resulted in unknown state: failed to exec in container: no"
    )
    await clock.advance(1)
    assert driver.seen == [(3.0, "liveness", False)]
    await prober.close()


async def test_a_port_of_an_unknown_name_is_no_failure():
    with pytest.raises(checks.Unknown, match='strconv.Atoi: parsing "nope": invalid syntax'):
        await look({"httpGet": {"port": "nope"}})
