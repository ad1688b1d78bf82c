"""A group that was delegated to an ordinary user is found and made ready; any other is left alone."""

from __future__ import annotations

import os

import pytest

from sampan.cluster import delegation


@pytest.fixture
def tree(tmp_path):
    """(root, group, membership): files as the kernel has them, for a process in the group /session."""
    group = tmp_path / "root" / "session"
    group.mkdir(parents=True)
    for directory in (group.parent, group):
        (directory / "cgroup.controllers").write_text("cpu memory pids\n")
        (directory / "cgroup.subtree_control").write_text("")
        (directory / "cgroup.procs").write_text("41\n42\n")
    (tmp_path / "membership").write_text("0::/session\n")
    return group.parent, group, tmp_path / "membership"


def delegate(group):
    try:
        os.setxattr(group, "user.delegate", b"1")
    except OSError:
        pytest.skip("temporary files have no extended attributes here")


def test_what_was_not_delegated_is_left_alone(tree):
    root, group, membership = tree
    assert delegation.find(root, membership) is None and delegation.claim(root, membership) == ""
    assert not (group / "sampan-session").exists()


def test_a_delegated_group_is_divided(tree):
    root, group, membership = tree
    delegate(group)
    leaf = group / "sampan-session"
    leaf.mkdir()
    (leaf / "cgroup.procs").touch()
    assert delegation.claim(root, membership) == "session"
    assert (leaf / "cgroup.procs").read_text() == "42", "whoever was in it is below it"
    assert (group / "cgroup.subtree_control").read_text() == "+pids"
    membership.write_text("0::/session/sampan-session\n")
    assert delegation.find(root, membership) == group, "the next cluster of the session finds the same"


def test_without_memory_it_is_of_no_use(tree):
    root, group, membership = tree
    delegate(group)
    (group / "cgroup.controllers").write_text("cpu pids\n")
    assert delegation.find(root, membership) is None


def test_version_1_is_never_delegated(tree):
    root, group, membership = tree
    delegate(group)
    membership.write_text("5:memory:/session\n0::/\n")
    assert delegation.find(root, membership) is None
