"""Patterns of Go mean in Python what they mean there."""

from __future__ import annotations

import pytest

from sampan.api import re2

STRATEGY = "^(?i)(abort|warn)?$"
DAY = "^((?i)sun|mon|satur)day(?:((:(sun|mon|satur)day)$)|$)"
TAG = r"^[\p{L}\p{Zs}\p{N}_.:/=+\-@]*$"


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("^[[:alpha:]]+$", "ab", True),
        ("^[^[:alpha:]]+$", "12", True),
        ("^[a[:^digit:]]+$", "xyz", True),
        ("^[a[:^digit:]]+$", "a1", False),
        ("^a$", "a\n", False),
        ("(?m)^a$", "a\nb", True),
        (r"^\d+$", "١", False),
        (r"^\s$", "\v", False),
        (r"^\S$", "\v", True),
        (r"^[\S]$", "a", True),
        (r"^[\S]$", " ", False),
        ("[$]$", "a$", True),
        (r"(?P<n>a)\z", "a", True),
        (r"(?<n>a)", "a", True),
        ("^[^]a]$", "b", True),
        ("^[]a]$", "]", True),
        ("^[[a]$", "[", True),
        ("^[a&&b]+$", "a&", True),
        ("^[*?+(){2}]+$", "?(2", True),
        # flags hold from where they stand to the end of their group
        (STRATEGY, "WARN", True),
        (STRATEGY, "", True),
        (STRATEGY, "stop", False),
        (DAY, "Monday", True),
        (DAY, "monday:SUNday", False),
        ("^(a(?i)b|c)$", "aB", True),
        ("^(a(?i)b|c)$", "C", True),
        ("^(a(?i)b|c)d$", "aBD", False),
        ("^(?i:a)b$", "Ab", True),
        ("^(?i:a)b$", "AB", False),
        ("(?i)^a(?-i)b$", "Ab", True),
        ("(?i)^a(?-i)b$", "AB", False),
        ("(?s)^.$", "\n", True),
        ("(?U)^a+$", "aa", True),
        # characters by category
        (TAG, "größe 每 1/2", True),
        (TAG, "a*", False),
        (r"^\pL+$", "舢板", True),
        (r"^\PL+$", "12", True),
        (r"^\p{^Lu}+$", "aé", True),
        (r"^\p{Lu}$", "é", False),
        (r"^\p{Nd}$", "٣", True),
        # literally
        (r"^\Qa.b+\E$", "a.b+", True),
        (r"^\Qa.b+\E$", "axb+", False),
        (r"^\x{41}\x42$", "AB", True),
        ("^a{,2}$", "a{,2}", True),
        ("^a{2,}$", "aaa", True),
        ("^{$", "{", True),
    ],
)  # fmt: skip
def test_what_a_pattern_fits(pattern, text, fits):
    assert (re2.compile(pattern).search(text) is not None) is fits


def test_lazy_and_greedy_change_places():
    assert re2.compile("(?U)a+").search("aaa")[0] == "a"
    assert re2.compile("(?U)a+?").search("aaa")[0] == "aaa"
    assert re2.compile("(?U:a+)b*").search("abb")[0] == "abb"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing closing ): `(`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a++", "invalid nested repetition operator: `++`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<!a)", "invalid or unsupported Perl syntax: `(?<`"),
        ("(?>a)", "invalid or unsupported Perl syntax: `(?>`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"a\Z", r"invalid escape sequence: `\Z`"),
        (r"\u0041", r"invalid escape sequence: `\u`"),
        (r"\p{Nonsense}", r"invalid character class range: `\p{Nonsense}`"),
        ("[[:nonsense:]]", "invalid character class range: `[:nonsense:]`"),
        ("a\\", "trailing backslash at end of expression: ``"),
    ],
)
def test_why_a_pattern_is_none(pattern, why):
    assert re2.error(pattern) == f"error parsing regexp: {why}"


def test_a_pattern_that_is_one_has_no_error():
    assert re2.error(TAG) == ""
