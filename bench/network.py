"""The network: pods, Services, changed endpoints, throughput, DNS. Run as root: python bench/network.py

What concerns one node happens in network namespaces; `write_to_kernel` on a cluster of its own, brought up and down.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time
from typing import Any

import uvloop

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tests/node/network"))

import endpoints as written
import traffic
from machine import busy, report
from network_objects import endpoint, service, slice_of
from picture import Picture

from sampan.base.clock import RealClock
from sampan.cluster import garbage
from sampan.node.dns.server import DnsServer
from sampan.node.dns.upstream import Upstream
from sampan.node.network import namespace
from sampan.node.network.controller import ProxyController
from sampan.node.network.node import prepare_node
from sampan.node.network.pod import PodNetwork
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.ruleset import Config
from sampan.node.network.services import desired
from sampan.node.runtime import SandboxConfig

_INFLIGHT = 32


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50_ms": round(statistics.median(ordered), 3), "p99_ms": round(last, 3)}


async def pods(directory: str, count: int = 50) -> dict[str, float]:
    """Cabling up one pod: veth, addresses, routes, neighbours."""
    network = PodNetwork(["10.244.0.0/24"], netns=f"{directory}/node")
    took = []
    for index in range(count):
        path = f"{directory}/pod-{index}"
        namespace.create(path)
        began = time.perf_counter()
        await network.attach(path, SandboxConfig(f"s{index}", f"u{index}", "p", "ns", 0, "p"))
        took.append((time.perf_counter() - began) * 1000)
    for index in range(count):
        await network.detach(SandboxConfig(f"s{index}", f"u{index}", "p", "ns", 0, "p"))
        namespace.remove(f"{directory}/pod-{index}")
    return spread(took)


def many(count: int, each: int = 5) -> tuple[list[Any], list[Any]]:
    services, slices = [], []
    for number in range(count):
        name = f"s{number}"
        services.append(service(name, f"10.96.{number >> 8}.{number & 255}"))
        places = range(number * each, (number + 1) * each)
        ends = [endpoint(f"10.{200 + (p >> 16)}.{p >> 8 & 255}.{p & 255}", "other") for p in places]
        slices.append(slice_of(name, *ends))
    return services, slices


async def load(directory: str, services: list[Any], slices: list[Any]) -> dict[str, float]:
    """All Services at once, as when an agent starts."""
    config = Config(node="node-0")
    began = time.perf_counter()
    wanted = desired(services, slices, config)
    decided = time.perf_counter()
    proxy = ServiceProxy(config, f"{directory}/node")
    await proxy.start(wanted)
    loaded = time.perf_counter()
    proxy.close()
    return {
        "decide_ms": round((decided - began) * 1000, 1),
        "load_kernel_ms": round((loaded - decided) * 1000, 1),
    }


async def change(
    directory: str, services: list[Any], slices: list[Any], times: int = 200
) -> dict[str, float]:
    """One Service's endpoints change: until the kernel has it."""
    view = Picture(*services, *slices)
    proxy = ServiceProxy(Config(node="node-0"), f"{directory}/node")
    controller = ProxyController(view, proxy, RealClock())
    await controller.start()
    took = []
    for number in range(times):
        changed = slice_of("s7", *[endpoint(f"10.250.{number & 255}.{e}") for e in range(4 + number % 2)])
        began = time.perf_counter()
        view.put(changed)
        await controller.settled()
        took.append((time.perf_counter() - began) * 1000)
    await controller.stop()
    return spread(took)


def ask_many(port: int, query: bytes, total: int) -> tuple[float, list[float]]:
    """Answers a second, and milliseconds each took, with 32 questions in flight; runs in a process of its own."""
    took: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(2)
        asked: list[float] = []
        began = time.perf_counter()
        for number in range(total):
            if number >= _INFLIGHT:
                client.recv(512)
                took.append((time.perf_counter() - asked[number - _INFLIGHT]) * 1000)
            asked.append(time.perf_counter())
            client.send(query)
        return total / (time.perf_counter() - began), took


async def dns(total: int = 100_000) -> dict[str, float]:
    """A name of the cluster from the cache; the client has one of the machine's cores."""
    services, slices = many(1000)
    clock = RealClock()
    server = DnsServer(Picture(*services, *slices), clock, ["127.0.0.1"], Upstream([], clock), port=0)
    await server.start()
    name = b"".join(bytes((len(p),)) + p for p in b"s7.default.svc.cluster.local".split(b".")) + b"\0"
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
    assert (await server.resolve(query))[6:8] == b"\0\1"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import network as n; "
        "rate, took = n.ask_many(int(sys.argv[2]), bytes.fromhex(sys.argv[3]), int(sys.argv[4])); "
        "print(rate, *n.spread(took).values())"
    )
    where = [os.path.dirname(os.path.abspath(__file__)), str(server.ports[0]), query.hex(), str(total)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *where, stdout=asyncio.subprocess.PIPE
    )
    before = time.process_time()
    out, _ = await process.communicate()
    used = time.process_time() - before
    rate, middle, last = map(float, out.split())
    await server.stop()
    return {
        "answers_per_s": round(rate),
        "server_us": round(used / total * 1e6, 2),
        "p50_ms": round(middle, 3),
        "p99_ms": round(last, 3),
    }


async def measure(directory: str) -> dict[str, Any]:
    prepare_node(netns=f"{directory}/node")
    results: dict[str, Any] = {"pod_attach": await pods(directory)}
    for count in (1000, 5000, 10000):
        services, slices = many(count)
        garbage.settle()  # as the agent does
        results[f"{count}_services"] = {
            **await load(directory, services, slices),
            "change": await change(directory, services, slices),
            "connect": await traffic.first_packets(f"{directory}/first", services, slices),
        }
    results["throughput"] = await traffic.throughput(directory)
    results["dns"] = await dns()
    return results


def main() -> None:
    before = busy()
    directory = tempfile.mkdtemp(prefix="sampan-bench-")
    namespace.create(f"{directory}/node")
    try:
        results = uvloop.run(measure(directory))
    finally:
        namespace.remove(f"{directory}/node")
        shutil.rmtree(directory)
    results["cluster_of_1000_services"] = written.changes(1000, 300)
    report("network", results, before)


if __name__ == "__main__":
    main()
