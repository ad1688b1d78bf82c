"""Logs that grow are cut into files, of which a few are kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sampan.base.clock import VirtualClock
from sampan.node.config import AgentConfig
from sampan.node.logrotate import LogRotator


@pytest.mark.parametrize("files", [2, 5])
async def test_a_large_log_is_rotated_and_old_ones_go(tmp_path, files):
    path, clock = tmp_path / "0.log", VirtualClock()
    status = SimpleNamespace(config=SimpleNamespace(id="id", log_path=str(path)))
    driver = SimpleNamespace(world=SimpleNamespace(running=lambda: [status]))

    async def reopen_log(container_id):
        path.write_bytes(b"")

    manager = SimpleNamespace(drivers={"u": driver})
    config = AgentConfig(log_max_size="10", log_max_files=files)
    rotator = LogRotator(manager, SimpleNamespace(reopen_log=reopen_log), clock, config)
    path.write_bytes(b"small")
    await rotator.rotate()
    assert [p.name for p in tmp_path.iterdir()] == ["0.log"]
    for _ in range(7):
        path.write_bytes(b"x" * 11)
        await rotator.rotate()
        await clock.advance(10)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == files and names[0] == "0.log"
    assert [n.endswith(".gz") for n in names[1:]] == [True] * (files - 2) + [False]
