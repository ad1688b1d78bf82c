"""Volumes of a pod and the sources they share with PersistentVolumes. Source: API reference, Volume; "Volumes"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    amount,
    dns_label,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    one_of,
    required,
    texts,
    too_long,
)
from sampan.api.validate.certificates import signer_name
from sampan.api.validate.claims import claim_spec
from sampan.api.validate.downward import FILE_FIELDS, field_ref, resource_ref
from sampan.api.validate.meta import template_meta
from sampan.api.validate.pod_certificates import certified, user_annotations
from sampan.base.objects import Object
from sampan.base.pki import POD_KEYS

Source = Callable[[Errors, Object, str], None]

_MODE_RANGE = "must be a number between 0 and 0777 (octal), both inclusive"
_ONE_TYPE = "may not specify more than 1 volume type"
_HOST_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)


def pod_volumes(errors: Errors, volumes: Sequence[Object], path: str, pod: Object | None = None) -> set[str]:
    """The volumes of a pod; answers their names, for mounts to be checked against."""
    known: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        name = volume.get("name", "")
        before = len(errors)
        pod_source(errors, volume, at)
        if not name:
            errors.append(required(f"{at}.name"))
        else:
            dns_label(errors, f"{at}.name", name)
        if name in known:
            errors.append(duplicate(f"{at}.name", name))
        if len(errors) == before:
            known.add(name)
    return known


def pod_source(errors: Errors, volume: Object, path: str) -> None:
    """Exactly one source, and what that source asks for."""
    found = False
    for kind in volume:
        check = _POD_SOURCES.get(kind)
        if check is None or volume[kind] is None:
            continue
        if len(volume) > 2 and _later(volume, kind):
            errors.append(forbidden_field(f"{path}.{kind}", _ONE_TYPE))
        else:
            check(errors, volume[kind], f"{path}.{kind}")
        found = True
    if not found:
        errors.append(required(path, "must specify a volume type"))


def _later(volume: Object, kind: str) -> bool:
    """Whether a source that comes before `kind` in the original's order is there, too."""
    for other in _POD_SOURCES:
        if other == kind:
            return False
        if volume.get(other) is not None:
            return True
    return False


def local_path(errors: Errors, path: str, text: str, *, descending: bool = False) -> None:
    """A relative path that stays below where it starts (and, unless `descending`, does not begin with two dots)."""
    if text.startswith("/"):
        errors.append(invalid_value(path, text, "must be a relative path"))
    if ".." in text.split("/"):
        errors.append(invalid_value(path, text, "must not contain '..'"))
    elif not descending and text.startswith(".."):
        errors.append(invalid_value(path, text, "must not start with '..'"))


def no_back_steps(errors: Errors, path: str, text: str) -> None:
    if ".." in text.split("/"):
        errors.append(invalid_value(path, text, "must not contain '..'"))


