"""One of several acts: whoever holds a Lease leads, renews it, and stops at once when it cannot.

Source: coordination.k8s.io/v1 Lease and the rules of client-go's leader election. Clocks of candidates are not compared:
a lease has run out when it was seen unchanged for its whole duration by the candidate's own clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339_micro
from sampan.base.ids import Ids
from sampan.client.client import Client, Object

_LEASES = "leases.coordination.k8s.io"
_TRANSIENT = (ApiError, OSError, EOFError, TimeoutError)

log = logging.getLogger(__name__)


class LeaderElector:
    """A candidate called `identity` for the Lease `name`. Times are in seconds.

    A lease lasts `duration`; its holder renews it every `retry` and gives up after failing for `deadline`.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        clock: Clock,
        ids: Ids,
        namespace: str = "kube-system",
        duration: float = 15.0,
        deadline: float = 10.0,
        retry: float = 2.0,
    ) -> None:
        self.leading = False
        self._client = client
        self._name = name
        self._identity = identity
        self._clock = clock
        self._ids = ids
        self._namespace = namespace
        self._duration = duration
        self._deadline = deadline
        self._retry = retry
        self._seen: Object = {}  # spec of the lease when it last changed
        self._seen_at = 0.0  # monotonic

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease and run `lead` while it is held. Returns when it was lost or `lead` ended.

        `lead` is cancelled when the lease is lost; cancelling `run` gives the lease back.
        """
        while not await self._try():
            await self._clock.sleep(self._ids.jitter(self._retry, 1.2))
        log.info("%s leads %s", self._identity, self._name)
        self.leading = True
        acting = asyncio.ensure_future(lead())
        renewing = asyncio.ensure_future(self._keep())
        try:
            await asyncio.wait((acting, renewing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.leading = False
            held = not renewing.done()
            for task in (acting, renewing):
                task.cancel()
            await asyncio.gather(acting, renewing, return_exceptions=True)
            if held:
                await self._release()
        if acting.done() and not acting.cancelled():
            acting.result()

    async def _keep(self) -> None:
        """Returns when the lease could not be renewed in time."""
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < self._deadline:
            await self._clock.sleep(self._retry)
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(self._deadline - (self._clock.monotonic() - renewed)):
                    if await self._try():
                        renewed = self._clock.monotonic()
        log.error("%s lost %s", self._identity, self._name)

    async def _try(self) -> bool:
        """Take or renew the lease; False when another holds it or the server did not take our word."""
        try:
            return await self._try_once()
        except _TRANSIENT as error:
            log.info("lease %s: %s", self._name, error)
            return False

    async def _try_once(self) -> bool:
        now = rfc3339_micro(self._clock.now())
        try:
            lease = await self._client.get(_LEASES, self._name, self._namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            metadata = {"name": self._name, "namespace": self._namespace}
            made = await self._client.create(
                _LEASES,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": metadata,
                    "spec": self._spec({}, now),
                },
            )
            self._observe(made["spec"])
            return True
        spec = lease.get("spec") or {}
        self._observe(spec)
        holder = spec.get("holderIdentity")
        lasts = float(spec.get("leaseDurationSeconds") or self._duration)
        if holder and holder != self._identity and self._clock.monotonic() < self._seen_at + lasts:
            return False
        updated = await self._client.update(_LEASES, {**lease, "spec": self._spec(spec, now)})
        self._observe(updated["spec"])
        return True

    def _spec(self, old: Object, now: str) -> Object:
        same = old.get("holderIdentity") == self._identity
        changes = int(old.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._duration),
            "acquireTime": old.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": changes if same or not old else changes + 1,
        }

    def _observe(self, spec: Object) -> None:
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock.monotonic()

    async def _release(self) -> None:
        """Let the next one lead without waiting; when that fails, the lease runs out."""
        try:
            lease = await self._client.get(_LEASES, self._name, self._namespace)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self._identity:
                spec = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.update(_LEASES, {**lease, "spec": spec})
        except _TRANSIENT as error:
            log.info("lease %s was not given back: %s", self._name, error)
