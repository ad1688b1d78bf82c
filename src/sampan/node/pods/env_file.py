"""Files of variables in a volume, from which containers take theirs: NAME='value', as any POSIX shell would read it.

Source: KEP-3721; "Define Environment Variable Values Using An Init Container" (env file syntax).
"""

from __future__ import annotations

import re

from sampan.base.objects import Object

LARGEST = 64 << 10  # bytes
_SKIPPED = re.compile(r"(?:\s+|#[^\n]*(?:\n|$))*")
_VARIABLE = re.compile(r"([^\s=#'\"]+)[ \t]*=[ \t]*'([^']*)'[ \t]*(?:\n|$)")


def references(container: Object) -> list[tuple[str, str]]:
    """The (volume, path) of all files that a container's variables come from, each once."""
    found = [(variable.get("valueFrom") or {}).get("fileKeyRef") for variable in container.get("env") or ()]
    return list(dict.fromkeys((ref["volumeName"], ref["path"]) for ref in found if ref))


def parse(text: str) -> dict[str, str]:
    """The variables of a file. Raises ValueError, naming the line, for what is not NAME='value', a comment or blank."""
    found: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    place = _skipped(text, 0)
    while place < len(text):
        match = _VARIABLE.match(text, place)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, place) + 1} is not of the form NAME='value'")
        found[match[1]] = match[2]
        place = _skipped(text, match.end())
    return found


def _skipped(text: str, place: int) -> int:
    """Where the blanks and comments that begin at `place` end."""
    skipped = _SKIPPED.match(text, place)
    return skipped.end() if skipped else place
