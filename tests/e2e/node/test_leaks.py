"""Random lives of pods while agent, zygote, shims and containers are killed: afterwards the node is as it was before.

Lives come from a seed. SAMPAN_LIVES=500 makes the long run (the default takes half a minute).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import HOST, Cluster, eventually

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base.clock import RealClock
from sampan.client.client import Client
from sampan.client.https import HttpsTransport

pytestmark = [pytest.mark.slow]
LIVES = int(os.environ.get("SAMPAN_LIVES", "60"))
SEED = int(os.environ.get("SAMPAN_SEED", "1"))
AT_ONCE = 8
AGENT = "sampan.cluster.agent"


class Node:
    """The one node of a cluster, seen from outside: what is on it, and ways to hurt it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.directory = cluster.data / "nodes" / "node-1"
        record = json.loads(
            (Path("/run/sampan") / cluster.name / "nodes" / "node-1" / "init.pid").read_text()
        )
        self.pid: int = record["pid"]

    def processes(self) -> dict[int, str]:
        """Everything in the node's PID namespace and below it, as pid -> name."""
        parents, names = {}, {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                head, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
            except OSError:
                continue
            fields = rest.split()
            if fields[0] != "Z":
                parents[int(entry)], names[int(entry)] = int(fields[1]), head.partition("(")[2]

        def below(pid: int) -> bool:
            while pid in parents and pid != self.pid:
                pid = parents[pid]
            return pid == self.pid

        return {pid: name for pid, name in names.items() if below(pid)}

    def census(self) -> dict[str, object]:
        """What may leak, counted or listed."""
        processes = self.processes()
        spaces = set()
        for pid in processes:
            for kind in ("net", "ipc", "uts", "mnt", "pid"):
                try:
                    spaces.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
                except OSError:
                    pass
        mounts = [m.split()[1] for m in Path(f"/proc/{self.pid}/mounts").read_text().splitlines()]
        mine = (str(self.cluster.data), f"/run/sampan/{self.cluster.name}/")
        links = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "ip", "-o", "link"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        roots = [f"{at}sampan/{self.cluster.name}" for at in ("", "*/")]  # version 2, version 1
        groups = [
            at for root in roots for top in Path("/sys/fs/cgroup").glob(root) for at, _, _ in os.walk(top)
        ]
        files = [
            f"{name}/{entry}"
            for name in ("runtime/sandboxes", "runtime/containers", "pods", "logs")
            if (self.directory / name).is_dir()
            for entry in os.listdir(self.directory / name)
        ]
        return {
            "processes": sorted(Counter(processes.values()).items()),
            "namespaces": len(spaces),
            "mounts": sorted(m for m in mounts if m.startswith(mine)),
            "interfaces": len(links),
            "cgroups": sorted(g for g in groups if "/pod" in g),
            "files": sorted(files),
        }

    def kill(self, chance: random.Random, kind: str) -> None:
        if kind == "agent":
            found = self.cluster.processes(AGENT)
        elif kind == "container":  # a process inside a container: its parent is a shim
            names = self.processes()
            found = [p for p in names if names.get(_parent(p)) == "sampan-shim"]
        else:
            found = [p for p, name in self.processes().items() if name == f"sampan-{kind}"]
        if found:
            try:
                os.kill(chance.choice(sorted(found)), signal.SIGKILL)
            except ProcessLookupError:
                pass


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    cluster = Cluster(f"e2el-{os.getpid()}", tmp_path_factory.mktemp("leaks"))
    try:
        cluster.up("--nodes=1")
        yield Node(cluster)
        assert cluster.complaints() == ""
    finally:
        cluster.sampan("down")


def a_pod(chance: random.Random, name: str) -> dict:
    """Any of the shapes that make different things on a node."""
    commands = [
        "sleep 1000",
        "exit 0",
        "exit 3",
        "sleep 0.2",
        "sleep 999 & sleep 999",
        "trap '' TERM; sleep 1000",
    ]
    mounts = [{"name": "memory", "mountPath": "/m"}, {"name": "disk", "mountPath": "/d", "subPath": "part"}]
    containers = [
        {
            "name": f"c{i}",
            "image": HOST,
            "command": ["nonesuch"] if chance.random() < 0.1 else ["sh", "-c", chance.choice(commands)],
            "volumeMounts": mounts if chance.random() < 0.5 else [],
        }
        for i in range(chance.choice([1, 1, 2]))
    ]
    spec = {
        "containers": containers,
        "restartPolicy": chance.choice(["Always", "Never", "OnFailure"]),
        "shareProcessNamespace": chance.random() < 0.2,
        "hostNetwork": chance.random() < 0.2,
        "terminationGracePeriodSeconds": chance.choice([0, 1]),
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "disk", "emptyDir": {}}],
    }
    if chance.random() < 0.2:
        spec["initContainers"] = [{"name": "first", "image": HOST, "command": ["sh", "-c", "sleep 0.1"]}]
    if chance.random() < 0.3:
        containers[0]["resources"] = {"limits": {"memory": "64Mi", "cpu": "500m"}}
    if chance.random() < 0.1:
        containers[0]["image"] = "localhost/none:1"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def life(client: Client, chance: random.Random, name: str) -> None:
    """Create a pod, let it be for a random while (so that any state is met), delete it, now and then by force."""
    await client.create("pods", a_pod(chance, name))
    await asyncio.sleep(chance.choice([0, 0.02, 0.05, 0.1, 0.3, 1.0]))
    grace = 0 if chance.random() < 0.2 else None
    try:
        await client.delete("pods", name, "default", grace=grace)
    except ApiError as error:
        assert error.code == 404


