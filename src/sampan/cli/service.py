"""`sampan service NAME`: where a Service is reached from this machine, and open it.

Root's clusters have their addresses on this machine; those of ordinary users are on 127.0.0.1 (see `node.network.rootless`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import webbrowser
from collections.abc import Iterable, Sequence

from sampan.api.status import ApiError
from sampan.base import hostport
from sampan.base.errors import SampanError
from sampan.base.objects import ReadOnlyObject
from sampan.cli import target
from sampan.client.client import Client

_SLICES = "endpointslices.discovery.k8s.io"
_LOOPBACK = "127.0.0.1"
_OWNER = "kubernetes.io/service-name"


def service(arguments: argparse.Namespace) -> int:
    """Prints the places where a Service answers; opens the first in a browser where there is one and it speaks HTTP."""
    _, config, client = target.running(arguments)
    try:
        found = asyncio.run(_look(client, arguments.service, arguments.namespace))
    except ApiError as error:
        hint = f"All of them: kubectl get services -n {arguments.namespace}" if error.code == 404 else ""
        raise SampanError(error.message, hint) from None
    obj, nodes, slices = found
    places = urls(obj, nodes, rootless=config.rootless)
    for place in places:
        print(place)
    if not any(map(_serves, slices)):
        print("nobody is behind it yet: no endpoint is ready", file=sys.stderr)
    elif not arguments.url and places[0].startswith("http") and _desktop():
        webbrowser.open(places[0])
    return 0


def urls(obj: ReadOnlyObject, nodes: Sequence[ReadOnlyObject], *, rootless: bool) -> list[str]:
    """Where a program of this machine reaches each port, the best first. Raises SampanError when it does not at all."""
    spec, name = obj["spec"], obj["metadata"]["name"]
    if spec.get("type") == "ExternalName":
        raise SampanError(f"service {name} is only another name for {spec.get('externalName')}")
    if spec.get("clusterIP") in (None, "", "None"):
        raise SampanError(f"service {name} is headless: it has no address of its own")
    ports = spec.get("ports") or ()
    open_ones = [port for port in ports if port.get("nodePort")]
    if rootless:  # a forwarder on this machine, for TCP
        found = [_url(p, _LOOPBACK, p["nodePort"]) for p in open_ones if p.get("protocol", "TCP") == "TCP"]
        if not found:
            hint = f"kubectl port-forward service/{name} :{ports[0]['port']}" if ports else ""
            raise SampanError(f"service {name} has no port on this machine", hint)
        return found
    if spec.get("type") == "NodePort":
        places = [_LOOPBACK] if "IPv4" in (spec.get("ipFamilies") or ("IPv4",)) else _internal_ips(nodes)[:1]
        return [_url(port, place, port["nodePort"]) for place in places for port in open_ones]
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [entry["ip"] for entry in ingress if entry.get("ip")] or spec["clusterIPs"]
    return [_url(port, address, port["port"]) for address in addresses for port in ports]


def _url(port: ReadOnlyObject, address: str, number: int) -> str:
    kind = port.get("protocol", "TCP")
    scheme = "http" if kind == "TCP" else kind.lower()
    if kind == "TCP" and (port["port"] == 443 or "https" in (port.get("appProtocol"), port.get("name"))):
        scheme = "https"
    return f"{scheme}://{hostport.join(address, number)}"


def _internal_ips(nodes: Sequence[ReadOnlyObject]) -> list[str]:
    found = [entry for node in nodes for entry in (node.get("status") or {}).get("addresses") or ()]
    return [entry["address"] for entry in found if entry.get("type") == "InternalIP"]


def _serves(item: ReadOnlyObject) -> bool:
    endpoints: Iterable[ReadOnlyObject] = item.get("endpoints") or ()
    return any((end.get("conditions") or {}).get("ready") is not False for end in endpoints)


def _desktop() -> bool:
    """Whether there is a person to show a page to."""
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


async def _look(
    client: Client, name: str, namespace: str
) -> tuple[ReadOnlyObject, list[ReadOnlyObject], list[ReadOnlyObject]]:
    obj = await client.get("services", name, namespace)
    nodes = (await client.list("nodes"))["items"]
    slices = await client.list(_SLICES, namespace, labels=f"{_OWNER}={name}")
    return obj, nodes, slices["items"]
