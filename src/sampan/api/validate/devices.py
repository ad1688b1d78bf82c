"""Devices that pods claim: claims, their templates, classes and slices. Source: API reference, resource.k8s.io/v1."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    dns_label,
    dns_subdomain,
    duplicate,
    invalid_value,
    not_found_field,
    one_of,
    required,
    too_many,
)
from sampan.api.validate.meta import template_meta
from sampan.base.objects import Object

_MOST_REQUESTS = 32
_MOST_SELECTORS = 32
_MOST_DEVICES = 128
_MODES = ("All", "ExactCount")


def claim(errors: Errors, obj: Object) -> None:
    _claim_spec(errors, obj.get("spec") or NONE, "spec")


def claim_update(errors: Errors, new: Object, old: Object) -> None:
    _fixed(errors, "spec", new.get("spec"), old.get("spec"))
    claim(errors, new)


def _fixed(errors: Errors, path: str, new: object, old: object) -> None:
    if new != old:
        errors.append(invalid_value(path, new, IMMUTABLE))


def template(errors: Errors, obj: Object) -> None:
    spec = obj.get("spec") or NONE
    template_meta(errors, spec.get("metadata"), "spec.metadata")
    _claim_spec(errors, spec.get("spec") or NONE, "spec.spec")


def template_update(errors: Errors, new: Object, old: Object) -> None:
    _fixed(errors, "spec", new.get("spec"), old.get("spec"))
    template(errors, new)


def _claim_spec(errors: Errors, spec: Object, path: str) -> None:
    devices = spec.get("devices") or NONE
    given = devices.get("requests") or ()
    at = f"{path}.devices"
    if len(given) > _MOST_REQUESTS:
        errors.append(too_many(f"{at}.requests", len(given), _MOST_REQUESTS))
    known: set[str] = set()
    for index, request in enumerate(given):
        where, name = f"{at}.requests[{index}]", request.get("name", "")
        if not name:
            errors.append(required(f"{where}.name"))
        elif name in known:
            errors.append(duplicate(f"{where}.name", name))
        else:
            dns_label(errors, f"{where}.name", name)
        known.add(name)
        known.update(f"{name}/{part.get('name', '')}" for part in request.get("firstAvailable") or ())
        _request(errors, request, where)
    for field in ("constraints", "config"):
        for index, part in enumerate(devices.get(field) or ()):
            _names(errors, part.get("requests") or (), known, f"{at}.{field}[{index}].requests")


def _names(errors: Errors, given: Sequence[str], known: set[str], path: str) -> None:
    for index, name in enumerate(given):
        if name not in known:
            errors.append(not_found_field(f"{path}[{index}]", name))


def _request(errors: Errors, request: Object, path: str) -> None:
    """Either one kind of device or several to choose from."""
    exact, options = request.get("exactly"), request.get("firstAvailable") or ()
    if exact is None and not options:
        errors.append(required(path, "exactly one of `exactly` or `firstAvailable` is required"))
    elif exact is not None and options:
        text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        errors.append(invalid_value(path, None, text))
    if exact is not None:
        _wanted(errors, exact, f"{path}.exactly")
    for index, option in enumerate(options):
        at = f"{path}.firstAvailable[{index}]"
        if not option.get("name"):
            errors.append(required(f"{at}.name"))
        else:
            dns_label(errors, f"{at}.name", option["name"])
        _wanted(errors, option, at)


def _wanted(errors: Errors, wanted: Object, path: str) -> None:
    name = wanted.get("deviceClassName", "")
    if not name:
        errors.append(required(f"{path}.deviceClassName"))
    else:
        dns_subdomain(errors, f"{path}.deviceClassName", name)
    _selectors(errors, wanted.get("selectors") or (), f"{path}.selectors")
    mode, count = wanted.get("allocationMode", ""), wanted.get("count", 0)
    one_of(errors, f"{path}.allocationMode", mode, _MODES)
    if mode == "ExactCount" and count <= 0:
        errors.append(invalid_value(f"{path}.count", count, "must be greater than zero"))
    elif mode == "All" and count:
        text = "must not be specified when allocationMode is 'All'"
        errors.append(invalid_value(f"{path}.count", count, text))


def _selectors(errors: Errors, given: Sequence[Object], path: str) -> None:
    if len(given) > _MOST_SELECTORS:
        errors.append(too_many(path, len(given), _MOST_SELECTORS))
    for index, selector in enumerate(given):
        if selector.get("cel") is None:
            errors.append(required(f"{path}[{index}].cel"))
        elif not selector["cel"].get("expression"):
            errors.append(required(f"{path}[{index}].cel.expression"))


def device_class(errors: Errors, obj: Object) -> None:
    _selectors(errors, (obj.get("spec") or NONE).get("selectors") or (), "spec.selectors")


def device_class_update(errors: Errors, new: Object, old: Object) -> None:
    device_class(errors, new)


def device_slice(errors: Errors, obj: Object) -> None:
    """What a driver offers, for one node, some, or all of them."""
    spec = obj.get("spec") or NONE
    for path, name in (
        ("spec.driver", spec.get("driver", "")),
        ("spec.pool.name", (spec.get("pool") or NONE).get("name", "")),
    ):
        if not name:
            errors.append(required(path))
        else:
            for part in name.split("/") if path.endswith("pool.name") else (name,):
                dns_subdomain(errors, path, part)
    if (spec.get("pool") or NONE).get("resourceSliceCount", 0) <= 0:
        text = "must be greater than zero"
        errors.append(
            invalid_value(
                "spec.pool.resourceSliceCount", (spec.get("pool") or NONE).get("resourceSliceCount", 0), text
            )
        )
    places = [f for f in ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection") if spec.get(f)]
    if len(places) != 1 and not spec.get("sharedCounters"):
        text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
        errors.append(required("spec", text) if not places else invalid_value("spec", places, text))
    devices = spec.get("devices") or ()
    if len(devices) > _MOST_DEVICES:
        errors.append(too_many("spec.devices", len(devices), _MOST_DEVICES))
    seen: set[str] = set()
    for index, device in enumerate(devices):
        at, name = f"spec.devices[{index}].name", device.get("name", "")
        if name in seen:
            errors.append(duplicate(at, name))
        else:
            dns_label(errors, at, name)
        seen.add(name)


def device_slice_update(errors: Errors, new: Object, old: Object) -> None:
    """Its driver, node and pool stay."""
    device_slice(errors, new)
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    for field in ("driver", "nodeName"):
        _fixed(errors, f"spec.{field}", after.get(field), before.get(field))
    _fixed(
        errors,
        "spec.pool.name",
        (after.get("pool") or NONE).get("name"),
        (before.get("pool") or NONE).get("name"),
    )
