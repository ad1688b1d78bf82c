"""Services: one stable address and name before pods that come and go, from inside the cluster and from this machine."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections import Counter

import pytest
from harness import Kubectl, deployment, eventually, pod, server, shell


def fetch(url: str) -> str:
    """What the URL answers from this machine."""
    return urllib.request.urlopen(url, timeout=3).read().decode().strip()


def service(name: str, ports: list[dict] | None = None, **spec: object) -> dict:
    spec = {"selector": {"app": name}, "ports": ports or [{"port": 80, "targetPort": 8080}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def refused(kubectl: Kubectl, name: str) -> bool:
    """Whether a connection to it is refused (curl's exit code 7), not left waiting."""
    return kubectl.run(f"exec client -- curl -sS --max-time 5 {name}").returncode == 7


def curl(kubectl: Kubectl, url: str, client: str = "client") -> str:
    """What the URL answers in a pod, as soon as it does."""
    return eventually(lambda: kubectl(f"exec {client} -- curl -sS --max-time 5 {url}").strip(), url)


@pytest.fixture
def web(kubectl: Kubectl) -> Kubectl:
    """Two web pods behind the Service `web`, and a pod `client` on each node (client, client-2)."""
    kubectl.apply(
        deployment("web", replicas=2),
        service("web"),
        pod("client", {"nodeName": "node-1", "containers": [shell("exec sleep infinity")]}),
        pod("client-2", {"nodeName": "node-2", "containers": [shell("exec sleep infinity")]}),
    )
    kubectl("rollout status deployment/web --timeout=60s")
    kubectl.wait("pod/client pod/client-2")
    kubectl.wait(
        "endpointslice -l kubernetes.io/service-name=web", "jsonpath={.endpoints[1].conditions.ready}=true"
    )
    return kubectl


def test_cluster_ip(web: Kubectl) -> None:
    """From pods on every node, by address and by name; from this machine; from a pod of its own (hairpin)."""
    address = web("get service web -o jsonpath={.spec.clusterIP}")
    for client in ("client", "client-2"):
        assert curl(web, address, client).startswith("web-")
        assert curl(web, "http://web", client).startswith("web-")
        assert curl(web, f"http://web.{web.namespace}.svc.cluster.local", client).startswith("web-")
    eventually(lambda: fetch(f"http://{address}").startswith("web-"), "from this machine")
    for name in web("get pods -l app=web -o name").split():
        assert curl(web, "http://web", name).startswith("web-")


def test_load_is_spread(web: Kubectl) -> None:
    """Over all ready pods, and only them."""
    loop = "for i in $(seq 60); do curl -s web; done"

    def counted() -> Counter[str]:
        counts = Counter(web(f"exec client -- sh -c '{loop}'").split())
        assert len(counts) == 2 and min(counts.values()) >= 12, counts
        return counts

    sorry = next(iter(eventually(counted, "both answer, about equally often")))
    web(f"label pod {sorry} app=other --overwrite")
    eventually(
        lambda: sorry not in web("get endpoints web -o jsonpath={.subsets[*].addresses[*].targetRef.name}")
    )
    eventually(lambda: sorry not in web(f"exec client -- sh -c '{loop}'"))


def test_endpoints_follow_readiness(kubectl: Kubectl) -> None:
    """A pod that is not ready gets no requests; a Service without ready pods refuses at once."""
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    probe["timeoutSeconds"] = 30  # slow is not unready
    kubectl.apply(
        pod("web", {"containers": [server(readinessProbe=probe)]}, labels={"app": "web"}),
        service("web"),
        pod("client"),
    )
    kubectl.wait("pod/client")
    eventually(
        lambda: (
            kubectl("get endpoints web -o jsonpath={.subsets[*].notReadyAddresses[*].targetRef.name}")
            == "web"
        )
    )
    eventually(lambda: refused(kubectl, "web"), "connection refused")
    kubectl("exec web -- touch /tmp/ready")
    assert curl(kubectl, "web") == "web"
    (one,) = kubectl.items("endpointslices -l kubernetes.io/service-name=web")
    assert one["endpoints"][0]["conditions"] == {"ready": True, "serving": True, "terminating": False}
    kubectl("exec web -- rm /tmp/ready")
    eventually(lambda: refused(kubectl, "web"), "connection refused")


def test_an_exposed_deployment_answers_by_name(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("web", replicas=1), pod("client"))
    kubectl("rollout status deployment/web --timeout=60s")
    said = kubectl("expose deployment web --port=80 --target-port=8080 --name=shop")
    assert "service/shop exposed" in said
    kubectl.wait("pod/client")
    assert curl(kubectl, "shop").startswith("web-")
    header, row = kubectl("get service shop").splitlines()
    assert header.split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert row.split()[1] == "ClusterIP" and row.split()[4] == "80/TCP"
    described = kubectl("describe service shop")
    assert "TargetPort:               8080/TCP" in described or "TargetPort:" in described
    assert f"{kubectl('get pod -l app=web -o jsonpath={.items[0].status.podIP}')}:8080" in described


def test_run_expose(kubectl: Kubectl) -> None:
    kubectl("run web --image=localhost/host --port=8000 --expose -- python3 -m http.server 8000")
    assert kubectl("get service web -o jsonpath={.spec.ports[0].port}") == "8000"
    kubectl.wait("pod/web")
    assert "Directory listing" in curl(kubectl, "web:8000", "web")


def test_the_name_of_a_headless_service_stands_for_its_pods(web: Kubectl) -> None:
    """No address of its own: the name stands for the pods."""
    web.apply(service("heads", clusterIP="None", selector={"app": "web"}))
    pods = sorted(web("get pods -l app=web -o jsonpath={.items[*].status.podIP}").split())
    assert web("get service heads -o jsonpath={.spec.clusterIP}") == "None"

    def addresses() -> list[str]:
        return sorted(
            {line.split()[0] for line in web.run("exec client -- getent ahostsv4 heads").stdout.splitlines()}
        )

    eventually(lambda: addresses() == pods, f"addresses {pods}")
    assert curl(web, "http://heads:8080").startswith("web-")


def test_without_selector(web: Kubectl) -> None:
    """Endpoints written by hand, here to a pod of another label."""
    address = web("get pod -l app=web -o jsonpath={.items[0].status.podIP}")
    by_hand = service("manual")
    del by_hand["spec"]["selector"]
    web.apply(
        by_hand,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "manual-1", "labels": {"kubernetes.io/service-name": "manual"}},
            "addressType": "IPv4",
            "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [address]}],
        },
    )
    assert curl(web, "manual").startswith("web-")


