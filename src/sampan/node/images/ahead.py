"""A file that is made while it is read: one thread inflates the next pieces of a layer as another writes out the last ones.

Inflating, hashing and writing files all let go of the interpreter, so two cores do what one did.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator

_PIECES = 2  # that may lie ready; more made nothing faster
_SKIP = 1 << 18

_Told = bytes | BaseException | None  # a piece; why there are no more; that there are no more


class Ahead:
    """The pieces as a file that is read forwards, as tarfile wants one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._ready: queue.Queue[_Told] = queue.Queue(_PIECES)
        self._unwanted = False
        self._thread = threading.Thread(target=self._make, args=(pieces,), name="inflate", daemon=True)
        self._thread.start()
        self._piece, self._at = b"", 0
        self._ended = False
        self._position = 0

    def _make(self, pieces: Iterable[bytes]) -> None:
        told: _Told = None
        try:
            for piece in pieces:
                if self._unwanted:
                    return
                self._ready.put(piece)
        except BaseException as error:
            told = error
        self._ready.put(told)

    def read(self, size: int) -> bytes:
        """Fewer bytes at the end only. Raises what making them raised."""
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        if len(data) < size:
            data = b"".join((data, *self._more(size - len(data))))
        self._position += len(data)
        return data

    def _more(self, missing: int) -> Iterator[bytes]:
        while missing and not self._ended:
            told = self._ready.get()
            if not isinstance(told, bytes):
                self._ended = True
                if told is not None:
                    raise told
                return
            self._piece, self._at = told, min(missing, len(told))
            missing -= self._at
            yield told[: self._at]

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Forwards."""
        while self._position < position and self.read(min(_SKIP, position - self._position)):
            pass
        return self._position

    def exhaust(self) -> None:
        while self.read(_SKIP):
            pass

    def close(self) -> None:
        """Nobody reads on. Returns when the source is no longer being read either."""
        self._unwanted = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.05)
