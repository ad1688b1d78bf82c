"""What orjson does not tell about a JSON text: why it is broken in the original's words, and which keys come twice.

Both are read only when a request is about to be refused or warned of, so they may be slow. The sentences are those of
Go's encoding/json, because clients show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_SPACE = " \t\r\n"
_DIGITS = 400  # of a number that a double can hold
_END = "unexpected end of JSON input"


def explain(body: bytes) -> str:
    """Why `body` is not JSON, as Go's scanner says it."""
    try:
        _Scanner(body.decode("utf-8", "replace")).document()
    except _Broken as error:
        return str(error)
    return "invalid UTF-8 in string"


class _Broken(Exception):
    pass


class _Scanner:
    """A reader that values nothing and stops at the first character that cannot be."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> None:
        self._value()
        if self._peek(end=True):
            self._fail("after top-level value")

    def _peek(self, *, end: bool = False) -> str:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
        if self._at < len(self._text):
            return self._text[self._at]
        if end:
            return ""
        raise _Broken(_END)

    def _fail(self, context: str) -> None:
        if self._at >= len(self._text):
            raise _Broken(_END)
        raise _Broken(f"invalid character {_quote(self._text[self._at])} {context}")

    def _value(self) -> None:
        char = self._peek()
        if char == "{":
            self._object()
        elif char == "[":
            self._array()
        elif char == '"':
            self._string()
        elif char == "-" or "0" <= char <= "9":
            self._number()
        elif char in "tfn":
            self._word({"t": "true", "f": "false", "n": "null"}[char])
        else:
            self._fail("looking for beginning of value")

    def _object(self) -> None:
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                self._fail("looking for beginning of object key string")
            self._string()
            if self._peek() != ":":
                self._fail("after object key")
            self._at += 1
            self._value()
            char = self._peek()
            self._at += 1
            if char == "}":
                return
            if char != ",":
                self._at -= 1
                self._fail("after object key:value pair")

    def _array(self) -> None:
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            self._value()
            char = self._peek()
            self._at += 1
            if char == "]":
                return
            if char != ",":
                self._at -= 1
                self._fail("after array element")

    def _string(self) -> None:
        self._at += 1
        while True:
            char = self._next("in string literal")
            if char == '"':
                return
            if char < " ":
                self._at -= 1
                self._fail("in string literal")
            if char == "\\":
                escape = self._next("in string escape code")
                if escape == "u":
                    for _ in range(4):
                        if self._next("in \\u hexadecimal character escape") not in "0123456789abcdefABCDEF":
                            self._at -= 1
                            self._fail("in \\u hexadecimal character escape")
                elif escape not in '"\\/bfnrt':
                    self._at -= 1
                    self._fail("in string escape code")

    def _next(self, context: str) -> str:
        if self._at >= len(self._text):
            self._fail(context)
        self._at += 1
        return self._text[self._at - 1]

    def _word(self, word: str) -> None:
        for expected in word:
            if self._at >= len(self._text) or self._text[self._at] != expected:
                self._fail(f"in literal {word} (expecting {_quote(expected)})")
            self._at += 1

    def _digits(self, context: str) -> None:
        if self._at >= len(self._text) or not "0" <= self._text[self._at] <= "9":
            self._fail(context)
        while self._at < len(self._text) and "0" <= self._text[self._at] <= "9":
            self._at += 1

    def _number(self) -> None:
        text, begin = self._text, self._at
        if text[self._at] == "-":
            self._at += 1
        if text[self._at : self._at + 1] == "0":
            self._at += 1
        else:
            self._digits("in numeric literal")
        if text[self._at : self._at + 1] == ".":
            self._at += 1
            self._digits("after decimal point in numeric literal")
        if text[self._at : self._at + 1] in ("e", "E") and self._at < len(text):
            self._at += 1
            if text[self._at : self._at + 1] in ("+", "-") and self._at < len(text):
                self._at += 1
            self._digits("in exponent of numeric literal")
        number = text[begin : self._at]
        if len(number) > _DIGITS or abs(float(number)) == float("inf"):
            raise _Broken(f"json: cannot unmarshal number {number[:_DIGITS]} into Go value of type float64")


def _quote(char: str) -> str:
    if char == "'":
        return "'\\''"
    if char == '"':
        return "'\"'"
    escaped = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}.get(char)
    return f"'{escaped}'" if escaped else f"'{char}'" if char >= " " else f"'\\x{ord(char):02x}'"


class _Pairs(list[tuple[str, Any]]):
    """An object as the list of its pairs, so that none is lost."""


def duplicates(text: str) -> list[str]:
    """Paths of the keys that an object of the JSON `text` has more than once, each time it comes again."""
    found: list[str] = []
    _collect(json.loads(text, object_pairs_hook=_Pairs), "", found)
    return found


def in_order(text: str, unknown: list[str], twice: list[str]) -> list[tuple[str, bool]]:
    """(path, whether it comes twice) in the order of the document, as a decoder meets them that knows the fields.

    A field that is not known is met once, however often it comes.
    """
    lacking, again = set(unknown), set(twice)
    found: list[tuple[str, bool]] = []
    seen: set[str] = set()
    for path in _walk(json.loads(text, object_pairs_hook=_Pairs), ""):
        if path not in seen and path in lacking:
            found.append((path, False))
        elif path in seen and path in again and path not in lacking:
            found.append((path, True))
            again.discard(path)
        seen.add(path)
    met = {path for path, _ in found}
    return [*found, *((path, False) for path in unknown if path not in met)]


def _walk(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        for key, item in value:
            here = f"{path}.{key}" if path else key
            yield here
            yield from _walk(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")


def _collect(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            here = f"{path}.{key}" if path else key
            if key in seen:
                found.append(here)
            seen.add(key)
            _collect(item, here, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", found)
