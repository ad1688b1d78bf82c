"""/healthz, /livez, /readyz with their single checks, /metrics and /metrics/slis.

Source: "Kubernetes API health endpoints", "Kubernetes Component SLI Metrics".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sampan.api.registry import Resource
from sampan.api.status import method_not_allowed
from sampan.client.messages import Request, Response
from sampan.server import respond
from sampan.server.nonresource.metrics import Metrics
from sampan.server.route import RequestInfo
from sampan.store.protocol import Store, Watch


class Measured(Protocol):
    """What is told of `app.Server`."""

    store: Store
    metrics: Metrics
    watchers: dict[Watch, Resource]
    troubles: Callable[[], str]


_ENDPOINTS = ("healthz", "livez", "readyz")
# Checks that monitoring asks for by name. What the original's hooks start once it listens is done here before it does.
_HOOKS = (
    "start-apiserver-admission-initializer generic-apiserver-start-informers priority-and-fairness-config-consumer "
    "priority-and-fairness-filter storage-object-count-tracker-hook start-apiextensions-informers "
    "start-apiextensions-controllers crd-informer-synced start-system-namespaces-controller "
    "start-cluster-authentication-info-controller start-kube-apiserver-identity-lease-controller "
    "start-kube-apiserver-identity-lease-garbage-collector start-legacy-token-tracking-controller "
    "start-service-ip-repair-controllers rbac/bootstrap-roles scheduling/bootstrap-system-priority-classes "
    "priority-and-fairness-config-producer bootstrap-controller start-kubernetes-service-cidr-controller "
    "aggregator-reload-proxy-client-cert start-kube-aggregator-informers apiservice-status-local-available-controller "
    "apiservice-status-remote-available-controller apiservice-registration-controller apiservice-discovery-controller "
    "kube-apiserver-autoregistration"
).split()
_LAST_HOOKS = ("apiservice-openapi-controller", "apiservice-openapiv3-controller")
_LIVE = (
    *("ping", "log", "etcd"),
    *(f"poststarthook/{name}" for name in _HOOKS),
    "autoregister-completion",
    *(f"poststarthook/{name}" for name in _LAST_HOOKS),
)
_CHECKS = {
    "healthz": _LIVE,
    "livez": _LIVE,
    "readyz": (*_LIVE[:3], "etcd-readiness", "informer-sync", *_LIVE[3:], "shutdown"),
}


def answer(server: Measured, request: Request, info: RequestInfo) -> Response | None:
    """The answer when the path is one of these, else None."""
    head, _, check = info.path.strip("/").partition("/")
    if head == "metrics" and not check:
        counts = {name: server.store.count(name) for name in server.store.buckets()}
        return respond.text(server.metrics.render(counts, len(server.watchers), server.store.revision))
    if (head, check) == ("metrics", "slis"):
        return respond.text(server.metrics.slis())
    if head not in _ENDPOINTS:
        return None
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    checks = _CHECKS[head]
    if check:
        if check not in checks:
            return respond.text("404 page not found\n", 404)
        server.metrics.checked(head, [check])
        return respond.text("ok")
    excluded = set(info.query.get("exclude", ()))
    server.metrics.checked(head, [name for name in checks if name not in excluded])
    if "verbose" not in info.query:
        return respond.text("ok")
    lines = [f"[+]{name} excluded: ok" if name in excluded else f"[+]{name} ok" for name in checks]
    if unknown := sorted(excluded.difference(checks)):
        named = ", ".join(f'"{name}"' for name in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {named}")
    if trouble := server.troubles():
        lines.append(f"warn: {trouble}")
    return respond.text("\n".join([*lines, f"{head} check passed"]) + "\n")
