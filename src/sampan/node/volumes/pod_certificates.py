"""Certificates of pods: a key that is made here, a request about it, what its signer answered; renewed in time.

Source: KEP-4317; "Projected Volumes" (podCertificate). An agent that starts again asks anew for everything; until that is
there, pods keep the files they have.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sampan.api import meta
from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import Clock, rfc3339_parse
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.base.tasks import Tasks
from sampan.client.client import Client
from sampan.node.pods.manager import follow
from sampan.node.pods.problems import VolumeError
from sampan.node.volumes import payload

_REQUESTS = "podcertificaterequests.certificates.k8s.io"
_SPREAD = 300  # seconds, over which the renewals of one moment are spread
_OVERDUE = 600.0  # seconds after a renewal was due
_FIRST, _LIMIT = 1.0, 300.0  # seconds until a request is made again
_PATIENCE = 2.0  # seconds until a pod that waits says so
_WAITS = "credential bundle is not issued yet"


class Record(Protocol):
    """Tells an event, as `NodeEvents.record` does."""

    def __call__(self, regarding: Object, type: str, reason: str, message: str) -> None: ...


class Issued(NamedTuple):
    credential: payload.Credential
    renewal: float  # seconds since the epoch, as are these
    end: float


class _Refused(Exception):
    """The signer's last word: `reason` is that of the pod's event, the text its message."""

    def __init__(self, reason: str, told: str, text: str) -> None:
        super().__init__(text)
        self.reason, self.told = reason, told


@dataclass(slots=True)
class _Projection:
    """One podCertificate source of one pod."""

    decided: asyncio.Event = field(default_factory=asyncio.Event)
    credential: payload.Credential | None = None
    refusal: str = ""
    trouble: str = ""  # what the last attempt to ask met
    told: bool = False
    task: asyncio.Task[None] | None = None


class PodCertificates:
    """`changed(pod uid)` is called when a certificate was renewed. `node` answers the Node that all is asked for."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        ids: Ids,
        node: Callable[[], Object],
        record: Record,
        changed: Callable[[str], None],
    ) -> None:
        self._client, self._clock, self._ids = client, clock, ids
        self._node, self._record, self._changed = node, record, changed
        self._known: dict[tuple[str, str, int], _Projection] = {}  # pod uid, volume, index of the source
        self._tasks = Tasks()

    async def get(self, pod: Object, volume: str, index: int) -> payload.Credential:
        """Key and chain of one source; they are kept fresh until the pod is forgotten.

        Raises VolumeError when the signer refuses, and once when it takes its time, so that the pod's events say what it
        waits for; who asks again waits as long as it takes.
        """
        self._begin(pod)
        mine = self._known[meta.uid(pod), volume, index]
        try:
            async with self._clock.timeout(None if mine.told else _PATIENCE):
                await mine.decided.wait()
        except TimeoutError:
            mine.told = True
            raise VolumeError(f"{_WAITS}: {mine.trouble}" if mine.trouble else _WAITS) from None
        if mine.credential is None:
            raise VolumeError(mine.refusal)
        return mine.credential

    def _begin(self, pod: Object) -> None:
        """For all sources of the pod at once: their signers work side by side."""
        for volume in pod["spec"].get("volumes") or ():
            for index, source in payload.certificates(volume):
                key = (meta.uid(pod), volume["name"], index)
                if key not in self._known:
                    mine = self._known[key] = _Projection()
                    mine.task = self._tasks.start(self._keep(pod, source, mine))

    def forget(self, pod_uid: str) -> None:
        for key in [k for k in self._known if k[0] == pod_uid]:
            gone = self._known.pop(key)
            gone.refusal = _WAITS
            gone.decided.set()  # for who has waited, and was forgotten meanwhile
            if gone.task:
                gone.task.cancel()

    async def close(self) -> None:
        await self._tasks.cancel()

    # One source

    async def _keep(self, pod: Object, source: Object, mine: _Projection) -> None:
        """Until the pod is forgotten, or the signer has refused: a pod keeps what it has then."""
        with contextlib.ExitStack() as alarms:
            while True:
                try:
                    issued = await self._obtain(pod, source, mine)
                except _Refused as error:
                    mine.refusal = str(error)
                    mine.decided.set()
                    self._record(pod, "Warning", error.reason, error.told)
                    return
                alarms.close()
                renewed = mine.credential is not None
                mine.credential = issued.credential
                mine.decided.set()
                if renewed:
                    self._changed(meta.uid(pod))
                due = issued.renewal + self._ids.choice(_SPREAD)
                await self._clock.sleep(max(due - self._clock.now(), 0.0))
                overdue = ("CertificateOverdueForRefresh", "PodCertificate refresh overdue")
                expired = ("CertificateExpired", "PodCertificate expired")
                for moment, told in ((due + _OVERDUE, overdue), (issued.end, expired)):
                    wait = max(moment - self._clock.now(), 0.0)
                    timer = self._clock.call_later(wait, self._record, pod, "Warning", *told)
                    alarms.callback(timer.cancel)

    async def _obtain(self, pod: Object, source: Object, mine: _Projection) -> Issued:
        """Ask until there is an answer. Raises _Refused."""
        if source["keyType"].startswith("RSA"):  # takes seconds
            csr, key = await asyncio.to_thread(pki.empty_request, source["keyType"])
        else:
            csr, key = pki.empty_request(source["keyType"])
        delay = _FIRST
        while True:
            try:
                made = await self._ask(pod, source, csr)
                mine.trouble = ""
                status = await self._answer(made)
                if status is not None:
                    chain = _chain(status["certificateChain"])
                    begin, end = (rfc3339_parse(status[f]) for f in ("beginRefreshAt", "notAfter"))
                    return Issued(payload.Credential(key, chain), begin, end)
                mine.trouble = f'PodCertificateRequest "{_key(made)}" was deleted'
            except ApiError as error:
                mine.trouble = error.message
            except (OSError, EOFError) as error:
                mine.trouble = str(error) or type(error).__name__
            await self._clock.sleep(self._ids.jitter(delay, 0.5))
            delay = min(delay * 2, _LIMIT)

    async def _ask(self, pod: Object, source: Object, csr: bytes) -> Object:
        """The request as it was made. Raises ApiError, OSError, EOFError."""
        node, namespace = self._node(), meta.namespace(pod)
        name = pod["spec"].get("serviceAccountName") or "default"
        account = await self._client.get("serviceaccounts", name, namespace)
        spec: Object = {
            "signerName": source["signerName"],
            "podName": meta.name(pod),
            "podUID": meta.uid(pod),
            "serviceAccountName": name,
            "serviceAccountUID": meta.uid(account),
            "nodeName": meta.name(node),
            "nodeUID": meta.uid(node),
            "stubPKCS10Request": base64.b64encode(csr).decode(),
        }
        for there, here in (("maxExpirationSeconds",) * 2, ("unverifiedUserAnnotations", "userAnnotations")):
            if source.get(here):
                spec[there] = source[here]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": meta.name(pod), "uid": meta.uid(pod)}
        request = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "PodCertificateRequest",
            "metadata": {"generateName": "req-", "ownerReferences": [owner]},
            "spec": spec,
        }
        return await self._client.create(_REQUESTS, request, namespace)

    async def _answer(self, made: Object) -> Object | None:
        """The status that holds the certificate; None when the request has gone. Raises _Refused."""
        uid = meta.uid(made)
        fields = f"metadata.name={meta.name(made)},spec.nodeName={made['spec']['nodeName']}"
        changes = follow(self._client, self._clock, _REQUESTS, meta.namespace(made), fields=fields)
        async with contextlib.aclosing(changes):
            async for kind, obj, present in changes:
                if kind == "DELETED" or (present is not None and uid not in present):
                    return None
                if obj is None or meta.uid(obj) != uid:
                    continue
                for verdict in meta.conditions(obj):
                    if verdict["type"] == "Issued":
                        status: Object = obj["status"]
                        return status
                    if verdict["type"] in ("Denied", "Failed"):
                        raise _refusal(obj, verdict)
        return None


def _refusal(obj: Object, verdict: Object) -> _Refused:
    denied = verdict["type"] == "Denied"
    reason, message = verdict.get("reason", ""), verdict.get("message", "")
    told = f"PodCertificateRequest {_key(obj)} {'was denied' if denied else 'failed'}, "
    text = f"PodCertificateRequest was permanently {'denied' if denied else 'failed'}: "
    why = f'reason="{reason}"', f'message="{message}"'
    return _Refused(verdict["type"], told + ", ".join(why), text + " ".join(why))


def _key(obj: Object) -> str:
    return f"{meta.namespace(obj)}/{meta.name(obj)}"


def _chain(text: str) -> bytes:
    """The certificates alone: a signer may have written about them."""
    return "".join(ssl.DER_cert_to_PEM_cert(body) for _, body in pki.pem_blocks(text)).encode()
