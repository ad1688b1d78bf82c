"""The agent with real containers: volumes, logs, restarts of the agent, and nothing left when the pod is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mini_api import MiniApi

import sampan
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.client.messages import Request
from sampan.node.agent import Agent
from sampan.node.api.server import KubeletApi
from sampan.node.config import AgentConfig, NodeHooks
from sampan.node.images.service import ImageService
from sampan.node.native import syscalls
from sampan.node.native.runtime import NativeRuntime

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
PATIENCE = 60 * float(os.environ.get("SAMPAN_SLOW", "1"))  # seconds; an emulated machine says how slow it is
SOURCE = str(Path(sampan.__file__).parents[1])
_ZYGOTE = "import sys; sys.path.insert(0, sys.argv[2]); from sampan.node.native import zygote; zygote.serve(sys.argv[1])"


class Node:
    """An agent that can be stopped and started over the same containers."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, RealClock()
        self.api = MiniApi(self.clock)
        self.agent: Agent | None = None

    async def start(self):
        runtime = NativeRuntime(str(self.directory / "runtime"), str(self.directory / "z.sock"), self.clock)
        config = AgentConfig(root=str(self.directory / "node"))
        self.agent = Agent(
            self.api.client(),
            runtime,
            ImageService(str(self.directory / "images")),
            clock=self.clock,
            ids=Ids(),
            node_name="n1",
            config=config,
            hooks=NodeHooks(addresses=None),
        )
        await self.agent.start()

    async def stop(self):
        await self.agent.close()

    def pod(self, script, **spec):
        container = {
            "name": "c",
            "image": "localhost/host",
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
            **spec.pop("container", {}),
        }
        body = {"nodeName": "n1", "terminationGracePeriodSeconds": 2, "containers": [container], **spec}
        meta = {"name": "p", "namespace": "default"}
        pod = {"kind": "Pod", "metadata": meta, "spec": body, "status": {"phase": "Pending"}}
        return self.api.create("pods", pod)

    def status(self):
        return self.api.get("pods", "p")["status"]

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if condition():
                        return
                except (KeyError, IndexError, TypeError):
                    pass
                await asyncio.sleep(0.005)

    async def log(self, query=""):
        api = KubeletApi(self.agent, clock=self.clock)
        response = await api.handle(Request("GET", "/containerLogs/default/p/c", query))
        if isinstance(response.body, bytes):
            return response.body.decode()
        return b"".join([chunk async for chunk in response.body]).decode()

    async def follow(self, seen):
        """Add what the log says to the list `seen`, until the container's end."""
        api = KubeletApi(self.agent, clock=self.clock)
        response = await api.handle(Request("GET", "/containerLogs/default/p/c", "follow=true"))
        async for chunk in response.body:
            seen += chunk.decode().split()


@pytest.fixture
async def node(tmp_path):
    arguments = [sys.executable, "-S", "-E", "-I", "-c", _ZYGOTE, str(tmp_path / "z.sock"), SOURCE]
    zygote = subprocess.Popen(arguments)
    while not (tmp_path / "z.sock").exists():
        await asyncio.sleep(0.01)
    node = Node(tmp_path)
    await node.start()
    yield node
    for pod in list(node.api.all("pods")):
        node.api.delete("pods", pod["metadata"]["name"], grace=0)
    await node.until(lambda: not node.agent.manager.drivers)
    await node.stop()
    zygote.kill()
    zygote.wait()
    with open("/proc/self/mountinfo") as file:
        assert str(tmp_path) not in file.read()
    assert os.listdir(tmp_path / "node/pods") == [] and os.listdir(tmp_path / "runtime/containers") == []


async def test_a_pod_has_its_volumes_environment_and_files(node):
    node.api.create("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v1"}})
    node.pod(
        "cat /cm/k; echo; echo $POD; cat /etc/hostname; touch /e/x; ls /e; tail -1 /etc/resolv.conf; exec sleep 60",
        container={
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "cm", "mountPath": "/cm"}, {"name": "e", "mountPath": "/e"}],
            "lifecycle": {"postStart": {"exec": {"command": ["touch", "/e/hook"]}}},
            "readinessProbe": {"exec": {"command": ["test", "-e", "/e/hook"]}, "periodSeconds": 1},
        },
        volumes=[
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "e", "emptyDir": {"medium": "Memory"}},
        ],
    )
    await node.until(lambda: node.status()["containerStatuses"][0]["ready"])
    while "ndots:5" not in (words := (await node.log()).split()):
        await asyncio.sleep(0.01)
    assert words[:3] == ["v1", "p", "p"] and "x" in words


