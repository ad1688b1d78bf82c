"""What the files of a configMap, secret, downwardAPI or projected volume contain: pure functions of the objects.

Rules: "Volumes" and "Projected Volumes" of the Kubernetes documentation. Messages are kubelet's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sampan.base.objects import Object
from sampan.node.pods import fields
from sampan.node.pods.problems import VolumeError
from sampan.node.volumes import trust
from sampan.node.volumes.atomic import File

Payload = dict[str, File]


class Credential(NamedTuple):
    """A private key and the certificates that go with it, the pod's own first; both PEM."""

    key: bytes
    chain: bytes


_MODE = 0o644


def objects(volume: Object) -> list[tuple[str, str, bool]]:
    """(resource, name, optional) of the ConfigMaps and Secrets a volume shows."""
    found = []
    if "configMap" in volume:
        found.append(("configmaps", volume["configMap"].get("name", ""), _optional(volume["configMap"])))
    if "secret" in volume:
        found.append(("secrets", volume["secret"].get("secretName", ""), _optional(volume["secret"])))
    for source in (volume.get("projected") or {}).get("sources") or ():
        for part, resource in (("configMap", "configmaps"), ("secret", "secrets")):
            if part in source:
                found.append((resource, source[part].get("name", ""), _optional(source[part])))
    return found


def tokens(volume: Object) -> list[Object]:
    """The serviceAccountToken sources of a projected volume."""
    sources = (volume.get("projected") or {}).get("sources") or ()
    return [s["serviceAccountToken"] for s in sources if "serviceAccountToken" in s]


def trusts(volume: Object) -> list[Object]:
    """The clusterTrustBundle sources of a projected volume."""
    sources = (volume.get("projected") or {}).get("sources") or ()
    return [s["clusterTrustBundle"] for s in sources if "clusterTrustBundle" in s]


def certificates(volume: Object) -> list[tuple[int, Object]]:
    """The podCertificate sources of a projected volume, with their places among all of its sources."""
    sources = (volume.get("projected") or {}).get("sources") or ()
    return [(index, s["podCertificate"]) for index, s in enumerate(sources) if "podCertificate" in s]


def is_payload(volume: Object) -> bool:
    return any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))


def build(
    pod: Object,
    volume: Object,
    found: Mapping[tuple[str, str], Object | None],
    issued: Mapping[str, str],
    allocatable: Object,
    bundles: Sequence[Object] = (),
    credentials: Mapping[int, Credential] = {},
) -> Payload:
    """All files of a volume. Raises VolumeError.

    `found` holds the objects, `issued` the token for each token path, `bundles` the cluster's ClusterTrustBundles,
    `credentials` those of podCertificate sources, by their places.
    """
    if "configMap" in volume:
        source = volume["configMap"]
        mode = source.get("defaultMode", _MODE)
        return _from_object("configmaps", source.get("name", ""), source, found, mode)
    if "secret" in volume:
        source = volume["secret"]
        mode = source.get("defaultMode", _MODE)
        return _from_object("secrets", source.get("secretName", ""), source, found, mode)
    if "downwardAPI" in volume:
        source = volume["downwardAPI"]
        return _downward(pod, source, source.get("defaultMode", _MODE), allocatable)
    return _projected(pod, volume["projected"], found, issued, allocatable, bundles, credentials)


def _projected(
    pod: Object,
    projected: Object,
    found: Mapping[tuple[str, str], Object | None],
    issued: Mapping[str, str],
    allocatable: Object,
    bundles: Sequence[Object],
    credentials: Mapping[int, Credential],
) -> Payload:
    mode = projected.get("defaultMode", _MODE)
    files: Payload = {}
    for index, source in enumerate(projected.get("sources") or ()):
        if "configMap" in source:
            part = source["configMap"]
            files |= _from_object("configmaps", part.get("name", ""), part, found, mode)
        elif "secret" in source:
            part = source["secret"]
            files |= _from_object("secrets", part.get("name", ""), part, found, mode)
        elif "downwardAPI" in source:
            files |= _downward(pod, source["downwardAPI"], mode, allocatable)
        elif "serviceAccountToken" in source:
            path = source["serviceAccountToken"]["path"]
            files[path] = _private_file(pod, issued[path].encode(), mode)
        elif "clusterTrustBundle" in source:
            part = source["clusterTrustBundle"]
            files[part["path"]] = File(trust.anchors(part, bundles), mode)
        elif "podCertificate" in source:
            for path, data in _credential(source["podCertificate"], *credentials[index]):
                files[path] = _private_file(pod, data, mode)
        else:
            raise VolumeError(f"unsupported source of a projected volume: {', '.join(source)}")
    return files


def _credential(source: Object, key: bytes, chain: bytes) -> list[tuple[str, bytes]]:
    parts = {"credentialBundlePath": key + chain, "keyPath": key, "certificateChainPath": chain}
    return [(source[field], data) for field, data in parts.items() if source.get(field)]


def _private_file(pod: Object, data: bytes, mode: int) -> File:
    """A token or key is for its user: 0600 of the one user all containers run as (and fsGroup's to read), else as the volume says."""
    security = pod["spec"].get("securityContext") or {}
    users = {
        (c.get("securityContext") or {}).get("runAsUser", security.get("runAsUser"))
        for c in pod["spec"]["containers"]
    }
    user = next(iter(users)) if len(users) == 1 else None
    if user is None and security.get("fsGroup") is None:
        return File(data, mode)
    return File(data, 0o600, user)


def _optional(source: Object) -> bool:
    return bool(source.get("optional"))


def _from_object(
    resource: str, name: str, source: Object, found: Mapping[tuple[str, str], Object | None], mode: int
) -> Payload:
    obj = found.get((resource, name))
    kind = "configmap" if resource == "configmaps" else "secret"
    if obj is None:
        if _optional(source):
            return {}
        raise VolumeError(f'{kind} "{name}" not found')
    data = _data(obj, resource)
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in sorted(data.items())}
    files: Payload = {}
    for item in items:
        if item["key"] not in data:
            if _optional(source):
                continue
            what = "secret" if resource == "secrets" else "config"
            raise VolumeError(f"{kind} references non-existent {what} key: {item['key']}")
        files[item["path"]] = File(data[item["key"]], item.get("mode", mode))
    return files


def _data(obj: Object, resource: str) -> dict[str, bytes]:
    if resource == "secrets":
        return {k: base64.b64decode(v) for k, v in (obj.get("data") or {}).items()}
    texts = {k: v.encode() for k, v in (obj.get("data") or {}).items()}
    return texts | {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}


def _downward(pod: Object, source: Object, mode: int, allocatable: Object) -> Payload:
    files: Payload = {}
    for item in source.get("items") or ():
        if item.get("fieldRef"):
            text = fields.field(pod, item["fieldRef"]["fieldPath"])
        else:
            text = fields.resource_field(pod, {}, item["resourceFieldRef"], allocatable)
        files[item["path"]] = File(text.encode(), item.get("mode", mode))
    return files
