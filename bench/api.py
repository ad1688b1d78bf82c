"""How many requests a second the API answers over TLS: GET of a pod and durable creates of pods, at 1, 16 and 64 connections.

    python bench/api.py [--seconds S]         brings a control plane of its own up, and down again

The client is a bare protocol in a process of its own: on a machine with two cores each side has one. Beside the rate
stands what one request costs the server's process (`server_us`), which tells more on a machine with other work to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import time

import uvloop
from machine import Cluster, busy, cpu_seconds, report

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "x", "labels": {"app": "bench", "tier": "front"}},
    "spec": {
        "schedulerName": "nobody",
        "containers": [
            {
                "name": "main",
                "image": "registry.example/app:1",
                "command": ["/app", "--port=8080"],
                "env": [{"name": f"VARIABLE_{i}", "value": "value"} for i in range(4)],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "ports": [{"containerPort": 8080}],
            }
        ],
    },
}


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, requests, times: list[float], statuses: set[bytes]) -> None:
        self.requests, self.times, self.statuses = requests, times, statuses
        self.rest = b""
        self.stopped = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if self.stopped:
            self.transport.close()
            return
        self.started = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.rest = data
            return
        at = data.find(b"content-length: ", 0, end)
        length = int(data[at + 16 : data.find(b"\r", at)])
        if len(data) < end + 4 + length:
            self.rest = data
            return
        self.rest = b""
        self.statuses.add(data[9:12])
        self.times.append(time.perf_counter() - self.started)
        self.ask()

    def connection_lost(self, error) -> None:
        if not self.done.done():
            self.done.set_result(None)


def gets(path: str, token: str):
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\r\n".encode()
    while True:
        yield request


def creates(path: str, token: str, prefix: str):
    body = json.dumps(POD)
    number = 0
    while True:
        number += 1
        named = body.replace('"name": "x"', f'"name": "{prefix}-{number}"', 1).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(named)}\r\n\r\n"
        yield head.encode() + named


async def load(cluster: Cluster, requests, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies (ms) of `connections` callers over `seconds`."""
    server = cluster.control_plane()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    times: list[float] = []
    statuses: set[bytes] = set()
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: Caller(requests, times, statuses), "127.0.0.1", cluster.port, ssl=context
        )
        callers.append(caller)
    await asyncio.sleep(0.3)
    times.clear()
    started, used = time.perf_counter(), cpu_seconds(server)
    await asyncio.sleep(seconds)
    count, took = len(times), time.perf_counter() - started
    used = cpu_seconds(server) - used
    for caller in callers:
        caller.stopped = True
    await asyncio.gather(*(caller.done for caller in callers))
    assert statuses <= {b"200", b"201"}, statuses
    times.sort()
    return {
        "connections": connections,
        "per_second": round(count / took),
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2),
        "server_us": round(used / count * 1e6, 1),
    }


async def measure(cluster: Cluster, seconds: float, rounds: int) -> dict[str, list[dict[str, float]]]:
    """For each number of connections the median round."""
    path = "/api/v1/namespaces/default/pods"
    results: dict[str, list[dict[str, float]]] = {}
    for verb in ("create", "get"):
        results[verb] = []
        for connections in (1, 16, 64):
            tries = []
            for number in range(rounds):
                if verb == "create":
                    requests = creates(path, cluster.token, f"c{connections}-{number}")
                else:
                    requests = gets(f"{path}/c1-0-1", cluster.token)
                tries.append(await load(cluster, requests, connections, seconds))
            tries.sort(key=lambda result: result["per_second"])
            results[verb].append(tries[len(tries) // 2] | {"best": tries[-1]["per_second"]})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    before = busy()
    with Cluster(nodes=0) as cluster:
        report("api", uvloop.run(measure(cluster, arguments.seconds, arguments.rounds)), before)


if __name__ == "__main__":
    main()
