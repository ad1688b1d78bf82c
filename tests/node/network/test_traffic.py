"""Counters of cables, seen from the pods' side."""

from __future__ import annotations

from sampan.node.network import traffic
from sampan.node.network.pod import veth_name

HEAD = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
"""


def test_what_the_node_receives_the_pod_has_sent():
    rows = (
        f"  eth0: 10 1 2 0 0 0 0 0 30 1 4 0 0 0 0 0\n{veth_name('s')}: 100 1 0 0 0 0 0 0 900 9 1 0 0 0 0 0\n"
    )
    found = traffic.by_sandbox(["s", "gone"], HEAD + rows)
    assert found == {"": (10, 2, 30, 4), "s": (900, 1, 100, 0)}


def test_the_kernels_own_file_is_understood():
    assert isinstance(traffic.by_sandbox([]), dict)
