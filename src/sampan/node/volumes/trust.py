"""The certificates that a clusterTrustBundle source shows: one bundle by name, or a signer's by their labels. Pure.

Source: KEP-3257; "Projected Volumes" (clusterTrustBundle).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sampan.api import selectors
from sampan.base.objects import Object
from sampan.node.pods.problems import VolumeError

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")
_COLUMNS = 64


def anchors(source: Object, bundles: Iterable[Object]) -> bytes:
    """PEM text, each certificate once, in no order that means anything. Raises VolumeError if nothing is found that must."""
    chosen = [b for b in bundles if _shows(source, b)]
    if not chosen and not source.get("optional"):
        if source.get("name"):
            raise VolumeError(f'clustertrustbundle "{source["name"]}" not found')
        raise VolumeError("combination of signerName and labelSelector matched zero ClusterTrustBundles")
    texts = [(b.get("spec") or {}).get("trustBundle", "") for b in chosen]
    found = {"".join(c.split()) for text in texts for c in _CERTIFICATE.findall(text)}
    return "".join(map(_pem, sorted(found))).encode()


def _pem(body: str) -> str:
    lines = (body[at : at + _COLUMNS] for at in range(0, len(body), _COLUMNS))
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))


def _shows(source: Object, bundle: Object) -> bool:
    """A selector that is absent selects nothing, an empty one everything."""
    if source.get("name"):
        return bundle["metadata"]["name"] == source["name"]
    selector = source.get("labelSelector")
    if selector is None or (bundle.get("spec") or {}).get("signerName", "") != source.get("signerName"):
        return False
    return selectors.from_object(selector).matches(bundle["metadata"].get("labels") or {})
