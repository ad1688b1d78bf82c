"""kill -9 of a server under write load: no acknowledged write is lost, no deleted object comes back.

A few kills by default; `SAMPAN_KILLS=200 scripts/test tests/server/test_kill.py` is the long version.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import orjson

from sampan.base.clock import RealClock
from sampan.client.client import read_body
from sampan.client.https import HttpsTransport
from sampan.client.messages import Request

SERVER = Path(__file__).with_name("kill_server.py")
KILLS = int(os.environ.get("SAMPAN_KILLS", "5"))
WRITERS = 8
MAPS = "/api/v1/namespaces/default/configmaps"
GONE = -1


class Load:
    """Clients that write and remember: for each name what may be there, and the newest revision they were told."""

    def __init__(self) -> None:
        self.port = 0
        self.allowed: dict[str, set[int]] = {}
        self.revision = 0
        self.acknowledged = 0

    async def writer(self, number: int, chance: random.Random) -> None:
        """Names of its own, so that its answers are in order. Ends when the server does."""
        transport = HttpsTransport(f"http://127.0.0.1:{self.port}", clock=RealClock())
        try:
            while True:
                await self._write(transport, f"w{number}-{chance.randrange(6)}", chance)
        except OSError:
            pass
        finally:
            await transport.close()

    async def _write(self, transport: HttpsTransport, name: str, chance: random.Random) -> None:
        before = self.allowed.get(name, {GONE})
        count = chance.randrange(1 << 30)
        if before == {GONE}:
            body = {
                "metadata": {"name": name},
                "data": {"n": str(count), "pad": "x" * chance.randrange(2000)},
            }
            request = Request("POST", MAPS, body=orjson.dumps(body))
        elif chance.random() < 0.3:
            count = GONE
            request = Request("DELETE", f"{MAPS}/{name}")
        else:
            headers = {"content-type": "application/merge-patch+json"}
            request = Request(
                "PATCH", f"{MAPS}/{name}", "", headers, orjson.dumps({"data": {"n": str(count)}})
            )
        self.allowed[name] = {*before, count}
        answer = await transport(request)
        told = orjson.loads(await read_body(answer))
        assert answer.status in (200, 201), told
        self.allowed[name] = {count}
        self.acknowledged += 1
        if told["kind"] == "ConfigMap":
            self.revision = max(self.revision, int(told["metadata"]["resourceVersion"]))

    async def check(self, transport: HttpsTransport) -> None:
        """What is there now is what was acknowledged, or was on its way."""
        listed = orjson.loads(await read_body(await transport(Request("GET", MAPS))))
        assert int(listed["metadata"]["resourceVersion"]) >= self.revision
        found = {o["metadata"]["name"]: int(o["data"]["n"]) for o in listed["items"]}
        for name in sorted(self.allowed.keys() | found.keys()):
            have, may = found.get(name, GONE), self.allowed.get(name, {GONE})
            assert have in may, f"{name} is {have}, acknowledged was {may}"
            self.allowed[name] = {have}


async def test_killed_under_load_it_comes_back_with_all_it_acknowledged(tmp_path):
    chance = random.Random(7)
    load = Load()
    clock = RealClock()
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, str(SERVER), str(tmp_path)], stdout=subprocess.PIPE)
        try:
            load.port = int(process.stdout.readline())
            transport = HttpsTransport(f"http://127.0.0.1:{load.port}", clock=clock)
            if load.acknowledged == 0:
                namespace = orjson.dumps({"metadata": {"name": "default"}})
                await transport(Request("POST", "/api/v1/namespaces", body=namespace))
            await load.check(transport)
            await transport.close()
            writers = [load.writer(n, random.Random(chance.random())) for n in range(WRITERS)]
            running = asyncio.gather(*writers)
            await clock.sleep(chance.uniform(0.01, 0.5))
        finally:
            process.kill()
            process.communicate()
        await running
    assert load.acknowledged > KILLS  # there was load, however busy the machine