def test_node_port(web: Kubectl) -> None:
    """The same port on every node, also one without such a pod, and on this machine."""
    web('patch service web -p \'{"spec":{"type":"NodePort"}}\'')
    port = web("get service web -o jsonpath={.spec.ports[0].nodePort}")
    assert 30000 <= int(port) <= 32767
    for node in ("node-1", "node-2"):
        address = web(f"get node {node} -o jsonpath={{.status.addresses[0].address}}")
        eventually(
            lambda address=address: fetch(f"http://{address}:{port}").startswith("web-"), f"{node} from here"
        )
        assert curl(web, f"http://{address}:{port}").startswith("web-")
    eventually(lambda: fetch(f"http://127.0.0.1:{port}").startswith("web-"), "127.0.0.1")


def test_node_port_chosen(kubectl: Kubectl) -> None:
    taken = service("one", [{"port": 80, "nodePort": 30999}], type="NodePort")
    kubectl.apply(taken)
    other = service("two", [{"port": 80, "nodePort": 30999}], type="NodePort")
    assert "provided port is already allocated" in kubectl.refused("apply -f -", input=json.dumps(other))
    kubectl("delete service one")
    kubectl.apply(other)


def test_load_balancer(web: Kubectl) -> None:
    """It gets an address of its own at once, and answers there."""
    web("expose deployment web --name=public --port=80 --target-port=8080 --type=LoadBalancer")
    web.wait("service/public", "jsonpath={.status.loadBalancer.ingress[0].ip}")
    address = web("get service public -o jsonpath={.status.loadBalancer.ingress[0].ip}")
    assert web("get service public --no-headers").split()[3] == address
    eventually(lambda: fetch(f"http://{address}").startswith("web-"), "from this machine")
    assert curl(web, f"http://{address}").startswith("web-")


def test_external_name(kubectl: Kubectl) -> None:
    """A CNAME in the cluster's DNS."""
    kubectl("create service externalname far --external-name=target.example.test")
    kubectl.run_pod("client")
    address = kubectl("get service kube-dns -n kube-system -o jsonpath={.spec.clusterIP} --ignore-not-found")
    ask = _DNS.replace("NAME", f"far.{kubectl.namespace}.svc.cluster.local")
    eventually(
        lambda: b"target" in eval(kubectl(f'exec client -- python3 -c "{ask}"')), f"a CNAME from {address}"
    )


