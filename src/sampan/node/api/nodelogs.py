"""A node's own logs: /logs lists and serves files, /logs/?query=kubelet what the agent says of itself (KEP-2258).

What is served is this node's log and those of its pods, never another file of the machine.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping

from sampan.base.clock import rfc3339_parse
from sampan.client.messages import Response
from sampan.node.api.query import Query, text

_SERVICES = ("kubelet", "sampan", "kube-proxy")
_MOST = 16 << 20  # bytes of a file sent; its end is what matters
_STAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")


def serve(path: str, query: Query, files: Mapping[str, str]) -> Response:
    """`files`: name in the listing -> file or directory. Blocking. Raises ValueError for a bad query."""
    if "query" in query.values:
        return _journal(query, files)
    name, _, rest = path.strip("/").partition("/")
    if not name:
        return _listing({shown: os.path.isdir(at) for shown, at in files.items()})
    top = files.get(name)
    if top is None:
        return text(404, "404 page not found\n")
    chosen = os.path.realpath(f"{top}/{rest}") if rest else os.path.realpath(top)
    if rest and not chosen.startswith(os.path.realpath(top) + "/"):
        return text(404, "404 page not found\n")
    if os.path.isdir(chosen):
        return _listing({entry.name: entry.is_dir() for entry in os.scandir(chosen)})
    try:
        return text(200, _end_of(chosen))
    except OSError:
        return text(404, "404 page not found\n")


def _listing(entries: Mapping[str, bool]) -> Response:
    names = (f"{name}/" if is_directory else name for name, is_directory in sorted(entries.items()))
    lines = "".join(f'<a href="{html.escape(n)}">{html.escape(n)}</a>\n' for n in names)
    return text(200, f"<pre>\n{lines}</pre>\n", "text/html; charset=utf-8")


def _journal(query: Query, files: Mapping[str, str]) -> Response:
    for service in query.values["query"]:
        if service not in _SERVICES:
            return text(404, f"options present and query resolved to log files for {service}: none\n")
    pattern = re.compile(query.first("pattern").encode()) if query.first("pattern") else None
    since, until = (_time(query.first(name)) for name in ("sinceTime", "untilTime"))
    own = next((at for at in files.values() if os.path.isfile(at)), "")
    lines = []
    for line in (_end_of(own) if own else b"").splitlines(keepends=True):
        stamp = _STAMP.match(line)
        at = rfc3339_parse(stamp[1].decode()) if stamp else None
        if at is not None and ((since and at < since) or (until and at > until)):
            continue
        if pattern is None or pattern.search(line):
            lines.append(line)
    tail = query.first("tailLines")
    if tail:
        lines = lines[len(lines) - min(int(tail), len(lines)) :]
    return text(200, b"".join(lines))


def _time(word: str) -> float | None:
    return rfc3339_parse(word) if word else None


def _end_of(path: str) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _MOST, 0))
        return file.read()
