"""Regular expressions of Go (RE2) as Python's: patterns of schemas, `matches` and `find` of CEL.

Python would refuse some of what Kubernetes users write (`^(?i)(abort|warn)?$`, `\\p{L}`, `[[:^digit:]]`) and reads other things
differently (`$`, `\\s`, `a++`). Source: RE2's syntax page; the sentences are those of Go's regexp/syntax, which clients see.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CATEGORIES = frozenset(
    "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Co Cs".split()
)
_SPACE = r"\t\n\f\r "  # without \v, unlike Python's
_REPEAT_MOST = 1000

_token = re.compile(
    r"""\\Q(?P<literal>.*?)(?:\\E|$)
    | \\(?P<sign>[pP])(?:\{(?P<kind>[^}]*)\}|(?P<letter>[A-Z]))
    | \\x\{(?P<code>[0-9A-Fa-f]+)\}
    | \\(?P<escape>.)
    | \[:(?P<out>\^?)(?P<posix>[a-z]+):\]
    | (?P<open>\(\?(?:P?<(?P<name>\w+)>|(?P<flags>[imsU]*(?:-[imsU]+)?)(?P<end>[:)])))
    | (?P<repeat>[*+?]|\{(?P<least>\d+)(?:,(?P<most>\d*))?\})(?P<lazy>\??)
    | (?P<plain>.)""",
    re.DOTALL | re.VERBOSE,
).finditer


class BadPattern(ValueError):
    """A pattern that is none; its text is Go's, beginning with "error parsing regexp"."""


@dataclass(slots=True)
class _Group:
    """An open parenthesis. Flags set inside of it hold until it closes, also behind a `|`, which Python's groups do not."""

    swapped: bool = False  # (?U): lazy is greedy
    multiline: bool = False
    scopes: list[str] = field(default_factory=list)


@lru_cache(maxsize=2048)
def compile(pattern: str) -> re.Pattern[str]:
    """Raises BadPattern. Matching takes Python's time, which a pattern of nested repetitions can make long."""
    try:
        return re.compile("".join(_translate(pattern)), re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"error parsing regexp: {_in_words_of_go(error, pattern)}") from None


def error(pattern: str) -> str:
    """Why a pattern is none; "" of one that is."""
    try:
        compile(pattern)
    except BadPattern as wrong:
        return str(wrong)
    return ""


def _translate(pattern: str) -> list[str]:
    parts: list[str] = []
    groups = [_Group()]
    start = -1  # where the character class that is open begins in `parts`
    repeats = ""  # the repetition just written
    for found in _token(pattern):
        last, repeats = repeats, ""
        text, group = found[0], groups[-1]
        if start >= 0:
            if text == "]" and parts[start + 1 :] not in ([], ["^"]):
                start = -1
            elif found["repeat"] or found["open"]:
                text = re.sub(r"([\[&|~])", r"\\\1", text)
            else:
                text = _in_class(found, text)
            parts.append(text)
        elif found["repeat"]:
            if last:
                raise _bad("invalid nested repetition operator", last + text)
            if int(found["least"] or 0) > _REPEAT_MOST or int(found["most"] or 0) > _REPEAT_MOST:
                raise _bad("invalid repeat count", found["repeat"])
            repeats = text
            parts.append(found["repeat"] + ("?" if bool(found["lazy"]) is not group.swapped else ""))
        elif found["open"]:
            parts.append(_open(found, groups))
        elif text == "(":
            if pattern.startswith("(?", found.start()):
                raise _bad("invalid or unsupported Perl syntax", pattern[found.start() :][:3])
            groups.append(_Group(group.swapped, group.multiline))
            parts.append("(")
        elif text == ")":
            parts.append(")" * (len(group.scopes) + 1))
            if len(groups) == 1:
                raise _bad("unexpected )", pattern)
            groups.pop()
        elif text == "|":
            parts.append(")" * len(group.scopes) + "|" + "".join(group.scopes))
        elif text == "[":
            start = len(parts)
            parts.append("[")
        elif text == "$":
            parts.append("$" if group.multiline else r"\Z")
        elif text == "{":
            parts.append(r"\{")
        else:
            parts.append(_outside(found, text))
    if len(groups) > 1:
        raise _bad("missing closing )", pattern)
    parts.append(")" * len(groups[0].scopes))
    return parts


