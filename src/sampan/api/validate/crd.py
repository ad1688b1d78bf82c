"""CustomResourceDefinitions: names, versions, conversion, what may change. Their schemas are judged in `crd_schema`.

What all versions share (schema, subresources, columns) is reported once, under the path of the definition's older
form, as the original does. Source: API reference, CustomResourceDefinition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api import names
from sampan.api.validate import crd_schema
from sampan.api.validate.admissionregistration import client_config
from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    subdomain_problems,
)
from sampan.base.objects import Object

_PRESERVE = "cannot set to true, set x-preserve-unknown-fields to true in spec.versions[*].schema instead"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")


def create(errors: Errors, obj: Object) -> None:
    """What a new definition may say. `preserveUnknownFields` belongs into the schema now."""
    spec = obj.get("spec") or NONE
    _name(errors, obj, spec)
    _spec(errors, spec)
    _stored(errors, obj, spec)
    _approval(errors, obj, spec)
    if spec.get("preserveUnknownFields"):
        errors.append(invalid_value("spec.preserveUnknownFields", True, _PRESERVE))


def _name(errors: Errors, obj: Object, spec: Object) -> None:
    name = obj["metadata"].get("name", "")
    if name != f"{(spec.get('names') or NONE).get('plural', '')}.{spec.get('group', '')}" and name:
        errors.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))


def _spec(errors: Errors, spec: Object) -> None:
    group, scope = spec.get("group", ""), spec.get("scope", "")
    if not group:
        errors.append(required("spec.group"))
    elif problems := subdomain_problems(group):
        errors.append(invalid_value("spec.group", group, ",".join(problems)))
    elif "." not in group:
        errors.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    if not scope:
        errors.append(required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        errors.append(not_supported("spec.scope", scope, ("Cluster", "Namespaced")))
    versions = spec.get("versions") or ()
    _versions(errors, versions)
    shown = [v.get("name", "") for v in versions]
    if len(set(shown)) != len(shown):
        errors.append(invalid_value("spec.versions", list(versions), "must contain unique version names"))
    if sum(bool(v.get("storage")) for v in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(invalid_value("spec.versions", list(versions), detail))
    given = spec.get("names") or NONE
    for field in ("plural", "singular", "kind", "listKind"):
        if not given.get(field):
            errors.append(required(f"spec.names.{field}"))
    resource_names(errors, given, "spec.names")
    _conversion(errors, spec.get("conversion") or {"strategy": "None"})


def _versions(errors: Errors, versions: Sequence[Object]) -> None:
    """Each version by itself, then what all have in common."""
    same = {f: _shared(versions, f) for f in ("schema", "subresources", "additionalPrinterColumns")}
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        problems = names.dns1035_label(version.get("name", ""))
        if problems:
            errors.append(invalid_value(f"{at}.name", version.get("name", ""), ",".join(problems)))
        if version.get("deprecationWarning") is not None:
            _warning(errors, version, at)
        text = (version.get("schema") or NONE).get("openAPIV3Schema")
        if text is None:
            errors.append(required(f"{at}.schema.openAPIV3Schema", "schemas are required"))
        elif not same["schema"]:
            crd_schema.schema(errors, text, f"{at}.schema.openAPIV3Schema")
        if not same["subresources"]:
            _subresources(errors, version.get("subresources"), f"{at}.subresources")
        if not same["additionalPrinterColumns"]:
            _columns(errors, version.get("additionalPrinterColumns"), f"{at}.additionalPrinterColumns")
        _selectable(errors, version, at)
    if not versions:
        return
    first = versions[0]
    text = (first.get("schema") or NONE).get("openAPIV3Schema")
    if same["schema"] and text is not None:
        crd_schema.schema(errors, text, "spec.validation.openAPIV3Schema")
    if same["subresources"]:
        _subresources(errors, first.get("subresources"), "spec.subresources")
    if same["additionalPrinterColumns"]:
        _columns(errors, first.get("additionalPrinterColumns"), "spec.additionalPrinterColumns")


def _shared(versions: Sequence[Object], field: str) -> bool:
    return all(v.get(field) == versions[0].get(field) for v in versions)


def _warning(errors: Errors, version: Object, path: str) -> None:
    text, at = version["deprecationWarning"], f"{path}.deprecationWarning"
    if not version.get("deprecated"):
        errors.append(invalid_value(at, text, "can only be set for deprecated versions"))
    elif not text:
        errors.append(invalid_value(at, text, "must not be an empty string"))
    elif len(text.encode()) > 256:
        errors.append(invalid_value(at, text, "must be <= 256 UTF-8 characters"))


def resource_names(errors: Errors, given: Object, path: str) -> None:
    """Names under which a resource is reached, as asked for or as accepted."""
    mixed = "may have mixed case, but should otherwise match: "
    for field in ("plural", "singular", "kind", "listKind"):
        text = given.get(field) or ""
        lower = text.lower() if field in ("kind", "listKind") else text
        problems = names.dns1035_label(lower) if text else []
        if problems:
            prefix = mixed if field in ("kind", "listKind") else ""
            errors.append(invalid_value(f"{path}.{field}", text, prefix + ",".join(problems)))
    for field in ("shortNames",):
        _each_name(errors, given.get(field), f"{path}.{field}")
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        detail = "kind and listKind may not be the same"
        errors.append(invalid_value(f"{path}.listKind", given["listKind"], detail))
    _each_name(errors, given.get("categories"), f"{path}.categories")


def _each_name(errors: Errors, given: Sequence[str] | None, path: str) -> None:
    for index, text in enumerate(given or ()):
        problems = names.dns1035_label(text)
        if problems:
            errors.append(invalid_value(f"{path}[{index}]", text, ",".join(problems)))


# Subresources, columns, selectable fields


def _subresources(errors: Errors, given: Object | None, path: str) -> None:
    scale = (given or NONE).get("scale")
    if scale is None:
        return
    for field, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        text = scale.get(field, "")
        if not text:
            errors.append(required(f"{path}.scale.{field}"))
        else:
            _scale_path(errors, text, root, f"{path}.scale.{field}")
    selector = scale.get("labelSelectorPath")
    if selector:
        at = f"{path}.scale.labelSelectorPath"
        if not _simple_path(errors, selector, at):
            return
        if not selector.startswith((".spec.", ".status.")):
            errors.append(invalid_value(at, selector, "should be a json path under either .spec or .status"))


def _scale_path(errors: Errors, text: str, root: str, path: str) -> None:
    if _simple_path(errors, text, path) and not text.startswith(root):
        errors.append(invalid_value(path, text, f"should be a json path under {root[:-1]}"))


def _simple_path(errors: Errors, text: str, path: str) -> bool:
    """A path of plain fields: `.spec.replicas`."""
    if not text.startswith("."):
        errors.append(invalid_value(path, text, "must be a simple json path starting with ."))
        return False
    return True


def _columns(errors: Errors, columns: Sequence[Object] | None, path: str) -> None:
    for index, column in enumerate(columns or ()):
        at = f"{path}[{index}]"
        if not column.get("name"):
            errors.append(required(f"{at}.name"))
        kind = column.get("type", "")
        if not kind:
            listed = ", ".join(f'"{t}"' for t in _COLUMN_TYPES)
            errors.append(required(f"{at}.type", f"must be one of {listed}"))
        elif kind not in _COLUMN_TYPES:
            errors.append(not_supported(f"{at}.type", kind, _COLUMN_TYPES))
        style = column.get("format")
        if style and style not in _COLUMN_FORMATS:
            errors.append(not_supported(f"{at}.format", style, _COLUMN_FORMATS))
        text = column.get("jsonPath", "")
        where = f"{at}.JSONPath"
        if not text:
            errors.append(required(where))
        else:
            _simple_path(errors, text, where)


def _selectable(errors: Errors, version: Object, path: str) -> None:
    """Source: KEP-4358."""
    seen: set[str] = set()
    given = version.get("selectableFields") or ()
    if len(given) > 8:
        errors.append(invalid_value(f"{path}.selectableFields", "", "must have at most 8 items"))
    for index, field in enumerate(given):
        at, text = f"{path}.selectableFields[{index}].jsonPath", field.get("jsonPath", "")
        if not text:
            errors.append(required(at))
            continue
        if text in seen:
            errors.append(duplicate(at, text))
        seen.add(text)
        _selectable_path(errors, text, (version.get("schema") or NONE).get("openAPIV3Schema") or NONE, at)


def _selectable_path(errors: Errors, text: str, schema: Object, path: str) -> None:
    if text.startswith(".metadata"):
        errors.append(invalid_value(path, text, "must not point to fields in metadata"))
        return
    found: Any = schema
    for part in text.removeprefix(".").split("."):
        found = (found.get("properties") or NONE).get(part) if isinstance(found, dict) else None
        if found is None:
            break
    if not text.startswith(".") or found is None:
        errors.append(invalid_value(path, text, "is an invalid path: does not refer to a valid field"))
    elif found.get("type") not in ("string", "integer", "boolean"):
        errors.append(
            invalid_value(
                path,
                text,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            )
        )


# Conversion


def _conversion(errors: Errors, conversion: Object) -> None:
    strategy, webhook = conversion.get("strategy", ""), conversion.get("webhook") or NONE
    client, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or ()
    at = "spec.conversion"
    if not strategy:
        errors.append(required(f"{at}.strategy"))
    elif strategy not in ("None", "Webhook"):
        errors.append(not_supported(f"{at}.strategy", strategy, ("None", "Webhook")))
    if strategy == "Webhook":
        if client is None:
            errors.append(required(f"{at}.webhookClientConfig", "required when strategy is set to Webhook"))
        else:
            client_config(errors, client, f"{at}.webhookClientConfig")
        _review_versions(errors, versions, f"{at}.conversionReviewVersions")
        return
    detail = "should not be set when strategy is not set to Webhook"
    if client is not None:
        errors.append(forbidden_field(f"{at}.webhookClientConfig", detail))
    if versions:
        errors.append(forbidden_field(f"{at}.conversionReviewVersions", detail))


def _review_versions(errors: Errors, versions: Sequence[str], path: str) -> None:
    if not versions:
        errors.append(required(path))
        return
    for index, version in enumerate(versions):
        for problem in names.dns1035_label(version):
            errors.append(invalid_value(f"{path}[{index}]", version, problem))
    if not {"v1", "v1beta1"} & set(versions):
        detail = "must include at least one of v1, v1beta1"
        errors.append(invalid_value(path, list(versions), detail))


# Versions that are stored, groups that are protected


def _stored(errors: Errors, obj: Object, spec: Object) -> None:
    at, stored = "status.storedVersions", (obj.get("status") or NONE).get("storedVersions") or []
    versions = spec.get("versions") or ()
    if not stored:
        errors.append(invalid_value(at, stored, "must have at least one stored version"))
        return
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            detail = f"must have the storage version {version.get('name', '')}"
            errors.append(invalid_value(at, stored, detail))
    known = {v.get("name") for v in versions}
    for index, name in enumerate(stored):
        if name not in known:
            errors.append(invalid_value(f"{at}[{index}]", name, "must appear in spec.versions"))


_APPROVAL = "api-approved.kubernetes.io"


def _approval(errors: Errors, obj: Object, spec: Object) -> None:
    """Groups of Kubernetes itself need a link to where they were approved. Source: KEP-1111."""
    group = spec.get("group", "")
    if not group.endswith((".k8s.io", ".kubernetes.io")) and group not in ("k8s.io", "kubernetes.io"):
        return
    note = (obj["metadata"].get("annotations") or NONE).get(_APPROVAL, "")
    if not note:
        detail = 'protected groups must have approval annotation "api-approved.kubernetes.io", '
        detail += "see https://github.com/kubernetes/enhancements/pull/1111"
        errors.append(required(f"metadata.annotations[{_APPROVAL}]", detail))
    elif not note.startswith(("http://", "https://", "unapproved")):
        detail = (
            'protected groups must have approval annotation "api-approved.kubernetes.io" with either a URL '
        )
        detail += (
            'or a reason starting with "unapproved", see https://github.com/kubernetes/enhancements/pull/1111'
        )
        errors.append(invalid_value(f"metadata.annotations[{_APPROVAL}]", note, detail))


def update(errors: Errors, new: Object, old: Object) -> None:
    """Group and plural stay, scope and kind once it is served; a version that objects are stored in must still be there."""
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    _spec(errors, after)
    if after.get("preserveUnknownFields") and not before.get("preserveUnknownFields"):
        errors.append(invalid_value("spec.preserveUnknownFields", True, _PRESERVE))
    _fixed(errors, after, before, old)
    resource_names(errors, (new.get("status") or NONE).get("acceptedNames") or NONE, "status.acceptedNames")
    _stored(errors, new, after)
    _approval(errors, new, after)


def _fixed(errors: Errors, after: Object, before: Object, old: Object) -> None:
    """Group and plural never change; scope and kind not once they are served."""
    conditions = (old.get("status") or NONE).get("conditions") or ()
    served = any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
    mine, was = after.get("names") or NONE, before.get("names") or NONE
    pairs = []
    if served:
        pairs.append(("spec.scope", after.get("scope", ""), before.get("scope", "")))
        pairs.append(("spec.names.kind", mine.get("kind", ""), was.get("kind", "")))
    pairs.append(("spec.group", after.get("group", ""), before.get("group", "")))
    pairs.append(("spec.names.plural", mine.get("plural", ""), was.get("plural", "")))
    for path, value, former in pairs:
        if value != former:
            errors.append(invalid_value(path, value, IMMUTABLE))


def status(errors: Errors, new: Object, old: Object) -> None:
    resource_names(errors, (new.get("status") or NONE).get("acceptedNames") or NONE, "status.acceptedNames")
    _stored(errors, new, new.get("spec") or NONE)
