"""Tables, chains, sets and rules as transactions over raw nfnetlink: all of one is in force, or nothing.

Only the last message asks for an acknowledgement (one for each would overflow the socket); failures are always
reported. What a rule says is in `expressions`.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sampan.node.network import namespace
from sampan.node.network.expressions import Family, Verdict
from sampan.node.network.netlink import (
    ACK,
    APPEND,
    CREATE,
    DUMP,
    NETFILTER,
    NetlinkError,
    NetlinkSocket,
    acknowledgement,
    as_text,
    attribute,
    attribute_dict,
    attributes,
    be32,
    be64,
    messages,
    nested,
    text,
)

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE = 0, 2, 3, 5, 6, 8
_NEWSET, _DELSET, _NEWELEM, _GETELEM, _DELELEM = 9, 11, 12, 13, 14
_GETCHAIN, _GETRULE, _GETSET = 4, 7, 10
_SET_INTERVAL, _SET_MAP, _SET_TIMEOUT, _SET_EVAL, _SET_CONCAT = 0x4, 0x8, 0x10, 0x20, 0x80
_VERDICT_TYPE = 0xFFFFFF00
_ELEMENTS_A_MESSAGE = 300  # an attribute's length is 16 bits
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER = 1 << 26
_GROUP = 7  # NFNLGRP_NFTABLES
_IP_FAMILIES = (1, 2, 10)  # inet, ip, ip6
_COMMENT = 0  # kind of a note beside a rule

# nft's type numbers, so that `nft list` can print keys; "mark" stands for any 32-bit number.
PROTO, SERVICE, MARK = 12, 13, 19


@dataclass(frozen=True, slots=True)
class Set:
    """A set or map. `key` and `value` are (nft type number, bytes) of their fields; `verdicts` makes a verdict map."""

    name: str
    key: tuple[tuple[int, int], ...]
    value: tuple[tuple[int, int], ...] = ()
    verdicts: bool = False
    dynamic_size: int = 0  # filled by rules, at most so many
    timeout: int = 0  # seconds

    @property
    def key_size(self) -> int:
        return sum(size for _, size in self.key)


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook` None: reached by jump and goto only. `kind` is filter or nat."""

    name: str
    rules: Sequence[bytes] = ()
    hook: int | None = None
    priority: int = 0
    kind: str = "filter"


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain as the kernel lists it; `family` is a number (1 inet, 2 ip, 10 ip6), `policy` a verdict's code."""

    family: int
    table: str
    name: str
    policy: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as the kernel lists it: `body` is its expressions, `data` what its author noted beside them."""

    handle: int
    body: bytes
    data: bytes = b""

    def says(self, *comments: str) -> bool:
        """Whether it has one of these comments, as nft writes them or as iptables-restore does (an expression)."""
        return any(c.encode() + b"\0" in part for c in comments for part in (self.data, self.body))


class Transaction:
    """Collects changes of one table (`family` is that of its addresses); `merge` joins two tables' changes."""

    def __init__(self, family: Family, table: str) -> None:
        self._family = family.number
        self._table = text(1, table)
        self._ids = itertools.count(1)
        self.messages: list[tuple[int, int, int, bytes]] = []  # type, flags, family, body

    def __bool__(self) -> bool:
        return bool(self.messages)

    def _add(self, kind: int, flags: int, *attributes: bytes) -> None:
        self.messages.append((kind, flags, self._family, self._table + b"".join(attributes)))

    def merge(self, other: Transaction) -> Transaction:
        self.messages += other.messages
        return self

    def fresh_table(self) -> None:
        """An empty table, whatever there was."""
        self._add(_NEWTABLE, CREATE)
        self._add(_DELTABLE, 0)
        self._add(_NEWTABLE, CREATE)

    def delete_table(self) -> None:
        self._add(_NEWTABLE, CREATE)
        self._add(_DELTABLE, 0)

    def add_chain(self, chain: Chain) -> None:
        """The chain without its rules: they may point to chains and sets that come later."""
        hook = b""
        if chain.hook is not None:
            hook = nested(4, be32(1, chain.hook), be32(2, chain.priority)) + text(7, chain.kind)
        self._add(_NEWCHAIN, CREATE, text(3, chain.name), hook)

    def add_rules(self, chain: Chain) -> None:
        for rule in chain.rules:
            self._add(_NEWRULE, CREATE | APPEND, text(2, chain.name), nested(4, rule))

    def insert_rule(self, chain: str, rule: bytes, comment: str) -> None:
        """Before all others of the chain; `nft` and `iptables` show the comment."""
        noted = comment.encode() + b"\0"
        body = text(2, chain) + nested(4, rule) + attribute(7, bytes((_COMMENT, len(noted))) + noted)
        self._add(_NEWRULE, CREATE, body)

    def delete_rule(self, chain: str, handle: int) -> None:
        self._add(_DELRULE, 0, text(2, chain), be64(3, handle))

    def flush_chain(self, name: str) -> None:
        """Deletes the chain's rules."""
        self._add(_DELRULE, 0, text(2, name))

    def delete_chain(self, name: str) -> None:
        self.flush_chain(name)
        self._add(_DELCHAIN, 0, text(3, name))

    def add_set(self, spec: Set) -> None:
        """A set, or a map where the spec has values. Expects its table to be there."""
        flags, details = 0, b""
        if spec.value or spec.verdicts:
            flags |= _SET_MAP
            kind = _VERDICT_TYPE if spec.verdicts else _type_number(spec.value)
            size = 16 if spec.verdicts else sum(size for _, size in spec.value)
            details += be32(6, kind) + be32(7, size)
        if spec.dynamic_size:
            flags |= _SET_EVAL
            details += nested(9, be32(1, spec.dynamic_size))
        if spec.timeout:
            flags |= _SET_TIMEOUT
            details += be64(11, spec.timeout * 1000)
        head = text(2, spec.name) + be32(3, flags) + be32(4, _type_number(spec.key)) + be32(5, spec.key_size)
        self._add(_NEWSET, CREATE, head, details, be32(10, next(self._ids)))

    def delete_set(self, name: str) -> None:
        self._add(_DELSET, 0, text(2, name))

    def add_elements(self, name: str, elements: Mapping[bytes, bytes | None]) -> None:
        """Key -> value bytes, a Verdict, or None in a set."""
        self._elements(_NEWELEM, CREATE, name, (_element(key, value) for key, value in elements.items()))

    def delete_elements(self, name: str, keys: Iterable[bytes]) -> None:
        self._elements(_DELELEM, 0, name, (_element(key) for key in keys))

    def _elements(self, kind: int, flags: int, name: str, encoded: Iterable[bytes]) -> None:
        todo = iter(encoded)
        while part := b"".join(itertools.islice(todo, _ELEMENTS_A_MESSAGE)):
            self._add(kind, flags, text(2, name), attribute(3 | 0x8000, part))


