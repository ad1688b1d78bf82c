"""Webhooks and admission policies. Source: API reference, admissionregistration.k8s.io/v1; "Dynamic Admission Control"."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    dns_subdomain,
    duplicate,
    forbidden_field,
    invalid_value,
    label_selector,
    not_supported,
    one_of,
    required,
    required_one_of,
    subdomain_problems,
    too_many,
)
from sampan.base.objects import Object

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_FORM = "; desired format: https://host[/path]"
_STATIC = ".static.k8s.io"


def name_problems(name: str) -> list[str]:
    """Names of what comes from files on the API server's disk are taken (KEP-5793, beta since 1.37)."""
    problems = subdomain_problems(name)
    if name.endswith(_STATIC):
        problems.append(
            f'names ending with "{_STATIC}" are reserved for static manifest-based configurations and cannot be '
            "managed via the API"
        )
    return problems


# Where a webhook is reached (definitions have one for conversion, too)


def client_config(errors: Errors, client: Object, path: str) -> None:
    """Exactly one of a URL and a service."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        errors.append(required(path, "exactly one of url or service is required"))
    if url is not None and service is None:
        _url(errors, url, f"{path}.url")
    elif service is not None and url is None:
        _service(errors, service, f"{path}.service")


def _url(errors: Errors, text: str, path: str) -> None:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        errors.append(required(path, f"url must be a valid URL: {error}{_FORM}"))
        return
    if parts.scheme != "https":
        errors.append(invalid_value(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not parts.netloc:
        errors.append(invalid_value(path, parts.netloc, f"host must be specified{_FORM}"))
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        errors.append(invalid_value(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errors.append(invalid_value(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errors.append(invalid_value(path, parts.query, "query parameters are not permitted in the URL"))


def _service(errors: Errors, service: Object, path: str) -> None:
    for field in ("name", "namespace"):
        if not service.get(field):
            errors.append(required(f"{path}.{field}", f"service {field} is required"))
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        detail = "port is not valid: must be between 1 and 65535, inclusive"
        errors.append(invalid_value(f"{path}.port", port, detail))
    text = service.get("path")
    if text is None or text in ("", "/"):
        return
    if not text.startswith("/"):
        errors.append(invalid_value(f"{path}.path", text, "must start with a '/'"))
    for index, step in enumerate(text.removeprefix("/").removesuffix("/").split("/")):
        if not step:
            errors.append(invalid_value(f"{path}.path", text, f"segment[{index}] may not be empty"))
            continue
        for problem in subdomain_problems(step):
            errors.append(invalid_value(f"{path}.path", text, f"segment[{index}]: {problem}"))


# Webhooks


def validating(errors: Errors, obj: Object) -> None:
    _webhooks(errors, obj)


def mutating(errors: Errors, obj: Object) -> None:
    """Source: API reference, MutatingWebhookConfiguration v1."""
    _webhooks(errors, obj)
    for index, hook in enumerate(obj.get("webhooks") or ()):
        policy = hook.get("reinvocationPolicy")
        if policy is not None:
            one_of(errors, f"webhooks[{index}].reinvocationPolicy", policy, ("IfNeeded", "Never"))


def _webhooks(errors: Errors, obj: Object) -> None:
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        at, name = f"webhooks[{index}]", hook.get("name", "")
        _webhook(errors, hook, name, at)
        versions = hook.get("admissionReviewVersions") or ()
        _versions(errors, versions, f"{at}.admissionReviewVersions")
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)


def _versions(errors: Errors, versions: Sequence[str], path: str) -> None:
    if not versions:
        errors.append(required(path, "must specify one of v1, v1beta1"))
        return
    for index, version in enumerate(versions):
        for problem in names.dns1035_label(version):
            errors.append(invalid_value(f"{path}[{index}]", version, problem))
        if version in versions[:index]:
            errors.append(invalid_value(f"{path}[{index}]", version, "duplicate version"))
    if not {"v1", "v1beta1"} & set(versions):
        errors.append(invalid_value(path, list(versions), "must include at least one of v1, v1beta1"))


def _full_name(errors: Errors, name: str, path: str) -> None:
    if not name:
        errors.append(required(path))
    elif problems := subdomain_problems(name):
        errors.append(invalid_value(path, name, ",".join(problems)))
    elif len(name.split(".")) < 3:
        detail = "should be a domain with at least three segments separated by dots"
        errors.append(invalid_value(path, name, detail))


def _webhook(errors: Errors, hook: Object, name: str, path: str) -> None:
    _full_name(errors, name, f"{path}.name")
    for index, rule in enumerate(hook.get("rules") or ()):
        _rule(errors, rule, f"{path}.rules[{index}]")
    if hook.get("failurePolicy") is not None:
        one_of(errors, f"{path}.failurePolicy", hook["failurePolicy"], ("Fail", "Ignore"))
    if hook.get("matchPolicy") is not None:
        one_of(errors, f"{path}.matchPolicy", hook["matchPolicy"], ("Equivalent", "Exact"))
    effects = hook.get("sideEffects")
    if effects is None:
        errors.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    else:
        one_of(errors, f"{path}.sideEffects", effects, ("None", "NoneOnDryRun"))
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid_value(f"{path}.timeoutSeconds", seconds, detail))
    for field in ("namespaceSelector", "objectSelector"):
        label_selector(errors, f"{path}.{field}", hook.get(field))
    client_config(errors, hook.get("clientConfig") or NONE, f"{path}.clientConfig")
    _conditions(errors, hook.get("matchConditions") or (), f"{path}.matchConditions")


def _rule(errors: Errors, rule: Object, path: str) -> None:
    given = rule.get("operations") or ()
    if not given:
        errors.append(required(f"{path}.operations"))
    if len(given) > 1 and "*" in given:
        errors.append(
            invalid_value(
                f"{path}.operations", list(given), "if '*' is present, must not specify other operations"
            )
        )
    for index, operation in enumerate(given):
        if operation not in _OPERATIONS:
            errors.append(not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    for field, word in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        texts = rule.get(field) or ()
        if not texts:
            errors.append(required(f"{path}.{field}"))
        if len(texts) > 1 and "*" in texts:
            detail = f"if '*' is present, must not specify other {word}"
            errors.append(invalid_value(f"{path}.{field}", list(texts), detail))
        for index, text in enumerate(texts):
            if field == "apiVersions" and not text:
                errors.append(required(f"{path}.{field}[{index}]"))
    _resources(errors, rule.get("resources") or (), f"{path}.resources")
    if rule.get("scope") is not None and rule["scope"] not in _SCOPES:
        errors.append(not_supported(f"{path}.scope", rule["scope"], _SCOPES))


def _resources(errors: Errors, given: Sequence[str], path: str) -> None:
    if not given:
        errors.append(required(path))
    whole: set[str] = set()  # resources named with all their subresources
    parts: set[str] = set()  # subresources named of every resource
    for index, text in enumerate(given):
        at = f"{path}[{index}]"
        if not text:
            errors.append(required(at))
        resource, _, part = text.partition("/")
        if resource == "*" and part and part in parts or part == "*" and resource in whole:
            errors.append(invalid_value(at, text, "duplicate resource"))
        if resource in whole and part and part != "*":
            detail = f"if '{resource}/*' is present, must not specify {text}"
            errors.append(invalid_value(at, text, detail))
        if part in parts and resource != "*":
            detail = f"if '*/{part}' is present, must not specify {text}"
            errors.append(invalid_value(at, text, detail))
        if part == "*":
            whole.add(resource)
        elif resource == "*" and part:
            parts.add(part)
    if len(given) > 1 and "*/*" in given:
        detail = "if '*/*' is present, must not specify other resources"
        errors.append(invalid_value(path, list(given), detail))
    if "*" in given and any("/" not in text for text in given if text != "*"):
        detail = "if '*' is present, must not specify other resources without subresources"
        errors.append(invalid_value(path, list(given), detail))


def _conditions(errors: Errors, given: Sequence[Object], path: str) -> None:
    """Expressions themselves are compiled where there is an interpreter of CEL."""
    seen: set[str] = set()
    if len(given) > 64:
        errors.append(too_many(path, len(given), 64))
    for index, condition in enumerate(given):
        at, name = f"{path}[{index}]", condition.get("name", "")
        if not condition.get("expression", "").strip():
            errors.append(required(f"{at}.expression"))
        if not name:
            errors.append(required(f"{at}.name"))
        else:
            for problem in names.qualified_name(name):
                errors.append(invalid_value(f"{at}.name", name, problem))
        if name and name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)


def validating_update(errors: Errors, new: Object, old: Object) -> None:
    validating(errors, new)


def mutating_update(errors: Errors, new: Object, old: Object) -> None:
    mutating(errors, new)


# Policies


def policy(errors: Errors, obj: Object) -> None:
    """Validating and mutating admission policies. Source: "Validating Admission Policy"."""
    spec = obj.get("spec") or NONE
    if spec.get("failurePolicy") is not None:
        one_of(errors, "spec.failurePolicy", spec["failurePolicy"], ("Fail", "Ignore"))
    kind = spec.get("paramKind")
    if kind is not None:
        if not kind.get("apiVersion"):
            errors.append(required("spec.paramKind.apiVersion"))
        if not kind.get("kind"):
            errors.append(required("spec.paramKind.kind"))
    matching = spec.get("matchConstraints")
    if matching is None:
        errors.append(required("spec.matchConstraints"))
    else:
        _matching(errors, matching, "spec.matchConstraints")
        if not matching.get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
    if obj.get("kind", "ValidatingAdmissionPolicy") == "ValidatingAdmissionPolicy":
        _validations(errors, spec)
    else:
        _mutations(errors, spec)
    _conditions(errors, spec.get("matchConditions") or (), "spec.matchConditions")
    for index, variable in enumerate(spec.get("variables") or ()):
        _variable(errors, variable, f"spec.variables[{index}]")


def _variable(errors: Errors, variable: Object, path: str) -> None:
    name = variable.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    elif not (name.isascii() and name.isidentifier()):
        errors.append(invalid_value(f"{path}.name", name, "name is not a valid CEL identifier"))
    if not variable.get("expression", "").strip():
        errors.append(required(f"{path}.expression", "expression is not specified"))


def _validations(errors: Errors, spec: Object) -> None:
    given, notes = spec.get("validations") or (), spec.get("auditAnnotations") or ()
    if not given and not notes:
        detail = "validations or auditAnnotations must contain at least one item"
        errors.append(required("spec.validations", detail))
        errors.append(required("spec.auditAnnotations", detail))
    for index, rule in enumerate(given):
        at, text, message = f"spec.validations[{index}]", rule.get("expression", ""), rule.get("message", "")
        if not text.strip():
            errors.append(required(f"{at}.expression", "expression is not specified"))
        if message and not message.strip():
            errors.append(invalid_value(f"{at}.message", message, "message must be non-empty if specified"))
        elif "\n" in message:
            errors.append(invalid_value(f"{at}.message", message, "message must not contain line breaks"))
        elif "\n" in text.strip() and not message:
            errors.append(
                required(f"{at}.message", "message must be specified if expression contains line breaks")
            )
        if rule.get("reason") is not None:
            allowed = ("Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge")
            one_of(errors, f"{at}.reason", rule["reason"], allowed)
    for index, note in enumerate(notes):
        at = f"spec.auditAnnotations[{index}]"
        if not note.get("key"):
            errors.append(required(f"{at}.key"))
        if not note.get("valueExpression", "").strip():
            errors.append(required(f"{at}.valueExpression", "valueExpression is not specified"))


def _mutations(errors: Errors, spec: Object) -> None:
    given = spec.get("mutations") or ()
    if not given:
        errors.append(required("spec.mutations", "mutations must contain at least one item"))
    if not spec.get("reinvocationPolicy"):
        errors.append(required("spec.reinvocationPolicy"))
    else:
        one_of(errors, "spec.reinvocationPolicy", spec["reinvocationPolicy"], ("IfNeeded", "Never"))
    for index, mutation in enumerate(given):
        at, kind = f"spec.mutations[{index}]", mutation.get("patchType", "")
        field = {"JSONPatch": "jsonPatch", "ApplyConfiguration": "applyConfiguration"}.get(kind)
        if not kind:
            errors.append(required(f"{at}.patchType"))
        elif field is None:
            errors.append(not_supported(f"{at}.patchType", kind, ("ApplyConfiguration", "JSONPatch")))
        elif not (mutation.get(field) or NONE).get("expression"):
            errors.append(required(f"{at}.{field}", f"must be specified when patchType is {kind}"))


def _matching(errors: Errors, given: Object, path: str) -> None:
    for field in ("namespaceSelector", "objectSelector"):
        if given.get(field) is None:
            errors.append(required(f"{path}.{field}"))
        else:
            label_selector(errors, f"{path}.{field}", given[field])
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(given.get(field) or ()):
            _rule(errors, rule, f"{path}.{field}[{index}]")
    if not given.get("matchPolicy"):
        errors.append(required(f"{path}.matchPolicy"))
    else:
        one_of(errors, f"{path}.matchPolicy", given["matchPolicy"], ("Equivalent", "Exact"))


def policy_update(errors: Errors, new: Object, old: Object) -> None:
    policy(errors, new)


def binding(errors: Errors, obj: Object) -> None:
    """What a policy is bound to, and what becomes of a refusal."""
    spec = obj.get("spec") or NONE
    name = spec.get("policyName", "")
    if not name:
        errors.append(required("spec.policyName"))
    else:
        dns_subdomain(errors, "spec.policyName", name)
    ref = spec.get("paramRef")
    if ref is not None:
        _param_ref(errors, ref)
    if spec.get("matchResources") is not None:
        _matching(errors, spec["matchResources"], "spec.matchResources")
    if obj.get("kind", "ValidatingAdmissionPolicyBinding") != "ValidatingAdmissionPolicyBinding":
        return
    actions = spec.get("validationActions") or ()
    if not actions:
        errors.append(required("spec.validationActions"))
    for index, action in enumerate(actions):
        at = f"spec.validationActions[{index}]"
        one_of(errors, at, action, ("Audit", "Deny", "Warn"))
        if action in actions[:index]:
            errors.append(duplicate(at, action))
    if {"Deny", "Warn"} <= set(actions):
        detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"
        errors.append(invalid_value("spec.validationActions", list(actions), detail))


def _param_ref(errors: Errors, ref: Object) -> None:
    at = "spec.paramRef"
    if ref.get("name") and ref.get("selector") is not None:
        errors.append(forbidden_field(f"{at}.name", "name and selector are mutually exclusive"))
        errors.append(forbidden_field(f"{at}.selector", "name and selector are mutually exclusive"))
    elif not ref.get("name") and ref.get("selector") is None:
        errors.append(required(at, "one of name or selector must be specified"))
    action = ref.get("parameterNotFoundAction")
    required_one_of(errors, f"{at}.parameterNotFoundAction", action, ("Deny", "Allow"))


def binding_update(errors: Errors, new: Object, old: Object) -> None:
    binding(errors, new)
