import asyncio
import base64
import os

import pytest
from cryptography import x509

from sampan.base import pki
from sampan.base.clock import VirtualClock
from sampan.cluster import effects
from sampan.testing import Cluster

CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
POD = {
    "metadata": {"name": "user"},
    "spec": {
        "containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}


async def eventually(cluster, look):
    """Files are made in threads, which virtual time does not wait for."""
    async with asyncio.timeout(60):
        while True:
            await cluster.settle()
            if found := await look():
                return found
            await asyncio.sleep(0.01)


async def test_a_claim_gets_a_directory_which_goes_with_it(tmp_path):
    async with Cluster(
        nodes=1, volumes=str(tmp_path / "volumes"), volume_effects=effects.volumes(tmp_path / "volumes")
    ) as cluster:
        client = cluster.client
        await client.create("persistentvolumeclaims", CLAIM, "default")
        await client.create("pods", POD, "default")

        async def bound():
            claim = await client.get("persistentvolumeclaims", "data", "default")
            return claim.get("status", {}).get("phase") == "Bound" and claim

        claim = await eventually(cluster, bound)
        assert claim["spec"]["storageClassName"] == "local-path"
        directory = tmp_path / "volumes" / claim["spec"]["volumeName"]
        assert directory.stat().st_mode & 0o777 == 0o777
        (directory / "file").write_text("kept")
        await client.delete("pods", "user", "default", grace=0)
        await client.delete("persistentvolumeclaims", "data", "default")

        async def gone():
            return not (await client.list("persistentvolumes"))["items"]

        await eventually(cluster, gone)
        assert not directory.exists()


async def test_a_directory_that_cannot_be_removed_is_told(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(16, os.strerror(16))

    make, remove = effects.volumes(tmp_path / "v").values()
    assert await make("", "pvc-1") == {} and await make("", "pvc-1") == {}
    monkeypatch.setattr(effects.shutil, "rmtree", refuse)
    assert await remove("", "pvc-1") == {"error": f"{tmp_path}/v/pvc-1: Device or resource busy"}
    assert await remove("", "..") == {"error": "'..' is no volume's name"}


def request(signer, name, groups, usages):
    csr, _ = pki.certificate_request(name, groups)
    return {"spec": {"signerName": signer, "usages": usages, "request": base64.b64encode(csr).decode()}}


CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ((CLIENT, "jane", ["dev"], ["client auth"]), ""),
        ((CLIENT, "jane", ["dev"], ["client auth", "digital signature"]), ""),
        ((KUBELET, "system:node:a", ["system:nodes"], ["client auth"]), "usages must be"),
        ((KUBELET, "system:node:a", ["system:nodes"], ["digital signature", "client auth"]), ""),
        ((KUBELET, "jane", ["system:nodes"], ["digital signature", "client auth"]), "common name"),
        ((KUBELET, "system:node:a", ["dev"], ["digital signature", "client auth"]), "organization"),
        ((SERVING, "system:node:a", ["system:nodes"], ["client auth"]), "usages must be"),
        (("example.com/own", "jane", [], ["client auth"]), "unknown signer"),
    ],
)
async def test_who_is_signed(asked, error):
    ca, clock = pki.CA.fixed(), VirtualClock()
    answer = await effects.signer(ca, lambda name: request(*asked), clock)("", "x")
    if error:
        assert error in answer["error"]
    else:
        cert = x509.load_pem_x509_certificate(base64.b64decode(answer["certificate"]))
        assert cert.issuer.rfc4514_string() == "CN=sampan-test"


async def test_an_approved_request_is_signed_through_the_api():
    async with Cluster(nodes=0, signer=pki.CA.fixed()) as cluster:
        body = request(CLIENT, "jane", ["dev"], ["client auth"]) | {"metadata": {"name": "jane"}}
        made = await cluster.client.create(effects.CSRS, body)
        condition = {"type": "Approved", "status": "True", "reason": "Asked", "message": "yes"}
        made["status"] = {"conditions": [condition]}
        await cluster.client.update(effects.CSRS, made, "approval")
        await cluster.settle()
        signed = await cluster.client.get(effects.CSRS, "jane")
        assert base64.b64decode(signed["status"]["certificate"]).startswith(b"-----BEGIN CERTIFICATE")
