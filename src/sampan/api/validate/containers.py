"""Containers of a pod: ports, environment, mounts, resources. Source: API reference, Container."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    dns_label,
    dns_subdomain,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    not_supported,
    one_of,
    port_number,
    required,
    required_one_of,
    texts,
    too_many,
)
from sampan.api.validate.downward import field_ref, resource_ref
from sampan.api.validate.probes import lifecycle, liveness, readiness
from sampan.api.validate.resources import resize_policy, resources
from sampan.api.validate.security import container_context
from sampan.api.validate.volumes import local_path, no_back_steps
from sampan.base.objects import Object

PROTOCOLS = ("SCTP", "TCP", "UDP")
_MOST_RULES, _MOST_CODES = 20, 255
_GRACE = 30  # seconds, of a pod that does not say
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)


class Pod:
    """What containers need to know of the pod they are in."""

    __slots__ = (
        "claims",
        "devices",
        "empty",
        "grace",
        "host_ports",
        "host_users",
        "names",
        "system",
        "volumes",
    )

    def __init__(self, spec: Object, volumes: set[str]) -> None:
        self.volumes = volumes
        self.names: set[str] = set()
        self.host_ports: set[str] = set()
        self.claims = {c.get("name") for c in spec.get("resourceClaims") or ()}
        self.grace: int = spec.get("terminationGracePeriodSeconds", _GRACE)
        self.host_users = spec.get("hostUsers") is not False
        self.system = (spec.get("os") or NONE).get("name", "")
        sources = spec.get("volumes") or ()
        self.devices = {
            v.get("name") for v in sources if v.get("persistentVolumeClaim") or v.get("ephemeral")
        }
        self.empty = {v.get("name") for v in sources if v.get("emptyDir") is not None}


def containers(errors: Errors, given: Sequence[Object], path: str, pod: Pod) -> None:
    """The ordinary containers, of which there is at least one."""
    if not given:
        errors.append(required(path))
        return
    for index, container in enumerate(given):
        at = f"{path}[{index}]"
        _common(errors, container, at, pod)
        name = container.get("name", "")
        if name in pod.names:
            errors.append(duplicate(f"{at}.name", name))
        elif name:
            pod.names.add(name)
        _running(errors, container, at, pod)
        _restart_policy(errors, container, at)
    _host_ports(errors, given, path)


def init_containers(errors: Errors, given: Sequence[Object], path: str, pod: Pod) -> None:
    """Containers that run before the others; those that restart always (sidecars) have hooks and probes, too."""
    seen: set[str] = set()
    for index, container in enumerate(given):
        at = f"{path}[{index}]"
        _common(errors, container, at, pod)
        name = container.get("name", "")
        if name in pod.names or name in seen:
            errors.append(duplicate(f"{at}.name", name))
        elif name:
            seen.add(name)
        _restart_policy(errors, container, at)
        if container.get("restartPolicy") == "Always":
            _running(errors, container, at, pod)
        else:
            for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
                if container.get(field) is not None:
                    detail = "may not be set for init containers without restartPolicy=Always"
                    errors.append(forbidden_field(f"{at}.{field}", detail))
        _host_ports(errors, [container], path, index)
    pod.names |= seen


_EPHEMERAL_FORBIDDEN = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
)


def ephemeral_containers(errors: Errors, given: Sequence[Object], path: str, pod: Pod) -> None:
    """Containers for debugging a pod that runs. Source: "Ephemeral Containers"."""
    main = set(pod.names)
    seen: set[str] = set()
    for index, container in enumerate(given):
        at = f"{path}[{index}]"
        _common(errors, container, at, pod)
        name = container.get("name", "")
        if name in main or name in seen:
            errors.append(duplicate(f"{at}.name", name))
        elif name:
            seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in main:
            errors.append(not_found_field(f"{at}.targetContainerName", target))
        for field in _EPHEMERAL_FORBIDDEN:
            if container.get(field):
                detail = "cannot be set for an Ephemeral Container"
                errors.append(forbidden_field(f"{at}.{field}", detail))
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    detail = "cannot be set for an Ephemeral Container"
                    errors.append(forbidden_field(f"{at}.volumeMounts[{number}].{field}", detail))


def _running(errors: Errors, container: Object, path: str, pod: Pod) -> None:
    """Hooks and probes of a container that is meant to stay."""
    if container.get("lifecycle") is not None:
        lifecycle(errors, container["lifecycle"], f"{path}.lifecycle", pod.grace, pod.system)
    if container.get("livenessProbe") is not None:
        liveness(errors, container["livenessProbe"], f"{path}.livenessProbe")
    if container.get("readinessProbe") is not None:
        readiness(errors, container["readinessProbe"], f"{path}.readinessProbe")
    if container.get("startupProbe") is not None:
        liveness(errors, container["startupProbe"], f"{path}.startupProbe")


def _restart_policy(errors: Errors, container: Object, path: str) -> None:
    policy = container.get("restartPolicy")
    if policy is not None:
        one_of(errors, f"{path}.restartPolicy", policy, ("Always", "Never", "OnFailure"))
    rules = container.get("restartPolicyRules")
    if rules and policy is None:
        errors.append(
            required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used")
        )
    if rules and len(rules) > _MOST_RULES:
        errors.append(too_many(f"{path}.restartPolicyRules", len(rules), _MOST_RULES))
    for index, rule in enumerate(rules or ()):
        _restart_rule(errors, rule, f"{path}.restartPolicyRules[{index}]")


def _restart_rule(errors: Errors, rule: Object, path: str) -> None:
    """KEP-5307, and KEP-5532 for the action on all containers."""
    one_of(errors, f"{path}.action", rule.get("action", ""), ("Restart", "RestartAllContainers"))
    codes = rule.get("exitCodes")
    if codes is None:
        errors.append(required(f"{path}.exitCodes", "must be specified"))
        return
    one_of(errors, f"{path}.exitCodes.operator", codes.get("operator", ""), ("In", "NotIn"))
    values = codes.get("values") or ()
    if len(values) > _MOST_CODES:
        errors.append(too_many(f"{path}.exitCodes.values", len(values), _MOST_CODES))


def _common(errors: Errors, container: Object, path: str, pod: Pod) -> None:
    """What holds for every kind of container."""
    name, image = container.get("name", ""), container.get("image", "")
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        dns_label(errors, f"{path}.name", name)
    if not image:
        errors.append(required(f"{path}.image"))
    elif image.strip() != image:
        errors.append(invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace"))
    policy = container.get("terminationMessagePolicy")
    if policy is not None and policy not in _MESSAGE_POLICIES:
        errors.append(
            not_supported(f"{path}.terminationMessagePolicy", policy, ("File", "FallbackToLogsOnError"))
        )
    if "ports" in container:
        ports(errors, container["ports"] or (), f"{path}.ports")
    if "env" in container:
        environment(errors, container["env"] or (), f"{path}.env", pod)
    if "envFrom" in container:
        _env_from(errors, container["envFrom"] or (), f"{path}.envFrom")
    if "volumeMounts" in container:
        _mounts(errors, container["volumeMounts"] or (), f"{path}.volumeMounts", pod)
    if "volumeDevices" in container:
        _devices(errors, container, path, pod)
    policy = container.get("imagePullPolicy", "")
    required_one_of(errors, f"{path}.imagePullPolicy", policy, _PULL_POLICIES)
    if container.get("resources"):
        resources(errors, container["resources"], f"{path}.resources", pod.claims)
    if container.get("resizePolicy"):
        resize_policy(errors, container["resizePolicy"], f"{path}.resizePolicy")
    if container.get("securityContext"):
        container_context(
            errors, container["securityContext"], f"{path}.securityContext", host_users=pod.host_users
        )


# Ports


def ports(errors: Errors, given: Sequence[Object], path: str) -> None:
    """A name is used once in a container. Source: API reference, ContainerPort v1."""
    seen: set[str] = set()
    for index, port in enumerate(given):
        at = f"{path}[{index}]"
        name = port.get("name", "")
        if name:
            problems = names.port_name(name)
            if problems:
                for problem in problems:
                    errors.append(invalid_value(f"{at}.name", name, problem))
            elif name in seen:
                errors.append(duplicate(f"{at}.name", name))
            else:
                seen.add(name)
        number = port.get("containerPort", 0)
        if number == 0:
            errors.append(required(f"{at}.containerPort"))
        else:
            port_number(errors, f"{at}.containerPort", number)
        if port.get("hostPort"):
            port_number(errors, f"{at}.hostPort", port["hostPort"])
        protocol = port.get("protocol", "")
        required_one_of(errors, f"{at}.protocol", protocol, PROTOCOLS)


def _host_ports(errors: Errors, given: Sequence[Object], path: str, first: int = 0) -> None:
    """A port of the host belongs to one container port."""
    taken: set[str] = set()
    for number, container in enumerate(given, first):
        for index, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort")
            if not host:
                continue
            key = f"{port.get('protocol', 'TCP')}/{port.get('hostIP', '')}/{host}"
            if key in taken:
                errors.append(duplicate(f"{path}[{number}].ports[{index}].hostPort", key))
            taken.add(key)


# Environment


def environment(errors: Errors, given: Sequence[Object], path: str, pod: Pod) -> None:
    """Names may be any printable text without `=` (KEP-4369). Source: API reference, EnvVar v1."""
    for index, variable in enumerate(given):
        name = variable.get("name", "")
        if not name:
            errors.append(required(f"{path}[{index}].name"))
        elif not (name.isascii() and name.isidentifier()):
            texts(errors, f"{path}[{index}].name", name, names.env_var_name)
        if "valueFrom" in variable and variable["valueFrom"] is not None:
            _value_from(errors, variable, f"{path}[{index}].valueFrom", pod)


def _value_from(errors: Errors, variable: Object, path: str, pod: Pod) -> None:
    source, count = variable["valueFrom"], 0
    if source.get("fieldRef") is not None:
        count += 1
        field_ref(errors, source["fieldRef"], f"{path}.fieldRef", _ENV_FIELDS)
    if source.get("resourceFieldRef") is not None:
        count += 1
        resource_ref(errors, source["resourceFieldRef"], f"{path}.resourceFieldRef", volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        ref = source.get(kind)
        if ref is None:
            continue
        count += 1
        dns_subdomain(errors, f"{path}.{kind}.name", ref.get("name", ""))
        if not ref.get("key"):
            errors.append(required(f"{path}.{kind}.key"))
        else:
            texts(errors, f"{path}.{kind}.key", ref["key"], names.config_key)
    if source.get("fileKeyRef") is not None:
        count += 1
        _file_key(errors, source["fileKeyRef"], f"{path}.fileKeyRef", pod)
    if not count:
        listed = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        errors.append(invalid_value(path, "", f"must specify one of: {listed}"))
    elif variable.get("value"):
        errors.append(invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        errors.append(invalid_value(path, "", "may not have more than one field specified at a time"))


def _file_key(errors: Errors, ref: Object, path: str, pod: Pod) -> None:
    """A variable of an env file, which lies in an emptyDir of the pod (KEP-3721)."""
    for field in ("key", "path", "volumeName"):
        if not ref.get(field):
            errors.append(required(f"{path}.{field}"))
    if ref.get("path"):
        local_path(errors, f"{path}.path", ref["path"])
    volume = ref.get("volumeName")
    if volume and volume not in pod.volumes:
        errors.append(not_found_field(f"{path}.volumeName", volume))
    elif volume and volume not in pod.empty:
        text = "referenced volume must be of type emptyDir"
        errors.append(invalid_value(f"{path}.volumeName", volume, text))


def _env_from(errors: Errors, given: Sequence[Object], path: str) -> None:
    for index, source in enumerate(given):
        at = f"{path}[{index}]"
        if source.get("prefix"):
            texts(errors, f"{at}.prefix", source["prefix"], names.env_var_name)
        count = 0
        for kind in ("configMapRef", "secretRef"):
            ref = source.get(kind)
            if ref is None:
                continue
            count += 1
            dns_subdomain(errors, f"{at}.{kind}.name", ref.get("name", ""))
        if not count:
            errors.append(invalid_value(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif count > 1:
            errors.append(invalid_value(at, "", "may not have more than one field specified at a time"))


# Mounts


def _mounts(errors: Errors, given: Sequence[Object], path: str, pod: Pod) -> None:
    points: set[str] = set()
    for index, mount in enumerate(given):
        name, point = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            errors.append(required(f"{path}[{index}].name"))
        if name not in pod.volumes:
            errors.append(not_found_field(f"{path}[{index}].name", name))
        if not point:
            errors.append(required(f"{path}[{index}].mountPath"))
        if point in points:
            errors.append(invalid_value(f"{path}[{index}].mountPath", point, "must be unique"))
        points.add(point)
        if len(mount) > 2:
            _mount_details(errors, mount, f"{path}[{index}]")


_RECURSIVE = ("Disabled", "Enabled", "IfPossible")
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")


def _mount_details(errors: Errors, mount: Object, path: str) -> None:
    sub, expression = mount.get("subPath", ""), mount.get("subPathExpr", "")
    if sub:
        local_path(errors, f"{path}.subPath", sub, descending=True)
    if expression:
        if sub:
            errors.append(
                invalid_value(
                    f"{path}.subPathExpr", expression, "subPathExpr and subPath are mutually exclusive"
                )
            )
        local_path(errors, f"{path}.subPathExpr", expression, descending=True)
    propagation = mount.get("mountPropagation")
    if propagation is not None and propagation not in _PROPAGATION:
        errors.append(not_supported(f"{path}.mountPropagation", propagation, _PROPAGATION))
    recursive = mount.get("recursiveReadOnly")
    if recursive is None:
        return
    if recursive not in _RECURSIVE:
        errors.append(not_supported(f"{path}.recursiveReadOnly", recursive, _RECURSIVE))
    elif recursive != "Disabled":
        if not mount.get("readOnly"):
            detail = "may only be specified when readOnly is true"
            errors.append(forbidden_field(f"{path}.recursiveReadOnly", detail))
        if propagation not in (None, "None"):
            detail = "may only be specified when mountPropagation is None or not specified"
            errors.append(forbidden_field(f"{path}.recursiveReadOnly", detail))


def _devices(errors: Errors, container: Object, path: str, pod: Pod) -> None:
    mounted = {m.get("name") for m in container.get("volumeMounts") or ()}
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    for index, device in enumerate(container["volumeDevices"] or ()):
        at = f"{path}.volumeDevices[{index}]"
        name, point = device.get("name", ""), device.get("devicePath", "")
        if not name:
            errors.append(required(f"{at}.name"))
        if name in seen_names:
            errors.append(invalid_value(f"{at}.name", name, "must be unique"))
        if name in pod.volumes and name not in pod.devices:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(invalid_value(f"{at}.name", name, detail))
        if name not in pod.volumes:
            errors.append(not_found_field(f"{at}.name", name))
        if not point:
            errors.append(required(f"{at}.devicePath"))
        elif point in seen_paths:
            errors.append(invalid_value(f"{at}.devicePath", point, "must be unique"))
        else:
            no_back_steps(errors, f"{at}.devicePath", point)
        if name in mounted:
            errors.append(invalid_value(f"{at}.name", name, "must not already exist in volumeMounts"))
        seen_names.add(name)
        seen_paths.add(point)
