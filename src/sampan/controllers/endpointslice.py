"""EndpointSlice: which addresses stand behind a Service, whether each takes traffic, and on which ports.

The proxy and DNS of every node live on these. Source: API reference EndpointSlice v1 (conditions ready, serving,
terminating); "DNS for Services and Pods" (hostname and subdomain).
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Key, Plan, View, by_metadata

from . import pods
from .base import Rule, selector_of
from .slices import HEADLESS, MANAGED_BY, RESOURCE, SERVICE, Group, pack, text

_MANAGER = "endpointslice-controller.k8s.io"
_ZONE = "topology.kubernetes.io/zone"


def rules() -> list[Rule]:
    watches = {"pods": services_of, RESOURCE: _service_of_slice, "nodes": _hinting}
    return [Rule("endpointslice-controller", "services", reconcile, watches)]


def _hinting(node: Object, view: View) -> list[Key]:
    """Services whose endpoints carry hints, which follow the zones of nodes."""
    return [
        Key(meta.namespace(s), meta.name(s))
        for s in view.list("services")
        if s["spec"].get("trafficDistribution")
    ]


@by_metadata
def services_of(pod: Object, view: View) -> Iterator[Key]:
    """Services of the pod's namespace whose selector matches it."""
    labels = meta.labels(pod)
    if labels:
        for service in view.list("services", meta.namespace(pod)):
            selector = service["spec"].get("selector")
            if selector and selector.items() <= labels.items():
                yield Key(meta.namespace(service), meta.name(service))


def _service_of_slice(s: Object, view: View) -> list[Key]:
    labels = meta.labels(s)
    mine = labels.get(MANAGED_BY) == _MANAGER and labels.get(SERVICE)
    return [Key(meta.namespace(s), labels[SERVICE])] if mine else []


def has_endpoints(service: Object) -> bool:
    """Whether endpoints are computed: a selector, and not just another name."""
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def headless(service: Object) -> bool:
    return service["spec"].get("clusterIP") == "None"


def backends(service: Object, view: View) -> list[Object]:
    """Pods of the selector that have an address and have not finished; terminating ones are among them."""
    found = view.selected("pods", meta.namespace(service), selector_of(service))
    return [p for p in found if p.get("status", {}).get("podIP") and not pods.finished(p)]


def addresses(pod: Object, family: str) -> list[str]:
    """The pod's addresses of a family (IPv4 or IPv6)."""
    status = pod["status"]
    found = [a["ip"] for a in status.get("podIPs") or ()] or [status["podIP"]]
    return [ip for ip in found if (":" in ip) == (family == "IPv6")]


def ports_of(service: Object, pod: Object) -> list[Object]:
    """The service's ports as this pod has them; one with a name that the pod lacks is left out."""
    result = []
    for port in service["spec"].get("ports") or ():
        number = port.get("targetPort") or port["port"]
        if isinstance(number, str):
            number = _named(pod, number, port.get("protocol", "TCP"))
        if number:
            result.append(
                {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
                | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})
            )
    return result


def _named(pod: Object, name: str, protocol: str) -> int:
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*spec.get("containers", ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return 0


def hostname_of(service: Object, pod: Object) -> str:
    """The name a pod has under its headless service; empty when it names another subdomain."""
    spec = pod["spec"]
    return spec.get("hostname", "") if spec.get("subdomain") == meta.name(service) else ""


def service_labels(service: Object, manager: str) -> dict[str, str]:
    """A slice has its Service's labels and those that say whose it is. Source: "EndpointSlices", section "Management"."""
    own = {k: v for k, v in meta.labels(service).items() if k not in (MANAGED_BY, SERVICE, HEADLESS)}
    fixed = {SERVICE: meta.name(service), MANAGED_BY: manager}
    return own | fixed | ({HEADLESS: ""} if headless(service) else {})


def reconcile(service: Object, view: View, now: float) -> Plan:
    """Slices for each family and each list of port numbers: a named port may be another number in another pod.

    A Service without a selector is left to whoever writes its slices. Source: "EndpointSlices", section "Management".
    """
    plan = Plan()
    if meta.deleted(service):
        return plan
    existing = [
        s for s in view.owned(RESOURCE, meta.uid(service)) if meta.labels(s).get(MANAGED_BY) == _MANAGER
    ]
    if not has_endpoints(service):
        return plan
    groups: dict[bytes, Group] = {}
    for family in service["spec"].get("ipFamilies") or ["IPv4"]:
        found = False
        for pod in backends(service, view):
            if not (ips := addresses(pod, family)):
                continue
            found = True
            ports = ports_of(service, pod)
            group = groups.setdefault(text([family, ports]), Group(family, ports, []))
            group.endpoints.append(_endpoint(service, pod, ips[:1], view))
        if not found:
            groups[text([family, []])] = Group(family, [], [])
    steps = pack(
        service, meta.name(service), service_labels(service, _MANAGER), list(groups.values()), existing
    )
    plan.why = f"{sum(len(g.endpoints) for g in groups.values())} endpoints"
    return plan.then(*steps)


def _endpoint(service: Object, pod: Object, ips: list[str], view: View) -> Object:
    serving, terminating = pods.ready(pod), bool(meta.deleted(pod))
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Object = {
        "addresses": ips,
        "conditions": {
            "ready": published or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": meta.namespace(pod),
            "name": meta.name(pod),
            "uid": meta.uid(pod),
        },
    }
    if name := hostname_of(service, pod):
        endpoint["hostname"] = name
    if node_name := pod["spec"].get("nodeName"):
        endpoint["nodeName"] = node_name
        node = view.get("nodes", node_name)
        zone = meta.labels(node).get(_ZONE) if node else None
        if zone:
            endpoint["zone"] = zone
        if hints := _hints(service, node_name, zone):
            endpoint["hints"] = hints
    return endpoint


def _hints(service: Object, node: str, zone: str | None) -> Object:
    """For whom an endpoint is first of all, by `trafficDistribution` (KEP-3015; PreferClose is the older name)."""
    wish = service["spec"].get("trafficDistribution")
    hints: Object = {}
    if wish == "PreferSameNode":
        hints["forNodes"] = [{"name": node}]
    if wish in ("PreferSameNode", "PreferSameZone", "PreferClose") and zone:
        hints["forZones"] = [{"name": zone}]
    return hints
