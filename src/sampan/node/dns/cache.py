"""Answers as bytes, found by the question's bytes: what makes a Python resolver answer fifty thousand times a second.

An answer about the cluster lives until what it is about changes; one from upstream as long as its TTL, which counts
down. Of several addresses each answer begins with another, as callers mostly take the first.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sampan.node.dns import wire

_SIZE = 16384


class Entry:
    """`variants` are whole answers without their id; they are given in turn."""

    __slots__ = ("expires", "made", "offsets", "topic", "turn", "variants")

    def __init__(self, variants: list[bytes], topic: str, expires: float, made: float) -> None:
        self.variants = variants
        self.topic = topic
        self.expires = expires
        self.made = made
        self.offsets: Sequence[int] | None = None
        self.turn = 0


class AnswerCache:
    """Keys are a question without its id (and without anything else that differs between equal questions)."""

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._entries: dict[bytes, Entry] = {}
        self._topics: dict[str, set[bytes]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> bytes | None:
        """An answer without its id, or None; of several addresses another one is first each time. `now`: monotonic seconds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires:
            self._drop(key)
            return None
        if not entry.topic and now - entry.made >= 1.0:
            self._age(entry, now)
        variants = entry.variants
        if len(variants) == 1:
            return variants[0]
        entry.turn = turn = (entry.turn + 1) % len(variants)
        return variants[turn]

    def put(self, key: bytes, variants: list[bytes], *, topic: str = "", expires: float, now: float) -> None:
        """`topic` "" is an answer from upstream, which ages."""
        if len(self._entries) >= self._size:
            self._drop(next(iter(self._entries)))
        self._entries[key] = Entry(variants, topic, expires, now)
        if topic:
            self._topics[topic].add(key)

    def invalidate(self, topics: Iterable[str]) -> None:
        """Something changed that answers about these topics were made of."""
        for topic in topics:
            for key in self._topics.pop(topic, ()):
                self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
        self._topics.clear()

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        if entry.topic:
            keys = self._topics[entry.topic]
            keys.discard(key)
            if not keys:
                del self._topics[entry.topic]

    def _age(self, entry: Entry, now: float) -> None:
        if entry.offsets is None:
            entry.offsets = ttl_offsets(entry.variants[0])
        seconds = int(now - entry.made)
        entry.made += seconds
        entry.variants = [aged(variant, entry.offsets, seconds) for variant in entry.variants]


def ttl_offsets(answer: bytes) -> list[int]:
    """Where the TTLs of all records are (that of OPT is none), in an answer without its id."""
    return [record.start - 8 for record in wire.records(b"\0\0" + answer) if record.type != wire.OPT]


def aged(answer: bytes, offsets: Sequence[int], seconds: int) -> bytes:
    """The answer as it is some seconds later."""
    changed = bytearray(answer)
    for offset in offsets:
        (ttl,) = struct.unpack_from(">I", changed, offset)
        struct.pack_into(">I", changed, offset, max(0, ttl - seconds))
    return bytes(changed)
