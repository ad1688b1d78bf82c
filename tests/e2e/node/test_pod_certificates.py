"""A real pod with certificates of a signer that runs in this test."""

from __future__ import annotations

import json
import shlex
import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key
from harness import Kubectl, eventually, pod, shell

from pod_signer import SIGNER, issued
from sampan.base import pki

KINDS = ("RSA3072", "ED25519")
READ = "cd /c; stat -Lc %a:%u RSA3072.pem; cat RSA3072.pem key chain; exec sleep infinity"


def test_a_pod_reads_its_certificates(kubectl: Kubectl) -> None:
    source = {"signerName": SIGNER, "maxExpirationSeconds": 7200}
    bundle = source | {"keyType": KINDS[0], "credentialBundlePath": "RSA3072.pem"}
    parts = source | {"keyType": KINDS[1], "keyPath": "key", "certificateChainPath": "chain"}
    sources = [{"podCertificate": bundle}, {"podCertificate": parts}]
    spec = {
        "securityContext": {"runAsUser": 1000},
        "containers": [shell(READ, volumeMounts=[{"name": "c", "mountPath": "/c"}])],
        "volumes": [{"name": "c", "projected": {"sources": sources}}],
    }
    kubectl.apply(pod("holder", spec))
    told = 'jsonpath={.items[?(@.reason=="FailedMount")].message}'
    eventually(lambda: kubectl(f"get events -o {shlex.quote(told)}"), "it says what it waits for")
    requests = eventually(lambda: len(found := kubectl.items("podcertificaterequests")) == 2 and found)
    for request in requests:
        status = json.dumps({"status": issued(request, time.time(), 7200)})
        name = request["metadata"]["name"]
        kubectl(
            f"patch podcertificaterequest {name} --subresource=status --type=merge -p {shlex.quote(status)}"
        )
    kubectl.wait("pod/holder")
    text = eventually(lambda: (log := kubectl("logs holder")).count("-----END") == 4 and log)
    mode, _, rest = text.partition("\n")
    assert mode == "600:1000"
    blocks = pki.pem_blocks(rest)
    assert [label for label, _ in blocks] == ["PRIVATE KEY", "CERTIFICATE"] * 2
    for (_, key), (_, chain) in (blocks[:2], blocks[2:]):
        leaf = x509.load_der_x509_certificate(chain)
        assert leaf.public_key() == load_der_private_key(key, None).public_key()
        assert leaf.subject.rfc4514_string() == "CN=holder"
    shown = kubectl("get podcertificaterequests").splitlines()
    assert shown[0].split() == ["NAME", "PODNAME", "SERVICEACCOUNTNAME", "NODENAME", "SIGNERNAME", "STATE"]
    assert [line.split()[1] + line.split()[-1] for line in shown[1:]] == ["holderIssued"] * 2