def _mode(errors: Errors, path: str, mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        errors.append(invalid_value(path, mode, _MODE_RANGE))


def _empty_dir(errors: Errors, source: Object, path: str) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and (size := amount(limit)) is not None and size.nano < 0:
        errors.append(
            forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")
        )


def host_path(errors: Errors, source: Object, path: str) -> None:
    """Source: API reference, HostPathVolumeSource v1: absolute or not, but without `..`."""
    text = source.get("path", "")
    if not text:
        errors.append(required(f"{path}.path"))
    else:
        no_back_steps(errors, f"{path}.path", text)
    kind = source.get("type")
    if kind is not None and kind not in _HOST_TYPES:
        errors.append(not_supported(f"{path}.type", kind, _HOST_TYPES))


def _git(errors: Errors, source: Object, path: str) -> None:
    if not source.get("repository"):
        errors.append(required(f"{path}.repository"))
    local_path(errors, f"{path}.directory", source.get("directory", ""), descending=True)


def _items(errors: Errors, items: Sequence[Object] | None, path: str) -> None:
    """Keys that become files."""
    for index, item in enumerate(items or ()):
        at = f"{path}[{index}]"
        if not item.get("key"):
            errors.append(required(f"{at}.key"))
        text = item.get("path", "")
        if not text:
            errors.append(required(f"{at}.path"))
        local_path(errors, f"{at}.path", text)
        _mode(errors, f"{at}.mode", item.get("mode"))


def _secret(errors: Errors, source: Object, path: str) -> None:
    if not source.get("secretName"):
        errors.append(required(f"{path}.secretName"))
    _mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    _items(errors, source.get("items"), f"{path}.items")


def _config_map(errors: Errors, source: Object, path: str) -> None:
    if not source.get("name"):
        errors.append(required(f"{path}.name"))
    _mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    _items(errors, source.get("items"), f"{path}.items")


def _claim(errors: Errors, source: Object, path: str) -> None:
    if not source.get("claimName"):
        errors.append(required(f"{path}.claimName"))


def _downward_item(errors: Errors, item: Object, path: str) -> None:
    text = item.get("path", "")
    if not text:
        errors.append(required(f"{path}.path"))
    local_path(errors, f"{path}.path", text)
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        field_ref(errors, field, f"{path}.fieldRef", FILE_FIELDS)
        if resource is not None:
            errors.append(
                invalid_value(
                    path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
                )
            )
    elif resource is not None:
        resource_ref(errors, resource, f"{path}.resourceFieldRef", volume=True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    _mode(errors, f"{path}.mode", item.get("mode"))


def _downward(errors: Errors, source: Object, path: str) -> None:
    _mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    for item in source.get("items") or ():
        _downward_item(errors, item, path)  # the original names no index


# Projected volumes


def _projected(errors: Errors, source: Object, path: str) -> None:
    _mode(errors, f"{path}.defaultMode", source.get("defaultMode"))
    taken: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        count = 0
        for kind in part:
            check = _PROJECTIONS.get(kind)
            if check is None or part[kind] is None:
                continue
            count += 1
            if count > 1:
                errors.append(forbidden_field(at, _ONE_TYPE))
                continue
            for written in check(errors, part[kind], f"{at}.{kind}"):
                if written in taken:
                    errors.append(invalid_value(path, written, "conflicting duplicate paths"))
                taken.add(written)
        if not count:
            errors.append(required(at, "projection must have exactly one source"))


def _projected_keys(errors: Errors, part: Object, path: str) -> list[str]:
    if not part.get("name"):
        errors.append(required(f"{path}.name"))
    _items(errors, part.get("items"), f"{path}.items")
    return [i["path"] for i in part.get("items") or () if i.get("path")]


def _projected_downward(errors: Errors, part: Object, path: str) -> list[str]:
    for item in part.get("items") or ():
        _downward_item(errors, item, path)
    return [i["path"] for i in part.get("items") or () if i.get("path")]


def _projected_token(errors: Errors, part: Object, path: str) -> list[str]:
    seconds = part.get("expirationSeconds", 3600)
    if seconds < 600:
        detail = "may not specify a duration less than 10 minutes"
        errors.append(invalid_value(f"{path}.expirationSeconds", seconds, detail))
    if seconds > 1 << 32:
        detail = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid_value(f"{path}.expirationSeconds", seconds, detail))
    text = part.get("path", "")
    if not text:
        errors.append(required(f"{path}.path"))
        return []
    local_path(errors, f"{path}.path", text)
    return [text]


def _projected_bundle(errors: Errors, part: Object, path: str) -> list[str]:
    text = part.get("path", "")
    name, signer = part.get("name"), part.get("signerName")
    if name and signer:
        errors.append(invalid_value(path, "", "only one of name and signerName may be used"))
    elif not name and not signer:
        errors.append(required(path, "either name or signerName must be specified"))
    if not text:
        errors.append(required(f"{path}.path"))
        return []
    local_path(errors, f"{path}.path", text)
    return [text]


def _projected_certificate(errors: Errors, part: Object, path: str) -> list[str]:
    signer, seconds = part.get("signerName", ""), part.get("maxExpirationSeconds")
    signer_name(errors, signer, f"{path}.signerName")
    one_of(errors, f"{path}.keyType", part.get("keyType", ""), POD_KEYS)
    shortest, longest = certified(signer)
    if seconds is not None and not shortest <= seconds <= longest:
        bound = f">= {shortest}" if seconds < shortest else f"<= {longest}"
        detail = f"if provided, maxExpirationSeconds must be {bound}"
        errors.append(invalid_value(f"{path}.maxExpirationSeconds", seconds, detail))
    fields = [f for f in ("credentialBundlePath", "keyPath", "certificateChainPath") if part.get(f)]
    if not fields:
        errors.append(
            required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
        )
    for field in fields:
        local_path(errors, f"{path}.{field}", part[field])
    user_annotations(errors, f"{path}.userAnnotations", part.get("userAnnotations") or {})
    return [part[f] for f in fields]


_PROJECTIONS: dict[str, Callable[[Errors, Object, str], list[str]]] = {
    "secret": _projected_keys,
    "configMap": _projected_keys,
    "downwardAPI": _projected_downward,
    "serviceAccountToken": _projected_token,
    "clusterTrustBundle": _projected_bundle,
    "podCertificate": _projected_certificate,
}

# Storage over the network, and what plugs in


def nfs(errors: Errors, source: Object, path: str) -> None:
    for field in ("server", "path"):
        if not source.get(field):
            errors.append(required(f"{path}.{field}"))
    if source.get("path") and not source["path"].startswith("/"):
        errors.append(invalid_value(f"{path}.path", source["path"], "must be an absolute path"))


def _needs(*fields: str) -> Source:
    """A source of which these fields must be given."""

    def check(errors: Errors, source: Object, path: str) -> None:
        for field in fields:
            if not source.get(field):
                errors.append(required(f"{path}.{field}"))

    return check


def iscsi(errors: Errors, source: Object, path: str) -> None:
    """Source: API reference, ISCSIVolumeSource v1; names as in RFC 3720, section 3.2.6.3."""
    if not source.get("targetPortal"):
        errors.append(required(f"{path}.targetPortal"))
    name = source.get("iqn", "")
    if not name:
        errors.append(required(f"{path}.iqn"))
    elif not name.startswith(("iqn", "eui", "naa")):
        errors.append(
            invalid_value(f"{path}.iqn", name, "must be valid format starting with iqn, eui, or naa")
        )
    if not 0 <= source.get("lun", 0) <= 255:
        errors.append(invalid_value(f"{path}.lun", source["lun"], "must be between 0 and 255, inclusive"))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and not source.get("secretRef"):
        errors.append(required(f"{path}.secretRef"))


def fibre_channel(errors: Errors, source: Object, path: str) -> None:
    """Targets and a lun, or world wide identifiers. Source: API reference, FCVolumeSource v1."""
    if not source.get("targetWWNs") and not source.get("wwids"):
        errors.append(required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if source.get("targetWWNs") and source.get("wwids"):
        detail = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(invalid_value(f"{path}.targetWWNs", source["targetWWNs"], detail))
    if source.get("targetWWNs"):
        lun = source.get("lun")
        if lun is None:
            errors.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= 255:
            errors.append(invalid_value(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))


def _csi_inline(errors: Errors, source: Object, path: str) -> None:
    csi_driver_name(errors, source.get("driver", ""), f"{path}.driver")
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        errors.append(required(f"{path}.nodePublishSecretRef.name"))


def csi_driver_name(errors: Errors, name: str, path: str) -> None:
    """Source: API reference, CSIDriver v1, metadata."""
    if not name:
        errors.append(required(path))
        return
    if len(name) > 63:
        errors.append(too_long(path, 63))
    texts(errors, path, name.lower(), names.dns1123_subdomain)


def _ephemeral(errors: Errors, source: Object, path: str) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        errors.append(required(f"{path}.volumeClaimTemplate"))
        return
    at = f"{path}.volumeClaimTemplate"
    template_meta(errors, template.get("metadata"), f"{at}.metadata")
    claim_spec(errors, template.get("spec") or NONE, f"{at}.spec")


def _image(errors: Errors, source: Object, path: str) -> None:
    if not source.get("reference"):
        errors.append(required(f"{path}.reference"))
    policy = source.get("pullPolicy")
    if policy:
        one_of(errors, f"{path}.pullPolicy", policy, ("Always", "IfNotPresent", "Never"))


_NO_FIELDS = _needs()
# In the order in which the original looks for them; the second one found is refused.
_POD_SOURCES: dict[str, Source] = {
    "emptyDir": _empty_dir,
    "hostPath": host_path,
    "gitRepo": _git,
    "gcePersistentDisk": _needs("pdName"),
    "awsElasticBlockStore": _needs("volumeID"),
    "secret": _secret,
    "nfs": nfs,
    "iscsi": iscsi,
    "glusterfs": _needs("endpoints", "path"),
    "flexVolume": _needs("driver"),
    "configMap": _config_map,
    "persistentVolumeClaim": _claim,
    "downwardAPI": _downward,
    "fc": fibre_channel,
    "flocker": _NO_FIELDS,
    "portworxVolume": _needs("volumeID"),
    "azureDisk": _needs("diskName", "diskURI"),
    "storageos": _NO_FIELDS,
    "quobyte": _needs("registry", "volume"),
    "azureFile": _needs("secretName", "shareName"),
    "vsphereVolume": _needs("volumePath"),
    "photonPersistentDisk": _needs("pdID"),
    "projected": _projected,
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "cephfs": _needs("monitors"),
    "rbd": _needs("monitors", "image"),
    "cinder": _needs("volumeID"),
    "csi": _csi_inline,
    "ephemeral": _ephemeral,
    "image": _image,
}


# PersistentVolumes


def _csi_persistent(errors: Errors, source: Object, path: str) -> None:
    csi_driver_name(errors, source.get("driver", ""), f"{path}.driver")
    if not source.get("volumeHandle"):
        errors.append(required(f"{path}.volumeHandle"))
    for field in source:
        ref = source[field] if field.endswith("SecretRef") else None
        for part in ("name", "namespace"):
            if ref is not None and not ref.get(part):
                errors.append(required(f"{path}.{field}.{part}"))


def _local(errors: Errors, source: Object, path: str) -> None:
    if not source.get("path"):
        errors.append(required(f"{path}.path"))
    else:
        no_back_steps(errors, f"{path}.path", source["path"])


_ONLY_PODS = (
    "emptyDir",
    "gitRepo",
    "secret",
    "configMap",
    "persistentVolumeClaim",
    "downwardAPI",
    "projected",
    "csi",
    "ephemeral",
    "image",
)
_PERSISTENT: dict[str, Source] = {
    **{k: v for k, v in _POD_SOURCES.items() if k not in _ONLY_PODS},
    "local": _local,
    "csi": _csi_persistent,
}


def persistent_sources(errors: Errors, spec: Object, path: str) -> bool:
    """The one source of a PersistentVolume. Answers whether there is any."""
    found = False
    for kind, check in _PERSISTENT.items():
        source = spec.get(kind)
        if source is None:
            continue
        if found:
            errors.append(forbidden_field(f"{path}.{kind}", _ONE_TYPE))
            continue
        found = True
        check(errors, source, f"{path}.{kind}")
        if kind == "local" and spec.get("nodeAffinity") is None:
            errors.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
    return found
