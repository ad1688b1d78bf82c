"""`sampan join` and `sampan token`: a cluster of several machines."""

from __future__ import annotations

import argparse
import asyncio
import time

from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.base.errors import SampanError
from sampan.cli import target
from sampan.cli.show import Progress, table
from sampan.client.client import Client
from sampan.cluster import cluster_info, tokens
from sampan.cluster import join as joins


def join(arguments: argparse.Namespace) -> int:
    """Makes this machine a node of the cluster that the invitation names. Raises SampanError with what is in the way."""
    started, progress = time.monotonic(), Progress()
    invitation = joins.Invitation.read(arguments.server, arguments.token, arguments.ca_hash)
    node = arguments.node_name or joins.default_node_name()
    paths = target.paths(arguments)
    joins.join(paths, invitation, node, arguments.advertise, progress)
    progress.done(f"this machine is node {node} of {invitation.server}: {time.monotonic() - started:.1f} s")
    print(f"\nSee it on the first machine: kubectl get nodes -o wide\n  Leave again: {paths.command('down')}")
    return 0


def create(arguments: argparse.Namespace) -> int:
    """Prints the command that another machine joins with. Raises SampanError when the cluster has no address for others."""
    paths, config, client = target.running(arguments)
    if not config.machine:
        raise SampanError(
            "other machines cannot reach this cluster",
            f"Give it an address for them: {paths.command('stop')}, then {paths.command('up --advertise ADDRESS')}",
        )
    token = asyncio.run(tokens.create(client, RealClock(), arguments.ttl, arguments.description))
    ca_hash = pki.public_key_hash((paths.pki / "ca.crt").read_bytes())
    print(f"sampan join {cluster_info.url(config)} --token {token} --ca-hash {ca_hash}")
    return 0


def list_(arguments: argparse.Namespace) -> int:
    _, _, client = target.running(arguments)
    rows = [[str(t), t.expires or "never", t.description or "-"] for t in asyncio.run(tokens.present(client))]
    table(["token", "expires", "description"], rows)
    return 0


def delete(arguments: argparse.Namespace) -> int:
    paths, _, client = target.running(arguments)
    asyncio.run(_delete(client, arguments.tokens, paths.command("token list")))
    return 0


async def _delete(client: Client, names: list[str], known: str) -> None:
    for name in names:
        await tokens.delete(client, name, known)
        print(f"token {name.partition('.')[0]} is deleted; machines that have joined stay")