async def test_the_end_is_reported_with_its_message(node):
    node.pod("echo out; echo why > /dev/termination-log; exit 3", restartPolicy="Never")
    await node.until(lambda: node.status()["phase"] == "Failed")
    ended = node.status()["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "why\n")
    assert await node.log() == "out\n"


async def test_a_log_may_be_the_message(node):
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    node.pod("echo last words; exit 1", restartPolicy="Never", container=policy)
    await node.until(lambda: node.status()["phase"] == "Failed")
    assert node.status()["containerStatuses"][0]["state"]["terminated"]["message"] == "last words\n"


async def test_a_command_that_does_not_exist_is_named(node):
    node.pod("", restartPolicy="Never", container={"command": ["/no/such"]})
    await node.until(lambda: node.status()["phase"] == "Failed")
    ended = node.status()["containerStatuses"][0]["state"]["terminated"]
    assert ended["reason"] == "StartError" and "/no/such" in ended["message"]


async def test_the_agent_may_be_restarted_under_a_running_pod(node):
    node.pod("trap 'echo bye; exit 0' TERM; echo one; while true; do sleep 0.05; done")
    await node.until(lambda: node.status()["phase"] == "Running")
    before = node.api.get("pods", "p")
    await node.stop()
    await node.start()
    await node.until(lambda: node.agent.manager.drivers)
    assert node.api.get("pods", "p") == before

    seen: list[str] = []
    follower = asyncio.get_running_loop().create_task(node.follow(seen))
    await node.until(lambda: seen)
    node.api.delete("pods", "p")
    await node.until(lambda: node.api.get("pods", "p") is None)
    await follower
    assert seen == ["one", "bye"]


def reboot(directory):
    """What a reboot leaves: files that name processes, whose numbers others have by now (here: this very process)."""
    own = {"shim": os.getpid(), "shim_start": syscalls.start_ticks(os.getpid()), "boot": "an earlier one"}
    for path in (directory / "runtime").glob("*/*/*.json"):
        record = json.loads(path.read_text())
        if path.name == "state.json":
            for number in (record["shim"], record["pid"]):
                os.kill(number, signal.SIGKILL)
        if "boot" in record:
            path.write_text(json.dumps(record | {key: own[key] for key in own.keys() & record.keys()}))
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in reversed(mounted):
        if path.startswith(str(directory)):
            syscalls.umount(path)


async def test_after_a_reboot_a_pod_runs_again(node):
    mounts = {"volumeMounts": [{"name": "e", "mountPath": "/e"}, {"name": "m", "mountPath": "/m"}]}
    volumes = [{"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]
    node.pod(
        "echo x | tee -a /e/x >> /m/x; cat /e/x /m/x; exec sleep 1000", container=mounts, volumes=volumes
    )
    await node.until(lambda: node.status()["phase"] == "Running")
    while await node.log() != "x\nx\n":
        await asyncio.sleep(0.01)
    await node.stop()
    reboot(node.directory)
    await node.start()
    await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] == 1)
    await node.until(lambda: node.status()["containerStatuses"][0]["state"]["running"])
    while await node.log() != "x\nx\nx\n":
        await asyncio.sleep(0.01)
    last = node.status()["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (255, "Unknown")


async def test_a_pre_stop_hook_comes_before_the_signal(node):
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}
    script = "trap 'echo term; exit 0' TERM; echo up; while true; do sleep 0.05; done"
    node.pod(script, container={"lifecycle": hook})
    await node.until(lambda: node.status()["phase"] == "Running")
    seen: list[str] = []
    follower = asyncio.get_running_loop().create_task(node.follow(seen))
    await node.until(lambda: seen)
    node.api.delete("pods", "p")
    await node.until(lambda: node.api.get("pods", "p") is None)
    await follower
    assert seen == ["up", "hook", "term"]
