"""Pods and pod templates as a whole, and what of a pod may change. Source: API reference, PodSpec."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import orjson

from sampan.api.qos import qos_class
from sampan.api.validate import affinity as place
from sampan.api.validate import containers as run
from sampan.api.validate import security
from sampan.api.validate.base import (
    NONE,
    RANGE_31,
    VALID_ADDRESS,
    Errors,
    address,
    dns_label,
    dns_subdomain,
    duplicate,
    forbidden_field,
    invalid_value,
    key_problems,
    labels,
    qualified,
    required,
    required_one_of,
    subdomain_problems,
    texts,
    too_long,
)
from sampan.api.validate.meta import template_meta
from sampan.api.validate.resources import resources
from sampan.api.validate.volumes import pod_volumes
from sampan.base.memo import Memo
from sampan.base.objects import Object

_LONGEST_HOSTNAME = 64  # sethostname(2)
_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_DNS_SEARCH_LIMIT, _DNS_CHARACTERS, _DNS_SERVERS = 32, 2048, 3
_INT32 = 2**31 - 1


def create(errors: Errors, pod: Object) -> None:
    """A new pod."""
    spec = pod.get("spec") or NONE
    pod_spec(errors, spec, "spec")
    if spec.get("ephemeralContainers"):
        errors.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        detail = "cannot be set until all schedulingGates have been cleared"
        errors.append(forbidden_field("spec.nodeName", detail))


def template(errors: Errors, given: Object | None, path: str) -> None:
    """A pod template within another object; `path` is its own."""
    given = given or NONE
    template_meta(errors, given.get("metadata"), path)
    spec = given.get("spec") or NONE
    pod_spec(errors, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(forbidden_field(f"{path}.spec.ephemeralContainers", detail))


_good: Memo[bool] = Memo()  # specs that nothing was wrong with


def pod_spec(errors: Errors, spec: Object, path: str) -> None:
    """Everything a pod says, in the original's order. Pods of one template are judged once."""
    text = orjson.dumps(spec)
    if _good.get(None, text):
        return
    before = len(errors)
    _pod_spec(errors, spec, path)
    if len(errors) == before:
        _good.put(None, text, True)


