"""Secrets of type kubernetes.io/service-account-token get a token that does not end, and go with their ServiceAccount.

Source: "Managing Service Accounts", "Manually manage long-lived API tokens for ServiceAccounts". Making the token is an
effect: the runner calls `effect:token` with the Secret's name and gets {"token": base64} or {"error": text}.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Delete, Key, Plan, Update, View

from .base import Rule

_TYPE = "kubernetes.io/service-account-token"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_ACCOUNTS = "serviceaccounts"


def rules(ca: str) -> list[Rule]:
    """`ca` is PEM text, for clients that have nothing but the Secret; an empty one is left out."""
    authority = {"ca.crt": _encoded(ca)} if ca else {}

    def fill(secret: Object, view: View, now: float) -> Plan:
        return reconcile(secret, view, authority)

    wakes = {_ACCOUNTS: _secrets_of}
    return [Rule("serviceaccount-token-controller", "secrets", fill, wakes, concerns=_is_token)]


def _is_token(secret: Object) -> bool:
    return secret.get("type") == _TYPE


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _secrets_of(account: Object, view: View) -> Iterable[Key]:
    namespace, name = meta.namespace(account), meta.name(account)
    found = [s for s in view.list("secrets", namespace) if _is_token(s)]
    return [Key(namespace, meta.name(s)) for s in found if meta.annotations(s).get(_NAME) == name]


def reconcile(secret: Object, view: View, authority: Object) -> Plan:
    """What the Secret lacks, at once; without its ServiceAccount it goes."""
    plan, namespace, name = Plan(), meta.namespace(secret), meta.name(secret)
    if not _is_token(secret) or meta.deleted(secret):
        return plan
    notes = meta.annotations(secret)
    account = view.get(_ACCOUNTS, notes.get(_NAME, ""), namespace)
    if not _same(account, notes):  # perhaps it is so new that only the server knows it
        read = (_ACCOUNTS, namespace, notes.get(_NAME, ""))
        if read not in view.fetched:
            plan.reads = [read]
            return plan
        account = view.fetched[read]
    if account is None or not _same(account, notes):
        plan.why = "its ServiceAccount is gone"
        return plan.then(Delete("secrets", name, namespace, uid=meta.uid(secret)))
    old = secret.get("data") or {}
    data = old | authority | {"namespace": _encoded(namespace)}
    if not old.get("token"):
        made = ("effect:token", namespace, name)
        if made not in view.fetched:
            plan.reads = [made]
            return plan
        data |= {k: v for k, v in (view.fetched[made] or {}).items() if k == "token"}
    metadata = secret["metadata"] | {"annotations": notes | {_UID: meta.uid(account)}}
    if data == old and metadata == secret["metadata"]:
        return plan
    return plan.then(Update("secrets", secret | {"metadata": metadata, "data": data}))


def _same(account: Object | None, notes: Object) -> bool:
    return account is not None and notes.get(_UID, meta.uid(account)) == meta.uid(account)