_DNS = (
    "import socket,struct;"
    "server=[l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver')][0];"
    "q=struct.pack('>6H',7,256,1,0,0,0)+b''.join(bytes([len(p)])+p.encode() for p in 'NAME'.split('.'))+b'\\\\0'"
    "+struct.pack('>2H',5,1);"
    "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(5);s.sendto(q,(server,53));print(s.recv(512))"
)


def test_names_resolve_through_the_search_list(web: Kubectl) -> None:
    """Short and full names through the search list; other namespaces; a name that is not there; pods' resolv.conf."""
    address = web("get service web -o jsonpath={.spec.clusterIP}")
    for name in (
        "web",
        f"web.{web.namespace}",
        f"web.{web.namespace}.svc",
        f"web.{web.namespace}.svc.cluster.local.",
    ):
        eventually(
            lambda name=name: web(f"exec client -- getent ahostsv4 {name}").split()[0] == address, name
        )
    assert web("exec client -- getent hosts kubernetes.default").split()[0] == web(
        "get service kubernetes -n default -o jsonpath={.spec.clusterIP}"
    )
    assert web.run("exec client -- getent hosts no-such-service").returncode == 2
    resolv = web("exec client -- cat /etc/resolv.conf")
    assert f"search {web.namespace}.svc.cluster.local svc.cluster.local cluster.local" in resolv
    assert "options ndots:5" in resolv


def test_dns_of_named_pods(kubectl: Kubectl) -> None:
    """hostname and subdomain give a pod behind a headless Service a name of its own."""
    kubectl.apply(
        pod("web", {"hostname": "one", "subdomain": "web", "containers": [server()]}, labels={"app": "web"}),
        service("web", clusterIP="None"),
        pod("client"),
    )
    kubectl.wait("pod/client pod/web")
    assert curl(kubectl, "http://one.web:8080") == "one"
    assert kubectl("exec web -- hostname -f") == f"one.web.{kubectl.namespace}.svc.cluster.local\n"


def test_environment_variables(web: Kubectl) -> None:
    """A pod that starts after a Service finds it in its environment."""
    address = web("get service web -o jsonpath={.spec.clusterIP}")
    web.run_pod("late")
    env = web("exec late -- env").splitlines()
    for line in (
        f"WEB_SERVICE_HOST={address}",
        "WEB_SERVICE_PORT=80",
        f"WEB_PORT=tcp://{address}:80",
        f"WEB_PORT_80_TCP_ADDR={address}",
    ):
        assert line in env


def test_named_and_several_ports(kubectl: Kubectl) -> None:
    container = server()
    container["ports"] = [{"name": "http", "containerPort": 8080}]
    kubectl.apply(
        deployment("web", container, replicas=1),
        service(
            "web",
            [
                {"name": "web", "port": 80, "targetPort": "http"},
                {"name": "again", "port": 81, "targetPort": 8080},
            ],
        ),
        pod("client"),
    )
    kubectl("rollout status deployment/web --timeout=60s")
    kubectl.wait("pod/client")
    assert curl(kubectl, "web:80").startswith("web-")
    assert curl(kubectl, "web:81").startswith("web-")


def test_udp_reaches_a_service(kubectl: Kubectl) -> None:
    echo = 'import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(("",9));print("up",flush=True)\nwhile True:\n d,a=s.recvfrom(99);s.sendto(d.upper(),a)'
    kubectl.run_pod("echo", {"containers": [{"command": ["python3", "-c", echo]}]}, labels={"app": "echo"})
    kubectl.apply(service("echo", [{"port": 9, "protocol": "UDP"}]))
    address = kubectl("get service echo -o jsonpath={.spec.clusterIP}")
    eventually(lambda: kubectl("logs echo") == "up\n")

    def answer() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.sendto(b"hello", (address, 9))
            try:
                return client.recv(99)
            except OSError:
                return b""

    eventually(lambda: answer() == b"HELLO")


def test_session_affinity(web: Kubectl) -> None:
    """ClientIP: one client always meets the same pod."""
    web('patch service web -p \'{"spec":{"sessionAffinity":"ClientIP"}}\'')
    loop = "for i in $(seq 20); do curl -s web; done"
    eventually(lambda: len(set(web(f"exec client -- sh -c '{loop}'").split())) == 1)


def test_service_refused(kubectl: Kubectl) -> None:
    assert "Invalid value" in kubectl.refused("create service clusterip Bad_Name --tcp=80")
    assert "1.2.3.4" in kubectl.refused("create service clusterip web --tcp=80 --clusterip=1.2.3.4")
