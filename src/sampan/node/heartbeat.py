"""How a node says that it lives: its Lease every few seconds, its status on change and every few minutes (KEP-589)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339_micro
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.config import AgentConfig
from sampan.node.registration import conditions
from sampan.node.runtime import Image

log = logging.getLogger(__name__)
NAMESPACE = "kube-node-lease"
_FACTS = ("nodeInfo", "daemonEndpoints")
# condition -> the reasons of kubelet's events when it turns True and False
_TURNS = {
    "MemoryPressure": ("NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    "DiskPressure": ("NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    "PIDPressure": ("NodeHasInsufficientPID", "NodeHasSufficientPID"),
    "Ready": ("NodeReady", "NodeNotReady"),
}
Tell = Callable[[str, str, str], None]  # type, reason and message of an event about the node
_PATIENCE = 5.0  # seconds, at least: a heartbeat that hangs in a dead connection must not outlast the lease


class Heartbeat:
    """Owns the node's Lease and status after registration. `node` is the newest Node object known."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        config: AgentConfig,
        name: str,
        tell: Tell = lambda type, reason, message: None,
    ) -> None:
        self.node: Object = {}
        self._tell = tell
        self._client = client
        self._clock = clock
        self._config = config
        self._name = name
        self._problem = ""
        self._pressures: tuple[str, ...] = ()
        self._images: list[Object] = []
        self._own: set[str] = set()  # resources that this node measures itself
        self._facts: Object = {}  # parts of the status that nobody else may know better, as they were registered
        self._changed = asyncio.Event()
        self._patience = max(_PATIENCE, config.lease_period)

    async def register(self, node: Object) -> Object:
        """Create the Node, or bring what is there up to date. Returns it. Retries while the server is away."""
        delay = 0.2
        self._own = set(node["status"]["capacity"])
        while True:
            try:
                self.node = await self._register(node)
                self._facts = {k: v for k, v in self.node["status"].items() if k in _FACTS}
                return self.node
            except ApiError as error:
                if error.code < 500 and error.code not in (403, 409, 429):
                    raise
                log.warning("registering node %s: %s", self._name, error.message)
            except (OSError, EOFError) as error:
                log.warning("registering node %s: %s", self._name, error)
            await self._clock.sleep(delay)
            delay = min(delay * 2, 7.0)

    async def _register(self, node: Object) -> Object:
        try:
            return await self._client.create("nodes", node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        old = await self._client.get("nodes", self._name)
        labels = old["metadata"].get("labels") or {}
        change: Object = {}
        if any(labels.get(k) != v for k, v in node["metadata"]["labels"].items()):
            change["metadata"] = {"labels": node["metadata"]["labels"]}
        if node["spec"].get("podCIDR") and not old.get("spec", {}).get("podCIDR"):
            change["spec"] = node["spec"]
        if change:
            await self._client.patch("nodes", self._name, change)
        before = {c["type"]: c for c in old.get("status", {}).get("conditions") or ()}
        status = {**node["status"], "conditions": conditions(self._config, before, self._clock.now())}
        if old.get("status", {}).get("addresses"):
            status["addresses"] = [{"$patch": "replace"}, *status["addresses"]]
        new = await self._client.patch(
            "nodes", self._name, {"status": status}, kind="strategic", subresource="status"
        )
        booted = [one["status"].get("nodeInfo", {}).get("bootID", "") for one in (old, new)]
        if all(booted) and booted[0] != booted[1]:
            self._tell("Warning", "Rebooted", f"Node {self._name} has been rebooted, boot id: {booted[1]}")
        return new

    # What others report

    def seen(self, node: Object) -> None:
        """The newest Node object. When it says that we were not heard of, or what is not so, we report again."""
        self.node = node
        ready: Object = next(
            (c for c in node.get("status", {}).get("conditions") or () if c["type"] == "Ready"), {}
        )
        if ready.get("status") == "Unknown" or self._extended() or self._wrong():
            self._changed.set()

    async def refresh(self) -> None:
        """Read the own Node now. Raises what the client raises."""
        async with self._clock.timeout(self._patience):
            self.seen(await self._client.get("nodes", self._name))

    def _extended(self) -> Object:
        """What others put into the node's capacity is allocatable, too ("Advertise Extended Resources for a Node")."""
        status = self.node.get("status", {})
        capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
        theirs = {k: v for k, v in capacity.items() if k not in self._own and allocatable.get(k) != v}
        return theirs | dict.fromkeys(k for k in allocatable if k not in capacity)

    def _wrong(self) -> Object:
        """What somebody overwrote. A client that sends a whole Node as a patch empties these, the kubelet's port too."""
        status = self.node.get("status", {})
        return {k: v for k, v in self._facts.items() if status.get(k) != v}

    def set_problem(self, problem: str) -> None:
        """Why the node is not ready; "" when it is."""
        if problem != self._problem:
            self._problem = problem
            self._changed.set()

    def set_pressures(self, pressures: Sequence[str]) -> None:
        if tuple(pressures) != self._pressures:
            self._pressures = tuple(pressures)
            self._changed.set()

    def set_images(self, images: Iterable[Image]) -> None:
        """status.images changes when the set of images does."""
        listed = container_images(images)
        if listed != self._images:
            self._images = listed
            self._changed.set()

    # Loops

    async def leases(self) -> None:
        """Renew the Lease for ever."""
        while True:
            try:
                async with self._clock.timeout(self._patience):
                    await self._renew()
            except (ApiError, OSError, EOFError) as error:
                log.warning("lease of node %s: %s", self._name, str(error) or type(error).__name__)
            await self._clock.sleep(self._config.lease_period)

    async def _renew(self) -> None:
        renewed = {"renewTime": rfc3339_micro(self._clock.now())}
        try:
            await self._client.patch("leases.coordination.k8s.io", self._name, {"spec": renewed}, NAMESPACE)
            return
        except ApiError as error:
            if error.code != 404:
                raise
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self.node["metadata"]["uid"]}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": NAMESPACE, "ownerReferences": [owner]},
            "spec": {
                "holderIdentity": self._name,
                "leaseDurationSeconds": self._config.lease_duration,
                **renewed,
            },
        }
        await self._client.create("leases.coordination.k8s.io", lease, NAMESPACE)

    async def statuses(self) -> None:
        """Report the node's status on change and every `status_period` seconds, for ever."""
        while True:
            try:
                async with self._clock.timeout(self._config.status_period):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                async with self._clock.timeout(self._patience):
                    await self.report()
            except (ApiError, OSError, EOFError) as error:
                log.warning("status of node %s: %s", self._name, error)
                await self._clock.sleep(1.0)
                self._changed.set()

    async def report(self) -> None:
        """One patch of conditions, images and extended resources."""
        before = {c["type"]: c for c in self.node.get("status", {}).get("conditions") or ()}
        status: Object = {
            "conditions": conditions(
                self._config, before, self._clock.now(), problem=self._problem, pressures=self._pressures
            )
        }
        if self._images:
            status["images"] = self._images
        if extended := self._extended():
            status["allocatable"] = extended
        status |= self._wrong()
        node = await self._client.patch(
            "nodes", self._name, {"status": status}, kind="strategic", subresource="status"
        )
        self._tell_turns(before, status["conditions"])
        self.seen(node)

    def _tell_turns(self, before: dict[str, Object], now: list[Object]) -> None:
        for condition in now:
            kind, was = condition["type"], before.get(condition["type"], {}).get("status")
            if kind in _TURNS and was not in (None, condition["status"]):
                reason = _TURNS[kind][condition["status"] != "True"]
                self._tell("Normal", reason, f"Node {self._name} status is now: {reason}")


def container_images(images: Iterable[Image]) -> list[Object]:
    """status.images: each image once, with all its names, those by digest first; the largest 50 (kubelet's
    nodeStatusMaxImages). Source: API reference, ContainerImage v1."""
    sizes: dict[str, int] = {}
    names: dict[str, set[str]] = {}
    for image in images:
        sizes[image.id] = image.size
        names.setdefault(image.id, set()).update(name for name in (image.digest, image.ref) if name)
    by_digest_first = {key: sorted(found, key=lambda n: ("@" not in n, n)) for key, found in names.items()}
    largest = sorted(sizes, key=lambda key: (-sizes[key], by_digest_first[key]))[:50]
    return [{"names": by_digest_first[key], "sizeBytes": sizes[key]} for key in largest]
