"""The syntax of env files, as the documentation of fileKeyRef has it."""

from __future__ import annotations

import pytest

from sampan.node.pods import env_file


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", {}),
        ("A='1'", {"A": "1"}),
        ("# A='0'\n\n  A = '1'  \nB=''\n", {"A": "1", "B": ""}),
        (
            "A='one\ntwo # no comment\n'\nB='$A \\n \"x\"'",
            {"A": "one\ntwo # no comment\n", "B": '$A \\n "x"'},
        ),
        ("A='1'\r\nB='2'\r\n", {"A": "1", "B": "2"}),
        ("A='1'\nA='2'\n", {"A": "2"}),
    ],
)
def test_what_is_read(text, expected):
    assert env_file.parse(text) == expected


@pytest.mark.parametrize(
    "text, line",
    [
        ("A=1", 1),
        ('\nA="1"', 2),
        ("A='1''2'", 1),
        ("B='0'\nA='a'$B", 2),
        ("A='1", 1),
        ("A='1' # later", 1),
        ("export A='1'", 1),
        ("A", 1),
    ],
)
def test_what_is_refused(text, line):
    with pytest.raises(ValueError, match=f"line {line} is not of the form"):
        env_file.parse(text)


def test_each_file_is_named_once():
    ref = {"volumeName": "v", "path": "a/b", "key": "A"}
    variables = [{"name": "X", "value": "1"}, *({"name": n, "valueFrom": {"fileKeyRef": ref}} for n in "AB")]
    assert env_file.references({"env": variables}) == [("v", "a/b")]
