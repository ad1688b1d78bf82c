"""Who has a bootstrap token can tell that cluster-info is the cluster's own."""

from __future__ import annotations

import base64
from typing import Any

from world import World

from sampan.base import jws
from sampan.base.clock import rfc3339
from sampan.client.plan import Delete
from sampan.controllers import bootstrap_signer

TEXT = "apiVersion: v1\nkind: Config\n"


def token(w: World, token_id: str, **more: str) -> None:
    data = {"token-id": token_id, "token-secret": "s" * 16, "usage-bootstrap-signing": "true"} | more
    w.put(
        "secrets",
        {
            "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
        },
    )


def info(w: World) -> dict[str, Any]:
    found: dict[str, Any] = w.get("configmaps", "cluster-info", "kube-public")["data"]
    return found


def test_each_token_that_may_signs() -> None:
    w = World(*bootstrap_signer.rules())
    metadata = {"name": "cluster-info", "namespace": "kube-public"}
    stale = {"kubeconfig": TEXT, "jws-kubeconfig-gone00": "x"}
    w.put("configmaps", {"metadata": metadata, "data": stale})
    token(w, "aaaaaa", expiration=rfc3339(w.now + 60))
    token(w, "bbbbbb", **{"usage-bootstrap-signing": "false"})
    token(w, "cccccc", expiration=rfc3339(w.now - 1))
    token(w, "dddddd", expiration="soon")
    w.settle()
    assert info(w) == {"kubeconfig": TEXT, "jws-kubeconfig-aaaaaa": jws.sign(TEXT, "aaaaaa", "s" * 16)}
    w.delete(Delete("secrets", "bootstrap-token-aaaaaa", "kube-system"))
    w.settle()
    assert info(w) == {"kubeconfig": TEXT}


def test_other_configmaps_stay_as_they_are() -> None:
    w = World(*bootstrap_signer.rules())
    token(w, "aaaaaa")
    for name, namespace in (("cluster-info", "default"), ("other", "kube-public")):
        w.put(
            "configmaps", {"metadata": {"name": name, "namespace": namespace}, "data": {"kubeconfig": TEXT}}
        )
    w.settle()
    assert [c["data"] for c in w.list("configmaps")] == [{"kubeconfig": TEXT}] * 2
