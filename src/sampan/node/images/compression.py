"""Reading layers: gzip, zstd or none, told by their first bytes; counting and hashing on the way.

zstd comes from Python's or the system's library (libzstd.so.1, which every Debian has), whichever is there.
"""

from __future__ import annotations

import ctypes
import hashlib
import zlib
from typing import Any, BinaryIO, Protocol

_CHUNK = 1 << 18


class _Decoder(Protocol):
    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> None: ...


class Bomb(ValueError):
    """The content is far larger than it may be."""


class _Plain:
    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> None:
        pass


class _Gzip:
    """Members may follow each other (pigz, estargz)."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        out = []
        while data:
            if self._inflate.eof:
                if not data.strip(b"\0"):
                    break
                self._inflate = zlib.decompressobj(31)
            try:
                out.append(self._inflate.decompress(data))
            except zlib.error as error:
                raise ValueError(f"corrupt gzip data: {error}") from None
            data = self._inflate.unused_data
        return b"".join(out)

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
        self._space = ctypes.create_string_buffer(1 << 20)
        self._hint = 0

    def feed(self, data: bytes) -> bytes:
        source = ctypes.create_string_buffer(data, len(data))
        given = _ZstdBuffer(ctypes.addressof(source), len(data), 0)
        out = []
        while True:
            room = _ZstdBuffer(ctypes.addressof(self._space), len(self._space), 0)
            hint = self._lib.ZSTD_decompressStream(self._stream, ctypes.byref(room), ctypes.byref(given))
            if self._lib.ZSTD_isError(hint):
                raise ValueError("corrupt zstd data")
            self._hint = hint
            out.append(self._space.raw[: room.at])
            if given.at == given.size and room.at < room.size:
                return b"".join(out)

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


class Reader:
    """A file-like object (read only) of the uncompressed content; `digest()` when all was read."""

    def __init__(self, source: BinaryIO, limit: int, ratio: int = 500) -> None:
        """`limit` in bytes; past 1 GiB more than `ratio` times the compressed size is refused, too."""
        self._source = source
        self._limit = limit
        self._ratio = ratio
        self._decoder: _Decoder | None = None
        self._buffer = b""
        self._at = 0
        self._hash = hashlib.sha256()
        self.taken = 0
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        """Raises ValueError for corrupt or truncated data, Bomb for too much of it."""
        if size < 0:
            raise ValueError("read with a size")
        out = []
        missing = size
        while missing:
            if self._at == len(self._buffer) and not self._fill():
                break
            piece = self._buffer[self._at : self._at + missing]
            self._at += len(piece)
            missing -= len(piece)
            out.append(piece)
        return b"".join(out)

    def _fill(self) -> bool:
        while True:
            data = self._source.read(_CHUNK)
            if not data:
                if self._decoder is not None:
                    self._decoder.finish()
                    self._decoder = None
                return False
            if self._decoder is None:
                if self.taken:
                    return False
                self._decoder = _decoder(data)
            self.taken += len(data)
            self._buffer = self._decoder.feed(data)
            self._at = 0
            if self._buffer:
                break
        self._hash.update(self._buffer)
        self.given += len(self._buffer)
        if self.given > self._limit:
            raise Bomb(f"the layer unpacks to more than {self._limit} bytes")
        if self.given > 1 << 30 and self.given > self._ratio * self.taken:
            raise Bomb(f"the layer unpacks to more than {self._ratio} times its size")
        return True

    def digest(self) -> str:
        """Read what is left; the sha256 of all of it (an OCI diff id)."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"
