"""Follows Services, EndpointSlices and Nodes, and has the proxy and the routes programmed within milliseconds.

Changes that come together are one transaction: the first waits a moment for others, and while one is committed the
next ones gather.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.view import CachedView
from sampan.node.network import health, routes
from sampan.node.network.gathering import Gathering
from sampan.node.network.health import HealthChecks
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.services import Entries, entries, service_key
from sampan.node.network.slices import SLICES, SliceIndex
from sampan.node.network.watch import LinkWatcher

log = logging.getLogger(__name__)

SERVICES, NODES = "services", "nodes"
_ZONE = "topology.kubernetes.io/zone"
_GATHER = 0.002  # seconds the first change waits for others
_RETRY = 5.0
_SLICE = 50  # services decided upon before other tasks get their turn


class ProxyController:
    """Connects a view of the cluster with a `ServiceProxy` and, if given, `NodeRoutes` and `HealthChecks`.

    `view` follows services, endpointslices.discovery.k8s.io and, for routes, nodes; `start` when it is in sync.
    `problem(object, reason, text)` is told what cannot be done as an object asks.
    """

    def __init__(
        self,
        view: CachedView,
        proxy: ServiceProxy,
        clock: Clock,
        node_routes: routes.NodeRoutes | None = None,
        health: HealthChecks | None = None,
        problem: Callable[[Object, str, str], None] | None = None,
    ) -> None:
        self._view = view
        self._proxy = proxy
        self._clock = clock
        self._routes = node_routes
        self._health = health
        self._problem = problem or (lambda regarding, reason, text: log.warning("%s: %s", reason, text))
        self._told: dict[str, str] = {}  # what was said about whom, so that it is said once
        self._slices: SliceIndex | None = None
        self._dirty: set[str] = set()
        self._nodes_dirty = False
        self._resync = False
        self._busy = False
        self._changed = Gathering(clock, _GATHER)
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._links: LinkWatcher | None = None
        self._ready: dict[str, set[str]] = defaultdict(
            set
        )  # address -> services that have it ready, in force
        self._ready_in: dict[str, set[str]] = {}  # service -> addresses it has ready, in force
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def start(self) -> None:
        """Writes the whole table once, then follows. Raises OSError when the kernel lacks what is needed."""
        self._slices = SliceIndex(self._view)
        self._view.subscribe(self._notice)
        if self._routes and self._proxy.config.node:
            self._settle_in(self._view.get(NODES, self._proxy.config.node))
        services = [service_key(service) for service in self._view.list(SERVICES)]
        ready = self._ready_addresses(set(services) | self._slices.services())
        await self._proxy.start(await self._wanted(services), damaged=self._damaged)
        self._in_force(ready)
        await self._tell_health(services)
        self._tell_conflicts(services)
        await self._sync_routes()
        if self._routes:
            ways = self._routes
            self._links = LinkWatcher(self._clock, ways.link_name, self._links_changed, ways.netns)
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="service proxy")

    async def stop(self) -> None:
        """Stops following; what is programmed stays."""
        self._view.unsubscribe(self._notice)
        self._changed.close()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._links:
            self._links.close()
        self._proxy.close()
        if self._health:
            await self._health.close()

    async def settled(self) -> None:
        """Waits until everything noticed so far is in the kernel."""
        while self._busy or self._dirty or self._nodes_dirty or self._resync:
            self._settled.clear()
            await self._settled.wait()

    async def withdrawn(self, pod: Object, cap: float = 10.0) -> bool:
        """Waits until no Service sends new connections to the pod as a ready endpoint any more, as far as this node goes.

        False when that has not come about within `cap` seconds. A pod that never was an endpoint is withdrawn at once.
        """
        status = pod.get("status") or {}
        addresses = {entry.get("ip") for entry in status.get("podIPs") or ()} | {status.get("podIP")}
        waiting = [self._not_ready(address) for address in addresses if address]
        try:
            async with self._clock.timeout(cap):
                for future in waiting:
                    await future
        except TimeoutError:
            return False
        return True

    def _not_ready(self, address: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._ready.get(address):
            self._waiting.setdefault(address, []).append(future)
        else:
            future.set_result(None)
        return future

    # What the view tells

    def _notice(self, resource: str, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        if resource == SERVICES:
            self._dirty.add(service_key(obj))
        elif resource == SLICES:
            assert self._slices is not None
            self._dirty |= self._slices.notice(old, new)
        elif resource == NODES and self._routes is not None:
            self._nodes_dirty = True
            if obj["metadata"]["name"] == self._proxy.config.node:
                self._settle_in(new)
        else:
            return
        self._changed.soon()

    def _settle_in(self, node: Object | None) -> None:
        """Where this node is decides which endpoints are near (`hinted`)."""
        zone = ((node or {}).get("metadata", {}).get("labels") or {}).get(_ZONE, "")
        if zone != self._proxy.config.zone:
            self._proxy.config = dataclasses.replace(self._proxy.config, zone=zone)
            self._dirty |= {service_key(service) for service in self._view.list(SERVICES)}

    def _damaged(self) -> None:
        log.warning("somebody changed the table %s; writing it anew", self._proxy.config.table)
        self._resync = True
        self._changed.soon()

    def _links_changed(self) -> None:
        assert self._routes is not None
        self._routes.forget()
        self._nodes_dirty = True
        self._changed.soon()

    # What is done about it

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            keys, self._dirty = self._dirty, set()
            resync, self._resync = self._resync, False
            self._busy = True
            try:
                await self._program(keys, resync)
            except Exception:
                log.exception("programming the network; trying again")
                self._dirty |= keys
                self._resync = True
                await self._clock.sleep(_RETRY)
                self._changed.soon()
            else:
                self._busy = False
                self._settled.set()

    async def _program(self, keys: set[str], resync: bool) -> None:
        if keys:
            ready = self._ready_addresses(keys)
            await self._proxy.change(await self._wanted(keys))
            self._in_force(ready)
            await self._tell_health(keys)
            self._tell_conflicts(keys)
        if resync:
            await self._proxy.resync()
        if self._nodes_dirty:
            self._nodes_dirty = False
            await self._sync_routes()

    async def _tell_health(self, keys: Iterable[str]) -> None:
        if self._health is None:
            return
        node = self._proxy.config.node
        found = {}
        for key in keys:
            namespace, name = key.split("/", 1)
            port = health.port_of(self._view.get(SERVICES, name, namespace) or {})
            found[key] = port, health.local_endpoints(self._slices_of(key), node) if port else 0
        for key, text in (await self._health.update(found)).items():
            self._tell(SERVICES, key, "FailedToStartServiceHealthcheck", text)

    def _tell_conflicts(self, keys: Iterable[str]) -> None:
        """An address and port can lead to one Service only; the others are told who has it."""
        for key in keys:
            taken = self._proxy.taken(key)
            text = "; ".join(f"{place} is taken by {owner}" for place, owner in sorted(taken.items()))
            self._tell(SERVICES, key, "AddressConflict", text)

    def _tell(self, resource: str, key: str, reason: str, text: str) -> None:
        about = f"{resource} {key} {reason}"
        if self._told.get(about, "") == text:
            return
        self._told[about] = text
        if not text:
            del self._told[about]
            return
        namespace, _, name = key.rpartition("/")
        regarding = self._view.get(resource, name, namespace)
        if regarding is not None:
            self._problem(regarding, reason, text)

    async def _sync_routes(self) -> None:
        if self._routes is None:
            return
        nodes = self._view.list(NODES)
        goal = routes.wanted(nodes, self._proxy.config.node)
        for name, text in routes.overlaps(nodes).items():
            self._tell(NODES, name, "CIDRConflict", text)
        if self._routes.changes(goal):
            failure = ""
            try:
                await asyncio.to_thread(self._routes.sync, goal)
            except OSError as error:  # again when the link is there
                failure = f"routes to other nodes: {error}"
                log.warning(failure)
            if self._proxy.config.node:
                self._tell(NODES, self._proxy.config.node, "FailedToCreateRoute", failure)

    async def _wanted(self, keys: Iterable[str]) -> dict[str, Entries]:
        """What some Services need now, decided in slices that leave the loop to others."""
        result = {}
        for count, key in enumerate(sorted(keys), 1):
            result[key] = self._entries(key)
            if count % _SLICE == 0:
                await self._clock.sleep(0)
        return result

    def _entries(self, key: str) -> Entries:
        namespace, name = key.split("/", 1)
        service = self._view.get(SERVICES, name, namespace)
        if service is None:
            return {}
        return entries(service, self._slices_of(key), self._proxy.config, self._proxy.programmed(key))

    def _slices_of(self, key: str) -> list[Object]:
        return self._slices.of(key) if self._slices else []

    def _ready_addresses(self, keys: Iterable[str]) -> dict[str, set[str]]:
        return {key: {a for item in self._slices_of(key) for a in _ready_addresses(item)} for key in keys}

    def _in_force(self, ready: Mapping[str, set[str]]) -> None:
        """Notes which addresses each Service has ready as of what has just been programmed; tells who waits for that."""
        for key, now in ready.items():
            before = self._ready_in.pop(key, set())
            if now:
                self._ready_in[key] = now
            for address in now - before:
                self._ready[address].add(key)
            for address in before - now:
                self._ready[address].discard(key)
                if not self._ready[address]:
                    del self._ready[address]
                    for future in self._waiting.pop(address, ()):
                        if not future.done():
                            future.set_result(None)


def _ready_addresses(item: Object) -> Iterable[str]:
    for endpoint in item.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        if conditions.get("ready") is not False and not conditions.get("terminating"):
            yield endpoint["addresses"][0]
