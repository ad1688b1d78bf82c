"""A full disk takes away the log, never the processes that write to it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("code", "ends_with"),
    [
        ("from sampan.cluster import supervisor; supervisor.log('a line')", 0),
        ("from sampan.node.native import init; init._log('a line')", 0),
        ("from sampan.store import open; open._end(OSError(28, 'No space left on device'))", 74),
    ],
)
def test_what_cannot_be_logged_is_lost(code, ends_with):
    with open("/dev/full", "wb") as full:
        assert subprocess.run([sys.executable, "-c", code], stderr=full).returncode == ends_with
