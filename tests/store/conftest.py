"""Every store passes the same tests: they ask for `store` and get each implementation in turn."""

from __future__ import annotations

import pytest

from sampan.base.clock import RealClock, VirtualClock
from sampan.store.memory import MemoryStore


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture(params=["memory"])
async def store(request, clock, tmp_path):
    made = MemoryStore(clock, history=100)
    yield made
    await made.close()


@pytest.fixture
def real_clock():
    return RealClock()
