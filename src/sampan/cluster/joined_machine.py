"""The process that stands in for the control plane on a machine that has joined: the host's own way to Services and pods.

Started by the supervisor as `python -m sampan.cluster.joined_machine DATA`. It acts as the machine's node. What it has
programmed stays in force while it, or the first machine, is away.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base import logging, pki
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.cluster import config as configs
from sampan.cluster import credentials, garbage, host_network, processes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.paths import Paths
from sampan.node.network import tunnel_table

log = logging.logger("machine")
_RETRY = 5.0
_SPARE = 86_400.0  # seconds before its certificate ends this process does: the next one has the renewed one


async def run(paths: Paths, config: ClusterConfig) -> None:
    """Serve until SIGTERM, or until the certificate is about to end."""
    clock, ids, node = RealClock(), Ids(), config.nodes[0].name
    logging.setup(clock)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    transport = credentials.node_transport(config, paths.pki, node, clock)
    client = Client(transport, BUILTIN, agent="kube-proxy")
    processes.report_ready()
    work = asyncio.create_task(_work(client, paths, config, clock, ids, node))
    end = pki.expires((paths.pki / "nodes" / f"{node}.crt").read_bytes()) - _SPARE
    clock.call_later(max(end - clock.now(), 3600.0), stopped.set)
    await stopped.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await transport.close()


async def _work(
    client: Client, paths: Paths, config: ClusterConfig, clock: RealClock, ids: Ids, node: str
) -> None:
    parts = await host_network.start(client, paths, config, clock, ids)  # the agent's way to the API, too
    try:
        await _announce(client, config, clock, node)
        garbage.settle()
        log.info("this machine is part of the cluster", server=config.server, address=config.machine)
        await asyncio.Event().wait()
    finally:
        for part in parts:
            await part.stop()


async def _announce(client: Client, config: ClusterConfig, clock: RealClock, node: str) -> None:
    """The others learn from the Node where this machine is."""
    notes = tunnel_table.notes(config.machine, config.fabric_address(config.leaf))
    while True:
        try:
            await client.patch("nodes", node, {"metadata": {"annotations": notes}})
            return
        except (ApiError, OSError, EOFError, TimeoutError) as error:
            log.warning("the first machine cannot be told where this one is; trying again", error=error)
        await clock.sleep(_RETRY)


def main() -> None:
    data = Path(sys.argv[1])
    config = configs.load(data / "cluster.json")
    uvloop.run(run(config.paths(data), config))


if __name__ == "__main__":
    main()