def _open(found: re.Match[str], groups: list[_Group]) -> str:
    """`(?P<name>`, `(?i:` or `(?i)`."""
    group = groups[-1]
    if found["name"] is not None:
        groups.append(_Group(group.swapped, group.multiline))
        return f"(?P<{found['name']}>"
    on, _, off = found["flags"].partition("-")
    scope = "(?" + on.replace("U", "") + ("-" + off.replace("U", "") if off.replace("U", "") else "") + ":"
    inner = _Group(group.swapped, group.multiline)
    for flag, name in (("U", "swapped"), ("m", "multiline")):
        if flag in on or flag in off:
            setattr(inner, name, flag in on)
    if found["end"] == ":":
        groups.append(inner)
        return scope
    group.swapped, group.multiline = inner.swapped, inner.multiline
    group.scopes.append(scope)
    return scope


def _outside(found: re.Match[str], text: str) -> str:
    if found["posix"]:
        return "[" + text[1:-1].replace("[", r"\[") + "]"  # `[:word:]` alone is a class of these letters
    if text == r"\s":
        return f"[{_SPACE}]"
    if text == r"\S":
        return f"[^{_SPACE}]"
    if text == r"\z":
        return r"\Z"
    if found["sign"]:
        return "[" + _category(found) + "]"
    return _common(found, text)


def _in_class(found: re.Match[str], text: str) -> str:
    if found["posix"]:
        letters = _POSIX.get(found["posix"])
        if letters is None:
            raise _bad("invalid character class range", text)
        return _others(letters) if found["out"] else letters
    if text == r"\s":
        return _SPACE
    if text == r"\S":
        return _others(_SPACE)
    if found["sign"]:
        return _category(found)
    return "\\" + text if text in ("[", "]", "&", "|", "~") else _common(found, text)


def _common(found: re.Match[str], text: str) -> str:
    if found["literal"] is not None:
        return re.escape(found["literal"])
    if found["code"]:
        return re.escape(chr(min(int(found["code"], 16), 0x10FFFF)))
    escape = found["escape"]
    if escape and (escape in "CEGHIJKLMNOPRTUVXYZceghijkmlopquyz" or escape in "123456789"):
        raise _bad("invalid escape sequence", text)
    return text


def _others(letters: str) -> str:
    """All characters but these, as ranges for a class."""
    inside = re.compile(f"[{letters}]").match
    return "".join(re.escape(chr(code)) for code in range(128) if not inside(chr(code))) + "\x80-\U0010ffff"


def _category(found: re.Match[str]) -> str:
    """`\\p{L}`, `\\p{^Lu}`, `\\PN`: a general category of Unicode."""
    kind = found["kind"] if found["kind"] is not None else found["letter"]
    name = kind.removeprefix("^")
    if name not in _CATEGORIES:
        raise _bad("invalid character class range", found[0])
    return _ranges(name, (found["sign"] == "P") is not kind.startswith("^"))


@lru_cache(maxsize=64)
def _ranges(name: str, negated: bool) -> str:
    """Of the basic multilingual plane, which takes 5 ms to go through; all beyond it counts as of no category."""
    kinds = "".join(map(unicodedata.category, map(chr, range(0x10000))))  # "CcCc...LuLu": two letters each
    spans = re.finditer(rf"(?:(?!{name})[A-Z].)+" if negated else rf"(?:{name:.<2})+", kinds)
    ranges = "".join(rf"\u{one.start() // 2:04x}-\u{one.end() // 2 - 1:04x}" for one in spans)
    return ranges + (r"\U00010000-\U0010ffff" if negated else "")


def _bad(why: str, where: str) -> BadPattern:
    return BadPattern(f"error parsing regexp: {why}: `{where}`")


def _in_words_of_go(error: BaseException, pattern: str) -> str:
    found = str(error)
    if "unterminated character set" in found:
        return f"missing closing ]: `{pattern[pattern.rfind('[') :]}`"
    if "nothing to repeat" in found:
        return f"missing argument to repetition operator: `{re.sub(r'^[^*+?]*', '', pattern)[:1]}`"
    if "bad character range" in found:
        return f"invalid character class range: `{found.split()[3]}`"
    if "bad escape (end of pattern)" in found:
        return "trailing backslash at end of expression: ``"
    return f"{found}: `{pattern}`"
