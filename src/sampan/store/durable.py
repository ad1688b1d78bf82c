"""The durable store: the multi-version cache over the embedded log, filled from disk when it opens.

Source of the order on disk: a frame is synced before the next begins; a snapshot is renamed into place before the
segments it replaces go. So at any moment a crash leaves a whole snapshot and every frame after it.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from sampan.base.clock import Clock
from sampan.base.errors import SampanError
from sampan.store import snapshot
from sampan.store.cache import HISTORY_AGE, HISTORY_COUNT, VersionedStore, deletion
from sampan.store.frames import DELETE, FORMAT, PUT, Corrupt, end_of, frame_at, later_frame, records
from sampan.store.log import VOLATILE_BUCKET, EmbeddedLog, Listener, volatile
from sampan.store.protocol import Change, Item
from sampan.store.segments import SIZE, Segment, Segments, number_of, sync_directory

_COMPACT = 64 << 20  # bytes of log that are worth a snapshot

log = logging.getLogger(__name__)


class DurableStore(VersionedStore):
    """Objects in a directory. `segment` and `compact` are sizes in bytes, for tests."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        on_fatal: Callable[[BaseException], None],
        history: int = HISTORY_COUNT,
        age: float = HISTORY_AGE,
        segment: int = SIZE,
        compact: int = _COMPACT,
    ) -> None:
        self._path = path
        self._lock = _claim(path)
        self._compact_at = compact
        self._since_snapshot = 0  # bytes of log
        self._snapshot_size = 0
        self._compacting: threading.Thread | None = None
        self._stop = threading.Event()
        self._segments = Segments(path, segment)
        self._recovered = 0
        frozen = gc.isenabled()
        gc.disable()  # it would walk everything again and again while objects are made
        try:
            super().__init__(_Nothing(), clock, history=history, age=age)
            sequence, ceiling = self._recover()
        except BaseException:
            os.close(self._lock)
            raise
        finally:
            if frozen:
                gc.enable()
        self._embedded = EmbeddedLog(self._segments, sequence=sequence, ceiling=ceiling, on_fatal=on_fatal)
        self._embedded.attach(Listener(self.durable, self.failed, self._committed))
        self._log = self._embedded

    async def close(self) -> None:
        self._stop.set()
        await super().close()
        compacting = self._compacting
        if compacting is not None:
            await asyncio.to_thread(compacting.join)
        os.close(self._lock)  # and with it the claim on the directory

    # Opening

    def _recover(self) -> tuple[int, int]:
        """Fills the cache. Returns the sequence of the last frame and the reserved ceiling. Raises Corrupt."""
        for leftover in self._path.glob("*.tmp"):
            leftover.unlink()
        source = snapshot.Reader(self._path)
        self._start = self._revision = source.revision
        self._snapshot_size = source.size
        for record in source:
            assert record.item is not None
            self._bucket(record.bucket).items[record.key] = record.item
        for bucket in self._buckets.values():
            bucket.keys = sorted(bucket.items)
        sequence, ceiling = self._replay(source.sequence, source.ceiling)
        self._revision = self._given = max(self._revision, ceiling)
        self._recovered = self._revision
        leases = self._buckets.pop(VOLATILE_BUCKET, None)
        if leases is not None:  # its history has gaps: watchers must begin anew
            fresh = self._bucket(VOLATILE_BUCKET)
            fresh.items, fresh.keys = leases.items, leases.keys
        return sequence, max(ceiling, self._revision)

    def _replay(self, sequence: int, ceiling: int) -> tuple[int, int]:
        """Applies frames after `sequence`, checking that none is missing."""
        paths = sorted(self._path.glob("*.log"), key=number_of)
        offset = 0
        expected: int | None = None  # the first segment may begin before the snapshot
        for path in paths:
            data = path.read_bytes()
            offset = 0
            while (found := frame_at(data, offset)) is not None:
                if expected is None and found.sequence <= sequence + 1:
                    expected = found.sequence
                if found.sequence != expected:
                    raise Corrupt(path, offset, f"frames before {found.sequence} are missing")
                expected = found.sequence + 1
                offset = end_of(found)
                if found.sequence > sequence:
                    sequence = found.sequence
                    ceiling = max(ceiling, self._apply(path, found.offset, found.payload))
            self._check_end(path, data, offset, path is paths[-1])
            self._since_snapshot += offset
            if path is not paths[-1]:
                self._segments.full.append(Segment(path, (expected or 1) - 1))
        self._segments.resume(paths[-1] if paths else None, offset, sequence)
        return sequence, ceiling

    def _check_end(self, path: Path, data: bytes, offset: int, last: bool) -> None:
        """A commit that a crash cut off may stand at the very end, and nowhere else."""
        if not any(data[offset:]):
            return
        later = later_frame(data, offset)
        if later >= 0:
            raise Corrupt(path, offset, f"bad frame, with a good one behind it at {later}")
        if not last:
            raise Corrupt(path, offset, "bad frame, with later segments behind it")
        log.warning("%s: a commit at offset %d was cut off by a crash; nobody was told of it", path, offset)

    def _apply(self, path: Path, offset: int, payload: bytes) -> int:
        """Replays a frame; returns the revision up to which it reserves."""
        ceiling = 0
        now = self._clock.monotonic()
        for record in records(payload):
            if record.op not in (PUT, DELETE):
                ceiling = max(ceiling, record.revision)
                continue
            bucket = self._bucket(record.bucket)
            previous = bucket.items.get(record.key)
            if record.item is not None:
                change = Change(record.revision, record.key, record.item, previous)
            elif previous is not None:
                change = deletion(previous, record.revision)
            else:
                raise Corrupt(path, offset, f"deletes {record.bucket} {record.key}, which is not there")
            bucket.apply(change, now)
            self._revision = record.revision
        return ceiling

    def _floor(self, bucket: str) -> int:
        if bucket == VOLATILE_BUCKET:
            return self._recovered
        return 0 if self._start <= 1 else self._start

    # Compaction

    def _committed(self, sequence: int, size: int) -> None:
        self._since_snapshot += size
        due = max(self._compact_at, 2 * self._snapshot_size)
        if self._since_snapshot >= due and self._compacting is None and not self._stop.is_set():
            self._since_snapshot = 0
            pinned = [(name, _lasting(name, bucket.items)) for name, bucket in sorted(self._buckets.items())]
            taken = snapshot.Snapshot(self._revision, sequence, self._embedded.ceiling, pinned)
            self._compacting = threading.Thread(
                target=self._compact, args=(taken,), name="store-compact", daemon=True
            )
            self._compacting.start()

    def _compact(self, taken: snapshot.Snapshot) -> None:
        try:
            size = snapshot.write(self._path, taken, self._stop)
            if size:
                self._snapshot_size = size
                self._segments.drop(taken.sequence)
        except OSError as error:  # nothing is lost: the segments are still there
            log.error("no snapshot was written: %s", error)
        finally:
            self._compacting = None