def _pod_spec(errors: Errors, spec: Object, path: str) -> None:
    volumes = spec.get("volumes")
    known = pod_volumes(errors, volumes, f"{path}.volumes") if volumes else set()
    pod = run.Pod(spec, known)
    if spec.get("resourceClaims"):
        _resource_claims(errors, spec["resourceClaims"], f"{path}.resourceClaims")
    run.containers(errors, spec.get("containers") or (), f"{path}.containers", pod)
    if spec.get("initContainers"):
        run.init_containers(errors, spec["initContainers"], f"{path}.initContainers", pod)
    if spec.get("ephemeralContainers"):
        run.ephemeral_containers(errors, spec["ephemeralContainers"], f"{path}.ephemeralContainers", pod)
    if spec.get("resources"):
        resources(errors, spec["resources"], f"{path}.resources")
    if spec.get("hostNetwork"):
        _host_network(errors, spec, path)
    _policies(errors, spec, path)
    labels(errors, f"{path}.nodeSelector", spec.get("nodeSelector"))
    security.host_sharing(errors, spec, path)
    security.pod_context(errors, spec.get("securityContext"), path)
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if not reference.get("name"):
            errors.append(required(f"{path}.imagePullSecrets[{index}].name"))
    place.affinity(errors, spec.get("affinity"), f"{path}.affinity")
    _dns(errors, spec, path)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        qualified(errors, f"{path}.readinessGates[{index}].conditionType", gate.get("conditionType", ""))
    if spec.get("schedulingGates"):
        _gates(errors, spec["schedulingGates"], f"{path}.schedulingGates")
    if spec.get("topologySpreadConstraints"):
        place.spread(errors, spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")
    _names(errors, spec, path)


def _policies(errors: Errors, spec: Object, path: str) -> None:
    policy = spec.get("restartPolicy", "")
    required_one_of(errors, f"{path}.restartPolicy", policy, _RESTART)
    policy = spec.get("dnsPolicy", "")
    required_one_of(errors, f"{path}.dnsPolicy", policy, _DNS)


def _names(errors: Errors, spec: Object, path: str) -> None:
    """Single values at the end of a spec: who runs where, for how long, under what name."""
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            dns_subdomain(errors, f"{path}.{field}", spec[field])
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _INT32:
        errors.append(invalid_value(f"{path}.activeDeadlineSeconds", deadline, RANGE_31))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            dns_label(errors, f"{path}.{field}", spec[field])
    if spec.get("tolerations"):
        place.tolerations(errors, spec["tolerations"], f"{path}.tolerations")
    if spec.get("hostAliases"):
        _host_aliases(errors, spec["hostAliases"], f"{path}.hostAliases")
    for field in ("priorityClassName", "runtimeClassName"):
        if spec.get(field):
            dns_subdomain(errors, f"{path}.{field}", spec[field])
    policy = spec.get("preemptionPolicy")
    if policy is not None:
        required_one_of(errors, f"{path}.preemptionPolicy", policy, ("Never", "PreemptLowerPriority"))
    if spec.get("overhead"):
        resources(errors, {"limits": spec["overhead"]}, f"{path}.overhead")
    system = (spec.get("os") or NONE).get("name")
    if "os" in spec and spec["os"] is not None:
        required_one_of(errors, f"{path}.os.name", system, ("linux", "windows"))
    if spec.get("hostnameOverride") is not None:
        _hostname_override(errors, spec, f"{path}.hostnameOverride")
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        detail = "must be greater than or equal to 0"
        errors.append(invalid_value(f"{path}.terminationGracePeriodSeconds", grace, detail))


def _hostname_override(errors: Errors, spec: Object, path: str) -> None:
    """A name the kernel takes, of a pod that has no other claim to one (KEP-4762)."""
    name = spec["hostnameOverride"]
    dns_subdomain(errors, path, name)
    if len(name) > _LONGEST_HOSTNAME:
        errors.append(too_long(path, _LONGEST_HOSTNAME))
    if spec.get("setHostnameAsFQDN"):
        errors.append(forbidden_field(path, "may not be set when setHostnameAsFQDN is true"))
    if spec.get("hostNetwork"):
        errors.append(forbidden_field(path, "may not be set when hostNetwork is true"))


def _host_network(errors: Errors, spec: Object, path: str) -> None:
    """On the host's network a container's port is the host's."""
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            for number, port in enumerate(container.get("ports") or ()):
                if port.get("hostPort", port.get("containerPort")) != port.get("containerPort"):
                    at = f"{path}.{field}[{index}].ports[{number}].hostPort"
                    detail = "must match `containerPort` when `hostNetwork` is true"
                    errors.append(invalid_value(at, port.get("hostPort", 0), detail))


def _resource_claims(errors: Errors, given: Sequence[Object], path: str) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(given):
        at, name = f"{path}[{index}]", claim.get("name", "")
        if not name:
            errors.append(required(f"{at}.name"))
        elif name in seen:
            errors.append(duplicate(f"{at}.name", name))
        else:
            dns_label(errors, f"{at}.name", name)
        seen.add(name)
        sources = [f for f in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(f) is not None]
        detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
        if not sources:
            errors.append(invalid_value(at, claim, detail))
        elif len(sources) > 1:
            errors.append(
                invalid_value(
                    at,
                    claim,
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
                )
            )
        for field in sources:
            dns_subdomain(errors, f"{at}.{field}", claim[field])


def _dns(errors: Errors, spec: Object, path: str) -> None:
    """Source: "Pod's DNS Config"."""
    config, policy = spec.get("dnsConfig"), spec.get("dnsPolicy")
    at = f"{path}.dnsConfig"
    if policy == "None":
        if config is None:
            errors.append(required(at, "must provide `dnsConfig` when `dnsPolicy` is None"))
            return
        if not config.get("nameservers"):
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            errors.append(required(f"{at}.nameservers", detail))
            return
    if not config:
        return
    servers = config.get("nameservers") or ()
    if len(servers) > _DNS_SERVERS:
        detail = f"must not have more than {_DNS_SERVERS} nameservers"
        errors.append(invalid_value(f"{at}.nameservers", list(servers), detail))
    for index, server in enumerate(servers):
        if address(server) is None:
            errors.append(invalid_value(f"{at}.nameservers[{index}]", server, VALID_ADDRESS))
    searches = config.get("searches") or ()
    if len(searches) > _DNS_SEARCH_LIMIT:
        detail = f"must not have more than {_DNS_SEARCH_LIMIT} search paths"
        errors.append(invalid_value(f"{at}.searches", list(searches), detail))
    if len(" ".join(searches)) > _DNS_CHARACTERS:
        detail = f"must not have more than {_DNS_CHARACTERS} characters (including spaces) in the search list"
        errors.append(invalid_value(f"{at}.searches", list(searches), detail))
    for index, search in enumerate(searches):
        if search != ".":
            plain = search.removesuffix(".").replace("_", "x")
            for problem in subdomain_problems(plain):
                errors.append(invalid_value(f"{at}.searches[{index}]", search, problem))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{at}.options[{index}]", "must not be empty"))


def _gates(errors: Errors, given: Sequence[Object], path: str) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(given):
        name = gate.get("name", "")
        qualified(errors, f"{path}[{index}]", name)
        if name in seen:
            errors.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)


