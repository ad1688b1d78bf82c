"""A snapshot holds every object at one moment, so that the segments before it can go and starting stays fast.

Written by a thread in small steps from pinned items (their bytes never change), then synced and renamed into place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from sampan.store.frames import Corrupt, Record, end_of, frame, frame_at, record_of_item, records
from sampan.store.protocol import Item
from sampan.store.segments import sync_directory

_STEP = 128  # items encoded before other threads get their turn
_PAUSE = 0.001  # seconds
_SYNC = 8 << 20  # bytes between syncs, so that the log's own never waits for all of it


@dataclass(slots=True)
class Snapshot:
    """`sequence`: the last frame whose records are in it. `ceiling`: revisions up to it are reserved."""

    revision: int
    sequence: int
    ceiling: int
    buckets: Sequence[tuple[str, Sequence[Item]]]


def write(directory: Path, snapshot: Snapshot, stop: threading.Event) -> int:
    """Returns the bytes written; 0 if `stop` was set meanwhile. Older snapshots are removed."""
    path = directory / f"{snapshot.revision:016x}.snapshot"
    making = directory / "snapshot.tmp"
    head = {
        "revision": snapshot.revision,
        "sequence": snapshot.sequence,
        "ceiling": snapshot.ceiling,
        "items": sum(len(items) for _, items in snapshot.buckets),
    }
    size = unsynced = 0
    with open(making, "wb", buffering=0) as file:
        os.chmod(making, 0o600)
        for number, chunk in enumerate(_chunks(snapshot, orjson.dumps(head))):
            data = frame(number, chunk)
            file.write(data)
            size += len(data)
            unsynced += len(data)
            if unsynced > _SYNC:
                os.fdatasync(file.fileno())
                unsynced = 0
            if stop.wait(_PAUSE):
                return 0
        os.fsync(file.fileno())
    making.rename(path)
    sync_directory(directory)
    for old in directory.glob("*.snapshot"):
        if old != path:
            old.unlink()
    return size


def _chunks(snapshot: Snapshot, head: bytes) -> Iterator[list[bytes]]:
    yield [head]
    for bucket, items in snapshot.buckets:
        for first in range(0, len(items), _STEP):
            yield [record_of_item(bucket, item) for item in items[first : first + _STEP]]


class Reader:
    """The newest snapshot of a directory; of an empty one, when there is none."""

    def __init__(self, directory: Path) -> None:
        found = sorted(directory.glob("*.snapshot"))
        self._path = found[-1] if found else None
        self._data = self._path.read_bytes() if self._path else b""
        self._offset = 0
        head = (
            orjson.loads(self._frame())
            if self._path
            else {"revision": 1, "sequence": 0, "ceiling": 0, "items": 0}
        )
        self.revision: int = head["revision"]
        self.sequence: int = head["sequence"]
        self.ceiling: int = head["ceiling"]
        self.size = len(self._data)
        self._items: int = head["items"]

    def __iter__(self) -> Iterator[Record]:
        """Raises Corrupt when it is not whole: it was synced before it got its name."""
        left = self._items
        while left > 0:
            for record in records(self._frame()):
                left -= 1
                yield record
        self._data = b""

    def _frame(self) -> bytes:
        found = frame_at(self._data, self._offset)
        if found is None:
            assert self._path is not None
            raise Corrupt(self._path, self._offset, "bad checksum in a snapshot")
        self._offset = end_of(found)
        return found.payload
