"""The host's own network, beside its nodes': Services and pods are reached from it, and it knows the other machines.

A user namespace, which has no other way, also gets its way out and in.
"""

from __future__ import annotations

import os
from typing import Protocol

from sampan.base import logging
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.view import CachedView
from sampan.cluster.config import ClusterConfig
from sampan.cluster.paths import Paths
from sampan.node.network import fabric
from sampan.node.network.controller import ProxyController
from sampan.node.network.passage_keeper import PassageKeeper
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.rootless import RootlessNetwork
from sampan.node.network.routes import NodeRoutes
from sampan.node.network.ruleset import Config as ProxyConfig
from sampan.node.network.tunnel_table import TunnelTable

log = logging.logger("network")
_RESOURCES = ("services", "endpointslices.discovery.k8s.io", "nodes")


class Part(Protocol):
    """`start` raises OSError."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


async def start(client: Client, paths: Paths, config: ClusterConfig, clock: Clock, ids: Ids) -> list[Part]:
    """The parts that work. `client` may read services, EndpointSlices and nodes."""
    view = CachedView(client, _RESOURCES, clock=clock, ids=ids)
    await view.start()
    started: list[Part] = []
    for part in _parts(view, paths, config, clock):
        try:
            await part.start()
            started.append(part)
        except OSError as error:
            log.warning("a part of the host's network does not work", part=type(part).__name__, error=error)
    return started


def _parts(view: CachedView, paths: Paths, config: ClusterConfig, clock: Clock) -> list[Part]:
    inside = (*config.pod_cidrs, *config.service_cidrs, *config.load_balancer_cidrs, *config.fabrics)
    settings = ProxyConfig(
        table=fabric.host_table(config.name),
        pods=tuple(config.pod_cidrs),
        services=tuple(config.service_cidrs),
        egress=tuple(config.fabrics),
        inside=inside,
        loopback=True,
    )
    link = fabric.host_link(config.name)
    routes = NodeRoutes(link, sources=config.fabric_addresses(config.leaf))
    proxy = ServiceProxy(settings)
    parts: list[Part] = [ProxyController(view, proxy, clock, routes)]
    if config.machine:
        ends = config.machine, config.first_machine, config.fabric_address(0)
        parts.append(TunnelTable(view, clock, str(paths.fabric), *ends))
    gateway = os.environ.get("SAMPAN_GATEWAY_FD")
    if gateway:
        address = config.server_address
        parts.append(RootlessNetwork(int(gateway), view, clock, inside=inside, dns_address=address))
    else:
        parts.append(PassageKeeper(link, settings.table, config.fabric_versions, lambda: proxy.port))
    return parts
