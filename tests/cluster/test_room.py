"""A disk without room is told before it hurts: by `up`, by `status`, and by /readyz."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from sampan.base.errors import SampanError
from sampan.cluster import room
from sampan.cluster.paths import Paths
from sampan.store.segments import SPARE

MB = 1 << 20


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """(paths of a cluster, a function that says how many bytes are free)"""
    paths = Paths("a", tmp_path, tmp_path / "run", tmp_path / "images")
    paths.store.mkdir()

    def free(count):
        status = SimpleNamespace(f_bavail=count // 4096, f_frsize=4096)
        monkeypatch.setattr(os, "statvfs", lambda path: status)

    return paths, free


def test_a_new_store_needs_a_segment_an_old_one_has_it(disk):
    paths, free = disk
    free(32 * MB)
    room.check(paths)
    free(10 * MB)
    with pytest.raises(SampanError, match="the disk has no room for the cluster") as caught:
        room.check(paths)
    assert caught.value.hint == f"free 11 MB on the file system of {paths.data}"
    (paths.store / "0000000000000001.log").touch()
    room.check(paths)
    free(1 * MB)
    with pytest.raises(SampanError):
        room.check(paths)


def test_the_warning_ends_when_there_is_room_or_a_next_segment(disk):
    paths, free = disk
    free(64 * MB)
    assert room.warning(paths) == ""
    free(0)
    assert "the disk is nearly full" in room.warning(paths) and "free 21 MB on" in room.warning(paths)
    assert "free 21 MB on" in room.refused(paths).hint
    (paths.store / SPARE).touch()
    assert room.warning(paths) == ""
