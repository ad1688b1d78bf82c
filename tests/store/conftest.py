"""Every store passes the same tests: they ask for `store` and get each implementation in turn."""

from __future__ import annotations

import pytest

from sampan.base.clock import VirtualClock
from sampan.store.durable import DurableStore
from sampan.store.memory import MemoryStore


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture(params=["memory", "durable"])
async def store(request, clock, tmp_path):
    if request.param == "memory":
        made = MemoryStore(clock, history=100)
    else:
        made = DurableStore(tmp_path / "store", clock, on_fatal=pytest.fail, history=100, segment=1 << 20)
    yield made
    await made.close()
