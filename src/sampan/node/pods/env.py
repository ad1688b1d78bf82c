"""A container's environment: its own variables, envFrom, services, and $(VAR) expansion.

Pure: ConfigMaps and Secrets it needs are given in `found`. Messages are kubelet's, as `kubectl describe` shows them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from sampan.base import hostport
from sampan.base.objects import Object
from sampan.node.pods import fields
from sampan.node.pods.problems import ConfigProblem

Found = Mapping[tuple[str, str], Object | None]  # (resource, name) -> object
Files = Mapping[tuple[str, str], Mapping[str, str] | None]  # (volume, path) -> variables; None: no such file
_NO_FILES: Files = {}
_REFERENCE = re.compile(r"\$(\$|\([^()]*\))")


def references(container: Object) -> list[tuple[str, str]]:
    """The (resource, name) of all ConfigMaps and Secrets that the environment needs, each once."""
    wanted: dict[tuple[str, str], None] = {}
    for source in container.get("envFrom") or ():
        for part, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if source.get(part):
                wanted[resource, source[part].get("name", "")] = None
    for variable in container.get("env") or ():
        value = variable.get("valueFrom") or {}
        for part, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if value.get(part):
                wanted[resource, value[part].get("name", "")] = None
    return list(wanted)


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replaces $(VAR); `$$` stands for `$`; unknown references stay as they are."""

    def replace(match: re.Match[str]) -> str:
        inner = match[1]
        return "$" if inner == "$" else known.get(inner[1:-1], match[0])

    return _REFERENCE.sub(replace, text) if "$" in text else text


def resolve(
    pod: Object,
    container: Object,
    found: Found,
    services: Mapping[str, str],
    *,
    ips: Sequence[str],
    host_ips: Sequence[str],
    allocatable: Object,
    files: Files = _NO_FILES,
) -> dict[str, str]:
    """The variables in order. Raises ConfigProblem when a reference that is not optional leads nowhere."""
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        result |= _from_source(source, found)
    for variable in container.get("env") or ():
        name = variable["name"]
        if (variable.get("valueFrom") or {}).get("fileKeyRef"):
            value = _from_file(variable["valueFrom"]["fileKeyRef"], files)
            if value is not None:
                result[name] = value
        elif variable.get("valueFrom"):
            value = _value_from(
                pod,
                container,
                variable["valueFrom"],
                found,
                namespace,
                list(ips),
                list(host_ips),
                allocatable,
            )
            if value is not None:
                result[name] = value
        else:
            result[name] = expand(variable.get("value", ""), {**services, **result})
    for name, value in services.items():
        result.setdefault(name, value)
    return result


def _from_source(source: Object, found: Found) -> dict[str, str]:
    prefix = source.get("prefix", "")
    for part, resource, kind in (
        ("configMapRef", "configmaps", "configmap"),
        ("secretRef", "secrets", "secret"),
    ):
        ref = source.get(part)
        if not ref:
            continue
        obj = found.get((resource, ref.get("name", "")))
        if obj is None:
            if ref.get("optional"):
                return {}
            raise ConfigProblem(f'{kind} "{ref.get("name", "")}" not found')
        return {prefix + key: value for key, value in sorted(text_data(obj, resource).items())}
    return {}


def text_data(obj: Object, resource: str) -> dict[str, str]:
    """The data of a ConfigMap, or of a Secret decoded."""
    data = obj.get("data") or {}
    if resource == "secrets":
        return {
            key: base64.b64decode(value).decode("utf-8", "surrogateescape") for key, value in data.items()
        }
    return data


def _value_from(
    pod: Object,
    container: Object,
    source: Object,
    found: Found,
    namespace: str,
    ips: list[str],
    host_ips: list[str],
    allocatable: Object,
) -> str | None:
    if source.get("fieldRef"):
        return fields.field(pod, source["fieldRef"]["fieldPath"], ips, host_ips)
    if source.get("resourceFieldRef"):
        return fields.resource_field(pod, container, source["resourceFieldRef"], allocatable)
    for part, resource, kind in (
        ("configMapKeyRef", "configmaps", "ConfigMap"),
        ("secretKeyRef", "secrets", "Secret"),
    ):
        ref = source.get(part)
        if not ref:
            continue
        name, key = ref.get("name", ""), ref["key"]
        obj = found.get((resource, name))
        if obj is None:
            if ref.get("optional"):
                return None
            raise ConfigProblem(f'{kind.lower()} "{name}" not found')
        data = text_data(obj, resource)
        if key not in data:
            if ref.get("optional"):
                return None
            raise ConfigProblem(f"couldn't find key {key} in {kind} {namespace}/{name}")
        return data[key]
    return None


def _from_file(ref: Object, files: Files) -> str | None:
    file = files.get((ref["volumeName"], ref["path"]))
    value = None if file is None else file.get(ref["key"])
    if value is None and not ref.get("optional"):
        place = f"{ref['path']} of volume {ref['volumeName']}"
        missing = "does not exist" if file is None else f"has no key {ref['key']}"
        raise ConfigProblem(f"env file {place} {missing}")
    return value


def service_variables(pod: Object, services: Callable[[str], Iterable[Object]]) -> dict[str, str]:
    """`NAME_SERVICE_HOST` and its kind, for the services of the namespace and for `kubernetes`."""
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    chosen = [s for s in services("default") if s["metadata"]["name"] == "kubernetes"]
    if pod["spec"].get("enableServiceLinks", True):
        chosen += list(services(namespace))
    for service in chosen:
        result |= _service(service)
    return result


def _service(service: Object) -> dict[str, str]:
    spec = service.get("spec", {})
    address, ports = spec.get("clusterIP", ""), spec.get("ports") or []
    if not address or address == "None" or not ports:
        return {}
    name = service["metadata"]["name"].upper().replace("-", "_")
    first = ports[0]
    result = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(first["port"])}
    for port in ports:
        if port.get("name"):
            result[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{hostport.join(address, port['port'])}"
        prefix = f"{name}_PORT_{port['port']}_{protocol}"
        if index == 0:
            result[f"{name}_PORT"] = url
        result |= {
            prefix: url,
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": str(port["port"]),
            f"{prefix}_ADDR": address,
        }
    return result
