"""What of the host's firewall drops nodes' packets, on their way out or to the API, and is not ours to change: other
tables, iptables-legacy.

An accept elsewhere does not overrule a drop there, so whoever keeps those rules has to open them. Looks only.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.node.network import nftables
from sampan.node.network.nftables import FORWARD, INPUT, BaseChain, NftSocket
from sampan.node.network.passage import OURS, closes

_LOST = {FORWARD: "what nodes send out", INPUT: "what nodes ask of the API"}
_CHAINS = {FORWARD: "FORWARD", INPUT: "INPUT"}
ANY = "sampan"  # what the name of every cluster's interface begins with
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct(
    "=32sI5I5III"
)  # struct ipt_getinfo: name, hooks, their starts, their policies, entries, size
_DROPPED = -1  # a verdict as iptables stores it: minus the code, minus one
_libc = ctypes.CDLL(None, use_errno=True)
_LEGACY = (  # IP version, its tables, family and level of the socket option, the program
    (4, "ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, "iptables-legacy"),
    (6, "ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, "ip6tables-legacy"),
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """`what` drops, what is `lost` by it, and the `remedy`: a command for the interface that was asked for."""

    what: str
    lost: str
    remedy: str


def find(link: str = ANY, versions: Collection[int] = (4, 6)) -> list[Obstacle]:
    """Obstacles in the way of an interface, or of that of any cluster, in the caller's namespace.

    A chain whose table says anything about the interface counts as opened. What cannot be read is not told.
    """
    found: list[Obstacle] = []
    with contextlib.suppress(OSError), nftables.connect() as nl:
        for hook in _LOST:
            found += _foreign(nl, hook, link, versions)
    for version, tables, family, level, program in _LEGACY:
        if version in versions:
            with contextlib.suppress(OSError):
                found += _legacy(Path("/proc/net") / tables, family, level, program, link)
    return found


def shut(ports: Collection[tuple[str, int]]) -> list[Obstacle]:
    """Chains that drop what comes in, and say nothing of these ports ("tcp" or "udp", number) for other machines."""
    found: list[Obstacle] = []
    with contextlib.suppress(OSError), nftables.connect() as nl:
        for chain in nl.base_chains(INPUT):
            if not closes(chain.policy, nl.rules(chain.family, chain.table, chain.name)):
                continue
            rules = b"".join(rule.body for rule in nl.rules(chain.family, chain.table))
            left = [entry for entry in ports if struct.pack(">H", entry[1]) not in rules]
            if left:
                what = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
                found.append(Obstacle(what, "what other machines send", _opening(chain, left)))
    return found


def _opening(chain: BaseChain, ports: Collection[tuple[str, int]]) -> str:
    """The command that lets ports in, in the words of whoever keeps the chain."""
    if chain.table == "firewalld":
        words = " ".join(f"--add-port={port}/{protocol}" for protocol, port in ports)
        return f"firewall-cmd --permanent {words} && firewall-cmd --reload"
    if chain.table == OURS[INPUT][0] and shutil.which("ufw"):
        return "; ".join(f"ufw allow {port}/{protocol}" for protocol, port in ports)
    place = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
    return "nft '" + "; ".join(f"insert rule {place} {p} dport {n} accept" for p, n in ports) + "'"


def mentions(rules: bytes, link: str) -> bool:
    """Whether rules, as the kernel gives them, name the interface or (`sampan*`, `sampan+`) all of ours."""
    return link.encode() in rules or ANY.encode() + b"\0" in rules


def _foreign(nl: NftSocket, hook: int, link: str, versions: Collection[int]) -> Iterator[Obstacle]:
    for chain in nl.base_chains(hook):
        relevant = {1: True, 2: 4 in versions, 10: 6 in versions}[chain.family]
        if not relevant or (chain.family != 1 and (chain.table, chain.name) == OURS[hook]):
            continue
        if not closes(chain.policy, nl.rules(chain.family, chain.table, chain.name)):
            continue
        if not mentions(b"".join(rule.body for rule in nl.rules(chain.family, chain.table)), link):
            what = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
            yield Obstacle(what, _LOST[hook], remedy(chain, link, hook))


def remedy(chain: BaseChain, link: str, hook: int = FORWARD) -> str:
    """The command that lets the interface through a chain of nftables."""
    if chain.table == "firewalld":
        name = f"{ANY}+" if link == ANY else link
        return f"firewall-cmd --permanent --zone=trusted --add-interface={name} && firewall-cmd --reload"
    name = f"{ANY}*" if link == ANY else link
    place = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
    ways = [f'insert rule {place} {way} "{name}" accept' for way in _ways(hook, "iifname", "oifname")]
    return f"nft '{'; '.join(ways)}'"


def _ways(hook: int, into: str, out: str) -> tuple[str, ...]:
    return (into, out) if hook == FORWARD else (into,)


def _legacy(tables: Path, family: int, level: int, program: str, link: str) -> Iterator[Obstacle]:
    """The table is only asked for if it is there: asking would make it."""
    if not tables.exists() or "filter" not in tables.read_text().split():
        return
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as asked:
        info = _getsockopt(asked, level, _GET_INFO, b"filter".ljust(_INFO.size, b"\0"))
        underflows, size = _INFO.unpack(info)[7:12], _INFO.unpack(info)[-1]
        head = struct.pack("=32sI4x", b"filter", size)
        entries = _getsockopt(asked, level, _GET_ENTRIES, head + bytes(size))[len(head) :]
    for hook, lost in _LOST.items():
        if _verdict(entries, underflows[hook], family) != _DROPPED or mentions(entries, link):
            continue
        chain = "DOCKER-USER" if hook == FORWARD and b"DOCKER-USER\0" in entries else _CHAINS[hook]
        name = f"{ANY}+" if link == ANY else link
        ways = [f"{program} -I {chain} {way} {name} -j ACCEPT" for way in _ways(hook, "-i", "-o")]
        yield Obstacle(f"the policy of {_CHAINS[hook]} in {program}", lost, "; ".join(ways))


def _verdict(entries: bytes, at: int, family: int) -> int:
    """Of the entry at an offset of a table (struct ipt_entry, ip6t_entry): after its match comes a standard target."""
    target: int = struct.unpack_from("=H", entries, at + (88 if family == socket.AF_INET else 140))[0]
    verdict: int = struct.unpack_from("=i", entries, at + target + 32)[0]
    return verdict


def _getsockopt(asked: socket.socket, level: int, option: int, value: bytes) -> bytes:
    """What the kernel makes of `value`; Python's own getsockopt passes nothing in. Raises OSError."""
    buffer = ctypes.create_string_buffer(value, len(value))
    length = ctypes.c_uint32(len(value))
    if _libc.getsockopt(asked.fileno(), level, option, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "read iptables-legacy's table")
    return buffer.raw
