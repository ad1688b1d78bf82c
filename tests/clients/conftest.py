"""A cluster behind TLS in a thread of its own, with one simulated node: what other people's clients speak to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.client.messages import User
from sampan.cluster import kubeconfig
from sampan.cluster.planks import ControlPlane, Options
from sampan.node.simulated_node import SimulatedNode
from sampan.server import http
from sampan.store.memory import MemoryStore
from sampan.testing.connector import SimulatedConnector


class Served:
    """`kubeconfig` is a file; `namespace()` names a fresh namespace for a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self.address = ""
        self._ca = pki.CA.create("clients-ca")
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="sampan", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20), "the server did not start"

    def stop(self) -> None:
        assert self._loop is not None and self._stopped is not None
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        clock, ids = RealClock(), Ids()
        store = MemoryStore(clock)
        nodes: dict[str, SimulatedNode] = {}
        options = Options(
            token_key=pki.new_key(), cluster_ca=self._ca.cert.decode(), nodes=SimulatedConnector(nodes)
        )
        plane = ControlPlane(store, clock, ids, options)
        await plane.start()
        listener = await http.serve(plane.server.handle, [self._listen()], self._context(), clock)
        user = User("system:node:node-1", ("system:nodes", "system:authenticated"))
        nodes["node-1"] = SimulatedNode(
            plane.client(user, "kubelet"), "node-1", clock, ids, pod_cidr="10.244.1.0/24"
        )
        await nodes["node-1"].start()
        self._ready.set()
        await self._stopped.wait()
        await nodes["node-1"].stop()
        await plane.stop()
        await listener.close(0.1)
        await store.close()

    def _listen(self) -> socket.socket:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.address = f"https://127.0.0.1:{sock.getsockname()[1]}"
        admin = self._ca.issue("kubernetes-admin", ["system:masters"])
        config = kubeconfig.entries("clients", self.address, self._ca.cert, admin.cert, admin.key)
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return sock

    def _context(self):
        pair = self._ca.issue("apiserver", dns=["localhost"], ips=["127.0.0.1"], server=True)
        pair.save(self.directory / "crt", self.directory / "key")
        return pki.server_context(self.directory / "crt", self.directory / "key", self._ca.cert)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def kubeconfig_file(served: Served, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig))
    return str(served.kubeconfig)


def deployment(name: str, replicas: int = 2) -> dict:
    labels = {"app": name}
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def make_deployment():
    return deployment
