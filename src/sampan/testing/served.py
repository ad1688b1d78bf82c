"""A cluster behind HTTPS in a thread of the test's process, for clients in any language: kubectl, helm, your operator.

    with Served(nodes=2) as cluster:
        subprocess.run(["kubectl", "--kubeconfig", cluster.kubeconfig, "get", "nodes"], check=True)

The server, the controllers, the scheduler and the agents are the real ones; store and containers are in memory, and time
is the real time. It stands in a tenth of a second and needs neither root nor a free port of your choice.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.base.errors import SampanError
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.messages import User
from sampan.cluster import kubeconfig
from sampan.cluster.planks import ControlPlane, Options
from sampan.node.simulated_node import SimulatedNode, pod_range
from sampan.server import http
from sampan.store.memory import MemoryStore
from sampan.testing.cluster import ADMIN
from sampan.testing.connector import SimulatedConnector

T = TypeVar("T")
_PATIENCE = 30.0  # seconds until a start counts as failed


class Served:
    """A context manager; `kubeconfig` (a path, as text) and `address` are valid inside."""

    def __init__(self, nodes: int = 1, *, name: str = "sampan-test") -> None:
        """`nodes`: how many simulated nodes; `name`: of the context in the kubeconfig."""
        self.name = name
        self.kubeconfig = ""
        self.address = ""
        self._count = nodes
        self._directory = tempfile.TemporaryDirectory(prefix="sampan-served-")
        self._ca = pki.CA.create(f"{name}-ca")
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._plane: ControlPlane | None = None
        self._thread = threading.Thread(target=self._run, name="sampan", daemon=True)

    def __enter__(self) -> Self:
        if self._thread.ident is not None:
            raise RuntimeError("this Served has been up already: make another")
        self._thread.start()
        if not self._started.wait(_PATIENCE) or self._failure is not None:
            raise SampanError(f"the server did not start: {self._failure or 'no answer'}") from self._failure
        return self

    def __exit__(self, *failure: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE)
        self._directory.cleanup()

    def context(self, namespace: str) -> dict[str, Any]:
        """A kubeconfig (as data) whose current context is in the namespace."""
        admin = self._ca.issue("kubernetes-admin", ["system:masters"])
        config = kubeconfig.entries(self.name, self.address, self._ca.cert, admin.cert, admin.key)
        config["contexts"][0]["context"]["namespace"] = namespace
        return config

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """What the question finds out as the administrator, without a client library of your own.

        `pods = served.ask(lambda client: client.list("pods", "default"))`; refusals are raised as ApiError.
        Raises RuntimeError when the server is not up.
        """
        if not self._thread.is_alive():
            raise RuntimeError("this Served is not up: use it inside `with Served() as cluster:`")

        async def asked() -> T:
            assert self._plane is not None
            return await question(self._plane.client(ADMIN, "test"))

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # told to whoever waits in __enter__
            self._failure = error
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        clock, ids = RealClock(), Ids()
        nodes: dict[str, SimulatedNode] = {}
        async with AsyncExitStack() as stack:
            store = MemoryStore(clock)
            stack.push_async_callback(store.close)
            options = Options(
                token_key=pki.new_key(),
                cluster_ca=self._ca.cert.decode(),
                signer=self._ca,
                load_balancer_pool="10.97.255.0/24",
                volumes="/var/lib/sampan/volumes",
                nodes=SimulatedConnector(nodes),
            )
            plane = self._plane = ControlPlane(store, clock, ids, options)
            await plane.start()
            stack.push_async_callback(plane.stop)
            listener = await http.serve(
                plane.server.handle, [self._listen()], self._tls(), clock, plane.server.at_once
            )
            stack.push_async_callback(listener.close, 0.1)
            for number in range(1, self._count + 1):
                name = f"node-{number}"
                user = User(f"system:node:{name}", ("system:nodes", "system:authenticated"))
                client = plane.client(user, "kubelet")
                nodes[name] = SimulatedNode(client, name, clock, ids, pod_cidr=pod_range(number))
                await nodes[name].start()
                stack.push_async_callback(nodes[name].stop)
            self._started.set()
            await self._end.wait()

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        self.kubeconfig = str(Path(self._directory.name) / "kubeconfig")
        Path(self.kubeconfig).write_text(yaml.safe_dump(self.context("default")))
        return listener

    def _tls(self) -> ssl.SSLContext:
        directory = Path(self._directory.name)
        pair = self._ca.issue("apiserver", dns=["localhost"], ips=["127.0.0.1"], server=True)
        pair.save(directory / "crt", directory / "key")
        return pki.server_context(directory / "crt", directory / "key", self._ca.cert)
