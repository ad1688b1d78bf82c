"""The ConfigMap kube-public/cluster-info carries a signature for each bootstrap token: who has one may believe it.

Source: "Authenticating with Bootstrap Tokens", "ConfigMap Signing". The ConfigMap is there when the cluster may be joined.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from sampan.api import meta
from sampan.base import jws
from sampan.base.objects import Object
from sampan.client.plan import Key, Plan, Update, View

from .base import Rule, seconds

NAMESPACE, NAME = "kube-public", "cluster-info"
SIGNATURE = "jws-kubeconfig-"  # followed by the token's id: a key of the ConfigMap
TOKEN_TYPE = "bootstrap.kubernetes.io/token"


def rules() -> list[Rule]:
    return [Rule("bootstrap-signer", "configmaps", reconcile, {"secrets": _info}, concerns=_is_info)]


def _is_info(configmap: Object) -> bool:
    return meta.name(configmap) == NAME and meta.namespace(configmap) == NAMESPACE


def _info(secret: Object, view: View) -> Iterable[Key]:
    ours = secret.get("type") == TOKEN_TYPE and meta.namespace(secret) == "kube-system"
    return [Key(NAMESPACE, NAME)] if ours else []


def reconcile(info: Object, view: View, now: float) -> Plan:
    """Signs the kubeconfig of `cluster-info` with every token that may. Source: "Bootstrap Tokens", ConfigMap signing."""
    if not _is_info(info):
        return Plan()
    data = info.get("data") or {}
    kept = {k: v for k, v in data.items() if not k.startswith(SIGNATURE)}
    text = kept.get("kubeconfig", "")
    signatures = {}
    for secret in view.list("secrets", "kube-system") if text else ():
        token = _decoded(secret)
        if secret.get("type") == TOKEN_TYPE and _may_sign(token, now):
            signatures[SIGNATURE + token["token-id"]] = jws.sign(
                text, token["token-id"], token["token-secret"]
            )
    wanted = kept | signatures
    if wanted == data:
        return Plan()
    return Plan(why=f"{len(signatures)} tokens sign it").then(Update("configmaps", info | {"data": wanted}))


def _decoded(secret: Object) -> dict[str, str]:
    data = secret.get("data") or {}
    return {k: base64.b64decode(v).decode(errors="replace") for k, v in data.items()}


def _may_sign(token: dict[str, str], now: float) -> bool:
    """An expired one goes soon, and wakes us then."""
    expires = token.get("expiration", "")
    try:
        late = bool(expires) and seconds(expires) <= now
    except ValueError:
        return False
    named = bool(token.get("token-id")) and bool(token.get("token-secret"))
    return named and not late and token.get("usage-bootstrap-signing") == "true"
