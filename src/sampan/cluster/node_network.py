"""The network of one node, wired together: pods' cables, Services, routes, host ports, network policies, DNS."""

from __future__ import annotations

from sampan.base.clock import Clock
from sampan.client.view import CachedView
from sampan.cluster.config import ClusterConfig
from sampan.node.dns.server import DnsServer
from sampan.node.dns.upstream import Upstream, machine_resolvers
from sampan.node.native import records
from sampan.node.network.controller import ProxyController
from sampan.node.network.enforcement import PolicyEnforcer
from sampan.node.network.health import HealthChecks
from sampan.node.network.hostports import HostPorts
from sampan.node.network.node import prepare_node
from sampan.node.network.pod import PodNetwork
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.routes import NodeRoutes
from sampan.node.network.ruleset import Config as ProxyConfig


class NodeNetwork:
    """`view` follows services, EndpointSlices, nodes and namespaces; `policies` is a view of network policies.

    `runtime` is the directory of the node's container runtime. `start` before the first pod; `pods` attaches sandboxes.
    """

    def __init__(
        self,
        config: ClusterConfig,
        name: str,
        runtime: str,
        view: CachedView,
        policies: CachedView,
        clock: Clock,
    ) -> None:
        node = config.node(name)
        self._config, self._runtime = config, runtime
        self.address = config.fabric_address(node.index)
        self.pod_cidr = pod_range(config, node.index)
        settings = ProxyConfig(
            node=name,
            pods=(config.pod_cidr,),
            services=(config.service_cidr,),
            egress=(self.pod_cidr,),
            inside=(config.pod_cidr, config.service_cidr, config.fabric),
            served_here=frozenset({config.dns_ip}),
        )
        services = ServiceProxy(settings)
        self._ports = HostPorts(services)
        self.pods = PodNetwork([self.pod_cidr], node_ips=[self.address], ports=self._ports)
        ways = NodeRoutes("eth0", source=self.address)
        self.proxy = ProxyController(view, services, clock, ways, HealthChecks(clock))
        self._policy_view = policies
        self.policies = PolicyEnforcer(policies, clock, name)
        # A user namespace has no resolver in reach but the one its control plane runs for it.
        resolvers = [config.server_address] if config.rootless else machine_resolvers()
        self.dns = DnsServer(
            view,
            clock,
            [config.dns_ip, self.address],
            Upstream(resolvers, clock),
            networks=(config.service_cidr, config.pod_cidr),
        )

    async def start(self) -> None:
        """Raises OSError."""
        prepare_node([self._config.dns_ip])
        self._ports.expect(self.pods.left(records.sandboxes_in(self._runtime)))
        await self.proxy.start()
        await self._policy_view.start()
        await self.policies.start()
        await self.dns.start()

    async def stop(self) -> None:
        """What is programmed stays in force."""
        await self.proxy.stop()
        await self.dns.stop()
        await self.policies.stop()
        await self._policy_view.stop()


def pod_range(config: ClusterConfig, index: int) -> str:
    """The node's /24 of the cluster's pod range."""
    first, second, *_ = config.pod_cidr.split(".")
    return f"{first}.{second}.{index}.0/24"
