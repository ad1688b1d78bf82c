"""Questions and answers as bytes (RFC 1035, EDNS of RFC 6891): only what a cluster's resolver needs, and fast.

An answer is made once for a question and size limit, kept as bytes, and sent again with another id.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from sampan.node.dns.zones import (
    AAAA,
    CNAME,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    SERVER,
    SOA,
    SRV,
    TXT,
    A,
    Answer,
    Name,
    Record,
    packed_name,
)

_HEADER = struct.Struct(">HHHHHH")
_RESPONSE, _AUTHORITATIVE, TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x0400, 0x0200, 0x0100
_RECURSION_AVAILABLE, _CHECKING_DISABLED = 0x0080, 0x0010
OPT = 41
_OUR_SIZE = 1232  # what fits every path without fragments (DNS flag day 2020)
_MINIMUM = 512


class Malformed(ValueError):
    """Bytes that are no DNS question."""


@dataclass(frozen=True, slots=True)
class Question:
    """`edns` is the sender's UDP size, 0 when it has none; `end` is where the question section ends."""

    id: int
    flags: int
    name: Name
    type: int
    dns_class: int
    end: int
    edns: int = 0

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 0xF

    @property
    def limit(self) -> int:
        """How large an answer by UDP may be."""
        return max(_MINIMUM, min(self.edns, _OUR_SIZE)) if self.edns else _MINIMUM


def parse(data: bytes) -> Question:
    """Raises Malformed."""
    try:
        identity, flags, questions, answers, authority, additional = _HEADER.unpack_from(data)
        if flags & _RESPONSE or questions != 1:
            raise Malformed("not one question")
        labels = []
        at = 12
        while length := data[at]:
            if length > 63:
                raise Malformed("compression in a question")
            labels.append(data[at + 1 : at + 1 + length].decode("latin-1").lower())
            at += 1 + length
        kind, dns_class = struct.unpack_from(">HH", data, at + 1)
        end = at + 5
        edns = 0
        if additional and not answers and not authority and data[end : end + 3] == b"\0\0\x29":
            edns = struct.unpack_from(">H", data, end + 3)[0]
        return Question(identity, flags, tuple(labels), kind, dns_class, end, edns)
    except (IndexError, struct.error) as error:
        raise Malformed(str(error)) from None


def _rdata(record: Record) -> bytes:
    if record.type == A:
        return socket.inet_pton(socket.AF_INET, record.data)
    if record.type == AAAA:
        return socket.inet_pton(socket.AF_INET6, record.data)
    if record.type in (CNAME, PTR, NS):
        return packed_name(record.data)
    if record.type == SRV:
        priority, weight, port, target = record.data
        return struct.pack(">HHH", priority, weight, port) + packed_name(target)
    if record.type == TXT:
        return bytes((len(record.data),)) + record.data.encode()
    raise ValueError(f"no wire form for record type {record.type}")


def soa(zone: Name, ttl: int) -> bytes:
    """The record whose last number tells how long to believe that something does not exist (RFC 2308)."""
    names = packed_name((*SERVER, *zone)) + packed_name(("hostmaster", *zone))
    data = names + struct.pack(">IIIII", 1, 7200, 1800, 86400, ttl)
    return packed_name(zone) + struct.pack(">HHIH", SOA, 1, ttl, len(data)) + data


