"""Answers to questions that are asked again and again in the same words, such as whether a template's pods are valid.

Only for pure functions, and only under a key that says everything the answer depends on: then a remembered answer is
the answer. Bounded in bytes of keys; what was put in first goes first.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """`size` bytes of keys are kept at most, and no key longer than a sixteenth of that."""

    def __init__(self, size: int = 1 << 19) -> None:
        self._left = size
        self._longest = size // 16
        self._known: dict[tuple[object, bytes], T] = {}

    def get(self, kind: object, text: bytes) -> T | None:
        """The answer for `text`, None when it is not known. `kind` (hashable) tells questions of several kinds apart."""
        return self._known.get((kind, text))

    def put(self, kind: object, text: bytes, answer: T) -> None:
        """Remember an answer; whoever gets it must not change it."""
        if len(text) > self._longest or (kind, text) in self._known:
            return
        self._known[kind, text] = answer
        self._left -= len(text)
        while self._left < 0:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._left += len(oldest[1])