def _host_aliases(errors: Errors, given: Sequence[Object], path: str) -> None:
    for alias in given:
        text = alias.get("ip", "")
        try:
            ipaddress.ip_address(text)
        except ValueError:
            errors.append(invalid_value(f"{path}.ip", text, VALID_ADDRESS))
        for name in alias.get("hostnames") or ():
            texts(errors, f"{path}.hostnames", name, subdomain_problems)


# What may change

_ONLY = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
)


def update(errors: Errors, new: Object, old: Object) -> None:
    """An ordinary write of a pod: a few fields change, the rest stays."""
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    if after == before:
        return
    if _counts(errors, after, before):
        return
    for field in ("containers", "initContainers"):
        for index, container in enumerate(after.get(field) or ()):
            if not container.get("image"):
                errors.append(required(f"spec.{field}[{index}].image"))
    _deadline(errors, after, before)
    _no_less_tolerated(errors, after, before)
    _no_new_gates(errors, after, before)
    if _rest(after, before) != _rest(before, before):
        errors.append(forbidden_field("spec", _ONLY + difference(after, before)))


def _counts(errors: Errors, after: Object, before: Object) -> bool:
    changed = False
    for field, word in (("containers", "containers"), ("initContainers", "initContainers")):
        if len(after.get(field) or ()) != len(before.get(field) or ()):
            errors.append(forbidden_field(f"spec.{field}", f"pod updates may not add or remove {word}"))
            changed = True
    return changed


def _deadline(errors: Errors, after: Object, before: Object) -> None:
    at, new, old = (
        "spec.activeDeadlineSeconds",
        after.get("activeDeadlineSeconds"),
        before.get("activeDeadlineSeconds"),
    )
    if new is not None:
        if not 0 <= new <= _INT32:
            errors.append(invalid_value(at, new, "must be between 0 and 2147483647, inclusive"))
        elif old is not None and new > old:
            errors.append(invalid_value(at, new, "must be less than or equal to previous value"))
    elif old is not None:
        errors.append(invalid_value(at, None, "must not update from a positive integer to nil value"))


def _no_less_tolerated(errors: Errors, after: Object, before: Object) -> None:
    new, old = after.get("tolerations") or [], before.get("tolerations") or []
    if new == old:
        return
    place.tolerations(errors, new, "spec.tolerations")
    kept = [_without_seconds(t) for t in new]
    if any(_without_seconds(t) not in kept for t in old):
        errors.append(
            forbidden_field(
                "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
            )
        )


def _without_seconds(toleration: Object) -> Object:
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds"}


