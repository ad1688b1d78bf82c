"""What is in layers and archives: gzip, zstd or none, told by the first bytes; counted and hashed on the way.

zstd comes from Python's or the system's library (libzstd.so.1, which every Debian has), whichever is there.
"""

from __future__ import annotations

import ctypes
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

_CHUNK = 1 << 18  # read from the source at once
_PIECE = 1 << 20  # at most this much comes out at once, whatever a bomb promises


class _Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class Bomb(ValueError):
    """The content is far larger than it may be."""


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _Gzip:
    """Members may follow each other (pigz, estargz)."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:
                if not data.strip(b"\0"):
                    return
                self._inflate = zlib.decompressobj(31)
            try:
                yield self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise ValueError(f"corrupt gzip data: {error}") from None
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def finish(self) -> None:
        if not self._inflate.eof:
            raise ValueError("truncated gzip data: unexpected EOF")


class _ZstdBuffer(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t)]


class _Zstd:
    def __init__(self) -> None:
        try:
            lib: Any = ctypes.CDLL("libzstd.so.1")
        except OSError:
            raise ValueError("the layer is compressed with zstd, and libzstd.so.1 is not installed") from None
        lib.ZSTD_createDStream.restype = ctypes.c_void_p
        lib.ZSTD_decompressStream.restype = ctypes.c_size_t
        lib.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        lib.ZSTD_isError.argtypes = [ctypes.c_size_t]
        lib.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
        self._lib = lib
        self._stream = lib.ZSTD_createDStream()
        self._space = ctypes.create_string_buffer(_PIECE)
        self._hint = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        source = ctypes.create_string_buffer(data, len(data))
        given = _ZstdBuffer(ctypes.addressof(source), len(data), 0)
        while True:
            room = _ZstdBuffer(ctypes.addressof(self._space), len(self._space), 0)
            hint = self._lib.ZSTD_decompressStream(self._stream, ctypes.byref(room), ctypes.byref(given))
            if self._lib.ZSTD_isError(hint):
                raise ValueError("corrupt zstd data")
            self._hint = hint
            yield ctypes.string_at(self._space, room.at)
            if given.at == given.size and room.at < room.size:
                return

    def finish(self) -> None:
        self._lib.ZSTD_freeDStream(self._stream)
        if self._hint:
            raise ValueError("truncated zstd data: unexpected EOF")


def _decoder(head: bytes) -> _Decoder:
    if head[:2] == b"\x1f\x8b":
        return _Gzip()
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return _Zstd()
    return _Plain()


def is_compressed(file: BinaryIO) -> bool:
    """Whether the file, which can seek, is compressed in a way that Content knows."""
    head = file.read(4)
    file.seek(0)
    return not isinstance(_decoder(head), _Plain)


class Content:
    """The uncompressed content, piece by piece; `digest` when all was taken."""

    def __init__(self, source: BinaryIO, limit: int, ratio: int = 500) -> None:
        """`limit` in bytes; past 1 GiB more than `ratio` times the compressed size is refused, too."""
        self._source = source
        self._limit = limit
        self._ratio = ratio
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of at most 1 MiB. Raises ValueError for corrupt or truncated data, Bomb for too much of it."""
        decoder: _Decoder | None = None
        taken = given = 0
        while data := self._source.read(_CHUNK):
            decoder = decoder or _decoder(data)
            taken += len(data)
            for piece in decoder.feed(data):
                self._hash.update(piece)
                given += len(piece)
                if given > self._limit:
                    raise Bomb(f"the layer unpacks to more than {self._limit} bytes")
                if given > 1 << 30 and given > self._ratio * taken:
                    raise Bomb(f"the layer unpacks to more than {self._ratio} times its size")
                if piece:
                    yield piece
        if decoder is not None:
            decoder.finish()

    @property
    def digest(self) -> str:
        """The sha256 of what was taken (an OCI diff id)."""
        return f"sha256:{self._hash.hexdigest()}"
