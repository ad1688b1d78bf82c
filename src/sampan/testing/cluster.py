"""The memory fidelity: the real server, controllers, scheduler and agents on one event loop, with time in your hand.

    async with Cluster(nodes=3) as cluster:
        await cluster.apply(deployment)
        await cluster.settle()                # everything that can happen now has happened
        await cluster.advance(60)             # a minute passes, in microseconds
        assert len(await cluster.list("pods", labels="app=web")) == 3

With the same `seed` two runs write the same history, byte for byte. Needs asyncio's own loop, as pytest has it; with
pytest-asyncio (`asyncio_mode = "auto"`) a test is an async function, and nothing else is to be set up.
"""

from __future__ import annotations

import asyncio
import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypedDict, Unpack

import yaml

import sampan.scheduler.schedule  # noqa: F401  NumPy with it, so that no virtual moment waits for a thread that imports it
from sampan.base import pki
from sampan.base.clock import VirtualClock, rfc3339_micro
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.execute import Effect
from sampan.client.messages import User
from sampan.client.plan import Controller, Objects
from sampan.client.runner import Runner
from sampan.cluster import debug
from sampan.cluster.planks import ControlPlane, Options
from sampan.controllers import Rule, Timing
from sampan.node.simulated_node import SimulatedNode, pod_range
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Change
from sampan.testing import console
from sampan.testing.connector import SimulatedConnector

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))
_OTHER_LOOP = (
    "this Cluster was entered on another event loop, where nothing moves now: a fixture and the tests that share it "
    'need one loop (pytest-asyncio: loop_scope="session" for both; docs/testing.md, "Fixtures")'
)


class Settings(TypedDict, total=False):
    """What `Cluster` takes beside nodes and seed: fields of `cluster.planks.Options`, where they are explained."""

    token_key: bytes
    cluster_ca: str
    front_proxy_ca: str
    static_tokens: Mapping[str, User]
    service_cidrs: tuple[str, ...]
    load_balancer_pool: str
    advertise: tuple[str, int] | None
    dns_ips: tuple[str, ...]
    dns_on_nodes: bool
    volumes: str
    volume_effects: Mapping[str, Effect]
    signer: pki.CA | None
    objects: Sequence[Object]
    rules: Sequence[Rule]
    timing: Timing
    toleration_seconds: int
    controllers: bool
    scheduler: bool


@dataclass(frozen=True, slots=True)
class Write:
    """One change of the store. `value` holds the object's bytes as clients get them, the last ones of a deleted object."""

    time: float
    verb: str  # create, update or delete
    resource: str
    key: str  # namespace/name, or name
    value: bytes

    def __str__(self) -> str:
        return f"{rfc3339_micro(self.time)} {self.verb} {self.resource} {self.key}"


