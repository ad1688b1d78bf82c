"""Lives of pods with things going wrong at every moment: afterwards nothing is left (conftest counts)."""

import asyncio
import contextlib
import os
import random
import signal

import pytest

from sampan.base.clock import RealClock
from sampan.node.native.runtime import NativeRuntime
from sampan.node.runtime import RuntimeFailure

pytestmark = [pytest.mark.root, pytest.mark.slow]


async def takeover(pods):
    """The agent is killed and a new one comes: only what is on disk is known."""
    await pods.runtime.close()
    pods.runtime = NativeRuntime(
        str(pods.directory / "node"), pods.zygote.path, RealClock(), cgroup=pods.group
    )
    await pods.runtime.start(pods.exited.put_nowait)


async def fault(pods, chance, id_):
    record = pods.runtime._containers.get(id_)
    kind = chance.choice(["none", "shim", "process", "zygote", "agent", "cancelled"])
    if kind in ("shim", "process") and record is not None and record.exit is None:
        pid = record.state["shim" if kind == "shim" else "pid"]
        os.kill(pid, signal.SIGKILL)
    elif kind == "zygote":
        pods.zygote.kill()
        pods.zygote.start()
    elif kind == "agent":
        await takeover(pods)


@pytest.mark.parametrize("seed", range(3))
async def test_random_lives(pods, seed):
    chance = random.Random(seed)
    for number in range(25):
        sandbox, container = f"s{number}", f"c{number}"
        await pods.sandbox(sandbox, share_processes=chance.random() < 0.3)
        command = chance.choice(
            [["sleep", "100"], ["true"], ["nonesuch"], ["sh", "-c", "sleep 50 & exec sleep 60"]]
        )
        start = asyncio.create_task(pods.start(*command, id=container, sandbox=sandbox))
        if chance.random() < 0.4:
            await asyncio.sleep(chance.random() * 0.02)
            start.cancel()
        try:
            await start
        except (RuntimeFailure, asyncio.CancelledError):
            pass
        await fault(pods, chance, container)
        if chance.random() < 0.7:
            await pods.runtime.stop_sandbox(sandbox)
        if chance.random() < 0.5:
            await pods.runtime.remove_sandbox(sandbox)
    await takeover(pods)


async def test_who_makes_a_sandbox_may_be_killed_at_any_moment(pods):
    pid = pods.zygote.process.pid
    for number in range(50):
        making = asyncio.create_task(pods.sandbox(f"m{number}", share_processes=True))
        await asyncio.sleep(number * 0.0003)
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            for maker in file.read().split():
                os.kill(int(maker), signal.SIGKILL)
        with contextlib.suppress(RuntimeFailure):
            await making
        await pods.runtime.remove_sandbox(f"m{number}")


async def test_a_sandbox_goes_while_a_container_of_it_starts(pods):
    for number in range(10):
        await pods.sandbox(f"g{number}")
        start = asyncio.create_task(pods.start("sleep", "100", sandbox=f"g{number}"))
        await asyncio.sleep(number * 0.0005)
        start.cancel()
        await pods.runtime.remove_sandbox(f"g{number}")
        with contextlib.suppress(RuntimeFailure, asyncio.CancelledError):
            await start
