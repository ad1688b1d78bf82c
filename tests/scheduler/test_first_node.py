"""A cluster without nodes does without NumPy; what waits when the first one comes is decided with it."""

import subprocess
import sys

# In a process of its own: whatever else is tested has imported NumPy.
_PROGRAM = """
import asyncio, json, sys
from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.cluster.planks import ControlPlane, Options
from sampan.store.memory import MemoryStore

SPEC = {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"operator": "Exists"}]}
POD = {"metadata": {"name": "p"}, "spec": SPEC}
NODE = {"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9"}}}

async def until(client, resource, seen):
    async for event in client.watch(resource, "default", initial=True):
        found = json.loads(event)["object"]
        if seen(found):
            return found

async def main():
    clock = RealClock()
    options = Options(token_key=pki.new_key(), controllers=False)
    plane = ControlPlane(MemoryStore(clock), clock, Ids(), options)
    await plane.start()
    client = plane.client()
    await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
    await client.create("pods", POD, "default")
    event = await until(client, "events", lambda e: e.get("reason") == "FailedScheduling")
    print(event["message"], "numpy" in sys.modules)
    await client.create("nodes", NODE)
    pod = await until(client, "pods", lambda p: p.get("spec", {}).get("nodeName"))
    print(pod["spec"]["nodeName"], "numpy" in sys.modules)
    await plane.stop()

asyncio.run(main())
"""


def test_numpy_comes_with_the_first_node():
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == ["no nodes available to schedule pods False", "n True"], done.stderr
