"""Image references: "nginx", "ghcr.io/x/y:1", "host:5000/a@sha256:..." and their one canonical form.

The grammar is that of the distribution project's reference package, which kubelet and registries follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DEFAULT_HOST = "docker.io"
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`tag` and `digest` may both be given; the digest then decides."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Canonical: with host, "library/" for Docker Hub's own, and ":latest" when neither tag nor digest is given.

    Raises ValueError with the sentence kubelet shows for InvalidImageName.
    """
    wrong = f"couldn't parse image name {quote(text)}: invalid reference format"
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(wrong)
    if digest.startswith("sha256:") and len(digest) != 71:
        raise ValueError(f"couldn't parse image name {quote(text)}: invalid checksum digest length")
    tag = ""
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:
        rest, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise ValueError(wrong)
    host, slash, path = rest.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost" or host != host.lower()):
        host, path = _DEFAULT_HOST, rest
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = _DEFAULT_HOST
    if not _HOST.fullmatch(host):
        raise ValueError(wrong)
    if path != path.lower():
        raise ValueError(
            f"couldn't parse image name {quote(text)}: invalid reference format: repository name must be lowercase"
        )
    if not path or not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise ValueError(wrong)
    if len(path) > 255:
        raise ValueError(
            f"couldn't parse image name {quote(text)}: repository name must not be more than 255 characters"
        )
    if host == _DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    if not tag and not digest:
        tag = "latest"
    return Reference(host, path, tag, digest)


def quote(text: str) -> str:
    """As Go's %q shows it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