async def hurt(node: Node, chance: random.Random, done: asyncio.Event) -> None:
    """Something is killed every half second; the agent and the zygote seldom, since who dies often is restarted late."""
    kinds = ["shim", "container", "shim", "container", "zygote", "container", "shim", "agent"]
    number = 0
    while not done.is_set():
        await asyncio.sleep(0.5 * chance.random() + 0.25)
        await asyncio.to_thread(node.kill, chance, kinds[number % len(kinds)])
        number += 1


def connect(cluster: Cluster, directory: Path) -> HttpsTransport:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    files = {}
    for part, key in ((server, "certificate-authority"), (user, "client-certificate"), (user, "client-key")):
        path = directory / key
        path.write_bytes(
            base64.b64decode(part[f"{key}-data"]) if f"{key}-data" in part else Path(part[key]).read_bytes()
        )
        files[key] = str(path)
    return HttpsTransport(
        server["server"],
        ca=files["certificate-authority"],
        cert=files["client-certificate"],
        key=files["client-key"],
        clock=RealClock(),
    )


async def test_nothing_is_left_after_many_lives_with_faults(node: Node, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    transport = connect(node.cluster, tmp_path)
    client = Client(transport, BUILTIN, agent="leaks")
    for warm in range(3):  # the first pod makes what stays: directories, groups
        await life(client, random.Random(warm), f"warm-{warm}")
    await empty(client)
    await asyncio.to_thread(eventually, lambda: not node.census()["files"], "the first pods are gone")
    before = await asyncio.to_thread(node.census)
    names = iter([f"p{i}" for i in range(LIVES)])
    seeds = {f"p{i}": chance.getrandbits(32) for i in range(LIVES)}

    async def one_after_another() -> None:
        for name in names:
            await life(client, random.Random(seeds[name]), name)

    done = asyncio.Event()
    hurting = asyncio.create_task(hurt(node, random.Random(SEED), done))
    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    done.set()
    await hurting
    await empty(client)
    await transport.close()

    def same() -> bool:
        now = node.census()
        wrong = {k: difference(before[k], now[k]) for k in now if now[k] != before[k]}
        assert not wrong, wrong
        return True

    await asyncio.to_thread(eventually, same, f"the node is as before (seed {SEED})", 20)


def difference(before: Any, now: Any) -> Any:
    """What there is too much, and what is missing."""
    if not isinstance(now, list):
        return before, now
    return list((Counter(now) - Counter(before)).elements()), list(
        (Counter(before) - Counter(now)).elements()
    )


async def empty(client: Client) -> None:
    """Wait until the API has no pod any more: the node let go of all of them."""
    async with asyncio.timeout(90):
        while (await client.list("pods", "default"))["items"]:
            await asyncio.sleep(0.2)
