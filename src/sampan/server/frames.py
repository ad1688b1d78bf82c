"""What watchers are sent, made once: a change is framed for the first who reads it, and all others get the same bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from sampan.server.negotiate import Form
from sampan.store.protocol import Change

_FRAMES = 1024  # shared frames kept
_FRAMES_SIZE = 4 << 20  # and their bytes


class Frames:
    """Encoded events by (revision, form, type), shared by all watchers that read them at about the same time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._size = 0
        self._joints: WeakValueDictionary[tuple[str, str, Form], Joint] = WeakValueDictionary()

    def get(self, key: tuple[Any, ...], make: Callable[[], bytes]) -> bytes:
        """The frame that is kept under a key, or a new one; the oldest go."""
        frame = self._kept.get(key)
        if frame is None:
            frame = self._kept[key] = make()
            self._size += len(frame)
            while len(self._kept) > _FRAMES or self._size > _FRAMES_SIZE:
                self._size -= len(self._kept.popitem(last=False)[1])
        return frame

    def joint(self, form: tuple[str, str, Form]) -> Joint:
        """Shared by all who watch the same in the same form, for as long as there are any."""
        return self._joints.setdefault(form, Joint())


class Joint:
    """The last batch that somebody was handed, in one piece. None: it is too large for that."""

    __slots__ = ("__weakref__", "batch", "piece")

    def __init__(self) -> None:
        self.batch: Sequence[Change] = ()
        self.piece: bytes | None = None