def _type_number(fields: Sequence[tuple[int, int]]) -> int:
    number = 0
    for kind, _ in fields:
        number = number << 6 | kind
    return number


def _element(key: bytes, value: bytes | None = None) -> bytes:
    body = attribute(1 | 0x8000, attribute(1, key))
    if isinstance(value, Verdict):
        body += attribute(2 | 0x8000, value)
    elif value is not None:
        body += attribute(2 | 0x8000, attribute(1, value))
    return attribute(1 | 0x8000, body)


class NftSocket(NetlinkSocket):
    """A netfilter socket of the namespace its creating thread is in."""

    def __init__(self) -> None:
        super().__init__(NETFILTER)
        self.batch_limit = self._enlarge()

    def _enlarge(self) -> int:
        """Makes room for a whole transaction in one send; an ordinary user's is limited by net.core.wmem_max."""
        for option, fallback in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            except PermissionError:
                self.socket.setsockopt(socket.SOL_SOCKET, fallback, _BUFFER)
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 - 4096

    def commit(self, transaction: Transaction) -> None:
        """Applies all or nothing. Raises NetlinkError with the first failure.

        Where the send buffer cannot be enlarged (without root) a large transaction becomes several, in order.
        """
        todo = transaction.messages
        while todo:
            todo = self._commit_some(todo)

    def _commit_some(self, todo: list[tuple[int, int, int, bytes]]) -> list[tuple[int, int, int, bytes]]:
        frames = [self._nf_frame(_BATCH_BEGIN, 0, 0, 10)]
        first = self.sequence + 1
        size, count = 0, 0
        for _, _, _, body in todo:
            if count and size + len(body) + 20 > self.batch_limit:
                break
            size += len(body) + 20
            count += 1
        for index, (kind, flags, family, body) in enumerate(todo[:count]):
            ack = ACK if index == count - 1 else 0
            frames.append(self._nf_frame(_SUBSYSTEM | kind, flags | ack, family, 0, body))
        last = self.sequence
        frames.append(self._nf_frame(_BATCH_END, 0, 0, 10))
        self.socket.send(b"".join(frames))
        self._await_commit(first, last, todo)
        return todo[count:]

    def _await_commit(self, first: int, last: int, todo: Sequence[tuple[int, int, int, bytes]]) -> None:
        while True:
            for kind, flags, sequence, _, payload in messages(self.receive()):
                if kind != 2 or sequence < first - 1:
                    continue
                number, explanation = acknowledgement(flags, payload)
                if number:
                    what = _describe(todo[sequence - first]) if first <= sequence <= last else "transaction"
                    self._discard()
                    raise NetlinkError(number, f"nftables: {what}", explanation)
                if sequence == last:
                    return

    def _discard(self) -> None:
        """Drops the acknowledgements that follow a first failure."""
        self.socket.setblocking(False)
        try:
            while self.receive():
                pass
        except BlockingIOError:
            pass
        finally:
            self.socket.setblocking(True)

    def _nf_frame(self, kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
        return self.frame(kind, flags, struct.pack(">BBH", family, 0, resource) + body)

    def elements(self, family: Family, table: str, name: str) -> dict[bytes, bytes]:
        """Key -> value (b"" in a set; a Verdict's encoding in a verdict map). Raises OSError ENOENT."""
        body = struct.pack(">BBH", family.number, 0, 0) + text(1, table) + text(2, name)
        result = {}
        for _, payload in self.ask(_SUBSYSTEM | _GETELEM, DUMP, body, f"elements of {name}"):
            for kind, listed in attributes(payload[4:]):
                if kind == 3:
                    for _, element in attributes(listed):
                        found = attribute_dict(element)
                        value = found.get(2, b"")
                        result[attribute_dict(found[1])[1]] = attribute_dict(value).get(1, value)
        return result

    def base_chains(self, hook: int) -> list[BaseChain]:
        """Of all tables, in the order they were made; without those of the families arp, bridge and netdev."""
        answers = self.ask(_SUBSYSTEM | _GETCHAIN, DUMP, struct.pack(">BBH", 0, 0, 0), "list chains")
        found = []
        for _, payload in answers:
            chain = attribute_dict(payload[4:])
            if (
                payload[0] in _IP_FAMILIES
                and 4 in chain
                and attribute_dict(chain[4])[1] == struct.pack(">I", hook)
            ):
                policy = int.from_bytes(chain.get(5, b"\1"), "big")
                found.append(BaseChain(payload[0], as_text(chain[1]), as_text(chain[3]), policy))
        return found

    def rules(self, family: int, table: str, chain: str = "") -> list[Rule]:
        """Of a chain, or of the whole table; none when there is no such thing."""
        body = struct.pack(">BBH", family, 0, 0) + text(1, table) + (text(2, chain) if chain else b"")
        try:
            answers = self.ask(_SUBSYSTEM | _GETRULE, DUMP, body, f"rules of {table}")
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return []
            raise
        found = []
        for _, payload in answers:
            rule = attribute_dict(payload[4:])
            if not chain or as_text(rule[2]) == chain:
                found.append(Rule(int.from_bytes(rule[3], "big"), rule.get(4, b""), rule.get(7, b"")))
        return found

    def tables(self) -> set[tuple[int, str]]:
        """(family number, name) of every table."""
        answers = self.ask(_SUBSYSTEM | 1, DUMP, struct.pack(">BBH", 0, 0, 0), "list tables")
        return {(payload[0], as_text(attribute_dict(payload[4:])[1])) for _, payload in answers}


def _describe(message: tuple[int, int, int, bytes]) -> str:
    kind, _, _, body = message
    names = {
        _NEWTABLE: "add table",
        _DELTABLE: "delete table",
        _NEWCHAIN: "add chain",
        _DELCHAIN: "delete chain",
        _NEWRULE: "add rule to",
        _DELRULE: "delete rules of",
        _NEWSET: "add set",
        _DELSET: "delete set",
        _NEWELEM: "add elements to",
        _DELELEM: "delete elements of",
    }
    found = attribute_dict(body)
    field = 3 if kind in (_NEWCHAIN, _DELCHAIN) else 2
    return f"{names.get(kind, str(kind))} {as_text(found.get(field, found.get(1, b'')))}"


def connect(netns: namespace.Netns | None = None) -> NftSocket:
    """A netfilter socket of this or another namespace."""
    return namespace.run_in(netns, NftSocket)


def drop_table(family: Family, table: str, netns: namespace.Netns | None = None) -> None:
    """Deletes a table with all that is in it, if it is there."""
    with connect(netns) as nl:
        transaction = Transaction(family, table)
        transaction.delete_table()
        nl.commit(transaction)
