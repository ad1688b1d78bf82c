"""The words of the Common Expression Language, with where each begins: refusals point at the place.

Source: the CEL specification, "Syntax" (github.com/google/cel-spec, doc/langdef.md).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sampan.api.cel.values import INT_MAX, UINT_MAX, CelError, UInt

_TOKENS = re.compile(
    r"""
    (?P<space>[ \t\r\n\f]+|//[^\n]*)
  | (?P<string>[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
  | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
  | (?P<uint>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
  | (?P<int>0x[0-9a-fA-F]+|[0-9]+)
  | (?P<quoted>`[a-zA-Z0-9_./\- ]+`)
  | (?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
  | (?P<op>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,\[\]{}()])
    """,
    re.VERBOSE | re.DOTALL,
)
_RAW = re.compile(r"(?is)^(?:r|br|rb)['\"]")
_ESCAPE = re.compile(r"(?s)\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[xX][0-9a-fA-F]{2}|[0-3][0-7]{2}|.)")
_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "?": "?",
    '"': '"',
    "'": "'",
    "`": "`",
}


class Token(NamedTuple):
    """`kind` is an operator or keyword itself, or const, name, quoted, end; `at` is an offset into the text."""

    kind: str
    value: Any
    at: int
    text: str = ""


class SyntaxProblem(Exception):
    """What is wrong, and at which offset."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message, self.at = message, at


_KEYWORDS = {"in": "in", "true": "const", "false": "const", "null": "const"}
_VALUES = {"true": True, "false": False, "null": None}


def tokens(text: str) -> list[Token]:
    """All words of an expression, the last one of kind `end`. Raises SyntaxProblem."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            raise SyntaxProblem(
                f"Syntax error: token recognition error at: '{text[at : at + 2].strip()}'", at
            )
        kind = match.lastgroup or ""
        word = match[0]
        if kind == "op":
            found.append(Token(word, word, at, word))
        elif kind == "name":
            found.append(Token(_KEYWORDS.get(word, "name"), _VALUES.get(word, word), at, word))
        elif kind == "quoted":
            found.append(Token("quoted", word[1:-1], at, word))
        elif kind != "space":
            found.append(Token("const", _literal(kind, word, at), at, word))
        at = match.end()
    found.append(Token("end", None, len(text), "<EOF>"))
    return found


def _literal(kind: str, word: str, at: int) -> Any:
    if kind == "float":
        return float(word)
    if kind == "string":
        return _string(word, at)
    number = int(word.rstrip("uU"), 0) if word.startswith("0x") else int(word.rstrip("uU"))
    if kind == "uint":
        if number > UINT_MAX:
            raise SyntaxProblem("invalid uint literal", at)
        return UInt(number)
    if number > INT_MAX + 1:  # one more, for a minus before it
        raise SyntaxProblem("invalid int literal", at)
    return number


def _string(word: str, at: int) -> str | bytes:
    raw = bool(_RAW.match(word))
    quote_at = min(i for i in (word.find("'"), word.find('"')) if i >= 0)
    prefix, body = word[:quote_at].lower(), word[quote_at:]
    width = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1
    body = body[width:-width]
    if "b" in prefix:
        return body.encode() if raw else _unescape_bytes(body, at)
    return body if raw else _ESCAPE.sub(lambda m: _escape(m, at), body)


def _escape(match: re.Match[str], at: int) -> str:
    code = match[1]
    if code in _SIMPLE:
        return _SIMPLE[code]
    if code[0] in "uUxX" and len(code) > 1:
        number = int(code[1:], 16)
    elif code[0] in "0123" and len(code) == 3:
        number = int(code, 8)
    else:
        raise SyntaxProblem(f"Syntax error: token recognition error at: '\\{code}'", at)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise SyntaxProblem("invalid unicode code point", at)
    return chr(number)


def _unescape_bytes(body: str, at: int) -> bytes:
    parts: list[bytes] = []
    last = 0
    for match in _ESCAPE.finditer(body):
        parts.append(body[last : match.start()].encode())
        char = _escape(match, at)
        single = match[1][0] in "xX0123" and len(match[1]) == 3
        parts.append(bytes([ord(char)]) if single else char.encode())
        last = match.end()
    parts.append(body[last:].encode())
    return b"".join(parts)


__all__ = ["CelError", "SyntaxProblem", "Token", "tokens"]
