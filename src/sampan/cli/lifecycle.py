"""up, down, stop, status, logs, version: the life of a cluster as a person sees it."""

from __future__ import annotations

import argparse
import asyncio
import collections
import shutil
import sys
import time
from pathlib import Path

from sampan import __version__
from sampan.base.errors import SampanError
from sampan.cli.show import Progress, table
from sampan.cluster.paths import Paths, called


def up(arguments: argparse.Namespace) -> int:
    """Makes the cluster, or brings it back, and says what to do next. Raises SampanError."""
    from sampan.cluster.up import Wishes, bring_up

    started = time.monotonic()
    progress = Progress()
    names = [name for name in Wishes.__slots__ if hasattr(arguments, name)]
    config = bring_up(
        _paths(arguments), Wishes(**{name: getattr(arguments, name) for name in names}), progress
    )
    progress.done(
        f"cluster {config.name} is up: {len(config.nodes)} node(s), {time.monotonic() - started:.1f} s"
    )
    print(f"\nkubectl now speaks to it (context {config.context}). Next:")
    if shutil.which("kubectl") is None:
        print("  install kubectl, which is not on the PATH: kubernetes.io/docs/tasks/tools")
    if config.nodes:
        print("  kubectl get nodes -o wide")
        print(
            "  kubectl create deployment web --image=localhost/host --replicas=3 -- python3 -m http.server 8080"
        )
        print(f"  {called()} demo        a first course in one go")
    else:
        print("  kubectl get namespaces")
        print(f"  {_paths(arguments).command('node add node-1')}")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """Ends the cluster and removes all it made; no error when there is none."""
    from sampan.cluster.down import remove

    paths = _paths(arguments)
    if remove(paths, arguments.kubeconfig, lambda text: print(f"sampan: {text}", file=sys.stderr)):
        print(f"cluster {paths.name} is gone, with all it made")
    else:
        print(f"there is no cluster {paths.name}")
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """Ends its processes; its data stay."""
    from sampan.cluster.down import stop as stop_cluster

    paths = _paths(arguments)
    if stop_cluster(paths):
        print(
            f"cluster {paths.name} is stopped; its data stay in {paths.data}\n  Bring it back: {_again(arguments)}"
        )
    else:
        print(f"cluster {paths.name} was not running")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Where the cluster is, its processes, and who has joined. Returns 3 when it does not run, as init scripts do (LSB).

    Raises SampanError when there is no such cluster.
    """
    from sampan.cluster import cluster_info, membership, room, supervision

    paths = _paths(arguments)
    config = supervision.configuration(paths)
    if not supervision.running(paths):
        how = "stopped"
        if supervision.crashed(paths):
            how = "not running: its supervisor was killed, and all processes with it"
        print(f"cluster {config.name}: {how} (data in {paths.data})\n  Bring it back: {_again(arguments)}")
        return 3
    answer = supervision.ask(paths, "status")
    plane = answer["control_plane"]
    first = "machine" if config.server else "control-plane"
    rows = [[first, "running" if plane["ready"] else "starting", str(plane["pid"] or "-")]]
    for node in config.nodes:
        pid = answer["nodes"].get(node.name)
        rows.append([node.name, "running" if pid else "stopped", str(pid or "-")])
    if config.server:
        heard = asyncio.run(membership.heard(config, paths))
        print(f"cluster {config.name}: node of {config.server} ({heard}), data in {paths.data}")
    else:
        where = f"https://127.0.0.1:{config.port}, context {config.context}, data in {paths.data}"
        print(f"cluster {config.name}: {where}")
    table(["process", "state", "pid"], rows)
    if trouble := not config.server and room.warning(paths):
        print(f"\nwarning: {trouble}")
    if config.machine and not config.server:
        members = asyncio.run(membership.others(config, paths))
        print(f"\nother machines join at {cluster_info.url(config)}: {paths.command('token create')}")
        if members:
            table(["machine", "node", "ready"], members)
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """The last lines that a process wrote. Raises SampanError with the logs there are when it has none."""
    from sampan.cluster import supervision

    paths = _paths(arguments)
    path: Path = paths.log(arguments.process)
    try:
        with open(path, errors="replace") as file:
            lines = collections.deque(file, maxlen=max(arguments.lines, 0))
    except FileNotFoundError:
        supervision.configuration(paths)
        known = ", ".join(sorted(p.stem for p in paths.logs.glob("*.log"))) or "none"
        raise SampanError(f"{arguments.process} has no log", f"Logs there are: {known}") from None
    sys.stdout.writelines(lines)
    return 0


def version(arguments: argparse.Namespace) -> int:
    print(f"sampan {__version__}")
    return 0


def _again(arguments: argparse.Namespace) -> str:
    """The `up` of the cluster that a command was about."""
    line = _paths(arguments).command("up")
    return f"{line} --kubeconfig {arguments.kubeconfig}" if arguments.kubeconfig else line


def _paths(arguments: argparse.Namespace) -> Paths:
    return Paths.of(arguments.name, arguments.data_dir)
