"""Prometheus' text form of figures that are kept as plain numbers. Source: Prometheus "Exposition formats", 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Labels = Mapping[str, str]


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> str:
    """One metric with all its samples; `kind` is counter or gauge, `text` says what it counts."""
    lines = [f"# HELP {name} {text}\n# TYPE {name} {kind}\n"]
    lines += [f"{name}{labelled(labels)} {value}\n" for labels, value in samples]
    return "".join(lines)


def labelled(labels: Labels) -> str:
    """`{verb="GET",code="200"}`, or nothing."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    if '"' not in value and "\\" not in value and "\n" not in value:
        return value
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
