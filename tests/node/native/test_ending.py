"""How a container ended is known even where the disk takes no more."""

from __future__ import annotations

import json
import os

import pytest

from sampan.node.native.ending import finish
from sampan.node.native.records import Container, encode
from sampan.node.runtime import ContainerConfig, Image
from sampan.node.volumes import mounting

END = {"code": 137, "signal": 9, "reason": "Error", "message": ""}


@pytest.fixture
def disk(tmp_path):
    """A small disk."""
    mounting.tmpfs(str(tmp_path), 64 << 10)
    yield tmp_path
    mounting.unmount(str(tmp_path))


@pytest.mark.root
def test_an_end_on_a_full_disk_is_known(disk):
    config = ContainerConfig("id", "s", "c", 0, Image("i", "sha256:0", "", (), {}), (), {}, "/", "")
    spec = {"config": encode(config), "state": {"pid": 0, "created_at": 1.0}}
    (disk / "config.json").write_text(json.dumps(spec))
    (disk / "state.json").write_text(json.dumps({"pid": 7, "created_at": 1.0, "started_at": 2.0}))
    with pytest.raises(OSError, match="No space"), open(disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"0" * 4096)
    before = Container.load(str(disk))
    finish(str(disk), "", True, END)
    before.settle()
    for status in (before.status(), Container.load(str(disk)).status()):
        assert (status.state, status.exit_code, status.signal) == ("exited", 137, 9)
        assert (status.created_at, status.started_at) == (1.0, 2.0) and status.finished_at > 2.0
    assert "state.json" not in os.listdir(disk)
