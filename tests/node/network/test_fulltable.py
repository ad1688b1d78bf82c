"""A full table of connections is told, and told once."""

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.base.clock import VirtualClock
from sampan.node.network import conntrack, namespace
from sampan.node.network.fulltable import FullTableWatch, dropped
from sampan.node.network.netlink import attribute, be16, be32, nested, u8

HEADER = "entries  found new invalid ignore delete insert insert_failed drop early_drop\n"


def statistics(*drops):
    return HEADER + "".join(f"0000002c 00 00 00 00 00 00 00 {number:08x} 00\n" for number in drops)


def test_drops_are_counted_over_all_processors():
    assert dropped(statistics(0, 0)) == 0
    assert dropped(statistics(16, 3)) == 19
    assert dropped("entries found\n00 00\n") == 0


async def test_a_full_table_is_told_once_a_streak(tmp_path):
    clock, told, file = VirtualClock(), [], tmp_path / "nf_conntrack"
    file.write_text(statistics(5, 0))
    watch = FullTableWatch(clock, told.append, file)
    watch.start()
    await clock.settle()
    for drops, count in ((5, 0), (9, 1), (12, 1), (12, 1), (13, 2)):
        file.write_text(statistics(drops, 0))
        await clock.advance(10)
        assert len(told) == count, drops
    assert "4 new connections dropped" in told[0]
    file.unlink()
    await clock.advance(20)
    await watch.stop()


# With the kernel: the limit is the machine's, but each namespace is counted for itself

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
PLACE, CHUNK = b"\xc6\x33\x64\xff", 1024


def connections(count: int) -> Iterator[bytes]:
    """Datagrams of ctnetlink that enter so many assured flows of UDP, each chunk from an address of its own."""
    there = b"\xcb\x00\x71\x01"

    def entry(port: int) -> bytes:
        def way(kind: int, source: bytes, target: bytes, ports: tuple[int, int]) -> bytes:
            addresses = nested(1, attribute(1, source), attribute(2, target))
            return nested(kind, addresses, nested(2, u8(1, 17), be16(2, ports[0]), be16(3, ports[1])))

        both = way(1, PLACE, there, (port, 53)) + way(2, there, PLACE, (53, port))
        body = struct.pack(">BBH", 2, 0, 0) + both + be32(3, 2 | 4 | 8) + be32(7, 600)
        return struct.pack("=IHHII", 16 + len(body), 1 << 8, 0x601, 0, 0) + body

    chunk = b"".join(entry(port) for port in range(1, CHUNK + 1))
    for number in range(0, count, CHUNK):
        yield chunk.replace(PLACE, struct.pack(">I", 0x0B000000 + number))


@pytest.mark.root
async def test_a_table_that_is_really_full(host: str, tmp_path: Path):
    limit = int(LIMIT.read_text()) if LIMIT.exists() else 0
    if not 0 < limit <= 1 << 19:
        pytest.skip("this machine's table is too large to be filled")
    tracked = "table ip t { chain o { type filter hook output priority 0; ct state new counter; }; }"
    subprocess.run(["nsenter", f"--net={host}", "nft", "-f", "-"], input=tracked, text=True, check=True)
    clock, told, file = VirtualClock(), [], tmp_path / "statistics"

    def read() -> None:
        file.write_text(namespace.run_in(host, Path("/proc/thread-self/net/stat/nf_conntrack").read_text))

    with conntrack.connect(host).socket as entered:
        for datagram in connections(limit + CHUNK):
            entered.send(datagram)
    read()
    watch = FullTableWatch(clock, told.append, file)
    watch.start()
    await clock.settle()

    def refused() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller, contextlib.suppress(PermissionError):
            caller.sendto(b"?", ("127.0.0.1", 9))

    for _ in range(20):
        namespace.run_in(host, refused)
    read()
    await clock.advance(10)
    await watch.stop()
    assert len(told) == 1 and "table full" in told[0]