class _Nothing:
    """Stands in while the store is read; nothing is written then."""

    def append(self, bucket: str, change: Change) -> int:
        raise RuntimeError("the store is not open")

    async def close(self) -> None:
        pass


def _lasting(bucket: str, items: dict[str, Item]) -> list[Item]:
    """The items that are written down; a plain copy wherever all of them are."""
    if bucket != VOLATILE_BUCKET:
        return list(items.values())
    return [item for item in items.values() if not volatile(bucket, item.key)]


def _claim(path: Path) -> int:
    """Creates or checks the directory and locks it; returns the lock's descriptor. Raises SampanError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_format(path)
    except BlockingIOError:
        os.close(lock)
        raise SampanError(
            f"the store in {path} is in use by another process", "is the cluster already up?"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _check_format(path: Path) -> None:
    mark = path / "FORMAT"
    try:
        words = mark.read_text().split()
    except FileNotFoundError:
        making = path / "format.tmp"
        making.write_text(f"sampan-store {FORMAT}\n")
        with open(making, "rb") as file:
            os.fsync(file.fileno())
        making.rename(mark)
        sync_directory(path)
        return
    if len(words) != 2 or words[0] != "sampan-store" or not words[1].isdigit():
        raise SampanError(f"{mark} is not the mark of a store", "is this the right directory?")
    if int(words[1]) > FORMAT:
        raise SampanError(
            f"the store in {path} has format {words[1]}; this version knows up to {FORMAT}",
            "use the newer version of sampan that wrote it",
        )
