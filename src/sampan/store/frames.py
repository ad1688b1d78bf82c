"""The form of what is on disk: frames with a checksum, each one commit, each holding the records of its writers.

    frame  = magic, length of payload, crc32 of (sequence, payload), sequence, payload = record*
    record = op, slot, revision, created, four lengths, bucket, key, labels and fields as JSON, value

A frame is written and synced as one; the next begins only when it is on disk. So a bad frame with a good one behind it
is damage, and a bad one at the very end is a commit that a crash cut off, which nobody was told of.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from sampan.base.errors import SampanError
from sampan.base.interning import shared
from sampan.store.protocol import Change, Item

FORMAT = 1

PUT, DELETE, RESERVE = 1, 2, 3

_MAGIC = b"\xffSF\xfe"  # never part of UTF-8, so never part of a stored value
_FRAME = struct.Struct("<4sIIQ")
_SEQUENCE = struct.Struct("<Q")
_RECORD = struct.Struct("<BIQQHHII")


class Record(NamedTuple):
    """One write. Of a reservation only `revision` counts: nothing up to it will be given again."""

    op: int
    revision: int
    bucket: str = ""
    item: Item | None = None  # for PUT
    key: str = ""


class Frame(NamedTuple):
    """What was made durable at once, as it lies in a file. `sequence` is one more than that of the frame before."""

    offset: int
    sequence: int
    payload: bytes


class Corrupt(SampanError):
    """Data that was acknowledged cannot be read."""

    def __init__(self, path: Path, offset: int, why: str) -> None:
        super().__init__(
            f"the store is damaged: {path} at offset {offset}: {why}",
            "restore the directory from a copy; a file system check may find the cause",
        )


def record_of(bucket: str, change: Change) -> bytes:
    """The record of a change that a store made."""
    item = change.item
    if item is None:
        return _record(DELETE, 0, change.revision, 0, bucket, change.key, b"", b"")
    return record_of_item(bucket, item)


def record_of_item(bucket: str, item: Item) -> bytes:
    projections = orjson.dumps([item.labels, item.fields]) if item.labels or item.fields else b""
    return _record(PUT, item.slot, item.revision, item.created, bucket, item.key, projections, item.value)


def reservation(ceiling: int) -> bytes:
    return _record(RESERVE, 0, ceiling, 0, "", "", b"", b"")


def _record(
    op: int, slot: int, revision: int, created: int, bucket: str, key: str, projections: bytes, value: bytes
) -> bytes:
    where, what = bucket.encode(), key.encode()
    head = _RECORD.pack(op, slot, revision, created, len(where), len(what), len(projections), len(value))
    return b"".join((head, where, what, projections, value))


def frame(sequence: int, records: Iterable[bytes]) -> bytes:
    """The bytes of one frame, which is what a sync makes durable. Its checksum covers the number, too."""
    payload = b"".join(records)
    crc = zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence)))
    return _FRAME.pack(_MAGIC, len(payload), crc, sequence) + payload


def records(payload: bytes) -> Iterator[Record]:
    """The records of one frame's payload, in order; its checksum has been checked."""
    offset = 0
    while offset < len(payload):
        op, slot, revision, created, b, k, p, v = _RECORD.unpack_from(payload, offset)
        offset += _RECORD.size
        bucket = payload[offset : offset + b].decode()
        key = payload[offset + b : offset + b + k].decode()
        offset += b + k
        if op != PUT:
            yield Record(op, revision, bucket, None, key)
            continue
        labels, fields = orjson.loads(payload[offset : offset + p]) if p else ({}, {})
        value = payload[offset + p : offset + p + v]
        offset += p + v
        item = Item(key, revision, value, shared(labels), shared(fields), created, slot)
        yield Record(op, revision, bucket, item, key)


def frame_at(data: bytes, offset: int) -> Frame | None:
    """The frame that begins at `offset`, if a whole and good one does."""
    if offset + _FRAME.size > len(data):
        return None
    magic, length, crc, sequence = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if magic != _MAGIC or start + length > len(data):
        return None
    payload = data[start : start + length]
    if zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence))) != crc:
        return None
    return Frame(offset, sequence, payload)


def length_at(data: bytes | bytearray, offset: int) -> int:
    """How long the frame at `offset` says it is; 0 when its head has not come yet. Raises ValueError: no frame."""
    if offset + _FRAME.size > len(data):
        return 0
    magic, length, _, _ = _FRAME.unpack_from(data, offset)
    if magic != _MAGIC:
        raise ValueError("no frame begins here")
    return _FRAME.size + int(length)


def end_of(found: Frame) -> int:
    return found.offset + _FRAME.size + len(found.payload)


def later_frame(data: bytes, offset: int) -> int:
    """Where a good frame begins behind a bad one at `offset`; -1 if there is none."""
    candidate = data.find(_MAGIC, offset + 1)
    while candidate >= 0 and frame_at(data, candidate) is None:
        candidate = data.find(_MAGIC, candidate + 1)
    return candidate