def _no_new_gates(errors: Errors, after: Object, before: Object) -> None:
    known = [g.get("name") for g in before.get("schedulingGates") or ()]
    added = [g.get("name", "") for g in after.get("schedulingGates") or () if g.get("name") not in known]
    if added:
        detail = f"only deletion is allowed, but found new scheduling gates '{added[0]}'"
        errors.append(forbidden_field("spec.schedulingGates", detail))


def _rest(spec: Object, before: Object) -> Object:
    """The spec with everything that may change set to what it was."""
    rest = dict(spec)
    for field in ("containers", "initContainers"):
        pairs = zip(spec.get(field) or (), before.get(field) or (), strict=False)
        rest[field] = [{**container, "image": old.get("image")} for container, old in pairs]
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        rest[field] = before.get(field)
    if before.get("schedulingGates"):  # a pod that waits may become choosier (KEP-3838)
        _gated(rest, spec, before)
    grace, was = spec.get("terminationGracePeriodSeconds"), before.get("terminationGracePeriodSeconds")
    if grace == 1 and was is not None and was < 0:
        rest["terminationGracePeriodSeconds"] = was
    return rest


def _gated(rest: Object, spec: Object, before: Object) -> None:
    wanted, had = spec.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if had.items() <= wanted.items():
        _put(rest, "nodeSelector", before.get("nodeSelector"))
    if spec.get("affinity") != before.get("affinity"):
        new, old = dict(spec.get("affinity") or {}), dict(before.get("affinity") or {})
        if _narrower(new.pop("nodeAffinity", None), old.pop("nodeAffinity", None)) and new == old:
            _put(rest, "affinity", before.get("affinity"))


def _narrower(new: Object | None, old: Object | None) -> bool:
    """Whether node affinity only adds requirements to every term it had."""
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    had = ((old or NONE).get(field) or NONE).get("nodeSelectorTerms") or []
    has = ((new or NONE).get(field) or NONE).get("nodeSelectorTerms") or []
    if not had:
        return True
    return len(has) == len(had) and all(
        all(e in (n.get(part) or []) for e in o.get(part) or [])
        for n, o in zip(has, had, strict=True)
        for part in ("matchExpressions", "matchFields")
    )


def _put(obj: Object, field: str, value: object) -> None:
    if value is None:
        obj.pop(field, None)
    else:
        obj[field] = value


def difference(new: Object, old: Object) -> str:
    """The fields that differ, one a line, as an aid to the reader (the original prints a Go diff)."""
    from sampan.api.validate.base import show

    lines = []
    for field in sorted(new.keys() | old.keys()):
        if new.get(field) != old.get(field):
            lines.append(f"- {field}: {show(old.get(field))}\n+ {field}: {show(new.get(field))}\n")
    return "".join(lines)


def status(errors: Errors, new: Object, old: Object) -> None:
    """A write of status: what has run stays ended, and only the status changes. Source: PodStatus."""
    after, before = new.get("status") or NONE, old.get("status") or NONE
    for index, condition in enumerate(after.get("conditions") or ()):
        for problem in key_problems(condition.get("type", "")):
            errors.append(
                invalid_value(f"status.conditions[{index}].type", condition.get("type", ""), problem)
            )
    nominated = after.get("nominatedNodeName")
    if nominated:
        dns_subdomain(errors, "status.nominatedNodeName", nominated)
    policy = (new.get("spec") or NONE).get("restartPolicy")
    spec = new.get("spec") or NONE
    if policy == "Always" or not spec.get("containers") or _restarts_all(spec):
        return
    for field in ("containerStatuses",):
        _no_rising(errors, after.get(field) or (), before.get(field) or (), policy, f"status.{field}", new)


def _restarts_all(spec: Object) -> bool:
    """Whether a container's end may start all the others again (KEP-5532)."""
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    rules = (rule for c in containers for rule in c.get("restartPolicyRules") or ())
    return any(rule.get("action") == "RestartAllContainers" for rule in rules)


