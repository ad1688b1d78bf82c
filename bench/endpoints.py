"""From the write of an EndpointSlice to the rule in a node's kernel, on a real cluster with a thousand Services.

The kernel itself tells when: it reports every change of its rules to whoever listens in the node's network.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import Cluster
from network_objects import endpoint, slice_of

from sampan.node.network import namespace
from sampan.node.network.netlink import NETFILTER, NetlinkSocket

_NFTABLES = 1 << 6
_NAMESPACE = "/api/v1/namespaces/default"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


class Api:
    """One connection a thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._port, self._token = cluster.port, cluster.token
        self._context = ssl.create_default_context(cafile=str(cluster.directory / "data" / "pki" / "ca.crt"))
        self._own = threading.local()

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        self._own.connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = self._own.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {text.decode()}")
        return json.loads(text)


def changes(count: int, times: int) -> dict[str, float]:
    """Milliseconds from the start of the request until the node's kernel has the endpoint, with `count` Services."""
    with Cluster(2) as cluster:
        api = Api(cluster)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: _make(api, number), range(count)))
        agent = next(
            pid for pid, name in cluster.pids().items() if name == "agent" and _node(pid) == "node-1"
        )
        kernel = namespace.run_in(agent, lambda: NetlinkSocket(NETFILTER, _NFTABLES))
        kernel.socket.settimeout(10)
        kernel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        item = api("GET", f"{_SLICES}/s7-abcde")
        took, answered = [], []
        for number in range(times):
            address = f"10.250.{number >> 8}.{number & 255}"
            item["endpoints"] = [endpoint(address)]
            began = time.perf_counter()
            item = api("PUT", f"{_SLICES}/s7-abcde", item)
            answered.append((time.perf_counter() - began) * 1000)
            while socket.inet_aton(address) not in kernel.socket.recv(1 << 16):
                pass
            took.append((time.perf_counter() - began) * 1000)
        kernel.close()
    took.sort()
    return {
        "write_to_kernel_p50_ms": round(statistics.median(took), 2),
        "write_to_kernel_p99_ms": round(took[int(len(took) * 0.99)], 2),
        "of_that_until_the_answer_p50_ms": round(statistics.median(answered), 2),
    }


def _make(api: Api, number: int) -> None:
    body = {"metadata": {"name": f"s{number}"}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    api("POST", f"{_NAMESPACE}/services", {"apiVersion": "v1", "kind": "Service", **body})
    ends = [endpoint(f"10.251.{number >> 6 & 255}.{number % 64 * 4 + e}") for e in range(4)]
    api("POST", _SLICES, slice_of(f"s{number}", *ends))


def _node(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")[-1].decode()
