"""Certificates of pods, asked for as a node through the API and answered by a signer with no other rights than it needs."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pod_signer import REQUESTS, SIGNER, issued, verdict
from sampan.api import meta
from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.ids import Ids
from sampan.node.pods.problems import VolumeError
from sampan.node.volumes.pod_certificates import PodCertificates
from sampan.testing import Cluster

ROBOT = "system:serviceaccount:default:signer"
SOURCE = {
    "signerName": SIGNER,
    "keyType": "ECDSAP256",
    "credentialBundlePath": "both.pem",
    "userAnnotations": {"example.com/team": "a"},
}


def rights(rules):
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "signer"},
    }
    subject = {"kind": "ServiceAccount", "name": "signer", "namespace": "default"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "signer"}
    binding = role | {"kind": "ClusterRoleBinding", "subjects": [subject], "roleRef": ref}
    return role | {"rules": rules}, binding


GROUP = {"apiGroups": ["certificates.k8s.io"]}
SIGNS = GROUP | {"resources": ["signers"], "verbs": ["sign"], "resourceNames": ["example.com/*"]}
WRITES = GROUP | {"resources": ["podcertificaterequests/status"], "verbs": ["update", "patch"]}


class Setup:
    """One node with one pod, the part of its agent under test, and what a signer does."""

    def __init__(self, cluster, pod, node):
        self.cluster, self.pod, self.node = cluster, pod, node
        self.renewed, self.events = [], []
        self.certificates = self.agent()
        self.signer = cluster.client_as(ROBOT, "system:serviceaccounts")

    def agent(self):
        client = self.cluster.client_as("system:node:n", "system:nodes")
        return PodCertificates(
            client, self.cluster.clock, Ids(1), lambda: self.node, self.record, self.renewed.append
        )

    def record(self, regarding, type, reason, message):
        assert (meta.uid(regarding), type) == (meta.uid(self.pod), "Warning")
        self.events.append((reason, message))

    async def get(self):
        return await self.certificates.get(self.pod, "v", 0)

    async def requests(self):
        await self.cluster.settle()
        return await self.cluster.list(REQUESTS, fields="spec.nodeName=n")

    async def answer(self, request, status):
        await self.signer.patch(
            REQUESTS, meta.name(request), {"status": status}, "default", subresource="status"
        )
        await self.cluster.settle()

    async def sign(self, seconds=86_400.0):
        """Answer the newest request; what it was."""
        request = max(await self.requests(), key=lambda r: int(r["metadata"]["resourceVersion"]))
        await self.answer(request, issued(request, self.cluster.now, seconds))
        return request


@asynccontextmanager
async def pod_with(**source):
    async with Cluster(nodes=0) as cluster:
        await cluster.add_node("n")
        await cluster.apply(*rights([SIGNS, WRITES]))
        projected = {"sources": [{"podCertificate": SOURCE | source}]}
        container = {"name": "c", "image": "x"}
        spec = {"containers": [container], "volumes": [{"name": "v", "projected": projected}]}
        await cluster.client.create("pods", {"metadata": {"name": "p"}, "spec": spec}, "default")
        await cluster.settle()
        setup = Setup(cluster, await cluster.get("pods", "p"), await cluster.get("nodes", "n"))
        yield setup
        await setup.certificates.close()


def leaf(credential):
    return x509.load_pem_x509_certificate(credential.chain)


def matches(credential):
    key = serialization.load_pem_private_key(credential.key, None).public_key()
    return leaf(credential).public_key() == key


async def test_a_pod_gets_what_its_signer_grants():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        request = await at.sign()
        credential = await waiting
        assert matches(credential) and credential.key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        assert leaf(credential).subject.rfc4514_string() == "CN=p"
        spec = request["spec"]
        assert x509.load_der_x509_csr(base64.b64decode(spec.pop("stubPKCS10Request"))).subject == x509.Name(
            []
        )
        account = await at.cluster.get("serviceaccounts", "default")
        assert spec == {
            "signerName": SIGNER,
            "podName": "p",
            "podUID": meta.uid(at.pod),
            "serviceAccountName": "default",
            "serviceAccountUID": meta.uid(account),
            "nodeName": "n",
            "nodeUID": meta.uid(at.node),
            "maxExpirationSeconds": 86_400,
            "unverifiedUserAnnotations": {"example.com/team": "a"},
        }
        assert at.renewed == [] and await at.get() == credential


async def test_what_stands_between_certificates_is_left_out():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        (request,) = await at.requests()
        status = issued(request, at.cluster.now)
        chain = status["certificateChain"]
        lines = chain.splitlines()
        noted = "\n".join(["my own", lines[0], "Note: one", "", *lines[1:], "and its elder", chain])
        await at.answer(request, status | {"certificateChain": noted})
        assert (await waiting).chain.decode() == chain * 2


async def test_a_certificate_is_renewed_when_the_signer_said():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        await at.sign(7200)
        first = await waiting
        await at.cluster.advance(3599)
        assert await at.requests() == []  # the cleaner took the old one
        await at.cluster.advance(301)
        assert await at.get() == first  # until the new one is there
        await at.sign()
        second = await at.get()
        assert at.renewed == [meta.uid(at.pod)] and at.events == []
        assert matches(second) and second.key != first.key


async def test_a_renewal_that_does_not_come_is_told():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        await at.sign(7200)
        first = await waiting
        await at.cluster.advance(3600 + 300 + 600)
        assert at.events == [("CertificateOverdueForRefresh", "PodCertificate refresh overdue")]
        await at.cluster.advance(2700)
        assert at.events[1:] == [("CertificateExpired", "PodCertificate expired")]
        (request,) = await at.requests()
        await at.answer(request, {"conditions": [verdict("Failed", "Broken", "no key")]})
        assert at.events[2][0] == "Failed" and await at.get() == first


@pytest.mark.parametrize(("kind", "words"), [("Denied", "was denied"), ("Failed", "failed")])
async def test_a_refusal_is_for_ever(kind, words):
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        (request,) = await at.requests()
        await at.answer(request, {"conditions": [verdict(kind, "UnsupportedKeyType", "use ED25519")]})
        why = f"PodCertificateRequest was permanently {kind.lower()}: "
        why += 'reason="UnsupportedKeyType" message="use ED25519"'
        for waited in (waiting, at.get()):
            with pytest.raises(VolumeError) as refusal:
                await waited
            assert str(refusal.value) == why
        name = f"default/{meta.name(request)}"
        message = f'PodCertificateRequest {name} {words}, reason="UnsupportedKeyType", message="use ED25519"'
        assert at.events == [(kind, message)]
        await at.cluster.advance(3600)
        assert await at.requests() == []


async def test_a_pod_says_once_what_it_waits_for():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        await at.cluster.advance(2)
        with pytest.raises(VolumeError, match="^credential bundle is not issued yet$"):
            await waiting
        waiting = asyncio.ensure_future(at.get())
        await at.cluster.advance(100)
        assert not waiting.done()
        await at.sign()
        assert matches(await waiting)


async def test_what_the_server_refuses_is_told_and_asked_again():
    async with pod_with() as at:
        uid, at.node["metadata"]["uid"] = meta.uid(at.node), "another"
        waiting = asyncio.ensure_future(at.get())
        await at.cluster.advance(2)
        with pytest.raises(VolumeError, match="is not issued yet: .* inconsistent with the running node"):
            await waiting
        at.node["metadata"]["uid"] = uid
        waiting = asyncio.ensure_future(at.get())
        await at.cluster.advance(300)
        await at.sign()
        assert matches(await waiting)


async def test_a_request_that_is_removed_is_made_anew():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        (request,) = await at.requests()
        await at.cluster.client.delete(REQUESTS, meta.name(request), "default")
        await at.cluster.advance(1.6)
        (again,) = await at.requests()
        assert again["spec"] == request["spec"] and meta.uid(again) != meta.uid(request)
        await at.sign()
        assert matches(await waiting)


async def test_another_agent_asks_anew():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        await at.sign()
        first = await waiting
        await at.certificates.close()
        at.certificates = at.agent()
        waiting = asyncio.ensure_future(at.get())
        await at.sign()
        assert (await waiting).key != first.key


async def test_nothing_is_asked_for_a_pod_that_is_forgotten():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        await at.requests()
        at.certificates.forget(meta.uid(at.pod))
        with pytest.raises(VolumeError):
            await waiting
        await at.cluster.advance(3600)
        assert await at.requests() == []


async def test_a_signer_signs_only_what_it_may_and_now():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        (request,) = await at.requests()
        with pytest.raises(
            ApiError, match="must be set to within 5 minutes of kube-apiserver's current time"
        ):
            await at.answer(request, issued(request, at.cluster.now - 301))
        await at.cluster.apply(*rights([WRITES]))
        with pytest.raises(ApiError) as refusal:
            await at.answer(request, issued(request, at.cluster.now))
        told = f'spec.signerName: Forbidden: User "{ROBOT}" is not permitted to "sign" for signer "{SIGNER}"'
        assert refusal.value.code == 422 and refusal.value.message.endswith(told)
        await at.answer(request, {"conditions": [verdict("Denied")]})  # needs no key
        with pytest.raises(VolumeError):
            await waiting


async def test_what_kubectl_shows():
    async with pod_with() as at:
        waiting = asyncio.ensure_future(at.get())
        await at.requests()
        at.certificates.forget(meta.uid(at.pod))
        with pytest.raises(VolumeError):
            await waiting
        with pytest.raises(ApiError, match="field label not supported: spec.podUID"):
            await at.cluster.list(REQUESTS, fields="spec.podUID=1")
        fields = f"spec.podName=p,spec.signerName={SIGNER}"
        (found,) = await at.cluster.list(REQUESTS, fields=fields)
        assert meta.name(found).startswith("req-")


@pytest.mark.parametrize("kind", sorted({*pki.POD_KEYS} - {"RSA4096"}))  # which takes seconds
def test_each_kind_of_key(kind):
    csr, key = pki.empty_request(kind)
    public = serialization.load_pem_private_key(key, None).public_key()
    request = x509.load_der_x509_csr(csr)
    assert request.is_signature_valid and request.public_key() == public
    size = int("".join(c for c in kind.removeprefix("ED25519") if c.isdigit()) or 0)
    assert getattr(public, "key_size", 0) == size
