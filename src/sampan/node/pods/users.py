"""Who a container runs as: names in its image's /etc/passwd and /etc/group become numbers.

The layers are searched from the top, as an overlay would show them; links that leave the layer are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.node.pods.problems import ConfigProblem


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers, supplementary groups of the image, and the home directory ("" when unknown)."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


def read_layered(layers: Sequence[str], path: str) -> str:
    """A small text file of an image, "" when it has none."""
    for layer in layers:
        candidate = os.path.join(layer, path.lstrip("/"))
        try:
            real = os.path.realpath(candidate)
            if real != candidate and not real.startswith(os.path.realpath(layer) + os.sep):
                continue
            with open(real, encoding="utf-8", errors="replace") as file:
                return file.read(1 << 20)
        except OSError:
            continue
    return ""


def look_up(layers: Sequence[str], user: str) -> Identity:
    """The identity of an image's `User` ("", "name", "1000", "name:group", "1000:1000").

    Raises ConfigProblem when a name is unknown.
    """
    name, _, group = user.partition(":")
    passwd = _rows(read_layered(layers, "/etc/passwd"), 7)
    groups = _rows(read_layered(layers, "/etc/group"), 4)
    row = _find(passwd, name or "0")
    if row is not None:
        uid, gid, home, login = int(row[2]), int(row[3]), row[5], row[0]
    elif not name or name.isdigit():
        uid, gid, home, login = int(name or 0), 0, "", ""
    else:
        raise ConfigProblem(f"unable to find user {name}: no matching entries in passwd file")
    if group:
        entry = _find(groups, group)
        if entry is None and not group.isdigit():
            raise ConfigProblem(f"unable to find group {group}: no matching entries in group file")
        gid = int(entry[2]) if entry else int(group)
    extra = tuple(int(g[2]) for g in groups if login and login in g[3].split(","))
    return Identity(uid, gid, () if group else extra, home)


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    return [r for r in rows if len(r) >= columns and r[2].isdigit()]


def _find(rows: list[list[str]], key: str) -> list[str] | None:
    """By name first, then by number."""
    for row in rows:
        if row[0] == key:
            return row
    return next((r for r in rows if key.isdigit() and int(r[2]) == int(key)), None)
