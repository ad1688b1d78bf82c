"""What pods and storage classes say about nodes: selector and affinity, taints and tolerations, topologies.

Source: "Assigning Pods to Nodes", "Taints and Tolerations", "Storage Classes".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sampan.api import meta, selectors
from sampan.base.objects import Object

_whole = re.compile(r"-?[0-9]+").fullmatch
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": ">", "Lt": "<"}


def tolerates(toleration: Object, taint: Object) -> bool:
    """Toleration against taint: an empty effect or key matches all of them, Exists any value, Gt numbers above its own.

    Source: "Taints and Tolerations", KEP-5471.
    """
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    operator = toleration.get("operator", "Equal")
    if operator == "Exists":
        return True
    if operator in ("Gt", "Lt"):
        return _compared(operator, taint.get("value", ""), toleration.get("value", ""))
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _compared(operator: str, value: str, bound: str) -> bool:
    """Whether a whole number is above (Gt) or below (Lt) another; what is none is neither."""
    if not (_whole(value) and _whole(bound)):
        return False
    return int(value) > int(bound) if operator == "Gt" else int(value) < int(bound)


def untolerated(node: Object, tolerations: Iterable[Object], *effects: str) -> bool:
    """Whether a taint with one of these effects is tolerated by none."""
    tolerations = list(tolerations)
    return any(
        t["effect"] in effects and not any(tolerates(x, t) for x in tolerations)
        for t in node["spec"].get("taints") or ()
    )


def fits(spec: Object, node: Object) -> bool:
    """nodeSelector and required node affinity of a pod spec."""
    if not (spec.get("nodeSelector") or {}).items() <= meta.labels(node).items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return matches(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"), node)


def matches(selector: Object | None, node: Object) -> bool:
    """core/v1 NodeSelector: one of its terms; None matches all."""
    return selector is None or any(node_term(t, node) for t in selector.get("nodeSelectorTerms") or ())


def node_term(term: Object, node: Object) -> bool:
    """One nodeSelectorTerm: all its expressions on labels and on fields; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    named = {"metadata.name": meta.name(node)}
    return bool(expressions or fields) and all(
        selectors.Requirement(r["key"], _OPERATORS[r["operator"]], tuple(r.get("values") or ())).matches(
            labels
        )
        for rules, labels in ((expressions, meta.labels(node)), (fields, named))
        for r in rules
    )


def in_topologies(terms: Sequence[Object] | None, node: Object) -> bool:
    """Whether a class with these allowedTopologies may make a volume for the node; one without any may for all.

    Source: "Storage Classes", section "Allowed topologies".
    """
    labels = meta.labels(node)
    return not terms or any(
        all(labels.get(one["key"]) in one["values"] for one in term.get("matchLabelExpressions") or ())
        for term in terms
    )
