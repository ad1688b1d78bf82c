"""What a pod is when it does not say otherwise; templates of every workload share it.

Some defaults belong to pods alone (requests from limits, host ports, service links): a template keeps what was written,
or changing a limit there would leave a stale request behind. Source: API reference, "PodSpec", "Container", "Volume".
"""

from __future__ import annotations

import re
from typing import Any

from sampan.api import quantity

Json = dict[str, Any]

# name[:tag][@digest], where a colon before a slash belongs to the registry's port.
_IMAGE = re.compile(r"[^@]*?(?::(?P<tag>[\w][\w.-]*))?(?:@(?P<digest>.+))?", re.ASCII)
# What can be asked for a pod as a whole (KEP-2837).
_POD_LEVEL = ("cpu", "memory")


def pod(obj: Json) -> None:
    """Defaults of a Pod object: those of its spec, and those no template has."""
    spec = obj.setdefault("spec", {})
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        _requests_from_limits(container)
    _pod_requests(spec)
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            for port in container.get("ports", ()):
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]
    pod_spec(spec)
    status = obj.get("status")
    if status:
        _mirror_address(status, "podIP", "podIPs")
        _mirror_address(status, "hostIP", "hostIPs")


def _mirror_address(status: Json, one: str, many: str) -> None:
    """The single address is the first of the list; where they differ the single one, which old clients write, wins."""
    single, listed = status.get(one), status.get(many)
    if single and not (listed and listed[0].get("ip") == single):
        status[many] = [{"ip": single}]
    elif listed and not single:
        status[one] = listed[0].get("ip", "")


def template(owner: Json, key: str = "template") -> None:
    """Defaults of the PodTemplateSpec under `key`; it is always there, and so are its metadata and spec."""
    found = owner.get(key)
    if found is None:
        found = owner[key] = {}
    found.setdefault("metadata", {})
    pod_spec(found.setdefault("spec", {}))


def pod_spec(spec: Json) -> None:
    """What pods and templates have in common."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:  # the deprecated name mirrors the current one
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in spec.get("containers", ()):
        _container(container)
    for container in spec.get("initContainers", ()):
        _container(container)
    for container in spec.get("ephemeralContainers", ()):
        _container(container)
    for found in spec.get("volumes", ()):
        volume(found)


def pull_policy(image: str) -> str:
    """Always for `latest` and for no tag at all, unless a digest pins the image."""
    match = _IMAGE.fullmatch(image)
    if not image or match is None:
        return "IfNotPresent"
    tag = match["tag"]
    if tag == "latest" or (tag is None and match["digest"] is None):
        return "Always"
    return "IfNotPresent"


def _container(container: Json) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        container["imagePullPolicy"] = pull_policy(container.get("image", ""))
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", ()):
        source = variable.get("valueFrom")
        if source:
            _field_source(source)
            if "fileKeyRef" in source:
                source["fileKeyRef"].setdefault("optional", False)
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if kind in container:
            _probe(container[kind])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _handler(handler)


def _probe(probe: Json) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    _handler(probe)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _handler(handler: Json) -> None:
    request = handler.get("httpGet")
    if request is not None:
        request.setdefault("path", "/")
        request.setdefault("scheme", "HTTP")


def _field_source(source: Json) -> None:
    """valueFrom of a variable, or an item of a downward API volume."""
    if "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")


def _requests_from_limits(container: Json) -> None:
    resources = container.get("resources") or {}
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _pod_requests(spec: Json) -> None:
    """Requests of the pod as a whole follow its containers' sum, else its own limits."""
    limits = (spec.get("resources") or {}).get("limits")
    if not limits:
        return
    requests = spec["resources"].setdefault("requests", {})
    for name in _POD_LEVEL:
        if name in requests:
            continue
        sums = [
            quantity.parse(c["resources"]["requests"][name])
            for c in spec.get("containers", ())
            if name in ((c.get("resources") or {}).get("requests") or {})
        ]
        if sums:
            requests[name] = str(sum(sums[1:], sums[0]))
        elif name in limits:
            requests[name] = limits[name]


# Volumes

_FILE_MODE = 0o644


def volume(found: Json) -> None:
    """Defaults of one volume of a pod; one that names no source is an empty directory."""
    if len(found) <= 1 and "name" in found or not found:
        found["emptyDir"] = {}
        return
    for kind in ("secret", "configMap", "downwardAPI", "projected"):
        if kind in found:
            found[kind].setdefault("defaultMode", _FILE_MODE)
    for item in (found.get("downwardAPI") or {}).get("items", ()):
        _field_source(item)
    for source in (found.get("projected") or {}).get("sources", ()):
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items", ()):
            _field_source(item)
    if "ephemeral" in found:
        claim = found["ephemeral"].get("volumeClaimTemplate")
        if claim is not None:
            claim.setdefault("metadata", {})
            claim_spec(claim.setdefault("spec", {}))
    if "image" in found:
        image = found["image"]
        image.setdefault("pullPolicy", pull_policy(image.get("reference", "")))
    volume_source(found)


def volume_source(found: Json) -> None:
    """Defaults of the sources that pods and PersistentVolumes share."""
    if "hostPath" in found:
        found["hostPath"].setdefault("type", "")
    if "iscsi" in found:
        found["iscsi"].setdefault("iscsiInterface", "default")
    if "rbd" in found:
        found["rbd"].setdefault("pool", "rbd")
        found["rbd"].setdefault("user", "admin")
        found["rbd"].setdefault("keyring", "/etc/ceph/keyring")
    if "azureDisk" in found:
        disk = found["azureDisk"]
        disk.setdefault("cachingMode", "ReadWrite")
        disk.setdefault("fsType", "ext4")
        disk.setdefault("readOnly", False)
        disk.setdefault("kind", "Shared")
    if "scaleIO" in found:
        found["scaleIO"].setdefault("storageMode", "ThinProvisioned")
        found["scaleIO"].setdefault("fsType", "xfs")


def claim_spec(spec: Json) -> None:
    """Defaults of a PersistentVolumeClaimSpec."""
    spec.setdefault("resources", {})
    spec.setdefault("volumeMode", "Filesystem")
