"""How the command line speaks: lines of progress and small tables, plain enough for a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


class Progress:
    """One line a step, with the seconds since the start; colour only on a terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def __call__(self, text: str) -> None:
        stamp = f"{time.monotonic() - self._started:5.1f}s"
        print(f"\033[2m{stamp}\033[0m {text}" if self._terminal else f"{stamp} {text}", flush=True)

    def done(self, text: str) -> None:
        print(f"\033[1;32m{text}\033[0m" if self._terminal else text, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, as kubectl prints them."""
    lines = [[str(cell) for cell in row] for row in [[h.upper() for h in header], *rows]]
    widths = [max(len(row[i]) for row in lines) for i in range(len(header))]
    for row in lines:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def size(number: float) -> str:
    """Bytes as people say them: 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
