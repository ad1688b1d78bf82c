"""Where a pod may run: node selection, affinity, tolerations, spreading. Source: API reference, Affinity, Toleration."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    duplicate,
    forbidden_field,
    invalid_value,
    key_problems,
    label_problems,
    label_selector,
    not_supported,
    one_of,
    qualified,
    required,
    subdomain_problems,
    texts,
)
from sampan.base.objects import Object

_is_integer = re.compile(r"[+-]?[0-9]+").fullmatch
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def affinity(errors: Errors, given: Object | None, path: str) -> None:
    """Node affinity, pod affinity and pod anti-affinity."""
    if not given:
        return
    node = given.get("nodeAffinity")
    if node is not None:
        if node.get(_REQUIRED) is not None:
            node_selector(errors, node[_REQUIRED], f"{path}.nodeAffinity.{_REQUIRED}")
        for index, term in enumerate(node.get(_PREFERRED) or ()):
            at = f"{path}.nodeAffinity.{_PREFERRED}[{index}]"
            _weight(errors, term, at, minimum=1)
            node_selector_term(errors, term.get("preference") or NONE, f"{at}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = given.get(kind)
        if pods is None:
            continue
        for index, term in enumerate(pods.get(_REQUIRED) or ()):
            _pod_term(errors, term, f"{path}.{kind}.{_REQUIRED}[{index}]")
        for index, term in enumerate(pods.get(_PREFERRED) or ()):
            at = f"{path}.{kind}.{_PREFERRED}[{index}]"
            _weight(errors, term, at, minimum=1)
            _pod_term(errors, term.get("podAffinityTerm") or NONE, f"{at}.podAffinityTerm")


def _weight(errors: Errors, term: Object, path: str, *, minimum: int) -> None:
    weight = term.get("weight", 0)
    if not minimum <= weight <= 100:
        errors.append(invalid_value(f"{path}.weight", weight, "must be in the range 1-100"))


def node_selector(errors: Errors, selector: Object, path: str) -> None:
    """At least one term: none would match no node. Source: API reference, NodeSelector v1."""
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        errors.append(required(f"{path}.nodeSelectorTerms", "must have at least one node selector term"))
    for index, term in enumerate(terms):
        node_selector_term(errors, term, f"{path}.nodeSelectorTerms[{index}]")


def node_selector_term(errors: Errors, term: Object, path: str) -> None:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        _node_label(errors, requirement, f"{path}.matchExpressions[{index}]")
    for index, requirement in enumerate(term.get("matchFields") or ()):
        _node_field(errors, requirement, f"{path}.matchFields[{index}]")


def _node_label(errors: Errors, requirement: Object, path: str) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            text = "must be specified when `operator` is 'In' or 'NotIn'"
            errors.append(required(f"{path}.values", text))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden_field(f"{path}.values", text))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(f"{path}.values", text))
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    qualified(errors, f"{path}.key", requirement.get("key", ""))
    if operator in ("Gt", "Lt"):
        for index, value in enumerate(values):
            if not _is_integer(value):
                errors.append(invalid_value(f"{path}.values[{index}]", value, "must be an integer"))


def _node_field(errors: Errors, requirement: Object, path: str) -> None:
    """Fields of a node are compared with one value; its name is the only one there is."""
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if len(values) != 1:
            text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(required(f"{path}.values", text))
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    key = requirement.get("key", "")
    if key != "metadata.name":
        errors.append(invalid_value(f"{path}.key", key, "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        texts(errors, f"{path}.values[{index}]", value, subdomain_problems)


def _pod_term(errors: Errors, term: Object, path: str) -> None:
    label_selector(errors, f"{path}.labelSelector", term.get("labelSelector"))
    label_selector(errors, f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for namespace in term.get("namespaces") or ():
        texts(errors, f"{path}.namespaces", namespace, label_problems)
    _match_keys(errors, term, path)
    key = term.get("topologyKey", "")
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    qualified(errors, f"{path}.topologyKey", key)


def _match_keys(errors: Errors, term: Object, path: str) -> None:
    """matchLabelKeys and mismatchLabelKeys take the pod's own values into the selector (KEP-3633)."""
    for field in ("matchLabelKeys", "mismatchLabelKeys"):
        keys = term.get(field) or ()
        if keys and term.get("labelSelector") is None:
            errors.append(
                forbidden_field(f"{path}.{field}", "must not be specified when labelSelector is not set")
            )
        for index, key in enumerate(keys):
            texts(errors, f"{path}.{field}[{index}]", key, key_problems)
    both = set(term.get("matchLabelKeys") or ()) & set(term.get("mismatchLabelKeys") or ())
    for index, key in enumerate(term.get("matchLabelKeys") or ()):
        if key in both:
            detail = "exists in both matchLabelKeys and mismatchLabelKeys"
            errors.append(invalid_value(f"{path}.matchLabelKeys[{index}]", key, detail))


