"""An agent that dies at each step of starting or stopping a pod: the next one brings the pod to the same end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_native_pods import node, pytestmark  # noqa: F401

SCRIPT = "trap 'exit 0' TERM; echo one; while true; do sleep 0.02; done"
STARTING = [
    ("volumes", "mount"),
    ("runtime", "run_sandbox"),
    ("volumes", "mounts"),
    ("runtime", "start_container"),
]
STOPPING = [
    ("runtime", "stop_container"),
    ("runtime", "stop_sandbox"),
    ("runtime", "remove_container"),
    ("runtime", "remove_sandbox"),
    ("volumes", "unmount"),
    ("volumes", "remove_logs"),
]
WHEN = ["before", "after"]


class Death:
    """Stands for a part of an agent; the first call of `method` never returns, and is made `after` all or not at all."""

    def __init__(self, part: Any, method: str, when: str) -> None:
        self._part, self._method, self._when = part, method, when
        self.reached = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._die(found) if name == self._method and not self.reached.is_set() else found

    def _die(self, call: Any) -> Any:
        async def never(*arguments: Any, **options: Any) -> None:
            if self._when == "after":
                await call(*arguments, **options)
            self.reached.set()
            await asyncio.Event().wait()

        return never


async def another_agent(node: Any, death: Death) -> None:  # noqa: F811
    """Once it has come to that step, the agent is gone, and a new one starts."""
    async with asyncio.timeout(60):
        await death.reached.wait()
    await node.stop()
    await node.start()


def doomed(node: Any, part: str, method: str, when: str) -> Death:  # noqa: F811
    kit = node.agent.kit
    death = Death(getattr(kit, part), method, when)
    setattr(kit, part, death)
    return death


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("part, method", STARTING)
async def test_while_a_pod_starts(node, part, method, when):  # noqa: F811
    death = doomed(node, part, method, when)
    node.pod(SCRIPT)
    await another_agent(node, death)
    await node.until(lambda: node.status()["phase"] == "Running")
    (status,) = node.status()["containerStatuses"]
    assert status["restartCount"] == 0
    while not await node.log():
        await asyncio.sleep(0.01)
    assert await node.log() == "one\n", "it ran once"


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("part, method", STOPPING)
async def test_while_a_pod_stops(node, part, method, when):  # noqa: F811
    node.pod(SCRIPT)
    await node.until(lambda: node.status()["phase"] == "Running")
    death = doomed(node, part, method, when)
    node.api.delete("pods", "p")
    await another_agent(node, death)
    await node.until(lambda: node.api.get("pods", "p") is None)
