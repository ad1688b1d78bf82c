"""PersistentVolumes, claims and classes. Source: API reference, PersistentVolume; storage.k8s.io/v1."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.validate.affinity import node_selector
from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    amount,
    dns_subdomain,
    duplicate,
    forbidden_field,
    immutable,
    invalid_value,
    key_problems,
    label_selector,
    not_supported,
    one_of,
    required,
    texts,
    too_long,
)
from sampan.api.validate.claims import access_modes, claim_spec
from sampan.api.validate.pod import difference
from sampan.api.validate.volumes import csi_driver_name, persistent_sources
from sampan.base.objects import Object

_RECLAIM = ("Delete", "Recycle", "Retain")
_MOST_PARAMETERS, _PARAMETERS_SIZE = 512, 256 * 1024  # of a class
_CLASS_NOTE = "volume.beta.kubernetes.io/storage-class"


# PersistentVolume


def volume(errors: Errors, obj: Object) -> None:
    """A PersistentVolume: access modes, a capacity, one source. Source: API reference, PersistentVolumeSpec v1."""
    spec = obj.get("spec") or NONE
    modes = spec.get("accessModes") or ()
    if not modes:
        errors.append(required("spec.accessModes"))
    else:
        access_modes(errors, modes, "spec.accessModes")
    _capacity(errors, spec.get("capacity") or {})
    policy = spec.get("persistentVolumeReclaimPolicy", "")
    if policy and policy not in _RECLAIM:
        errors.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        if affinity.get("required") is None:
            errors.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
        else:
            node_selector(errors, affinity["required"], "spec.nodeAffinity.required")
    _sources(errors, spec)
    if (spec.get("hostPath") or NONE).get("path") == "/" and policy == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden_field("spec.persistentVolumeReclaimPolicy", detail))
    if spec.get("storageClassName"):
        dns_subdomain(errors, "spec.storageClassName", spec["storageClassName"])
    mode = spec.get("volumeMode")
    if mode is not None:
        one_of(errors, "spec.volumeMode", mode, ("Block", "Filesystem"))
    if spec.get("volumeAttributesClassName") is not None:
        _attributes_class(errors, spec)


def _attributes_class(errors: Errors, spec: Object) -> None:
    at, name = "spec.volumeAttributesClassName", spec["volumeAttributesClassName"]
    if not name:
        errors.append(required(at, "an empty string is disallowed"))
    else:
        dns_subdomain(errors, at, name)
    if spec.get("csi") is None:
        errors.append(required("spec.csi", "has to be specified when using volumeAttributesClassName"))


def _capacity(errors: Errors, capacity: Object) -> None:
    if not capacity:
        errors.append(required("spec.capacity"))
    elif set(capacity) != {"storage"}:
        errors.append(not_supported("spec.capacity", capacity, ("storage",)))
    for name, text in capacity.items():
        size = amount(text)
        if size is not None and size.nano <= 0:
            errors.append(invalid_value(f"spec.capacity[{name}]", text, "must be greater than zero"))


def _sources(errors: Errors, spec: Object) -> None:
    if not persistent_sources(errors, spec, "spec"):
        errors.append(required("spec", "must specify a volume type"))


def volume_update(errors: Errors, new: Object, old: Object) -> None:
    """Its source stays, but for a secret that makes it possible to expand it; its node affinity stays once it has one."""
    volume(errors, new)
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    mine, was = _source_of(after), _source_of(before)
    if mine != was and not _adds_expand_secret(mine, was):
        detail = "spec.persistentvolumesource is immutable after creation\n" + difference(mine, was)
        errors.append(forbidden_field("spec.persistentvolumesource", detail))
    immutable(errors, "spec.volumeMode", after.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None and after.get("nodeAffinity") != before["nodeAffinity"]:
        detail = "field is immutable, except for updating from beta label to GA"
        errors.append(invalid_value("spec.nodeAffinity", after.get("nodeAffinity"), detail))


_NOT_SOURCE = (
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
)


def _source_of(spec: Object) -> Object:
    return {k: v for k, v in spec.items() if k not in _NOT_SOURCE}


def _adds_expand_secret(new: Object, old: Object) -> bool:
    """A CSI volume may be given the secret for its growth later."""
    mine, was = new.get("csi"), old.get("csi")
    if not mine or not was or was.get("controllerExpandSecretRef") is not None:
        return False
    return {k: v for k, v in mine.items() if k != "controllerExpandSecretRef"} == was


# PersistentVolumeClaim


def claim(errors: Errors, obj: Object) -> None:
    claim_spec(errors, obj.get("spec") or NONE, "spec")


def claim_update(errors: Errors, new: Object, old: Object) -> None:
    """Nothing of it changes but, once it is bound, the size it asks for (upwards, or back while it has less: KEP-1790) and its
    attributes class (KEP-3751). A volume and a default class may be filled in once.
    """
    claim(errors, new)
    after, before = dict(new.get("spec") or NONE), dict(old.get("spec") or NONE)
    bound = (old.get("status") or NONE).get("phase") == "Bound"
    shown = dict(after)
    if not before.get("volumeName"):
        after["volumeName"] = before["volumeName"] = None
    if before.get("storageClassName") is None and after.get("storageClassName") is not None:
        notes = old["metadata"].get("annotations") or NONE
        if _CLASS_NOTE not in notes:  # a default class that comes later may be filled in
            before["storageClassName"] = after["storageClassName"]
    if bound:
        asked = (after.get("resources") or NONE).get("requests") or NONE
        if asked.get("storage") is not None:
            _no_shrink(errors, asked["storage"], old)
            after["resources"] = _with_request(after, before)
        after["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if _without_none(after) != _without_none(before):
        detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"
        errors.append(forbidden_field("spec", detail + difference(shown, old.get("spec") or NONE)))
    immutable(errors, "volumeMode", shown.get("volumeMode"), (old.get("spec") or NONE).get("volumeMode"))


def _without_none(spec: Object) -> Object:
    return {k: v for k, v in spec.items() if v is not None}


def _with_request(after: Object, before: Object) -> Object:
    """The resources of `after` with the request of `before`."""
    resources = dict(after.get("resources") or NONE)
    resources["requests"] = (before.get("resources") or NONE).get("requests")
    return resources


def _no_shrink(errors: Errors, wanted: str, old: Object) -> None:
    """A claim grows; it may take back a growth that has not come about. Source: KEP-1790."""
    asked = (((old.get("spec") or NONE).get("resources") or NONE).get("requests") or NONE).get("storage")
    has = ((old.get("status") or NONE).get("capacity") or NONE).get("storage")
    new, before = amount(wanted), amount(asked) if asked is not None else None
    held = amount(has) if has is not None else before
    if new is None or before is None or held is None:
        return
    if new < before and new <= held and not (new == held == before):
        detail = "field can not be less than status.capacity"
        errors.append(forbidden_field("spec.resources.requests.storage", detail))


# StorageClass


def storage_class(errors: Errors, obj: Object) -> None:
    """Source: API reference, StorageClass v1."""
    _provisioner(errors, obj.get("provisioner", ""), "provisioner")
    _parameters(errors, obj.get("parameters") or {}, "parameters")
    policy = obj.get("reclaimPolicy")
    if policy:
        one_of(errors, "reclaimPolicy", policy, ("Delete", "Retain"))
    mode = obj.get("volumeBindingMode")
    if mode is None:
        errors.append(required("volumeBindingMode"))
    else:
        one_of(errors, "volumeBindingMode", mode, ("Immediate", "WaitForFirstConsumer"))
    for index, term in enumerate(obj.get("allowedTopologies") or ()):
        _topology(errors, term, f"allowedTopologies[{index}]")


def _parameters(errors: Errors, given: Object, path: str) -> None:
    if len(given) > _MOST_PARAMETERS:
        errors.append(too_long(path, _MOST_PARAMETERS))
        return
    size = 0
    for key, value in given.items():
        if not key:
            errors.append(invalid_value(path, key, "field can not be empty."))
        size += len(key) + len(value or "")
    if size > _PARAMETERS_SIZE:
        errors.append(too_long(path, _PARAMETERS_SIZE))


def _topology(errors: Errors, term: Object, path: str) -> None:
    seen = set()
    for index, requirement in enumerate(term.get("matchLabelExpressions") or ()):
        at, key = f"{path}.matchLabelExpressions[{index}]", requirement.get("key", "")
        values = requirement.get("values") or ()
        if not values:
            errors.append(required(f"{at}.values"))
        for number, value in enumerate(values):
            if value in values[:number]:
                errors.append(duplicate(f"{at}.values[{number}]", value))
        texts(errors, f"{at}.key", key, key_problems)
        if key in seen:
            errors.append(duplicate(f"{at}.key", key))
        seen.add(key)


def storage_class_update(errors: Errors, new: Object, old: Object) -> None:
    """All that volumes were made by stays."""
    if (new.get("parameters") or {}) != (old.get("parameters") or {}):
        errors.append(forbidden_field("parameters", "updates to parameters are forbidden."))
    for field in ("provisioner", "reclaimPolicy"):
        if new.get(field) != old.get(field):
            errors.append(forbidden_field(field, f"updates to {field} are forbidden."))
    immutable(errors, "volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"))


# VolumeAttachment, VolumeAttributesClass


def attachment(errors: Errors, obj: Object) -> None:
    """It attaches a PersistentVolume or an inline volume, never both. Source: API reference, VolumeAttachmentSpec v1."""
    spec = obj.get("spec") or NONE
    if not spec.get("attacher"):
        errors.append(required("spec.attacher"))
    source = spec.get("source") or NONE
    inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    if inline is None and name is None:
        errors.append(
            required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
        )
    elif inline is not None and name is not None:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(forbidden_field("spec.source", detail))
    elif name == "":
        errors.append(
            required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName")
        )
    if not spec.get("nodeName"):
        errors.append(required("spec.nodeName"))
    else:
        dns_subdomain(errors, "spec.nodeName", spec["nodeName"])


def attachment_update(errors: Errors, new: Object, old: Object) -> None:
    attachment(errors, new)
    if new.get("spec") != old.get("spec"):
        errors.append(invalid_value("spec", new.get("spec"), IMMUTABLE))


def _provisioner(errors: Errors, name: str, path: str) -> None:
    if not name:
        errors.append(required(path))
    for problem in key_problems(name.lower()) if name else ():
        errors.append(invalid_value(path, name, problem))


def attributes_class(errors: Errors, obj: Object) -> None:
    """Source: API reference, VolumeAttributesClass v1 (KEP-3751)."""
    parameters = obj.get("parameters") or {}
    _provisioner(errors, obj.get("driverName", ""), "driverName")
    if not parameters:
        errors.append(required("parameters", "must contain at least one key/value pair"))
    _parameters(errors, parameters, "parameters")


def attributes_class_update(errors: Errors, new: Object, old: Object) -> None:
    for field in ("driverName", "parameters"):
        if new.get(field) != old.get(field):
            errors.append(forbidden_field(field, f"updates to {field} are forbidden."))


# CSI


def csi_driver(errors: Errors, obj: Object) -> None:
    """Source: API reference, CSIDriverSpec v1. Tokens for drivers last ten minutes or more, one for each audience."""
    spec = obj.get("spec") or NONE
    csi_driver_name(errors, obj["metadata"].get("name", ""), "metadata.name")
    for field in ("attachRequired", "podInfoOnMount", "storageCapacity"):
        if spec.get(field) is None:
            errors.append(required(f"spec.{field}"))
    if spec.get("fsGroupPolicy") is not None:
        allowed = ("ReadWriteOnceWithFSType", "File", "None")
        one_of(errors, "spec.fsGroupPolicy", spec["fsGroupPolicy"], allowed)
    audiences: list[str] = []
    for index, request in enumerate(spec.get("tokenRequests") or ()):
        at = f"spec.tokenRequests[{index}]"
        audience, seconds = request.get("audience", ""), request.get("expirationSeconds")
        if audience in audiences:
            errors.append(duplicate(f"{at}.audience", audience))
        audiences.append(audience)
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            errors.append(invalid_value(f"{at}.expirationSeconds", seconds, detail))
    modes = spec.get("volumeLifecycleModes") or ()
    for mode in modes:
        one_of(errors, "spec.volumeLifecycleModes", mode, ("Ephemeral", "Persistent"))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        detail = "must be greater than or equal to 10 seconds"
        errors.append(invalid_value("spec.nodeAllocatableUpdatePeriodSeconds", period, detail))


def csi_driver_update(errors: Errors, new: Object, old: Object) -> None:
    """What nodes may have acted upon stays."""
    csi_driver(errors, new)
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    for field in ("attachRequired", "volumeLifecycleModes"):
        immutable(errors, f"spec.{field}", after.get(field), before.get(field))


def csi_node(errors: Errors, obj: Object) -> None:
    """A driver is listed once, with the name it gives the node. Source: API reference, CSINodeSpec v1."""
    seen: set[str] = set()
    for index, driver in enumerate((obj.get("spec") or NONE).get("drivers") or ()):
        at, name = f"spec.drivers[{index}]", driver.get("name", "")
        csi_driver_name(errors, name, f"{at}.name")
        if not driver.get("nodeID"):
            errors.append(required(f"{at}.nodeID"))
        elif len(driver["nodeID"]) > 192:
            errors.append(invalid_value(f"{at}.nodeID", driver["nodeID"], "must be 192 characters or less"))
        count = (driver.get("allocatable") or NONE).get("count")
        if count is not None and count < 0:
            errors.append(
                invalid_value(f"{at}.allocatable.count", count, "must be greater than or equal to 0")
            )
        keys: Sequence[str] = driver.get("topologyKeys") or ()
        for number, key in enumerate(keys):
            if not key:
                errors.append(required(f"{at}.topologyKeys"))
            elif key in keys[:number]:
                errors.append(duplicate(f"{at}.topologyKeys", key))
            else:
                texts(errors, f"{at}.topologyKeys", key, key_problems)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)


def csi_node_update(errors: Errors, new: Object, old: Object) -> None:
    csi_node(errors, new)


def storage_capacity(errors: Errors, obj: Object) -> None:
    """Source: API reference, CSIStorageCapacity v1."""
    if not obj.get("storageClassName"):
        errors.append(required("storageClassName"))
    else:
        dns_subdomain(errors, "storageClassName", obj["storageClassName"])
    label_selector(errors, "nodeTopology", obj.get("nodeTopology"))
    for field in ("capacity", "maximumVolumeSize"):
        size = amount(obj[field]) if obj.get(field) is not None else None
        if size is not None and size.nano < 0:
            errors.append(invalid_value(field, obj[field], "must be greater than or equal to 0"))


def storage_capacity_update(errors: Errors, new: Object, old: Object) -> None:
    for field in ("nodeTopology", "storageClassName"):
        immutable(errors, field, new.get(field), old.get(field))
