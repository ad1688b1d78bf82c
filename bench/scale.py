"""What size costs: cold start, a list of 5,000 pods, 1,000 watchers, the memory of 17,000 stored pods.

    python bench/scale.py

The client shares the machine's two cores with the server; the watchers are read in a process of their own.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from machine import Cluster, busy, cpu_seconds, pss_megabytes, report

from api import Caller, creates

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
SENT = re.compile(rb'"sent":"([0-9.]+)"')


def context() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def cold_start(cluster: Cluster, times: int) -> float:
    """Milliseconds from starting the server's process, over an empty store, until it says that it serves (median)."""
    cluster.sampan("stop")
    data = cluster.directory / "data"
    took = []
    for _ in range(times):
        shutil.rmtree(data / "store")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ready, ready_end = os.pipe()
            numbers = {"SAMPAN_LISTEN_FDS": str(listener.fileno()), "SAMPAN_READY_FD": str(ready_end)}
            started = time.perf_counter()
            server = subprocess.Popen(
                [sys.executable, "-I", "-m", "sampan.cluster.control_plane", str(data)],
                env=os.environ | numbers,
                pass_fds=[listener.fileno(), ready_end],
                stderr=subprocess.DEVNULL,
            )
            os.close(ready_end)
            assert os.read(ready, 5) == b"ready"
            took.append((time.perf_counter() - started) * 1000)
            os.close(ready)
            server.terminate()
            server.wait()
    cluster.sampan("up", "--nodes", "0")
    return round(statistics.median(took))


async def fill(cluster: Cluster, first: int, last: int) -> None:
    """Pods number `first` up to `last`, by 32 connections."""
    made = creates(PODS, cluster.token, f"fill{first}")
    left = iter([next(made) for _ in range(last - first)])
    callers: list[Filler] = []
    for _ in range(32):
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: Filler(left, [], set()), "127.0.0.1", cluster.port, ssl=context()
        )
        callers.append(caller)
    await asyncio.gather(*(caller.done for caller in callers))
    assert set().union(*(caller.statuses for caller in callers)) == {b"201"}


class Filler(Caller):
    """Ends when there is nothing more to ask."""

    def ask(self) -> None:
        try:
            super().ask()
        except StopIteration:
            self.transport.close()


def listed(cluster: Cluster, times: int) -> dict[str, float]:
    """Milliseconds for a list of everything, and its size."""
    request = f"GET {PODS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {cluster.token}\r\nConnection: close\r\n\r\n"
    took, size = [], 0
    buffer = bytearray(1 << 20)
    for _ in range(times):
        plain = socket.create_connection(("127.0.0.1", cluster.port))
        with context().wrap_socket(plain) as connection:
            started = time.perf_counter()
            connection.sendall(request.encode())
            size = 0
            while count := connection.recv_into(buffer):
                size += count
            took.append((time.perf_counter() - started) * 1000)
    return {
        "ms": round(statistics.median(took), 1),
        "best_ms": round(min(took), 1),
        "mb": round(size / 1e6, 1),
    }


class Tally:
    """What came to all watchers."""

    def __init__(self) -> None:
        self.count = 0
        self.delays: list[float] = []  # of each event, from the write to its arrival
        self.used = 0.0  # this process's processor time