def _no_rising(
    errors: Errors, new: Sequence[Object], old: Sequence[Object], policy: str | None, path: str, pod: Object
) -> None:
    """A container that has ended for good does not run again."""
    restartable = {
        c.get("name")
        for c in pod["spec"]["containers"]
        if c.get("restartPolicy") or c.get("restartPolicyRules")
    }
    ended = {}
    for status in old:
        state = (status.get("state") or NONE).get("terminated")
        if state is not None and not (policy == "OnFailure" and state.get("exitCode", 0) != 0):
            ended[status.get("name")] = state
    for index, status in enumerate(new):
        name = status.get("name")
        if name in ended and name not in restartable and not (status.get("state") or NONE).get("terminated"):
            detail = "may not be transitioned to non-terminated state"
            errors.append(forbidden_field(f"{path}[{index}].state", detail))


def ephemeral(errors: Errors, new: Object, old: Object) -> None:
    """Ephemeral containers are added, never changed or removed. Source: "Ephemeral Containers"."""
    spec, before = new.get("spec") or NONE, old.get("spec") or NONE
    pod = run.Pod(spec, {v.get("name", "") for v in spec.get("volumes") or ()})
    pod.names = {c.get("name", "") for f in ("containers", "initContainers") for c in spec.get(f) or ()}
    path = "spec.ephemeralContainers"
    given = spec.get("ephemeralContainers") or []
    run.ephemeral_containers(errors, given, path, pod)
    present = {c.get("name"): c for c in given}
    for container in before.get("ephemeralContainers") or ():
        found = present.get(container.get("name"))
        if found is None:
            detail = f'existing ephemeral containers "{container.get("name")}" may not be removed\n'
            errors.append(forbidden_field(path, detail))
        elif found != container:
            detail = f'existing ephemeral containers "{container.get("name")}" may not be changed\n'
            errors.append(forbidden_field(path, detail + difference(found, container)))


def resize(errors: Errors, new: Object, old: Object) -> None:
    """Only cpu and memory of containers change, and not the class of service. Source: KEP-1287."""
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    if qos_class(after) != qos_class(before):
        text = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid_value("metadata", qos_class(after), text))
    if _other_containers(errors, after, before):
        return
    whole, had = after.get("resources") or NONE, before.get("resources") or NONE
    resources(errors, whole, "spec.resources")
    _resized(errors, whole, had, "spec.resources")
    for field in ("containers", "initContainers"):
        pairs = zip(after.get(field) or (), before.get(field) or (), strict=False)
        for index, (container, was) in enumerate(pairs):
            at = f"spec.{field}[{index}].resources"
            given, had = container.get("resources") or NONE, was.get("resources") or NONE
            resources(errors, given, at)
            _resized(errors, given, had, at)


def _other_containers(errors: Errors, after: Object, before: Object) -> bool:
    """Whether the containers are not the same in the same order."""
    found = len(errors)
    for field in ("containers", "initContainers"):
        given, had = after.get(field) or (), before.get(field) or ()
        if len(given) != len(had):
            path = "spec" if field == "containers" else f"spec.{field}"
            errors.append(forbidden_field(path, f"{field} may not be added or removed on resize"))
            continue
        for index, (container, was) in enumerate(zip(given, had, strict=True)):
            if container.get("name") != was.get("name"):
                detail = f"{field} may not be renamed or reordered on resize"
                errors.append(forbidden_field(f"spec.{field}[{index}].name", detail))
    return len(errors) > found


def _resized(errors: Errors, given: Object, had: Object, path: str) -> None:
    """Nothing but cpu and memory differs, and no request or limit is taken away."""
    for side in ("requests", "limits"):
        new, old = given.get(side) or NONE, had.get(side) or NONE
        for name in sorted(new.keys() | old.keys()):
            if new.get(name) == old.get(name):
                continue
            if name not in ("cpu", "memory"):
                errors.append(forbidden_field(path, "only cpu and memory resources are mutable"))
            elif name not in new:
                errors.append(forbidden_field(f"{path}.{side}", f"resource {side} cannot be removed"))
