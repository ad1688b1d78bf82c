"""Prometheus' text form of figures that are kept as plain numbers. Source: Prometheus "Exposition formats", 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

Labels = Mapping[str, str]


class Histogram:
    """How many values were at most as large as each of `bounds`, which rise, and in all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # each between two bounds, the last one above all
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def with_more(self, bound: float, count: int, total: float = 0.0) -> Histogram:
        """A copy with `count` more values of at most `bound`, `total` in sum: those that were counted elsewhere."""
        copy = Histogram(self.bounds)
        copy.counts, copy.total = self.counts.copy(), self.total + total
        copy.counts[bisect_left(self.bounds, bound)] += count
        return copy


def histogram(name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> str:
    """One metric with all its histograms; `text` says what they measure."""
    lines = [f"# HELP {name} {text}\n# TYPE {name} histogram\n"]
    for labels, one in samples:
        so_far = 0
        for bound, count in zip((*one.bounds, None), one.counts, strict=True):
            so_far += count
            least = "+Inf" if bound is None else f"{bound:g}"
            lines.append(f"{name}_bucket{labelled({**labels, 'le': least})} {so_far}\n")
        lines.append(f"{name}_sum{labelled(labels)} {one.total}\n{name}_count{labelled(labels)} {so_far}\n")
    return "".join(lines)


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