def encode(
    query: bytes,
    question: Question,
    answer: Answer,
    *,
    zone: Name,
    ttl: int,
    limit: int,
    extra: Sequence[bytes] = (),
) -> bytes:
    """The whole answer. `extra` are further records in wire form (the rest of a CNAME chain).

    Of what is larger than `limit` come as many records as have room, with TC set: the client asks again by TCP, and
    one that cannot (musl before 1.2.4) has some addresses.
    """
    name = query[12 : question.end - 4]
    start = packed_name(question.name)

    def write(record: Record) -> bytes:
        if record.type == SOA:
            return soa(zone, ttl)
        owner = b"\xc0\x0c" if packed_name(record.name) == start else packed_name(record.name)
        data = _rdata(record)
        return owner + struct.pack(">HHIH", record.type, 1, ttl, len(data)) + data

    answers = [write(record) for record in answer.records] + list(extra)
    authority = [] if answers or answer.code not in (NOERROR, NXDOMAIN) else [soa(zone, ttl)]
    additional = [write(record) for record in answer.additional]
    options = _options(question)
    body = b"".join(answers) + b"".join(authority)
    flags = _answer_flags(question, answer.code, authoritative=True)
    fixed = 12 + len(name) + 4 + len(options)
    if fixed + len(body) > limit:
        flags |= TRUNCATED
        ends = accumulate(map(len, answers), initial=fixed)
        answers = answers[: sum(end <= limit for end in ends) - 1]
        authority, additional, body = [], [], b"".join(answers)
    elif fixed + len(body) + sum(map(len, additional)) > limit:
        additional = []
    head = _HEADER.pack(
        question.id, flags, 1, len(answers), len(authority), len(additional) + (1 if options else 0)
    )
    return head + query[12 : question.end] + body + b"".join(additional) + options


def _options(question: Question) -> bytes:
    return b"\0" + struct.pack(">HHIH", OPT, _OUR_SIZE, 0, 0) if question.edns else b""


def _answer_flags(question: Question, code: int, *, authoritative: bool) -> int:
    kept = question.flags & (0x7800 | _RECURSION_DESIRED | _CHECKING_DISABLED)
    return _RESPONSE | kept | _RECURSION_AVAILABLE | (_AUTHORITATIVE if authoritative else 0) | code


def refusal(query: bytes, question: Question, code: int) -> bytes:
    """An answer that only has a code (SERVFAIL, NOTIMP, REFUSED)."""
    options = _options(question)
    flags = _answer_flags(question, code, authoritative=False)
    head = _HEADER.pack(question.id, flags, 1, 0, 0, 1 if options else 0)
    return head + query[12 : question.end] + options


def code_of(answer: bytes) -> int:
    return answer[3] & 0xF


def is_truncated(answer: bytes) -> bool:
    return bool(answer[2] & 0x02)


# Answers of others

ANSWER, AUTHORITY, ADDITIONAL = 0, 1, 2
_NAMED = (NS, CNAME, PTR)  # types whose data is one name
_MX = 15


class Found(NamedTuple):
    """A record in an answer: its data are the bytes from `start` to `end`."""

    section: int
    name: bytes  # uncompressed
    type: int
    dns_class: int
    ttl: int
    start: int
    end: int


def records(answer: bytes) -> Iterator[Found]:
    """All records of an answer. Raises Malformed."""
    try:
        _, _, questions, *counts = _HEADER.unpack_from(answer)
        at = 12
        for _ in range(questions):
            at = read_name(answer, at)[1] + 4
        for section, count in enumerate(counts):
            for _ in range(count):
                name, at = read_name(answer, at)
                kind, dns_class, ttl, length = struct.unpack_from(">HHIH", answer, at)
                start, at = at + 10, at + 10 + length
                if at > len(answer):
                    raise Malformed("a record goes beyond its message")
                yield Found(section, name, kind, dns_class, ttl, start, at)
    except (IndexError, struct.error) as error:
        raise Malformed(str(error)) from None


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name without compression, and where what follows it begins. Raises Malformed for one that goes in circles."""
    labels, after = bytearray(), 0
    for _ in range(128):
        length = data[at]
        if length >= 0xC0:
            after = after or at + 2
            at = struct.unpack_from(">H", data, at)[0] & 0x3FFF
        else:
            labels += data[at : at + 1 + length]
            at += 1 + length
            if not length:
                return bytes(labels), after or at
    raise Malformed("a name without end")


def uncompressed(answer: bytes, found: Found) -> bytes:
    """A record that stands alone. (Only the types of RFC 1035 may be compressed inside, RFC 3597.)"""
    data = answer[found.start : found.end]
    if found.type in _NAMED:
        data = read_name(answer, found.start)[0]
    elif found.type == _MX:
        data = data[:2] + read_name(answer, found.start + 2)[0]
    return found.name + struct.pack(">HHIH", found.type, found.dns_class, found.ttl, len(data)) + data
