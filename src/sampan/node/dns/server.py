"""The cluster's DNS on one node: UDP and TCP on the addresses given, from the node's own view of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sampan.base.clock import Clock
from sampan.base.tasks import Tasks
from sampan.client.view import CachedView
from sampan.node.dns import upstream as upstreams
from sampan.node.dns import wire
from sampan.node.dns.cache import AnswerCache
from sampan.node.dns.directory import Directory
from sampan.node.dns.upstream import Address, Upstream
from sampan.node.dns.wire import Malformed, Question
from sampan.node.dns.zones import (
    AAAA,
    CNAME,
    NOERROR,
    NOTIMP,
    REFUSED,
    SERVFAIL,
    A,
    Answer,
    Name,
    Zones,
    packed_name,
)

log = logging.getLogger(__name__)

TTL = 5  # seconds: how long clients may keep what we say of the cluster
_AT_ONCE = 64  # datagrams answered before other tasks of the loop get their turn
_ROTATIONS = 8
_CHAIN = 8  # CNAMEs followed
_IDLE = 10.0  # seconds a TCP connection may be silent
_PENDING = 1000  # questions under way to resolvers
_LARGEST = 65535


class DnsServer:
    """Answers for `domain` and the reverse zones of `networks` (service and pod ranges); the rest it asks upstream.

    `view` follows services and endpointslices.discovery.k8s.io, and may follow namespaces. `configure` sends domains
    to other resolvers, or all that is not the cluster's.
    """

    def __init__(
        self,
        view: CachedView,
        clock: Clock,
        addresses: Sequence[str],
        upstream: Upstream | None = None,
        *,
        domain: str = "cluster.local",
        networks: Iterable[str] = ("10.96.0.0/16", "10.244.0.0/16"),
        port: int = 53,
    ) -> None:
        self._clock = clock
        self._addresses = addresses
        self._port = port
        self._machine = upstream or Upstream(upstreams.machine_resolvers(), clock)
        self._upstream = self._machine
        self._stubs: dict[Name, Upstream] = {}
        self._cache = AnswerCache()
        self._directory = Directory(view, self._cache.invalidate)
        self._zones = Zones(self._directory, domain, networks, addresses)
        self._udp: list[socket.socket] = []
        self._tcp: list[asyncio.Server] = []
        self._tasks = Tasks()
        self._pending: dict[bytes, asyncio.Task[bytes]] = {}

    @property
    def ports(self) -> list[int]:
        """The UDP ports bound, in the order of the addresses (for port 0)."""
        return [channel.getsockname()[1] for channel in self._udp]

    async def start(self) -> None:
        """Raises OSError when an address cannot be bound."""
        loop = asyncio.get_running_loop()
        try:
            for address in self._addresses:
                # TCP first: of its ports the machine has more in use, where any one is asked for (0).
                server = await asyncio.start_server(self._serve_tcp, address, self._port)
                self._tcp.append(server)
                channel = _udp_socket(address, server.sockets[0].getsockname()[1])
                self._udp.append(channel)
                loop.add_reader(channel.fileno(), self._readable, channel)
        except BaseException:
            await self.stop()
            raise

    def configure(self, stubs: Mapping[str, Sequence[Address]], upstream: Sequence[Address] = ()) -> None:
        """Resolvers by domain, and those for the rest (none: the machine's own). In force from the next question on."""
        self._stubs = {
            tuple(name.lower().strip(".").split(".")): self._machine.like(to) for name, to in stubs.items()
        }
        self._upstream = self._machine.like(upstream) if upstream else self._machine
        self._cache.clear()

    async def stop(self) -> None:
        """Closes sockets, and gives up what waits for a server upstream."""
        loop = asyncio.get_running_loop()
        for channel in self._udp:
            loop.remove_reader(channel.fileno())
            channel.close()
        for server in self._tcp:
            server.close()
        await self._tasks.cancel()
        self._udp, self._tcp = [], []
        self._directory.close()

    # UDP

    def _readable(self, channel: socket.socket) -> None:
        cache, now = self._cache, self._clock.monotonic()
        for _ in range(_AT_ONCE):
            try:
                query, peer = channel.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an earlier answer
                continue
            known = cache.get(query[2:], now)
            if known is not None:
                self._send(channel, query[:2] + known, peer)
            else:
                self._answer_udp(channel, query, peer)

    def _send(self, channel: socket.socket, answer: bytes, peer: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):  # a full buffer or an unreachable client: it asks again
            channel.sendto(answer, peer)

    def _answer_udp(self, channel: socket.socket, query: bytes, peer: tuple[Any, ...]) -> None:
        try:
            question = wire.parse(query)
            answer = self._at_once(query, question, question.limit)
        except Malformed:
            return
        except Exception:
            log.exception("answering a question")
            return
        if answer is not None:
            self._send(channel, answer, peer)
            return

        async def later() -> None:
            self._send(channel, await self._ask_upstream(query, question, tcp=False), peer)

        if len(self._tasks) < _PENDING:
            self._tasks.start(later())
        else:
            self._send(channel, wire.refusal(query, question, SERVFAIL), peer)

    # TCP

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.adopt(task)
        try:
            while True:
                async with self._clock.timeout(_IDLE):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                answer = await self.resolve(query)
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        except (EOFError, OSError, TimeoutError, Malformed):
            pass
        finally:
            writer.close()

    async def resolve(self, query: bytes) -> bytes:
        """The answer to a question in wire form, of any size. Raises Malformed."""
        question = wire.parse(query)
        answer = self._at_once(query, question, _LARGEST)
        return answer if answer is not None else await self._ask_upstream(query, question, tcp=True)

    # Answers

    def _at_once(self, query: bytes, question: Question, limit: int) -> bytes | None:
        """What we know ourselves; None when upstream must be asked."""
        if question.opcode != 0:
            return wire.refusal(query, question, NOTIMP)
        if question.dns_class != 1:
            return wire.refusal(query, question, REFUSED)
        answer = self._zones.answer(question.name, question.type)
        if answer is None:
            return None
        self._follow(answer, question.type)
        if answer.forward is not None and question.type not in (CNAME,):
            return None
        variants = [
            wire.encode(
                query, question, turned, zone=self._zones.zone_of(question.name), ttl=TTL, limit=limit
            )
            for turned in _rotations(answer)
        ]
        if limit == question.limit:
            topic = answer.topic or "fixed"
            kept = [variant[2:] for variant in variants]
            now = self._clock.monotonic()
            self._cache.put(query[2:], kept, topic=topic, expires=float("inf"), now=now)
        return variants[0]

    def _follow(self, answer: Answer, kind: int) -> None:
        """Continues a CNAME chain as long as it stays in the cluster; `forward` is then what is left to ask."""
        for _ in range(_CHAIN):
            if answer.forward is None or kind == CNAME:
                return
            target = self._zones.answer(answer.forward, kind)
            if target is None:
                return
            answer.records += target.records
            answer.code = target.code
            answer.forward = target.forward
            answer.topic = (
                answer.topic if target.topic == answer.topic else "reverse"
            )  # stale with any change
        answer.code, answer.forward = SERVFAIL, None

    def _resolver(self, name: Name) -> Upstream:
        for length in range(len(name), 0, -1):
            if name[-length:] in self._stubs:
                return self._stubs[name[-length:]]
        return self._upstream

    async def _ask_upstream(self, query: bytes, question: Question, *, tcp: bool) -> bytes:
        """One question of a kind is under way at a time; who asks the same meanwhile gets the same answer."""
        key = (b"t" if tcp else b"u") + query[2:]
        task = self._pending.get(key)
        if task is None:
            task = self._pending[key] = self._tasks.start(self._fetch(query, question, tcp))
            task.add_done_callback(lambda _: self._pending.pop(key, None))
        return query[:2] + (await asyncio.shield(task))[2:]

    async def _fetch(self, query: bytes, question: Question, tcp: bool) -> bytes:
        answer = self._zones.answer(question.name, question.type)
        if answer is not None:
            self._follow(answer, question.type)
            if answer.forward is not None:
                return await self._chain(query, question, answer, _LARGEST if tcp else question.limit)
        found = await self._resolver(question.name).ask(query, tcp=tcp)
        if found is None:
            return wire.refusal(query, question, SERVFAIL)
        seconds = upstreams.lifetime(found)
        if seconds > 0 and not tcp:
            now = self._clock.monotonic()
            self._cache.put(query[2:], [found[2:]], expires=now + seconds, now=now)
        return found

    async def _chain(self, query: bytes, question: Question, answer: Answer, limit: int) -> bytes:
        """A CNAME of ours and what upstream says of its target. Without upstream the CNAME alone is the answer."""
        assert answer.forward is not None
        header = struct.pack(">HHHHHH", 0, 0x0100, 1, 0, 0, 0)
        asked = header + packed_name(answer.forward) + struct.pack(">HH", question.type, 1)
        found = await self._resolver(answer.forward).ask(asked, tcp=limit == _LARGEST)
        code, extra = upstreams.answer_records(found) if found is not None else (NOERROR, [])
        answer.code = code
        return wire.encode(
            query,
            question,
            answer,
            zone=self._zones.zone_of(question.name),
            ttl=TTL,
            limit=limit,
            extra=extra,
        )


def _rotations(answer: Answer) -> list[Answer]:
    """The answer with another of its addresses first each time; one that has not several of them stays as it is."""
    addresses = [record for record in answer.records if record.type in (A, AAAA)]
    if len(addresses) < 2 or len(addresses) != len(answer.records):
        return [answer]
    return [
        Answer(answer.code, addresses[turn:] + addresses[:turn], answer.additional, answer.topic)
        for turn in range(min(len(addresses), _ROTATIONS))
    ]


def _udp_socket(address: str, port: int) -> socket.socket:
    channel = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        channel.bind((address, port))
        channel.setblocking(False)
    except OSError as error:
        channel.close()
        raise OSError(error.errno, f"DNS on {address}:{port}: {error.strerror}") from None
    return channel
