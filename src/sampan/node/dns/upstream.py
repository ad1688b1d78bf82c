"""Names that are not the cluster's: asked of the machine's own resolvers, and remembered as long as they allow.

Every attempt has its own socket and so its own random port and id, which is what makes forged answers unlikely.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence

from sampan.base.clock import Clock
from sampan.node.dns import wire
from sampan.node.dns.wire import Malformed
from sampan.node.dns.zones import NOERROR, NXDOMAIN, SERVFAIL, SOA

_TIMEOUT = 2.0  # seconds before the next resolver is tried
_MAX_TTL, _MAX_NEGATIVE_TTL, _NO_SOA_TTL = 3600, 60, 5
_RESOLVED_STUB = "/run/systemd/resolve/resolv.conf"
Address = tuple[str, int]


def machine_resolvers(
    path: str = "/etc/resolv.conf", behind_stub: str = _RESOLVED_STUB, *, loopback: bool = False
) -> list[str]:
    """The nameservers of a machine, without those on loopback: a node's namespace has a loopback of its own.

    systemd-resolved listens on 127.0.0.53 only and keeps the real ones in a second file. `loopback` keeps them: for
    sockets that are opened in the machine's own namespace.
    """
    listed = _nameservers(path)
    if loopback:
        return list(dict.fromkeys(listed))
    if any(address.startswith("127.") or address == "::1" for address in listed):
        listed += _nameservers(behind_stub)
    return [a for a in dict.fromkeys(listed) if not a.startswith("127.") and a != "::1"]


def _nameservers(path: str) -> list[str]:
    try:
        with open(path) as file:
            fields = [line.split() for line in file]
    except OSError:
        return []
    return [f[1] for f in fields if len(f) > 1 and f[0] == "nameserver" and "%" not in f[1]]


class Upstream:
    """Resolvers to ask, in order. `open_udp` makes the socket (rootless: `network.gateway.Gateway.udp`).

    `stream`: other resolvers than these are asked by TCP alone, as UDP does not get out of a user namespace.
    """

    def __init__(
        self,
        resolvers: Iterable[str | Address],
        clock: Clock,
        *,
        open_udp: Callable[[str, int], Awaitable[socket.socket]] | None = None,
        stream: bool = False,
    ) -> None:
        self.resolvers: Sequence[Address] = [(r, 53) if isinstance(r, str) else r for r in resolvers]
        self._clock = clock
        self._open_udp = open_udp or _connected_udp
        self._stream, self._always_stream = stream, False

    def like(self, resolvers: Iterable[str | Address]) -> Upstream:
        """Other resolvers, asked in the same way."""
        made = Upstream(resolvers, self._clock, open_udp=self._open_udp)
        made._always_stream = self._stream
        return made

    async def ask(self, query: bytes, *, tcp: bool = False) -> bytes | None:
        """The first answer to a question in wire form, with the question's id; None when no resolver gave one."""
        for resolver in self.resolvers:
            identity = secrets.token_bytes(2)
            asking = self._by_tcp if tcp or self._always_stream else self._by_udp
            try:
                async with self._clock.timeout(_TIMEOUT):
                    answer = await asking(identity + query[2:], resolver)
            except (OSError, TimeoutError, EOFError):
                continue
            if wire.code_of(answer) != SERVFAIL:  # another may know
                return query[:2] + answer[2:]
        return None

    async def _by_udp(self, query: bytes, resolver: Address) -> bytes:
        loop = asyncio.get_running_loop()
        with await self._open_udp(*resolver) as channel:
            channel.setblocking(False)
            await loop.sock_sendall(channel, query)
            while True:
                answer = await loop.sock_recv(channel, 65535)
                if answer[:2] == query[:2] and len(answer) >= 12 and answer[2] & 0x80:
                    return answer

    async def _by_tcp(self, query: bytes, resolver: Address) -> bytes:
        reader, writer = await asyncio.open_connection(*resolver)
        try:
            writer.write(struct.pack(">H", len(query)) + query)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()


async def _connected_udp(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    channel = socket.socket(family, socket.SOCK_DGRAM)
    try:
        channel.connect((address, port))
    except BaseException:
        channel.close()
        raise
    return channel


def lifetime(answer: bytes) -> int:
    """For how many seconds an answer may be reused: its least TTL, or what its SOA says of a negative one (RFC 2308)."""
    try:
        found = list(wire.records(answer))
    except Malformed:
        return 0
    code = wire.code_of(answer)
    if wire.is_truncated(answer) or code not in (NOERROR, NXDOMAIN):
        return 0
    if code == NOERROR and (ttls := [record.ttl for record in found if record.section == wire.ANSWER]):
        return min(_MAX_TTL, *ttls)
    for record in found:
        if record.type == SOA and record.section == wire.AUTHORITY:
            (minimum,) = struct.unpack_from(">I", answer, record.end - 4)
            return min(_MAX_NEGATIVE_TTL, record.ttl, minimum)
    return _NO_SOA_TTL


def answer_records(answer: bytes) -> tuple[int, list[bytes]]:
    """(code, the answer section's records, uncompressed) so that they can follow a CNAME of ours."""
    try:
        found = [record for record in wire.records(answer) if record.section == wire.ANSWER]
        return wire.code_of(answer), [wire.uncompressed(answer, record) for record in found]
    except Malformed:
        return SERVFAIL, []
