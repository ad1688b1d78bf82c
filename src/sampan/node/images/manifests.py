"""Manifests and indexes of the OCI image spec and Docker's schema 2: which one is ours, and what it consists of."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from typing import Any

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}


def architecture() -> str:
    """This machine's, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check(data: bytes, digest: str, what: str) -> bytes:
    """Raises ValueError when the content is not what its name says."""
    if digest.startswith("sha256:") and digest_of(data) != digest:
        raise ValueError(f"{what}: expected {digest}, got {digest_of(data)}")
    if digest.startswith("sha512:") and f"sha512:{hashlib.sha512(data).hexdigest()}" != digest:
        raise ValueError(f"{what}: does not match {digest}")
    return data


def is_index(document: Mapping[str, Any]) -> bool:
    return document.get("mediaType") in INDEXES or ("manifests" in document and "layers" not in document)


def is_ours(descriptor: Mapping[str, Any]) -> bool:
    """Whether what it describes is for this machine's platform, or for any."""
    platform = descriptor.get("platform")
    return not platform or (platform.get("os"), platform.get("architecture")) == ("linux", architecture())


def choose(index: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The descriptor for this machine's platform. Raises ValueError as other runtimes word it."""
    wanted = architecture()
    best: Mapping[str, Any] | None = None
    for one in index.get("manifests") or ():
        own = one.get("platform") or {}
        if not own and len(index["manifests"]) == 1:
            return one
        fits = own.get("os") == "linux" and own.get("architecture") == wanted
        if fits and (best is None or own.get("variant") in ("v8", None)):
            best = one
    if best is None:
        raise ValueError(f"no match for platform in manifest: {name}: not found (linux/{wanted})")
    return best


def parts(manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """(config descriptor, layer descriptors). Raises ValueError for other kinds of artifact."""
    if manifest.get("schemaVersion") == 1:
        raise ValueError("image manifest schema 1 is not supported: the image must be pushed anew")
    if "config" not in manifest or "layers" not in manifest:
        raise ValueError(f"unsupported manifest media type {manifest.get('mediaType', 'unknown')!r}")
    return manifest["config"], list(manifest["layers"])


def check_config(config: Mapping[str, Any], layers: int) -> None:
    """Raises ValueError when a configuration does not fit its manifest."""
    diff_ids = (config.get("rootfs") or {}).get("diff_ids")
    if not isinstance(diff_ids, list):
        raise ValueError("the image configuration has no rootfs.diff_ids")
    if len(diff_ids) != layers:
        raise ValueError(f"the image configuration names {len(diff_ids)} layers, the manifest {layers}")
