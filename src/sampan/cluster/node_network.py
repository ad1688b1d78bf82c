"""The network of one node, wired together: pods' cables, Services, routes, host ports, network policies, DNS."""

from __future__ import annotations

import asyncio

from sampan.base import logging
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import ReadOnlyObject
from sampan.client.client import Client
from sampan.client.events import EventRecorder
from sampan.client.plan import Event
from sampan.client.view import CachedView, Scope
from sampan.cluster.config import ClusterConfig
from sampan.node.dns import settings as dns_settings
from sampan.node.dns.server import DnsServer
from sampan.node.dns.settings import FollowedSettings, Settings
from sampan.node.dns.upstream import Upstream, machine_resolvers
from sampan.node.native import records
from sampan.node.network.controller import ProxyController
from sampan.node.network.enforcement import POLICIES, PolicyEnforcer
from sampan.node.network.fulltable import FullTableWatch
from sampan.node.network.health import HealthChecks
from sampan.node.network.hostports import HostPorts
from sampan.node.network.node import prepare_node
from sampan.node.network.pod import PodNetwork
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.routes import NodeRoutes
from sampan.node.network.ruleset import Config as ProxyConfig
from sampan.node.network.watch import LinkWatcher

log = logging.logger("network")

_RESOURCES = ("services", "endpointslices.discovery.k8s.io", "nodes", "namespaces", dns_settings.CONFIGMAPS)
_SCOPES = {
    "namespaces": Scope(metadata_only=True),
    dns_settings.CONFIGMAPS: Scope(dns_settings.NAMESPACE, fields=f"metadata.name={dns_settings.NAME}"),
}


class NodeNetwork:
    """`client` has the node's identity, `runtime` is the directory of its container runtime.

    `start` before the first pod; `pods` attaches sandboxes. `view` follows services, EndpointSlices, nodes and namespaces.
    """

    def __init__(
        self, config: ClusterConfig, name: str, runtime: str, client: Client, clock: Clock, ids: Ids
    ) -> None:
        node = config.node(name)
        self.name = name
        self._config, self._runtime, self._clock = config, runtime, clock
        self._repair: asyncio.Task[None] | None = None
        self.addresses = config.node_addresses(node.index)
        self.pod_ranges = config.pod_ranges(node.index)
        self.view = CachedView(client, _RESOURCES, clock=clock, ids=ids, scopes=_SCOPES)
        self._policy_view = CachedView(client, (POLICIES,), clock=clock, ids=ids)
        self._events = EventRecorder(client, clock=clock, ids=ids, component="kube-proxy", host=name)
        settings = ProxyConfig(
            node=name,
            pods=tuple(config.pod_cidrs),
            services=tuple(config.service_cidrs),
            egress=tuple(self.pod_ranges),
            inside=(*config.pod_cidrs, *config.service_cidrs, *config.fabrics),
            served_here=frozenset(config.dns_ips),
            loopback=True,
        )
        services = ServiceProxy(settings)
        self._ports = HostPorts(services)
        ways = NodeRoutes("eth0", sources=self.addresses, mode=config.pod_network, mtu=config.mtu)
        self.pods = PodNetwork(self.pod_ranges, node_ips=self.addresses, mtu=ways.pod_mtu, ports=self._ports)
        self.proxy = ProxyController(
            self.view, services, clock, ways, health=HealthChecks(clock), problem=self._problem
        )
        self.policies = PolicyEnforcer(self._policy_view, clock, name)
        self._full = FullTableWatch(clock, lambda text: self._problem(self._node(), "ConntrackFull", text))
        self._dns_settings = FollowedSettings(self.view, self._configure_dns, self._wrong_dns_settings)

    async def start(self) -> None:
        """Raises OSError."""
        await self.view.start()
        prepare_node(self._config.dns_ips)
        self._ports.expect(self.pods.left(records.sandboxes_in(self._runtime)))
        await self.proxy.start()
        self._links = LinkWatcher(self._clock, "eth0", self._links_changed)
        await self._policy_view.start()
        await self.policies.start()
        self._full.start()
        await self._start_dns()

    async def _start_dns(self) -> None:
        config = self._config
        # A user namespace has no resolver in reach but the one its control plane runs for it.
        resolvers = [config.server_address] if config.rootless else machine_resolvers()
        self.dns = DnsServer(
            self.view,
            self._clock,
            [*config.dns_ips, *self.addresses],
            Upstream(resolvers, self._clock, stream=config.rootless),
            networks=(*config.service_cidrs, *config.pod_cidrs),
        )
        self._dns_settings.start()
        await self.dns.start()

    async def stop(self) -> None:
        """What is programmed stays in force."""
        self._dns_settings.stop()
        await self._full.stop()
        self._links.close()
        await self.proxy.stop()
        await self.dns.stop()
        await self.policies.stop()
        await self._policy_view.stop()
        await self.view.stop()
        await self._events.stop()

    def _links_changed(self) -> None:
        self._repair = asyncio.get_running_loop().create_task(self._repair_pods(), name="cables")

    async def _repair_pods(self) -> None:
        for sandbox in await self.pods.repair():
            log.warning("a pod's interface was gone; it has a new one", sandbox=sandbox)

    def _node(self) -> ReadOnlyObject:
        """This node's object, or what is known of it before it is registered."""
        known: ReadOnlyObject | None = self.view.get("nodes", self.name)
        return known or {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}

    def _configure_dns(self, settings: Settings) -> None:
        self.dns.configure(settings.stubs, settings.upstream)

    def _wrong_dns_settings(self, configmap: ReadOnlyObject, text: str) -> None:
        self._problem(configmap, "InvalidDNSConfiguration", text)

    def _problem(self, regarding: ReadOnlyObject, reason: str, text: str) -> None:
        """`regarding`: an object of the API, whose events tell what is wrong with it."""
        log.warning(text, reason=reason, object=regarding["metadata"]["name"])
        self._events.record(Event(dict(regarding), "Warning", reason, text))
