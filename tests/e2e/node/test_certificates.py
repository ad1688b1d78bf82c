"""Certificates of real nodes: renewed before their end, and the first one for a bootstrap token."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from pathlib import Path

import yaml
from harness import PATIENCE, Cluster, Kubectl, eventually

from sampan.api.resources import BUILTIN
from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.client.client import Client
from sampan.client.https import HttpsTransport
from sampan.node.certificates import CLIENT, request

AGENT = "sampan.cluster.agent"


def test_a_node_renews_both_its_certificates(cluster: Cluster, kubectl: Kubectl) -> None:
    directory = cluster.data / "pki"
    ca = pki.CA(pki.KeyPair.load(directory / "ca.crt", directory / "ca.key"))
    name, old = "system:node:node-2", {}
    address = kubectl("get node node-2 -o jsonpath={.status.addresses[0].address}")
    for stem, more in (
        ("node-2", {}),
        ("node-2-serving", {"dns": ["node-2"], "ips": [address], "server": True}),
    ):
        made = time.time() - 86_400  # the greater part of its time has passed
        pair = ca.issue(name, ("system:nodes",), now=made, days=1 + 300 / 86_400, **more)
        pair.save(directory / "nodes" / f"{stem}.crt", directory / "nodes" / f"{stem}.key")
        old[stem] = pair.cert
    kubectl.run_pod("there", {"nodeName": "node-2", "containers": [{"command": ["sleep", "infinity"]}]})
    (agent,) = [p for p in cluster.processes(AGENT) if "node-2" in Path(f"/proc/{p}/cmdline").read_text()]
    os.kill(agent, signal.SIGTERM)

    def renewed() -> bool:
        return all((directory / "nodes" / f"{stem}.crt").read_bytes() != cert for stem, cert in old.items())

    eventually(renewed, "both are renewed")
    for stem in old:
        begin, end = pki.lifetime((directory / "nodes" / f"{stem}.crt").read_bytes())
        assert end - begin > 300 * 86_400
    assert "kubelet-serving" in kubectl("get csr -o wide")
    kubectl.wait("node/node-2")
    assert kubectl("exec there -- echo reached").strip() == "reached"


def test_a_machine_that_joins_gets_its_first_certificate(
    cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
    secret = "abcdef", "0123456789abcdef"
    kubectl(
        f"create secret generic bootstrap-token-{secret[0]} -n kube-system --type=bootstrap.kubernetes.io/token "
        f"--from-literal=token-id={secret[0]} --from-literal=token-secret={secret[1]} "
        "--from-literal=usage-bootstrap-authentication=true"
    )
    kubectl(
        "create clusterrolebinding join --clusterrole=system:node-bootstrapper --group=system:bootstrappers"
    )
    server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    ca = base64.b64decode(server["certificate-authority-data"]).decode()

    async def join() -> pki.KeyPair:
        clock = RealClock()
        transport = HttpsTransport(server["server"], ca=ca, token=".".join(secret), clock=clock)
        try:
            return await request(Client(transport, BUILTIN), clock, "far", CLIENT)
        finally:
            await transport.close()

    try:
        pair = asyncio.run(asyncio.wait_for(join(), PATIENCE))
        pair.save(tmp_path / "far.crt", tmp_path / "far.key")
        (tmp_path / "ca.crt").write_text(ca)
        far = Kubectl("/dev/null")
        who = far(
            f"--server={server['server']} --certificate-authority={tmp_path}/ca.crt "
            f"--client-certificate={tmp_path}/far.crt --client-key={tmp_path}/far.key auth whoami"
        )
        assert "system:node:far" in who and "system:nodes" in who
    finally:
        kubectl(f"delete clusterrolebinding/join secret/bootstrap-token-{secret[0]} -n kube-system")
