"""Defaults of what extends the API: webhooks, admission policies, custom resource definitions, aggregated APIs.

Source: API reference, groups admissionregistration.k8s.io/v1, apiextensions.k8s.io/v1, apiregistration.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.defaults.pod import Json

_HTTPS = 443


def validating_webhooks(obj: Json) -> None:
    for hook in obj.get("webhooks", ()):
        _webhook(hook)


def mutating_webhooks(obj: Json) -> None:
    for hook in obj.get("webhooks", ()):
        _webhook(hook)
        hook.setdefault("reinvocationPolicy", "Never")


def _webhook(hook: Json) -> None:
    hook.setdefault("failurePolicy", "Fail")
    hook.setdefault("timeoutSeconds", 10)
    _matching(hook)
    _rules(hook.get("rules", ()))
    _service(hook.get("clientConfig"))


def _matching(owner: Json) -> None:
    owner.setdefault("matchPolicy", "Equivalent")
    owner.setdefault("namespaceSelector", {})
    owner.setdefault("objectSelector", {})


def _rules(rules: Iterable[Json]) -> None:
    for rule in rules:
        rule.setdefault("scope", "*")


def _service(client_config: Json | None) -> None:
    service = (client_config or {}).get("service")
    if service is not None:
        service.setdefault("port", _HTTPS)


def admission_policy(obj: Json) -> None:
    """Validating and mutating policies alike."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    _match_resources(spec.get("matchConstraints"))


def admission_policy_binding(obj: Json) -> None:
    _match_resources((obj.get("spec") or {}).get("matchResources"))


def _match_resources(resources: Json | None) -> None:
    if resources is not None:
        _matching(resources)
        _rules(resources.get("resourceRules", ()))
        _rules(resources.get("excludeResourceRules", ()))


def custom_resource_definition(obj: Json) -> None:
    """Names that follow from the kind."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if kind:
        if not names.get("singular"):
            names["singular"] = kind.lower()
        if not names.get("listKind"):
            names["listKind"] = kind + "List"
    conversion = spec.setdefault("conversion", {})
    conversion.setdefault("strategy", "None")
    _service((conversion.get("webhook") or {}).get("clientConfig"))


def api_service(obj: Json) -> None:
    _service(obj.get("spec"))
