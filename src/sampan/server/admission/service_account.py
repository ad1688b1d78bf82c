"""Every pod runs as a service account, and finds its token, the cluster's CA and its namespace in a volume.

Source: Kubernetes documentation, "Managing Service Accounts", "ServiceAccount admission controller".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from sampan.base.ids import SUFFIX_ALPHABET
from sampan.base.objects import Object
from sampan.server.admission.attrs import CREATE, Attrs, Context, Plugin, only

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME = "kube-api-access"
_MIRROR = "kubernetes.io/config.mirror"
_TOKEN_SECONDS = 3607


def admit(attrs: Attrs, ctx: Context) -> None:
    """Names the account, adds the volume with its token unless that is not wanted, and its pull secrets. Raises 403."""
    pod = attrs.obj or {}
    spec = pod.setdefault("spec", {})
    if (pod["metadata"].get("annotations") or {}).get(_MIRROR):
        _check_mirror(attrs, spec)
        return
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = ctx.lookup.get("serviceaccounts", f"{attrs.namespace}/{name}")
    if account is None:
        why = f'error looking up service account {attrs.namespace}/{name}: serviceaccount "{name}" not found'
        raise attrs.forbidden(why)
    if _automount(account, spec):
        _mount_token(spec, _volume_name(account["metadata"].get("uid", name)))
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": s.get("name", "")} for s in account["imagePullSecrets"]]


def _check_mirror(attrs: Attrs, spec: Object) -> None:
    """A mirror pod shows what a node runs from a file; it must not give that node anything more."""
    if spec.get("serviceAccountName"):
        raise attrs.forbidden("a mirror pod may not reference service accounts")
    for volume in spec.get("volumes") or ():
        if "secret" in volume or any(
            "secret" in s for s in (volume.get("projected") or {}).get("sources") or ()
        ):
            raise attrs.forbidden("a mirror pod may not reference secrets")
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in source:
                raise attrs.forbidden("a mirror pod may not use ServiceAccountToken volume projections")


def _automount(account: Object, spec: Object) -> bool:
    for holder in (spec, account):
        if holder.get("automountServiceAccountToken") is not None:
            return bool(holder["automountServiceAccountToken"])
    return True


@lru_cache(maxsize=1024)
def _volume_name(uid: str) -> str:
    """The same for all pods of an account, unlike the original's: pods of one template then have one spec."""
    digest = hashlib.blake2b(uid.encode(), digest_size=5).digest()
    return f"{_VOLUME}-" + "".join(SUFFIX_ALPHABET[byte % len(SUFFIX_ALPHABET)] for byte in digest)


def _mount_token(spec: Object, fresh: str) -> None:
    """`fresh` names the volume, if it is not there yet."""
    volumes = spec.get("volumes")
    present = sorted({v.get("name", "") for v in volumes}) if volumes else []
    volume = next((n for n in present if n.startswith(_VOLUME + "-")), "")
    needed = False
    name = volume or fresh
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            mounts = container.get("volumeMounts") or []
            if mounts and any(m.get("mountPath") == MOUNT_PATH for m in mounts):
                continue
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
            needed = True
    if needed and not volume:
        spec["volumes"] = [*(spec.get("volumes") or ()), _token_volume(name)]


def _token_volume(name: str) -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
            "defaultMode": 420,
        },
    }


PLUGIN = Plugin("ServiceAccount", only("pods"), only(CREATE), admit=admit, reads=("serviceaccounts",))
