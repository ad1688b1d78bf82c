"""The netlink protocol itself: messages, attributes, acknowledgements, dumps.

`rtnetlink`, `nftables` and `conntrack` are vocabularies on top of it. Sockets are blocking: the kernel answers a
request inside `send`, so a call takes microseconds, but it may wait for a kernel lock: callers use a thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

ROUTE, NETFILTER = 0, 12  # NETLINK_ROUTE, NETLINK_NETFILTER

REQUEST, ACK, DUMP_INTERRUPTED = 0x1, 0x4, 0x10
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP = 0x300

_NOOP, _ERROR, _DONE = 1, 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_CAPPED, _ACK_TLVS = 0x100, 0x200
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port


class NetlinkError(OSError):
    """The kernel refused a message; `what` names it, and the text has the kernel's own explanation if it gave one."""

    def __init__(self, number: int, what: str, explanation: str = "") -> None:
        text = os.strerror(number)
        super().__init__(number, f"{what}: {text}" + (f" ({explanation})" if explanation else ""))
        self.what = what


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `tolerate` are errno values that mean the wanted state is there already."""

    type: int
    flags: int
    body: bytes
    what: str = ""
    tolerate: tuple[int, ...] = ()


def attribute(kind: int, data: bytes) -> bytes:
    """A type-length-value attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def be16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">H", value))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">Q", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (type, value) pairs of a message body or of a nested attribute."""
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def attribute_dict(data: bytes) -> dict[int, bytes]:
    return dict(attributes(data))


def as_text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(type, flags, sequence, port, payload) of each message in a datagram."""
    at, end = 0, len(data)
    while at + 16 <= end:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, at)
        if length < 16:
            return
        yield kind, flags, sequence, port, data[at + 16 : at + length]
        at += (length + 3) & ~3


class NetlinkSocket:
    """A netlink socket of the namespace its creating thread is in. Not for use by two threads at once."""

    def __init__(self, protocol: int, groups: int = 0) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self.socket.bind((0, groups))
            for option in (_CAP_ACK, _EXT_ACK):
                self.socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self.socket.close()
            raise
        self.port = self.socket.getsockname()[0]
        self._sequence = 0

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def frame(self, kind: int, flags: int, body: bytes) -> bytes:
        """Encodes one message under the next sequence number (`self.sequence` afterwards)."""
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        return _HEADER.pack(16 + len(body), kind, flags | REQUEST, self._sequence, 0) + body

    @property
    def sequence(self) -> int:
        return self._sequence

    def receive(self) -> bytes:
        """One datagram. Raises OSError ENOBUFS when the kernel had to drop some."""
        return self.socket.recv(1 << 20)

    def run(self, *requests: Message) -> None:
        """Sends the messages together and waits until each is acknowledged.

        All are tried; then the first that failed with an errno outside its `tolerate` raises NetlinkError.
        """
        first = self._sequence + 1
        self.socket.send(b"".join(self.frame(m.type, m.flags | ACK, m.body) for m in requests))
        waiting = len(requests)
        failure: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, _, payload in messages(self.receive()):
                if kind != _ERROR or not 0 <= sequence - first < len(requests):
                    continue
                waiting -= 1
                request = requests[sequence - first]
                number, explanation = acknowledgement(flags, payload)
                if number and number not in request.tolerate and failure is None:
                    failure = NetlinkError(
                        number, request.what or f"netlink message {request.type}", explanation
                    )
        if failure:
            raise failure

    def ask(self, kind: int, flags: int, body: bytes, what: str = "") -> list[tuple[int, bytes]]:
        """A get or a dump: (type, payload) of all answers. A dump that was interrupted by a change is repeated."""
        while True:
            answers, interrupted = self._ask(kind, flags, body, what)
            if not interrupted:
                return answers

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> tuple[list[tuple[int, bytes]], bool]:
        self.socket.send(self.frame(kind, flags | (0 if flags & DUMP else ACK), body))
        mine = self._sequence
        answers: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for answer, answer_flags, sequence, _, payload in messages(self.receive()):
                if sequence != mine:
                    continue
                interrupted = interrupted or bool(answer_flags & DUMP_INTERRUPTED)
                if answer == _ERROR:
                    number, explanation = acknowledgement(answer_flags, payload)
                    if number:
                        raise NetlinkError(number, what or f"netlink query {kind}", explanation)
                    return answers, interrupted
                if answer == _DONE:
                    number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if number > 0 and number != errno.EINTR:
                        raise NetlinkError(number, what or f"netlink dump {kind}")
                    return answers, interrupted or number == errno.EINTR
                if answer != _NOOP:
                    answers.append((answer, payload))


def acknowledgement(flags: int, payload: bytes) -> tuple[int, str]:
    """(errno or 0, the kernel's explanation) of an NLMSG_ERROR payload."""
    number = -struct.unpack_from("=i", payload)[0]
    explanation = ""
    if flags & _ACK_TLVS:
        original = struct.unpack_from("=I", payload, 4)[0]
        start = 20 if flags & _CAPPED else 4 + ((original + 3) & ~3)
        explanation = as_text(attribute_dict(payload[start:]).get(1, b""))
    return number, explanation


def errors(frames: Iterable[bytes]) -> Iterator[tuple[int, int, str]]:
    """(sequence, errno or 0, explanation) of the acknowledgements in some datagrams."""
    for datagram in frames:
        for kind, flags, sequence, _, payload in messages(datagram):
            if kind == _ERROR:
                yield sequence, *acknowledgement(flags, payload)