def tolerations(errors: Errors, given: Sequence[Object], path: str) -> None:
    """Of a pod or a RuntimeClass. Without a key they must be for all (`Exists`); `Gt` and `Lt` compare integers (KEP-5471).

    Source: API reference, Toleration v1.
    """
    for index, toleration in enumerate(given):
        at = f"{path}[{index}]"
        key, operator = toleration.get("key", ""), toleration.get("operator", "")
        value, effect = toleration.get("value", ""), toleration.get("effect", "")
        if key:
            for problem in key_problems(key):
                errors.append(invalid_value(f"{at}.key", key, problem))
        elif operator != "Exists":
            detail = (
                'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            )
            errors.append(invalid_value(f"{at}.operator", operator, detail))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid_value(f"{at}.effect", effect, detail))
        if operator in ("Equal", ""):
            texts(errors, f"{at}.operator", value, names.label_value)
        elif operator == "Exists":
            if value:
                shown = {
                    "Key": key,
                    "Operator": operator,
                    "Value": value,
                    "Effect": effect,
                    "TolerationSeconds": toleration.get("tolerationSeconds"),
                }
                detail = "value must be empty when `operator` is 'Exists'"
                errors.append(invalid_value(f"{at}.operator", shown, detail))
        elif operator in ("Gt", "Lt"):
            if not _is_integer(value):
                errors.append(invalid_value(f"{at}.value", value, "must be an integer"))
        else:
            errors.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in EFFECTS:
            errors.append(not_supported(f"{at}.effect", effect, EFFECTS))


_WHEN = ("DoNotSchedule", "ScheduleAnyway")


def spread(errors: Errors, given: Sequence[Object], path: str) -> None:
    """Topology spread constraints. Source: "Pod Topology Spread Constraints"."""
    for index, constraint in enumerate(given):
        at = f"{path}[{index}]"
        skew = constraint.get("maxSkew", 0)
        if skew <= 0:
            errors.append(invalid_value(f"{at}.maxSkew", skew, "must be greater than zero"))
        key, when = constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", "")
        if not key:
            errors.append(required(f"{at}.topologyKey", "can not be empty"))
        if when not in _WHEN:
            errors.append(not_supported(f"{at}.whenUnsatisfiable", when, _WHEN))
        for other in given[index + 1 :]:
            if (other.get("topologyKey", ""), other.get("whenUnsatisfiable", "")) == (key, when):
                errors.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {when}}}"))
                break
        least = constraint.get("minDomains")
        if least is not None:
            if least <= 0:
                errors.append(invalid_value(f"{at}.minDomains", least, "must be greater than zero"))
            elif when != "DoNotSchedule":
                detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not " + when
                errors.append(invalid_value(f"{at}.minDomains", least, detail))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(field) is not None:
                one_of(errors, f"{at}.{field}", constraint[field], ("Honor", "Ignore"))
        _spread_keys(errors, constraint, at)
        label_selector(errors, f"{at}.labelSelector", constraint.get("labelSelector"))


def _spread_keys(errors: Errors, constraint: Object, path: str) -> None:
    keys = constraint.get("matchLabelKeys") or ()
    selector = constraint.get("labelSelector")
    if keys and selector is None:
        errors.append(
            forbidden_field(f"{path}.matchLabelKeys", "must not be specified when labelSelector is not set")
        )
        return
    for index, key in enumerate(keys):
        texts(errors, f"{path}.matchLabelKeys[{index}]", key, key_problems)
