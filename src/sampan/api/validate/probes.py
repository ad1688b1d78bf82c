"""Probes and lifecycle hooks of containers. Source: API reference, Probe and LifecycleHandler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    forbidden_field,
    invalid_value,
    nonnegative,
    one_of,
    port_number,
    port_or_name,
    required,
    texts,
)
from sampan.base.objects import Object

Handler = Callable[[Errors, Object, str], None]
_SECONDS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_SCHEMES = ("HTTP", "HTTPS")
_STOP_SIGNALS = {
    "linux": sorted(
        [
            *(
                f"SIG{name}"
                for name in "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR".split()
            ),
            *(
                f"SIG{name}"
                for name in "QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2".split()
            ),
            *(f"SIG{name}" for name in "VTALRM WINCH XCPU XFSZ RTMIN RTMAX".split()),
            *(f"SIGRTMIN+{number}" for number in range(1, 16)),
            *(f"SIGRTMAX-{number}" for number in range(1, 15)),
        ]
    ),
    "windows": ["SIGKILL", "SIGTERM"],
}


def liveness(errors: Errors, probe: Object | None, path: str) -> None:
    """A probe whose failure ends the container: one success is all it may ask for."""
    if probe is None:
        return
    _probe(errors, probe, path)
    threshold = probe.get("successThreshold", 1)
    if threshold != 1:
        errors.append(invalid_value(f"{path}.successThreshold", threshold, "must be 1"))
    seconds = probe.get("terminationGracePeriodSeconds")
    if seconds is not None and seconds <= 0:
        detail = "must be greater than 0"
        errors.append(invalid_value(f"{path}.terminationGracePeriodSeconds", seconds, detail))


def readiness(errors: Errors, probe: Object | None, path: str) -> None:
    """A failing one kills nothing, so there is no grace period for it."""
    if probe is None:
        return
    _probe(errors, probe, path)
    if probe.get("terminationGracePeriodSeconds") is not None:
        seconds = probe["terminationGracePeriodSeconds"]
        detail = "must not be set for readinessProbes"
        errors.append(invalid_value(f"{path}.terminationGracePeriodSeconds", seconds, detail))


def _probe(errors: Errors, probe: Object, path: str) -> None:
    _one_of_these(errors, probe, path, _HANDLERS)
    for field in _SECONDS:
        nonnegative(errors, probe, field, path)


def _one_of_these(errors: Errors, given: Object, path: str, handlers: Mapping[str, Handler]) -> None:
    """Exactly one handler, and that one in order."""
    count = 0
    for kind, check in handlers.items():
        action = given.get(kind)
        if action is None:
            continue
        count += 1
        if count > 1:
            errors.append(forbidden_field(f"{path}.{kind}", "may not specify more than 1 handler type"))
        else:
            check(errors, action, f"{path}.{kind}")
    if not count:
        errors.append(required(path, "must specify a handler type"))


def _exec(errors: Errors, action: Object, path: str) -> None:
    if not action.get("command"):
        errors.append(required(f"{path}.command"))


def _http(errors: Errors, action: Object, path: str) -> None:
    if not action.get("path"):
        errors.append(required(f"{path}.path"))
    port_or_name(errors, f"{path}.port", action.get("port", 0))
    one_of(errors, f"{path}.scheme", action.get("scheme", "HTTP"), _SCHEMES)
    for header in action.get("httpHeaders") or ():
        texts(errors, f"{path}.httpHeaders", header.get("name", ""), names.http_header)


def _tcp(errors: Errors, action: Object, path: str) -> None:
    port_or_name(errors, f"{path}.port", action.get("port", 0))


def _grpc(errors: Errors, action: Object, path: str) -> None:
    port_number(errors, f"{path}.port", action.get("port", 0))


def _sleep(grace: int, errors: Errors, action: Object, path: str) -> None:
    seconds = action.get("seconds", 0)
    if not 0 <= seconds <= grace:
        detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        errors.append(invalid_value(path, seconds, detail))


_HANDLERS: dict[str, Handler] = {"exec": _exec, "httpGet": _http, "tcpSocket": _tcp, "grpc": _grpc}


def lifecycle(errors: Errors, hooks: Object | None, path: str, grace: int, system: str) -> None:
    """postStart, preStop and the signal that stops. A sleep must fit into the pod's `grace` period, in seconds
    (KEP-3960); signals are those of the pod's operating system (KEP-4960)."""
    handlers: dict[str, Handler] = {**_HANDLERS, "sleep": partial(_sleep, grace)}
    for name in ("postStart", "preStop"):
        hook = (hooks or NONE).get(name)
        if hook is not None:
            _one_of_these(errors, hook, f"{path}.{name}", handlers)
    signal = (hooks or NONE).get("stopSignal")
    if signal is not None:
        if not system:
            detail = "may not be set for containers with empty `spec.os.name`"
            errors.append(forbidden_field(f"{path}.stopSignal", detail))
        else:
            one_of(errors, f"{path}.stopSignal", signal, _STOP_SIGNALS.get(system, ()))