class Watcher(asyncio.Protocol):
    """Counts events."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self.request, self.tally = request, tally

    def connection_made(self, transport: Any) -> None:
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now, tally = time.time(), self.tally
        tally.count += data.count(b'{"type":"MODIFIED"')
        tally.delays += [now - float(sent) for sent in SENT.findall(data)]


async def watch(port: int, token: str, watchers: int, pipe: Any) -> None:
    """Watches; says so; forgets what has come when told to begin; reports the tally when told to."""
    request = f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    tally = Tally()
    tls, loop = context(), asyncio.get_running_loop()
    for _ in range(watchers):
        await loop.create_connection(lambda: Watcher(request, tally), "127.0.0.1", port, ssl=tls)
    await asyncio.sleep(0.5)
    pipe.send("ready")
    await loop.run_in_executor(None, pipe.recv)
    tally.__init__()
    used = time.process_time()
    pipe.send("begun")
    await loop.run_in_executor(None, pipe.recv)
    tally.used = time.process_time() - used
    pipe.send(tally)


def watching(port: int, token: str, watchers: int, pipe: Any) -> None:
    uvloop.run(watch(port, token, watchers, pipe))


def watched(cluster: Cluster, watchers: int, per_second: int, seconds: float) -> dict[str, float]:
    """Events a second that arrive at `watchers` when a ConfigMap is patched `per_second` times, and how late.

    `reader_busy` is the share of a core that the watchers took: near 1 it is they who are late. What a write takes
    until it is answered, the disk included, is a part of how late its events are.
    """
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.Process(target=watching, args=(cluster.port, cluster.token, watchers, theirs))
    reader.start()
    ours.recv()
    server = cluster.control_plane()
    used = 0.0

    def begin() -> None:
        nonlocal used
        ours.send("begin")
        ours.recv()
        used = cpu_seconds(server)

    writes: list[float] = []
    wrote, took = uvloop.run(patches(cluster, per_second, seconds, writes, begin))
    used = cpu_seconds(server) - used
    ours.send("report")
    tally: Tally = ours.recv()
    reader.join()
    delays = sorted(tally.delays)
    writes.sort()
    return {
        "watchers": watchers,
        "writes": wrote,
        "events_per_second": round(tally.count / took),
        "delivered": round(tally.count / (wrote * watchers), 3),
        "p50_ms": round(delays[len(delays) // 2] * 1000, 1),
        "p99_ms": round(delays[len(delays) * 99 // 100] * 1000, 1),
        "write_p50_ms": round(writes[len(writes) // 2] * 1000, 1),
        "write_p99_ms": round(writes[len(writes) * 99 // 100] * 1000, 1),
        "server_us": round(used / tally.count * 1e6, 2),
        "reader_busy": round(tally.used / took, 2),
    }


async def patches(
    cluster: Cluster, per_second: int, seconds: float, times: list[float], begin: Callable[[], None]
) -> tuple[int, float]:
    """Patch one of 64 ConfigMaps at a steady rate, over as many connections, after having created them and told so."""
    loop = asyncio.get_running_loop()
    callers: list[Paced] = []
    for number in range(64):
        requests = paced(cluster.token, number)
        _, caller = await loop.create_connection(
            lambda r=requests: Paced(r, times, set()), "127.0.0.1", cluster.port, ssl=context()
        )
        callers.append(caller)
    await asyncio.sleep(1.0)
    begin()
    times.clear()
    started = time.perf_counter()
    wrote = 0
    while (now := time.perf_counter() - started) < seconds:
        while wrote < now * per_second:
            free = next((c for c in callers if c.free), None)
            if free is None:
                break
            free.free = False
            Caller.ask(free)
            wrote += 1
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    await asyncio.sleep(1.0)
    statuses = set().union(*(caller.statuses for caller in callers))
    assert statuses <= {b"200", b"201"}, statuses
    return wrote, took


class Paced(Caller):
    """Asks when told to."""

    free = False

    def ask(self) -> None:
        self.free = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.free = False
        Caller.ask(self)  # creates its object


def paced(token: str, number: int):
    """A create, then patches that carry the time."""
    name = f"paced-{number}-{os.getpid()}-{time.monotonic_ns()}"
    body = json.dumps({"metadata": {"name": name}, "data": {"sent": str(time.time())}}).encode()
    common = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: "
    yield f"POST {MAPS} {common}{len(body)}\r\nContent-Type: application/json\r\n\r\n".encode() + body
    while True:
        body = json.dumps({"data": {"sent": str(time.time())}}).encode()
        kind = "\r\nContent-Type: application/merge-patch+json\r\n\r\n"
        yield f"PATCH {MAPS}/{name} {common}{len(body)}{kind}".encode() + body


def main() -> None:
    before = busy()
    results: dict[str, Any] = {}
    with Cluster(nodes=0) as cluster:
        results["cold_start_ms"] = cold_start(cluster, 5)
        results["watch"] = [watched(cluster, 1000, rate, 4) for rate in (50, 150, 400)]
        results["pss_after_1000_watchers_mb"] = round(pss_megabytes(cluster.control_plane()), 1)
    with Cluster(
        nodes=0
    ) as cluster:  # a server that has done nothing else, since memory given back stays with malloc
        uvloop.run(fill(cluster, 0, 5000))
        results["list_5000_pods"] = listed(cluster, 9)
        uvloop.run(fill(cluster, 5000, 17000))
        time.sleep(2)
        results["pss_of_17000_pods_mb"] = round(pss_megabytes(cluster.control_plane()), 1)
    report("scale", results, before)


if __name__ == "__main__":
    main()
