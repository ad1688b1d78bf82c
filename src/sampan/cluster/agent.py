"""A node's process: agent, service proxy and DNS, inside the node's own namespaces.

Started and restarted by the node's process 1 as `python -m sampan.cluster.agent DATA NODE`. Containers do not
depend on it: it may end at any moment, and the next one takes them over.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base import logging
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.cluster import config as configs
from sampan.cluster import credentials, garbage, losses, processes, rootless
from sampan.cluster.config import ClusterConfig
from sampan.cluster.node_network import NodeNetwork
from sampan.cluster.paths import Paths
from sampan.node import certificates, settings
from sampan.node.agent import Agent
from sampan.node.api.server import KubeletApi
from sampan.node.config import AgentConfig, NodeHooks
from sampan.node.images.service import ImageService
from sampan.node.native import cgroups
from sampan.node.native.runtime import NativeRuntime
from sampan.node.network import traffic, tunnel_table

log = logging.logger("agent")

_RETRY = 5.0  # seconds until a request that failed is made again


class NodeProcess:
    """The parts of one real node, wired together."""

    def __init__(self, paths: Paths, config: ClusterConfig, name: str) -> None:
        self.paths, self.config, self.name = paths, config, name
        self.clock, self.ids = RealClock(), Ids()
        pki = paths.pki
        self.transport = credentials.node_transport(config, pki, name, self.clock)
        self.client = Client(self.transport, BUILTIN, agent="kubelet")
        self.runtime = str(paths.node(name) / "runtime")
        self.network = NodeNetwork(config, name, self.runtime, self.client, self.clock, self.ids)

    async def start(self) -> None:
        await self.network.start()
        await self._start_agent()

    async def _start_agent(self) -> None:
        group = processes.cgroup(self.config.name, self.name)
        limited = await asyncio.to_thread(cgroups.usable, group)
        zygote = self.paths.run / "nodes" / self.name / "zygote.sock"
        self.agent = Agent(
            self.client,
            NativeRuntime(
                self.runtime,
                str(zygote),
                self.clock,
                self.network.pods,
                cgroup=group if limited else None,
            ),
            ImageService(str(self.paths.images)),
            clock=self.clock,
            ids=self.ids,
            node_name=self.name,
            config=self._settings(limited),
            hooks=self._hooks(),
        )
        await self.agent.start()
        await self._serve()
        ranges = ",".join(self.network.pod_ranges)
        log.info("node is up", node=self.name, address=self.network.addresses[0], pods=ranges)

    def _settings(self, limited: bool) -> AgentConfig:
        """What the cluster decides, overridden by the user's KubeletConfiguration. `limited`: there are cgroups."""
        directory = self.paths.node(self.name)
        config = AgentConfig(
            root=str(directory),
            log=str(self.paths.log(self.name)),
            address=self.network.addresses[0],
            addresses=self.network.addresses,
            hostname=self.name,
            pod_cidrs=self.network.pod_ranges,
            lease_period=self.config.node_status_update_frequency,
            lease_duration=int(self.config.node_lease_duration),
            annotations=self._whereabouts(),
            static_pods=str(directory / "manifests"),
            cluster_dns=(self.config.dns_ip,),
            conditions=losses.conditions(
                limited=limited,
                rootless=self.config.rootless,
                single=not rootless.subordinate_mapped(),
            ),
        )
        own = settings.read(self.config.kubelet) if self.config.kubelet else {}
        return dataclasses.replace(config, **own)

    def _hooks(self) -> NodeHooks:
        pods = self.network.pods
        return NodeHooks(
            addresses=None,
            sandbox_addresses=pods.addresses,
            pod_ranges=pods.set_cidrs,
            isolate=self.network.policies.isolate,
            withdrawn=self.network.proxy.withdrawn,
            traffic=traffic.by_sandbox,
            services=lambda namespace: self.network.view.list("services", namespace),
        )

    async def _serve(self) -> None:
        """The kubelet API, with a certificate that covers the node's addresses and is renewed in time."""
        pki, addresses = self.paths.pki, self.network.addresses
        await self._ensure_serving(pki / "nodes", addresses)
        self.api = KubeletApi(self.agent, clock=self.clock)
        await self.api.serve(
            addresses,
            self.agent.config.port,
            cert=pki / "nodes" / f"{self.name}-serving.crt",
            key=pki / "nodes" / f"{self.name}-serving.key",
            client_ca=pki / "ca.crt",
        )
        self._rotate(addresses)

    def _whereabouts(self) -> dict[str, str]:
        """On a machine that has joined, also a Node that is registered anew says where it is."""
        config = self.config
        if not config.server:
            return {}
        return tunnel_table.notes(config.machine, config.fabric_address(config.leaf))

    async def _ensure_serving(self, directory: Path, addresses: Sequence[str]) -> None:
        """A node that has joined asks for its serving certificate, once the cluster knows its addresses."""
        files = directory / f"{self.name}-serving.crt", directory / f"{self.name}-serving.key"
        while not files[0].exists():
            try:
                pair = await certificates.request(
                    self.client,
                    self.clock,
                    self.name,
                    certificates.SERVING,
                    dns=[self.name],
                    ips=addresses,
                )
                pair.save(*files)
            except (certificates.Refused, ApiError, OSError, EOFError, TimeoutError) as error:
                log.warning("asking for a serving certificate; trying again", error=error)
                await self.clock.sleep(self.ids.jitter(_RETRY, 0.5))

    def _rotate(self, addresses: Sequence[str]) -> None:
        """Both certificates are renewed before they end."""
        parts, directory = (self.client, self.clock, self.ids, self.name), self.paths.pki / "nodes"
        own = certificates.Rotation(
            *parts,
            certificates.CLIENT,
            directory / f"{self.name}.crt",
            directory / f"{self.name}.key",
            self.transport.set_certificate,
        )
        serving = certificates.Rotation(
            *parts,
            certificates.SERVING,
            directory / f"{self.name}-serving.crt",
            directory / f"{self.name}-serving.key",
            self.api.renewed,
            dns=[self.name],
            ips=addresses,
        )
        self.agent.keep(own.run)
        self.agent.keep(serving.run)

    async def stop(self) -> None:
        """Containers go on."""
        await self.api.close()
        await self.agent.close()
        await self.network.stop()
        await self.transport.close()


async def run(paths: Paths, config: ClusterConfig, name: str) -> None:
    """Be a node until SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    process = NodeProcess(paths, config, name)
    logging.setup(process.clock)
    await process.start()
    garbage.settle()
    await stopped.wait()
    await process.stop()


def main() -> None:
    """The process: its arguments are the data directory of the cluster and the name of the node."""
    data, name = Path(sys.argv[1]), sys.argv[2]
    os.umask(0o022)
    config = configs.load(data / "cluster.json")
    uvloop.run(run(config.paths(data), config, name))


if __name__ == "__main__":
    main()
