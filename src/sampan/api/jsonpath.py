"""JSONPath as Kubernetes has it: what printer columns, scale paths and selectable fields use.

`.spec.replicas`, `.items[0]`, `.list[*].x`, `['a.b']`, `.a\\.b`, `[?(@.type=="Ready")].status`. Source: the reference's
"JSONPath support".
"""

from __future__ import annotations

import re
from typing import Any

Path = list[
    tuple[str, Any]
]  # ("key", name) | ("index", n) | ("all", None) | ("filter", (path, operator, value))

_STEP = re.compile(
    r"""\.?\[\?\(\s*@(?P<where>[^=!<>\s)]*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^)\s]+))?\s*\)\]
      | \.?\[(?P<index>-?\d+)\]
      | \.?\[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]
      | \.?\[\*\] | \.\*
      | \.(?P<key>(?:\\.|[^.\[\]\\])+)""",
    re.VERBOSE,
)


def parse(text: str) -> Path:
    """Steps of a path. Raises ValueError when it is none."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    path: Path = []
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            if text[position:] == ".":
                break
            raise ValueError(f"invalid JSONPath {text!r} at {position}")
        path.append(_step(step))
        position = step.end()
    return path


def _step(step: re.Match[str]) -> tuple[str, Any]:
    if step["where"] is not None:
        return "filter", (parse(step["where"]), step["op"], _literal(step["value"]) if step["op"] else None)
    if step["index"] is not None:
        return "index", int(step["index"])
    if step["quoted"] is not None:
        return "key", step["quoted"]
    if step["key"] is not None:
        return "key", re.sub(r"\\(.)", r"\1", step["key"])
    return "all", None


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def find(value: Any, path: Path) -> list[Any]:
    """All values the path leads to, in order."""
    found = [value]
    for kind, what in path:
        found = [result for item in found for result in _follow(item, kind, what)]
    return found


def _follow(item: Any, kind: str, what: Any) -> list[Any]:
    if kind == "key":
        return [item[what]] if isinstance(item, dict) and what in item else []
    if kind == "index":
        return [item[what]] if isinstance(item, list) and -len(item) <= what < len(item) else []
    if kind == "all":
        return list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []
    candidates = item if isinstance(item, list) else list(item.values()) if isinstance(item, dict) else []
    path, operator, value = what
    return [c for c in candidates if any(_holds(v, operator, value) for v in find(c, path))]


def _holds(left: Any, operator: str | None, right: Any) -> bool:
    if operator is None:
        return True
    if operator in ("==", "!="):
        return (left == right) is (operator == "==")
    try:
        return {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator]
    except TypeError:
        return False
