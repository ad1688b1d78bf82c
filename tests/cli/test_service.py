import pytest

from sampan.base.errors import SampanError
from sampan.cli.service import urls

HTTP = {"name": "http", "port": 80, "nodePort": 30080}
NODES = [{"status": {"addresses": [{"type": "InternalIP", "address": "fd00::2"}]}}]


def made(kind, *ports, ingress=(), **spec):
    spec = {"type": kind, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": list(ports), **spec}
    status = {"loadBalancer": {"ingress": [{"ip": ip} for ip in ingress]}}
    return {"metadata": {"name": "web"}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("service", "root", "user"),
    [
        (made("NodePort", HTTP), ["http://127.0.0.1:30080"], ["http://127.0.0.1:30080"]),
        (made("NodePort", HTTP, ipFamilies=["IPv6"]), ["http://[fd00::2]:30080"], ["http://127.0.0.1:30080"]),
        (
            made("LoadBalancer", HTTP, ingress=["10.97.255.1", "fd00:97::1"]),
            ["http://10.97.255.1:80", "http://[fd00:97::1]:80"],
            ["http://127.0.0.1:30080"],
        ),
        (made("LoadBalancer", HTTP), ["http://10.96.0.7:80"], ["http://127.0.0.1:30080"]),
        (made("ClusterIP", {"port": 443}), ["https://10.96.0.7:443"], None),
        (
            made("NodePort", {"port": 53, "nodePort": 30053, "protocol": "UDP"}, HTTP),
            ["udp://127.0.0.1:30053", "http://127.0.0.1:30080"],
            ["http://127.0.0.1:30080"],
        ),
        (made("ClusterIP", HTTP, clusterIP="None"), None, None),
        (made("ExternalName", externalName="example.org"), None, None),
    ],
)
def test_where_a_service_is_reached(service, root, user):
    for expected, rootless in ((root, False), (user, True)):
        if expected is None:
            with pytest.raises(SampanError, match="service web"):
                urls(service, NODES, rootless=rootless)
        else:
            assert urls(service, NODES, rootless=rootless) == expected
