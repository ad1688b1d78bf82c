"""`sampan stop` and `sampan down`: nothing runs afterwards, and after `down` nothing is left."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson

from sampan.api import meta
from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base.clock import RealClock
from sampan.base.errors import SampanError
from sampan.client.client import Client
from sampan.cluster import config as configs
from sampan.cluster import credentials, kubeconfig, places, processes, rootless, supervision
from sampan.cluster.paths import Paths, is_root, known_clusters
from sampan.node.images.store import Store
from sampan.node.native import cgroups
from sampan.node.network import fabric
from sampan.node.network.tunnel_table import ADDRESS

_PATIENCE = 5.0  # seconds for telling the first machine that this one leaves


def stop(paths: Paths) -> bool:
    """End all processes of a cluster, keeping its data. False: it was not running."""
    supervision.configuration(paths)
    return supervision.end(paths)


def remove(paths: Paths, kubeconfig_flag: str | None, progress: Callable[[str], None] = print) -> bool:
    """Stop a cluster and take away all it made, also what a crash left. False: there was none.

    A machine that has joined one leaves it.
    """
    existed = paths.data.exists() or paths.run.exists()
    try:
        config = configs.load(paths.config)
    except SampanError:
        config = configs.ClusterConfig(paths.name, rootless=not is_root())
    supervision.end(paths)
    sweep(paths)
    if config.server:
        _leave(paths, config, progress)
    else:
        for file in {str(kubeconfig.target(kubeconfig_flag)), *config.kubeconfigs}:
            kubeconfig.remove(Path(file), config.context)
    for directory in (paths.data, paths.run):
        _remove_tree(directory, rootless_owned=config.rootless)
    _remove_if_empty(paths.data.parent, paths.run.parent)
    _remove_unused_images(paths)
    return existed


def _leave(paths: Paths, config: configs.ClusterConfig, progress: Callable[[str], None]) -> None:
    """The cluster forgets the machine's node and frees its place, if it can be told."""
    node = config.nodes[0].name
    try:
        asyncio.run(_take_leave(paths, config, node))
    except (ApiError, OSError, EOFError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        progress(f"{config.server} could not be told ({reason}); there: sampan node delete {node}")


async def _take_leave(paths: Paths, config: configs.ClusterConfig, node: str) -> None:
    """Asks for the Node's removal, and waits for it (see `places`). One that is another machine's by now stays."""
    clock = RealClock()
    transport = credentials.node_transport(config, paths.pki, node, clock)
    client = Client(transport, BUILTIN, agent="sampan")
    try:
        async with clock.timeout(_PATIENCE):
            if meta.annotations(await client.get("nodes", node)).get(ADDRESS) != config.machine:
                return
            told = await client.patch("nodes", node, {"metadata": {"annotations": {places.LEAVES: "true"}}})
            fields, since = f"metadata.name={node}", told["metadata"]["resourceVersion"]
            async for line in client.watch("nodes", since=since, fields=fields):
                if orjson.loads(line)["type"] == "DELETED":
                    return
    except ApiError as error:
        if error.code != 404:
            raise
    finally:
        await transport.close()


def sweep(paths: Paths) -> None:
    """Clear what processes that were killed could not: fabric, rules, cgroups. Harmless when there is nothing."""
    if is_root():
        fabric.destroy(str(paths.fabric), paths.name)
    cgroups.sweep(processes.cgroup(paths.name))
    cgroups.remove_empty("sampan")


def _remove_tree(directory: Path, *, rootless_owned: bool) -> None:
    """Files of containers may belong to subordinate ids: those only a user namespace can remove."""
    if not directory.exists():
        return
    try:
        shutil.rmtree(directory)
    except PermissionError:
        if not rootless_owned:
            raise
        rootless.remove_tree(directory)


def _remove_unused_images(paths: Paths) -> None:
    """Images a user loaded stay for the next cluster; without any, their directory goes with the last cluster.

    Also clusters whose data is elsewhere have their run directory beside ours: their containers stand on these layers.
    """
    others = paths.run.parent.is_dir() and any(p.is_dir() for p in paths.run.parent.iterdir())
    if others or known_clusters() or not paths.images.exists() or Store(str(paths.images)).list():
        return
    shutil.rmtree(paths.images)
    _remove_if_empty(paths.images.parent)


def _remove_if_empty(*directories: Path) -> None:
    for directory in directories:
        try:
            directory.rmdir()
        except OSError:
            continue
