"""A backup: everything a store holds at one revision, as a stream of frames that says when it is whole.

The form is that of snapshots (`frames`): a head as JSON, then records; what stays out of the Log stays out of this, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from sampan.store.frames import Record, frame, frame_at, length_at, record_of_item, records
from sampan.store.protocol import Draft, Item, Store

FORMAT = 1
_STEP = 128  # items of a frame
_LEFT_OUT = ("leases.coordination.k8s.io", "kube-node-lease/")  # heartbeats


class Unreadable(Exception):
    """The bytes are no whole backup."""


def pieces(store: Store, **head: object) -> Iterator[bytes]:
    """Frames of what is visible now: items are pinned at the first step, whatever is written meanwhile."""
    found = [(bucket, store.list(bucket).items) for bucket in store.buckets()]
    kept = [(bucket, [i for i in items if _lasts(bucket, i)]) for bucket, items in found]
    count = sum(len(items) for _, items in kept)
    yield frame(0, [orjson.dumps({"format": FORMAT, "revision": store.revision, "items": count, **head})])
    number = 0
    for bucket, items in kept:
        for first in range(0, len(items), _STEP):
            number += 1
            yield frame(number, [record_of_item(bucket, i) for i in items[first : first + _STEP]])


def _lasts(bucket: str, item: Item) -> bool:
    return bucket != _LEFT_OUT[0] or not item.key.startswith(_LEFT_OUT[1])


def draft_of(item: Item) -> Draft:
    """The item made ready to be written again, at whatever revision."""
    rest = item.value[item.slot + len(str(item.revision)) :]
    return Draft(item.value[: item.slot] + rest, item.slot, item.labels, item.fields)


class Reader:
    """Takes the bytes as they come. `head` is known after the first frame; `complete` when nothing is missing."""

    def __init__(self, *, keep: bool = True) -> None:
        """`keep`: hold the records; otherwise they are only checked and counted."""
        self.head: dict[str, object] = {}
        self.records: list[Record] = []
        self.count = 0
        self._keep = keep
        self._data = bytearray()
        self._number = 0

    @property
    def complete(self) -> bool:
        return bool(self.head) and self.count == self.head["items"] and not self._data

    def feed(self, data: bytes) -> None:
        """Raises Unreadable."""
        self._data += data
        offset = 0
        try:
            while (length := length_at(self._data, offset)) and offset + length <= len(self._data):
                found = frame_at(bytes(self._data[offset : offset + length]), 0)
                if found is None or found.sequence != self._number:
                    raise ValueError("bad checksum")
                self._take(found.payload)
                offset += length
        except ValueError as error:
            raise Unreadable(f"this is no backup, or it is damaged: {error}") from None
        del self._data[:offset]

    def _take(self, payload: bytes) -> None:
        self._number += 1
        if self._number > 1:
            found = list(records(payload))
            self.count += len(found)
            if self._keep:
                self.records += found
            return
        head = orjson.loads(payload)
        if not isinstance(head, dict) or not isinstance(head.get("items"), int):
            raise ValueError("its head is missing")
        if head.get("format") != FORMAT:
            raise ValueError(f"its format {head.get('format')} is not known to this version")
        self.head = head
