"""`sampan node`: nodes of a running cluster come and go."""

from __future__ import annotations

import argparse
import asyncio

from sampan.api.status import ApiError
from sampan.base.errors import SampanError
from sampan.cli import target
from sampan.client.client import read_body
from sampan.cluster import config as configs
from sampan.cluster import credentials, supervision
from sampan.cluster.config import ClusterConfig
from sampan.cluster.paths import Paths
from sampan.cluster.up import add_node, admin_client, exclusive

CONTROL_PLANE = "control-plane"


def add(arguments: argparse.Namespace) -> int:
    """Starts one more node. Raises SampanError for a name that is taken, or on a machine that has joined."""
    paths, config = target.existing(arguments)
    config.need_server()
    with exclusive(paths):
        node = add_node(config, arguments.node)
        credentials.ensure_node(paths.pki, node.name, config.fabric_addresses(node.index))
        configs.save(config, paths.config)
        supervision.ask(paths, "node-start", name=node.name)
    print(f"node {node.name} is starting; watch it: kubectl get nodes -w")
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """Ends a node at once, as a power failure would; with `--grace` seconds its pods are ended in order first (KEP-2000)."""
    if arguments.grace:
        paths, config = target.existing(arguments)
        asyncio.run(_shut_down(config, paths, arguments.node, arguments.grace))
    paths, config = _change(arguments, stopped=True)
    supervision.ask(paths, "node-stop", name=arguments.node)
    print(
        f"node {arguments.node} is stopped; it counts as lost after {config.node_monitor_grace_period:g} s without a sign of life"
    )
    return 0


def start(arguments: argparse.Namespace) -> int:
    paths, _ = _change(arguments, stopped=False)
    supervision.ask(paths, "node-start", name=arguments.node)
    print(f"node {arguments.node} is starting")
    return 0


def delete(arguments: argparse.Namespace) -> int:
    """Ends a node and forgets it: process, certificate, Node object. One on another machine is only forgotten."""
    paths, config = target.existing(arguments)
    if config.machine and all(node.name != arguments.node for node in config.nodes):
        return _forget(paths, config, arguments.node)
    config.need_server()
    paths, config = _change(arguments, stopped=True)
    supervision.ask(paths, "node-stop", name=arguments.node)
    asyncio.run(_delete_object(paths, config, arguments.node))
    with exclusive(paths):
        config.nodes = [node for node in config.nodes if node.name != arguments.node]
        configs.save(config, paths.config)
        supervision.ask(paths, "node-remove", name=arguments.node)
    print(f"node {arguments.node} is gone")
    return 0


def _forget(paths: Paths, config: ClusterConfig, name: str) -> int:
    """A node of another machine."""
    if not asyncio.run(_delete_object(paths, config, name)):
        config.node(name)
    print(f"node {name} is gone; on its machine, if that is still there: sampan down")
    return 0


def partition(arguments: argparse.Namespace) -> int:
    first, second = _cut(arguments, "partition")
    undo = target.paths(arguments).command(f"node heal {first} {second}")
    print(f"{first} and {second} no longer reach each other; undo it: {undo}")
    return 0


def heal(arguments: argparse.Namespace) -> int:
    first, second = _cut(arguments, "heal")
    print(f"{first} and {second} reach each other")
    return 0


def _cut(arguments: argparse.Namespace, op: str) -> tuple[str, str]:
    """Both names, a node first. Raises SampanError when they are no two ends of the network."""
    paths, config = target.existing(arguments)
    first, second = sorted((arguments.node, arguments.other), key=lambda name: name == CONTROL_PLANE)
    if first == second:
        raise SampanError(
            f"{first} cannot be cut from itself", "Name two nodes, or a node and control-plane."
        )
    for name in (first, second):
        if name != CONTROL_PLANE:
            config.node(name)
    supervision.ask(paths, op, a=first, b="" if second == CONTROL_PLANE else second)
    return first, second


async def _shut_down(config: ClusterConfig, paths: Paths, name: str, grace: float) -> None:
    """Pods end within `grace` seconds, critical ones in the last third of them (KEP-2000)."""
    query = {"grace": f"{grace:g}", "critical": f"{grace / 3:g}"}
    path = f"/api/v1/nodes/{name}/proxy/shutdown"
    response = await admin_client(config, paths).request("POST", path, query)
    if response.status >= 400:
        body = (await read_body(response)).decode(errors="replace")
        raise SampanError(
            f"node {name} does not shut down: {body[:300]}", "Without --grace it is stopped at once."
        )


async def _delete_object(paths: Paths, config: ClusterConfig, name: str) -> bool:
    """Whether there was one."""
    try:
        await admin_client(config, paths).delete("nodes", name)
        return True
    except ApiError as error:
        if error.code != 404:
            raise
        return False


def _change(arguments: argparse.Namespace, *, stopped: bool) -> tuple[Paths, ClusterConfig]:
    paths, config = target.existing(arguments)
    with exclusive(paths):
        config.node(arguments.node).stopped = stopped
        configs.save(config, paths.config)
    return paths, config
