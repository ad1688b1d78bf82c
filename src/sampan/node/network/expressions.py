"""nftables expressions as the kernel reads them: the words of which rules are made.

A rule is a list of expressions that pass values in sixteen 32-bit registers, here numbered from 0. Several fields in
neighbouring registers make a concatenated key. Numbers are from linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from sampan.node.network.netlink import attribute, be32, be64, nested, text, u8

ACCEPT, DROP = 1, 0
_JUMP, _GOTO, _RETURN = -3, -4, -5
EQUAL, NOT_EQUAL = 0, 1
NEW, ESTABLISHED_OR_RELATED = 8, 2 | 4  # bits of `ct state`
DNATED = 0x20  # bit of `ct status`
LOCAL = 2  # RTN_LOCAL, as fib gives it
TCP, UDP, SCTP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, 132

_EXPRESSION, _NAME, _DATA = 1, 1, 2
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the two IP versions: `words` are registers an address fills, offsets are in the header."""

    number: int
    words: int
    source_offset: int
    destination_offset: int
    type_id: int  # nft's number of the address type, for `nft list`
    port_unreachable: int  # ICMP code

    @property
    def size(self) -> int:
        return self.words * 4

    @property
    def version(self) -> int:
        return 4 if self.words == 1 else 6


IPV4 = Family(2, 1, 12, 16, 7, 3)
IPV6 = Family(10, 4, 8, 24, 8, 4)
FAMILIES = (IPV4, IPV6)


def _register(number: int) -> int:
    return 8 + number  # NFT_REG32_00


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(_EXPRESSION, text(_NAME, name), nested(_DATA, *attributes))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def saddr(family: Family, register: int) -> bytes:
    return _payload(_NETWORK_HEADER, family.source_offset, family.size, register)


def daddr(family: Family, register: int) -> bytes:
    return _payload(_NETWORK_HEADER, family.destination_offset, family.size, register)


def dport(register: int) -> bytes:
    """Destination port of TCP, UDP and SCTP alike."""
    return _payload(_TRANSPORT_HEADER, 2, 2, register)


def _payload(base: int, offset: int, length: int, register: int) -> bytes:
    return _expression(
        "payload", be32(1, _register(register)), be32(2, base), be32(3, offset), be32(4, length)
    )


def _meta(key: int, register: int) -> bytes:
    return _expression("meta", be32(2, key), be32(1, _register(register)))


def mark(register: int) -> bytes:
    return _meta(3, register)


def l4proto(register: int) -> bytes:
    return _meta(16, register)


def oifname(register: int) -> bytes:
    """The name of the outgoing interface: sixteen bytes, four registers."""
    return _meta(7, register)


def iifname(register: int) -> bytes:
    return _meta(6, register)


def set_mark(register: int) -> bytes:
    return _expression("meta", be32(2, 3), be32(3, _register(register)))


def ct_state(register: int) -> bytes:
    return _expression("ct", be32(1, _register(register)), be32(2, 0))


def ct_status(register: int) -> bytes:
    return _expression("ct", be32(1, _register(register)), be32(2, 2))


def ct_mark(register: int) -> bytes:
    return _expression("ct", be32(1, _register(register)), be32(2, 3))


def fib_daddr_type(register: int) -> bytes:
    return _expression("fib", be32(1, _register(register)), be32(2, 3), be32(3, 2))


def fib_saddr_type(register: int) -> bytes:
    return _expression("fib", be32(1, _register(register)), be32(2, 3), be32(3, 1))


def immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", be32(1, _register(register)), _value(2, data))


def compare(register: int, data: bytes, operator: int = EQUAL) -> bytes:
    return _expression("cmp", be32(1, _register(register)), be32(2, operator), _value(3, data))


def bitwise(register: int, mask: bytes) -> bytes:
    """register = register & mask"""
    place = be32(1, _register(register)) + be32(2, _register(register)) + be32(3, len(mask))
    return _expression("bitwise", place, _value(4, mask), _value(5, bytes(len(mask))))


def has_bits(register: int, bits: int) -> bytes:
    """Goes on if any of the bits is set in a 32-bit value of the machine's byte order (marks, ct state)."""
    return bitwise(register, struct.pack("=I", bits)) + compare(register, bytes(4), NOT_EQUAL)


def within(family: Family, register: int, network: bytes, prefix: int, operator: int = EQUAL) -> bytes:
    """Goes on if the address in the register is (NOT_EQUAL: is not) in the network; spoils the register."""
    mask = ((1 << family.size * 8) - (1 << family.size * 8 - prefix)).to_bytes(family.size, "big")
    return bitwise(register, mask) + compare(register, network, operator)


def random(register: int, modulus: int, offset: int = 0) -> bytes:
    """A number in [offset, offset + modulus), in the machine's byte order."""
    return _expression("numgen", be32(1, _register(register)), be32(2, modulus), be32(3, 1), be32(4, offset))


def lookup(name: str, key: int, result: int | None = None) -> bytes:
    """Goes on if the key is in the set; a map's value goes to register `result`."""
    place = be32(3, _register(result)) if result is not None else b""
    return _expression("lookup", text(1, name), be32(2, _register(key)), place)


def lookup_verdict(name: str, key: int) -> bytes:
    """Does what the verdict map says about the key; goes on when it says nothing."""
    return _expression("lookup", text(1, name), be32(2, _register(key)), be32(3, 0))


def remember(name: str, key: int, value: int, timeout: float = 0) -> bytes:
    """Puts key -> value into a dynamic map, or renews its timeout (seconds); goes on only if there was room."""
    place = be32(4, _register(key)) + be32(5, _register(value))
    limit = be64(6, int(timeout * 1000)) if timeout else b""
    return _expression("dynset", text(1, name), be32(3, 1), place, limit)


def forget(name: str, key: int, value: int) -> bytes:
    """Takes the key out of a dynamic map; `value` is the register with its value. (Renewing would keep that.)"""
    return _expression(
        "dynset", text(1, name), be32(3, 2), be32(4, _register(key)), be32(5, _register(value))
    )


def dnat(family: Family, address: int, port: int) -> bytes:
    """Sends the connection to the address and port in these registers. Ends the rule."""
    return _expression(
        "nat", be32(1, 1), be32(2, family.number), be32(3, _register(address)), be32(5, _register(port))
    )


def redirect(port: int) -> bytes:
    """Sends the connection to a port of this machine, given in a register."""
    return _expression("redir", be32(1, _register(port)))


def counter() -> bytes:
    """Counts the packets that come here."""
    return _expression("counter")


def masquerade() -> bytes:
    """The source becomes this machine's address, with a port chosen wholly at random (NF_NAT_RANGE 0x10)."""
    return _expression("masq", be32(1, 0x10))


def reject_tcp() -> bytes:
    return _expression("reject", be32(1, 1), u8(2, 0))


def reject_icmp(family: Family) -> bytes:
    return _expression("reject", be32(1, 0), u8(2, family.port_unreachable))


class Verdict(bytes):
    """An encoded verdict, as data of a verdict map's element."""


def _verdict(code: int, chain: str = "") -> Verdict:
    return Verdict(nested(2, be32(1, code), text(2, chain) if chain else b""))


def goto(chain: str) -> Verdict:
    return _verdict(_GOTO, chain)


def jump(chain: str) -> Verdict:
    return _verdict(_JUMP, chain)


def then(verdict: Verdict) -> bytes:
    """Ends a rule with a verdict."""
    return _expression("immediate", be32(1, 0), nested(2, verdict))


RETURN = _verdict(_RETURN)
DROPPED = _verdict(DROP)
ACCEPTED = _verdict(ACCEPT)