class Cluster:
    """An async context manager; everything below works while it is open. Times are virtual seconds."""

    def __init__(
        self, nodes: int = 1, *, seed: int = 1, history: bool = False, **settings: Unpack[Settings]
    ) -> None:
        """`history`: keep every write in `writes` (tests of determinism, of what an operator did).

        Raises TypeError for a setting that there is not.
        """
        for name in settings.keys() - Settings.__annotations__.keys():
            raise TypeError(f"Cluster() has no setting {name!r}{_meant(name)}")
        self.clock = VirtualClock()
        self.ids = Ids(seed)
        self.writes: list[Write] = []
        self.store = MemoryStore(self.clock, record=self._record if history else None)
        self.nodes: dict[str, SimulatedNode] = {}
        if nodes < 0:
            raise ValueError(f"a cluster has 0 nodes or more, not {nodes}")
        self._count = nodes
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is up
        self._entered = False
        self._runners: list[Runner] = []
        chosen: Settings = {
            "token_key": pki.fixed_key(),
            "load_balancer_pool": "10.97.255.0/24",
            "volumes": "/var/lib/sampan/volumes",
            **settings,
        }
        options = Options(nodes=SimulatedConnector(self.nodes), **chosen)
        self._plane = ControlPlane(self.store, self.clock, self.ids, options)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this Cluster has been up already: make another")
        self._loop = _running_loop()
        if self._loop is None:
            raise RuntimeError("a Cluster needs asyncio's event loop (anyio_backend: asyncio)")
        self._entered = True
        await self._plane.start()
        for _ in range(self._count):
            await self.add_node()
        await self.settle()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for runner in self._runners:
            await runner.stop()
        for node in self.nodes.values():
            await node.stop()
        await self._plane.stop()
        await self.store.close()
        self._loop = None

    @property
    def plane(self) -> ControlPlane:
        """The control plane. Raises RuntimeError when the cluster is not up, or belongs to another event loop."""
        self._must_be_up()
        return self._plane

    @plane.setter
    def plane(self, successor: ControlPlane) -> None:
        """Another one over the same store, as after a restart."""
        self._plane = successor

    def _must_be_up(self) -> None:
        if self._loop is None:
            raise RuntimeError("this Cluster is not up: use it inside `async with Cluster() as cluster:`")
        if _running_loop() not in (None, self._loop):
            raise RuntimeError(_OTHER_LOOP)

    # Time

    async def settle(self) -> None:
        """Return when nobody can do anything more at this instant."""
        self._must_be_up()
        await self.clock.settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that happens in it. Raises ValueError: time does not go back."""
        self._must_be_up()
        if seconds < 0:
            raise ValueError(f"time does not go back (by {-seconds} s)")
        await self.clock.advance(seconds)

    @property
    def now(self) -> float:
        """Seconds since the epoch; a cluster begins on 2026-01-01 at 00:00 UTC."""
        return self.clock.now()

    # Objects

    @property
    def client(self) -> Client:
        """The administrator."""
        return self.plane.client(ADMIN, "test")

    def client_as(self, name: str, *groups: str) -> Client:
        """Somebody else, with the rights that RBAC gives them, e.g. `system:serviceaccount:default:robot`."""
        return self.plane.client(User(name, (*groups, "system:authenticated")), name)

    async def apply(self, *objects: Object | str, namespace: str = "default") -> Objects:
        """Server-side apply of objects, or of YAML text with any number of them; what the server made of each.

        Raises ApiError, and ValueError for what is no object, or of a kind the cluster does not know.
        """
        applied = []
        for obj in _parsed(objects):
            group, _, version = obj["apiVersion"].rpartition("/")
            row = self.plane.registry.by_kind(group, version, obj["kind"])
            if row is None:
                raise ValueError(
                    f"the cluster does not know {obj['kind']} in {obj['apiVersion']}: apply its definition first"
                )
            where = obj["metadata"].get("namespace", namespace) if row.namespaced else ""
            applied.append(
                await self.client.patch(
                    row, obj["metadata"]["name"], obj, where, kind="apply", manager="test", force=True
                )
            )
        return applied

    async def get(self, resource: str, name: str, namespace: str = "default") -> Object:
        """`resource` is a GroupResource such as `deployments.apps`, or what kubectl understands. Raises ApiError."""
        row = debug.find(self.plane.registry, resource)
        return await self.client.get(row, name, namespace if row.namespaced else "")

    async def list(
        self, resource: str, namespace: str = "default", *, labels: str = "", fields: str = ""
    ) -> Objects:
        """The objects of a namespace, of all with `namespace=""`."""
        row = debug.find(self.plane.registry, resource)
        where = namespace if row.namespaced else ""
        return (await self.client.list(row, where, labels=labels, fields=fields))["items"]

    def story(self, resource: str, name: str, namespace: str = "default") -> Objects:
        """Which controllers did what to an object, and why: `sampan story` for a test that fails."""
        query = {"resource": [resource], "namespace": [namespace], "name": [name]}
        told: Objects = self.plane.server.documents[debug.STORY](query)["entries"]
        return told

    # Pods

    async def logs(self, pod: str, container: str = "", namespace: str = "default", **query: str) -> str:
        """What `kubectl logs` prints; `query` as in the API reference (previous="true", tailLines="5")."""
        if container:
            query["container"] = container
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        return await console.read_logs(self.plane.server.handle, ADMIN, path, query)

    async def exec(
        self, pod: str, command: Sequence[str], container: str = "", namespace: str = "default"
    ) -> console.Finished:
        """Run a command in a container, as `kubectl exec` does; its output and exit code.

        Raises TypeError for a command in one string: it takes a shell, `["sh", "-c", "..."]`, to read one.
        """
        if isinstance(command, str):
            raise TypeError(f"a command is a list of words: {shlex.split(command)!r}, not {command!r}")
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        return await console.run(self.plane.server.handle, ADMIN, path, command, container)

    # Nodes

    async def add_node(
        self,
        name: str = "",
        *,
        capacity: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        latency: float = 0.0,
        pod_cidr: str = "",
    ) -> SimulatedNode:
        """Start a node, with the fields of `SimulatedNode`; its methods make pods crash, fail probes, use memory.

        Raises ValueError for the name of another one.
        """
        number = len(self.nodes) + 1
        name = name or f"node-{number}"
        if name in self.nodes:
            raise ValueError(f"the cluster has a node {name} already")
        user = User(f"system:node:{name}", ("system:nodes", "system:authenticated"))
        node = SimulatedNode(
            self.plane.client(user, "kubelet"),
            name,
            self.clock,
            self.ids,
            capacity=capacity,
            labels=labels,
            taints=taints,
            latency=latency,
            pod_cidr=pod_cidr or pod_range(number),
        )
        self.nodes[name] = node
        await node.start()
        return node

    # What is under test

    async def run(self, *controllers: Controller, user: User | None = None) -> Runner:
        """Start controllers of your own beside the built-in ones, as `user` (the administrator by default)."""
        runner = Runner(
            self.plane.client(user or ADMIN, "operator"), controllers, clock=self.clock, ids=self.ids
        )
        await runner.start()
        self._runners.append(runner)
        return runner

    def _record(self, bucket: str, change: Change) -> None:
        if change.item is None:
            write = Write(self.clock.now(), "delete", bucket, change.key, change.final)
        else:
            verb = "create" if change.previous is None else "update"
            write = Write(self.clock.now(), verb, bucket, change.key, change.item.value)
        self.writes.append(write)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _meant(name: str) -> str:
    """What to say to somebody who wrote `node` for `nodes`."""
    known = ["nodes", "seed", "history", *Settings.__annotations__]
    close = difflib.get_close_matches(name, known, 1)
    return f"; is {close[0]!r} meant?" if close else f"; there are {', '.join(known)}"


def _parsed(objects: Iterable[Object | str]) -> Iterable[Object]:
    for one in objects:
        for document in yaml.safe_load_all(one) if isinstance(one, str) else (one,):
            if document is None:
                continue
            if isinstance(document, Mapping) and document.get("kind") == "List":
                yield from _parsed(document.get("items") or ())
                continue
            if not isinstance(document, Mapping) or not {"apiVersion", "kind", "metadata"} <= document.keys():
                raise ValueError(f"an object has apiVersion, kind and metadata; this has not: {document!r}")
            if not isinstance(document["metadata"], Mapping) or "name" not in document["metadata"]:
                raise ValueError(
                    f"an object that is applied has a metadata.name; this has none: {document!r}"
                )
            yield dict(document)
