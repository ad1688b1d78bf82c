"""A node's certificates: the first one asked for with a bootstrap token, later ones before the old end.

Source: "TLS bootstrapping", "Configure Certificate Rotation for the Kubelet". A certificate is renewed when 70 to 90
percent of its time has passed, at a moment that differs from node to node.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client

log = logging.getLogger(__name__)
CLIENT, SERVING = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"
_USAGES = {CLIENT: ["digital signature", "client auth"], SERVING: ["digital signature", "server auth"]}
_REQUESTS = "certificatesigningrequests.certificates.k8s.io"
_PATIENCE = 900.0  # seconds until a request nobody decides on is made anew
_FIRST, _SHARE, _SPREAD = 30.0, 0.7, 0.2  # seconds after a failure; when to renew


class Refused(Exception):
    """The request was denied, or could not be signed."""


async def request(
    client: Client, clock: Clock, node: str, signer: str, *, dns: Iterable[str] = (), ips: Iterable[str] = ()
) -> pki.KeyPair:
    """Ask for a certificate of system:node:NODE and wait for it. Raises Refused, TimeoutError, ApiError, OSError."""
    csr, key = pki.certificate_request(f"system:node:{node}", ("system:nodes",), dns=dns, ips=ips)
    spec = {"request": base64.b64encode(csr).decode(), "signerName": signer, "usages": _USAGES[signer]}
    made = await client.create(
        _REQUESTS,
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": spec,
        },
    )
    async with clock.timeout(_PATIENCE):
        return pki.KeyPair(await _certificate(client, made), key)


async def _certificate(client: Client, made: Object) -> bytes:
    """The certificate, once it is there."""
    name, since = made["metadata"]["name"], made["metadata"]["resourceVersion"]
    watch = client.watch(_REQUESTS, since=since, fields=f"metadata.name={name}")
    async with contextlib.aclosing(watch):
        async for line in watch:
            event = orjson.loads(line)
            if event["type"] == "ERROR":
                raise ApiError.from_status(event["object"])
            if event["type"] == "DELETED":
                raise Refused(f"request {name} was removed")
            status = event["object"].get("status") or {}
            for condition in status.get("conditions") or ():
                if condition["type"] in ("Denied", "Failed"):
                    raise Refused(f"request {name}: {condition['type']}: {condition.get('message', '')}")
            if status.get("certificate"):
                return base64.b64decode(status["certificate"])
    raise OSError(f"the watch of request {name} ended")


class Rotation:
    """Keeps one pair of files fresh. `renewed(cert, key)` is called with the paths after they were replaced."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        ids: Ids,
        node: str,
        signer: str,
        cert: Path,
        key: Path,
        renewed: Callable[[Path, Path], Any],
        *,
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
    ) -> None:
        self._client, self._clock, self._ids = client, clock, ids
        self._node, self._signer = node, signer
        self._cert, self._key, self._renewed = cert, key, renewed
        self._dns, self._ips = list(dns), list(ips)

    async def run(self) -> None:
        """For ever."""
        delay = _FIRST
        due = self.due()
        while True:
            await self._clock.sleep(max(due - self._clock.now(), 0.0))
            try:
                pair = await request(
                    self._client, self._clock, self._node, self._signer, dns=self._dns, ips=self._ips
                )
            except (Refused, ApiError, OSError, EOFError, TimeoutError) as error:
                log.warning("renewing a certificate (%s): %s", self._signer, error)
                await self._clock.sleep(self._ids.jitter(delay, 0.5))
                delay = min(delay * 2, 600.0)
                continue
            delay = _FIRST
            pair.save(self._cert, self._key)
            self._renewed(self._cert, self._key)
            due = self.due()
            log.info("%s was renewed", self._cert.name)

    def due(self) -> float:
        """When the present certificate is to be renewed (epoch seconds)."""
        begin, end = pki.lifetime(self._cert.read_bytes())
        return begin + (end - begin) * self._ids.jitter(_SHARE, _SPREAD / _SHARE)
