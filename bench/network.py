"""How fast the network is programmed: pods, Services, one changed endpoint, DNS. Run as root: python bench/network.py

Everything happens in network namespaces of its own. Prints one JSON object a line: {"name", "value", "unit"}.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tests/node/network"))
from network_objects import endpoint, service, slice_of
from picture import Picture

from sampan.base.clock import RealClock
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


def report(name: str, value: float, unit: str) -> None:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit}), flush=True)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def pods(directory: str, count: int = 50) -> None:
    node = f"{directory}/node"
    network = PodNetwork(["10.244.0.0/24"], netns=node)
    took = []
    for index in range(count):
        path = f"{directory}/pod-{index}"
        namespace.create(path)
        config = SandboxConfig(f"s{index}", f"u{index}", "p", "ns", 0, "p")
        began = time.perf_counter()
        await network.attach(path, config)
        took.append((time.perf_counter() - began) * 1000)
    report("pod attach p50", statistics.median(took), "ms")
    report("pod attach p99", percentile(took, 0.99), "ms")
    for index in range(count):
        await network.detach(SandboxConfig(f"s{index}", f"u{index}", "p", "ns", 0, "p"))
        namespace.remove(f"{directory}/pod-{index}")


def many(count: int, endpoints: int = 5) -> tuple[list, list]:
    services, slices = [], []
    for number in range(count):
        name = f"s{number}"
        services.append(service(name, f"10.96.{number >> 8}.{number & 255}"))
        listed = [
            endpoint(
                f"10.244.{(number * endpoints + e) >> 8 & 255}.{(number * endpoints + e) & 255}", "other"
            )
            for e in range(endpoints)
        ]
        slices.append(slice_of(name, *listed))
    return services, slices


async def load(directory: str, count: int) -> None:
    services, slices = many(count)
    config = Config(node="node-0")
    began = time.perf_counter()
    wanted = desired(services, slices, config)
    report(f"{count} services x 5: deciding", (time.perf_counter() - began) * 1000, "ms")
    proxy = ServiceProxy(config, f"{directory}/node")
    began = time.perf_counter()
    await proxy.start(wanted)
    report(f"{count} services x 5: loading the kernel", (time.perf_counter() - began) * 1000, "ms")
    proxy.close()


async def change(directory: str, count: int, times: int = 200) -> None:
    services, slices = many(count)
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
    report(f"endpoints changed, {count} services: to the kernel p50", statistics.median(took), "ms")
    report(f"endpoints changed, {count} services: to the kernel p99", percentile(took, 0.99), "ms")
    await controller.stop()


def ask_many(port: int, query: bytes, total: int, result: list[float]) -> None:
    """Keeps 32 questions in flight; runs in a process of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(2)
        sent = 0
        began = time.perf_counter()
        for _ in range(32):
            client.send(query)
            sent += 1
        for _ in range(total - 32):
            client.recv(512)
            client.send(query)
            sent += 1
        result.append(total / (time.perf_counter() - began))


async def dns() -> None:
    services, slices = many(1000)
    clock = RealClock()
    server = DnsServer(Picture(*services, *slices), clock, ["127.0.0.1"], Upstream([], clock), port=0)
    await server.start()
    name = b"".join(struct.pack("B", len(p)) + p for p in b"s7.default.svc.cluster.local".split(b".")) + b"\0"
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
    answer = await server.resolve(query)
    assert answer[6:8] == b"\0\1"
    program = (
        "import sys;sys.path.insert(0, sys.argv[1]);import network;r=[];"
        "network.ask_many(int(sys.argv[2]), bytes.fromhex(sys.argv[3]), int(sys.argv[4]), r);print(r[0])"
    )
    arguments = [os.path.dirname(os.path.abspath(__file__)), str(server.ports[0]), query.hex(), "100000"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    report("DNS answers from the cache (client on the same two cores)", float(out), "1/s")
    await server.stop()


async def main() -> None:
    directory = tempfile.mkdtemp(prefix="sampan-bench-")
    namespace.create(f"{directory}/node")
    try:
        prepare_node(netns=f"{directory}/node")
        await pods(directory)
        for count in (1000, 5000, 10000):
            await load(directory, count)
            await change(directory, count)
        await dns()
    finally:
        namespace.remove(f"{directory}/node")
        shutil.rmtree(directory)


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass
    asyncio.run(main())
