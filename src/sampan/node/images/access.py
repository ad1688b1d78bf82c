"""Who may use a private image that is here already: whoever shows a login it was pulled with, or pulls it again.

Else one pod's secret would open the image to every pod of the machine (KEP-2535). An image that no node pulled
(`sampan image load`, `import`, `pull`) is for all, and so is one that its registry gives to anybody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

_ANYBODY = "*"
Login = Mapping[str, str]  # as registry.logins gives them; {} is nobody's
Pulled = tuple[str, Login]  # the repository, with its host, and what it took
Record = dict[str, list[str]]  # repository -> marks of logins


def granted(known: Mapping[str, Any] | None, pulled: Pulled | None) -> Record | None:
    """What to keep of an image after it was pulled; None when it is for all. `known` is what the index has of it."""
    record = {} if known is None else known.get("access")
    if record is None or pulled is None:
        return None
    repository, login = pulled
    return {**record, repository: sorted({*record.get(repository, ()), _mark(login)})}


def allows(record: Record | None, repository: str, logins: Sequence[Login]) -> bool:
    """Whether whoever has these logins may use the image without asking the registry."""
    if record is None:
        return True
    marks = record.get(repository, ())
    return _ANYBODY in marks or any(_mark(login) in marks for login in logins)


def _mark(login: Login) -> str:
    """What is kept of a login."""
    return hashlib.sha256(json.dumps(login, sort_keys=True).encode()).hexdigest() if login else _ANYBODY
