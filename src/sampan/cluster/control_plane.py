"""The control plane's process: store, server, controllers, scheduler, and the host's own way to Services.

Started by the supervisor as `python -m sampan.cluster.control_plane DATA`, with the listeners as descriptors in
SAMPAN_LISTEN_FDS; it writes a byte to SAMPAN_READY_FD when it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

import uvloop

from sampan.base import logging, pki
from sampan.base.clock import RealClock
from sampan.base.errors import SampanError
from sampan.base.ids import Ids
from sampan.cluster import cluster_info, effects, garbage, host_network, places, processes, room
from sampan.cluster import config as configs
from sampan.cluster.config import ClusterConfig
from sampan.cluster.connector import FrontProxyConnector, HttpsConnector
from sampan.cluster.paths import Paths
from sampan.cluster.planks import ControlPlane, Options
from sampan.controllers import Timing
from sampan.server import http
from sampan.server.auth import audit
from sampan.server.auth.authenticate import read_token_file
from sampan.store.open import open_store

log = logging.logger("cluster")

_SWITCH = 0.001  # seconds the store's thread waits for its turn at the interpreter, instead of 5 ms


async def run(paths: Paths, config: ClusterConfig) -> None:
    """Serve until SIGTERM."""
    clock, ids = RealClock(), Ids()
    heap = garbage.Heap(clock)
    logging.setup(clock)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    store = open_store(paths.store, clock=clock)
    plane = ControlPlane(store, clock, ids, _options(paths, config))
    plane.server.nodes = HttpsConnector(paths.pki, clock, lambda name: plane.server.lookup.get("nodes", name))
    plane.server.aggregator.connect = FrontProxyConnector(paths.pki, clock)
    plane.server.troubles = lambda: room.warning(paths)
    audit_log = _audit(plane, config)
    context = pki.server_context(
        paths.pki / "apiserver.crt", paths.pki / "apiserver.key", (paths.pki / "ca.crt").read_bytes()
    )
    await plane.bootstrap()
    listener = await http.serve(
        plane.server.handle, _listeners(), context, clock, plane.server.at_once, audit=ids.uid()[:24]
    )
    listener.ended = heap.connection_ended
    processes.report_ready()
    log.info("the API is served", port=config.port)
    await plane.think()
    client = plane.client(agent="kube-proxy")
    network = await host_network.start(client, paths, config, clock, ids) if config.fabric else []
    garbage.settle()
    sys.setswitchinterval(_SWITCH)
    await stopped.wait()
    log.info("stopping")
    for part in network:
        await part.stop()
    await plane.stop()
    await listener.close()
    if audit_log:
        await audit_log.close()
    await store.close()


def _audit(plane: ControlPlane, config: ClusterConfig) -> audit.Log | None:
    if not config.audit_policy_file:
        return None
    written = audit.Log(Path(config.audit_log_path))
    policy = audit.Policy.load(Path(config.audit_policy_file))
    plane.server.audit = audit.Audit(policy, written.write, plane.clock, plane.ids)
    return written


def _options(paths: Paths, config: ClusterConfig) -> Options:
    return Options(
        token_key=(paths.pki / "sa.key").read_bytes(),
        cluster_ca=(paths.pki / "ca.crt").read_text(),
        front_proxy_ca=(paths.pki / "front-proxy-ca.crt").read_text(),
        static_tokens=read_token_file(Path(config.token_auth_file)) if config.token_auth_file else {},
        service_cidrs=tuple(config.service_cidrs),
        load_balancer_pool=",".join(config.load_balancer_cidrs),
        advertise=(config.advertised, config.port),
        timing=Timing(monitor_grace=config.node_monitor_grace_period),
        toleration_seconds=int(config.pod_eviction_timeout),
        dns_ips=tuple(config.dns_ips),
        dns_on_nodes=True,
        volumes=str(paths.volumes),
        volume_effects=effects.volumes(paths.volumes),
        objects=cluster_info.objects(config, (paths.pki / "ca.crt").read_text()),
        rules=[places.rule(config.pod_ranges)] if config.machine else [],
        signer=pki.CA(pki.KeyPair.load(paths.pki / "ca.crt", paths.pki / "ca.key")),
    )


def _listeners() -> list[socket.socket]:
    numbers = [int(n) for n in os.environ["SAMPAN_LISTEN_FDS"].split(",")]
    return [socket.socket(fileno=number) for number in numbers]


def main() -> None:
    """The process: its one argument is the data directory. Ends with a sentence, not a traceback, when it cannot begin."""
    data = Path(sys.argv[1])
    config = configs.load(data / "cluster.json")
    paths = config.paths(data)
    try:
        uvloop.run(run(paths, config))
    except SampanError as error:
        _give_up(error)
    except OSError as error:
        if error.errno not in room.FULL:
            raise
        _give_up(room.refused(paths))


def _give_up(error: SampanError) -> NoReturn:
    """In one line, since the last one is what the supervisor tells whoever waits."""
    with contextlib.suppress(OSError):  # its log may be on the same disk
        print(f"{error.message}: {error.hint}", file=sys.stderr, flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
